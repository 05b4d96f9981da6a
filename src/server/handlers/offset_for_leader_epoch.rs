//! OffsetForLeaderEpoch (api key 23), versions 2-4: where a leader epoch ended, so that clients notice truncation.
//!
//! - v2: the client's leader epoch (KIP-320). - v3: replica id. - v4: flexible.
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use ottla_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use ottla_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use ottla_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use ottla_protocol::{ErrorCode, LeaderEpoch, Offset};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| OffsetForLeaderTopicResult {
            partitions: topic
                .partitions
                .iter()
                .map(|asked| answer(ctx, &topic.topic, asked))
                .collect(),
            topic: topic.topic,
        })
        .collect();
    OffsetForLeaderEpochResponse { topics, ..Default::default() }
}

fn answer(ctx: &RequestContext, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let unknown = EpochEndOffset { partition: asked.partition, ..Default::default() };
    match find(ctx, topic, asked) {
        Ok(Some((epoch, end))) => {
            EpochEndOffset { leader_epoch: epoch.0, end_offset: end.0, ..unknown }
        }
        Ok(None) => unknown,
        Err(error) => EpochEndOffset { error_code: error.code(), ..unknown },
    }
}

fn find(
    ctx: &RequestContext,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<(LeaderEpoch, Offset)>, ErrorCode> {
    let partition = ctx.broker.partition(topic, asked.partition)?;
    partition.check_leader(LeaderEpoch(asked.current_leader_epoch))?;
    partition.end_offset_for_epoch(LeaderEpoch(asked.leader_epoch))
}
