//! Groups that nobody coordinates.

use super::*;
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;

#[test]
fn before_the_offsets_topic_exists_nobody_is_a_groups_coordinator() {
    let world = World::new();
    let mut client = world.connect();
    let expected = ErrorCode::NotCoordinator.code();
    let heartbeat = HeartbeatRequest { group_id: "group".to_owned(), ..Default::default() };
    assert_eq!(client.call(4, &heartbeat).error_code, expected);
    let topic = OffsetFetchRequestTopic { name: "topic".to_owned(), partition_indexes: vec![0] };
    let fetch = OffsetFetchRequest {
        group_id: "group".to_owned(),
        topics: Some(vec![topic]),
        ..Default::default()
    };
    let answer = client.call(1, &fetch);
    assert_eq!(answer.topics[0].partitions[0].error_code, expected);
    let answer = client.call(7, &fetch);
    assert_eq!((answer.error_code, answer.topics.len()), (expected, 0));
}

#[test]
fn who_first_asks_for_a_coordinator_learns_it() {
    let world = World::new();
    let mut client = world.connect();
    let request =
        FindCoordinatorRequest { coordinator_keys: vec!["group".to_owned()], ..Default::default() };
    let found = client.call(4, &request).coordinators.remove(0);
    let here = (world.broker.node_id().0, i32::from(world.address.port()));
    assert_eq!((found.error_code, found.node_id, found.port), (0, here.0, here.1));
}
