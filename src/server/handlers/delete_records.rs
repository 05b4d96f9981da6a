//! DeleteRecords (api key 21), versions 0-2: moves partitions' log start offsets (KIP-107).
//!
//! - v1: as v0. - v2: flexible.
//!
//! Offset -1 is the high watermark. With one replica the low watermark is the leader's log start offset, so that
//! nothing needs to be waited for. Known differences from Kafka: none.

use super::RequestContext;
use ottla_protocol::messages::delete_records_request::DeleteRecordsPartition;
use ottla_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use ottla_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use ottla_protocol::{ErrorCode, Offset, is_internal_topic};

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| DeleteRecordsTopicResult {
            partitions: topic
                .partitions
                .iter()
                .map(|asked| answer(ctx, &topic.name, asked))
                .collect(),
            name: topic.name,
        })
        .collect();
    DeleteRecordsResponse { topics, ..Default::default() }
}

fn answer(
    ctx: &RequestContext,
    topic: &str,
    asked: &DeleteRecordsPartition,
) -> DeleteRecordsPartitionResult {
    let (low_watermark, error) = match delete(ctx, topic, asked) {
        Ok(low_watermark) => (low_watermark, ErrorCode::None),
        Err(error) => (Offset::UNKNOWN, error),
    };
    DeleteRecordsPartitionResult {
        partition_index: asked.partition_index,
        low_watermark: low_watermark.0,
        error_code: error.code(),
    }
}

fn delete(
    ctx: &RequestContext,
    topic: &str,
    asked: &DeleteRecordsPartition,
) -> Result<Offset, ErrorCode> {
    let partition = ctx.broker.partition(topic, asked.partition_index)?;
    if is_internal_topic(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    partition.delete_records(Offset(asked.offset))
}
