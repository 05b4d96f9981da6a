//! OffsetCommit (api key 8), versions 2-10: commits a group's offsets.
//!
//! - v2-4: a retention of its own. - v3: throttle time. - v4: as v3. - v5: no retention any more
//!   (KIP-211).
//! - v6: leader epochs (KIP-320). - v7: static members (KIP-345). - v8: flexible.
//! - v9: GROUP_ID_NOT_FOUND, STALE_MEMBER_EPOCH (KIP-848). - v10: topic ids instead of names.
//!
//! Partitions that do not exist are told so and do not keep the others from being committed.
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{GroupRequest, GroupResponse, Image};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use ottla_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use ottla_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

/// From this version on topics are named by their id.
const TOPIC_IDS_SINCE: i16 = 10;

/// Answers the request, when the offsets are committed.
pub async fn handle(
    ctx: &RequestContext,
    mut request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let image = ctx.broker.image();
    let mut response = OffsetCommitResponse::default();
    let mut valid = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        valid.extend(check(&image, ctx.version, topic, &mut response));
    }
    if valid.is_empty() {
        return response;
    }
    let asked: Vec<OffsetCommitResponseTopic> =
        valid.iter().map(|topic| answer(topic, ErrorCode::None)).collect();
    request.topics = valid;
    let group_id = request.group_id.clone();
    let request = GroupRequest::CommitOffsets { version: ctx.version, request };
    let topics =
        match ctx.broker.group(&group_id, request).await.and_then(GroupResponse::commit_offsets) {
            Ok(committed) => committed.topics,
            Err(error) => asked.into_iter().map(|topic| refused(topic, error)).collect(),
        };
    for topic in topics {
        merge(&mut response, topic);
    }
    response
}

/// Puts the partitions that do not exist into the response; answers the topic with the others, if
/// there are any.
fn check(
    image: &Image,
    version: i16,
    mut topic: OffsetCommitRequestTopic,
    response: &mut OffsetCommitResponse,
) -> Option<OffsetCommitRequestTopic> {
    if version >= TOPIC_IDS_SINCE {
        match image.topics.name_of(&topic.topic_id) {
            Some(name) => topic.name = name.to_string(),
            None => {
                response.topics.push(answer(&topic, ErrorCode::UnknownTopicId));
                return None;
            }
        }
    }
    let Some(known) = image.topics.get(&topic.name) else {
        response.topics.push(answer(&topic, ErrorCode::UnknownTopicOrPartition));
        return None;
    };
    // Kept with the offset of older versions too: a topic of the same name later does not have it.
    topic.topic_id = known.id;
    let (there, absent): (Vec<_>, Vec<_>) = std::mem::take(&mut topic.partitions)
        .into_iter()
        .partition(|partition| known.partition(partition.partition_index).is_some());
    if !absent.is_empty() {
        topic.partitions = absent;
        response.topics.push(answer(&topic, ErrorCode::UnknownTopicOrPartition));
    }
    topic.partitions = there;
    Some(topic).filter(|topic| !topic.partitions.is_empty())
}

/// The topic's answer with the same error for every partition.
fn answer(topic: &OffsetCommitRequestTopic, error: ErrorCode) -> OffsetCommitResponseTopic {
    let partitions = topic.partitions.iter().map(|partition| OffsetCommitResponsePartition {
        partition_index: partition.partition_index,
        error_code: error.code(),
    });
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
    }
}

fn refused(mut topic: OffsetCommitResponseTopic, error: ErrorCode) -> OffsetCommitResponseTopic {
    for partition in &mut topic.partitions {
        partition.error_code = error.code();
    }
    topic
}

/// Adds a topic's answer; one that is already there, for partitions that do not exist, is extended.
fn merge(response: &mut OffsetCommitResponse, topic: OffsetCommitResponseTopic) {
    let known = response.topics.iter_mut().find(|known| known.name == topic.name);
    match known {
        Some(known) => known.partitions.extend(topic.partitions),
        None => response.topics.push(topic),
    }
}
