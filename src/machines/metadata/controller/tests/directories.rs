//! Log directories: what lies in which, and what a failure takes with it (KIP-858).

use super::*;
use crate::machines::metadata::image::DIRECTORY_UNASSIGNED;

fn log_dir(broker: i32, number: u128) -> Uuid {
    Uuid::from_u128(1000 * number + u128::from(broker.unsigned_abs()))
}

/// Three brokers with two log directories each, and a partition of which nobody has said yet where it lies.
fn world_of_directories() -> (World, TopicId, BrokerId, i64) {
    let mut world = World::empty();
    for id in 1..=3i32 {
        let incarnation = u128::from(id.unsigned_abs());
        world.start_broker_with(id, incarnation, -1, vec![log_dir(id, 1), log_dir(id, 2)]);
    }
    let id = world.created("t", 1, 3);
    let leader = world.only_partition().leader;
    let epoch = world.controller.image.cluster.brokers[&leader].epoch.0;
    (world, id, leader, epoch)
}

impl World {
    fn only_partition(&self) -> PartitionRegistration {
        let topic = self.controller.image.topics.get("t").expect("created");
        topic.partition(0).expect("created").as_ref().clone()
    }

    fn assign(&mut self, broker: (BrokerId, i64), topic: TopicId, dir: Uuid) -> (i16, Vec<i16>) {
        use ottla_protocol::messages::assign_replicas_to_dirs_request::{
            DirectoryData, PartitionData, TopicData,
        };
        let partitions = vec![PartitionData { partition_index: 0 }];
        let topics = vec![TopicData { topic_id: topic, partitions }];
        let request = AssignReplicasToDirsRequest {
            broker_id: broker.0.0,
            broker_epoch: broker.1,
            directories: vec![DirectoryData { id: dir, topics }],
        };
        let reply = self.ask(ControllerRequest::AssignReplicasToDirs(request));
        let ControllerReply::AssignReplicasToDirs(reply) = reply else { panic!("{reply:?}") };
        let topics = reply.directories.iter().flat_map(|dir| &dir.topics);
        let partitions = topics.flat_map(|topic| &topic.partitions);
        (reply.error_code, partitions.map(|partition| partition.error_code).collect())
    }

    fn report_offline(&mut self, broker: (BrokerId, i64), dirs: &[Uuid]) {
        let request = BrokerHeartbeatRequest {
            broker_id: broker.0.0,
            broker_epoch: broker.1,
            current_metadata_offset: self.log.len() as i64,
            offline_log_dirs: dirs.to_vec(),
            ..Default::default()
        };
        let reply = self.ask(ControllerRequest::BrokerHeartbeat(request));
        let ControllerReply::BrokerHeartbeat(reply) = reply else { panic!("{reply:?}") };
        assert_eq!((reply.error_code, reply.is_fenced), (0, false));
    }
}

#[test]
fn brokers_say_in_which_log_directory_a_replica_is() {
    let (mut world, topic, leader, epoch) = world_of_directories();
    assert_eq!(world.only_partition().directory_of(leader), DIRECTORY_UNASSIGNED);
    let dir = log_dir(leader.0, 2);
    assert_eq!(world.assign((leader, epoch), topic, dir), (0, vec![0]));
    let assigned = world.only_partition();
    assert_eq!(assigned.directory_of(leader), dir);
    assert_eq!((assigned.leader, assigned.leader_epoch.0), (leader, 0), "nothing else changes");
    let written = world.log.len();
    assert_eq!(world.assign((leader, epoch), topic, dir), (0, vec![0]));
    assert_eq!(world.log.len(), written, "it was known");
    let stale = ErrorCode::StaleBrokerEpoch.code();
    assert_eq!(world.assign((leader, epoch + 1), topic, dir), (stale, vec![]));
    let unknown = ErrorCode::UnknownTopicId.code();
    assert_eq!(world.assign((leader, epoch), Uuid::from_u128(9), dir), (0, vec![unknown]));
    world.check_replay();
}

#[test]
fn what_lies_in_a_directory_that_fails_has_another_leader_at_once() {
    let (mut world, topic, leader, epoch) = world_of_directories();
    let (one, two) = (log_dir(leader.0, 1), log_dir(leader.0, 2));
    assert_eq!(world.assign((leader, epoch), topic, two), (0, vec![0]));
    world.report_offline((leader, epoch), &[one]);
    assert_eq!(world.only_partition().leader, leader, "it lies in the other one");
    let online = |world: &World| world.controller.image.cluster.brokers[&leader].log_dirs.clone();
    assert_eq!(online(&world), [two]);
    world.report_offline((leader, epoch), &[one, two]);
    let moved = world.only_partition();
    assert!(moved.has_leader() && moved.leader != leader, "{moved:?}");
    assert_eq!((moved.isr.len(), moved.isr.contains(&leader), moved.leader_epoch.0), (2, false, 1));
    let written = world.log.len();
    world.report_offline((leader, epoch), &[one, two]);
    assert_eq!(world.log.len(), written, "each failure counts once");
    // A broker of which the metadata know no log directory that has the replica leads no more until it is back.
    world.controller.note_disconnect(leader, BrokerEpoch(epoch));
    world.start_broker_with(leader.0, 77, epoch, vec![log_dir(leader.0, 3)]);
    assert_eq!(world.only_partition().leader, moved.leader);
    world.check_replay();
}

#[test]
fn a_replica_that_turns_out_to_be_in_an_offline_directory_leads_no_more() {
    let (mut world, topic, leader, epoch) = world_of_directories();
    let failed = log_dir(leader.0, 2);
    world.report_offline((leader, epoch), &[failed]);
    assert_eq!(world.only_partition().leader, leader, "nobody has said where it lies");
    assert_eq!(world.assign((leader, epoch), topic, failed), (0, vec![0]));
    let moved = world.only_partition();
    assert!(moved.has_leader() && moved.leader != leader, "{moved:?}");
    assert!(!moved.isr.contains(&leader) && moved.directory_of(leader) == failed);
    let all = moved.replicas.iter().map(|id| id.0).collect::<Vec<_>>();
    let refused = world.try_alter_isr("t", 0, moved.leader.0, &all);
    assert_eq!(refused, ErrorCode::IneligibleReplica, "whatever its broker fetched last");
    assert_eq!(world.only_partition().isr, moved.isr);
    world.check_replay();
}
