//! ListOffsets (api key 2), versions 1-11: offsets by time, and the ends of partitions.
//!
//! - v2: isolation level. - v4: leader epochs (KIP-320). - v5: OFFSET_NOT_AVAILABLE. - v6: flexible.
//! - v7: -3, the record with the largest timestamp (KIP-734). - v8: -4, earliest local (KIP-405).
//! - v9: -5, latest tiered (KIP-1005). - v10: a time-out for tiered look-ups (KIP-1075).
//! - v11: -6, earliest that is to be uploaded (KIP-1023).
//!
//! Without tiering -4 is -2, and -5 and -6 have no offset. Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{Partition, TimeQuery};
use crate::env::cold;
use ottla_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use ottla_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use ottla_protocol::{ErrorCode, LeaderEpoch, Offset, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// How far the asker may see.
#[derive(Debug, Clone, Copy)]
enum Bound {
    HighWatermark,
    LastStable,
    LogEnd,
}

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let duplicates = duplicates(&request.topics);
    let bound = match (request.replica_id, request.isolation_level) {
        (-1, 1) => Bound::LastStable,
        (-1, _) => Bound::HighWatermark,
        _ => Bound::LogEnd,
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let twice = duplicates.contains(&(topic.name.as_str(), asked.partition_index));
            let found = match twice {
                true => Err(ErrorCode::InvalidRequest),
                false => find(ctx, topic, asked, bound).await,
            };
            partitions.push(response(asked.partition_index, found));
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name.clone(), partitions });
    }
    ListOffsetsResponse { topics, ..Default::default() }
}

fn duplicates(topics: &[ListOffsetsTopic]) -> BTreeSet<(&str, i32)> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in topics {
        for partition in &topic.partitions {
            let key = (topic.name.as_str(), partition.partition_index);
            if !seen.insert(key) {
                twice.insert(key);
            }
        }
    }
    twice
}

/// A record's place and time.
#[derive(Debug, Clone, Copy)]
struct Found {
    timestamp: Timestamp,
    offset: Offset,
    leader_epoch: LeaderEpoch,
}

impl Found {
    const NOTHING: Found = Found {
        timestamp: Timestamp::NONE,
        offset: Offset::UNKNOWN,
        leader_epoch: LeaderEpoch::UNKNOWN,
    };
}

fn response(index: i32, found: Result<Found, ErrorCode>) -> ListOffsetsPartitionResponse {
    let (error, found) = match found {
        Ok(found) => (ErrorCode::None, found),
        Err(error) => (error, Found::NOTHING),
    };
    ListOffsetsPartitionResponse {
        partition_index: index,
        error_code: error.code(),
        timestamp: found.timestamp.0,
        offset: found.offset.0,
        leader_epoch: found.leader_epoch.0,
    }
}

fn is_supported(timestamp: i64, version: i16) -> bool {
    let since = match timestamp {
        0.. | LATEST | EARLIEST => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => return false,
    };
    version >= since
}

async fn find(
    ctx: &RequestContext,
    topic: &ListOffsetsTopic,
    asked: &ListOffsetsPartition,
    bound: Bound,
) -> Result<Found, ErrorCode> {
    if !is_supported(asked.timestamp, ctx.version) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let partition = ctx.broker.partition(&topic.name, asked.partition_index)?;
    let leader_epoch = partition.check_leader(LeaderEpoch(asked.current_leader_epoch))?;
    let end = match bound {
        Bound::HighWatermark => partition.high_watermark(),
        Bound::LastStable => partition.last_stable_offset(),
        Bound::LogEnd => partition.log_end_offset(),
    };
    let at = |offset| Found {
        timestamp: Timestamp::NONE,
        offset,
        leader_epoch: partition.epoch_for_offset(offset),
    };
    // A new leader does not know yet what was committed before it: consumers would see offsets go back (KIP-207).
    let known = match bound {
        Bound::HighWatermark | Bound::LastStable if partition.is_high_watermark_behind() => {
            Err(not_available(ctx.version))
        }
        _ => Ok(()),
    };
    match asked.timestamp {
        LATEST => known.map(|()| Found { timestamp: Timestamp::NONE, offset: end, leader_epoch }),
        EARLIEST | EARLIEST_LOCAL => Ok(at(partition.log_start_offset())),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Ok(Found::NOTHING),
        _ => match search(&partition, asked.timestamp, end).await? {
            Some(found) => Ok(found),
            None => known.map(|()| Found::NOTHING),
        },
    }
}

/// The error that clients of a version try again after.
fn not_available(version: i16) -> ErrorCode {
    if version >= 5 { ErrorCode::OffsetNotAvailable } else { ErrorCode::LeaderNotAvailable }
}

/// The record by time, as long as the asker may see it; what is not in memory is read on a thread that may wait.
async fn search(
    partition: &Arc<Partition>,
    timestamp: i64,
    end: Offset,
) -> Result<Option<Found>, ErrorCode> {
    let query = match timestamp {
        MAX_TIMESTAMP => TimeQuery::Largest,
        _ => TimeQuery::AtOrAfter(Timestamp(timestamp)),
    };
    let found = match partition.find_by_time_in_memory(query)? {
        Some(found) => found,
        None => {
            let reader = Arc::clone(partition);
            let found = cold::run(move || reader.find_by_time_cold(query)).await;
            found.unwrap_or(Err(ErrorCode::KafkaStorageError))?
        }
    };
    Ok(found.filter(|found| found.offset < end).map(|found| Found {
        timestamp: found.timestamp,
        offset: found.offset,
        leader_epoch: partition.epoch_for_offset(found.offset),
    }))
}
