//! FetchSnapshot (api key 59), versions 0-1: a part of a snapshot of the metadata log (KIP-630).
//!
//! - v1: the follower's directory (KIP-853).
//!
//! The answer says who leads, by which Kafka's followers tell whether it is of the epoch that they are in: they drop
//! one that is not. Served by every controller that has the snapshot, of which Kafka's leader alone gives parts. The
//! parts are cut anywhere. Known differences from Kafka: none in the answers.

use super::RequestContext;
use ottla_protocol::messages::fetch_snapshot_request::PartitionSnapshot as Asked;
use ottla_protocol::messages::fetch_snapshot_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionSnapshot, SnapshotId, TopicSnapshot,
};
use ottla_protocol::messages::{FetchSnapshotRequest, FetchSnapshotResponse};
use ottla_protocol::{BrokerId, CLUSTER_METADATA_TOPIC, ErrorCode, LeaderEpoch, Offset};

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: FetchSnapshotRequest) -> FetchSnapshotResponse {
    let cluster_id = request.cluster_id.as_deref();
    if cluster_id.is_some_and(|id| id != ctx.broker.cluster_id()) {
        let error_code = ErrorCode::InconsistentClusterId.code();
        return FetchSnapshotResponse { error_code, ..Default::default() };
    }
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0);
    let mut topics = Vec::new();
    for topic in request.topics {
        let is_metadata = topic.name == CLUSTER_METADATA_TOPIC;
        let mut partitions = Vec::new();
        for asked in &topic.partitions {
            partitions.push(if is_metadata && asked.partition == 0 {
                part(ctx, asked, max_bytes).await
            } else {
                failed(ctx, asked, ErrorCode::UnknownTopicOrPartition)
            });
        }
        topics.push(TopicSnapshot { name: topic.name, partitions });
    }
    let node_endpoints = leader_endpoint(ctx).into_iter().collect();
    FetchSnapshotResponse { topics, node_endpoints, ..Default::default() }
}

/// Where the leader listens (KIP-853).
fn leader_endpoint(ctx: &RequestContext) -> Option<NodeEndpoint> {
    let (BrokerId(node_id), _) = ctx.broker.quorum_leader();
    let (host, port) = ctx.broker.settings().controllers.get(BrokerId(node_id))?;
    Some(NodeEndpoint { node_id, host, port })
}

async fn part(ctx: &RequestContext, asked: &Asked, max_bytes: usize) -> PartitionSnapshot {
    let id = (Offset(asked.snapshot_id.end_offset), LeaderEpoch(asked.snapshot_id.epoch));
    let Ok(position) = u64::try_from(asked.position) else {
        return failed(ctx, asked, ErrorCode::PositionOutOfRange);
    };
    match ctx.broker.metadata_snapshot(id, position, max_bytes).await {
        Ok((size, bytes)) => PartitionSnapshot {
            size: size as i64,
            position: asked.position,
            unaligned_records: bytes,
            ..failed(ctx, asked, ErrorCode::None)
        },
        Err(error) => failed(ctx, asked, error),
    }
}

fn failed(ctx: &RequestContext, asked: &Asked, error: ErrorCode) -> PartitionSnapshot {
    let (leader, epoch) = ctx.broker.quorum_leader();
    PartitionSnapshot {
        index: asked.partition,
        error_code: error.code(),
        snapshot_id: SnapshotId {
            end_offset: asked.snapshot_id.end_offset,
            epoch: asked.snapshot_id.epoch,
        },
        current_leader: LeaderIdAndEpoch { leader_id: leader.0, leader_epoch: epoch.0 },
        ..Default::default()
    }
}
