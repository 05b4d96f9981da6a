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
use ottla_protocol::{CLUSTER_METADATA_TOPIC, ErrorCode};

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
        _ => failed(request.topics, ErrorCode::NotLeaderOrFollower),
    }
}

fn described(ctx: &RequestContext, status: &QuorumStatus) -> DescribeQuorumResponse {
    let state = |replica: &VoterStatus| ReplicaState {
        replica_id: replica.id.0,
        log_end_offset: replica.log_end_offset.0,
        last_fetch_timestamp: replica.last_fetch.0,
        last_caught_up_timestamp: replica.last_caught_up.0,
        ..Default::default()
    };
    let partition = PartitionData {
        leader_id: status.leader_id.0,
        leader_epoch: status.leader_epoch.0,
        high_watermark: status.high_watermark.0,
        current_voters: status.voters.iter().map(state).collect(),
        observers: ctx.broker.metadata_observers().iter().map(state).collect(),
        ..Default::default()
    };
    let topic_name = CLUSTER_METADATA_TOPIC.to_owned();
    DescribeQuorumResponse {
        topics: vec![TopicData { topic_name, partitions: vec![partition] }],
        nodes: nodes(ctx, status),
        ..Default::default()
    }
}

/// The voters and where they listen: this one as it is configured, others as they registered.
fn nodes(ctx: &RequestContext, status: &QuorumStatus) -> Vec<Node> {
    let image = ctx.broker.image();
    let own = ctx.broker.settings().controller_listeners.iter().map(|listener| Listener {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: listener.port,
    });
    let own: Vec<Listener> = own.collect();
    let voters = status.voters.iter().map(|voter| {
        let registered = image.cluster.controllers.get(&voter.id);
        let listeners = match registered.filter(|_| voter.id != ctx.broker.node_id()) {
            Some(controller) => controller
                .listeners
                .iter()
                .map(|(name, endpoint)| Listener {
                    name: name.clone(),
                    host: endpoint.host.clone(),
                    port: endpoint.port,
                })
                .collect(),
            None if voter.id == ctx.broker.node_id() => own.clone(),
            None => Vec::new(),
        };
        Node { node_id: voter.id.0, listeners }
    });
    voters.collect()
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
