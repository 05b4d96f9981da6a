//! Fetch (api key 1) on a controller's listener, versions 4-18: the metadata log, for nodes that follow it without a
//! vote.
//!
//! Only committed batches are given: Kafka gives the rest of the log too, which its followers need to vote. A fetch
//! that finds nothing waits until more is committed. Where the log does not reach back, the answer names a snapshot,
//! which FetchSnapshot gives. Source: KIP-595, KIP-630.

use super::RequestContext;
use crate::broker::MetadataRead;
use ottla_protocol::messages::fetch_response::{
    FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData, SnapshotId,
};
use ottla_protocol::messages::{FetchRequest, FetchResponse, fetch_request};
use ottla_protocol::{
    BrokerId, CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID, ErrorCode, Offset,
};
use std::time::Duration;
use tokio::time::Instant;

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: FetchRequest) -> FetchResponse {
    let cluster_id = request.cluster_id.as_deref();
    if cluster_id.is_some_and(|id| id != ctx.broker.cluster_id()) {
        let error_code = ErrorCode::InconsistentClusterId.code();
        return FetchResponse { error_code, ..Default::default() };
    }
    let Some(wanted) = metadata_partition(ctx, &request.topics) else {
        return unknown(ctx, request.topics);
    };
    let replica_id =
        if ctx.version >= 15 { request.replica_state.replica_id } else { request.replica_id };
    let patience = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let max_bytes = request.max_bytes.min(wanted.partition_max_bytes);
    let max_bytes = usize::try_from(max_bytes).unwrap_or(0);
    let from = Offset(wanted.fetch_offset);
    let deadline = Instant::now() + patience;
    let data = loop {
        let moved = ctx.broker.metadata_moved();
        let replica = (BrokerId(replica_id), wanted.replica_directory_id);
        let read = ctx.broker.read_metadata(replica, from, max_bytes);
        let knows_less = read.high_watermark.0 > wanted.high_watermark && ctx.version >= 18;
        if read.is_worth_telling() || knows_less || Instant::now() >= deadline {
            break partition_data(read);
        }
        // Whether it moved or not, the next look says.
        let _ = tokio::time::timeout_at(deadline, moved).await;
    };
    let leader = BrokerId(data.current_leader.leader_id);
    let responses = vec![FetchableTopicResponse {
        topic: CLUSTER_METADATA_TOPIC.to_owned(),
        topic_id: CLUSTER_METADATA_TOPIC_ID,
        partitions: vec![data],
    }];
    FetchResponse { responses, node_endpoints: endpoint(ctx, leader), ..Default::default() }
}

/// The one partition that there is to fetch, when it alone is asked for.
fn metadata_partition<'a>(
    ctx: &RequestContext,
    topics: &'a [fetch_request::FetchTopic],
) -> Option<&'a fetch_request::FetchPartition> {
    let [topic] = topics else { return None };
    let is_metadata = if ctx.version >= 13 {
        topic.topic_id == CLUSTER_METADATA_TOPIC_ID
    } else {
        topic.topic == CLUSTER_METADATA_TOPIC
    };
    let [partition] = topic.partitions.as_slice() else { return None };
    (is_metadata && partition.partition == 0).then_some(partition)
}

fn unknown(ctx: &RequestContext, topics: Vec<fetch_request::FetchTopic>) -> FetchResponse {
    let error = if ctx.version >= 13 {
        ErrorCode::UnknownTopicId
    } else {
        ErrorCode::UnknownTopicOrPartition
    };
    let failed = |asked: &fetch_request::FetchPartition| PartitionData {
        partition_index: asked.partition,
        error_code: error.code(),
        high_watermark: -1,
        ..Default::default()
    };
    let responses = topics
        .into_iter()
        .map(|topic| FetchableTopicResponse {
            partitions: topic.partitions.iter().map(failed).collect(),
            topic: topic.topic,
            topic_id: topic.topic_id,
        })
        .collect();
    FetchResponse { responses, ..Default::default() }
}

fn partition_data(read: MetadataRead) -> PartitionData {
    let snapshot_id = read.snapshot.map_or_else(SnapshotId::default, |(end_offset, epoch)| {
        SnapshotId { end_offset: end_offset.0, epoch: epoch.0 }
    });
    PartitionData {
        partition_index: 0,
        error_code: read.error.code(),
        high_watermark: read.high_watermark.0,
        last_stable_offset: read.high_watermark.0,
        log_start_offset: read.log_start_offset.0,
        current_leader: LeaderIdAndEpoch {
            leader_id: read.leader_id.0,
            leader_epoch: read.leader_epoch.0,
        },
        snapshot_id,
        records: Some(read.records),
        ..Default::default()
    }
}

/// Where the leader listens (KIP-853).
fn endpoint(ctx: &RequestContext, leader: BrokerId) -> Vec<NodeEndpoint> {
    let address = ctx.broker.settings().controllers.get(leader);
    let endpoint = address.map(|(host, port)| NodeEndpoint {
        node_id: leader.0,
        host,
        port: i32::from(port),
        ..Default::default()
    });
    endpoint.into_iter().collect()
}
