//! DescribeQuorum (api key 55), versions 0-2: the voters of the metadata log (KIP-595).
//!
//! - v1: times of the last fetch and of catching up (KIP-836). - v2: directory ids, error texts, voters' listeners
//!   (KIP-853).
//!
//! Known differences from Kafka: with a listener for no controller the voter's listeners are empty.

use super::RequestContext;
use crate::broker::{QuorumStatus, VoterStatus};
use ottla_protocol::apis::ListenerType;
use ottla_protocol::messages::describe_quorum_request::TopicData as AskedTopic;
use ottla_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use ottla_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use ottla_protocol::{BrokerId, CLUSTER_METADATA_TOPIC, ErrorCode};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    if !is_metadata_partition(&request.topics) {
        return failed(request.topics, ErrorCode::UnknownTopicOrPartition);
    }
    // Only the leader knows how far the others are.
    if ctx.listener_type == ListenerType::Broker && ctx.broker.is_led_elsewhere() {
        return match ctx.broker.forward(ctx.version, request).await {
            Ok(response) => response,
            Err(error) => DescribeQuorumResponse {
                error_code: error.code(),
                error_message: Some(error.message().to_owned()),
                ..Default::default()
            },
        };
    }
    match ctx.broker.quorum_status() {
        Some(status) if status.leader_id == ctx.broker.node_id() => described(ctx, &status),
        _ => {
            ctx.note_misdirected();
            failed(request.topics, ErrorCode::NotLeaderOrFollower)
        }
    }
}

fn described(ctx: &RequestContext, status: &QuorumStatus) -> DescribeQuorumResponse {
    let state = |replica: &VoterStatus| ReplicaState {
        replica_id: replica.id.0,
        replica_directory_id: replica.directory_id,
        log_end_offset: replica.log_end_offset.0,
        last_fetch_timestamp: replica.last_fetch.0,
        last_caught_up_timestamp: replica.last_caught_up.0,
    };
    let followers = ctx.broker.metadata_observers();
    // One that was given a vote, or that the leader sends to, may have fetched before.
    let is_sent = |id| status.voters.iter().chain(&status.learners).any(|other| other.id == id);
    let followers = followers.iter().filter(|follower| !is_sent(follower.id));
    let observers = status.learners.iter().chain(followers);
    let partition = PartitionData {
        leader_id: status.leader_id.0,
        leader_epoch: status.leader_epoch.0,
        high_watermark: status.high_watermark.0,
        current_voters: status.voters.iter().map(state).collect(),
        observers: observers.map(state).collect(),
        ..Default::default()
    };
    let topic_name = CLUSTER_METADATA_TOPIC.to_owned();
    DescribeQuorumResponse {
        topics: vec![TopicData { topic_name, partitions: vec![partition] }],
        nodes: nodes(ctx, status),
        ..Default::default()
    }
}

/// The voters and where they listen: as the log says, or where it does not say it this one as it is configured, others
/// as they registered.
fn nodes(ctx: &RequestContext, status: &QuorumStatus) -> Vec<Node> {
    let image = ctx.broker.image();
    let listener = |name: &str, host: &str, port| Listener {
        name: name.to_owned(),
        host: host.to_owned(),
        port,
    };
    let voters = ctx.broker.voters();
    let node = |id: BrokerId| {
        let known = voters.get(id).map(|voter| voter.endpoints.as_slice()).unwrap_or_default();
        if !known.is_empty() {
            let endpoints = known.iter();
            return endpoints.map(|it| listener(&it.name, &it.address.0, it.address.1)).collect();
        }
        if id == ctx.broker.node_id() {
            let own = ctx.broker.settings().controller_listeners.iter();
            return own.map(|it| listener(&it.name, &it.host, it.port)).collect();
        }
        let registered = image.cluster.controllers.get(&id);
        let listeners = registered.into_iter().flat_map(|controller| &controller.listeners);
        listeners.map(|(name, at)| listener(name, &at.host, at.port)).collect()
    };
    let voters = status.voters.iter();
    voters.map(|voter| Node { node_id: voter.id.0, listeners: node(voter.id) }).collect()
}

fn is_metadata_partition(topics: &[AskedTopic]) -> bool {
    let [topic] = topics else { return false };
    let [partition] = topic.partitions.as_slice() else { return false };
    topic.topic_name == CLUSTER_METADATA_TOPIC && partition.partition_index == 0
}

fn failed(topics: Vec<AskedTopic>, error: ErrorCode) -> DescribeQuorumResponse {
    let topics = topics
        .into_iter()
        .map(|topic| TopicData {
            topic_name: topic.topic_name,
            partitions: topic
                .partitions
                .iter()
                .map(|asked| PartitionData {
                    partition_index: asked.partition_index,
                    error_code: error.code(),
                    error_message: Some(error.message().to_owned()),
                    ..Default::default()
                })
                .collect(),
        })
        .collect();
    DescribeQuorumResponse { topics, ..Default::default() }
}
