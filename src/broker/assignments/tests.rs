//! What the controller is told, and what becomes of its answers.

use super::*;
use crate::broker::directories::ClusterIds;
use crate::broker::fixture::{self, ScriptedController, TOPIC_ID, log_params, partition_params};
use crate::env::RealDisk;
use crate::machines::metadata::bootstrap_records;
use crate::machines::metadata::image::DIRECTORY_UNASSIGNED;
use ottla_protocol::MetadataRecord;
use ottla_protocol::messages::assign_replicas_to_dirs_response as answer;
use ottla_protocol::metadata::{PartitionRecord, TopicRecord};

const ME: BrokerId = BrokerId(1);

type Request = AssignReplicasToDirsRequest;

fn play(request: ControllerRequest, error: ErrorCode) -> (Request, ControllerReply) {
    let ControllerRequest::AssignReplicasToDirs(request) = request else { panic!("{request:?}") };
    let reply = reply(&request, error);
    (request, ControllerReply::AssignReplicasToDirs(reply))
}

fn reply(request: &Request, error: ErrorCode) -> AssignReplicasToDirsResponse {
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
    controller: Arc<ScriptedController<Request>>,
    image: Arc<ArcSwap<Image>>,
    stop: watch::Sender<bool>,
}

fn world(answers: &[Result<ErrorCode, ErrorCode>]) -> World {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = dirs.iter().map(|dir| dir.path().to_owned()).collect::<Vec<_>>();
    let ids = ClusterIds::default();
    let directories = Directories::open(Arc::new(RealDisk), &paths, &paths[0], ME, &ids).unwrap();
    World {
        dirs,
        assignments: Arc::default(),
        directories: Arc::new(directories),
        controller: ScriptedController::new(answers, play),
        image: Arc::default(),
        stop: watch::Sender::new(false),
    }
}

/// What the metadata say: the broker of epoch 77, and a topic whose partitions are in no directory, or in this one.
fn image(partitions: i32, directory: Uuid) -> Arc<Image> {
    let mut records = bootstrap_records(1);
    records.push(fixture::registered(ME));
    let topic_id = TOPIC_ID;
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
    Arc::new(fixture::image(&records))
}

impl World {
    fn submit(&self, index: i32, at: usize) {
        let log = log_params(self.dirs[at].path(), index);
        self.assignments.submit(Partition::new(partition_params(ME, log)));
    }

    async fn run_until(&self, is_so: impl Fn() -> bool) {
        let params = AssignmentParams {
            broker: ME,
            controller: Arc::clone(&self.controller) as Arc<dyn ControllerCalls>,
            directories: Arc::clone(&self.directories),
            image: Arc::clone(&self.image),
        };
        let running = Arc::clone(&self.assignments).run(params, self.stop.subscribe());
        fixture::run_until(running, &self.stop, is_so).await;
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
