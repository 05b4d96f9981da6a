//! DescribeProducers (api key 61), version 0: the producers that partitions remember (KIP-664).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use super::auto_create::topic_name_error;
use crate::broker::{ActiveProducer, validate_topic_name};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use ottla_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| TopicResponse {
            partitions: topic
                .partition_indexes
                .iter()
                .map(|index| answer(ctx, &topic.name, *index))
                .collect(),
            name: topic.name,
        })
        .collect();
    DescribeProducersResponse { topics, ..Default::default() }
}

fn answer(ctx: &RequestContext, topic: &str, index: i32) -> PartitionResponse {
    let unknown = PartitionResponse { partition_index: index, ..Default::default() };
    let failed = |error: ErrorCode, error_message| PartitionResponse {
        error_code: error.code(),
        error_message,
        ..unknown.clone()
    };
    if let Some(error) = topic_name_error(topic) {
        return failed(error, validate_topic_name(topic).err());
    }
    if ctx.broker.image().topics.get(topic).is_none() {
        let error = ErrorCode::UnknownTopicOrPartition;
        return failed(error, Some(error.message().to_owned()));
    }
    let found = ctx.broker.partition(topic, index).and_then(|partition| {
        // Only the leader knows all of them.
        partition.check_leader(ottla_protocol::LeaderEpoch::UNKNOWN)?;
        partition.active_producers()
    });
    match found {
        Ok(producers) => PartitionResponse {
            active_producers: producers.iter().map(describe).collect(),
            ..unknown
        },
        Err(error) => failed(error, None),
    }
}

fn describe(producer: &ActiveProducer) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id.0,
        producer_epoch: i32::from(producer.producer_epoch.0),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp.0,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.current_txn_start_offset.map_or(-1, |offset| offset.0),
    }
}
