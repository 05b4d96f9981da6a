//! Produce (api key 0), versions 3-13: appends each partition's batch.
//!
//! - v3: transactional id. - v5: log start offset in the answer. - v7: zstd may be used (KIP-110).
//! - v8: record errors and an error message (KIP-467). - v9: flexible.
//! - v10: the current leader and its endpoint with NOT_LEADER_OR_FOLLOWER (KIP-951).
//! - v12: transactional errors that are for clients of KIP-890. - v13: topic ids (KIP-516).
//!
//! The frame's own bytes go to the log. With one replica, or acks other than -1, the answer is written at once on the
//! connection's task; else it waits for the high watermark. What `flush.messages` asks for is waited for first, with
//! any acks and without a limit of time: the records are in the log already. With `ottla.ack.durability=fsync` the high
//! watermark waits for the sync, and so does acks=all. Who waits learns at once when this broker no longer leads, and
//! gets NOT_ENOUGH_REPLICAS_AFTER_APPEND where the ISR shrank below the minimum meanwhile. acks=0 has no answer; an
//! error then closes the connection.
//! Known differences from Kafka: a partition without records (null) is INVALID_RECORD, where Kafka fails with
//! UNKNOWN_SERVER_ERROR; a transactional batch is INVALID_PRODUCER_ID_MAPPING until transactions are served.

use super::waiting::{Watch, any_changed};
use super::{Begun, Close, RequestContext, write_answer};
use crate::broker::{
    Acks, AppendError, AppendInfo, AppendOrigin, FlushOwed, Partition, ProduceError,
};
use crate::env::net::SendQueue;
use bytes::Bytes;
use ottla_protocol::batch::Compression;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use ottla_protocol::messages::{ProduceRequest, ProduceResponse};
use ottla_protocol::{ErrorCode, LeaderEpoch, Message, Offset, Reader, is_internal_topic};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Looks at one request: appends, and answers unless the high watermark has to be waited for.
///
/// # Errors
/// [`Close::Malformed`]; [`Close::UnansweredProduce`] for an error with acks=0.
pub(crate) fn begin<'a>(
    ctx: &'a RequestContext,
    mut body: Reader,
    out: &mut SendQueue,
) -> Result<Begun<'a>, Close> {
    let request = ProduceRequest::decode(&mut body, ctx.version)?;
    let (acks, timeout_ms) = (request.acks, request.timeout_ms);
    let (mut response, waiting) = append_all(ctx, request);
    if acks == 0 {
        return match first_error(&response) {
            Some(error) => Err(Close::UnansweredProduce(error)),
            None => Ok(Begun::Done),
        };
    }
    if waiting.is_empty() {
        name_leaders(ctx, &mut response);
        write_answer(ctx, &response, ctx.version, out);
        return Ok(Begun::Done);
    }
    Ok(Begun::Pending(Box::pin(async move {
        let waiting = wait_for_syncs(&mut response, waiting).await;
        if acks == -1 {
            let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or_default());
            wait_for_replicas(&mut response, waiting, Instant::now() + timeout).await;
        }
        name_leaders(ctx, &mut response);
        let mut answer = SendQueue::default();
        write_answer(ctx, &response, ctx.version, &mut answer);
        Ok(answer)
    })))
}

/// A batch that is in the leader's log, and must be synced or get into the followers' before it is acknowledged.
struct Waiting {
    partition: Arc<Partition>,
    required: Offset,
    /// The leader's epoch when it was appended: another leader since may have replaced it.
    leader_epoch: LeaderEpoch,
    /// Its place in the answer.
    topic: usize,
    index: usize,
}

impl Waiting {
    /// Nothing is known of the batch, so nothing is told of it: no offset.
    fn fail(&self, response: &mut ProduceResponse, error: ErrorCode) {
        let answer = &mut response.responses[self.topic].partition_responses[self.index];
        *answer = failed(answer.index, error);
    }
}

fn append_all(ctx: &RequestContext, request: ProduceRequest) -> (ProduceResponse, Vec<Waiting>) {
    let refused = refuse_all(&request);
    let mut waiting = Vec::new();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    let transactional_id = request.transactional_id;
    for topic in request.topic_data {
        let TopicProduceData { name, topic_id, partition_data } = topic;
        let lookup = Lookup { ctx, name: &name, topic_id };
        let mut partition_responses = Vec::with_capacity(partition_data.len());
        for data in partition_data {
            let index = data.index;
            let answer = match refused {
                Some(error) => failed(index, error),
                None => match append(&lookup, request.acks, transactional_id.as_deref(), data) {
                    Ok((partition, info)) => {
                        let required = info.last_offset.plus(1);
                        if must_wait(request.acks, &partition, &info) {
                            let place = (responses.len(), partition_responses.len());
                            let (topic, index) = place;
                            let leader_epoch = info.leader_epoch;
                            waiting.push(Waiting {
                                partition,
                                required,
                                leader_epoch,
                                topic,
                                index,
                            });
                        }
                        appended(index, &info)
                    }
                    Err(refusal) => refusal.answer(index),
                },
            };
            partition_responses.push(answer);
        }
        responses.push(TopicProduceResponse { name, topic_id, partition_responses });
    }
    (ProduceResponse { responses, ..Default::default() }, waiting)
}

/// Whether a batch that was appended may not be acknowledged yet.
fn must_wait(acks: i16, partition: &Partition, info: &AppendInfo) -> bool {
    let required = info.last_offset.plus(1);
    match acks {
        0 => false,
        -1 => partition.high_watermark() < required,
        _ => info.flush == FlushOwed::BeforeAnswer && partition.settled_end() < required,
    }
}

/// The error of a request that is refused as a whole.
fn refuse_all(request: &ProduceRequest) -> Option<ErrorCode> {
    if request.transactional_id.is_none() && has_transactional_batch(request) {
        return Some(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    (!(-1..=1).contains(&request.acks)).then_some(ErrorCode::InvalidRequiredAcks)
}

fn has_transactional_batch(request: &ProduceRequest) -> bool {
    let mut batches = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    batches.any(|data| {
        let first = data.records.as_ref().map(FirstBatch::of);
        matches!(first, Some(Ok(Some(batch))) if batch.is_transactional())
    })
}

/// A topic as the request names it.
struct Lookup<'a> {
    ctx: &'a RequestContext,
    name: &'a str,
    topic_id: uuid::Uuid,
}

impl Lookup<'_> {
    fn partition(&self, index: i32) -> Result<Arc<Partition>, ErrorCode> {
        if self.ctx.version >= 13 {
            self.ctx.broker.partition_by_id(&self.topic_id, index)
        } else {
            self.ctx.broker.partition(self.name, index)
        }
    }
}

/// Why one partition's batch was not appended.
enum Refusal {
    Code(ErrorCode),
    Failure(ProduceError),
}

impl Refusal {
    fn answer(self, index: i32) -> PartitionProduceResponse {
        match self {
            Refusal::Code(error) => failed(index, error),
            Refusal::Failure(failure) => {
                let ProduceError::Append(cause) = &failure else {
                    return failed(index, failure.error_code());
                };
                let record_errors: Vec<_> = cause
                    .record_errors()
                    .iter()
                    .map(|error| BatchIndexAndErrorMessage {
                        batch_index: error.batch_index,
                        batch_index_error_message: error.message.clone(),
                    })
                    .collect();
                // As in Kafka: a text stands beside what single records did wrong, else the code says it all.
                let says_more = matches!(
                    cause,
                    AppendError::InvalidRecord { .. } | AppendError::InvalidTimestamp { .. }
                );
                PartitionProduceResponse {
                    error_message: says_more.then(|| cause.to_string()),
                    record_errors,
                    ..failed(index, cause.error_code())
                }
            }
        }
    }
}

fn append(
    lookup: &Lookup<'_>,
    acks: i16,
    transactional_id: Option<&str>,
    data: PartitionProduceData,
) -> Result<(Arc<Partition>, AppendInfo), Refusal> {
    let partition = lookup.partition(data.index).map_err(Refusal::Code)?;
    let records = data.records.unwrap_or_default();
    let batch = check_batch(lookup.ctx.version, &records).map_err(Refusal::Code)?;
    // Only Kafka's own tools may write to the internal topics.
    if is_internal_topic(partition.topic())
        && lookup.ctx.client_id.as_deref() != Some("__admin_client")
    {
        return Err(Refusal::Code(ErrorCode::InvalidTopicException));
    }
    if batch.is_transactional() && transactional_id.is_some() {
        return Err(Refusal::Code(ErrorCode::InvalidProducerIdMapping));
    }
    let info = partition.append(records, acks, AppendOrigin::Client).map_err(Refusal::Failure)?;
    Ok((partition, info))
}

/// What must be known of a batch before the log looks at it.
#[derive(Debug, Clone, Copy)]
struct FirstBatch {
    size: usize,
    magic: i8,
    attributes: i16,
}

impl FirstBatch {
    /// Bytes of offset and length.
    const OVERHEAD: usize = 12;
    /// The least that may follow them, in any format.
    const SIZE_MIN: i32 = 14;

    /// The batch that `records` begins with; `None` when it is not whole.
    fn of(records: &Bytes) -> Result<Option<FirstBatch>, ErrorCode> {
        let Some(length) = records.get(8..Self::OVERHEAD).and_then(|b| b.first_chunk::<4>()) else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        if length < Self::SIZE_MIN {
            return Err(ErrorCode::CorruptMessage);
        }
        let Some(magic) = records.get(16).map(|magic| *magic as i8) else { return Ok(None) };
        if !(0..=2).contains(&magic) {
            return Err(ErrorCode::CorruptMessage);
        }
        let size = length as usize + Self::OVERHEAD;
        let Some(attributes) = records.get(21..23).and_then(|b| b.first_chunk::<2>()) else {
            return Ok(None);
        };
        let attributes = i16::from_be_bytes(*attributes);
        Ok((records.len() >= size).then_some(FirstBatch { size, magic, attributes }))
    }

    fn is_transactional(&self) -> bool {
        self.magic == 2 && self.attributes & 0x10 != 0
    }

    fn is_zstd(&self) -> bool {
        Compression::from_bits(self.attributes) == Some(Compression::Zstd)
    }
}

/// The rules for what a produce request may hold: one whole batch in the current format.
fn check_batch(version: i16, records: &Bytes) -> Result<FirstBatch, ErrorCode> {
    let batch = FirstBatch::of(records)?.ok_or(ErrorCode::InvalidRecord)?;
    if batch.magic != 2 {
        return Err(ErrorCode::InvalidRecord);
    }
    if version < 7 && batch.is_zstd() {
        return Err(ErrorCode::UnsupportedCompressionType);
    }
    match FirstBatch::of(&records.slice(batch.size..))? {
        Some(_) => Err(ErrorCode::InvalidRecord),
        None => Ok(batch),
    }
}

fn failed(index: i32, error: ErrorCode) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: error.code(),
        base_offset: -1,
        ..Default::default()
    }
}

fn appended(index: i32, info: &AppendInfo) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        base_offset: info.first_offset.0,
        log_append_time_ms: info.log_append_time.0,
        log_start_offset: info.log_start_offset.0,
        ..Default::default()
    }
}

/// Waits for the syncs that batches owe; answers those that got theirs.
async fn wait_for_syncs(response: &mut ProduceResponse, waiting: Vec<Waiting>) -> Vec<Waiting> {
    let mut synced = Vec::with_capacity(waiting.len());
    // One after another: the syncs of all partitions are under way.
    for one in waiting {
        match one.partition.settled(one.required).await {
            Ok(()) => synced.push(one),
            Err(error) => one.fail(response, error),
        }
    }
    synced
}

async fn wait_for_replicas(
    response: &mut ProduceResponse,
    waiting: Vec<Waiting>,
    deadline: Instant,
) {
    let mut open: Vec<&Waiting> = waiting.iter().collect();
    loop {
        let mut watches: Vec<Watch<'_>> =
            open.iter().map(|one| Box::pin(one.partition.changed())).collect();
        open.retain(|one| match one.partition.acks(one.required, one.leader_epoch) {
            Acks::Wait => true,
            Acks::Done(Ok(())) => false,
            Acks::Done(Err(error)) => {
                one.fail(response, error);
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
        one.fail(response, ErrorCode::RequestTimedOut);
    }
}

fn first_error(response: &ProduceResponse) -> Option<String> {
    response.responses.iter().find_map(|topic| {
        let failed = topic.partition_responses.iter().find(|one| one.error_code != 0)?;
        let error = ErrorCode::from_code(failed.error_code);
        Some(format!("{} in {}-{}", error.name(), topic.name, failed.index))
    })
}

/// Tells a client that came to the wrong broker where the leader is.
fn name_leaders(ctx: &RequestContext, response: &mut ProduceResponse) {
    let moved =
        |one: &PartitionProduceResponse| one.error_code == ErrorCode::NotLeaderOrFollower.code();
    let mut answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    if ctx.version < 10 || !answers.any(moved) {
        return;
    }
    let image = ctx.broker.image();
    let mut leaders = super::Leaders::new(ctx, &image);
    for topic in &mut response.responses {
        for one in topic.partition_responses.iter_mut().filter(|one| moved(one)) {
            let found = match ctx.version {
                ..=12 => image.topics.get(&topic.name),
                _ => image.topics.get_by_id(&topic.topic_id),
            };
            let (leader_id, leader_epoch) = leaders.find(found, one.index);
            one.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
        }
    }
    let endpoints = leaders.endpoints.into_iter();
    response.node_endpoints = endpoints
        .map(|node| NodeEndpoint {
            node_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack,
        })
        .collect();
}
