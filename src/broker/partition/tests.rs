//! What an acknowledgement rests on: syncs that are shared, that wait, and that fail.

use super::*;
use crate::broker::fixture::{self, leadership, log_params, partition_params, read_params};
use crate::env::SystemClock;
use crate::env::faulty::{Faults, FaultyDisk};
use crate::log::{FlushOwed, LogConfig, LogParams, TimeQuery};
use crate::machines::replica::{Eligibility, FollowerFetch, IsrAnswer, Leadership};
use ottla_protocol::record::BatchParams;
use ottla_protocol::{BrokerEpoch, BrokerId, Timestamp};
use std::time::{Duration, Instant};

struct World {
    _dir: tempfile::TempDir,
    faults: Arc<Faults>,
    partition: Arc<Partition>,
}

/// A partition that this broker leads, alone, over a disk that does what the test says.
fn world(config: LogConfig) -> World {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.faults);
    let log =
        LogParams { disk: Arc::new(disk), config: Arc::new(config), ..log_params(dir.path(), 0) };
    let partition = Partition::new(partition_params(BrokerId(1), log));
    lead(&partition, 0, &[1]);
    World { _dir: dir, faults, partition }
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

/// Broker 1 leads; all replicas are in sync.
fn lead(partition: &Partition, epoch: i32, replicas: &[i32]) {
    partition.lead(leadership(epoch, &ids(replicas))).unwrap();
}

fn flush_messages(flush_messages: i64) -> World {
    world(LogConfig { flush_messages, ..LogConfig::default() })
}

fn batch(records: usize) -> Bytes {
    fixture::batch(BatchParams::default(), SystemClock.now(), &vec![b"value".as_slice(); records])
}

fn append(partition: &Arc<Partition>, acks: i16) -> AppendInfo {
    partition.append(batch(1), acks, AppendOrigin::Client).unwrap()
}

fn read(partition: &Partition) -> Result<PartitionRead, ErrorCode> {
    partition.read(read_params(Offset(0)))
}

#[tokio::test]
async fn appends_while_a_sync_runs_share_the_next_one() {
    let World { faults, partition, _dir } = flush_messages(1);
    faults.gate_syncs();
    assert_eq!(append(&partition, 1).flush, FlushOwed::BeforeAnswer);
    faults.wait_for_syncs(1);
    for _ in 0..5 {
        append(&partition, 1);
    }
    assert_eq!((partition.settled_end(), partition.high_watermark()), (Offset(0), Offset(0)));
    assert!(read(&partition).unwrap().slice.is_none(), "no consumer sees what is not synced");
    faults.permit_syncs(1);
    partition.settled(Offset(1)).await.unwrap();
    faults.wait_for_syncs(2);
    assert_eq!((partition.settled_end(), partition.high_watermark()), (Offset(1), Offset(1)));
    faults.permit_syncs(1);
    partition.settled(Offset(6)).await.unwrap();
    assert_eq!((partition.high_watermark(), faults.syncs_begun()), (Offset(6), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_record_of_many_producers_is_synced_before_it_counts() {
    let World { partition, _dir, .. } = flush_messages(1);
    let produce = |partition: Arc<Partition>| async move {
        for _ in 0..40 {
            let end = append(&partition, -1).last_offset.plus(1);
            partition.settled(end).await.unwrap();
            assert!(partition.with_log(|log| log.recovery_point()).unwrap() >= end);
            assert!(partition.high_watermark() >= end);
        }
    };
    let producers: Vec<_> =
        (0..16).map(|_| tokio::spawn(produce(Arc::clone(&partition)))).collect();
    for producer in producers {
        producer.await.unwrap();
    }
    assert_eq!(partition.high_watermark(), Offset(640));
}

#[tokio::test]
async fn failed_sync_acknowledges_nothing_and_is_not_tried_again() {
    let World { faults, partition, _dir } = flush_messages(1);
    append(&partition, -1);
    partition.settled(Offset(1)).await.unwrap();
    faults.gate_syncs();
    append(&partition, -1);
    faults.wait_for_syncs(1);
    // It is in the file when the sync fails, and no other sync may say that it is durable.
    append(&partition, -1);
    faults.fail_syncs(true);
    faults.permit_syncs(1);
    let storage = Err(ErrorCode::KafkaStorageError);
    assert_eq!(partition.settled(Offset(2)).await, storage);
    faults.fail_syncs(false);
    assert_eq!(partition.settled(Offset(3)).await, storage);
    assert_eq!((partition.settled_end(), partition.high_watermark()), (Offset(1), Offset(1)));
    let refused = partition.append(batch(1), -1, AppendOrigin::Client);
    assert_eq!(refused.unwrap_err().error_code(), ErrorCode::KafkaStorageError);
    assert_eq!(read(&partition).err(), Some(ErrorCode::KafkaStorageError));
    partition.flush(Flush::Owed).unwrap();
    assert_eq!(faults.syncs_begun(), 1);
}

#[tokio::test]
async fn records_below_flush_messages_are_acknowledged_without_a_sync() {
    let World { faults, partition, _dir } = flush_messages(3);
    faults.gate_syncs();
    for end in 1..3 {
        assert_eq!(append(&partition, -1).flush, FlushOwed::Nothing);
        assert_eq!(partition.high_watermark(), Offset(end));
    }
    assert_eq!(append(&partition, -1).flush, FlushOwed::BeforeAnswer);
    faults.wait_for_syncs(1);
    append(&partition, -1);
    assert_eq!(partition.high_watermark(), Offset(2));
    faults.permit_syncs(1);
    partition.settled(Offset(4)).await.unwrap();
    assert_eq!((partition.high_watermark(), faults.syncs_begun()), (Offset(4), 1));
}

#[tokio::test]
async fn ack_durability_lets_the_high_watermark_wait_but_not_acks_1() {
    let config = LogConfig { sync_before_commit: true, ..LogConfig::default() };
    let World { faults, partition, _dir } = world(config);
    faults.gate_syncs();
    assert_eq!(append(&partition, 1).flush, FlushOwed::BeforeCommit);
    faults.wait_for_syncs(1);
    assert_eq!(partition.high_watermark(), Offset(0));
    faults.permit_syncs(1);
    partition.settled(Offset(1)).await.unwrap();
    assert_eq!(partition.high_watermark(), Offset(1));
}

#[tokio::test]
async fn closing_and_deleting_release_those_who_wait() {
    let World { faults, partition, _dir } = flush_messages(1);
    faults.gate_syncs();
    append(&partition, 1);
    faults.wait_for_syncs(1);
    let mut settled = Box::pin(partition.settled(Offset(1)));
    std::future::poll_fn(|cx| {
        assert!(settled.as_mut().poll(cx).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    let to = _dir.path().join("t-0.gone-delete");
    partition.delete(|_| to).unwrap();
    assert_eq!(settled.await, Err(ErrorCode::NotLeaderOrFollower));
    faults.permit_syncs(1);
}

/// What a crash left in the page cache is synced before anybody reads it.
#[test]
fn leading_syncs_what_a_crash_left_unsynced() {
    let World { partition, _dir, .. } = flush_messages(i64::MAX);
    append(&partition, 1);
    partition.set_config(Arc::new(LogConfig { flush_messages: 1, ..LogConfig::default() }), 1);
    lead(&partition, 1, &[1]);
    assert_eq!(partition.checkpoint().unwrap().recovery_point, Offset(1));
}

#[tokio::test]
async fn producers_do_not_wait_for_a_cold_read() {
    let small =
        LogConfig { segment_bytes: 1000, index_interval_bytes: 100, ..LogConfig::default() };
    let World { faults, partition, _dir } = world(small);
    for _ in 0..100 {
        append(&partition, 1);
    }
    faults.empty_memory();
    faults.gate_syncs();
    let recent =
        partition.read_from_memory(read_params(Offset(99))).unwrap().expect("the newest batch");
    assert!(recent.slice.unwrap().is_recent);
    assert!(
        partition.read_from_memory(read_params(Offset(3))).unwrap().is_none(),
        "it is not in memory"
    );
    let reader = Arc::clone(&partition);
    let reading = std::thread::spawn(move || reader.read_cold(read_params(Offset(3))));
    faults.wait_for_syncs(1);
    append(&partition, 1);
    faults.permit_syncs(usize::MAX);
    let slice = reading.join().unwrap().unwrap().slice.unwrap();
    assert_eq!((slice.base_offset, slice.is_recent), (Offset(3), false));
    assert!((1..read::COLD_LOOKS_MAX).contains(&faults.syncs_begun()), "{}", faults.syncs_begun());
    // What a look-up needed is in memory now.
    let again = partition.read_from_memory(read_params(Offset(3))).unwrap().expect("in memory");
    assert_eq!(again.slice.unwrap().base_offset, Offset(3));
    assert_eq!(
        partition.read_cold(read_params(Offset(102))).err(),
        Some(ErrorCode::OffsetOutOfRange)
    );
}

/// A flush after a roll would be taken for another sync that a test waits for.
fn rolls_are_flushed(partition: &Partition) {
    let begun = Instant::now();
    while partition.owned.lock().roll_flush != RollFlush::Idle {
        assert!(begun.elapsed() < Duration::from_secs(20), "rolls are not flushed");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn producers_do_not_wait_for_a_cold_look_up_by_time() {
    let small =
        LogConfig { segment_bytes: 1000, index_interval_bytes: 100, ..LogConfig::default() };
    let World { faults, partition, _dir } = world(small);
    for _ in 0..100 {
        append(&partition, 1);
    }
    let first = TimeQuery::AtOrAfter(Timestamp(0));
    let hot = partition.find_by_time_in_memory(first).unwrap().expect("in memory");
    assert_eq!(hot.unwrap().offset, Offset(0));
    for query in [first, TimeQuery::Largest] {
        rolls_are_flushed(&partition);
        let found = partition.find_by_time_cold(query).unwrap();
        faults.take_permits();
        faults.empty_memory();
        faults.gate_syncs();
        assert!(partition.find_by_time_in_memory(query).unwrap().is_none(), "it is not in memory");
        let reader = Arc::clone(&partition);
        let reading = std::thread::spawn(move || reader.find_by_time_cold(query));
        faults.wait_for_syncs(1);
        append(&partition, 1);
        faults.permit_syncs(usize::MAX);
        assert_eq!(reading.join().unwrap().unwrap(), found);
    }
}

#[tokio::test]
async fn a_roll_makes_what_is_before_it_durable() {
    let small = LogConfig { segment_bytes: 1000, ..LogConfig::default() };
    let World { faults, partition, _dir } = world(small);
    faults.gate_syncs();
    let rolls = |count: usize| {
        let mut rolled = Vec::new();
        while rolled.len() < count {
            let info = append(&partition, 1);
            rolled.extend(info.has_rolled.then_some(info.first_offset));
        }
        rolled
    };
    let recovery_point = || partition.checkpoint().unwrap().recovery_point;
    let first = rolls(1);
    faults.wait_for_syncs(1);
    assert!(!partition.health.load().take_flushed());
    // Rolls while a flush runs ask for another, not for one each.
    let last = rolls(3)[2];
    assert!(first[0] < last);
    faults.permit_syncs(usize::MAX);
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while recovery_point() < last {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the flush");
    assert_eq!(recovery_point(), last);
    assert!(partition.health.load().take_flushed());
}

fn follower_fetch(id: i32, offset: i64) -> FollowerFetch {
    FollowerFetch {
        replica: BrokerId(id),
        broker_epoch: BrokerEpoch(5),
        eligibility: Eligibility::Eligible,
        metadata_offset: Offset(0),
        fetch_offset: Offset(offset),
        log_start_offset: Offset(0),
    }
}

fn fetch_as_follower(partition: &Partition, id: i32, offset: i64) -> PartitionRead {
    let params = ReadParams {
        isolation: IsolationLevel::LogEnd,
        follower: Some(follower_fetch(id, offset)),
        ..read_params(Offset(offset))
    };
    partition.read(params).unwrap()
}

#[test]
fn followers_read_to_the_end_and_consumers_to_the_high_watermark() {
    let World { partition, _dir, .. } = flush_messages(i64::MAX);
    lead(&partition, 1, &[1, 2]);
    append(&partition, -1);
    assert!(read(&partition).unwrap().slice.is_none());
    let got = fetch_as_follower(&partition, 2, 0);
    assert_eq!((got.slice.is_some(), got.high_watermark), (true, Offset(0)));
    let got = fetch_as_follower(&partition, 2, 1);
    assert_eq!((got.slice.is_some(), got.high_watermark), (false, Offset(1)));
    assert!(read(&partition).unwrap().slice.is_some());
}

#[test]
fn who_waits_learns_that_another_broker_led_even_if_it_leads_again() {
    let World { partition, _dir, .. } = flush_messages(i64::MAX);
    lead(&partition, 1, &[1, 2]);
    let info = append(&partition, -1);
    let acks = || partition.acks(Offset(1), info.leader_epoch);
    assert_eq!(acks(), Acks::Wait);
    partition.follow(BrokerId(2), LeaderEpoch(2), 2);
    assert_eq!(acks(), Acks::Done(Err(ErrorCode::NotLeaderOrFollower)));
    let refused = partition.append(batch(1), -1, AppendOrigin::Client).unwrap_err();
    assert_eq!(refused.error_code(), ErrorCode::NotLeaderOrFollower);
    lead(&partition, 3, &[1]);
    assert_eq!(partition.high_watermark(), Offset(1));
    assert_eq!(acks(), Acks::Done(Err(ErrorCode::NotLeaderOrFollower)));
}

/// Another epoch of the same leader loses nothing.
#[test]
fn who_waits_goes_on_when_the_leader_stays() {
    let World { partition, _dir, .. } = flush_messages(i64::MAX);
    lead(&partition, 1, &[1, 2]);
    let info = append(&partition, -1);
    lead(&partition, 2, &[1, 2]);
    assert_eq!(partition.acks(Offset(1), info.leader_epoch), Acks::Wait);
    fetch_as_follower(&partition, 2, 1);
    assert_eq!(partition.acks(Offset(1), info.leader_epoch), Acks::Done(Ok(())));
}

#[test]
fn a_shrunken_isr_is_told_with_the_acknowledgement() {
    let World { partition, _dir, .. } = flush_messages(i64::MAX);
    partition.set_config(Arc::default(), 2);
    lead(&partition, 1, &[1, 2]);
    let info = append(&partition, -1);
    fetch_as_follower(&partition, 2, 1);
    assert_eq!(partition.acks(Offset(1), info.leader_epoch), Acks::Done(Ok(())));
    partition.fence(ids(&[2]), Offset(0));
    let (_, change) = partition.isr_changes.take().pop().expect("a change");
    let answer =
        IsrAnswer::Committed { leader_epoch: LeaderEpoch(1), partition_epoch: 2, isr: ids(&[1]) };
    partition.isr_answered(change, answer);
    let error = Acks::Done(Err(ErrorCode::NotEnoughReplicasAfterAppend));
    assert_eq!(partition.acks(Offset(1), info.leader_epoch), error);
    let refused = partition.append(batch(1), -1, AppendOrigin::Client).unwrap_err();
    assert_eq!(refused.error_code(), ErrorCode::NotEnoughReplicas);
}

/// What it says is in its log has to last: the leader counts on it.
#[tokio::test]
async fn a_follower_that_syncs_says_so_only_after_the_sync() {
    let config = LogConfig { sync_before_commit: true, ..LogConfig::default() };
    let World { faults, partition, _dir } = world(config);
    partition.follow(BrokerId(2), LeaderEpoch(1), 1);
    faults.gate_syncs();
    let (end, flush) = partition
        .take_fetched(Fetched {
            leader_epoch: LeaderEpoch(1),
            position: partition.fetch_state(LeaderEpoch(1)).unwrap().position,
            records: batch(1),
            high_watermark: Offset(1),
            log_start_offset: Offset(0),
        })
        .unwrap();
    assert_eq!((end, flush), (Offset(1), FlushOwed::BeforeCommit));
    faults.wait_for_syncs(1);
    assert_eq!((partition.settled_end(), partition.high_watermark()), (Offset(0), Offset(0)));
    faults.permit_syncs(1);
    partition.settled(Offset(1)).await.unwrap();
    assert_eq!(partition.high_watermark(), Offset(1));
}

#[test]
fn batches_of_an_epoch_that_is_not_known_are_left_out() {
    let World { partition, _dir, .. } = flush_messages(i64::MAX);
    partition.follow(BrokerId(2), LeaderEpoch(4), 1);
    let batch = |base_offset: i64, epoch| {
        let params = BatchParams {
            base_offset: Offset(base_offset),
            leader_epoch: LeaderEpoch(epoch),
            ..BatchParams::default()
        };
        fixture::batch(params, Timestamp(1), &[b"value"])
    };
    let records = [batch(0, 3), batch(1, 4), batch(2, 5)].concat();
    let fetched = |(end, last_epoch), records: &[u8]| Fetched {
        leader_epoch: LeaderEpoch(4),
        position: LogPosition { end: Offset(end), last_epoch: LeaderEpoch(last_epoch) },
        records: Bytes::copy_from_slice(records),
        high_watermark: Offset(0),
        log_start_offset: Offset(0),
    };
    partition.take_fetched(fetched((0, 0), &records)).unwrap();
    assert_eq!(partition.log_end_offset(), Offset(2));
    // A cut batch, damage, and what is not from here on are no reason to panic.
    let whole = batch(2, 4);
    partition.take_fetched(fetched((2, 4), &whole[..30])).unwrap();
    let mut damaged = whole.to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert!(partition.take_fetched(fetched((2, 4), &damaged)).is_err());
    assert!(matches!(partition.take_fetched(fetched((7, 4), &whole)), Err(FollowerError::Stale)));
    // An answer from before the log was cut, and has grown to the same end again.
    assert!(matches!(partition.take_fetched(fetched((2, 3), &whole)), Err(FollowerError::Stale)));
    let position = LogPosition { end: Offset(2), last_epoch: LeaderEpoch(3) };
    let cut = partition.truncate(LeaderEpoch(4), position, Truncation::To(Offset(1)));
    assert!(matches!(cut, Err(FollowerError::Stale)));
    drop(cut);
    partition.take_fetched(fetched((2, 4), &whole)).unwrap();
    assert_eq!(partition.log_end_offset(), Offset(3));
}

#[test]
fn a_follower_that_is_not_in_sync_gets_no_more_than_the_rate() {
    use ottla_protocol::MetadataRecord;
    use ottla_protocol::metadata::ConfigRecord;
    let World { partition, _dir, .. } = flush_messages(i64::MAX);
    let alone = || Leadership { isr: ids(&[1]), ..leadership(1, &ids(&[1, 2])) };
    partition.lead(alone()).unwrap();
    append(&partition, 1);
    append(&partition, 1);
    let rate = ConfigRecord {
        resource_type: 4,
        resource_name: "1".to_owned(),
        name: "leader.replication.throttled.rate".to_owned(),
        value: Some("1000".to_owned()),
    };
    let image = fixture::image(&[MetadataRecord::Config(rate)]);
    partition.quotas.leader.reconfigure(&image, BrokerId(1));
    let is_sent = || {
        let slice = fetch_as_follower(&partition, 2, 0).slice;
        partition.note_sent(BrokerId(2), 100_000);
        slice.is_some()
    };
    assert!(is_sent() && is_sent(), "the topic's settings do not name it");
    partition.set_throttled(Throttled { leader: true, follower: false });
    assert!(is_sent());
    assert!(!is_sent());
    partition.lead(alone()).unwrap();
    lead(&partition, 2, &[1, 2]);
    assert!(is_sent() && is_sent(), "it is in sync");
}
