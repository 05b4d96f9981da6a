//! Reassignments, and elections that somebody asks for.

use super::*;
use ottla_protocol::messages::{alter_partition_reassignments_request, elect_leaders_request};

#[test]
fn a_reassignment_waits_for_the_new_replica_and_can_be_cancelled() {
    let mut world = World::with_brokers(2);
    let assignment = CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![1] };
    world.create(vec![CreatableTopic { assignments: vec![assignment], ..topic("t", -1, -1) }]);
    let mut reassign = |replicas: Option<Vec<i32>>| {
        let request = AlterPartitionReassignmentsRequest {
            topics: vec![alter_partition_reassignments_request::ReassignableTopic {
                name: "t".into(),
                partitions: vec![alter_partition_reassignments_request::ReassignablePartition {
                    partition_index: 0,
                    replicas,
                }],
            }],
            allow_replication_factor_change: false,
            ..Default::default()
        };
        let reply = world.ask(ControllerRequest::AlterPartitionReassignments(request));
        let ControllerReply::AlterPartitionReassignments(reply) = reply else {
            panic!("not a reassignment")
        };
        let code = ErrorCode::from_code(reply.responses[0].partitions[0].error_code);
        let topic = world.controller.image.topics.get("t").cloned().expect("t");
        (code, topic.partition(0).cloned().expect("t-0"))
    };
    assert_eq!(reassign(None).0, ErrorCode::NoReassignmentInProgress);
    assert_eq!(reassign(Some(vec![1, 2])).0, ErrorCode::InvalidReplicationFactor);
    let (code, partition) = reassign(Some(vec![2]));
    assert_eq!(code, ErrorCode::None);
    assert_eq!(partition.adding_replicas, [BrokerId(2)]);
    assert_eq!(partition.removing_replicas, [BrokerId(1)]);
    assert_eq!(partition.leader, BrokerId(1));
    let (code, partition) = reassign(None);
    assert_eq!(code, ErrorCode::None);
    assert!(!partition.is_reassigning() && partition.replicas == [BrokerId(1)]);
    world.check_replay();
}

#[test]
fn elections_that_are_not_needed_say_so() {
    let mut world = World::with_brokers(1);
    world.created("t", 1, 1);
    let request = ElectLeadersRequest {
        election_type: 0,
        topic_partitions: Some(vec![elect_leaders_request::TopicPartitions {
            topic: "t".into(),
            partitions: vec![0, 9],
        }]),
        ..Default::default()
    };
    let ControllerReply::ElectLeaders(reply) = world.ask(ControllerRequest::ElectLeaders(request))
    else {
        panic!("not an election")
    };
    let codes: Vec<ErrorCode> = reply.replica_election_results[0]
        .partition_result
        .iter()
        .map(|result| ErrorCode::from_code(result.error_code))
        .collect();
    assert_eq!(codes, [ErrorCode::ElectionNotNeeded, ErrorCode::UnknownTopicOrPartition]);
}
