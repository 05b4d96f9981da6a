//! Targets of the protocol crate. `protocol/tests/fuzz.rs` runs them on a stable compiler too.
//!
//! Each takes any bytes, and panics when decoding does, when something decoded does not come back
//! from its own bytes, or when a limit was passed.

use bytes::{Bytes, BytesMut};
use ottla_protocol::batch::{self, BatchHeader, Compression};
use ottla_protocol::generated::SCHEMA_APIS;
use ottla_protocol::record::{
    BatchBuilder, BatchParams, Payload, check_consecutive, check_producer_header, decode_records,
};
use ottla_protocol::records::consumer_protocol::{decode_assignment, decode_subscription};
use ottla_protocol::records::control::ControlRecord;
use ottla_protocol::records::group::GroupRecord;
use ottla_protocol::records::metadata::{decode_metadata_record, encode_metadata_record};
use ottla_protocol::records::transaction::TransactionRecord;
use ottla_protocol::request::{self, AnyResponse};
use ottla_protocol::{Reader, Writer, compression, frame};

/// What batches may expand to here, in bytes.
const LIMIT: usize = 1 << 16;

/// A stream of frames, read in steps of the size in the first byte; each is taken for a request.
pub fn frames(data: &[u8]) {
    const MAX: usize = 4096;
    let Some((step, stream)) = data.split_first() else {
        return;
    };
    let mut buf = BytesMut::new();
    for part in stream.chunks(usize::from(*step).max(1)) {
        buf.extend_from_slice(part);
        loop {
            match frame::next_frame(&mut buf, MAX) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= MAX);
                    let _ = request::try_decode_any(frame);
                }
                Ok(None) => {
                    let missing = frame::missing(&buf, MAX).expect("the same bytes were sound");
                    assert!(missing > 0 && missing <= MAX + frame::LENGTH_BYTES);
                    break;
                }
                Err(_) => return,
            }
        }
    }
}

/// One request, header and body.
pub fn requests(data: &[u8]) {
    let Ok((header, body)) = request::try_decode_any(Bytes::copy_from_slice(data)) else {
        return;
    };
    let version = header.api_version;
    let frame = |body| {
        let client_id = header.client_id.as_deref();
        request::write_any_request(header.correlation_id, client_id, version, body)
            .freeze()
            .slice(frame::LENGTH_BYTES..)
    };
    let bytes = frame(&body);
    let (again, back) = request::try_decode_any(bytes.clone()).expect("our own bytes");
    assert_eq!(again, header);
    assert_eq!(frame(&back), bytes);
}

/// One response: the first two bytes choose API and version.
pub fn responses(data: &[u8]) {
    let [api, version, body @ ..] = data else {
        return;
    };
    let (api, low, _, high, _) = SCHEMA_APIS[usize::from(*api) % SCHEMA_APIS.len()];
    let version = low + i16::from(*version) % (high - low + 1);
    let decode = |bytes| AnyResponse::decode(api, &mut Reader::new(bytes), version);
    let encode = |response: &AnyResponse| {
        let mut w = Writer::default();
        response.encode(&mut w, version);
        w.freeze()
    };
    if let Ok(response) = decode(Bytes::copy_from_slice(body)) {
        let bytes = encode(&response);
        let back = decode(bytes.clone()).expect("our own bytes");
        assert_eq!(encode(&back), bytes);
    }
}

/// Bytes of a segment: whole batches, then anything. Their CRCs are made right, or no change would
/// ever reach the records. Then the same bytes as the records of a batch of each codec.
pub fn batches(data: &[u8]) {
    let mut segment = data.to_vec();
    let mut at = 0;
    while let Ok(header) = BatchHeader::parse(&segment[at..]) {
        let Some(whole) = segment.get_mut(at..at + header.size()) else {
            break;
        };
        batch::set_crc(whole);
        batch::check_crc(&BatchHeader::parse(whole).expect("a header"), whole).expect("its CRC");
        at += header.size();
    }
    let segment = Bytes::from(segment);
    for batch in batch::batches(&segment) {
        let Ok((header, whole)) = batch else {
            break;
        };
        one_batch(&header, &segment.slice_ref(whole));
    }
    let [bits, count, records @ ..] = data else {
        return;
    };
    let codec = Compression::from_bits(i16::from(*bits) % 5).expect("bits of a codec");
    let mut whole = BatchBuilder::new(BatchParams { compression: codec, ..Default::default() })
        .build()
        .to_vec();
    whole.truncate(batch::BATCH_OVERHEAD);
    whole.extend(compression::compress(codec, compression::default_level(codec), records));
    let length = (whole.len() - batch::LOG_OVERHEAD) as i32;
    whole[8..12].copy_from_slice(&length.to_be_bytes());
    whole[57..61].copy_from_slice(&i32::from(*count).to_be_bytes());
    let header = BatchHeader::parse(&whole).expect("a header");
    one_batch(&header, &Bytes::from(whole));
}

fn one_batch(header: &BatchHeader, whole: &Bytes) {
    let _ = check_producer_header(header);
    let decoded = decode_records(header, whole, LIMIT);
    let mut scratch = Vec::new();
    let payload = Payload::expand(header, whole, LIMIT, &mut scratch);
    if let Ok(payload) = &payload {
        let is_sound = payload.iter().all(|record| record.is_ok());
        assert_eq!(is_sound, decoded.is_ok());
        assert!(is_sound || check_consecutive(payload).is_err());
    }
    if let Ok(records) = &decoded {
        assert_eq!(records.len(), usize::try_from(header.records_count).expect("a count"));
        assert!(payload.is_ok());
    }
    assert!(scratch.capacity() <= LIMIT);
}

/// Compressed bytes; the first byte chooses the codec, the next two the limit.
pub fn codecs(data: &[u8]) {
    let [codec, high, low, rest @ ..] = data else {
        return;
    };
    let codec = Compression::from_bits(i16::from(*codec) % 5).expect("bits of a codec");
    let limit = usize::from(*high) << 8 | usize::from(*low);
    let mut out = Vec::new();
    if compression::decompress_into(codec, rest, limit, &mut out).is_ok() {
        assert!(out.len() <= limit);
        let data = compression::compress(codec, compression::default_level(codec), &out);
        let again = compression::decompress(codec, &data, limit).expect("our own bytes");
        assert_eq!(again, out);
    }
    assert!(out.capacity() <= limit);
}

/// A record of an internal topic: the first byte is the key's length.
pub fn records(data: &[u8]) {
    let Some((key, rest)) = data.split_first() else {
        return;
    };
    let (key, value) = rest.split_at(usize::from(*key).min(rest.len()));
    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    if let Ok((record, version)) = decode_metadata_record(value.clone()) {
        let bytes = encode_metadata_record(&record, version);
        let (back, _) = decode_metadata_record(bytes.clone()).expect("our own bytes");
        assert_eq!(encode_metadata_record(&back, version), bytes);
    }
    if let Ok(record) = ControlRecord::decode(&key, &value) {
        ControlRecord::decode(&record.key(), &record.value()).expect("our own bytes");
    }
    for value in [Some(&value), None] {
        if let Ok(record) = GroupRecord::decode(&key, value) {
            let (key, value) = record.encode();
            GroupRecord::decode(&key, value.as_ref()).expect("our own bytes");
        }
        if let Ok(record) = TransactionRecord::decode(&key, value) {
            let (key, value) = record.encode(1);
            TransactionRecord::decode(&key, value.as_ref()).expect("our own bytes");
        }
    }
    let _ = decode_subscription(&value);
    let _ = decode_assignment(&value);
}

/// A target and its name.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this module.
pub const TARGETS: [Target; 6] = [
    ("frames", frames),
    ("requests", requests),
    ("responses", responses),
    ("batches", batches),
    ("codecs", codecs),
    ("records", records),
];

/// Inputs to begin with, by target, from the protocol crate's `testdata`.
pub fn seeds(testdata: &std::path::Path) -> std::io::Result<Vec<(&'static str, Vec<u8>)>> {
    let mut seeds = Vec::new();
    for path in files(&testdata.join("golden"))? {
        let mut api = 0;
        for line in std::fs::read_to_string(path)?.lines() {
            let mut words = line.split(' ');
            let (Some(version), Some(side), Some(frame)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let (version, frame) = (version.parse::<i16>().unwrap_or(0), unhex(frame));
            if side == "request" {
                // A response stands after the request of its API.
                let key = i16::from_be_bytes([frame[0], frame[1]]);
                let found = SCHEMA_APIS.iter().position(|(api, ..)| *api as i16 == key);
                api = found.unwrap_or(0);
                let length = (frame.len() as u32).to_be_bytes();
                seeds.push(("frames", [&[200][..], &length, &frame].concat()));
                seeds.push(("requests", frame));
            } else {
                let head = [api as u8, (version - SCHEMA_APIS[api].1) as u8];
                seeds.push(("responses", [&head[..], &frame[4..]].concat()));
            }
        }
    }
    for path in files(&testdata.join("records"))? {
        let segment = Bytes::from(std::fs::read(path)?);
        seeds.push(("batches", segment.to_vec()));
        for batch in batch::batches(&segment) {
            let Ok((header, whole)) = batch else {
                break;
            };
            let bits = (header.attributes & 7) as u8;
            let records = &whole[batch::BATCH_OVERHEAD..];
            seeds.push(("batches", whole.to_vec()));
            seeds.push(("codecs", [&[bits, 0xff, 0xff][..], records].concat()));
            if bits == 0 {
                let head = [0, header.records_count as u8];
                seeds.push(("batches", [&head[..], records].concat()));
            }
            let records = decode_records(&header, &segment.slice_ref(whole), LIMIT);
            for record in records.unwrap_or_default() {
                let key = record.key.unwrap_or_default();
                let value = record.value.unwrap_or_default();
                seeds.push(("records", [&[key.len() as u8][..], &key, &value].concat()));
            }
        }
    }
    Ok(seeds)
}

fn files(folder: &std::path::Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
