//! Cases of what is durable when, and of crashes in the middle of a verb.

use super::tests::{NOW, append, batch, batch_of, client, idempotent, read_all, transactional};
use super::*;
use crate::env::OpenMode;
use crate::env::sim_disk::{Crash, SimDisk};
use bytes::Bytes;
use ottla_protocol::batch::set_base_offset;
use ottla_protocol::record::{BatchBuilder, BatchParams};
use std::ops::ControlFlow;

/// A log on a disk that can crash.
struct Place {
    disk: SimDisk,
    config: LogConfig,
    recovery_point: Offset,
}

impl Place {
    fn new() -> Place {
        Place::with_seed(1)
    }

    /// The seed decides what a loss of power leaves.
    fn with_seed(seed: u64) -> Place {
        let disk = SimDisk::new(seed);
        disk.create_dir_durably(Path::new("/logs")).unwrap();
        let config = LogConfig {
            segment_bytes: 600,
            index_interval_bytes: 100,
            segment_index_bytes: 1000,
            retention_ms: -1,
            ..LogConfig::default()
        };
        Place { disk, config, recovery_point: Offset(0) }
    }

    fn try_open(&self) -> Result<Log, RecoveryError> {
        Log::open(LogParams {
            disk: Arc::new(self.disk.clone()),
            dir: "/logs/events-0".into(),
            topic: "events".into(),
            partition: 0,
            topic_id: uuid::Uuid::from_u128(7),
            config: Arc::new(self.config.clone()),
            log_start_offset: Offset(0),
            recovery_point: self.recovery_point,
            clean_shutdown: false,
            earlier_writes_synced: false,
            now: NOW,
        })
    }

    fn open(&self) -> Log {
        self.try_open().unwrap()
    }

    fn reopen(&self, crash: Crash) -> Log {
        self.disk.crash(crash);
        self.open()
    }

    fn unsynced(&self, suffix: &str) -> Vec<String> {
        self.disk.unsynced().into_iter().filter(|name| name.ends_with(suffix)).collect()
    }

    /// A log of several segments, flushed.
    fn filled(&self) -> Log {
        let mut log = self.open();
        while log.segments().len() < 4 {
            append(&mut log, batch(2, NOW.0)).unwrap();
        }
        log.flush(NOW).unwrap();
        log
    }
}

fn offsets(log: &Log) -> Vec<i64> {
    read_all(log, log.log_start_offset()).iter().map(|header| header.base_offset.0).collect()
}

/// Every other offset: `Place::filled` appends two records at a time.
fn is_without_hole(offsets: &[i64]) -> bool {
    offsets.windows(2).all(|pair| pair[1] == pair[0] + 2)
}

/// Recovery trusts the indexes of the segments before the one of the recovery point.
#[test]
fn a_roll_syncs_the_indexes_of_a_flushed_segment() {
    let place = Place::new();
    let mut log = place.open();
    for _ in 0..4 {
        append(&mut log, batch(2, NOW.0)).unwrap();
    }
    log.flush(NOW).unwrap();
    log.roll(Offset(8), NOW).unwrap();
    assert_eq!(place.unsynced("index"), [""; 0]);
    assert_eq!(log.recovery_point(), Offset(8));
}

#[test]
fn a_roll_within_a_flush_syncs_the_indexes_too() {
    let place = Place::new();
    let mut log = place.open();
    for _ in 0..4 {
        append(&mut log, batch(2, NOW.0)).unwrap();
    }
    let job = log.prepare_flush().unwrap().unwrap();
    log.roll(Offset(8), NOW).unwrap();
    job.run().unwrap();
    log.mark_flushed(&job, NOW);
    assert_eq!(place.unsynced("index"), [""; 0]);
}

#[test]
fn what_an_earlier_process_wrote_is_synced_by_the_first_flush() {
    let place = Place::new();
    append(&mut place.open(), batch(2, NOW.0)).unwrap();
    let mut log = place.reopen(Crash::Kill);
    append(&mut log, batch(2, NOW.0)).unwrap();
    log.flush(NOW).unwrap();
    for name in ["events-0", "logs", ".log", "partition.metadata"] {
        assert_eq!(place.unsynced(name), [""; 0]);
    }
    assert_eq!(offsets(&place.reopen(Crash::PowerLoss)), [0, 2]);
}

#[test]
fn a_truncation_is_durable_when_it_returns() {
    let place = Place::new();
    let mut log = place.filled();
    log.truncate_to(Offset(3), NOW).unwrap();
    assert_eq!(place.unsynced(".log"), [""; 0]);
    assert_eq!(offsets(&place.reopen(Crash::PowerLoss)), [0]);
}

#[test]
fn a_crash_within_a_truncation_leaves_no_hole() {
    for operations in 0..60 {
        for crash in [Crash::Kill, Crash::PowerLoss] {
            let place = Place::new();
            let mut log = place.filled();
            let before = offsets(&log);
            place.disk.end_after(operations);
            let is_done = log.truncate_to(Offset(4), NOW).is_ok();
            let found = offsets(&place.reopen(crash));
            assert!(is_without_hole(&found), "{found:?} after {operations} operations");
            assert!(found.len() >= 2 && before.starts_with(&found));
            assert!(!is_done || found == [0, 2]);
        }
    }
}

#[test]
fn a_crash_within_a_full_truncation_keeps_where_the_log_starts() {
    for operations in 0..60 {
        let place = Place::new();
        let mut log = place.open();
        log.truncate_fully_and_start_at(Offset(100), NOW).unwrap();
        append(&mut log, idempotent(1, 0, 0, 2)).unwrap();
        log.flush(NOW).unwrap();
        place.disk.end_after(operations);
        let is_done = log.truncate_fully_and_start_at(Offset(200), NOW).is_ok();
        let log = place.reopen(Crash::PowerLoss);
        assert!(log.log_start_offset() >= Offset(100), "after {operations} operations");
        assert!(!is_done || log.log_end_offset() == Offset(200));
    }
}

/// Producers of records that a truncation took are not those of the records that come after it.
#[test]
fn a_snapshot_below_the_first_segment_is_not_believed() {
    let place = Place::new();
    let mut log = place.open();
    append(&mut log, transactional(1, 0, 2)).unwrap();
    log.roll(Offset(2), NOW).unwrap();
    let name = Path::new("/logs/events-0/00000000000000000002.snapshot");
    let snapshot = place.disk.read(name).unwrap();
    log.truncate_fully_and_start_at(Offset(100), NOW).unwrap();
    place.disk.write_atomic(name, &snapshot).unwrap();
    let log = place.reopen(Crash::Kill);
    assert_eq!((log.log_start_offset(), log.active_producers()), (Offset(100), vec![]));
    assert_eq!(log.last_stable_offset(Offset(100)), Offset(100));
}

/// The first process ends within a truncation, before it syncs; the machine goes down under the second.
#[test]
fn what_an_earlier_process_removed_does_not_come_back() {
    for operations in 0..10 {
        let place = Place::new();
        let mut log = place.filled();
        place.disk.end_after(operations);
        log.truncate_to(Offset(2), NOW).unwrap_err();
        let mut log = place.reopen(Crash::Kill);
        let end = log.log_end_offset();
        append(&mut log, batch(1, NOW.0)).unwrap();
        let log = place.reopen(Crash::PowerLoss);
        assert!(log.log_end_offset() <= end.plus(1), "after {operations} operations");
    }
}

#[test]
fn a_truncation_where_records_are_missing_keeps_the_log_start_offset() {
    let place = Place::new();
    let mut log = place.open();
    append(&mut log, batch(2, NOW.0)).unwrap();
    let mut later = batch(2, NOW.0).to_vec();
    set_base_offset(&mut later, Offset(10));
    log.append_as_follower(later.into(), NOW).unwrap();
    log.set_log_start_offset(Offset(5), Offset(10)).unwrap();
    log.truncate_to(Offset(7), NOW).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(5), Offset(5)));
    assert_eq!(append(&mut log, batch(1, NOW.0)).unwrap().first_offset, Offset(5));
}

/// A cut is not made before what lies behind it is gone: the next start would keep that.
#[test]
fn a_crash_within_recovery_leaves_nothing_behind_a_cut() {
    for operations in 0..60 {
        let place = Place::new();
        let log = place.filled();
        let second = log.segments().nth(1).unwrap().base_offset;
        place.disk.flip_bit(&log.path().join(format!("{second:020}.log")), 800);
        place.disk.crash(Crash::Kill);
        place.disk.end_after(operations);
        let is_done = place.try_open().is_ok();
        place.disk.crash(Crash::Kill);
        drop(place.open());
        let found = offsets(&place.reopen(Crash::PowerLoss));
        assert!(is_without_hole(&found), "{found:?} after {operations} operations");
        if is_done {
            return;
        }
    }
    panic!("recovery does not end");
}

/// The broker may end after a truncation and before it writes the recovery point.
#[test]
fn a_recovery_point_past_the_end_recovers_everything() {
    let mut place = Place::new();
    let mut log = place.filled();
    place.recovery_point = log.recovery_point();
    log.truncate_to(Offset(3), NOW).unwrap();
    while log.segments().len() < 3 {
        append(&mut log, batch(2, NOW.0)).unwrap();
    }
    let log = place.reopen(Crash::Kill);
    assert!(log.log_end_offset() < place.recovery_point);
    assert_eq!(log.recovery_report().recovered_segments, 3);
}

#[test]
fn epochs_come_back_with_a_log_start_offset_that_went_back() {
    let place = Place::new();
    let mut log = place.open();
    for epoch in 0..3 {
        let context = AppendContext { leader_epoch: LeaderEpoch(epoch), ..client() };
        log.append_as_leader(batch(2, NOW.0), context).unwrap();
    }
    let before = log.leader_epochs().to_vec();
    log.set_log_start_offset(Offset(5), Offset(6)).unwrap();
    log.flush(NOW).unwrap();
    assert_eq!(log.leader_epochs().len(), 1);
    let log = place.reopen(Crash::Kill);
    assert_eq!(log.log_start_offset(), Offset(0));
    assert_eq!(log.leader_epochs(), before);
}

/// The next recovery would take them for the epochs of what is appended after this one.
#[test]
fn epochs_past_the_end_are_taken_off_the_disk() {
    let place = Place::new();
    let mut log = place.open();
    append(&mut log, batch(2, NOW.0)).unwrap();
    log.assign_leader_epoch(LeaderEpoch(5), Offset(2));
    log.flush(NOW).unwrap();
    drop(place.reopen(Crash::Kill));
    let file = Path::new("/logs/events-0/leader-epoch-checkpoint");
    assert_eq!(place.disk.read(file).unwrap(), b"0\n1\n0 0\n");
}

/// An earlier start may have removed it and not come to the sync.
#[test]
fn a_clean_shutdown_file_is_durably_gone() {
    let (place, dir) = (Place::new(), Path::new("/logs"));
    checkpoint::write_clean_shutdown(&place.disk, dir, 1).unwrap();
    place.disk.end_after(1);
    checkpoint::remove_clean_shutdown(&place.disk, dir).unwrap_err();
    place.disk.crash(Crash::Kill);
    checkpoint::remove_clean_shutdown(&place.disk, dir).unwrap();
    assert_eq!(place.unsynced("logs"), [""; 0]);
}

/// Else a loss of power could take both a record and the later one that superseded it.
#[test]
fn a_cleaning_syncs_what_it_reads_before_it_drops_records() {
    let mut place = Place::new();
    place.config.cleanup_policy = CleanupPolicy { delete: false, compact: true };
    place.config.min_cleanable_dirty_ratio = 0.0;
    let mut log = place.open();
    while log.segments().len() < 4 {
        append(&mut log, batch(2, NOW.0)).unwrap();
    }
    let cleanable = log.cleanable(None, log.log_end_offset(), NOW).unwrap().unwrap();
    let mut cleaning = log.prepare_cleaning(cleanable, NOW).unwrap();
    let buffers = CleaningBuffers { map_bytes: 1 << 16, load_factor: 0.9, io_bytes: 256 };
    let mut go_on = |_: usize| ControlFlow::Continue(());
    cleaning.build_map(buffers, &mut go_on).unwrap();
    cleaning.next(&mut go_on).unwrap().unwrap();
    let active = format!("{:020}.log", log.segments().last().unwrap().base_offset);
    assert_eq!(place.unsynced(".log"), [active]);
}

/// Another start would trust it, and no flush comes by.
#[test]
fn an_index_that_is_built_anew_below_the_recovery_point_is_synced() {
    let mut place = Place::new();
    let log = place.filled();
    place.recovery_point = log.recovery_point();
    place.disk.remove_file(&log.path().join("00000000000000000000.index")).unwrap();
    drop(place.reopen(Crash::Kill));
    assert!(!place.unsynced("index").contains(&"00000000000000000000.index".to_owned()));
}

/// Names and bytes of the indexes of the segments before the active one.
fn indexes(place: &Place) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = place.disk.image().into_iter().collect();
    found.retain(|(path, _)| path.extension().is_some_and(|it| it == "index" || it == "timeindex"));
    found.truncate(6);
    found
}

/// Power is lost while it is built anew: what came of it to the disk is not the index.
#[test]
fn an_index_that_was_built_anew_in_part_is_not_trusted() {
    for suffix in ["index", "timeindex"] {
        for seed in 1..9 {
            let is_done = |operations| {
                let mut place = Place::with_seed(seed);
                let log = place.filled();
                place.recovery_point = log.recovery_point();
                let before = indexes(&place);
                let name = format!("00000000000000000000.{suffix}");
                place.disk.remove_file(&log.path().join(name)).unwrap();
                place.disk.sync_dir(&log.path()).unwrap();
                drop(log);
                place.disk.crash(Crash::Kill);
                place.disk.end_after(operations);
                let is_done = place.try_open().is_ok();
                drop(place.reopen(Crash::PowerLoss));
                assert_eq!(indexes(&place), before, "{suffix} {seed} {operations}");
                is_done
            };
            assert!((0..60).any(is_done), "recovery does not end");
        }
    }
}

fn at(timestamps: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchParams::default());
    for ms in timestamps {
        builder.push(NOW.plus_ms(*ms), Some(b"key"), Some(b"value"), &[]);
    }
    builder.build().freeze()
}

#[test]
fn timestamps_below_the_log_start_offset_are_not_found() {
    let place = Place::new();
    let mut log = place.open();
    append(&mut log, at(&[900, 10])).unwrap();
    append(&mut log, at(&[20])).unwrap();
    log.roll(Offset(3), NOW).unwrap();
    append(&mut log, at(&[500])).unwrap();
    log.set_log_start_offset(Offset(1), Offset(4)).unwrap();
    let find = |ms: i64| {
        log.find_by_time(TimeQuery::AtOrAfter(NOW.plus_ms(ms))).unwrap().map(|it| it.offset.0)
    };
    assert_eq!([find(5), find(15), find(100), find(600)], [Some(1), Some(2), Some(3), None]);
    assert_eq!(log.find_by_time(TimeQuery::Largest).unwrap().unwrap().offset, Offset(3));
}

#[test]
fn the_largest_timestamp_may_be_in_the_batch_that_the_log_starts_in() {
    let place = Place::new();
    let mut log = place.open();
    append(&mut log, at(&[900, 10, 30])).unwrap();
    append(&mut log, at(&[20])).unwrap();
    log.set_log_start_offset(Offset(1), Offset(4)).unwrap();
    assert_eq!(log.find_by_time(TimeQuery::Largest).unwrap().unwrap().offset, Offset(2));
    log.set_log_start_offset(Offset(3), Offset(4)).unwrap();
    assert_eq!(log.find_by_time(TimeQuery::Largest).unwrap().unwrap().offset, Offset(3));
}

/// The records below it may not be synced, and the log start offset may go back in a crash.
#[test]
fn neither_deleted_records_nor_retention_move_the_recovery_point() {
    let mut place = Place::new();
    place.config.retention_bytes = 0;
    let mut log = place.open();
    while log.segments().len() < 3 {
        append(&mut log, batch_of(BatchParams::default(), 2, NOW.0, 50)).unwrap();
    }
    let end = log.log_end_offset();
    log.set_log_start_offset(Offset(2), end).unwrap();
    assert_eq!(log.recovery_point(), Offset(0));
    assert!(!log.apply_retention(NOW, end).unwrap().is_empty());
    assert_eq!((log.recovery_point(), log.log_start_offset()), (Offset(0), end));
    log.flush(NOW).unwrap();
    assert_eq!(log.recovery_point(), end);
}

/// The first segment's bytes never came, and nothing in it says so.
#[test]
fn what_lies_behind_lost_batches_is_lost_too() {
    let place = Place::new();
    let log = place.filled();
    let (second, end) = (log.segments[1].base_offset, log.log_end_offset());
    assert!(second < end);
    drop(log);
    let first =
        place.disk.open(Path::new("/logs/events-0/00000000000000000000.log"), OpenMode::ReadWrite);
    first.unwrap().set_len(0).unwrap();
    let log = place.reopen(Crash::Kill);
    assert_eq!((log.log_end_offset(), log.segments.len()), (Offset(0), 1));
    // Cleaning takes whole batches out as well, and what is behind them is not lost.
    let mut place = Place::new();
    place.config.cleanup_policy.compact = true;
    drop(place.filled());
    let first =
        place.disk.open(Path::new("/logs/events-0/00000000000000000000.log"), OpenMode::ReadWrite);
    first.unwrap().set_len(0).unwrap();
    assert_eq!(place.reopen(Crash::Kill).log_end_offset(), end);
}

#[test]
fn a_log_that_was_led_and_never_written_can_begin_elsewhere() {
    let place = Place::new();
    let mut log = place.open();
    log.assign_leader_epoch(LeaderEpoch(3), Offset(0));
    log.truncate_fully_and_start_at(Offset(5), NOW).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(5), Offset(5)));
    assert_eq!(log.latest_epoch(), None);
    assert_eq!(place.reopen(Crash::PowerLoss).log_end_offset(), Offset(5));
}

#[test]
fn a_preallocated_file_is_longer_than_its_batches_until_it_is_finished() {
    let mut place = Place::new();
    place.config.preallocate = true;
    let length = |base: i64| {
        let name = format!("{base:020}.log");
        let files = place.disk.list(Path::new("/logs/events-0")).unwrap();
        files.into_iter().find(|entry| entry.name == name).unwrap().len
    };
    let mut log = place.open();
    append(&mut log, batch(2, NOW.0)).unwrap();
    assert_eq!(length(0), 600);
    log.flush(NOW).unwrap();
    append(&mut log, batch(2, NOW.0)).unwrap();
    // A crash leaves the zeros, which are no batch that was lost.
    let mut log = place.reopen(Crash::Kill);
    assert_eq!((offsets(&log), log.recovery_report().cuts.len()), (vec![0, 2], 0));
    assert_eq!(length(0), log.size());
    append(&mut log, batch(2, NOW.0)).unwrap();
    assert_eq!(length(0), 600);
    log.roll(Offset(6), NOW).unwrap();
    assert_eq!(length(0), log.size());
    append(&mut log, batch(2, NOW.0)).unwrap();
    assert_eq!(length(6), 600);
    log.close(NOW).unwrap();
    assert_eq!(length(0) + length(6), log.size());
    assert_eq!(offsets(&place.open()), [0, 2, 4, 6]);
}

#[test]
fn a_torn_batch_before_the_preallocated_zeros_is_cut_and_told() {
    let mut place = Place::new();
    place.config.preallocate = true;
    let mut log = place.open();
    append(&mut log, batch(2, NOW.0)).unwrap();
    let first = log.size();
    append(&mut log, batch(2, NOW.0)).unwrap();
    let path = Path::new("/logs/events-0/00000000000000000000.log");
    let file = place.disk.open(path, OpenMode::ReadWrite).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(&[0; 20])], log.size() - 20).unwrap();
    let log = place.reopen(Crash::Kill);
    assert_eq!((offsets(&log), log.size()), (vec![0], first));
    assert_eq!(log.recovery_report().cuts.len(), 1);
}
