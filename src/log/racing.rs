//! Readers beside everything that changes a log: rolls, retention, cleaning, truncation. A reader finds its region
//! under the log's lock and reads the bytes after it has let go, as a fetch does.

use super::tests::{Fixture, NOW, client};
use super::*;
use bytes::Bytes;
use ottla_protocol::batch::{BatchHeader, batches, check_crc};
use ottla_protocol::record::{BatchBuilder, BatchParams, decode_records};
use parking_lot::RwLock;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Batches that are appended.
const BATCHES: i64 = 600;
const READERS: usize = 3;
const KEYS: i64 = 40;
const BUFFERS: CleaningBuffers =
    CleaningBuffers { map_bytes: 1 << 16, load_factor: 0.9, io_bytes: 256 };

struct Shared {
    log: RwLock<Log>,
    high_watermark: AtomicI64,
    is_done: AtomicBool,
}

/// What the record at an offset holds.
fn record_at(offset: i64) -> (String, String) {
    (format!("k{}", offset * 7 % KEYS), format!("value {offset}"))
}

fn batch_at(base_offset: i64, count: i64) -> Bytes {
    let mut builder = BatchBuilder::new(BatchParams::default());
    for offset in base_offset..base_offset + count {
        let (key, value) = record_at(offset);
        builder.push(NOW.plus_ms(offset), Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    }
    builder.build().freeze()
}

fn check_batch(header: &BatchHeader, bytes: &[u8]) {
    check_crc(header, bytes).unwrap();
    for record in decode_records(header, &Bytes::copy_from_slice(bytes), 1 << 20).unwrap() {
        let (key, value) = record_at(record.offset(header).0);
        assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
        assert_eq!(record.value.as_deref(), Some(value.as_bytes()));
    }
}

/// Reads from the log's start to its end, again and again until the writer is done; says how many batches it saw.
fn read_along(shared: &Shared, max_bytes: usize) -> usize {
    let (mut next, mut seen) = (Offset(0), 0);
    loop {
        let was_done = shared.is_done.load(Ordering::Acquire);
        let bound = Offset(shared.high_watermark.load(Ordering::Acquire));
        let (found, is_compacted) = {
            let log = shared.log.read();
            let is_compacted = log.config().cleanup_policy.compact;
            (log.read(next, max_bytes, MinOne::Yes, bound), is_compacted)
        };
        let slice = match found {
            Ok(Some(slice)) => slice,
            Ok(None) if was_done => return seen,
            Ok(None) => {
                std::thread::yield_now();
                continue;
            }
            Err(ReadError::OffsetOutOfRange { log_start_offset, .. }) => {
                assert!(log_start_offset > next, "only what was deleted is out of range");
                next = log_start_offset;
                continue;
            }
            Err(error) => panic!("a read at {next}: {error}"),
        };
        let bytes = slice.to_bytes().unwrap();
        let before = seen;
        for found in batches(&bytes) {
            // The last batch may be cut at the limit.
            let Ok((header, whole)) = found else { break };
            assert!(header.last_offset() >= next && header.last_offset() < bound);
            assert!(is_compacted || header.base_offset <= next, "a hole before {next}");
            check_batch(&header, whole);
            next = header.next_offset();
            seen += 1;
        }
        assert!(seen > before, "a read gives one whole batch at least");
    }
}

fn clean(shared: &Shared) {
    let cleaning = {
        let log = shared.log.read();
        let high_watermark = Offset(shared.high_watermark.load(Ordering::Acquire));
        let cleanable = log.cleanable(log.cleaner_checkpoint(), high_watermark, NOW).unwrap();
        cleanable.map(|cleanable| log.prepare_cleaning(cleanable, NOW).unwrap())
    };
    let Some(mut cleaning) = cleaning else { return };
    let mut go_on = |_: usize| ControlFlow::Continue(());
    cleaning.build_map(BUFFERS, &mut go_on).unwrap();
    while let Some(cleaned) = cleaning.next(&mut go_on).unwrap() {
        assert!(shared.log.write().begin_swap(&cleaned).unwrap());
        cleaned.sync_names().unwrap();
        let replaced = shared.log.write().finish_swap(cleaned).unwrap();
        replaced.unwrap().iter().for_each(|files| files.remove().unwrap());
    }
    shared.log.write().set_cleaner_checkpoint(Some(cleaning.end_offset()));
}

/// Appends, and now and then takes back what is above the high watermark, or lets something go.
fn write_along(shared: &Shared) {
    for n in 0..BATCHES {
        {
            let mut log = shared.log.write();
            let end = log.log_end_offset().0;
            log.append_as_leader(batch_at(end, 1 + n % 3), client()).unwrap();
            let high_watermark = Offset(shared.high_watermark.load(Ordering::Acquire));
            if n % 11 == 10 {
                log.truncate_to(high_watermark, NOW).unwrap();
            } else {
                // Of two batches one waits to be replicated.
                shared.high_watermark.store(end, Ordering::Release);
            }
            if n % 50 == 49 {
                for files in log.apply_retention(NOW, high_watermark).unwrap() {
                    files.remove().unwrap();
                }
            }
        }
        if n % 40 == 39 {
            clean(shared);
        }
    }
    let end = shared.log.read().log_end_offset();
    shared.high_watermark.store(end.0, Ordering::Release);
    shared.is_done.store(true, Ordering::Release);
}

fn race(cleanup_policy: CleanupPolicy) {
    let mut fixture = Fixture::new();
    fixture.config.cleanup_policy = cleanup_policy;
    fixture.config.retention_bytes = 3000;
    fixture.config.min_cleanable_dirty_ratio = 0.0;
    let shared = Shared {
        log: RwLock::new(fixture.open()),
        high_watermark: AtomicI64::new(0),
        is_done: AtomicBool::new(false),
    };
    let seen: Vec<usize> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|n| {
                let shared = &shared;
                scope.spawn(move || read_along(shared, [1, 300, 5000][n]))
            })
            .collect();
        // A failure must not leave the readers waiting.
        let written = scope.spawn(|| write_along(&shared)).join();
        shared.is_done.store(true, Ordering::Release);
        written.unwrap();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    assert!(shared.log.read().segments().len() > 1);
}

#[test]
fn readers_see_whole_runs_while_segments_are_deleted() {
    race(CleanupPolicy { delete: true, compact: false });
}

#[test]
fn readers_see_whole_runs_while_segments_are_cleaned() {
    race(CleanupPolicy { delete: false, compact: true });
}
