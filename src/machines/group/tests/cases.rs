//! Single rules, case by case.

use ottla_protocol::coordinator::{
    ConsumerGroupMetadataKey, ConsumerGroupMetadataValue, LegacyOffsetCommitKey,
    LegacyOffsetCommitValue, OffsetCommitKey, OffsetCommitValue,
};
use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ottla_protocol::messages::{JoinGroupRequest, OffsetCommitRequest};
use ottla_protocol::{ErrorCode, Offset, Timestamp};

use super::world::World;
use crate::machines::group::{
    GroupConfig, GroupRecord, GroupRequest, GroupResponse, Join, partition_for,
};
use crate::machines::{Entry, Machine};

fn load(records: Vec<GroupRecord>) -> World {
    let mut world = World::new(GroupConfig::default());
    for (offset, record) in records.into_iter().enumerate() {
        let (offset, timestamp) = (Offset(offset as i64), Timestamp(1));
        world.log.push(Entry { offset, timestamp, record });
    }
    world.restart();
    world
}

fn committed(world: &mut World) -> Vec<(String, i32, i64)> {
    let request =
        OffsetFetchRequestGroup { group_id: "g".to_owned(), topics: None, ..Default::default() };
    let (_, outcome) = world.request(GroupRequest::FetchOffsets(request));
    let response = outcome.replies[0].1.clone().fetch_offsets().unwrap();
    let topics = response.topics.into_iter();
    topics
        .flat_map(|topic| {
            let name = topic.name;
            let at = |p: &ottla_protocol::messages::offset_fetch_response::OffsetFetchResponsePartitions| {
                (name.clone(), p.partition_index, p.committed_offset)
            };
            topic.partitions.iter().map(at).collect::<Vec<_>>()
        })
        .collect()
}

fn join_error(world: &mut World) -> ErrorCode {
    let (_, outcome) = world.request(GroupRequest::Join(Box::new(Join {
        version: 9,
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        uuid: Default::default(),
        request: JoinGroupRequest {
            group_id: "g".to_owned(),
            session_timeout_ms: 10_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".into(),
                ..Default::default()
            }],
            ..Default::default()
        },
    })));
    ErrorCode::from_code(outcome.replies[0].1.clone().join().unwrap().error_code)
}

fn offset_commit(offset: i64) -> GroupRecord {
    GroupRecord::OffsetCommit {
        key: OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 2 },
        value: Some(OffsetCommitValue { offset, ..Default::default() }),
    }
}

fn consumer_group(exists: bool) -> GroupRecord {
    GroupRecord::ConsumerGroupMetadata {
        key: ConsumerGroupMetadataKey { group_id: "g".into() },
        value: exists.then(ConsumerGroupMetadataValue::default),
    }
}

#[test]
fn a_group_of_another_type_is_not_written_over() {
    for log in [
        vec![offset_commit(5), consumer_group(true)],
        vec![consumer_group(true), offset_commit(5)],
        vec![consumer_group(true), GroupRecord::Unknown { record_type: 99 }, offset_commit(5)],
    ] {
        let mut world = load(log);
        assert_eq!(join_error(&mut world), ErrorCode::InconsistentGroupProtocol);
        assert_eq!(committed(&mut world), [("t".to_owned(), 2, 5)]);
        let outcomes = world.advance_to(Timestamp(i64::from(i32::MAX)));
        assert!(outcomes.iter().all(|(_, outcome)| outcome.records.is_empty()));
    }
    let mut world = load(vec![consumer_group(true), consumer_group(false)]);
    assert_eq!(join_error(&mut world), ErrorCode::MemberIdRequired);
}

#[test]
fn offsets_of_the_oldest_kafkas_are_loaded() {
    let mut world = load(vec![GroupRecord::LegacyOffsetCommit {
        key: LegacyOffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 1 },
        value: Some(LegacyOffsetCommitValue { offset: 7, ..Default::default() }),
    }]);
    assert_eq!(committed(&mut world), [("t".to_owned(), 1, 7)]);
}

#[test]
fn expiry_of_many_offsets_goes_in_steps() {
    let mut world = load(Vec::new());
    for partition in 0..2_500 {
        let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition };
        let value = Some(OffsetCommitValue { expire_timestamp: -1, ..Default::default() });
        let entry = Entry {
            offset: Offset(i64::from(partition)),
            timestamp: Timestamp(0),
            record: GroupRecord::OffsetCommit { key, value },
        };
        world.log.push(entry);
    }
    world.restart();
    let outcomes = world.advance_to(Timestamp(604_800_000));
    let sizes: Vec<usize> =
        outcomes.iter().map(|(_, o)| o.records.len()).filter(|n| *n > 0).collect();
    assert_eq!(sizes, [1_000, 1_000, 501]);
    assert!(committed(&mut world).is_empty());
}

#[test]
fn a_refusal_is_the_same_for_every_api() {
    let refused = || GroupResponse::Refused(ErrorCode::NotCoordinator);
    assert_eq!(refused().join(), Err(ErrorCode::NotCoordinator));
    assert_eq!(refused().delete_groups(), Err(ErrorCode::NotCoordinator));
    assert_eq!(GroupResponse::TopicsDeleted.sync(), Err(ErrorCode::UnknownServerError));
}

#[test]
fn groups_lie_in_the_partition_where_kafka_puts_them() {
    // What Java answers; the third one's hash code is the smallest integer.
    let cases = [
        ("", 50, 0),
        ("a", 50, 47),
        ("polygenelubricants", 50, 0),
        ("é", 50, 33),
        ("console-consumer-1234", 50, 9),
        ("my-group", 50, 12),
    ];
    for (group, partitions, expected) in cases {
        assert_eq!(partition_for(group, partitions), expected, "{group}");
    }
}

#[test]
fn members_time_out_by_the_steady_clock_and_commits_have_the_time_of_the_wall() {
    const AHEAD_MS: i64 = 7_000_000;
    let mut world = World::new(GroupConfig::default());
    world.now = Timestamp(1000);
    // Until it has its id its join waits; then its session of ten seconds begins.
    assert_eq!(join_error(&mut world), ErrorCode::MemberIdRequired);
    let deadline = world.machine.deadline();
    world.machine.set_wall_ahead(AHEAD_MS);
    assert_eq!(world.machine.deadline(), deadline);
    let topic = OffsetCommitRequestTopic {
        name: "t".to_owned(),
        partitions: vec![OffsetCommitRequestPartition {
            committed_offset: 5,
            ..Default::default()
        }],
        ..Default::default()
    };
    let request = OffsetCommitRequest {
        group_id: "simple".to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let (_, outcome) = world.request(GroupRequest::CommitOffsets { version: 8, request });
    let times = outcome.records.iter().filter_map(|record| match record {
        GroupRecord::OffsetCommit { value: Some(value), .. } => Some(value.commit_timestamp),
        _ => None,
    });
    assert_eq!(times.collect::<Vec<_>>(), [1000 + AHEAD_MS]);
    assert!(
        world.advance_to(Timestamp(2000)).iter().all(|(_, outcome)| outcome.records.is_empty())
    );
    assert_eq!(world.machine.deadline(), deadline);
}
