//! OffsetDelete (api key 47), version 0: deletes a group's offsets of topics that it does not read
//! any more (KIP-496).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{GroupRequest, GroupResponse, Image};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use ottla_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    mut request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let image = ctx.broker.image();
    let mut response = OffsetDeleteResponse::default();
    let topics = std::mem::take(&mut request.topics);
    for topic in topics {
        request.topics.extend(check(&image, topic, &mut response));
    }
    let group_id = request.group_id.clone();
    // The group is asked even when no partition is left: its own error comes first.
    match ctx
        .broker
        .group(&group_id, GroupRequest::DeleteOffsets(request))
        .await
        .and_then(GroupResponse::delete_offsets)
    {
        Ok(deleted) => {
            for topic in deleted.topics {
                merge(&mut response, topic);
            }
            response
        }
        Err(error) => {
            OffsetDeleteResponse { error_code: error.code(), ..OffsetDeleteResponse::default() }
        }
    }
}

/// Puts the partitions that do not exist into the response; answers the topic with the others, if
/// there are any.
fn check(
    image: &Image,
    mut topic: OffsetDeleteRequestTopic,
    response: &mut OffsetDeleteResponse,
) -> Option<OffsetDeleteRequestTopic> {
    let known = image.topics.get(&topic.name);
    let (there, absent): (Vec<OffsetDeleteRequestPartition>, Vec<_>) =
        topic.partitions.into_iter().partition(|partition| {
            known.is_some_and(|known| known.partition(partition.partition_index).is_some())
        });
    if !absent.is_empty() {
        let partitions = absent.iter().map(|partition| OffsetDeleteResponsePartition {
            partition_index: partition.partition_index,
            error_code: ErrorCode::UnknownTopicOrPartition.code(),
        });
        let (name, partitions) = (topic.name.clone(), partitions.collect());
        response.topics.push(OffsetDeleteResponseTopic { name, partitions });
    }
    topic.partitions = there;
    Some(topic).filter(|topic| !topic.partitions.is_empty())
}

/// Adds a topic's answer; one that is already there, for partitions that do not exist, is extended.
fn merge(response: &mut OffsetDeleteResponse, topic: OffsetDeleteResponseTopic) {
    match response.topics.iter_mut().find(|known| known.name == topic.name) {
        Some(known) => known.partitions.extend(topic.partitions),
        None => response.topics.push(topic),
    }
}
