//! Brokers whose cleaner is driven by hand, at a time of the test's own.

use super::*;
use crate::broker::fixture::read_params;
use crate::broker::tests::settings_with;
use crate::broker::{Broker, ControllerRequest, GroupRequest};
use crate::env::RealDisk;
use crate::log::AppendOrigin;
use ottla_protocol::batch::batches;
use ottla_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ottla_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest, OffsetCommitRequest,
};
use ottla_protocol::record::{BatchBuilder, BatchParams, decode_records};
use ottla_protocol::{ErrorCode, Offset};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

const START_MS: i64 = 1_700_000_000_000;
const COMPACT: [(&str, &str); 3] = [
    ("cleanup.policy", "compact"),
    ("internal.segment.bytes", "400"),
    ("min.cleanable.dirty.ratio", "0.01"),
];

#[derive(Debug)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

struct World {
    dir: tempfile::TempDir,
    clock: Arc<TestClock>,
    broker: Arc<Broker>,
}

impl World {
    async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(START_MS)));
        let broker = Self::start(dir.path(), &clock).await;
        World { dir, clock, broker }
    }

    /// Without threads: the tests make the passes.
    async fn start(dir: &Path, clock: &Arc<TestClock>) -> Arc<Broker> {
        let settings = settings_with(&[dir], &[("log.cleaner.enable", "false")]);
        let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
        Broker::start(settings, Arc::new(RealDisk), clock).await.unwrap()
    }

    async fn restart(self) -> World {
        let World { dir, clock, broker } = self;
        broker.stop().await;
        drop(broker);
        let broker = Self::start(dir.path(), &clock).await;
        World { dir, clock, broker }
    }

    async fn create(&self, name: &str, configs: &[(&str, &str)]) -> Arc<Partition> {
        let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
        });
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let seed = uuid::Uuid::new_v4();
        self.broker.controller(ControllerRequest::CreateTopics { request, seed }).await.unwrap();
        self.broker.partition(name, 0).unwrap()
    }

    async fn delete(&self, name: &str) {
        let topic_names = vec![name.to_owned()];
        let request = DeleteTopicsRequest { topic_names, ..Default::default() };
        self.broker.controller(ControllerRequest::DeleteTopics(request)).await.unwrap();
    }

    fn cleaner(&self) -> &Arc<Cleaner> {
        &self.broker.cleaner
    }

    fn passes(&self) -> usize {
        self.cleaner().roll_internal_topics();
        (0..100).take_while(|_| self.cleaner().pass()).count()
    }

    fn files(&self, suffix: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("t-0")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(suffix)).collect()
    }

    fn checkpoint_file(&self) -> String {
        let path = self.dir.path().join("cleaner-offset-checkpoint");
        std::fs::read_to_string(path).unwrap_or_default()
    }

    fn advance(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    async fn alter(&self, kind: i8, name: &str, key: &str, value: &str) {
        let config = AlterableConfig {
            name: key.to_owned(),
            value: Some(value.to_owned()),
            ..Default::default()
        };
        let resource = AlterConfigsResource {
            resource_type: kind,
            resource_name: name.to_owned(),
            configs: vec![config],
        };
        let request =
            IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        let request = ControllerRequest::IncrementalAlterConfigs(request);
        self.broker.controller(request).await.unwrap();
    }
}

/// Appends `count` records, each a batch, with four keys in turn.
fn put(world: &World, partition: &Arc<Partition>, count: usize) {
    put_keys(world, partition, 4, count);
}

fn put_keys(world: &World, partition: &Arc<Partition>, keys: usize, count: usize) {
    let from = partition.log_end_offset().0 as usize;
    for n in from..from + count {
        let mut builder = BatchBuilder::new(BatchParams::default());
        let (key, value) = (format!("k{}", n % keys), format!("{n:050}"));
        builder.push(world.clock.now(), Some(key.as_bytes()), Some(value.as_bytes()), &[]);
        partition.append(builder.build().freeze(), 1, AppendOrigin::Client).unwrap();
    }
}

/// Offsets and keys of what is left.
fn left(partition: &Partition) -> Vec<(i64, String)> {
    let mut offset = partition.log_start_offset();
    let mut found = Vec::new();
    loop {
        let read = partition.read(read_params(offset)).unwrap();
        let Some(slice) = read.slice else { return found };
        let bytes = slice.to_bytes().unwrap();
        for batch in batches(&bytes) {
            let (header, batch) = batch.unwrap();
            offset = header.next_offset();
            let batch = bytes::Bytes::copy_from_slice(batch);
            for record in decode_records(&header, &batch, 1 << 20).unwrap() {
                let key = String::from_utf8_lossy(&record.key.clone().unwrap()).into_owned();
                found.push((record.offset(&header).0, key));
            }
        }
        if offset >= partition.log_end_offset() {
            return found;
        }
    }
}

fn cleaned_to(partition: &Partition) -> Option<i64> {
    partition.checkpoint().unwrap().cleaned_to.map(|offset| offset.0)
}

#[tokio::test]
async fn superseded_records_go_and_a_restart_goes_on_from_the_checkpoint() {
    let world = World::new().await;
    let partition = world.create("t", &COMPACT).await;
    put(&world, &partition, 40);
    assert_eq!(world.passes(), 1);
    let end = cleaned_to(&partition).unwrap();
    assert!((30..40).contains(&end), "{end}");
    let found = left(&partition);
    // Four keys below the active segment, which is as it was.
    let expected: Vec<i64> = (end - 4..40).collect();
    assert_eq!(found.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), expected);
    assert_eq!(world.checkpoint_file(), format!("0\n1\nt 0 {end}\n"));
    assert!(!world.files(".deleted").is_empty());
    let now = world.clock.now().0;
    world.broker.housekeeping.remove_deleted(now + 59_999);
    assert!(!world.files(".deleted").is_empty());
    world.broker.housekeeping.remove_deleted(now + 60_000);
    assert!(world.files(".deleted").is_empty());

    let world = world.restart().await;
    let partition = world.broker.partition("t", 0).unwrap();
    assert_eq!(cleaned_to(&partition), Some(end));
    assert_eq!((world.passes(), left(&partition)), (0, found));
    world.broker.stop().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_cleaned_is_set_aside_and_the_others_go_on() {
    let world = World::new().await;
    let (good, bad) = (world.create("good", &COMPACT).await, world.create("bad", &COMPACT).await);
    put(&world, &bad, 40);
    put(&world, &good, 20);
    let segment = world.dir.path().join("bad-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    // Both are all dirty, and either may come first.
    assert_eq!(
        [world.cleaner().pass(), world.cleaner().pass()].iter().filter(|it| **it).count(),
        1
    );
    assert!(cleaned_to(&good).is_some());
    assert_eq!(cleaned_to(&bad), None);
    assert!(bad.cleanable(world.clock.now()).unwrap().is_none());
    assert!(!world.cleaner().pass());
    put(&world, &bad, 1);
    assert_eq!(bad.log_end_offset(), Offset(41));
    assert!(!std::fs::exists(segment.with_extension("log.cleaned")).unwrap());
    world.broker.stop().await;
}

#[tokio::test]
async fn a_deletion_ends_the_cleaning_and_takes_the_checkpoint_along() {
    let world = World::new().await;
    let partition = world.create("t", &COMPACT).await;
    put(&world, &partition, 40);
    assert_eq!(world.passes(), 1);
    put(&world, &partition, 40);
    let now = world.clock.now();
    let mut cleaning = partition.begin_cleaning(now).unwrap().unwrap();
    // Nobody else takes it now.
    assert!(!world.cleaner().pass());
    let truncations = cleaning.truncations();
    let mut pace = |bytes| world.cleaner().pace(&partition, truncations, bytes);
    cleaning.build_map(world.cleaner().buffers(), &mut pace).unwrap();
    let cleaned = cleaning.next(&mut pace).unwrap().unwrap();
    world.delete("t").await;
    assert!(partition.swap_in(cleaned).unwrap().is_none());
    assert!(matches!(cleaning.next(&mut pace), Err(CleaningError::Stopped)));
    assert!(!partition.end_cleaning(&cleaning, CleaningEnd::Done));
    world.broker.housekeeping.checkpoint_cleaner();
    assert_eq!(world.checkpoint_file(), "0\n0\n");
    let anew = world.create("t", &COMPACT).await;
    assert_eq!(cleaned_to(&anew), None);
    world.broker.stop().await;
}

/// The checkpoints that were read at the start are those of the topic that had the name then.
#[tokio::test]
async fn a_topic_of_an_old_name_does_not_begin_where_the_old_one_was() {
    let world = World::new().await;
    let partition = world.create("t", &COMPACT).await;
    put(&world, &partition, 40);
    assert_eq!(world.passes(), 1);
    let world = world.restart().await;
    world.delete("t").await;
    let anew = world.create("t", &COMPACT).await;
    put(&world, &anew, 1);
    assert_eq!(anew.log_start_offset(), Offset(0));
    assert_eq!((anew.high_watermark(), cleaned_to(&anew)), (Offset(1), None));
    world.broker.stop().await;
}

#[tokio::test]
async fn retention_of_a_compacted_log_waits_for_the_cleaning() {
    let world = World::new().await;
    let configs =
        [&COMPACT[1..], &[("cleanup.policy", "compact,delete"), ("retention.ms", "1000")]];
    let partition = world.create("t", &configs.concat()).await;
    // Every record has a key of its own, so that segments keep theirs.
    put_keys(&world, &partition, 100, 20);
    world.advance(2000);
    put_keys(&world, &partition, 100, 20);
    let now = world.clock.now();
    let cleaning = partition.begin_cleaning(now).unwrap().unwrap();
    assert!(partition.apply_retention(now).unwrap().is_empty());
    assert!(world.cleaner().clean(&partition, cleaning));
    assert_eq!(partition.log_start_offset(), Offset(0));
    let end = cleaned_to(&partition).unwrap();
    world.advance(2000);
    assert_eq!(world.passes(), 0);
    assert!(partition.log_start_offset() >= Offset(end));
    // The start is past the checkpoint, which follows.
    put(&world, &partition, 20);
    assert_eq!(world.passes(), 1);
    assert!(cleaned_to(&partition).unwrap() > end);
    world.broker.stop().await;
}

#[tokio::test]
async fn a_log_that_is_compacted_no_more_is_left_alone() {
    let world = World::new().await;
    let partition = world.create("t", &COMPACT).await;
    put(&world, &partition, 40);
    let cleaning = partition.begin_cleaning(world.clock.now()).unwrap().unwrap();
    world.alter(2, "t", "cleanup.policy", "delete").await;
    assert!(!world.cleaner().clean(&partition, cleaning));
    assert_eq!((left(&partition).len(), world.files(".cleaned").len()), (40, 0));
    world.alter(2, "t", "cleanup.policy", "compact").await;
    world.alter(2, "t", "min.compaction.lag.ms", "1000").await;
    assert_eq!(world.passes(), 0);
    world.advance(1001);
    assert_eq!(world.passes(), 1);
    world.broker.stop().await;
}

#[tokio::test]
async fn offsets_topic_is_rolled_and_cleaned_long_before_its_segment_is_full() {
    let world = World::new().await;
    let configs = [("cleanup.policy", "compact"), ("segment.bytes", "104857600")];
    let partition = world.create(GROUP_METADATA_TOPIC, &configs).await;
    let name = |n: i64| format!("group-{}", n % 10);
    for n in 0..3000 {
        let partitions =
            vec![OffsetCommitRequestPartition { committed_offset: n, ..Default::default() }];
        let topic =
            OffsetCommitRequestTopic { name: "t".to_owned(), partitions, ..Default::default() };
        let request = OffsetCommitRequest {
            group_id: name(n),
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let request = GroupRequest::CommitOffsets { version: 9, request };
        world.broker.group(&name(n), request).await.unwrap();
    }
    assert!(partition.size() > 2 * u64::from(ROLL_BYTES_MIN));
    assert_eq!(world.passes(), 1);
    assert!(partition.size() < 10_000, "{}", partition.size());
    let world = world.restart().await;
    let request = OffsetFetchRequestGroup { group_id: name(7), topics: None, ..Default::default() };
    let response = loop {
        match world.broker.group(&name(7), GroupRequest::FetchOffsets(request.clone())).await {
            Err(ErrorCode::CoordinatorLoadInProgress) => tokio::task::yield_now().await,
            response => break response.unwrap().fetch_offsets().unwrap(),
        }
    };
    assert_eq!(response.topics[0].partitions[0].committed_offset, 2997);
    world.broker.stop().await;
}

#[tokio::test]
async fn threads_follow_the_dynamic_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock(AtomicI64::new(START_MS)));
    let settings = settings_with(&[dir.path()], &[]);
    let started = Broker::start(settings, Arc::new(RealDisk), Arc::clone(&clock) as _).await;
    let world = World { dir, clock, broker: started.unwrap() };
    let threads = || world.cleaner().state.lock().threads.len();
    assert_eq!(threads(), 1);
    world.alter(4, "", "log.cleaner.threads", "3").await;
    world.alter(4, "", "log.cleaner.dedupe.buffer.size", "9000000").await;
    assert_eq!((threads(), world.cleaner().buffers().map_bytes), (3, 3_000_000));
    world.alter(4, "1", "log.cleaner.threads", "1").await;
    assert_eq!(world.cleaner().buffers().map_bytes, 9_000_000);
    let image = world.broker.image();
    let check = |threads: &str| {
        let configs = [("log.cleaner.threads".to_owned(), threads.to_owned())];
        world.broker.settings().check_cleaner(&image, "1", &BTreeMap::from(configs))
    };
    assert_eq!(check("2"), Ok(()));
    assert!(check("0").unwrap_err().contains("should be at least 1"));
    assert_eq!(
        check("3").unwrap_err(),
        "Invalid value org.apache.kafka.common.config.ConfigException: Log cleaner threads cannot \
         be increased to more than double the current value 1 for configuration Invalid dynamic \
         configuration"
    );
    // It joins all of them.
    world.broker.stop().await;
    assert_eq!(threads(), 0);
}
