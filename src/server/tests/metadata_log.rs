//! What a controller gives of the metadata log to nodes that follow it.

use super::*;
use ottla_protocol::CLUSTER_METADATA_TOPIC;

#[test]
fn an_answer_about_a_snapshot_says_who_leads_and_in_which_epoch() {
    let world = World::new();
    let mut follower = World::connect_to(world.controller_address);
    let asked = fetch_snapshot_request::PartitionSnapshot {
        partition: 0,
        snapshot_id: fetch_snapshot_request::SnapshotId { end_offset: 1_000_000, epoch: 1 },
        ..Default::default()
    };
    let request = FetchSnapshotRequest {
        replica_id: 9,
        max_bytes: 1000,
        topics: vec![fetch_snapshot_request::TopicSnapshot {
            name: CLUSTER_METADATA_TOPIC.to_owned(),
            partitions: vec![asked],
        }],
        ..Default::default()
    };
    let answer = follower.call(1, &request);
    let part = &answer.topics[0].partitions[0];
    assert_eq!(part.error_code, ErrorCode::SnapshotNotFound.code());
    let (leader, epoch) = world.broker.quorum_leader();
    assert_eq!(leader, world.broker.node_id());
    assert!(epoch.0 > 0);
    let said = (part.current_leader.leader_id, part.current_leader.leader_epoch);
    assert_eq!(said, (leader.0, epoch.0));
}
