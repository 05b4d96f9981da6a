//! Which changes are asked for, and what becomes of the answers.

use super::*;
use crate::broker::fixture::{self, ScriptedController, log_params, partition_params};
use crate::machines::replica::{IsrMember, Leadership};
use ottla_protocol::messages::alter_partition_response;
use ottla_protocol::{BrokerEpoch, Offset};

const ME: BrokerId = BrokerId(1);

type Request = AlterPartitionRequest;

fn play(request: ControllerRequest, error: ErrorCode) -> (Request, ControllerReply) {
    let ControllerRequest::AlterPartition(request) = request else { panic!("{request:?}") };
    let reply = reply(&request, error);
    (request, ControllerReply::AlterPartition(reply))
}

fn reply(request: &Request, error: ErrorCode) -> AlterPartitionResponse {
    let partition = |one: &PartitionData| alter_partition_response::PartitionData {
        partition_index: one.partition_index,
        error_code: error.code(),
        leader_id: ME.0,
        leader_epoch: one.leader_epoch,
        isr: one.new_isr_with_epochs.iter().map(|member| member.broker_id).collect(),
        partition_epoch: one.partition_epoch + 1,
        ..Default::default()
    };
    let topics = request.topics.iter().map(|topic| alter_partition_response::TopicData {
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().map(partition).collect(),
    });
    AlterPartitionResponse { topics: topics.collect(), ..Default::default() }
}

struct World {
    _dir: tempfile::TempDir,
    changes: Arc<IsrChanges>,
    controller: Arc<ScriptedController<Request>>,
    partition: Arc<Partition>,
    stop: watch::Sender<bool>,
}

/// A leader whose follower has just caught up, and a controller that will answer so.
fn world(answers: &[Result<ErrorCode, ErrorCode>]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let changes = Arc::new(IsrChanges::default());
    let mut params = partition_params(ME, log_params(dir.path(), 0));
    params.replica.lag_time_max_ms = 0;
    params.isr_changes = Arc::clone(&changes);
    let partition = Partition::new(params);
    let leadership =
        Leadership { partition_epoch: 6, ..fixture::leadership(4, &[ME, BrokerId(2)]) };
    partition.lead(leadership).unwrap();
    let controller = ScriptedController::new(answers, play);
    World { _dir: dir, changes, controller, partition, stop: watch::Sender::new(false) }
}

impl World {
    async fn run_until(&self, is_so: impl Fn() -> bool) {
        let image = fixture::image(&[fixture::registered(ME)]);
        let identity = (ME, Arc::new(ArcSwap::from_pointee(image)));
        let controller = Arc::clone(&self.controller) as Arc<dyn ControllerCalls>;
        let running = Arc::clone(&self.changes).run(controller, identity, self.stop.subscribe());
        fixture::run_until(running, &self.stop, is_so).await;
    }

    fn has_asked(&self, times: usize) -> bool {
        self.controller.requests.lock().len() >= times
    }

    /// Nobody wants it before the follower has lagged.
    fn lose_follower(&self) {
        self.partition.fence(vec![BrokerId(2)], Offset(0));
    }

    fn is_alone(&self) -> bool {
        let change = IsrChange {
            leader_epoch: LeaderEpoch(4),
            partition_epoch: 6,
            isr: vec![IsrMember { id: ME, broker_epoch: BrokerEpoch(-1) }],
        };
        !self.partition.wants_isr(&change)
    }
}

#[tokio::test]
async fn a_change_is_asked_for_with_the_brokers_epochs() {
    let world = world(&[]);
    world.lose_follower();
    world.run_until(|| world.is_alone()).await;
    let requests = world.controller.requests.lock();
    assert_eq!((requests.len(), requests[0].broker_id, requests[0].broker_epoch), (1, 1, 77));
    let asked = &requests[0].topics[0].partitions[0];
    assert_eq!((asked.leader_epoch, asked.partition_epoch), (4, 6));
    let members: Vec<_> =
        asked.new_isr_with_epochs.iter().map(|it| (it.broker_id, it.broker_epoch)).collect();
    assert_eq!(members, [(1, 77)]);
}

#[tokio::test]
async fn what_fails_for_a_while_is_tried_again() {
    let world = world(&[
        Err(ErrorCode::NotController),
        Ok(ErrorCode::UnknownServerError),
        Ok(ErrorCode::None),
    ]);
    world.lose_follower();
    world.run_until(|| world.is_alone()).await;
    assert_eq!(world.controller.requests.lock().len(), 3);
}

#[tokio::test]
async fn a_rejected_change_is_wanted_no_longer() {
    let world = world(&[Ok(ErrorCode::IneligibleReplica)]);
    world.lose_follower();
    world.run_until(|| world.is_alone()).await;
    assert_eq!(world.controller.requests.lock().len(), 1);
}

#[tokio::test]
async fn an_old_picture_waits_for_the_image_and_is_not_asked_about_again() {
    let world = world(&[Ok(ErrorCode::InvalidUpdateVersion)]);
    world.lose_follower();
    world.run_until(|| world.has_asked(1)).await;
    assert!(!world.is_alone(), "the change is still under way");
    assert!(world.changes.take().is_empty());
}
