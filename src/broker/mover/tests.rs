//! Partitions that move while they work, are cancelled, fail, and are cut short.

use super::super::fixture::{self, read_params};
use super::super::tests::{create_topic, produce, settings_with};
use super::super::{Broker, IsolationLevel, LogDirReplica, ReadParams};
use super::*;
use crate::env::disk::Space;
use crate::env::faulty::FaultyDisk;
use crate::env::{Disk, RealDisk, SystemClock};
use tempfile::TempDir;

struct World {
    dirs: [TempDir; 2],
    broker: Arc<Broker>,
    partition: Arc<Partition>,
}

/// Segments of a few batches.
const SMALL: [(&str, &str); 2] =
    [("log.segment.bytes", "1048576"), ("log.index.interval.bytes", "64")];

async fn start(dirs: &[TempDir; 2], disk: Arc<dyn Disk>, more: &[(&str, &str)]) -> Arc<Broker> {
    let settings = settings_with(&[dirs[0].path(), dirs[1].path()], more);
    Broker::start(settings, disk, Arc::new(SystemClock)).await.unwrap()
}

/// A broker with two log directories and `t-0` in the first.
async fn world(disk: Arc<dyn Disk>, more: &[(&str, &str)]) -> World {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let broker = start(&dirs, disk, more).await;
    let partition = create_topic(&broker, "t").await;
    assert!(partition.is_in(dirs[0].path()));
    let world = World { dirs, broker, partition };
    // Else the record of it may be what a disk that goes wrong meets.
    world.until_assigned(0).await;
    world
}

impl World {
    fn alter(&self, to: usize) -> Result<(), ErrorCode> {
        self.broker.alter_log_dir("t", 0, self.dirs[to].path().to_str().unwrap())
    }

    /// Waits until no move is under way; the threads end then.
    async fn quiet(&self) {
        let mover = Arc::clone(&self.broker.mover);
        let threads = tokio::task::spawn_blocking(move || {
            let threads = std::mem::take(&mut mover.state.lock().threads);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        threads.await.unwrap();
        assert!(self.partition.future_replica().is_none());
    }

    fn names(&self, at: usize) -> Vec<String> {
        let entries = RealDisk.list(self.dirs[at].path()).unwrap();
        let names = entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name);
        names.filter(|name| name.starts_with("t-0")).collect()
    }

    fn replicas(&self, at: usize) -> Vec<LogDirReplica> {
        self.broker.log_dirs().swap_remove(at).partitions
    }

    fn assigned(&self) -> Uuid {
        let image = self.broker.image();
        let topic = image.topics.get("t").unwrap();
        topic.partition(0).unwrap().directory_of(self.broker.node_id())
    }

    /// Waits until the controller knows that the partition is there.
    async fn until_assigned(&self, at: usize) {
        fixture::until("the controller is told", || self.assigned() == self.id(at)).await;
    }

    fn id(&self, at: usize) -> Uuid {
        self.broker.directories.all[at].id
    }
}

/// The offsets that a consumer sees from `offset` on.
fn consume(partition: &Partition, mut offset: Offset) -> Vec<i64> {
    let mut seen = Vec::new();
    loop {
        let read = partition
            .read(ReadParams { isolation: IsolationLevel::ReadCommitted, ..read_params(offset) });
        let Some(slice) = read.unwrap().slice else { return seen };
        let bytes = slice.to_bytes().unwrap();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let header = ottla_protocol::batch::BatchHeader::parse(rest).unwrap();
            rest = &rest[header.size()..];
            let offsets = header.base_offset.0..=header.last_offset().0;
            seen.extend(offsets.filter(|it| *it >= offset.0));
            offset = header.last_offset().plus(1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partition_moves_while_producers_and_consumers_work() {
    let world = world(Arc::new(RealDisk), &SMALL).await;
    let World { partition, broker, .. } = &world;
    for _ in 0..500 {
        produce(partition).unwrap();
    }
    partition.delete_records(Offset(5)).unwrap();
    let producer = {
        let partition = Arc::clone(partition);
        std::thread::spawn(move || {
            for _ in 0..2000 {
                produce(&partition).unwrap();
            }
        })
    };
    for to in [1, 0, 1] {
        world.alter(to).unwrap();
        world.quiet().await;
        assert!(partition.is_in(world.dirs[to].path()));
        assert_eq!(world.assigned(), world.id(to));
        let seen = consume(partition, Offset(5));
        assert!(seen.iter().copied().eq(5..5 + seen.len() as i64), "nothing is lost or twice");
    }
    producer.join().unwrap();
    assert_eq!(consume(partition, Offset(5)), (5..2500).collect::<Vec<_>>());
    assert_eq!(partition.high_watermark(), Offset(2500));
    assert_eq!(world.names(1).iter().filter(|name| *name == "t-0").count(), 1);
    assert!(world.names(0).iter().all(|name| name.ends_with("-delete")), "{:?}", world.names(0));
    broker.stop().await;
    let World { dirs, broker, partition } = world;
    drop((broker, partition));
    let broker = start(&dirs, Arc::new(RealDisk), &SMALL).await;
    let partition = broker.partition("t", 0).unwrap();
    assert!(partition.is_in(dirs[1].path()));
    assert_eq!(partition.log_start_offset(), Offset(5));
    assert_eq!(consume(&partition, Offset(5)), (5..2500).collect::<Vec<_>>());
    broker.stop().await;
}

#[tokio::test]
async fn answers_are_those_of_kafka() {
    let world = world(Arc::new(RealDisk), &[]).await;
    let broker = &world.broker;
    let (one, other) = (world.dirs[0].path(), world.dirs[1].path());
    let alter = |topic: &str, path: &Path| {
        broker.alter_log_dir(topic, 0, path.to_str().unwrap()).map_err(ErrorCode::code)
    };
    assert_eq!(alter("t", one), Ok(()));
    assert_eq!(alter("t", &one.join("t-0")), Err(ErrorCode::LogDirNotFound.code()));
    assert_eq!(alter("t", Path::new("relative")), Err(ErrorCode::LogDirNotFound.code()));
    let long = "t".repeat(249);
    assert_eq!(alter(&long, other), Err(ErrorCode::InvalidTopicException.code()));
    // The directory is remembered for when the topic comes.
    assert_eq!(alter("later", other), Err(ErrorCode::UnknownTopicOrPartition.code()));
    for name in ["u", "v"] {
        create_topic(broker, name).await;
    }
    assert!(create_topic(broker, "later").await.is_in(other));
    broker.directories.all[0].health.take_offline();
    assert_eq!(alter("t", other), Err(ErrorCode::KafkaStorageError.code()));
    assert_eq!(alter("later", one), Err(ErrorCode::KafkaStorageError.code()));
    assert_eq!(alter("later", other), Ok(()));
    broker.stop().await;
}

#[tokio::test]
async fn partition_without_records_is_assigned_to_the_other_directory() {
    let world = world(Arc::new(RealDisk), &[]).await;
    world.alter(1).unwrap();
    world.quiet().await;
    assert_eq!(world.assigned(), world.id(1));
    assert!(world.names(0).is_empty() && world.names(1).is_empty());
    world.broker.stop().await;
    let World { dirs, broker, partition } = world;
    drop((broker, partition));
    let broker = start(&dirs, Arc::new(RealDisk), &[]).await;
    let partition = broker.partition("t", 0).unwrap();
    produce(&partition).unwrap();
    assert!(partition.is_in(dirs[1].path()) && dirs[1].path().join("t-0").exists());
    broker.stop().await;
}

#[tokio::test]
async fn copy_is_a_future_replica_until_the_original_directory_is_named_again() {
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.faults);
    let world = world(Arc::new(disk), &[]).await;
    for _ in 0..3 {
        produce(&world.partition).unwrap();
    }
    let future = |replica: &LogDirReplica| replica.is_future;
    faults.gate_syncs();
    world.alter(1).unwrap();
    faults.wait_for_syncs(1);
    produce(&world.partition).unwrap();
    let replicas = world.replicas(1);
    assert_eq!(
        replicas.iter().map(|it| (it.is_future, it.offset_lag)).collect::<Vec<_>>(),
        [(true, 1)]
    );
    assert!(replicas[0].size > 0 && !world.replicas(0).iter().any(future));
    assert!(world.names(1)[0].ends_with("-future"), "{:?}", world.names(1));
    world.alter(0).unwrap();
    assert!(world.replicas(1).is_empty());
    faults.permit_syncs(100);
    world.quiet().await;
    assert!(world.partition.is_in(world.dirs[0].path()) && world.names(1).is_empty());
    assert_eq!(consume(&world.partition, Offset(0)), [0, 1, 2, 3]);
    assert_ne!(world.assigned(), world.id(1));
    world.broker.stop().await;
}

#[tokio::test]
async fn directory_that_fails_under_a_copy_is_offline_and_the_log_goes_on() {
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.faults);
    let world = world(Arc::new(disk), &[]).await;
    produce(&world.partition).unwrap();
    faults.fail_syncs_below(world.dirs[1].path());
    world.alter(1).unwrap();
    world.quiet().await;
    assert!(world.broker.directories.all[1].health.is_offline());
    assert_eq!(produce(&world.partition).unwrap().first_offset, Offset(1));
    assert!(world.partition.is_in(world.dirs[0].path()));
    world.broker.stop().await;
}

#[tokio::test]
async fn full_directory_ends_a_move() {
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.faults);
    faults.set_space(Space { total: 100 << 30, available: 50 << 30 });
    let world = world(Arc::new(disk), &[]).await;
    produce(&world.partition).unwrap();
    world.broker.directories.all[1].health.fill();
    world.alter(1).unwrap();
    world.quiet().await;
    assert!(world.partition.is_in(world.dirs[0].path()) && world.names(1).is_empty());
    produce(&world.partition).unwrap();
    world.broker.stop().await;
}

/// The process was killed between the renames of a swap, or before them.
#[tokio::test]
async fn crash_leaves_the_partition_whole_in_one_directory() {
    let world = world(Arc::new(RealDisk), &[]).await;
    produce(&world.partition).unwrap();
    world.alter(1).unwrap();
    world.quiet().await;
    produce(&world.partition).unwrap();
    world.broker.stop().await;
    let World { dirs, broker, partition } = world;
    drop((broker, partition));
    let retired = RealDisk.list(dirs[0].path()).unwrap();
    let retired = retired.iter().find(|entry| entry.name.ends_with("-delete")).unwrap();
    let old = dirs[0].path().join("t-0");
    RealDisk.rename(&dirs[0].path().join(&retired.name), &old).unwrap();
    let copy = dirs[0].path().join(format!("t-0.{}-future", Uuid::nil().simple()));
    RealDisk.create_dir_all(&copy).unwrap();
    let lonely = dirs[0].path().join(format!("gone-0.{}-future", Uuid::nil().simple()));
    RealDisk.create_dir_all(&lonely).unwrap();
    let broker = start(&dirs, Arc::new(RealDisk), &[]).await;
    let partition = broker.partition("t", 0).unwrap();
    assert!(partition.is_in(dirs[1].path()));
    assert_eq!(consume(&partition, Offset(0)), [0, 1]);
    broker.publisher.empty_trash(ottla_protocol::Timestamp(0));
    let left: Vec<String> =
        RealDisk.list(dirs[0].path()).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(!old.exists() && !copy.exists() && !lonely.exists());
    assert_eq!(left.iter().filter(|name| name.ends_with("-stray")).count(), 2, "{left:?}");
    broker.stop().await;
}

/// A start tells the controller where a partition lies whose move was cut short after it was told of the new place.
#[tokio::test]
async fn start_puts_an_assignment_right_that_a_crash_left() {
    let world = world(Arc::new(RealDisk), &[]).await;
    produce(&world.partition).unwrap();
    let (mover, partition) = (Arc::clone(&world.broker.mover), Arc::clone(&world.partition));
    let other = world.id(1);
    tokio::task::spawn_blocking(move || mover.assign(&partition, other)).await.unwrap();
    assert_eq!(world.assigned(), other);
    world.broker.stop().await;
    let World { dirs, broker, partition } = world;
    drop((broker, partition));
    let broker = start(&dirs, Arc::new(RealDisk), &[]).await;
    let partition = broker.partition("t", 0).unwrap();
    let world = World { dirs, broker, partition };
    assert!(world.partition.is_in(world.dirs[0].path()));
    world.until_assigned(0).await;
    world.broker.stop().await;
}

#[tokio::test]
async fn what_was_booked_at_a_low_rate_holds_nothing_back_at_a_higher_one() {
    let world = world(Arc::new(RealDisk), &[]).await;
    let set = |value: &str| alter_rate(&world.broker, value.to_owned());
    set("1").await;
    for _ in 0..20 {
        produce(&world.partition).unwrap();
    }
    world.alter(1).unwrap();
    let waits = || world.replicas(1).iter().any(|it| it.is_future && it.size > 0);
    while !waits() {
        tokio::task::yield_now().await;
    }
    assert!(world.partition.is_in(world.dirs[0].path()), "a byte a second");
    set("1000000000").await;
    world.quiet().await;
    assert!(world.partition.is_in(world.dirs[1].path()));
    world.broker.stop().await;
}

async fn alter_rate(broker: &Broker, value: String) {
    use ottla_protocol::messages::IncrementalAlterConfigsRequest;
    use ottla_protocol::messages::incremental_alter_configs_request::{
        AlterConfigsResource, AlterableConfig,
    };
    let name = "replica.alter.log.dirs.io.max.bytes.per.second".to_owned();
    let config = AlterableConfig { name, config_operation: 0, value: Some(value) };
    let resource = AlterConfigsResource {
        resource_type: super::super::ResourceType::Broker.id(),
        resource_name: "1".to_owned(),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let reply = broker.controller(ControllerRequest::IncrementalAlterConfigs(request)).await;
    let Ok(ControllerReply::IncrementalAlterConfigs(reply)) = reply else { panic!("{reply:?}") };
    assert_eq!(reply.responses[0].error_code, 0, "{reply:?}");
}
