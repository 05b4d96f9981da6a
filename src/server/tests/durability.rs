//! Produce requests whose answers rest on a sync.

use super::*;
use ottla_protocol::messages::create_topics_request::CreatableTopicConfig;

fn create_flushed_topic(world: &World, name: &str, partitions: i32) {
    let config =
        CreatableTopicConfig { name: "flush.messages".to_owned(), value: Some("1".to_owned()) };
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: 1,
        configs: vec![config],
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let seed = uuid::Uuid::new_v4();
    let request = broker::ControllerRequest::CreateTopics { request, seed };
    world.runtime.block_on(world.broker.controller(request)).unwrap();
}

#[test]
fn pipelined_requests_with_flush_messages_are_answered_in_order() {
    let world = World::new();
    create_flushed_topic(&world, "t", 2);
    let mut client = world.connect();
    let mut sent = Vec::new();
    for n in 0..20 {
        let partition = n % 2;
        let acks = if n % 3 == 0 { 1 } else { -1 };
        let mut request = produce("t", acks, batch(&["a"]));
        request.topic_data[0].partition_data[0].index = partition;
        sent.push((client.send(9, &request), i64::from(n / 2)));
    }
    for (correlation_id, offset) in sent {
        let (id, response): (i32, ProduceResponse) = client.receive(9);
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!((id, answer.error_code, answer.base_offset), (correlation_id, 0, offset));
        let partition = world.broker.partition("t", answer.index).unwrap();
        assert!(partition.checkpoint().unwrap().recovery_point > ottla_protocol::Offset(offset));
    }
}
