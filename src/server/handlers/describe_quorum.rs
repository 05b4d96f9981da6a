//! DescribeQuorum (api key 55), versions 0-2: the voters of the metadata log (KIP-595).
//!
//! - v1: times of the last fetch and of catching up (KIP-836). - v2: directory ids, error texts, voters' listeners
//!   (KIP-853).
//!
//! Known differences from Kafka: with a listener for no controller the voter's listeners are empty.

use super::RequestContext;
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
        return unknown(request.topics);
    }
    let status = ctx.broker.quorum_status();
    let voters = status.voters.iter().map(|voter| ReplicaState {
        replica_id: voter.id.0,
        log_end_offset: voter.log_end_offset.0,
        last_fetch_timestamp: voter.last_fetch.0,
        last_caught_up_timestamp: voter.last_caught_up.0,
        ..Default::default()
    });
    let partition = PartitionData {
        leader_id: status.leader_id.0,
        leader_epoch: status.leader_epoch.0,
        high_watermark: status.high_watermark.0,
        current_voters: voters.collect(),
        ..Default::default()
    };
    let topic_name = CLUSTER_METADATA_TOPIC.to_owned();
    let listeners = ctx.broker.settings().controller_listeners.iter();
    let listeners = listeners.map(|listener| Listener {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: listener.port,
    });
    DescribeQuorumResponse {
        topics: vec![TopicData { topic_name, partitions: vec![partition] }],
        nodes: vec![Node { node_id: status.leader_id.0, listeners: listeners.collect() }],
        ..Default::default()
    }
}

fn is_metadata_partition(topics: &[AskedTopic]) -> bool {
    let [topic] = topics else { return false };
    let [partition] = topic.partitions.as_slice() else { return false };
    topic.topic_name == CLUSTER_METADATA_TOPIC && partition.partition_index == 0
}

fn unknown(topics: Vec<AskedTopic>) -> DescribeQuorumResponse {
    let error = ErrorCode::UnknownTopicOrPartition;
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
