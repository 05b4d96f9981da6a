//! ListPartitionReassignments (api key 46), version 0: replicas on the move (KIP-455).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{Image, TopicImage, image::numbers};
use ottla_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use ottla_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    list(&ctx.broker.image(), &request)
}

fn list(
    image: &Image,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let topics = match &request.topics {
        Some(topics) => topics
            .iter()
            .filter_map(|wanted| {
                let topic = image.topics.get(&wanted.name)?;
                ongoing(topic, wanted.partition_indexes.iter().copied())
            })
            .collect(),
        None => image
            .topics
            .iter()
            .filter_map(|topic| ongoing(topic, topic.partitions.keys().copied()))
            .collect(),
    };
    ListPartitionReassignmentsResponse { topics, error_message: None, ..Default::default() }
}

/// The topic's partitions that are on the move; `None` when there are none.
fn ongoing(
    topic: &TopicImage,
    indexes: impl Iterator<Item = i32>,
) -> Option<OngoingTopicReassignment> {
    let partitions: Vec<OngoingPartitionReassignment> = indexes
        .filter_map(|index| {
            let partition = topic.partition(index)?;
            partition.is_reassigning().then(|| OngoingPartitionReassignment {
                partition_index: index,
                replicas: numbers(&partition.replicas),
                adding_replicas: numbers(&partition.adding_replicas),
                removing_replicas: numbers(&partition.removing_replicas),
            })
        })
        .collect();
    let name = topic.name.to_string();
    (!partitions.is_empty()).then_some(OngoingTopicReassignment { name, partitions })
}
