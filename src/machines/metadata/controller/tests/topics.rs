//! Topics that are created, deleted and given more partitions.

use super::*;
use ottla_protocol::messages::{create_partitions_request, delete_topics_request};

/// Asks a cluster of one broker, with a topic `taken.name`, for a topic.
fn check_creation(wanted: CreatableTopic, expected: Result<(i32, i16), (ErrorCode, &str)>) {
    let mut world = World::with_brokers(1);
    world.created("taken.name", 1, 1);
    let response = world.create(vec![wanted.clone()]);
    let result = &response.topics[0];
    match expected {
        Ok(shape) => {
            assert_eq!((result.error_code, &result.error_message), (0, &None));
            assert_eq!((result.num_partitions, result.replication_factor), shape);
        }
        Err((code, text)) => {
            assert_eq!(result.error_message.as_deref(), Some(text));
            assert_eq!(result.error_code, code.code());
            assert!(world.controller.image.topics.len() == 1, "nothing is created");
        }
    }
    world.check_replay();
}

#[test]
fn topics_are_created_or_refused_as_kafka_does() {
    let long = "x".repeat(250);
    let assigned = |brokers: &[i32], index| CreatableTopic {
        assignments: vec![CreatableReplicaAssignment {
            partition_index: index,
            broker_ids: brokers.to_vec(),
        }],
        ..topic("assigned", -1, -1)
    };
    let configured = |name: &str, value: Option<&str>| CreatableTopic {
        configs: vec![CreatableTopicConfig { name: name.into(), value: value.map(str::to_owned) }],
        ..topic("configured", 1, 1)
    };
    use ErrorCode as E;
    let cases = [
        (topic("t", 3, 1), Ok((3, 1))),
        (topic("t", -1, -1), Ok((1, 1))),
        (assigned(&[1], 0), Ok((1, 1))),
        (configured("retention.ms", Some("1000")), Ok((1, 1))),
        (
            topic("taken.name", 1, 1),
            Err((E::TopicAlreadyExists, "Topic 'taken.name' already exists.")),
        ),
        (
            topic("taken_name", 1, 1),
            Err((
                E::InvalidTopicException,
                "Topic 'taken_name' collides with existing topic: taken.name",
            )),
        ),
        (
            topic("", 1, 1),
            Err((
                E::InvalidTopicException,
                "Topic name is invalid: the empty string is not allowed",
            )),
        ),
        (
            topic("..", 1, 1),
            Err((E::InvalidTopicException, "Topic name is invalid: '..' is not allowed")),
        ),
        (
            topic("a b", 1, 1),
            Err((
                E::InvalidTopicException,
                "Topic name is invalid: 'a b' contains one or more characters other than ASCII \
                 alphanumerics, '.', '_' and '-'",
            )),
        ),
        (
            topic("t", 1, 3),
            Err((
                E::InvalidReplicationFactor,
                "Unable to replicate the partition 3 time(s): The target replication factor of 3 \
                 cannot be reached because only 1 broker(s) are registered or some brokers have \
                 all their log directories cordoned.",
            )),
        ),
        (
            topic("t", 1, 0),
            Err((
                E::InvalidReplicationFactor,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            )),
        ),
        (
            topic("t", 0, 1),
            Err((
                E::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.",
            )),
        ),
        (
            topic("t", 10_001, 1),
            Err((E::PolicyViolation, "Excessively large number of partitions per request.")),
        ),
        (
            assigned(&[1], 1),
            Err((
                E::InvalidReplicaAssignment,
                "partitions should be a consecutive 0-based integer sequence",
            )),
        ),
        (
            assigned(&[2], 0),
            Err((
                E::InvalidReplicaAssignment,
                "The manual partition assignment includes broker 2, but no such broker is \
                 registered.",
            )),
        ),
        (
            assigned(&[1, 1], 0),
            Err((
                E::InvalidReplicaAssignment,
                "The manual partition assignment includes the broker 1 more than once.",
            )),
        ),
        (
            configured("nosuch", Some("1")),
            Err((E::InvalidConfig, "Unknown topic config name: nosuch")),
        ),
        (
            configured("retention.ms", Some("abc")),
            Err((
                E::InvalidConfig,
                "Invalid value abc for configuration retention.ms: Not a number of type LONG",
            )),
        ),
        (
            configured("retention.ms", None),
            Err((E::InvalidConfig, "Null value not supported for topic configs: retention.ms")),
        ),
    ];
    for (wanted, expected) in cases {
        check_creation(wanted, expected);
    }
    let text = format!(
        "Topic name is invalid: the length of '{long}' is longer than the max allowed length 249"
    );
    check_creation(topic(&long, 1, 1), Err((E::InvalidTopicException, &text)));
}

#[test]
fn duplicates_in_a_request_are_refused_and_the_rest_created() {
    let mut world = World::with_brokers(1);
    let response = world.create(vec![topic("a", 1, 1), topic("a", 1, 1), topic("b", 1, 1)]);
    let results: Vec<(&str, i16)> =
        response.topics.iter().map(|t| (t.name.as_str(), t.error_code)).collect();
    assert_eq!(results, [("b", 0), ("a", ErrorCode::InvalidRequest.code())]);
}

#[test]
fn validating_only_creates_nothing() {
    let mut world = World::with_brokers(1);
    let request = CreateTopicsRequest {
        topics: vec![topic("t", 1, 1)],
        validate_only: true,
        ..Default::default()
    };
    world.ask(ControllerRequest::CreateTopics { request, seed: Uuid::from_u128(1) });
    assert!(world.controller.image.topics.is_empty());
}

#[test]
fn replicas_spread_and_leaders_go_round() {
    let mut world = World::with_brokers(3);
    world.created("t", 6, 2);
    let topic = world.controller.image.topics.get("t").expect("just created");
    let mut leaders = BTreeMap::new();
    for partition in topic.partitions.values() {
        assert_eq!(partition.replicas.len(), 2);
        assert_ne!(partition.replicas[0], partition.replicas[1]);
        *leaders.entry(partition.leader).or_insert(0) += 1;
    }
    assert_eq!(leaders.into_values().collect::<Vec<_>>(), [2, 2, 2]);
    world.check_replay();
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut world = World::with_brokers(1);
    let a = world.created("a", 1, 1);
    let b = world.created("b", 1, 1);
    world.created("keep", 1, 1);
    let by = |name: Option<&str>, topic_id| delete_topics_request::DeleteTopicState {
        name: name.map(str::to_owned),
        topic_id,
    };
    let unknown = Uuid::from_u128(99);
    let request = DeleteTopicsRequest {
        topics: vec![
            by(Some("a"), Uuid::nil()),
            by(None, b),
            by(None, unknown),
            by(Some("nosuch"), Uuid::nil()),
            by(Some("keep"), unknown),
        ],
        ..Default::default()
    };
    let ControllerReply::DeleteTopics(reply) = world.ask(ControllerRequest::DeleteTopics(request))
    else {
        panic!("not a deletion")
    };
    let code = |name: Option<&str>, id: TopicId| {
        let found = reply
            .responses
            .iter()
            .find(|r| r.name.as_deref() == name && r.topic_id == id)
            .expect("one answer for each");
        ErrorCode::from_code(found.error_code)
    };
    assert_eq!(code(Some("a"), a), ErrorCode::None);
    assert_eq!(code(Some("b"), b), ErrorCode::None);
    assert_eq!(code(None, unknown), ErrorCode::UnknownTopicId);
    assert_eq!(code(Some("nosuch"), Uuid::nil()), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(code(Some("keep"), unknown), ErrorCode::InvalidRequest);
    assert_eq!(world.controller.image.topics.len(), 1);
    world.check_replay();
}

#[test]
fn partitions_are_added_but_never_taken_away() {
    let mut world = World::with_brokers(1);
    world.created("t", 2, 1);
    let mut grow = |name: &str, count| {
        let request = CreatePartitionsRequest {
            topics: vec![create_partitions_request::CreatePartitionsTopic {
                name: name.into(),
                count,
                assignments: None,
            }],
            ..Default::default()
        };
        let seed = Uuid::from_u128(3);
        match world.ask(ControllerRequest::CreatePartitions { request, seed }) {
            ControllerReply::CreatePartitions(reply) => {
                let result = reply.results[0].clone();
                (ErrorCode::from_code(result.error_code), result.error_message)
            }
            other => panic!("not an increase but {other:?}"),
        }
    };
    assert_eq!(grow("t", 4), (ErrorCode::None, None));
    let (code, text) = grow("t", 4);
    assert_eq!(code, ErrorCode::InvalidPartitions);
    assert_eq!(text.as_deref(), Some("Topic already has 4 partition(s)."));
    let (_, text) = grow("t", 3);
    assert_eq!(
        text.as_deref(),
        Some("The topic t currently has 4 partition(s); 3 would not be an increase.")
    );
    assert_eq!(grow("nosuch", 3).0, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(world.controller.image.topics.partition_count(), 4);
    world.check_replay();
}
