//! Cases of the log as a whole, with small segments.

use super::*;
use crate::env::RealDisk;
use bytes::Bytes;
use ottla_protocol::batch::{BatchHeader, batches};
use ottla_protocol::record::{BatchBuilder, BatchParams};
use ottla_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tempfile::TempDir;

pub(super) const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A directory and the settings that logs in it are opened with.
pub(super) struct Fixture {
    pub(super) dir: TempDir,
    pub(super) config: LogConfig,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let config = LogConfig {
            segment_bytes: 600,
            index_interval_bytes: 100,
            segment_index_bytes: 1000,
            retention_ms: -1,
            ..LogConfig::default()
        };
        Fixture { dir: tempfile::tempdir().unwrap(), config }
    }

    pub(super) fn params(&self) -> LogParams {
        LogParams {
            disk: Arc::new(RealDisk),
            dir: self.path(),
            topic: "events".into(),
            partition: 0,
            topic_id: uuid::Uuid::from_u128(7),
            config: Arc::new(self.config.clone()),
            log_start_offset: Offset(0),
            recovery_point: Offset(0),
            clean_shutdown: false,
            earlier_writes_synced: false,
            now: NOW,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("events-0")
    }

    pub(super) fn open(&self) -> Log {
        Log::open(self.params()).unwrap()
    }

    pub(super) fn open_clean(&self) -> Log {
        Log::open(LogParams { clean_shutdown: true, ..self.params() }).unwrap()
    }

    pub(super) fn files(&self) -> Vec<String> {
        RealDisk.list(&self.path()).unwrap().into_iter().map(|entry| entry.name).collect()
    }
}

/// A producer's batch with `count` records of which the first has this timestamp, the next one more, and so on.
pub(super) fn batch_of(params: BatchParams, count: usize, timestamp: i64, size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(params);
    let value = vec![b'v'; size];
    for n in 0..count {
        builder.push(Timestamp(timestamp + n as i64), Some(b"key"), Some(&value), &[]);
    }
    builder.build().freeze()
}

pub(super) fn batch(count: usize, timestamp: i64) -> Bytes {
    batch_of(BatchParams::default(), count, timestamp, 10)
}

pub(super) fn idempotent(id: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    let params = BatchParams {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: sequence,
        ..BatchParams::default()
    };
    batch_of(params, count, NOW.0, 10)
}

pub(super) fn client() -> AppendContext {
    AppendContext {
        leader_epoch: LeaderEpoch(0),
        now: NOW,
        origin: AppendOrigin::Client,
        transaction: TransactionCheck::Verified,
    }
}

pub(super) fn append(log: &mut Log, records: Bytes) -> Result<AppendInfo, ErrorCode> {
    log.append_as_leader(records, client()).map_err(|error| error.error_code())
}

/// Headers of everything from `offset` on.
pub(super) fn read_all(log: &Log, mut offset: Offset) -> Vec<BatchHeader> {
    let mut headers = Vec::new();
    while let Some(slice) = log.read(offset, 300, MinOne::Yes, log.log_end_offset()).unwrap() {
        let bytes = slice.to_bytes().unwrap();
        for found in batches(&bytes) {
            let Ok((header, whole)) = found else { break };
            ottla_protocol::batch::check_crc(&header, whole).unwrap();
            offset = header.next_offset();
            headers.push(header);
        }
    }
    headers
}

#[test]
fn reads_what_was_appended_across_segments_and_reopening() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    assert!(!fixture.path().exists(), "an empty log is not on the disk");
    for n in 0..40 {
        let info = append(&mut log, batch(3, NOW.0 + n)).unwrap();
        assert_eq!((info.first_offset, info.last_offset), (Offset(n * 3), Offset(n * 3 + 2)));
    }
    assert!(log.segments().len() > 5);
    let check = |log: &Log| {
        assert_eq!(log.log_end_offset(), Offset(120));
        let headers = read_all(log, Offset(0));
        assert_eq!(headers.len(), 40);
        assert!(headers.iter().all(|header| header.leader_epoch == LeaderEpoch(0)));
        for offset in 0..120 {
            let slice =
                log.read(Offset(offset), 1, MinOne::Yes, log.log_end_offset()).unwrap().unwrap();
            assert_eq!(slice.base_offset, Offset(offset / 3 * 3), "the batch that holds {offset}");
        }
    };
    check(&log);
    drop(log);
    check(&fixture.open());
    fixture.open().close(NOW).unwrap();
    check(&fixture.open_clean());
}

#[test]
fn an_empty_log_leaves_nothing_on_the_disk() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    log.assign_leader_epoch(LeaderEpoch(3), Offset(0));
    log.close(NOW).unwrap();
    assert!(!fixture.path().exists());
    let mut log = fixture.open_clean();
    log.rename_directory(&fixture.dir.path().join("events-0.x-delete")).unwrap();
    assert_eq!(RealDisk.list(fixture.dir.path()).unwrap(), []);
}

/// The machine may go down before the first flush.
#[test]
fn partition_metadata_that_was_not_synced_is_written_again() {
    let fixture = Fixture::new();
    append(&mut fixture.open(), batch(1, NOW.0)).unwrap();
    let path = fixture.path().join(checkpoint::PARTITION_METADATA);
    let read = || checkpoint::read_partition_metadata(&RealDisk, &fixture.path()).unwrap();
    for left in [&b""[..], &[0; 43], b"version: 0\ntopic_id: AAAA", b"version: 0\ntop\0\0\0\0\0"] {
        std::fs::write(&path, left).unwrap();
        assert_eq!(read(), None);
        let mut log = fixture.open();
        append(&mut log, batch(1, NOW.0)).unwrap();
        assert_eq!(read(), Some(log.topic_id()));
    }
}

pub(super) fn coordinator() -> AppendContext {
    AppendContext { origin: AppendOrigin::Coordinator, ..client() }
}

pub(super) fn transactional(id: i64, sequence: i32, count: usize) -> Bytes {
    let params = BatchParams {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(0),
        base_sequence: sequence,
        is_transactional: true,
        ..BatchParams::default()
    };
    batch_of(params, count, NOW.0, 10)
}

pub(super) fn marker(id: i64, is_commit: bool) -> Bytes {
    let mut builder = BatchBuilder::new(BatchParams {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(0),
        is_transactional: true,
        is_control: true,
        ..BatchParams::default()
    });
    builder.push(NOW, Some(&[0, 0, 0, u8::from(is_commit)]), Some(&[0, 0, 0, 0, 0, 3]), &[]);
    builder.build().freeze()
}

/// Kafka makes its checkpoints empty and fills them a minute later.
#[test]
fn an_empty_checkpoint_has_no_offsets() {
    let dir = tempfile::tempdir().unwrap();
    RealDisk.write_atomic(&dir.path().join(checkpoint::RECOVERY_POINTS), b"").unwrap();
    let read = || checkpoint::read_offsets(&RealDisk, dir.path(), checkpoint::RECOVERY_POINTS);
    assert!(read().unwrap().is_empty());
    RealDisk.write_atomic(&dir.path().join(checkpoint::RECOVERY_POINTS), b"\n").unwrap();
    assert!(read().is_err());
}

#[test]
fn out_of_range_offsets_are_refused_and_the_end_is_empty() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    append(&mut log, batch(3, NOW.0)).unwrap();
    let read = |offset, bound| log.read(Offset(offset), 1000, MinOne::Yes, Offset(bound));
    assert_eq!(read(4, 3).unwrap_err().error_code(), ErrorCode::OffsetOutOfRange);
    assert_eq!(read(-1, 3).unwrap_err().error_code(), ErrorCode::OffsetOutOfRange);
    assert!(read(3, 3).unwrap().is_none());
    assert!(read(0, 0).unwrap().is_none(), "above the bound there is nothing to read yet");
}

#[test]
fn region_has_whole_batches_only() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    for n in 0..2 {
        append(&mut log, batch(3, NOW.0 + n)).unwrap();
    }
    let size = batch(3, NOW.0).len();
    let check = |max_bytes, min_one, expected: Option<usize>| {
        let found = log.read(Offset(0), max_bytes, min_one, Offset(6)).unwrap();
        assert_eq!(found.map(|slice| slice.len), expected, "{max_bytes} {min_one:?}");
    };
    check(0, MinOne::No, None);
    check(size - 1, MinOne::No, None);
    check(size, MinOne::No, Some(size));
    check(size + 5, MinOne::No, Some(size));
    check(0, MinOne::Yes, Some(size));
    check(size + 5, MinOne::Yes, Some(size));
}

#[test]
fn read_stops_at_the_upper_bound() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    for n in 0..4 {
        append(&mut log, batch(2, NOW.0 + n)).unwrap();
    }
    let all = log.read(Offset(0), 10_000, MinOne::Yes, Offset(8)).unwrap().unwrap();
    let some = log.read(Offset(0), 10_000, MinOne::Yes, Offset(4)).unwrap().unwrap();
    assert_eq!(some.len * 2, all.len);
}

#[test]
fn duplicates_are_found_five_batches_deep_across_restarts() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    for n in 0..6 {
        append(&mut log, idempotent(1, 0, n * 2, 2)).unwrap();
    }
    for n in 1..6 {
        let info = append(&mut log, idempotent(1, 0, n * 2, 2)).unwrap();
        assert!(info.is_duplicate);
        assert_eq!(
            (info.first_offset, info.last_offset),
            (Offset(i64::from(n) * 2), Offset(i64::from(n) * 2 + 1))
        );
    }
    let forgotten = append(&mut log, idempotent(1, 0, 0, 2));
    assert_eq!(forgotten.unwrap_err(), ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(log.log_end_offset(), Offset(12));
    log.close(NOW).unwrap();
    let mut log = fixture.open_clean();
    let info = append(&mut log, idempotent(1, 0, 10, 2)).unwrap();
    assert_eq!(
        (info.is_duplicate, info.first_offset),
        (true, Offset(10)),
        "a snapshot keeps the last batch"
    );
}

#[test]
fn sequences_follow_kafkas_rules() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    let mut check = |epoch, sequence, count, expected: Result<i64, ErrorCode>| {
        let result = append(&mut log, idempotent(4, epoch, sequence, count));
        assert_eq!(
            result.map(|info| info.first_offset.0),
            expected,
            "epoch {epoch} sequence {sequence}"
        );
    };
    // A producer that is not known may start anywhere: its records may be gone.
    check(0, 17, 1, Ok(0));
    check(0, 19, 1, Err(ErrorCode::OutOfOrderSequenceNumber));
    check(0, 18, 1, Ok(1));
    check(1, 5, 1, Err(ErrorCode::OutOfOrderSequenceNumber));
    check(1, 0, 2, Ok(2));
    check(0, 19, 1, Err(ErrorCode::InvalidProducerEpoch));
    check(1, 2, 1, Ok(4));
    let fixture = Fixture::new();
    let mut log = fixture.open();
    append(&mut log, idempotent(5, 0, i32::MAX - 1, 2)).unwrap();
    let info = append(&mut log, idempotent(5, 0, 0, 1)).unwrap();
    assert_eq!((info.first_offset, info.is_duplicate), (Offset(2), false), "sequences wrap to 0");
    let wrapped = append(&mut log, idempotent(6, 0, i32::MAX, 3)).unwrap();
    assert_eq!(
        append(&mut log, idempotent(6, 0, i32::MAX, 3)).unwrap().first_offset,
        wrapped.first_offset
    );
    append(&mut log, idempotent(6, 0, 2, 1)).unwrap();
}

#[test]
fn silent_producers_are_forgotten() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    append(&mut log, idempotent(1, 0, 0, 1)).unwrap();
    log.remove_expired_producers(NOW.plus_ms(fixture.config.producer_id_expiration_ms - 1));
    assert_eq!(log.active_producers().len(), 1);
    log.remove_expired_producers(NOW.plus_ms(fixture.config.producer_id_expiration_ms));
    assert!(log.active_producers().is_empty());
}

#[test]
fn transactions_hold_the_last_stable_offset_and_aborts_are_indexed() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    append(&mut log, batch(1, NOW.0)).unwrap();
    append(&mut log, transactional(1, 0, 2)).unwrap();
    append(&mut log, transactional(2, 0, 1)).unwrap();
    let end = log.log_end_offset();
    assert_eq!(log.last_stable_offset(end), Offset(1));
    assert!(log.has_ongoing_transaction(ProducerId(1)));
    log.append_as_leader(marker(1, false), coordinator()).unwrap();
    let end = log.log_end_offset();
    assert_eq!(
        log.last_stable_offset(Offset(4)),
        Offset(1),
        "the marker is not below the high watermark"
    );
    assert_eq!(log.last_stable_offset(end), Offset(3), "producer 2 is still at it");
    log.append_as_leader(marker(2, true), coordinator()).unwrap();
    assert_eq!(log.last_stable_offset(Offset(6)), Offset(6));
    let check = |log: &Log| {
        let aborted = log.aborted_transactions(Offset(0), Offset(6)).unwrap();
        let expected = AbortedTransaction {
            producer_id: ProducerId(1),
            first_offset: Offset(1),
            last_offset: Offset(4),
            last_stable_offset: Offset(3),
        };
        assert_eq!(aborted, [expected]);
        assert!(log.aborted_transactions(Offset(5), Offset(6)).unwrap().is_empty());
        assert_eq!(log.last_stable_offset(log.log_end_offset()), Offset(6));
    };
    check(&log);
    drop(log);
    check(&fixture.open());
    fixture.open().close(NOW).unwrap();
    check(&fixture.open_clean());
}

#[test]
fn transactional_batches_need_a_verified_transaction() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    let context = AppendContext { transaction: TransactionCheck::Unverified, ..client() };
    let refused = log.append_as_leader(transactional(1, 0, 1), context).unwrap_err();
    assert_eq!(refused.error_code(), ErrorCode::InvalidTxnState);
    append(&mut log, transactional(1, 0, 1)).unwrap();
    log.append_as_leader(transactional(1, 1, 1), context).unwrap();
    assert_eq!(append(&mut log, idempotent(1, 0, 2, 1)).unwrap_err(), ErrorCode::InvalidTxnState);
}

#[test]
fn timestamps_are_looked_up_by_record() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    for n in 0..30 {
        append(&mut log, batch(2, NOW.0 + n * 10)).unwrap();
    }
    let check = |log: &Log| {
        let find = |timestamp| {
            log.find_by_time(TimeQuery::AtOrAfter(Timestamp(NOW.0 + timestamp))).unwrap()
        };
        for n in 0..30 {
            assert_eq!(find(n * 10).unwrap().offset, Offset(n * 2));
            let found = find(n * 10 + 1).unwrap();
            assert_eq!(
                (found.offset, found.timestamp),
                (Offset(n * 2 + 1), Timestamp(NOW.0 + n * 10 + 1))
            );
        }
        assert!(find(292).is_none());
        let largest = log.find_by_time(TimeQuery::Largest).unwrap().unwrap();
        assert_eq!((largest.offset, largest.timestamp), (Offset(59), Timestamp(NOW.0 + 291)));
    };
    check(&log);
    log.set_log_start_offset(Offset(7), Offset(60)).unwrap();
    assert_eq!(log.find_by_time(TimeQuery::AtOrAfter(NOW)).unwrap().unwrap().offset, Offset(7));
    drop(log);
    check(&fixture.open());
    fixture.open().close(NOW).unwrap();
    check(&fixture.open_clean());
    let empty = Fixture::new();
    assert_eq!(empty.open().find_by_time(TimeQuery::Largest).unwrap(), None);
}

#[test]
fn retention_deletes_by_time_and_size_but_not_compacted_logs() {
    let fill = |log: &mut Log| {
        for n in 0..30 {
            append(log, batch(2, NOW.0 + n)).unwrap();
        }
    };
    let mut fixture = Fixture::new();
    fixture.config.retention_bytes = 1000;
    let mut log = fixture.open();
    fill(&mut log);
    assert!(
        log.apply_retention(NOW, Offset(0)).unwrap().is_empty(),
        "nothing at the high watermark goes"
    );
    let deleted = log.apply_retention(NOW, Offset(60)).unwrap();
    assert!(!deleted.is_empty());
    assert!(log.size() >= 1000 && log.size() < 1600);
    assert_eq!(log.log_start_offset(), log.segments().next().unwrap().base_offset);
    assert!(fixture.files().iter().any(|name| name.ends_with(".log.deleted")));
    deleted.iter().for_each(|files| files.remove().unwrap());
    assert!(!fixture.files().iter().any(|name| name.ends_with(".deleted")));

    let mut fixture = Fixture::new();
    fixture.config.retention_ms = 1000;
    let mut log = fixture.open();
    fill(&mut log);
    assert!(log.apply_retention(NOW.plus_ms(900), Offset(60)).unwrap().is_empty());
    log.apply_retention(NOW.plus_ms(2000), Offset(60)).unwrap();
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset(), log.size()),
        (Offset(60), Offset(60), 0)
    );
    drop(log);
    let log = fixture.open();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(60), Offset(60)));

    let mut fixture = Fixture::new();
    fixture.config.retention_ms = 1000;
    fixture.config.cleanup_policy = CleanupPolicy { delete: false, compact: true };
    let mut log = fixture.open();
    fill(&mut log);
    assert!(log.apply_retention(NOW.plus_ms(2000), Offset(60)).unwrap().is_empty());
    log.set_log_start_offset(Offset(30), Offset(60)).unwrap();
    assert!(
        !log.apply_retention(NOW, Offset(60)).unwrap().is_empty(),
        "DeleteRecords frees segments here too"
    );
}

#[test]
fn what_follows_a_cut_at_a_start_within_a_batch_is_kept() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    append(&mut log, batch(2, NOW.0)).unwrap();
    log.set_log_start_offset(Offset(1), Offset(2)).unwrap();
    log.truncate_to(Offset(1), NOW).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(1), Offset(1)));
    assert_eq!(log.truncations, 1);
    log.roll(Offset(1), NOW).unwrap();
    append(&mut log, batch(1, NOW.0)).unwrap();
    append(&mut log, batch(1, NOW.0)).unwrap();
    drop(log);
    // A crash: with the log's start from its checkpoint, and without.
    for start in [1, 0] {
        let params = LogParams { log_start_offset: Offset(start), ..fixture.params() };
        let log = Log::open(params).unwrap();
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(1), Offset(3)));
    }
}

#[test]
fn leader_epochs_are_kept_and_answered() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    for (epoch, batches) in [(0, 2), (3, 1), (5, 2)] {
        for _ in 0..batches {
            let context = AppendContext { leader_epoch: LeaderEpoch(epoch), ..client() };
            log.append_as_leader(batch(1, NOW.0), context).unwrap();
        }
    }
    let check = |log: &Log| {
        let cases = [
            (-1, None),
            (0, Some((0, 2))),
            (1, Some((0, 2))),
            (3, Some((3, 3))),
            (4, Some((3, 3))),
            (5, Some((5, 5))),
            (6, None),
        ];
        for (epoch, expected) in cases {
            let found = log.end_offset_for_epoch(LeaderEpoch(epoch)).map(|(e, o)| (e.0, o.0));
            assert_eq!(found, expected, "epoch {epoch}");
        }
        assert_eq!(log.epoch_for_offset(Offset(2)), Some(LeaderEpoch(3)));
    };
    check(&log);
    drop(log);
    check(&fixture.open());
    fixture.open().close(NOW).unwrap();
    check(&fixture.open_clean());
    let mut log = fixture.open();
    log.truncate_to(Offset(3), NOW).unwrap();
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(3)));
}

#[test]
fn follower_appends_as_given_and_leaves_out_a_cut_batch() {
    let leader = Fixture::new();
    let mut log = leader.open();
    for n in 0..3 {
        append(&mut log, idempotent(1, 0, n * 2, 2)).unwrap();
    }
    let bytes =
        log.read(Offset(0), 10_000, MinOne::Yes, Offset(6)).unwrap().unwrap().to_bytes().unwrap();
    let fixture = Fixture::new();
    let mut follower = fixture.open();
    let info = follower.append_as_follower(bytes.slice(..bytes.len() - 1), NOW).unwrap();
    assert_eq!((info.last_offset, info.records_count), (Offset(3), 4));
    assert!(follower.append_as_follower(bytes, NOW).is_err(), "offsets that are there already");
    assert_eq!(follower.active_producers()[0].last_sequence, 3);
    follower.truncate_fully_and_start_at(Offset(100), NOW).unwrap();
    assert_eq!(
        (follower.log_start_offset(), follower.log_end_offset()),
        (Offset(100), Offset(100))
    );
}

#[test]
fn left_over_files_are_dealt_with() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    for n in 0..10 {
        append(&mut log, batch(3, NOW.0 + n)).unwrap();
    }
    let bases: Vec<i64> = log.segments().map(|segment| segment.base_offset.0).collect();
    assert!(bases.len() >= 3);
    let end = log.log_end_offset();
    log.close(NOW).unwrap();
    let put = |name: String, bytes: &[u8]| {
        RealDisk.write_atomic(&fixture.path().join(name), bytes).unwrap()
    };
    // A swap of the first two segments that had not finished, and what a deletion and a cleaner left.
    let whole: Vec<u8> = bases[..2]
        .iter()
        .flat_map(|base| RealDisk.read(&fixture.path().join(format!("{base:020}.log"))).unwrap())
        .collect();
    put(format!("{:020}.log.swap", 0), &whole);
    put(format!("{:020}.log.deleted", 3), b"x");
    put(format!("{:020}.log.cleaned", bases[2]), b"x");
    put(format!("{:020}.index", 77), b"12345678");
    let log = fixture.open_clean();
    assert_eq!(log.log_end_offset(), end);
    assert_eq!(read_all(&log, Offset(0)).len(), 10);
    assert_eq!(log.segments().len(), bases.len() - 1);
    let odd = |name: &String| {
        name.contains("deleted")
            || name.contains("cleaned")
            || name.contains("swap")
            || name.contains("77")
    };
    assert!(!fixture.files().iter().any(odd), "{:?}", fixture.files());
}

#[test]
fn a_view_for_look_ups_by_time_tells_when_its_batches_have_moved() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    for n in 0..30 {
        append(&mut log, batch(2, NOW.0 + n)).unwrap();
    }
    let query = TimeQuery::AtOrAfter(NOW.plus_ms(7));
    let view = log.time_view();
    append(&mut log, batch(2, NOW.0)).unwrap();
    log.roll_if_needed(NOW).unwrap();
    assert!(log.has_all_of(&view));
    assert_eq!(view.find(query).unwrap(), log.find_by_time(query).unwrap());
    log.truncate_to(Offset(50), NOW).unwrap();
    assert!(!log.has_all_of(&view));
    let view = log.time_view();
    log.set_config(Arc::new(LogConfig { retention_bytes: 0, ..LogConfig::default() }));
    assert!(!log.apply_retention(NOW, log.log_end_offset()).unwrap().is_empty());
    assert!(!log.has_all_of(&view));
    assert!(log.has_all_of(&log.time_view()));
}

#[test]
fn missing_and_cut_indexes_are_built_anew() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    for n in 0..20 {
        append(&mut log, batch(3, NOW.0 + n)).unwrap();
    }
    log.close(NOW).unwrap();
    let indexes: Vec<String> =
        fixture.files().into_iter().filter(|name| name.ends_with("index")).collect();
    let read = |name: &String| RealDisk.read(&fixture.path().join(name)).unwrap();
    let before: Vec<Vec<u8>> = indexes.iter().map(read).collect();
    for (n, name) in indexes.iter().enumerate() {
        let path = fixture.path().join(name);
        match n % 3 {
            0 => RealDisk.remove_file(&path).unwrap(),
            1 => RealDisk.write_atomic(&path, &before[n][..before[n].len() - 1]).unwrap(),
            _ => {}
        }
    }
    let log = fixture.open_clean();
    assert_eq!(read_all(&log, Offset(0)).len(), 20);
    assert_eq!(indexes.iter().map(read).collect::<Vec<_>>(), before);
}

#[test]
fn flush_moves_the_recovery_point_by_its_settings() {
    let mut fixture = Fixture::new();
    fixture.config.flush_messages = 4;
    fixture.config.flush_ms = 100;
    let mut log = fixture.open();
    append(&mut log, batch(3, NOW.0)).unwrap();
    assert_eq!(log.recovery_point(), Offset(0));
    assert!(!log.is_flush_due(NOW.plus_ms(99)) && log.is_flush_due(NOW.plus_ms(100)));
    assert_eq!(log.flush_owed(), FlushOwed::Nothing);
    append(&mut log, batch(1, NOW.0)).unwrap();
    assert_eq!(log.flush_owed(), FlushOwed::BeforeAnswer);
    log.flush(NOW).unwrap();
    assert_eq!((log.recovery_point(), log.is_flush_due(NOW.plus_ms(1000))), (Offset(4), false));
    let config = LogConfig { sync_before_commit: true, ..fixture.config.clone() };
    log.set_config(Arc::new(config));
    assert_eq!(log.flush_owed(), FlushOwed::Nothing);
    append(&mut log, batch(1, NOW.0)).unwrap();
    assert_eq!(log.flush_owed(), FlushOwed::BeforeCommit);
}

/// Copies the partition that Apache Kafka 4.3.1 wrote: plain, gzip and zstd batches of idempotent producers and
/// committed transactions.
fn kafkas_partition() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.config =
        LogConfig { index_interval_bytes: 200, segment_index_bytes: 2048, ..LogConfig::default() };
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/log/testdata/kafka-4.3.1/t-0");
    RealDisk.create_dir_all(&fixture.path()).unwrap();
    for entry in RealDisk.list(&from).unwrap() {
        let bytes = RealDisk.read(&from.join(&entry.name)).unwrap();
        RealDisk.write_atomic(&fixture.path().join(&entry.name), &bytes).unwrap();
    }
    fixture
}

#[test]
fn kafkas_own_files_are_read_and_written_alike() {
    let fixture = kafkas_partition();
    let contents = |path: &Path| -> Vec<(String, Vec<u8>)> {
        let entries = RealDisk.list(path).unwrap();
        entries
            .into_iter()
            .map(|e| (e.name.clone(), RealDisk.read(&path.join(e.name)).unwrap()))
            .collect()
    };
    let original = contents(&fixture.path());
    let log = fixture.open_clean();
    assert_eq!((log.log_end_offset(), log.active_producers().len()), (Offset(158), 4));
    let headers = read_all(&log, Offset(0));
    let count: i32 = headers.iter().map(|header| header.records_count).sum();
    assert_eq!(count, 158);
    let bytes = log
        .read(Offset(0), usize::MAX, MinOne::Yes, Offset(158))
        .unwrap()
        .unwrap()
        .to_bytes()
        .unwrap();
    drop(log);
    assert_eq!(contents(&fixture.path()), original, "reading changes nothing");
    // After a crash all is built anew, to the same bytes.
    fixture.open().close(NOW).unwrap();
    let now =
        |name: &str| contents(&fixture.path()).into_iter().find(|(n, _)| n == name).unwrap().1;
    for (name, before) in &original {
        assert_eq!(&now(name), before, "{name}");
    }
    // A follower of that log has the same files.
    let mut fixture = Fixture::new();
    fixture.config = kafkas_partition().config;
    let mut log = Log::open(LogParams {
        topic_id: ottla_protocol::uuid_from_text("qcqzeJs6Tly6gncJla2qUw").unwrap(),
        now: headers[0].max_timestamp,
        ..fixture.params()
    })
    .unwrap();
    log.append_as_follower(bytes, headers[0].max_timestamp).unwrap();
    log.close(NOW).unwrap();
    assert_eq!(contents(&fixture.path()), original);
}
