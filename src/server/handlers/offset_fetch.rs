//! OffsetFetch (api key 9), versions 1-10: what groups have committed.
//!
//! - v1: errors only with partitions. - v2: all topics (null); a top-level error. - v3: throttle
//!   time. - v4: as v3.
//! - v5: leader epochs (KIP-320). - v6: flexible. - v7: `require_stable` (KIP-447). - v8: several
//!   groups (KIP-709).
//! - v9: member id and epoch (KIP-848). - v10: topic ids instead of names.
//!
//! Offsets are always stable: an answer waits until what it rests on is committed, and transactions
//! do not commit offsets yet.
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{GroupRequest, GroupResponse, Image};
use ottla_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ottla_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use ottla_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use ottla_protocol::{ErrorCode, Offset};

/// From this version on the answer has an error of its own.
const TOP_LEVEL_ERROR_SINCE: i16 = 2;
/// From this version on one request asks for several groups.
const BATCHED_SINCE: i16 = 8;
/// From this version on topics are named by their id.
const TOPIC_IDS_SINCE: i16 = 10;

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if ctx.version >= BATCHED_SINCE {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            groups.push(fetch(ctx, group).await);
        }
        return OffsetFetchResponse { groups, ..OffsetFetchResponse::default() };
    }
    let topics = request.topics.map(|topics| {
        let topic =
            |topic: ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
                OffsetFetchRequestTopics {
                    name: topic.name,
                    partition_indexes: topic.partition_indexes,
                    ..OffsetFetchRequestTopics::default()
                }
            };
        topics.into_iter().map(topic).collect()
    });
    let group_id = request.group_id;
    let group = OffsetFetchRequestGroup { group_id, topics, ..OffsetFetchRequestGroup::default() };
    unbatched(fetch(ctx, group).await)
}

/// The answer to one group, as versions without groups have it.
fn unbatched(group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let topic = |topic: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| OffsetFetchResponsePartition {
                partition_index: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata,
                error_code: partition.error_code,
            })
            .collect(),
    };
    OffsetFetchResponse {
        topics: group.topics.into_iter().map(topic).collect(),
        error_code: group.error_code,
        ..OffsetFetchResponse::default()
    }
}

async fn fetch(
    ctx: &RequestContext,
    mut group: OffsetFetchRequestGroup,
) -> OffsetFetchResponseGroup {
    let image = ctx.broker.image();
    let is_all = group.topics.is_none();
    let mut unknown = Vec::new();
    if ctx.version >= TOPIC_IDS_SINCE {
        unknown = name_topics(&image, group.topics.as_mut());
    }
    let (group_id, asked) = (group.group_id.clone(), group.topics.clone());
    let answer = ctx.broker.group(&group_id, GroupRequest::FetchOffsets(group)).await;
    let mut response = match answer.and_then(GroupResponse::fetch_offsets) {
        Ok(response) => response,
        Err(error) => return refused(ctx.version, group_id, asked.unwrap_or_default(), error),
    };
    if ctx.version >= TOPIC_IDS_SINCE && is_all {
        // Topics that are gone have no id to name them by.
        response.topics.retain_mut(|topic| match image.topics.get(&topic.name) {
            Some(known) => {
                topic.topic_id = known.id;
                true
            }
            None => false,
        });
    }
    response.topics.extend(unknown);
    response
}

/// Names the topics that are asked for by id; takes those out that do not exist and answers them.
fn name_topics(
    image: &Image,
    topics: Option<&mut Vec<OffsetFetchRequestTopics>>,
) -> Vec<OffsetFetchResponseTopics> {
    let mut unknown = Vec::new();
    let Some(topics) = topics else { return unknown };
    topics.retain_mut(|topic| match image.topics.name_of(&topic.topic_id) {
        Some(name) => {
            topic.name = name.to_string();
            true
        }
        None => {
            unknown.push(failed(topic, ErrorCode::UnknownTopicId));
            false
        }
    });
    unknown
}

/// The answer to a group whose request is refused as a whole.
fn refused(
    version: i16,
    group_id: String,
    topics: Vec<OffsetFetchRequestTopics>,
    error: ErrorCode,
) -> OffsetFetchResponseGroup {
    let topics = match version >= TOP_LEVEL_ERROR_SINCE {
        true => Vec::new(),
        false => topics.iter().map(|topic| failed(topic, error)).collect(),
    };
    OffsetFetchResponseGroup { group_id, topics, error_code: error.code() }
}

fn failed(topic: &OffsetFetchRequestTopics, error: ErrorCode) -> OffsetFetchResponseTopics {
    let partition = |index: &i32| OffsetFetchResponsePartitions {
        partition_index: *index,
        committed_offset: Offset::UNKNOWN.0,
        error_code: error.code(),
        ..OffsetFetchResponsePartitions::default()
    };
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(partition).collect(),
    }
}
