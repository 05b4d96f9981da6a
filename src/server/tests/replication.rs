//! Followers' fetches, played by a client that registers as another broker.

use super::*;
use crate::broker::{ControllerReply, ControllerRequest, features};
use ottla_protocol::messages::broker_registration_request::{Feature, Listener};
use ottla_protocol::messages::create_topics_request::CreatableReplicaAssignment;
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use ottla_protocol::messages::fetch_response::PartitionData;
use std::time::{Duration, Instant};

const FOLLOWER: i32 = 2;

struct Cluster {
    world: World,
    broker_epoch: i64,
    topic_id: uuid::Uuid,
}

fn ask(world: &World, request: ControllerRequest) -> ControllerReply {
    world.runtime.block_on(world.broker.controller(request)).unwrap()
}

/// A broker and one that is only registered, with a topic that both have, led by the first.
fn cluster() -> Cluster {
    let world = World::new();
    let ranges = features::FEATURES.iter().filter(|it| it.name != features::KRAFT_VERSION);
    let request = BrokerRegistrationRequest {
        broker_id: FOLLOWER,
        cluster_id: world.broker.cluster_id().to_owned(),
        incarnation_id: uuid::Uuid::new_v4(),
        listeners: vec![Listener {
            name: "PLAINTEXT".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 1,
            security_protocol: 0,
        }],
        features: ranges
            .map(|feature| Feature {
                name: feature.name.to_owned(),
                min_supported_version: feature.range.min,
                max_supported_version: feature.range.max,
            })
            .collect(),
        log_dirs: vec![uuid::Uuid::new_v4()],
        previous_broker_epoch: -1,
        ..Default::default()
    };
    let reply = ask(&world, ControllerRequest::RegisterBroker(request));
    let ControllerReply::RegisterBroker(reply) = reply else { panic!("{reply:?}") };
    assert_eq!(reply.error_code, 0, "{reply:?}");
    let broker_epoch = reply.broker_epoch;
    let heartbeat = BrokerHeartbeatRequest {
        broker_id: FOLLOWER,
        broker_epoch,
        current_metadata_offset: i64::MAX,
        ..Default::default()
    };
    let reply = ask(&world, ControllerRequest::BrokerHeartbeat(heartbeat));
    let ControllerReply::BrokerHeartbeat(reply) = reply else { panic!("{reply:?}") };
    assert!(!reply.is_fenced, "{reply:?}");
    let topic = CreatableTopic {
        name: "t".to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![CreatableReplicaAssignment {
            partition_index: 0,
            broker_ids: vec![1, FOLLOWER],
        }],
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let seed = uuid::Uuid::new_v4();
    let reply = ask(&world, ControllerRequest::CreateTopics { request, seed });
    let ControllerReply::CreateTopics(reply) = reply else { panic!("{reply:?}") };
    assert_eq!(reply.topics[0].error_code, 0, "{reply:?}");
    let topic_id = reply.topics[0].topic_id;
    Cluster { world, broker_epoch, topic_id }
}

impl Cluster {
    fn fetch(&self, offset: i64, change: impl FnOnce(&mut FetchRequest)) -> FetchRequest {
        let mut request = FetchRequest {
            replica_state: ReplicaState { replica_id: FOLLOWER, replica_epoch: self.broker_epoch },
            max_bytes: 1 << 20,
            min_bytes: 1,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic_id: self.topic_id,
                partitions: vec![FetchPartition {
                    fetch_offset: offset,
                    partition_max_bytes: 1 << 20,
                    current_leader_epoch: 0,
                    last_fetched_epoch: -1,
                    log_start_offset: 0,
                    high_watermark: 0,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        change(&mut request);
        request
    }

    fn isr(&self) -> Vec<i32> {
        let image = self.world.broker.image();
        let isr = &image.topics.get("t").unwrap().partition(0).unwrap().isr;
        isr.iter().map(|id| id.0).collect()
    }
}

fn only(response: FetchResponse) -> PartitionData {
    assert_eq!(response.error_code, 0);
    response.responses.into_iter().next().unwrap().partitions.into_iter().next().unwrap()
}

fn records_of(data: &PartitionData) -> usize {
    data.records.as_ref().map_or(0, Bytes::len)
}

#[test]
fn acks_all_waits_for_the_followers_next_fetch() {
    let cluster = cluster();
    assert_eq!(cluster.isr(), [1, FOLLOWER]);
    let (mut producer, mut follower) = (cluster.world.connect(), cluster.world.connect());
    let sent = producer.send(9, &produce("t", -1, batch(&["a"])));
    // It waits for the record where that has not come yet.
    let first = cluster.fetch(0, |request| request.max_wait_ms = 10_000);
    let got = only(follower.call(18, &first));
    assert!(records_of(&got) > 0);
    assert_eq!((got.error_code, got.high_watermark), (0, 0));
    let mut consumer = cluster.world.connect();
    let unseen = cluster.fetch(0, |request| request.replica_state.replica_id = -1);
    assert_eq!(records_of(&only(consumer.call(18, &unseen))), 0, "it is not committed");
    let got = only(follower.call(18, &cluster.fetch(1, |_| {})));
    assert_eq!((got.error_code, got.high_watermark, records_of(&got)), (0, 1, 0));
    let (id, response): (i32, ProduceResponse) = producer.receive(9);
    let answer = &response.responses[0].partition_responses[0];
    assert_eq!((id, answer.error_code, answer.base_offset), (sent, 0, 0));
    assert!(records_of(&only(consumer.call(18, &unseen))) > 0);
}

/// It is told of the high watermark long before its wait ends.
#[test]
fn a_follower_that_waits_hears_of_the_high_watermark() {
    let cluster = cluster();
    let mut follower = cluster.world.connect();
    let answer = cluster.world.connect().call(9, &produce("t", 1, batch(&["a"])));
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    let begin = Instant::now();
    let known = cluster.fetch(1, |request| request.max_wait_ms = 15_000);
    assert_eq!(only(follower.call(18, &known)).high_watermark, 1);
    assert!(begin.elapsed() < Duration::from_secs(10));
    // One that knows it waits.
    let waits = cluster.fetch(1, |request| {
        request.max_wait_ms = 100;
        request.topics[0].partitions[0].high_watermark = 1;
    });
    let begin = Instant::now();
    assert_eq!(only(follower.call(18, &waits)).high_watermark, 1);
    assert!(begin.elapsed() >= Duration::from_millis(100));
}

#[test]
fn followers_are_told_what_is_wrong_with_their_fetch() {
    let cluster = cluster();
    let mut follower = cluster.world.connect();
    let answer = cluster.world.connect().call(9, &produce("t", 1, batch(&["a", "b"])));
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    let mut check = |offset, error: ErrorCode, change: &dyn Fn(&mut FetchRequest)| {
        let got = only(follower.call(18, &cluster.fetch(offset, |request| change(request))));
        assert_eq!(ErrorCode::from_code(got.error_code), error);
        got
    };
    check(9, ErrorCode::OffsetOutOfRange, &|_| {});
    check(0, ErrorCode::UnknownLeaderEpoch, &|request| {
        request.topics[0].partitions[0].current_leader_epoch = 1;
    });
    check(0, ErrorCode::UnknownLeaderEpoch, &|request| request.replica_state.replica_id = 7);
    check(2, ErrorCode::None, &|_| {});
    let stale = |request: &mut FetchRequest| request.replica_state.replica_epoch -= 1;
    check(2, ErrorCode::NotLeaderOrFollower, &stale);
    // No leader has had epoch 3 yet.
    check(2, ErrorCode::OffsetOutOfRange, &|request| {
        request.topics[0].partitions[0].last_fetched_epoch = 3;
    });
    let got = check(1, ErrorCode::None, &|request| {
        request.topics[0].partitions[0].last_fetched_epoch = 0;
    });
    assert_eq!((got.diverging_epoch.end_offset, records_of(&got) > 0), (-1, true));
}

#[test]
fn old_fetches_name_the_replica_without_its_epoch() {
    let cluster = cluster();
    let mut follower = cluster.world.connect();
    let answer = cluster.world.connect().call(9, &produce("t", 1, batch(&["a"])));
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    let old = |offset| {
        cluster.fetch(offset, |request| {
            request.replica_id = FOLLOWER;
            request.topics[0].topic = "t".to_owned();
        })
    };
    for version in [4, 9, 12, 14] {
        let got = only(follower.call(version, &old(0)));
        assert_eq!(got.error_code, 0, "version {version}");
        assert!(records_of(&got) > 0, "version {version}");
    }
    assert_eq!(only(follower.call(12, &old(1))).high_watermark, 1);
}

#[test]
fn deleted_records_are_answered_when_every_replica_starts_after_them() {
    let cluster = cluster();
    let (mut admin, mut follower) = (cluster.world.connect(), cluster.world.connect());
    let answer = cluster.world.connect().call(9, &produce("t", 1, batch(&["a", "b"])));
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    assert_eq!(only(follower.call(18, &cluster.fetch(2, |_| {}))).high_watermark, 2);
    let partition =
        delete_records_request::DeleteRecordsPartition { partition_index: 0, offset: 1 };
    let topic = delete_records_request::DeleteRecordsTopic {
        name: "t".to_owned(),
        partitions: vec![partition],
    };
    let delete = |timeout_ms| DeleteRecordsRequest { topics: vec![topic.clone()], timeout_ms };
    let late = admin.call(2, &delete(50));
    let result = &late.topics[0].partitions[0];
    assert_eq!(result.error_code, ErrorCode::RequestTimedOut.code());
    admin.send(2, &delete(15_000));
    let got = only(follower.call(18, &cluster.fetch(2, |_| {})));
    assert_eq!(got.log_start_offset, 1);
    follower.call(18, &cluster.fetch(2, |it| it.topics[0].partitions[0].log_start_offset = 1));
    let (_, response): (i32, DeleteRecordsResponse) = admin.receive(2);
    let result = &response.topics[0].partitions[0];
    assert_eq!((result.error_code, result.low_watermark), (0, 1));
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn heartbeat(cluster: &Cluster, want_fence: bool) {
    let request = BrokerHeartbeatRequest {
        broker_id: FOLLOWER,
        broker_epoch: cluster.broker_epoch,
        current_metadata_offset: i64::MAX,
        want_fence,
        ..Default::default()
    };
    let reply = ask(&cluster.world, ControllerRequest::BrokerHeartbeat(request));
    let ControllerReply::BrokerHeartbeat(reply) = reply else { panic!("{reply:?}") };
    assert_eq!((reply.error_code, reply.is_fenced), (0, want_fence));
}

#[test]
fn a_fenced_follower_is_not_waited_for_and_comes_back_once_it_has_caught_up() {
    let cluster = cluster();
    let (mut producer, mut follower) = (cluster.world.connect(), cluster.world.connect());
    producer.send(9, &produce("t", -1, batch(&["a"])));
    heartbeat(&cluster, true);
    let (_, response): (i32, ProduceResponse) = producer.receive(9);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    assert_eq!(cluster.isr(), [1]);
    // It may copy, but not join.
    let end = cluster.fetch(1, |_| {});
    assert_eq!(only(follower.call(18, &end)).error_code, 0);
    heartbeat(&cluster, false);
    assert_eq!(cluster.isr(), [1]);
    assert_eq!(only(follower.call(18, &cluster.fetch(0, |_| {}))).high_watermark, 1);
    assert_eq!(cluster.isr(), [1], "it is behind");
    assert_eq!(only(follower.call(18, &end)).error_code, 0);
    until("the ISR", || cluster.isr() == [1, FOLLOWER]);
}

#[test]
fn a_replica_that_a_reassignment_takes_away_is_deleted() {
    use ottla_protocol::messages::alter_partition_reassignments_request::{
        ReassignablePartition, ReassignableTopic,
    };
    let cluster = cluster();
    let answer = cluster.world.connect().call(9, &produce("t", 1, batch(&["a"])));
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    let partition = cluster.world.broker.partition("t", 0).unwrap();
    let directory = partition.checkpoint().unwrap().directory.join("t-0");
    assert!(directory.exists());
    let target = ReassignablePartition { partition_index: 0, replicas: Some(vec![FOLLOWER]) };
    let topic = ReassignableTopic { name: "t".to_owned(), partitions: vec![target] };
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![topic],
        allow_replication_factor_change: true,
        ..Default::default()
    };
    let reply = ask(&cluster.world, ControllerRequest::AlterPartitionReassignments(request));
    let ControllerReply::AlterPartitionReassignments(reply) = reply else { panic!("{reply:?}") };
    assert_eq!(reply.responses[0].partitions[0].error_code, 0, "{reply:?}");
    assert!(partition.is_gone());
    assert!(!directory.exists());
    let gone = cluster.world.broker.partition("t", 0).err();
    assert_eq!(gone, Some(ErrorCode::NotLeaderOrFollower));
}
