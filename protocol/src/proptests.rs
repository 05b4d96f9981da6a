//! Properties that hold for every message and version, and for batches of every codec.
//!
//! Bytes of a peer may be anything: decoding them gives a message or an error, never a panic, and
//! takes memory in proportion to the bytes.

use bytes::Bytes;
use proptest::prelude::*;

use crate::batch::{BatchHeader, Compression};
use crate::compression;
use crate::frame;
use crate::generated::{ApiKey, SCHEMA_APIS, for_each_message};
use crate::record::*;
use crate::records::control::ControlRecord;
use crate::records::group::GroupRecord;
use crate::records::metadata::{decode_metadata_record, encode_metadata_record};
use crate::records::transaction::TransactionRecord;
use crate::request;
use crate::types::{Offset, ProducerEpoch, ProducerId, Timestamp};
use crate::wire::{Message, Reader};

/// Reads and writes a message of one type.
struct Kind {
    name: &'static str,
    versions: (i16, i16),
    /// Encodes the default and reads it back.
    default_comes_back: fn(i16),
    /// Reads arbitrary bytes; where they are a message, it must come back from its own bytes.
    decodes_anything: fn(&Bytes, i16),
}

fn default_comes_back<M: Message + Default>(version: i16) {
    let bytes = M::default().to_bytes(version);
    let back = match M::from_bytes(bytes.clone(), version) {
        Ok(back) => back,
        Err(error) => panic!("{} version {version}: {error}", M::NAME),
    };
    assert_eq!(back.to_bytes(version), bytes, "{} version {version}", M::NAME);
    for length in 0..bytes.len() {
        // A message that is cut is an error, unless all it lacks is empty.
        let _ = M::from_bytes(bytes.slice(..length), version);
    }
}

fn decodes_anything<M: Message>(bytes: &Bytes, version: i16) {
    let mut r = Reader::new(bytes.clone());
    if let Ok(message) = M::decode(&mut r, version) {
        let again = message.to_bytes(version);
        let back = M::from_bytes(again.clone(), version);
        let back = back.unwrap_or_else(|error| panic!("{} version {version}: {error}", M::NAME));
        assert_eq!(back.to_bytes(version), again, "{} version {version}", M::NAME);
    }
}

macro_rules! kinds {
    ($($message:ty,)*) => {
        fn kinds() -> Vec<Kind> {
            vec![$(Kind {
                name: <$message as Message>::NAME,
                versions: <$message as Message>::VERSIONS,
                default_comes_back: default_comes_back::<$message>,
                decodes_anything: decodes_anything::<$message>,
            },)*]
        }
    };
}
for_each_message!(kinds);

#[test]
fn every_default_comes_back_in_every_version() {
    let kinds = kinds();
    assert!(kinds.len() > 200, "{} messages", kinds.len());
    for kind in kinds {
        for version in kind.versions.0..=kind.versions.1 {
            (kind.default_comes_back)(version);
        }
    }
}

#[test]
fn a_version_that_does_not_exist_is_an_error() {
    for (api, low, _, high, _) in SCHEMA_APIS {
        for version in [low - 1, high + 1, i16::MIN, i16::MAX] {
            let mut r = Reader::new(Bytes::from_static(&[0; 64]));
            assert!(request::decode_body(*api as i16, version, &mut r).is_err(), "{api:?}");
        }
    }
}

/// Bytes in which lengths, counts and varints are more often small than not, so that decoders
/// come far.
fn plausible_bytes(longest: usize) -> impl Strategy<Value = Bytes> {
    let byte = prop_oneof![
        6 => 0u8..4,
        2 => Just(0xff_u8),
        2 => any::<u8>(),
    ];
    proptest::collection::vec(byte, 0..longest).prop_map(Bytes::from)
}

fn any_codec() -> impl Strategy<Value = Compression> {
    (0i16..5).prop_map(|bits| Compression::from_bits(bits).expect("bits of a codec"))
}

fn any_bytes(longest: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..longest).prop_map(Bytes::from)
}

fn any_header() -> impl Strategy<Value = RecordHeader> {
    (any_bytes(20), proptest::option::of(any_bytes(20)))
        .prop_map(|(key, value)| RecordHeader { key, value })
}

fn any_record() -> impl Strategy<Value = Record> {
    (
        -1i64..2_000_000_000_000,
        proptest::option::of(any_bytes(40)),
        proptest::option::of(any_bytes(400)),
        proptest::collection::vec(any_header(), 0..4),
    )
        .prop_map(|(timestamp_delta, key, value, headers)| Record {
            timestamp_delta,
            key,
            value,
            headers,
            ..Record::default()
        })
}

fn build(params: BatchParams, records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(params);
    for record in records {
        builder.push(
            Timestamp(record.timestamp_delta),
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
    }
    builder.build().freeze()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_decodes_anything(bytes in plausible_bytes(120)) {
        for kind in kinds() {
            for version in kind.versions.0..=kind.versions.1 {
                (kind.decodes_anything)(&bytes, version);
            }
            prop_assert!(!kind.name.is_empty());
        }
    }

    #[test]
    fn records_decode_anything(key in plausible_bytes(80), value in plausible_bytes(200)) {
        if let Ok((record, version)) = decode_metadata_record(value.clone()) {
            let bytes = encode_metadata_record(&record, version);
            prop_assert!(decode_metadata_record(bytes).is_ok());
        }
        if let Ok(record) = GroupRecord::decode(&key, Some(&value)) {
            let (key, value) = record.encode();
            prop_assert!(GroupRecord::decode(&key, value.as_ref()).is_ok());
        }
        let _ = ControlRecord::decode(&key, &value);
        let _ = TransactionRecord::decode(&key, Some(&value));
    }

    #[test]
    fn requests_decode_anything(
        api in 0usize..SCHEMA_APIS.len(),
        version in any::<u8>(),
        rest in plausible_bytes(300),
    ) {
        let (key, low, _, high, _) = SCHEMA_APIS[api];
        let version = low + i16::from(version) % (high - low + 1);
        let mut frame = (key as i16).to_be_bytes().to_vec();
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&rest);
        if let Ok((header, body)) = request::try_decode_any(Bytes::from(frame)) {
            prop_assert_eq!(header.api(), Some(body.key()));
            let client_id = header.client_id.as_deref();
            let again = request::write_any_request(1, client_id, version, &body);
            prop_assert!(request::try_decode_any(again.freeze().slice(4..)).is_ok());
        }
        prop_assert!(ApiKey::from_code(key as i16).is_some());
    }

    #[test]
    fn frames_are_cut_from_anything(bytes in plausible_bytes(100), max in 0usize..200) {
        let mut buf = bytes::BytesMut::from(&bytes[..]);
        while let Ok(Some(frame)) = frame::next_frame(&mut buf, max) {
            prop_assert!(frame.len() <= max);
        }
    }

    #[test]
    fn batches_of_every_codec_come_back(
        compression in any_codec(),
        base_offset in 0i64..1 << 40,
        records in proptest::collection::vec(any_record(), 1..30),
    ) {
        let params = BatchParams {
            base_offset: Offset(base_offset),
            compression,
            producer_id: ProducerId(base_offset),
            producer_epoch: ProducerEpoch(3),
            base_sequence: i32::MAX - 3,
            ..BatchParams::default()
        };
        let batch = build(params, &records);
        let header = BatchHeader::parse(&batch).expect("a header");
        crate::batch::check_crc(&header, &batch).expect("the right CRC");
        let back = decode_records(&header, &batch, 1 << 20).expect("records");
        prop_assert_eq!(back.len(), records.len());
        for (index, (back, record)) in back.iter().zip(&records).enumerate() {
            prop_assert_eq!(back.offset_delta, index as i32);
            prop_assert_eq!(back.timestamp(&header), Timestamp(record.timestamp_delta));
            prop_assert_eq!(&back.key, &record.key);
            prop_assert_eq!(&back.value, &record.value);
            prop_assert_eq!(&back.headers, &record.headers);
        }
    }

    #[test]
    fn a_batch_with_bytes_changed_is_read_or_refused(
        compression in any_codec(),
        records in proptest::collection::vec(any_record(), 1..10),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let batch = build(BatchParams { compression, ..BatchParams::default() }, &records);
        let mut batch = batch.to_vec();
        for (index, byte) in changes {
            let at = index.index(batch.len());
            batch[at] = byte;
        }
        let batch = Bytes::from(batch);
        let mut scratch = Vec::new();
        if let Ok(header) = BatchHeader::parse(&batch) {
            let limit = 1 << 16;
            let decoded = decode_records(&header, &batch, limit);
            if let Ok(payload) = Payload::expand(&header, &batch, limit, &mut scratch) {
                let checked = check_consecutive(&payload);
                prop_assert!(checked.is_err() || decoded.is_ok());
            }
            prop_assert!(scratch.capacity() <= limit);
            let _ = check_producer_header(&header);
        }
    }

    #[test]
    fn codecs_expand_anything(
        compression in any_codec(),
        bytes in any_bytes(300),
        limit in 0usize..5000,
    ) {
        let mut out = Vec::new();
        if compression::decompress_into(compression, &bytes, limit, &mut out).is_ok() {
            prop_assert!(out.len() <= limit);
        }
        prop_assert!(out.capacity() <= limit.max(bytes.len()));
    }
}
