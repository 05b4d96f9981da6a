//! DeleteRecords (api key 21), versions 0-2: moves partitions' log start offsets (KIP-107).
//!
//! - v1: as v0. - v2: flexible.
//!
//! Offset -1 is the high watermark. The answer waits until every replica whose broker is alive starts there, which the
//! leader hears with their fetches, or until the request's time is up. Known differences from Kafka: none.

use super::RequestContext;
use super::waiting::{Watch, any_changed};
use crate::broker::Partition;
use ottla_protocol::messages::delete_records_request::DeleteRecordsPartition;
use ottla_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use ottla_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use ottla_protocol::{ErrorCode, Offset, is_internal_topic};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or_default());
    let deadline = Instant::now() + timeout;
    let mut waiting = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let index = asked.partition_index;
            let (low_watermark, error) = match delete(ctx, &topic.name, asked) {
                Ok((partition, target)) => {
                    let place = (topics.len(), partitions.len());
                    waiting.push(Waiting { partition, target, place });
                    (Offset::UNKNOWN, ErrorCode::None)
                }
                Err(error) => (Offset::UNKNOWN, error),
            };
            partitions.push(result(index, low_watermark, error));
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    let mut response = DeleteRecordsResponse { topics, ..Default::default() };
    wait(ctx, &mut response, &waiting, deadline).await;
    response
}

/// A partition whose replicas are to start at `target`.
struct Waiting {
    partition: Arc<Partition>,
    target: Offset,
    /// Its place in the answer.
    place: (usize, usize),
}

fn result(index: i32, low: Offset, error: ErrorCode) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult {
        partition_index: index,
        low_watermark: low.0,
        error_code: error.code(),
    }
}

async fn wait(
    ctx: &RequestContext,
    response: &mut DeleteRecordsResponse,
    waiting: &[Waiting],
    deadline: Instant,
) {
    let _told: Vec<_> = waiting.iter().map(|one| one.partition.begin_deletion()).collect();
    let mut answer = |one: &Waiting, low, error| {
        let answer = &mut response.topics[one.place.0].partitions[one.place.1];
        *answer = result(answer.partition_index, low, error);
    };
    let mut open: Vec<&Waiting> = waiting.iter().collect();
    loop {
        let mut watches: Vec<Watch<'_>> =
            open.iter().map(|one| Box::pin(one.partition.changed())).collect();
        let image = ctx.broker.image();
        let is_alive = |id| image.cluster.brokers.get(&id).is_some_and(|broker| !broker.fenced);
        open.retain(|one| match one.partition.low_watermark(is_alive) {
            Ok(low) if low < one.target => true,
            Ok(low) => {
                answer(one, low, ErrorCode::None);
                false
            }
            Err(error) => {
                answer(one, Offset::UNKNOWN, error);
                false
            }
        });
        if open.is_empty() {
            return;
        }
        if tokio::time::timeout_at(deadline, any_changed(&mut watches)).await.is_err() {
            break;
        }
    }
    for one in open {
        answer(one, Offset::UNKNOWN, ErrorCode::RequestTimedOut);
    }
}

fn delete(
    ctx: &RequestContext,
    topic: &str,
    asked: &DeleteRecordsPartition,
) -> Result<(Arc<Partition>, Offset), ErrorCode> {
    let partition = ctx.broker.partition(topic, asked.partition_index)?;
    if is_internal_topic(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let target = partition.delete_records(Offset(asked.offset))?;
    Ok((partition, target))
}
