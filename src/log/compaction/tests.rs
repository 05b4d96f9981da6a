//! Cases of the cleaner, a model of it, and crashes at every step.

use super::super::tests::{Fixture, NOW, client};
use super::super::*;
use super::key_map::KeyMap;
use super::*;
use crate::env::disk::{DirEntry, LockError, LockGuard, Space};
use crate::env::{DiskFile, OpenMode, RealDisk};
use bytes::Bytes;
use ottla_protocol::batch::{BatchHeader, Compression, batches};
use ottla_protocol::record::{BatchBuilder, BatchParams, decode_records};
use ottla_protocol::{ProducerEpoch, ProducerId};
use proptest::prelude::*;
use rustix::fd::BorrowedFd;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

type Kept = (i64, Option<String>, Option<String>);

const BUFFERS: CleaningBuffers =
    CleaningBuffers { map_bytes: 1 << 20, load_factor: 0.9, io_bytes: 256 };

fn compacted() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.config.cleanup_policy = CleanupPolicy { delete: false, compact: true };
    fixture.config.min_cleanable_dirty_ratio = 0.0;
    fixture
}

fn records(params: BatchParams, pairs: &[(&str, Option<&str>)]) -> Bytes {
    let mut builder = BatchBuilder::new(params);
    for (key, value) in pairs {
        builder.push(NOW, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
    }
    builder.build().freeze()
}

fn put(log: &mut Log, params: BatchParams, pairs: &[(&str, Option<&str>)]) -> Offset {
    log.append_as_leader(records(params, pairs), client()).unwrap().first_offset
}

fn put_plain(log: &mut Log, pairs: &[(&str, Option<&str>)]) -> Offset {
    put(log, BatchParams::default(), pairs)
}

fn producer(id: i64, sequence: i32, is_transactional: bool) -> BatchParams {
    BatchParams {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(0),
        base_sequence: sequence,
        is_transactional,
        ..BatchParams::default()
    }
}

fn put_marker(log: &mut Log, id: i64, is_abort: bool) {
    let params = BatchParams { is_control: true, ..producer(id, -1, true) };
    let mut builder = BatchBuilder::new(params);
    let key = [0, 0, 0, u8::from(!is_abort)];
    builder.push(NOW, Some(&key), Some(&[0; 6]), &[]);
    let context = AppendContext { origin: AppendOrigin::Coordinator, ..client() };
    log.append_as_leader(builder.build().freeze(), context).unwrap();
    let end = log.log_end_offset();
    log.on_high_watermark(end);
}

fn roll(log: &mut Log) {
    let end = log.log_end_offset();
    log.roll(end, NOW).unwrap();
}

fn prepare(log: &Log, checkpoint: Option<Offset>, now: Timestamp) -> Cleaning {
    let cleanable = log.cleanable(checkpoint, log.log_end_offset(), now).unwrap().unwrap();
    log.prepare_cleaning(cleanable, now).unwrap()
}

fn go_on(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn run(log: &mut Log, cleaning: &mut Cleaning, buffers: CleaningBuffers) -> Offset {
    cleaning.build_map(buffers, &mut go_on).unwrap();
    while let Some(cleaned) = cleaning.next(&mut go_on).unwrap() {
        assert!(log.begin_swap(&cleaned).unwrap());
        cleaned.sync_names().unwrap();
        for files in log.finish_swap(cleaned).unwrap().unwrap() {
            files.remove().unwrap();
        }
    }
    cleaning.end_offset()
}

fn clean_at(log: &mut Log, checkpoint: Option<Offset>, now: Timestamp) -> (Offset, CleanStats) {
    let mut cleaning = prepare(log, checkpoint, now);
    let end = run(log, &mut cleaning, BUFFERS);
    (end, cleaning.stats())
}

fn clean(log: &mut Log) -> Offset {
    clean_at(log, None, NOW).0
}

fn all_batches(log: &Log) -> Vec<(BatchHeader, Bytes)> {
    let mut found = Vec::new();
    let mut offset = log.log_start_offset();
    while let Some(slice) = log.read(offset, 1, MinOne::Yes, log.log_end_offset()).unwrap() {
        let bytes = slice.to_bytes().unwrap();
        let (header, batch) = batches(&bytes).next().unwrap().unwrap();
        ottla_protocol::batch::check_crc(&header, batch).unwrap();
        offset = header.next_offset();
        found.push((header, Bytes::copy_from_slice(batch)));
    }
    found
}

fn kept(log: &Log) -> Vec<Kept> {
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    let mut all = Vec::new();
    for (header, batch) in all_batches(log) {
        if header.is_control() {
            continue;
        }
        for record in decode_records(&header, &batch, 1 << 20).unwrap() {
            let offset = record.offset(&header).0;
            all.push((offset, record.key.map(text), record.value.map(text)));
        }
    }
    all
}

fn values(log: &Log) -> Vec<(i64, String)> {
    kept(log).into_iter().map(|(offset, _, value)| (offset, value.unwrap_or_default())).collect()
}

fn reopen(fixture: &Fixture, log: Log) -> Log {
    let recovery_point = log.recovery_point();
    drop(log);
    Log::open(LogParams { recovery_point, ..fixture.params() }).unwrap()
}

#[test]
fn the_last_value_of_each_key_stays_at_its_offset() {
    let fixture = compacted();
    let mut log = fixture.open();
    for n in 0..60 {
        let (key, value) = (format!("k{}", n % 3), format!("v{n}"));
        put_plain(&mut log, &[(&key, Some(&value))]);
    }
    roll(&mut log);
    put_plain(&mut log, &[("k0", Some("active"))]);
    let before = log.segments().len();
    assert_eq!(clean(&mut log), Offset(60));
    // Segments are grouped by the size they had: the next pass puts together what the first left small.
    clean(&mut log);
    assert!(log.segments().len() < before);
    let expected: Vec<(i64, String)> = [(57, "v57"), (58, "v58"), (59, "v59"), (60, "active")]
        .map(|(offset, value)| (offset, value.to_owned()))
        .to_vec();
    assert_eq!(values(&log), expected);
    assert!(
        !fixture.files().iter().any(|name| name.contains(".cleaned") || name.contains(".swap"))
    );
    let log = reopen(&fixture, log);
    assert_eq!(values(&log), expected);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(0), Offset(61)));
    assert!(
        log.cleanable(Some(Offset(60)), Offset(61), NOW).unwrap().unwrap().cleanable_bytes == 0
    );
}

#[test]
fn what_is_active_recent_or_unstable_is_not_cleanable() {
    let mut fixture = compacted();
    fixture.config.min_compaction_lag_ms = 1000;
    let mut log = fixture.open();
    put_plain(&mut log, &[("a", Some("1"))]);
    roll(&mut log);
    put_plain(&mut log, &[("a", Some("2"))]);
    roll(&mut log);
    put_plain(&mut log, &[("a", Some("3"))]);
    let bound = |log: &Log, high_watermark, now| {
        let found = log.cleanable(None, Offset(high_watermark), now).unwrap().unwrap();
        (found.first_uncleanable_offset.0, found.is_due(0.5))
    };
    assert_eq!(bound(&log, 3, NOW), (0, false));
    assert_eq!(bound(&log, 3, NOW.plus_ms(1001)), (2, true));
    assert_eq!(bound(&log, 1, NOW.plus_ms(1001)), (1, true));
    assert_eq!(bound(&log, 0, NOW.plus_ms(1001)), (0, false));
    let mut config = fixture.config.clone();
    config.max_compaction_lag_ms = 500;
    log.set_config(Arc::new(config));
    let overdue = |now| log.cleanable(None, Offset(3), now).unwrap().unwrap().is_due(1.0);
    assert!(!overdue(NOW.plus_ms(400)));
    assert!(overdue(NOW.plus_ms(1001)));
    let reset = log.cleanable(Some(Offset(9)), Offset(3), NOW).unwrap().unwrap();
    assert!(reset.is_reset && reset.first_dirty_offset == Offset(0));
}

#[test]
fn tombstones_go_once_their_horizon_has_passed() {
    let mut fixture = compacted();
    fixture.config.delete_retention_ms = 1000;
    let mut log = fixture.open();
    put_plain(&mut log, &[("a", Some("1")), ("b", Some("2"))]);
    put_plain(&mut log, &[("a", None)]);
    put_plain(&mut log, &[("c", Some("3"))]);
    roll(&mut log);
    clean(&mut log);
    let with_tombstone = vec![(1, "2".to_owned()), (2, String::new()), (3, "3".to_owned())];
    assert_eq!(values(&log), with_tombstone);
    let tombstone = all_batches(&log)[1].0;
    assert!(tombstone.has_delete_horizon());
    assert_eq!(tombstone.base_timestamp, NOW.plus_ms(1000));
    assert_eq!(tombstone.max_timestamp, NOW);
    // The horizon was set once; a later pass does not move it.
    clean_at(&mut log, None, NOW.plus_ms(999));
    assert_eq!(values(&log), with_tombstone);
    clean_at(&mut log, None, NOW.plus_ms(1000));
    assert_eq!(values(&log), vec![(1, "2".to_owned()), (3, "3".to_owned())]);
}

#[test]
fn aborted_records_go_and_markers_when_their_horizon_has_passed() {
    let mut fixture = compacted();
    fixture.config.delete_retention_ms = 1000;
    let mut log = fixture.open();
    put_plain(&mut log, &[("a", Some("1")), ("b", Some("1"))]);
    put(&mut log, producer(1, 0, true), &[("a", Some("aborted"))]);
    put(&mut log, producer(2, 0, true), &[("b", Some("committed"))]);
    put_marker(&mut log, 1, true);
    put_marker(&mut log, 2, false);
    put(&mut log, producer(1, 1, false), &[("c", Some("later"))]);
    put(&mut log, producer(2, 1, false), &[("d", Some("later"))]);
    put_plain(&mut log, &[("b", Some("last"))]);
    roll(&mut log);
    let values_left = vec![
        (0, "1".to_owned()),
        (6, "later".to_owned()),
        (7, "later".to_owned()),
        (8, "last".to_owned()),
    ];
    let markers =
        |log: &Log| all_batches(log).iter().filter(|(header, _)| header.is_control()).count();
    clean(&mut log);
    assert_eq!((values(&log), markers(&log)), (values_left.clone(), 2));
    clean_at(&mut log, None, NOW.plus_ms(1));
    assert_eq!((values(&log), markers(&log)), (values_left.clone(), 2));
    clean_at(&mut log, None, NOW.plus_ms(1001));
    assert_eq!((values(&log), markers(&log)), (values_left.clone(), 0));
    let log = reopen(&fixture, log);
    assert_eq!(values(&log), values_left);
    assert_eq!(log.aborted_transactions(Offset(0), Offset(9)).unwrap(), vec![]);
}

#[test]
fn an_abort_whose_batch_stays_keeps_marker_and_index() {
    let fixture = compacted();
    let mut log = fixture.open();
    put(&mut log, producer(1, 0, true), &[("a", Some("aborted"))]);
    roll(&mut log);
    put_marker(&mut log, 1, true);
    put_plain(&mut log, &[("b", Some("1"))]);
    roll(&mut log);
    let before = log.aborted_transactions(Offset(0), Offset(3)).unwrap();
    assert_eq!(before.len(), 1);
    // The marker is not in reach yet.
    let cleanable = log.cleanable(None, Offset(3), NOW).unwrap().unwrap();
    let bound = Cleanable { first_uncleanable_offset: Offset(1), ..cleanable };
    let mut first = log.prepare_cleaning(bound, NOW).unwrap();
    run(&mut log, &mut first, BUFFERS);
    assert_eq!(values(&log), vec![(2, "1".to_owned())]);
    clean(&mut log);
    let headers: Vec<BatchHeader> = all_batches(&log).iter().map(|(header, _)| *header).collect();
    assert_eq!(headers.len(), 3, "the producer's last batch stays, empty, and so its marker");
    assert_eq!(headers[0].records_count, 0);
    assert_eq!(log.aborted_transactions(Offset(0), Offset(3)).unwrap(), before);
}

#[test]
fn the_last_batch_of_an_idempotent_producer_keeps_its_sequence() {
    let fixture = compacted();
    let mut log = fixture.open();
    put(&mut log, producer(9, 0, false), &[("a", Some("1"))]);
    put(&mut log, producer(9, 1, false), &[("a", Some("2")), ("b", Some("2"))]);
    put_plain(&mut log, &[("a", Some("3")), ("b", Some("3"))]);
    roll(&mut log);
    clean(&mut log);
    let headers: Vec<BatchHeader> = all_batches(&log).iter().map(|(header, _)| *header).collect();
    assert_eq!(headers.len(), 2);
    let empty = headers[0];
    assert_eq!((empty.records_count, empty.base_sequence, empty.last_offset()), (0, 1, Offset(2)));
    assert_eq!((empty.base_timestamp, empty.max_timestamp), (Timestamp::NONE, NOW));
    drop(log);
    for name in fixture.files().iter().filter(|name| name.ends_with(".snapshot")) {
        std::fs::remove_file(fixture.path().join(name)).unwrap();
    }
    let mut log = fixture.open();
    let again = records(producer(9, 1, false), &[("a", Some("2")), ("b", Some("2"))]);
    assert!(log.append_as_leader(again, client()).unwrap().is_duplicate);
    put(&mut log, producer(9, 3, false), &[("a", Some("4"))]);
}

#[test]
fn compressed_batches_keep_their_codec() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let fixture = compacted();
        let mut log = fixture.open();
        let params = BatchParams { compression: codec, ..BatchParams::default() };
        put(&mut log, params, &[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]);
        put(&mut log, params, &[("a", Some("2")), ("c", Some("2"))]);
        roll(&mut log);
        clean(&mut log);
        let expected =
            [(1, "1"), (3, "2"), (4, "2")].map(|(offset, value)| (offset, value.to_owned()));
        assert_eq!(values(&log), expected);
        for (header, _) in all_batches(&log) {
            assert_eq!(header.compression(), Some(codec));
        }
        assert_eq!(all_batches(&log)[0].0.last_offset(), Offset(2));
    }
}

#[test]
fn records_without_a_key_are_dropped_and_counted() {
    let mut fixture = compacted();
    fixture.config.cleanup_policy.compact = false;
    let mut log = fixture.open();
    let keyless = || {
        let mut builder = BatchBuilder::new(BatchParams::default());
        builder.push(NOW, None, Some(b"no key"), &[]);
        builder.build().freeze()
    };
    log.append_as_leader(keyless(), client()).unwrap();
    put_plain(&mut log, &[("a", Some("1"))]);
    roll(&mut log);
    fixture.config.cleanup_policy.compact = true;
    log.set_config(Arc::new(fixture.config.clone()));
    let refused = log.append_as_leader(keyless(), client());
    assert!(refused.is_err(), "a compacted topic takes no records without keys");
    let (_, stats) = clean_at(&mut log, None, NOW);
    assert_eq!(stats.invalid_records, 1);
    assert_eq!(values(&log), vec![(1, "1".to_owned())]);
}

#[test]
fn a_full_map_takes_several_passes() {
    let fixture = compacted();
    let mut log = fixture.open();
    for n in 0..40 {
        let (key, value) = (format!("k{}", n % 20), format!("v{n}"));
        put_plain(&mut log, &[(&key, Some(&value))]);
    }
    roll(&mut log);
    let buffers = CleaningBuffers { map_bytes: 24 * 8, ..BUFFERS };
    let mut checkpoint = Offset(0);
    let mut passes = 0;
    while checkpoint < Offset(40) {
        let mut cleaning = prepare(&log, Some(checkpoint), NOW);
        let end = run(&mut log, &mut cleaning, buffers);
        assert!(end > checkpoint && end <= Offset(40));
        (checkpoint, passes) = (end, passes + 1);
    }
    assert_eq!(passes, 6, "seven keys a pass");
    let expected: Vec<_> = (20..40).map(|n| (n, format!("v{n}"))).collect();
    assert_eq!(values(&log), expected);
    let none = CleaningBuffers { map_bytes: 24, ..BUFFERS };
    let error = prepare(&log, None, NOW).build_map(none, &mut go_on).unwrap_err();
    assert!(matches!(error, CleaningError::MapTooSmall));
}

#[test]
fn a_corrupt_batch_ends_the_cleaning_and_nothing_is_changed() {
    let fixture = compacted();
    let mut log = fixture.open();
    put_plain(&mut log, &[("a", Some("1"))]);
    put_plain(&mut log, &[("a", Some("2"))]);
    roll(&mut log);
    let path = fixture.path().join(file_name(0, ".log"));
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = prepare(&log, None, NOW).build_map(BUFFERS, &mut go_on).unwrap_err();
    assert!(matches!(error, CleaningError::Read(ReadError::Corrupt { .. })), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_log_that_changed_takes_no_cleaned_segment() {
    let fixture = compacted();
    let mut log = fixture.open();
    put_plain(&mut log, &[("a", Some("1"))]);
    put_plain(&mut log, &[("a", Some("2"))]);
    roll(&mut log);
    put_plain(&mut log, &[("a", Some("3"))]);
    roll(&mut log);
    let mut cleaning = prepare(&log, None, NOW);
    cleaning.build_map(BUFFERS, &mut go_on).unwrap();
    let cleaned = cleaning.next(&mut go_on).unwrap().unwrap();
    log.set_log_start_offset(Offset(2), Offset(3)).unwrap();
    log.apply_retention(NOW, Offset(3)).unwrap();
    assert!(!log.begin_swap(&cleaned).unwrap());
    cleaned.discard().unwrap();
    assert!(!fixture.files().iter().any(|name| name.ends_with(".cleaned")));
    assert_eq!(values(&log), vec![(2, "3".to_owned())]);
    let mut stopped = prepare(&log, None, NOW);
    let error = stopped.build_map(BUFFERS, &mut |_| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(error, CleaningError::Stopped));
}

#[test]
fn the_larger_part_of_a_log_is_rolled_for_cleaning() {
    let fixture = compacted();
    let mut log = fixture.open();
    put_plain(&mut log, &[("a", Some("1"))]);
    log.roll_for_cleaning(MayRoll::No, NOW).unwrap();
    log.roll_for_cleaning(MayRoll::FromBytes(1000), NOW).unwrap();
    assert_eq!(log.segments().len(), 1);
    log.roll_for_cleaning(MayRoll::FromBytes(10), NOW).unwrap();
    assert_eq!(log.segments().len(), 2);
}

#[test]
fn the_map_finds_what_was_put_last_and_is_bounded() {
    let mut map = KeyMap::new(24 * 1000, 0.9, usize::MAX);
    let mut taken = 0;
    for n in 0..2000i64 {
        if !map.put(format!("k{}", n / 2).as_bytes(), Offset(n)) {
            break;
        }
        taken = n;
    }
    assert_eq!((map.len(), map.capacity()), (900, 900));
    assert_eq!(map.latest_offset(), Offset(taken));
    for n in 0..899i64 {
        assert_eq!(map.get(format!("k{n}").as_bytes()), Offset(n * 2 + 1));
    }
    assert_eq!(map.get(b"none"), Offset(-1));
}

/// Fails every change from the `n`th on, as if the process had ended there.
#[derive(Debug, Clone, Default)]
struct EndingDisk {
    left: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct EndingFile(Arc<dyn DiskFile>, EndingDisk);

impl EndingDisk {
    fn step(&self) -> io::Result<()> {
        let take = |left: usize| left.checked_sub(1);
        let took = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        took.map(|_| ()).map_err(|_| io::Error::other("ended"))
    }
}

impl DiskFile for EndingFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buf, position)
    }
    fn write_all_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.1.step()?;
        self.0.write_all_at(slices, position)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.step()?;
        self.0.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.step()
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Disk for EndingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::Create {
            self.step()?;
        }
        Ok(Arc::new(EndingFile(RealDisk.open(path, mode)?, self.clone())))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }
    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        RealDisk.write_atomic(path, bytes)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove_file(path)
    }
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(dir)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.step()
    }
    fn exists(&self, path: &Path) -> bool {
        RealDisk.exists(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }
    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        RealDisk.lock(path)
    }
    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        RealDisk.modified_ms(path)
    }

    fn set_modified_ms(&self, path: &Path, ms: i64) -> io::Result<()> {
        RealDisk.set_modified_ms(path, ms)
    }
}

/// Cleans until the disk ends; `true` when it got through.
fn clean_until_the_end(log: &mut Log) -> bool {
    let mut cleaning = prepare(log, None, NOW);
    let mut attempt = || -> Result<(), CleaningError> {
        cleaning.build_map(BUFFERS, &mut go_on)?;
        while let Some(cleaned) = cleaning.next(&mut go_on)? {
            log.begin_swap(&cleaned)?;
            cleaned.sync_names()?;
            for files in log.finish_swap(cleaned)?.unwrap_or_default() {
                files.remove()?;
            }
        }
        Ok(())
    };
    attempt().is_ok()
}

#[test]
fn a_crash_at_any_step_leaves_the_last_value_of_each_key() {
    for steps in 0.. {
        let fixture = compacted();
        let disk = EndingDisk::default();
        disk.left.store(usize::MAX / 2, Ordering::Relaxed);
        let disk_params = LogParams { disk: Arc::new(disk.clone()), ..fixture.params() };
        let mut log = Log::open(disk_params).unwrap();
        put(&mut log, producer(1, 0, true), &[("x", Some("aborted"))]);
        put_marker(&mut log, 1, true);
        for n in 0..40 {
            let (key, value) = (format!("k{}", n % 7), format!("v{n}"));
            put_plain(&mut log, &[(&key, Some(&value))]);
        }
        roll(&mut log);
        log.flush(NOW).unwrap();
        disk.left.store(steps, Ordering::Relaxed);
        let is_done = clean_until_the_end(&mut log);
        let mut log = reopen(&fixture, log);
        assert_eq!(log.log_end_offset(), Offset(42));
        let last = |log: &Log| -> BTreeMap<Option<String>, i64> {
            let records = kept(log).into_iter().filter(|(_, key, _)| key.as_deref() != Some("x"));
            records.map(|(offset, key, _)| (key, offset)).collect()
        };
        let expected: BTreeMap<_, _> =
            (35..42).map(|n| (Some(format!("k{}", (n - 2) % 7)), n)).collect();
        assert_eq!(last(&log), expected, "after {steps} steps");
        let left_over = |name: &String| name.contains(".cleaned") || name.contains(".swap");
        assert!(!fixture.files().iter().any(left_over), "after {steps} steps");
        clean(&mut log);
        assert_eq!(kept(&log).len(), 7);
        assert_eq!(last(&log), expected);
        if is_done {
            assert!(steps > 20);
            return;
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put { keys: Vec<u8>, is_tombstone: bool, codec: u8, producer: Option<u8> },
    Transaction { key: u8, producer: u8, is_abort: bool },
    Roll,
    Clean { slots: usize },
    Later,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let put = (prop::collection::vec(0u8..12, 1..5), prop::bool::weighted(0.2), 0u8..5)
        .prop_flat_map(|(keys, is_tombstone, codec)| {
            prop::option::of(0u8..2).prop_map(move |producer| Step::Put {
                keys: keys.clone(),
                is_tombstone,
                codec,
                producer,
            })
        });
    prop_oneof![
        10 => put,
        3 => (0u8..12, 2u8..4, any::<bool>())
            .prop_map(|(key, producer, is_abort)| Step::Transaction { key, producer, is_abort }),
        2 => Just(Step::Roll),
        3 => (4usize..40).prop_map(|slots| Step::Clean { slots }),
        1 => Just(Step::Later),
        1 => Just(Step::Reopen),
    ]
}

/// What a reader of committed records that has read all sees: the last value of each key.
#[derive(Default)]
struct Model {
    last: BTreeMap<String, String>,
    sequences: BTreeMap<u8, i32>,
    checkpoint: Option<Offset>,
    now: i64,
    count: usize,
}

impl Model {
    fn params(
        &mut self,
        producer_id: Option<u8>,
        count: usize,
        is_transactional: bool,
    ) -> BatchParams {
        let Some(id) = producer_id else { return BatchParams::default() };
        let sequence = self.sequences.entry(id).or_insert(0);
        let params = producer(i64::from(id), *sequence, is_transactional);
        *sequence += count as i32;
        params
    }

    fn take(&mut self, fixture: &Fixture, mut log: Log, step: &Step) -> Log {
        self.count += 1;
        let value = format!("value {}", self.count);
        match step {
            Step::Put { keys, is_tombstone, codec, producer } => {
                let compression = Compression::from_bits(i16::from(*codec)).unwrap();
                let params =
                    BatchParams { compression, ..self.params(*producer, keys.len(), false) };
                let keys: Vec<String> = keys.iter().map(|key| format!("k{key}")).collect();
                let value = (!is_tombstone).then_some(value.as_str());
                let pairs: Vec<(&str, Option<&str>)> =
                    keys.iter().map(|key| (key.as_str(), value)).collect();
                put(&mut log, params, &pairs);
                for key in keys {
                    match value {
                        Some(value) => self.last.insert(key, value.to_owned()),
                        None => self.last.remove(&key),
                    };
                }
            }
            Step::Transaction { key, producer, is_abort } => {
                let params = self.params(Some(*producer), 1, true);
                let key = format!("k{key}");
                put(&mut log, params, &[(&key, Some(&value))]);
                put_marker(&mut log, i64::from(*producer), *is_abort);
                if !is_abort {
                    self.last.insert(key, value);
                }
            }
            Step::Roll => roll(&mut log),
            Step::Later => self.now += 700,
            Step::Clean { slots } => {
                let buffers = CleaningBuffers { map_bytes: slots * 24, ..BUFFERS };
                let mut cleaning = prepare(&log, self.checkpoint, NOW.plus_ms(self.now));
                self.checkpoint = Some(run(&mut log, &mut cleaning, buffers));
            }
            Step::Reopen => log = reopen(fixture, log),
        }
        log
    }
}

fn check(log: &Log, model: &Model) {
    let end = log.log_end_offset();
    let aborted = log.aborted_transactions(Offset(0), end).unwrap();
    let mut last = BTreeMap::new();
    for (header, batch) in all_batches(log) {
        let is_aborted = header.is_transactional()
            && aborted.iter().any(|txn| {
                let is_within = txn.first_offset <= header.base_offset
                    && header.last_offset() <= txn.last_offset;
                txn.producer_id == header.producer_id && is_within
            });
        if header.is_control() || is_aborted {
            continue;
        }
        for record in decode_records(&header, &batch, 1 << 20).unwrap() {
            let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            match record.value {
                Some(value) => last.insert(text(record.key.unwrap()), text(value)),
                None => last.remove(&text(record.key.unwrap())),
            };
        }
    }
    assert_eq!(last, model.last);
    for producer in log.active_producers() {
        let expected = model.sequences.get(&(producer.producer_id.0 as u8)).unwrap() - 1;
        assert_eq!(producer.last_sequence, expected, "of producer {}", producer.producer_id);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn readers_see_the_last_value_of_each_key(steps in prop::collection::vec(step(), 1..80)) {
        let mut fixture = compacted();
        fixture.config.delete_retention_ms = 1000;
        let mut log = fixture.open();
        let mut model = Model::default();
        for step in &steps {
            log = model.take(&fixture, log, step);
            check(&log, &model);
        }
        roll(&mut log);
        let mut cleaning = prepare(&log, None, NOW.plus_ms(model.now));
        run(&mut log, &mut cleaning, BUFFERS);
        check(&log, &model);
        let records = kept(&log);
        let mut keys: Vec<_> = records.iter().map(|(_, key, _)| key.clone()).collect();
        keys.sort();
        keys.dedup();
        prop_assert_eq!(keys.len(), records.len(), "one record for each key");
    }
}

/// Otherwise the next start would bring back what the truncation took away.
#[test]
fn a_truncation_takes_the_checkpoint_back_and_a_swap_under_way_away() {
    let fixture = compacted();
    let mut log = fixture.open();
    for _ in 0..3 {
        put_plain(&mut log, &[("a", Some("1")), ("b", Some("2"))]);
        roll(&mut log);
    }
    let mut cleaning = prepare(&log, None, NOW);
    cleaning.build_map(BUFFERS, &mut go_on).unwrap();
    let cleaned = cleaning.next(&mut go_on).unwrap().unwrap();
    assert!(log.begin_swap(&cleaned).unwrap());
    log.set_cleaner_checkpoint(Some(Offset(6)));
    log.truncate_to(Offset(3), NOW).unwrap();
    assert_eq!(log.cleaner_checkpoint(), Some(Offset(2)));
    assert!(!log.wants_cleaned(cleaning.truncations()));
    assert!(log.finish_swap(cleaned).unwrap().is_none());
    let before = kept(&log);
    assert_eq!(kept(&reopen(&fixture, log)), before);
    assert_eq!(before.len(), 2);
}

/// Retention goes by it where no record is left.
#[test]
fn a_segment_without_records_is_as_old_as_those_it_was_made_of() {
    let fixture = compacted();
    let mut log = fixture.open();
    put_plain(&mut log, &[("a", Some("1"))]);
    roll(&mut log);
    put_plain(&mut log, &[("a", Some("2"))]);
    roll(&mut log);
    let path = log.path().join(log.segments[0].name());
    RealDisk.set_modified_ms(&path, 1_000).unwrap();
    let mut small = LogConfig::clone(log.config());
    small.segment_bytes = 1;
    log.set_config(Arc::new(small));
    clean(&mut log);
    assert_eq!((log.segments[0].size, values(&log).len()), (0, 1));
    assert_eq!(log.segments[0].largest_timestamp(&log.directory).unwrap(), Timestamp(1_000));
}
