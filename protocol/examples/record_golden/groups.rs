//! A classic group of one member in every version, and offsets.

use bytes::Bytes;
use ottla_protocol::messages::*;
use ottla_protocol::records::consumer_protocol::{
    PROTOCOL_TYPE, encode_assignment, encode_subscription,
};
use ottla_protocol::{ApiKey, ErrorCode};
use uuid::Uuid;

use crate::data::TOPIC;
use crate::{Recorder, Result};

const PROTOCOL: &str = "range";

/// Records everything here.
pub fn record(r: &mut Recorder) -> Result<()> {
    let topic_id = r.topic_id(TOPIC)?;
    // The first question makes the broker create the offsets topic.
    for _ in 0..2 {
        r.ask_all(find_coordinator)?;
        r.topic_id("__consumer_offsets")?;
    }
    wait_for_coordinator(r)?;
    for version in r.versions_of(ApiKey::JoinGroup) {
        member(r, version)?;
    }
    r.ask_all(|version| {
        let topics = vec![offset_commit_topic(version, topic_id)];
        OffsetCommitRequest { group_id: "offsets".to_owned(), topics, ..Default::default() }
    })?;
    r.ask_all(|version| offset_fetch(version, topic_id, OffsetsOf::Topic))?;
    for version in r.versions_of(ApiKey::OffsetFetch) {
        if version >= 2 {
            r.ask(version, &offset_fetch(version, topic_id, OffsetsOf::All))?;
        }
    }
    r.ask_all(|version| DescribeGroupsRequest {
        groups: vec!["group-5".to_owned(), "offsets".to_owned(), "unknown".to_owned()],
        include_authorized_operations: version >= 3,
    })?;
    r.ask_all(|version| ListGroupsRequest {
        states_filter: if version >= 4 { vec!["Empty".to_owned()] } else { Vec::new() },
        types_filter: if version >= 5 { vec!["classic".to_owned()] } else { Vec::new() },
    })?;
    r.ask_all(|_| ListGroupsRequest::default())?;
    r.ask_all(|_| OffsetDeleteRequest {
        group_id: "offsets".to_owned(),
        topics: vec![offset_delete_request::OffsetDeleteRequestTopic {
            name: TOPIC.to_owned(),
            partitions: vec![offset_delete_request::OffsetDeleteRequestPartition {
                partition_index: 1,
            }],
        }],
    })?;
    r.ask_all(|version| DeleteGroupsRequest {
        groups_names: vec![format!("group-{version}"), "unknown".to_owned()],
    })
}

fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    let key = "group-1".to_owned();
    if version < 4 {
        return FindCoordinatorRequest { key, ..Default::default() };
    }
    FindCoordinatorRequest {
        coordinator_keys: vec![key, "group-2".to_owned()],
        ..Default::default()
    }
}

/// A coordinator that has not loaded its partition yet answers nothing of interest.
fn wait_for_coordinator(r: &mut Recorder) -> Result<()> {
    for _ in 0..100 {
        let (_, _, answer) = r.exchange(
            0,
            &HeartbeatRequest { group_id: "group-0".to_owned(), ..Default::default() },
        )?;
        if answer.error_code == ErrorCode::UnknownMemberId.code() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Err("the coordinator does not load".into())
}

/// Joins, syncs, beats and, but for one group, leaves again.
fn member(r: &mut Recorder, version: i16) -> Result<()> {
    let group_id = format!("group-{version}");
    let instance = (version == 9).then(|| "static".to_owned());
    let mut join = JoinGroupRequest {
        group_id: group_id.clone(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: if version >= 1 { 30_000 } else { -1 },
        group_instance_id: instance.clone(),
        protocol_type: PROTOCOL_TYPE.to_owned(),
        protocols: vec![join_group_request::JoinGroupRequestProtocol {
            name: PROTOCOL.to_owned(),
            metadata: subscription(version),
        }],
        reason: (version >= 8).then(|| "golden".to_owned()),
        ..Default::default()
    };
    let mut joined = r.ask(version, &join)?;
    if joined.error_code == ErrorCode::MemberIdRequired.code() {
        join.member_id = joined.member_id;
        joined = r.ask(version, &join)?;
    }
    let (generation_id, member_id) = (joined.generation_id, joined.member_id);
    let version = version.min(5);
    let sync = SyncGroupRequest {
        group_id: group_id.clone(),
        generation_id,
        member_id: member_id.clone(),
        group_instance_id: instance.clone(),
        protocol_type: (version >= 5).then(|| PROTOCOL_TYPE.to_owned()),
        protocol_name: (version >= 5).then(|| PROTOCOL.to_owned()),
        assignments: vec![sync_group_request::SyncGroupRequestAssignment {
            member_id: member_id.clone(),
            assignment: assignment(),
        }],
    };
    r.ask(if instance.is_some() { 5 } else { version }, &sync)?;
    let heartbeat = HeartbeatRequest {
        group_id: group_id.clone(),
        generation_id,
        member_id: member_id.clone(),
        group_instance_id: instance.clone(),
    };
    r.ask(version.min(4), &heartbeat)?;
    if group_id == "group-5" {
        return Ok(());
    }
    let members = vec![leave_group_request::MemberIdentity {
        member_id: member_id.clone(),
        group_instance_id: instance,
        reason: (version >= 5).then(|| "golden".to_owned()),
    }];
    let leave = if version < 3 {
        LeaveGroupRequest { group_id, member_id, ..Default::default() }
    } else {
        LeaveGroupRequest { group_id, members, ..Default::default() }
    };
    r.ask(version, &leave).map(|_| ())
}

fn subscription(version: i16) -> Bytes {
    let subscription =
        ConsumerProtocolSubscription { topics: vec![TOPIC.to_owned()], ..Default::default() };
    encode_subscription(&subscription, version.min(3))
}

fn assignment() -> Bytes {
    let topic = consumer_protocol_assignment::TopicPartition {
        topic: TOPIC.to_owned(),
        partitions: vec![0, 1],
    };
    let assignment =
        ConsumerProtocolAssignment { assigned_partitions: vec![topic], ..Default::default() };
    encode_assignment(&assignment, 1)
}

fn offset_commit_topic(
    version: i16,
    topic_id: Uuid,
) -> offset_commit_request::OffsetCommitRequestTopic {
    let by_id = version >= 10;
    offset_commit_request::OffsetCommitRequestTopic {
        name: if by_id { String::new() } else { TOPIC.to_owned() },
        topic_id: if by_id { topic_id } else { Uuid::nil() },
        partitions: [0, 1, 9]
            .map(|partition_index| offset_commit_request::OffsetCommitRequestPartition {
                partition_index,
                committed_offset: 3,
                committed_leader_epoch: if version >= 6 { 0 } else { -1 },
                committed_metadata: Some("note".to_owned()),
            })
            .into(),
    }
}

#[derive(Clone, Copy)]
enum OffsetsOf {
    Topic,
    All,
}

fn offset_fetch(version: i16, topic_id: Uuid, of: OffsetsOf) -> OffsetFetchRequest {
    let group_id = "offsets".to_owned();
    let (name, topic_id) =
        if version >= 10 { (String::new(), topic_id) } else { (TOPIC.to_owned(), Uuid::nil()) };
    let partition_indexes = vec![0, 1, 9];
    let require_stable = version >= 7;
    if version < 8 {
        let topic = offset_fetch_request::OffsetFetchRequestTopic { name, partition_indexes };
        let topics = match of {
            OffsetsOf::Topic => Some(vec![topic]),
            OffsetsOf::All => None,
        };
        return OffsetFetchRequest { group_id, topics, require_stable, ..Default::default() };
    }
    let topic =
        offset_fetch_request::OffsetFetchRequestTopics { name, topic_id, partition_indexes };
    let topics = match of {
        OffsetsOf::Topic => Some(vec![topic]),
        OffsetsOf::All => None,
    };
    let group =
        offset_fetch_request::OffsetFetchRequestGroup { group_id, topics, ..Default::default() };
    OffsetFetchRequest { groups: vec![group], require_stable, ..Default::default() }
}
