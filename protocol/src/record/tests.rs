use super::*;

const LIMIT: usize = 1 << 20;
const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

fn build(params: BatchParams, count: i64) -> Bytes {
    let mut builder = BatchBuilder::new(params);
    let headers = [
        RecordHeader::new("trace", "abc"),
        RecordHeader { key: Bytes::from_static(b"\xff"), value: None },
    ];
    for i in 0..count {
        let key = format!("key-{i}");
        let size = builder.size();
        let more = builder.size_of(Timestamp(1000 - i), Some(key.as_bytes()), None, &headers);
        builder.push(Timestamp(1000 - i), Some(key.as_bytes()), None, &headers);
        assert_eq!(builder.size(), size + more);
    }
    builder.build().freeze()
}

#[test]
fn a_batch_of_every_codec_comes_back() {
    for compression in CODECS {
        let params = BatchParams {
            base_offset: Offset(42),
            leader_epoch: LeaderEpoch(3),
            compression,
            producer_id: ProducerId(7),
            producer_epoch: ProducerEpoch(1),
            base_sequence: 5,
            is_transactional: true,
            ..BatchParams::default()
        };
        let batch = build(params, 100);
        let header = BatchHeader::parse(&batch).expect("a header");
        batch::check_crc(&header, &batch).expect("the right CRC");
        assert_eq!(header.size(), batch.len());
        assert_eq!(header.compression(), Some(compression));
        assert_eq!(header.last_offset(), Offset(141));
        assert_eq!(
            (header.base_timestamp, header.max_timestamp),
            (Timestamp(1000), Timestamp(1000))
        );
        assert!(header.is_transactional() && !header.is_control());
        check_producer_header(&header).expect("a producer may write it");
        let records = decode_records(&header, &batch, LIMIT).expect("records");
        assert_eq!(records.len(), 100);
        assert_eq!(records[9].offset(&header), Offset(51));
        assert_eq!(records[9].timestamp(&header), Timestamp(991));
        assert_eq!(records[9].key.as_deref(), Some(&b"key-9"[..]));
        assert_eq!(records[9].value, None);
        assert_eq!(records[9].headers[0].key_text(), "trace");
        assert_eq!(records[9].headers[1].key_text(), "\u{fffd}");
        let mut scratch = Vec::new();
        let payload = Payload::expand(&header, &batch, LIMIT, &mut scratch).expect("records");
        check_consecutive(&payload).expect("consecutive offsets");
        assert_eq!(payload.iter().count(), 100);
    }
}

#[test]
fn log_append_time_is_the_time_of_every_record() {
    let params = BatchParams { log_append_time: Some(Timestamp(5555)), ..BatchParams::default() };
    let batch = build(params, 2);
    let header = BatchHeader::parse(&batch).expect("a header");
    assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    let records = decode_records(&header, &batch, LIMIT).expect("records");
    assert!(records.iter().all(|record| record.timestamp(&header) == Timestamp(5555)));
}

#[test]
fn a_compacted_batch_keeps_its_last_offset() {
    let mut builder = BatchBuilder::new(BatchParams {
        base_offset: Offset(10),
        delete_horizon: Some(Timestamp(99)),
        ..BatchParams::default()
    });
    builder.push_at(3, Timestamp(50), Some(b"k"), None, &[]);
    builder.set_last_offset(Offset(20));
    let batch = builder.build().freeze();
    let header = BatchHeader::parse(&batch).expect("a header");
    assert!(header.has_delete_horizon());
    assert_eq!((header.base_timestamp, header.last_offset()), (Timestamp(99), Offset(20)));
    let records = decode_records(&header, &batch, LIMIT).expect("records");
    assert_eq!(records[0].offset(&header), Offset(13));
    assert_eq!(records[0].timestamp(&header), Timestamp(50));
    assert!(check_producer_header(&header).is_err());
}

/// Reads a batch of these record bytes, said to be `count`.
fn read(records: &[u8], count: i32) -> Result<Vec<Record>, BatchError> {
    let mut batch = BytesMut::from(&build(BatchParams::default(), 0)[..]);
    batch.extend_from_slice(records);
    let length = (batch.len() - LOG_OVERHEAD) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    let batch = batch.freeze();
    decode_records(&BatchHeader::parse(&batch)?, &batch, LIMIT)
}

#[test]
fn malformed_records_are_refused() {
    // Length 6: attributes, timestamp delta, offset delta, key -1, value -1, headers 0.
    const GOOD: [u8; 7] = [12, 0, 0, 0, 1, 1, 0];
    assert_eq!(read(&GOOD, 1), Ok(vec![Record::default()]));
    // A negative length other than -1 is null too, as in Kafka.
    assert_eq!(read(&[12, 0, 0, 0, 3, 5, 0], 1), Ok(vec![Record::default()]));
    let cases: &[(&str, &[u8], i32)] = &[
        ("no record of one", &[], 1),
        ("a negative count", &GOOD, -1),
        ("more bytes than records", &[GOOD, GOOD].concat(), 1),
        ("fewer bytes than records", &GOOD, 2),
        ("bytes in an empty batch", &GOOD, 0),
        ("a negative record length", &[1, 0, 0, 0, 1, 1, 0], 1),
        ("a record length past the end", &[14, 0, 0, 0, 1, 1, 0], 1),
        ("a record longer than its fields", &[14, 0, 0, 0, 1, 1, 0, 0], 1),
        ("a record shorter than its fields", &[10, 0, 0, 0, 1, 1, 0], 1),
        ("a key past the end", &[12, 0, 0, 0, 100, 1, 0], 1),
        ("a negative header count", &[12, 0, 0, 0, 1, 1, 1], 1),
        ("more headers than bytes", &[12, 0, 0, 0, 1, 1, 126], 1),
        ("a null header key", &[16, 0, 0, 0, 1, 1, 2, 1, 1], 1),
        ("a varint without end", &[0xff; 12], 1),
    ];
    for (name, records, count) in cases {
        let result = read(records, *count);
        assert!(matches!(result, Err(BatchError::Invalid(_))), "{name}: {result:?}");
    }
}

#[test]
fn a_producers_header_must_agree_with_itself() {
    let good = BatchHeader::parse(&build(BatchParams::default(), 3)).expect("a header");
    check_producer_header(&good).expect("a sound header");
    let cases = [
        BatchHeader { last_offset_delta: 1, ..good },
        BatchHeader { last_offset_delta: -1, ..good },
        BatchHeader { records_count: 0, last_offset_delta: -1, ..good },
        BatchHeader { records_count: -1, ..good },
        BatchHeader { attributes: 32, ..good },
        BatchHeader { attributes: 5, ..good },
        BatchHeader { producer_id: ProducerId(1), ..good },
    ];
    for header in cases {
        assert!(check_producer_header(&header).is_err(), "{header:?}");
    }
}

#[test]
fn offsets_with_gaps_are_not_consecutive() {
    let mut builder = BatchBuilder::new(BatchParams::default());
    builder.push(Timestamp(1), None, Some(b"a"), &[]);
    builder.push_at(2, Timestamp(1), None, Some(b"b"), &[]);
    let batch = builder.build();
    let header = BatchHeader::parse(&batch).expect("a header");
    let mut scratch = Vec::new();
    let payload = Payload::expand(&header, &batch, LIMIT, &mut scratch).expect("records");
    assert!(matches!(check_consecutive(&payload), Err(BatchError::Invalid(_))));
}

#[test]
fn a_batch_that_expands_past_the_limit_is_refused() {
    for compression in CODECS {
        let mut builder = BatchBuilder::new(BatchParams { compression, ..BatchParams::default() });
        builder.push(Timestamp(1), None, Some(&vec![0; 4 * LIMIT]), &[]);
        let batch = builder.build().freeze();
        let header = BatchHeader::parse(&batch).expect("a header");
        let result = decode_records(&header, &batch, LIMIT);
        if compression == Compression::None {
            // Nothing expands: the size of what was sent is bounded elsewhere.
            assert!(result.is_ok());
        } else {
            assert_eq!(result, Err(BatchError::TooLarge { limit: LIMIT }));
        }
    }
}

#[test]
fn batches_of_kafkas_own_codecs_are_read() {
    let segment = Bytes::from_static(include_bytes!("../../testdata/records/codecs.log"));
    let mut codecs = std::collections::BTreeSet::new();
    let mut offset = 0;
    for batch in batch::batches(&segment) {
        let (header, bytes) = batch.expect("whole batches");
        batch::check_crc(&header, bytes).expect("the right CRC");
        let codec = header.compression().expect("a codec");
        let records = decode_records(&header, &segment.slice_ref(bytes), LIMIT).expect("records");
        for record in &records {
            assert_eq!(record.offset(&header), Offset(offset));
            let line = format!(
                "line {} of a text of {} that repeats, repeats, repeats and repeats",
                offset % 12 + 1,
                format!("{codec:?}").to_lowercase()
            );
            assert_eq!(record.value.as_deref(), Some(line.as_bytes()));
            offset += 1;
        }
        codecs.insert(codec as i16);
    }
    assert_eq!((offset, codecs.len()), (60, 5));
}
