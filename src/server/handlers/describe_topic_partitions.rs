//! DescribeTopicPartitions (api key 75), version 0: topics' partitions page by page, with eligible
//! leader replicas (KIP-966).
//!
//! Known differences from Kafka: none.

use super::{ALL_TOPIC_OPERATIONS, RequestContext};
use crate::broker::image::{PartitionRegistration, numbers};
use crate::broker::{Image, TopicImage, validate_topic_name};
use ottla_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use ottla_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use ottla_protocol::{BrokerId, ErrorCode, GROUP_METADATA_TOPIC};
use ottla_protocol::{SHARE_STATE_TOPIC, TRANSACTION_STATE_TOPIC};
use std::collections::BTreeSet;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let limit = super::admin::broker_number(ctx, "max.request.partition.size.limit");
    let limit = limit.unwrap_or(i64::MAX).min(i64::from(request.response_partition_limit)).max(1);
    let image = ctx.broker.image();
    Pages { image: &image, listener: &ctx.listener, left: limit as usize }.describe(&request)
}

/// An answer in the making.
struct Pages<'a> {
    image: &'a Image,
    listener: &'a str,
    /// Partitions that the answer may still hold.
    left: usize,
}

impl Pages<'_> {
    fn describe(
        mut self,
        request: &DescribeTopicPartitionsRequest,
    ) -> DescribeTopicPartitionsResponse {
        let mut response = DescribeTopicPartitionsResponse::default();
        let cursor = request.cursor.as_ref();
        let start = cursor.map_or("", |cursor| cursor.topic_name.as_str());
        let everything = request.topics.is_empty();
        let names: BTreeSet<&str> = match everything {
            true => self.image.topics.iter_from(start).map(|topic| &*topic.name).collect(),
            false => {
                let names = request.topics.iter().map(|topic| topic.name.as_str());
                names.filter(|name| *name >= start).collect()
            }
        };
        let bad_cursor = cursor.is_some_and(|cursor| {
            cursor.partition_index < 0 || (!everything && !names.contains(start))
        });
        if bad_cursor {
            // The response has no field for one error, so it stands at every topic.
            let asked = request.topics.iter().map(|topic| topic.name.as_str());
            response.topics.extend(asked.map(|name| failed(name, ErrorCode::InvalidRequest)));
            return response;
        }
        for name in names {
            if self.left == 0 {
                response.next_cursor = Some(at(name, 0));
                break;
            }
            let first = cursor.filter(|c| c.topic_name == name).map_or(0, |c| c.partition_index);
            match self.image.topics.get(name) {
                Some(topic) => {
                    let (described, next) = self.topic(topic, first);
                    response.topics.push(described);
                    if next < topic.partition_count() {
                        response.next_cursor = Some(at(name, next));
                        break;
                    }
                }
                None if everything => {}
                None => response.topics.push(failed(name, missing(name))),
            }
        }
        response
    }

    /// The topic with as many partitions as there is room for, and the partition to go on with.
    fn topic(
        &mut self,
        topic: &TopicImage,
        first: i32,
    ) -> (DescribeTopicPartitionsResponseTopic, i32) {
        let partitions: Vec<DescribeTopicPartitionsResponsePartition> = topic
            .partitions
            .range_from(&first)
            .take(self.left)
            .map(|(index, partition)| self.partition(*index, partition))
            .collect();
        self.left -= partitions.len();
        let next = first.saturating_add(partitions.len() as i32);
        let described = DescribeTopicPartitionsResponseTopic {
            error_code: 0,
            name: Some(topic.name.to_string()),
            topic_id: topic.id,
            is_internal: is_internal(&topic.name),
            partitions,
            topic_authorized_operations: ALL_TOPIC_OPERATIONS,
        };
        (described, next)
    }

    fn partition(
        &self,
        partition_index: i32,
        partition: &PartitionRegistration,
    ) -> DescribeTopicPartitionsResponsePartition {
        let is_online =
            |id| self.is_alive(id) && self.image.cluster.has_directory_of(partition, id);
        let offline: Vec<BrokerId> =
            partition.replicas.iter().copied().filter(|id| !is_online(*id)).collect();
        let leader = partition.leader;
        DescribeTopicPartitionsResponsePartition {
            error_code: 0,
            partition_index,
            leader_id: if self.is_alive(leader) { leader.0 } else { -1 },
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: numbers(&partition.replicas),
            isr_nodes: numbers(&partition.isr),
            eligible_leader_replicas: Some(numbers(&partition.elr)),
            last_known_elr: Some(numbers(&partition.last_known_elr)),
            offline_replicas: numbers(&offline),
        }
    }

    fn is_alive(&self, id: BrokerId) -> bool {
        self.image
            .cluster
            .brokers
            .get(&id)
            .is_some_and(|broker| !broker.fenced && broker.listeners.contains_key(self.listener))
    }
}

fn at(topic: &str, partition_index: i32) -> Cursor {
    Cursor { topic_name: topic.to_owned(), partition_index }
}

fn missing(name: &str) -> ErrorCode {
    match validate_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    }
}

fn failed(name: &str, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name.to_owned()),
        is_internal: is_internal(name),
        topic_authorized_operations: ALL_TOPIC_OPERATIONS,
        ..Default::default()
    }
}

fn is_internal(name: &str) -> bool {
    [GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC, SHARE_STATE_TOPIC].contains(&name)
}
