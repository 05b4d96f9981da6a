//! Whole brokers without listeners: what survives failures.

use super::quorum::{Quorum, QuorumListener, QuorumParams, QuorumTiming, Voter, VoterSet};
use super::voters::VoterConnections;
use super::*;
use crate::config::{Config, Source, Values};
use crate::env::disk::Space;
use crate::env::faulty::FaultyDisk;
use crate::env::{Disk, RealDisk, SystemClock};
use crate::log::checkpoint::{read_clean_shutdown, write_partition_metadata};
use ottla_protocol::Timestamp;
use ottla_protocol::messages::create_topics_request::CreatableTopic;
use ottla_protocol::messages::delete_topics_request::DeleteTopicState;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, OffsetCommitRequest};
use ottla_protocol::record::BatchParams;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

pub(super) fn settings(dirs: &[&Path]) -> Settings {
    settings_with(dirs, &[])
}

pub(super) fn settings_with(dirs: &[&Path], more: &[(&str, &str)]) -> Settings {
    let dirs: Vec<&str> = dirs.iter().filter_map(|dir| dir.to_str()).collect();
    let mut values = Values::default();
    values.set("log.dirs", &dirs.join(","), Source::Override);
    for (name, value) in more {
        values.set(name, value, Source::Override);
    }
    let listener = AdvertisedListener {
        name: "PLAINTEXT".to_owned(),
        host: "localhost".to_owned(),
        port: 9092,
        security_protocol: 0,
    };
    Settings::new(Arc::new(Config::from_values(values).unwrap()), &[listener])
}

/// What opens the metadata log of a broker with these settings.
pub(super) fn quorum_params(settings: &Settings) -> QuorumParams {
    QuorumParams {
        disk: Arc::new(RealDisk),
        health: Arc::default(),
        clock: Arc::new(SystemClock),
        dir: settings.metadata_log_dir.clone(),
        own: Voter::fixed(settings.node_id),
        voters: VoterSet::fixed([settings.node_id]),
        listener: "CONTROLLER".to_owned(),
        addresses: settings.controllers.clone(),
        bootstrap: settings.bootstrap.clone(),
        controller: settings.controller.clone(),
        log: Arc::clone(&settings.metadata_log),
        snapshot_bytes: settings.metadata_snapshot_bytes,
        timing: QuorumTiming::default(),
    }
}

/// Hands a quorum's leadership to a test that writes records without any machine.
pub(super) struct Lone {
    pub quorum: Arc<Quorum>,
    pub epoch: ottla_protocol::LeaderEpoch,
    image: Mutex<Image>,
    _listener: Arc<dyn QuorumListener>,
}

struct LoneListener(tokio::sync::watch::Sender<Option<(ottla_protocol::LeaderEpoch, Image)>>);

impl QuorumListener for LoneListener {
    fn publish(&self, _image: Arc<Image>) {}

    fn lead(
        &self,
        epoch: ottla_protocol::LeaderEpoch,
        controller: crate::machines::metadata::Controller,
        _end: ottla_protocol::Offset,
    ) {
        self.0.send_replace(Some((epoch, controller.image().clone())));
    }

    fn resign(&self, _epoch: ottla_protocol::LeaderEpoch) {}
}

impl Lone {
    /// Opens the log as its only voter, which has elected itself.
    pub async fn open(params: QuorumParams) -> Lone {
        let quorum = Arc::new(Quorum::open(params).unwrap());
        let (sender, mut led) = tokio::sync::watch::channel(None);
        let listener: Arc<dyn QuorumListener> = Arc::new(LoneListener(sender));
        quorum
            .start(
                Arc::clone(&listener),
                Arc::new(VoterConnections::new(BrokerId(1), "", &Default::default())),
            )
            .await
            .unwrap();
        let (epoch, image) = led.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        Lone { quorum, epoch, image: Mutex::new(image), _listener: listener }
    }

    /// Appends records and waits until they are committed.
    pub async fn append(&self, records: &[ottla_protocol::MetadataRecord]) {
        let base = self.quorum.append(self.epoch, Timestamp(1), records).unwrap();
        let mut controller = crate::machines::metadata::Controller::of_image(
            settings(&[]).controller,
            self.image.lock().clone(),
        );
        for (n, record) in records.iter().enumerate() {
            let offset = base.plus(n as i64);
            let record = record.clone();
            let entry = crate::machines::Entry { offset, timestamp: Timestamp(1), record };
            crate::machines::Machine::replay(&mut controller, &entry);
        }
        *self.image.lock() = controller.image().clone();
        self.quorum.propose(self.epoch, controller.image().clone());
        let end = base.plus(records.len() as i64);
        loop {
            let moved = self.quorum.moved();
            if self.quorum.committed() >= end {
                return;
            }
            moved.await;
        }
    }
}

async fn start(dirs: &[&Path]) -> Arc<Broker> {
    Broker::start(settings(dirs), Arc::new(RealDisk), Arc::new(SystemClock)).await.unwrap()
}

pub(super) async fn create_topic(broker: &Broker, name: &str) -> Arc<Partition> {
    try_to_create_topic(broker, name).await.unwrap();
    broker.partition(name, 0).unwrap()
}

async fn try_to_create_topic(broker: &Broker, name: &str) -> Result<(), ErrorCode> {
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let seed = uuid::Uuid::new_v4();
    broker.controller(ControllerRequest::CreateTopics { request, seed }).await.map(drop)
}

/// The process was killed after the metadata log's first epoch and before its first records.
#[tokio::test]
async fn a_first_start_that_was_cut_short_is_completed_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(&[dir.path()]);
    let lone = Lone::open(quorum_params(&settings)).await;
    lone.quorum.close().await.unwrap();
    let broker = start(&[dir.path()]).await;
    assert!(broker.image().features.metadata_version() > 0);
    broker.stop().await;
}

async fn commit_offset(broker: &Broker) -> Result<GroupResponse, ErrorCode> {
    let partitions =
        vec![OffsetCommitRequestPartition { committed_offset: 5, ..Default::default() }];
    let topic = OffsetCommitRequestTopic { name: "t".to_owned(), partitions, ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    broker.group("g", GroupRequest::CommitOffsets { version: 9, request }).await
}

#[tokio::test]
async fn a_coordinator_comes_back_after_a_write_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&[dir.path()]).await;
    let partition = create_topic(&broker, GROUP_METADATA_TOPIC).await;
    let topic = broker.settings().topic(&broker.image(), GROUP_METADATA_TOPIC);
    assert!(commit_offset(&broker).await.is_ok());
    // No batch is so small.
    let tiny = crate::log::LogConfig { segment_bytes: 14, ..(*topic.log).clone() };
    partition.set_config(Arc::new(tiny), 1);
    assert_eq!(commit_offset(&broker).await.err(), Some(ErrorCode::NotCoordinator));
    partition.set_config(topic.log, 1);
    let recovered = async {
        while commit_offset(&broker).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), recovered).await.unwrap();
    broker.stop().await;
}

/// Another directory would show the topic empty, and its records would be lost to all readers.
#[tokio::test]
async fn what_cannot_be_opened_is_looked_for_in_its_own_directory_again() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = start(&[one.path(), other.path()]).await;
    let directory = create_topic(&broker, "t").await.checkpoint().unwrap().directory;
    broker.stop().await;
    // The locks of the directories go with it.
    drop(broker);
    assert_eq!(directory, one.path());
    // A link to itself cannot be opened, whoever tries.
    let segment = directory.join("t-0").join("00000000000000000000.log");
    std::fs::create_dir(directory.join("t-0")).unwrap();
    std::os::unix::fs::symlink(&segment, &segment).unwrap();
    let mut settings = settings(&[other.path(), one.path()]);
    settings.metadata_log_dir = one.path().to_owned();
    let started = Broker::start(settings, Arc::new(RealDisk), Arc::new(SystemClock)).await;
    let broker = started.unwrap();
    assert_eq!(broker.partition("t", 0).err(), Some(ErrorCode::KafkaStorageError));
    std::fs::remove_file(&segment).unwrap();
    broker.publisher.publish(&Image::default(), &broker.image());
    assert!(!other.path().join("t-0").exists());
    assert_eq!(broker.partition("t", 0).unwrap().checkpoint().unwrap().directory, one.path());
    broker.stop().await;
}

pub(super) fn produce(partition: &Arc<Partition>) -> Result<AppendInfo, ErrorCode> {
    let batch = fixture::batch(BatchParams::default(), Timestamp(0), &[b"value"]);
    let appended = partition.append(batch, -1, AppendOrigin::Client);
    appended.map_err(|error| error.error_code())
}

#[tokio::test]
async fn producers_alone_wait_while_a_directory_is_below_its_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.faults);
    let of_dir = settings(&[dir.path()]);
    let broker = Broker::start(of_dir, Arc::new(disk), Arc::new(SystemClock)).await.unwrap();
    let partition = create_topic(&broker, "t").await;
    create_topic(&broker, GROUP_METADATA_TOPIC).await;
    let look = |available| {
        faults.set_space(Space { total: 100 << 30, available });
        broker.directories.look_at_space(broker.settings().dir_reserve_bytes);
    };
    produce(&partition).unwrap();
    look(1 << 29);
    assert_eq!(produce(&partition).err(), Some(ErrorCode::NotEnoughReplicas));
    assert_eq!(partition.high_watermark(), partition.log_end_offset());
    commit_offset(&broker).await.unwrap();
    let other = create_topic(&broker, "other").await;
    assert_eq!(produce(&other).err(), Some(ErrorCode::NotEnoughReplicas));
    assert_eq!(partition.delete_records(ottla_protocol::Offset(1)).map(|start| start.0), Ok(1));
    look(2 << 30);
    assert_eq!(produce(&partition).unwrap().first_offset.0, 1);
    broker.stop().await;
}

#[tokio::test]
async fn write_that_finds_no_space_makes_producers_wait_until_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, faults) = start_with_space(dir.path()).await;
    let partition = create_topic(&broker, "t").await;
    produce(&partition).unwrap();
    faults.fill(true);
    assert_eq!(produce(&partition).err(), Some(ErrorCode::NotEnoughReplicas));
    faults.fill(false);
    assert_eq!(produce(&partition).err(), Some(ErrorCode::NotEnoughReplicas));
    broker.directories.look_at_space(broker.settings().dir_reserve_bytes);
    assert_eq!(produce(&partition).unwrap().first_offset.0, 1);
    broker.stop().await;
    drop(broker);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let restarted = Broker::start(settings(&[dir.path()]), disk, Arc::new(SystemClock)).await;
    let broker = restarted.unwrap();
    assert_eq!(broker.partition("t", 0).unwrap().log_end_offset().0, 2);
    broker.stop().await;
}

#[tokio::test]
async fn log_that_finds_no_space_when_it_is_recovered_is_opened_once_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&[dir.path()]).await;
    let partition = create_topic(&broker, "t").await;
    let topic = broker.settings().topic(&broker.image(), "t");
    let one_batch = crate::log::LogConfig { segment_bytes: 100, ..(*topic.log).clone() };
    partition.set_config(Arc::new(one_batch), 1);
    for _ in 0..2 {
        produce(&partition).unwrap();
    }
    broker.abandon().await;
    drop((broker, partition));
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.faults);
    // Those of segments before the last one are written again.
    faults.fill_only(Some("timeindex"));
    let of_dir = settings(&[dir.path()]);
    let broker = Broker::start(of_dir, Arc::new(disk), Arc::new(SystemClock)).await.unwrap();
    assert_eq!(broker.partition("t", 0).err(), Some(ErrorCode::KafkaStorageError));
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert_eq!(broker.partition("t", 0).err(), Some(ErrorCode::KafkaStorageError));
    faults.fill_only(None);
    tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while !broker.partition("t", 0).is_ok_and(|it| it.is_leader()) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    let partition = broker.partition("t", 0).unwrap();
    assert_eq!(partition.log_end_offset().0, 2);
    assert_eq!(produce(&partition).unwrap().first_offset.0, 2);
    broker.stop().await;
}

#[tokio::test]
async fn metadata_log_that_finds_no_space_works_again_once_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, faults) = start_with_space(dir.path()).await;
    let partition = create_topic(&broker, "before").await;
    let offset = broker.image().offset;
    faults.fill(true);
    for _ in 0..2 {
        let refused = try_to_create_topic(&broker, "t").await;
        assert_eq!(refused, Err(ErrorCode::KafkaStorageError));
    }
    let producer_id = broker.next_producer_id().await;
    assert_eq!(producer_id.err(), Some(ErrorCode::CoordinatorLoadInProgress));
    assert_eq!(produce(&partition).err(), Some(ErrorCode::NotEnoughReplicas));
    assert_eq!(broker.image().offset, offset);
    faults.fill(false);
    broker.directories.look_at_space(broker.settings().dir_reserve_bytes);
    let created = create_topic(&broker, "t").await;
    broker.next_producer_id().await.unwrap();
    for partition in [partition, created] {
        assert_eq!(produce(&partition).unwrap().first_offset.0, 0);
    }
    broker.stop().await;
    drop(broker);
    let broker = start(&[dir.path()]).await;
    assert_eq!(broker.image().topics.iter().count(), 2);
    for topic in ["before", "t"] {
        assert_eq!(broker.partition(topic, 0).unwrap().log_end_offset().0, 1);
    }
    broker.stop().await;
}

/// The records are in the file: going on as if they were not would write others over them.
#[tokio::test]
async fn broker_fails_with_a_metadata_log_that_finds_no_space_when_it_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.faults);
    let of_dir = settings(&[dir.path()]);
    let broker = Broker::start(of_dir, Arc::new(disk), Arc::new(SystemClock)).await.unwrap();
    faults.fail_syncs_below(dir.path());
    faults.fill_syncs();
    assert_eq!(try_to_create_topic(&broker, "t").await, Err(ErrorCode::NotController));
    let failure = broker.failed().await;
    assert!(failure.contains("cluster metadata"), "{failure}");
}

/// A broker over a disk that does what the test says, and has space until then.
async fn start_with_space(dir: &Path) -> (Arc<Broker>, Arc<crate::env::faulty::Faults>) {
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.faults);
    faults.set_space(Space { total: 100 << 30, available: 50 << 30 });
    let broker = Broker::start(settings(&[dir]), Arc::new(disk), Arc::new(SystemClock)).await;
    (broker.unwrap(), faults)
}

/// Every file below, with its bytes; the lock aside.
pub(super) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in RealDisk.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            found.extend(files(&path));
        } else if entry.name != ".lock" {
            let bytes = RealDisk.read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// A broker over two log directories, the metadata in the first, with a topic of a partition in each.
async fn two_directories(
    dirs: [&Path; 2],
) -> (Arc<Broker>, Arc<crate::env::faulty::Faults>, [Arc<Partition>; 2]) {
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.faults);
    let more = [("log.flush.interval.messages", "1")];
    let settings = settings_with(&dirs, &more);
    let broker = Broker::start(settings, Arc::new(disk), Arc::new(SystemClock)).await.unwrap();
    let partitions = [create_topic(&broker, "one").await, create_topic(&broker, "other").await];
    for (partition, dir) in partitions.iter().zip(dirs) {
        assert!(partition.is_in(dir));
        produce_durably(partition).await.unwrap();
    }
    (broker, faults, partitions)
}

async fn produce_durably(partition: &Arc<Partition>) -> Result<(), ErrorCode> {
    let appended = produce(partition)?;
    partition.settled(appended.last_offset.plus(1)).await
}

#[tokio::test]
async fn directory_that_fails_takes_its_partitions_and_no_others() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (broker, faults, partitions) = two_directories([one.path(), other.path()]).await;
    faults.fail_syncs_below(other.path());
    let storage = Err(ErrorCode::KafkaStorageError);
    assert_eq!(produce_durably(&partitions[1]).await, storage);
    assert_eq!(produce_durably(&partitions[1]).await, storage);
    assert_eq!(
        partitions[1].check_leader(ottla_protocol::LeaderEpoch(-1)),
        Err(ErrorCode::KafkaStorageError)
    );
    assert_eq!(produce_durably(&partitions[0]).await, Ok(()));
    let offline: Vec<bool> = broker.log_dirs().iter().map(|dir| dir.is_offline).collect();
    assert_eq!(offline, [false, true]);
    // New partitions go where they can be written.
    let third = create_topic(&broker, "third").await;
    assert!(third.is_in(one.path()));
    assert_eq!(produce_durably(&third).await, Ok(()));
    let mut failed = Box::pin(broker.failed());
    assert!(futures_are_pending(failed.as_mut()).await, "one of two is enough");
    faults.fail_syncs_below(one.path());
    assert_eq!(produce_durably(&partitions[0]).await, storage);
    let failure = failed.await;
    assert!(failure.contains(&*one.path().to_string_lossy()), "{failure}");
}

#[tokio::test]
async fn the_controller_knows_where_replicas_lie_and_hears_at_once_of_a_directory_that_fails() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (broker, faults, partitions) = two_directories([one.path(), other.path()]).await;
    let ids: Vec<uuid::Uuid> = broker.directories.all.iter().map(|log_dir| log_dir.id).collect();
    let id = broker.node_id();
    let registration = |broker: &Broker, topic| {
        let image = broker.image();
        image.topics.get(topic).and_then(|topic| topic.partition(0)).cloned().unwrap()
    };
    let where_it_is = |topic| registration(&broker, topic).directory_of(id);
    fixture::until("the controller knows where both are", || {
        (where_it_is("one"), where_it_is("other")) == (ids[0], ids[1])
    })
    .await;
    faults.fail_syncs_below(other.path());
    assert_eq!(produce_durably(&partitions[1]).await, Err(ErrorCode::KafkaStorageError));
    fixture::until("the controller knows what is left", || {
        broker.image().cluster.brokers[&id].log_dirs == ids[..1]
    })
    .await;
    let lost = registration(&broker, "other");
    assert!(futures_are_pending(std::pin::pin!(broker.untold_failure())).await);
    assert!(!lost.has_leader() && registration(&broker, "one").leader == id, "{lost:?}");
    assert_eq!(produce_durably(&partitions[1]).await, Err(ErrorCode::KafkaStorageError));
    assert_eq!(produce_durably(&partitions[0]).await, Ok(()));
    broker.stop().await;
    drop((broker, partitions));
    // The next process has the directory again, and leads what lies there.
    let broker = start(&[one.path(), other.path()]).await;
    assert_eq!(registration(&broker, "other").leader, id);
    broker.stop().await;
}

#[tokio::test]
async fn checkpoint_that_cannot_be_written_takes_its_directory_offline() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (broker, faults, partitions) = two_directories([one.path(), other.path()]).await;
    faults.fail_syncs_below(other.path());
    broker.housekeeping.write_all();
    let offline: Vec<bool> = broker.log_dirs().iter().map(|dir| dir.is_offline).collect();
    assert_eq!(offline, [false, true]);
    let storage = Err(ErrorCode::KafkaStorageError);
    assert_eq!(produce_durably(&partitions[1]).await, storage);
    assert_eq!(produce_durably(&partitions[0]).await, Ok(()));
    broker.stop().await;
}

#[tokio::test]
async fn stop_is_in_order_in_the_directories_that_did_not_fail() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (broker, faults, partitions) = two_directories([one.path(), other.path()]).await;
    let more = [create_topic(&broker, "third").await, create_topic(&broker, "fourth").await];
    for partition in &more {
        produce_durably(partition).await.unwrap();
    }
    assert!(more.iter().any(|partition| partition.is_in(other.path())));
    faults.fail_syncs_below(other.path());
    let storage = Err(ErrorCode::KafkaStorageError);
    assert_eq!(produce_durably(&partitions[1]).await, storage);
    broker.stop().await;
    let is_clean = |dir: &Path| dir.join(".kafka_cleanshutdown").exists();
    assert_eq!((is_clean(one.path()), is_clean(other.path())), (true, false));
}

#[tokio::test]
async fn a_start_that_touched_no_log_makes_no_crash_of_the_stop_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let stopped_in =
        || read_clean_shutdown(&RealDisk, dir.path()).unwrap().map(|it| it.broker_epoch);
    let open = || Broker::open(settings(&[dir.path()]), Arc::new(RealDisk), Arc::new(SystemClock));
    let broker = start(&[dir.path()]).await;
    produce(&create_topic(&broker, "t").await).unwrap();
    let first = broker.broker_epoch().0;
    broker.stop().await;
    drop(broker);
    assert_eq!(stopped_in(), Some(first));
    let checkpoints = || {
        let of_dir = ["recovery-point-offset-checkpoint", "replication-offset-checkpoint"];
        of_dir.map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap())
    };
    let before = checkpoints();

    // Killed before it was registered, and stopped.
    let broker = open().await.unwrap();
    broker.abandon().await;
    drop(broker);
    assert_eq!(stopped_in(), Some(first));
    let broker = open().await.unwrap();
    broker.stop().await;
    drop(broker);
    assert_eq!(stopped_in(), Some(first));

    // Stopped after it: the controller knows another epoch since.
    let broker = open().await.unwrap();
    broker.metadata.until_active().await.unwrap();
    broker.membership.register(broker.previous_epoch).await.unwrap();
    let second = broker.broker_epoch().0;
    broker.stop().await;
    drop(broker);
    assert!(second > first);
    assert_eq!(stopped_in(), Some(second));
    assert_eq!(checkpoints(), before);

    // And once more before its logs could be opened.
    let broker = open().await.unwrap();
    let opening = broker.open_logs();
    broker.stop().await;
    opening().unwrap();
    drop(broker);
    assert_eq!(stopped_in(), Some(second));

    // With its logs open it is a crash like any other.
    let broker = start(&[dir.path()]).await;
    assert_eq!(broker.partition("t", 0).unwrap().log_end_offset().0, 1);
    broker.abandon().await;
    drop(broker);
    assert_eq!(stopped_in(), None);
    let broker = open().await.unwrap();
    broker.metadata.until_active().await.unwrap();
    broker.membership.register(broker.previous_epoch).await.unwrap();
    broker.stop().await;
    drop(broker);
    assert_eq!(stopped_in(), None);
}

#[tokio::test]
async fn a_directory_that_nobody_knows_is_set_aside_under_a_name_that_kafka_reads() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&[dir.path()]).await;
    broker.stop().await;
    drop(broker);
    let longest = "w".repeat(249);
    for topic in ["short", &longest] {
        let stray = dir.path().join(format!("{topic}-12"));
        std::fs::create_dir(&stray).unwrap();
        write_partition_metadata(&RealDisk, &stray, TopicId::from_u128(5)).unwrap();
    }
    let broker = start(&[dir.path()]).await;
    let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.ends_with("-stray"));
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("short-12."), "{names:?}");
    assert!(names[1].starts_with("www") && names[1].contains("w-12."), "{names:?}");
    assert_eq!(names[1].len(), 255);
    broker.stop().await;
}

#[tokio::test]
async fn checkpoint_that_finds_no_space_waits() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.faults);
    let of_dir = settings(&[dir.path()]);
    let broker = Broker::start(of_dir, Arc::new(disk), Arc::new(SystemClock)).await.unwrap();
    let partition = create_topic(&broker, "t").await;
    produce(&partition).unwrap();
    faults.fill(true);
    broker.housekeeping.write_all();
    assert!(!broker.log_dirs()[0].is_offline);
    faults.fill(false);
    broker.housekeeping.write_all();
    let written = dir.path().join("replication-offset-checkpoint");
    assert!(std::fs::read_to_string(written).unwrap().contains("t 0 1"));
    broker.stop().await;
}

#[tokio::test]
async fn a_deleted_partition_leaves_its_directory_to_remove_if_it_had_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&[dir.path()]).await;
    let delete = async |name: &str| {
        let topic = DeleteTopicState { name: Some(name.to_owned()), ..Default::default() };
        let request = DeleteTopicsRequest { topics: vec![topic], ..Default::default() };
        broker.controller(ControllerRequest::DeleteTopics(request)).await.unwrap();
    };
    create_topic(&broker, "empty").await;
    delete("empty").await;
    assert!(broker.publisher.trash().is_empty());
    // Its directory's name with what a deletion adds would be longer than a file's may be.
    let longest = "w".repeat(249);
    for name in ["written", &longest] {
        produce(&create_topic(&broker, name).await).unwrap();
        delete(name).await;
    }
    assert_eq!(broker.publisher.trash().len(), 2);
    broker.stop().await;
}

async fn futures_are_pending(future: std::pin::Pin<&mut impl Future>) -> bool {
    let mut future = Some(future);
    std::future::poll_fn(|context| {
        let polled = future.take().map(|future| future.poll(context).is_pending());
        std::task::Poll::Ready(polled.unwrap_or(false))
    })
    .await
}

#[tokio::test]
async fn broker_fails_with_the_directory_of_its_metadata() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (broker, faults, partitions) = two_directories([one.path(), other.path()]).await;
    faults.fail_syncs_below(&one.path().join("__cluster_metadata-0"));
    let request = ControllerRequest::NoOp;
    assert_eq!(broker.controller(request).await.err(), Some(ErrorCode::NotController));
    let failure = broker.failed().await;
    let path = one.path().display();
    assert_eq!(failure, format!("the log directory of the cluster metadata, {path}, has failed"));
    assert_eq!(produce_durably(&partitions[0]).await, Err(ErrorCode::KafkaStorageError));
    assert_eq!(produce_durably(&partitions[1]).await, Ok(()));
}

#[tokio::test]
async fn broker_fails_with_its_last_directory() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let metadata = tempfile::tempdir().unwrap();
    let more = [("metadata.log.dir", metadata.path().to_str().unwrap())];
    let settings = settings_with(&[dirs[0].path(), dirs[1].path()], &more);
    let started = Broker::start(settings, Arc::new(RealDisk), Arc::new(SystemClock)).await;
    let broker = started.unwrap();
    broker.directories.all[1].health.take_offline();
    let mut failed = Box::pin(broker.failed());
    assert!(futures_are_pending(failed.as_mut()).await);
    broker.directories.all[0].health.take_offline();
    let paths = dirs.each_ref().map(|dir| dir.path().display().to_string()).join(", ");
    assert_eq!(failed.await, format!("all log directories have failed: {paths}"));
    broker.stop().await;
}

/// Without `zookeeper.connect`, for one, a member of a cluster that met there.
#[tokio::test]
async fn a_member_that_the_other_voters_cannot_reach_is_refused_in_a_sentence() {
    use super::quorum::METADATA_DIR;
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let settings = settings_with(&[dir.path()], &[]);
        Broker::start(settings, Arc::new(RealDisk), Arc::new(SystemClock))
    };
    start().await.unwrap().stop().await;
    RealDisk.remove_dir_all(&dir.path().join(METADATA_DIR)).unwrap();
    let voters = [1, 2].map(|id| Voter::fixed(BrokerId(id)));
    super::founding::write_first_voters(&RealDisk, dir.path(), voters, Timestamp(1)).unwrap();
    let refused = start().await.expect_err("it would wait for ever").to_string();
    assert!(refused.contains("the voters 1, 2,"), "{refused}");
}

/// A wall clock that a test puts forward and back, beside a steady one.
#[derive(Debug, Default)]
struct SteppedClock(AtomicI64);

impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_ms(self.0.load(Ordering::Relaxed))
    }

    fn steady(&self) -> Timestamp {
        SystemClock.steady()
    }
}

#[tokio::test]
async fn chores_go_on_when_the_wall_clock_is_put_back() {
    const HOUR_MS: i64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SteppedClock::default());
    let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let broker = Broker::start(settings(&[dir.path()]), Arc::new(RealDisk), shared).await.unwrap();
    for step_ms in [-HOUR_MS, HOUR_MS, 0] {
        clock.0.store(step_ms, Ordering::Relaxed);
        let health = &broker.directories.all[0].health;
        assert!(health.fill());
        // There is space, so that the next look lets producers go on.
        for _ in 0..1000 {
            if !health.is_full() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!health.is_full(), "nobody has looked since the clock was put by {step_ms} ms");
    }
    broker.stop().await;
}
