use super::*;
use crate::log::LogConfig;
use crate::log::tests::{Fixture, NOW, append, batch};
use ottla_protocol::batch::batches;

fn one_segment() -> Fixture {
    let fixture = Fixture::new();
    let config = LogConfig {
        segment_bytes: 1 << 20,
        segment_index_bytes: 10_000,
        index_interval_bytes: 300,
        ..fixture.config.clone()
    };
    Fixture { config, ..fixture }
}

#[test]
fn a_region_ends_with_the_last_whole_batch_within_the_limit() {
    let fixture = one_segment();
    let mut log = fixture.open();
    for n in 0..300 {
        append(&mut log, batch(2, NOW.0 + n)).unwrap();
    }
    let check = |log: &Log| {
        let end = log.log_end_offset();
        let one = log.read(Offset(0), 1, MinOne::Yes, end).unwrap().unwrap().len;
        for max in [one, one * 2 - 1, one * 2, one * 7 + 1, one * 40 + 5] {
            for start in [Offset(0), Offset(31)] {
                let mut offset = start;
                let mut seen = 0;
                while let Some(slice) = log.read(offset, max, MinOne::No, end).unwrap() {
                    let bytes = slice.to_bytes().unwrap();
                    assert!(slice.len <= slice.available && slice.available <= max);
                    for batch in batches(&bytes) {
                        let (header, _) = batch.unwrap();
                        assert!(header.base_offset <= offset && offset < header.next_offset());
                        offset = header.next_offset();
                        seen += 1;
                    }
                }
                assert_eq!((offset, seen), (end, 300 - start.0 / 2));
            }
        }
    };
    check(&log);
    log.close(NOW).unwrap();
    drop(log);
    check(&fixture.open_clean());
}

#[test]
fn a_reader_goes_on_after_a_truncation() {
    let fixture = one_segment();
    let mut log = fixture.open();
    for n in 0..100 {
        append(&mut log, batch(2, NOW.0 + n)).unwrap();
    }
    let read = |log: &Log, offset: i64| {
        log.read(Offset(offset), 1000, MinOne::Yes, log.log_end_offset()).unwrap().unwrap()
    };
    let next = batches(&read(&log, 0).to_bytes().unwrap()).last().unwrap().unwrap().0.next_offset();
    log.truncate_to(next.plus(-1), NOW).unwrap();
    for n in 0..100 {
        append(&mut log, batch(5, NOW.0 + n)).unwrap();
    }
    let slice = read(&log, next.0);
    let bytes = slice.to_bytes().unwrap();
    let (first, _) = batches(&bytes).next().unwrap().unwrap();
    assert_eq!(first.base_offset, next.plus(-2));
    assert_eq!(first.records_count, 5);
}
