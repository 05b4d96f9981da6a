//! What the controller is told, and what becomes of its answers.

use super::*;
use crate::broker::controller_calls::BoxFuture;
use crate::broker::directories::ClusterIds;
use crate::broker::partition::PartitionParams;
use crate::env::{RealDisk, SystemClock};
use crate::log::{Log, LogConfig, LogParams};
use crate::machines::metadata::bootstrap_records;
use crate::machines::metadata::image::DIRECTORY_UNASSIGNED;
use crate::machines::replica::ReplicaSettings;
use ottla_protocol::messages::assign_replicas_to_dirs_response as answer;
use ottla_protocol::metadata::{PartitionRecord, RegisterBrokerRecord, TopicRecord};
use ottla_protocol::{MetadataRecord, Offset, Timestamp};
use std::collections::VecDeque;
use std::path::Path;

const ME: BrokerId = BrokerId(1);
const TOPIC: u128 = 3;

/// A controller that answers as the test says, in turn: the whole request, and each partition.
#[derive(Default)]
struct FakeController {
    answers: Mutex<VecDeque<Result<ErrorCode, ErrorCode>>>,
    requests: Mutex<Vec<AssignReplicasToDirsRequest>>,
}

impl ControllerCalls for FakeController {
    fn call(
        &self,
        request: ControllerRequest,
    ) -> BoxFuture<'_, Result<ControllerReply, ErrorCode>> {
        let ControllerRequest::AssignReplicasToDirs(request) = request else {
            panic!("{request:?}")
        };
        self.requests.lock().push(request.clone());
        let told = self.answers.lock().pop_front().unwrap_or(Ok(ErrorCode::None));
        let reply = told.map(|error| ControllerReply::AssignReplicasToDirs(reply(request, error)));
        Box::pin(async move { reply })
    }
}

fn reply(request: AssignReplicasToDirsRequest, error: ErrorCode) -> AssignReplicasToDirsResponse {
    let partition = |one: &PartitionData| answer::PartitionData {
        partition_index: one.partition_index,
        error_code: error.code(),
    };
    let topic = |topic: &TopicData| answer::TopicData {
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().map(partition).collect(),
    };
    let directories = request.directories.iter().map(|directory| answer::DirectoryData {
        id: directory.id,
        topics: directory.topics.iter().map(topic).collect(),
    });
    AssignReplicasToDirsResponse { directories: directories.collect(), ..Default::default() }
}

struct World {
    dirs: [tempfile::TempDir; 2],
    assignments: Arc<Assignments>,
    directories: Arc<Directories>,
    controller: Arc<FakeController>,
    image: Arc<ArcSwap<Image>>,
    stop: watch::Sender<bool>,
}

fn world(answers: &[Result<ErrorCode, ErrorCode>]) -> World {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = dirs.iter().map(|dir| dir.path().to_owned()).collect::<Vec<_>>();
    let ids = ClusterIds::default();
    let directories = Directories::open(Arc::new(RealDisk), &paths, &paths[0], ME, &ids).unwrap();
    let controller = Arc::new(FakeController::default());
    controller.answers.lock().extend(answers);
    World {
        dirs,
        assignments: Arc::default(),
        directories: Arc::new(directories),
        controller,
        image: Arc::default(),
        stop: watch::Sender::new(false),
    }
}

/// What the metadata say: the broker of epoch 77, and a topic whose partitions are in no directory, or in this one.
fn image(partitions: i32, directory: Uuid) -> Arc<Image> {
    let mut records = bootstrap_records(1);
    records.push(MetadataRecord::RegisterBroker(RegisterBrokerRecord {
        broker_id: ME.0,
        broker_epoch: 77,
        ..Default::default()
    }));
    let topic_id = Uuid::from_u128(TOPIC);
    records.push(MetadataRecord::Topic(TopicRecord { name: "t".to_owned(), topic_id }));
    records.extend((0..partitions).map(|partition_id| {
        MetadataRecord::Partition(PartitionRecord {
            partition_id,
            topic_id,
            replicas: vec![ME.0],
            isr: vec![ME.0],
            leader: ME.0,
            directories: vec![directory],
            ..Default::default()
        })
    }));
    let mut image = Image::default();
    for (offset, record) in records.iter().enumerate() {
        image.replay(Offset(offset as i64), record);
    }
    Arc::new(image)
}

impl World {
    fn partition(&self, index: i32, dir: &Path) -> Arc<Partition> {
        let topic_id = Uuid::from_u128(TOPIC);
        let log = Log::open(LogParams {
            disk: Arc::new(RealDisk),
            dir: dir.join(format!("t-{index}")),
            topic: "t".into(),
            partition: index,
            topic_id,
            config: Arc::new(LogConfig::default()),
            log_start_offset: Offset(0),
            recovery_point: Offset(0),
            clean_shutdown: false,
            earlier_writes_synced: false,
            now: Timestamp(0),
        });
        Partition::new(PartitionParams {
            name: ("t".into(), topic_id, index),
            replica: ReplicaSettings { broker_id: ME, lag_time_max_ms: 0, min_insync_replicas: 1 },
            clock: Arc::new(SystemClock),
            log: log.unwrap(),
            high_watermark: Offset(0),
            health: Arc::default(),
            isr_changes: Arc::default(),
            quotas: Arc::default(),
        })
    }

    fn submit(&self, index: i32, at: usize) {
        self.assignments.submit(self.partition(index, self.dirs[at].path()));
    }

    async fn run_until(&self, is_so: impl Fn() -> bool) {
        let params = AssignmentParams {
            broker: ME,
            controller: Arc::clone(&self.controller) as Arc<dyn ControllerCalls>,
            directories: Arc::clone(&self.directories),
            image: Arc::clone(&self.image),
        };
        let running = Arc::clone(&self.assignments).run(params, self.stop.subscribe());
        let running = tokio::spawn(running);
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.stop.send_replace(true);
        running.await.unwrap();
    }

    fn told(&self) -> usize {
        self.controller.requests.lock().len()
    }

    fn is_waiting(&self) -> bool {
        !self.assignments.waiting.lock().is_empty()
    }
}

#[tokio::test]
async fn one_request_has_all_that_came_in_the_order_of_its_directories() {
    let world = world(&[]);
    world.image.store(image(3, DIRECTORY_UNASSIGNED));
    for (index, at) in [(0, 1), (1, 0), (2, 1)] {
        world.submit(index, at);
    }
    world.run_until(|| world.told() == 1).await;
    let request = world.controller.requests.lock().remove(0);
    assert_eq!((request.broker_id, request.broker_epoch), (1, 77));
    let found = |at: usize| -> Vec<i32> {
        let id = world.directories.all[at].id;
        let directory = request.directories.iter().find(|directory| directory.id == id).unwrap();
        let partitions = directory.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| partition.partition_index).collect()
    };
    assert_eq!((found(0), found(1), request.directories.len()), (vec![1], vec![0, 2], 2));
    assert!(!world.is_waiting());
}

#[tokio::test]
async fn what_the_controller_did_not_take_is_told_again_but_for_what_is_gone() {
    let again = [Err(ErrorCode::RequestTimedOut), Ok(ErrorCode::UnknownServerError)];
    let world = world(&[again[0], again[1], Ok(ErrorCode::UnknownTopicId)]);
    world.image.store(image(1, DIRECTORY_UNASSIGNED));
    world.submit(0, 0);
    let begun = tokio::time::Instant::now();
    world.run_until(|| world.told() == 3).await;
    assert!(begun.elapsed() >= RETRY_PAUSE * 3, "each pause is twice the last one");
    assert!(!world.is_waiting());
}

#[tokio::test]
async fn nothing_is_told_that_the_metadata_say() {
    let world = world(&[]);
    world.image.store(image(1, world.directories.all[1].id));
    world.submit(0, 1);
    world.run_until(|| !world.is_waiting()).await;
    assert_eq!(world.told(), 0);
}

/// A partition is opened a moment before the Image is stored that has it.
#[tokio::test]
async fn a_partition_that_the_image_does_not_know_yet_waits_for_it() {
    let world = world(&[]);
    world.image.store(image(0, DIRECTORY_UNASSIGNED));
    world.submit(0, 0);
    let begun = tokio::time::Instant::now();
    world
        .run_until(|| {
            if begun.elapsed() > IMAGE_PAUSE * 4 {
                world.image.store(image(1, DIRECTORY_UNASSIGNED));
            }
            world.told() == 1
        })
        .await;
    assert!(!world.is_waiting());
}
