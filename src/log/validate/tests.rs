//! Which batches a leader takes, by Kafka's rules.

use super::*;
use ottla_protocol::batch::{set_crc, set_max_timestamp};
use ottla_protocol::{ErrorCode, ProducerEpoch, ProducerId};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn batch_with(params: BatchParams, timestamps: &[i64], key: Option<&[u8]>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(params);
    for timestamp in timestamps {
        builder.push(Timestamp(*timestamp), key, Some(b"value"), &[]);
    }
    builder.build().to_vec()
}

fn plain() -> Vec<u8> {
    batch_with(BatchParams::default(), &[NOW.0, NOW.0 + 1], Some(b"key"))
}

fn edited(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = plain();
    edit(&mut bytes);
    set_crc(&mut bytes);
    bytes
}

fn run(bytes: Vec<u8>, config: &LogConfig) -> Result<Validated, AppendError> {
    let origin = AppendOrigin::Client;
    let rules = Rules { config, origin, now: NOW, topic: "events", partition: 0 };
    validate(&Bytes::from(bytes), &rules)
}

fn check(bytes: Vec<u8>, config: &LogConfig, expected: Option<ErrorCode>) {
    let result = run(bytes, config).map(|_| ()).map_err(|error| error.error_code());
    assert_eq!(result.err(), expected);
}

#[test]
fn malformed_batches_are_refused() {
    let config = LogConfig::default();
    check(plain(), &config, None);
    check(Vec::new(), &config, Some(ErrorCode::InvalidRecord));
    check(plain()[..70].to_vec(), &config, Some(ErrorCode::InvalidRecord));
    check([plain(), plain()].concat(), &config, Some(ErrorCode::InvalidRecord));
    check([plain(), plain()[..30].to_vec()].concat(), &config, None);
    let mut flipped = plain();
    flipped[70] ^= 1;
    check(flipped, &config, Some(ErrorCode::CorruptMessage));
    let mut length = plain();
    length[8..12].copy_from_slice(&5i32.to_be_bytes());
    check(length, &config, Some(ErrorCode::CorruptMessage));
    let mut magic = plain();
    magic[16] = 1;
    check(magic, &config, Some(ErrorCode::InvalidRecord));
    let mut magic = plain();
    magic[16] = 9;
    check(magic, &config, Some(ErrorCode::CorruptMessage));
    check(edited(|b| b[7] = 1), &config, Some(ErrorCode::InvalidRecord));
    check(edited(|b| b[26] = 5), &config, Some(ErrorCode::InvalidRecord));
    check(edited(|b| b[60] = 0), &config, Some(ErrorCode::InvalidRecord));
    check(edited(|b| b[22] |= 32), &config, Some(ErrorCode::InvalidRecord));
    check(edited(|b| b[22] |= 7), &config, Some(ErrorCode::UnsupportedCompressionType));
    // Two records where the header, truthfully consistent in itself, says three.
    check(edited(|b| (b[26], b[60]) = (2, 3)), &config, Some(ErrorCode::InvalidRecord));
    let params = BatchParams {
        producer_id: ProducerId(1),
        producer_epoch: ProducerEpoch(0),
        ..BatchParams::default()
    };
    check(batch_with(params, &[NOW.0], None), &config, Some(ErrorCode::InvalidRecord));
}

#[test]
fn sizes_are_bounded_as_sent_and_as_stored() {
    let size = plain().len() as i32;
    let config = LogConfig { max_message_bytes: size, ..LogConfig::default() };
    check(plain(), &config, None);
    let config = LogConfig { max_message_bytes: size - 1, ..LogConfig::default() };
    check(plain(), &config, Some(ErrorCode::MessageTooLarge));
    let params = BatchParams { compression: Compression::Gzip, ..BatchParams::default() };
    let mut builder = BatchBuilder::new(params);
    builder.push(NOW, None, Some(&[b'a'; 10_000]), &[]);
    let config = LogConfig {
        compression: CompressionTarget::Codec { codec: Compression::Zstd, level: None },
        max_decompressed_message_bytes: 5000,
        ..LogConfig::default()
    };
    check(builder.build().to_vec(), &config, Some(ErrorCode::MessageTooLarge));
}

#[test]
fn timestamps_are_within_their_bounds() {
    let config = LogConfig {
        message_timestamp_before_max_ms: 1000,
        message_timestamp_after_max_ms: 500,
        ..LogConfig::default()
    };
    let with = |timestamps: &[i64]| batch_with(BatchParams::default(), timestamps, None);
    check(with(&[NOW.0 - 1000, NOW.0 + 500]), &config, None);
    check(with(&[-1]), &config, None);
    check(with(&[NOW.0, NOW.0 + 501]), &config, Some(ErrorCode::InvalidTimestamp));
    let error = run(with(&[NOW.0, NOW.0 - 1001, NOW.0]), &config).unwrap_err();
    assert_eq!(error.error_code(), ErrorCode::InvalidTimestamp);
    let indexes: Vec<i32> = error.record_errors().iter().map(|record| record.batch_index).collect();
    assert_eq!(indexes, [1]);
    let config = LogConfig::default();
    check(with(&[0]), &config, None);
    check(with(&[NOW.0 + 3_600_001]), &config, Some(ErrorCode::InvalidTimestamp));
}

#[test]
fn compacted_topics_need_keys() {
    let mut config = LogConfig::default();
    config.cleanup_policy.compact = true;
    check(plain(), &config, None);
    let error = run(batch_with(BatchParams::default(), &[NOW.0; 3], None), &config).unwrap_err();
    assert_eq!((error.error_code(), error.record_errors().len()), (ErrorCode::InvalidRecord, 3));
}

#[test]
fn log_append_time_is_set_without_touching_the_records() {
    let config =
        LogConfig { message_timestamp_type: TimestampType::LogAppendTime, ..LogConfig::default() };
    let sent = plain();
    let validated = run(sent.clone(), &config).unwrap();
    let BatchBytes::NewHeader(front, rest) = validated.bytes else { panic!("header is not new") };
    assert_eq!(rest, sent[BATCH_OVERHEAD..]);
    let mut expected = sent;
    set_max_timestamp(&mut expected, TimestampType::LogAppendTime, NOW);
    assert_eq!([&front[..], &rest[..]].concat(), expected);
    let marked = edited(|b| b[22] |= 8);
    check(marked, &config, Some(ErrorCode::InvalidTimestamp));
}

#[test]
fn batches_are_built_anew_only_for_another_codec() {
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for sent_codec in codecs {
        let params = BatchParams { compression: sent_codec, ..BatchParams::default() };
        let sent = batch_with(params, &[NOW.0, NOW.0 + 7], Some(b"key"));
        for codec in codecs {
            let compression = CompressionTarget::Codec { codec, level: None };
            let config = LogConfig { compression, ..LogConfig::default() };
            let validated = run(sent.clone(), &config).unwrap();
            let BatchBytes::AsSent(bytes) = validated.bytes else {
                panic!("only the header is new")
            };
            assert_eq!(bytes == sent, codec == sent_codec);
            assert_eq!(validated.header.compression(), Some(codec));
            assert_eq!(validated.header.max_timestamp, Timestamp(NOW.0 + 7));
            check_crc(&validated.header, &bytes).unwrap();
            let records =
                ottla_protocol::record::decode_records(&validated.header, &bytes, 1000).unwrap();
            assert_eq!(records.len(), 2);
            assert_eq!(records[1].value.as_deref(), Some(&b"value"[..]));
        }
    }
}
