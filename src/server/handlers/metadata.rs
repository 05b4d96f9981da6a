//! Metadata (api key 3), versions 0-13: brokers, topics, partitions and their leaders.
//!
//! - v0: an empty list of topics asks for all; replicas that are not alive are left out, with REPLICA_NOT_AVAILABLE.
//! - v1: null asks for all; the controller; racks. - v2: cluster id. - v4: `allow_auto_topic_creation`.
//! - v5: offline replicas. - v6: LISTENER_NOT_FOUND where v5 has LEADER_NOT_AVAILABLE. - v7: leader epoch.
//! - v8: authorized operations (KIP-430). - v9: flexible. - v10: topic ids in the answer.
//! - v11: no authorized operations of the cluster. - v12: topics by id (KIP-516). - v13: a top-level error (KIP-1102).
//!
//! Known differences from Kafka: the controller that is named is this broker or, where it is fenced, another one that
//! is alive; Kafka names any.

use super::auto_create::{self, topic_name_error};
use super::{ALL_TOPIC_OPERATIONS, RequestContext};
use crate::broker::image::PartitionRegistration;
use crate::broker::{Image, TopicImage};
use ottla_protocol::messages::metadata_request::MetadataRequestTopic;
use ottla_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use ottla_protocol::messages::{MetadataRequest, MetadataResponse};
use ottla_protocol::{BrokerId, ErrorCode, TopicId, is_internal_topic};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    let named = match asked(ctx.version, request.topics.as_deref()) {
        Ok(named) => named,
        Err(error) => return refused(error, request.topics.unwrap_or_default()),
    };
    if ctx.has_asked.swap(true, Ordering::Relaxed) {
        // Who asks again may have lost a leader just now.
        ctx.broker.glance_at(leaders(&ctx.broker.image(), &named));
    }
    ctx.broker.await_successors(|image| has_lost_leaders(ctx, image, &named)).await;
    let image = ctx.broker.image();
    let mut topics = match named {
        Asked::All => image.topics.iter().map(|topic| describe(ctx, &image, topic)).collect(),
        Asked::ById(ids) => by_id(ctx, &image, ids),
        Asked::ByName(names) => {
            by_name(ctx, &image, names, request.allow_auto_topic_creation).await
        }
    };
    if ctx.version >= 8 && request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = ALL_TOPIC_OPERATIONS;
        }
    }
    let mut response = MetadataResponse {
        brokers: brokers(ctx, &image),
        cluster_id: Some(ctx.broker.cluster_id().to_owned()),
        controller_id: controller_id(ctx, &image),
        topics,
        ..Default::default()
    };
    if (8..=10).contains(&ctx.version) && request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = super::ALL_CLUSTER_OPERATIONS;
    }
    response
}

enum Asked {
    All,
    ById(BTreeSet<TopicId>),
    ByName(BTreeSet<String>),
}

/// The topics that are asked for, those that exist.
fn wanted<'a>(image: &'a Image, named: &Asked) -> Vec<&'a TopicImage> {
    match named {
        Asked::All => image.topics.iter().map(|topic| &**topic).collect(),
        Asked::ById(ids) => {
            ids.iter().filter_map(|id| image.topics.get_by_id(id)).map(|topic| &**topic).collect()
        }
        Asked::ByName(names) => {
            names.iter().filter_map(|name| image.topics.get(name)).map(|topic| &**topic).collect()
        }
    }
}

/// Who leads partitions of topics that are asked for by name or id.
fn leaders(image: &Image, named: &Asked) -> BTreeSet<BrokerId> {
    match named {
        Asked::All => BTreeSet::new(),
        named => wanted(image, named)
            .iter()
            .flat_map(|topic| topic.partitions.values().map(|it| it.leader))
            .collect(),
    }
}

/// Whether one of the topics that are asked for has a leader that is gone.
fn has_lost_leaders(ctx: &RequestContext, image: &Image, named: &Asked) -> bool {
    let has_lost = |topic: &&TopicImage| {
        topic.partitions.values().any(|partition| ctx.is_gone(image, partition.leader))
    };
    wanted(image, named).iter().any(has_lost)
}

fn asked(version: i16, topics: Option<&[MetadataRequestTopic]>) -> Result<Asked, ErrorCode> {
    let topics = match topics {
        None => return Ok(Asked::All),
        Some([]) if version == 0 => return Ok(Asked::All),
        Some(topics) => topics,
    };
    let odd = |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_nil();
    if version < 12 && topics.iter().any(odd) {
        return Err(ErrorCode::InvalidRequest);
    }
    let ids: BTreeSet<_> =
        topics.iter().map(|topic| topic.topic_id).filter(|id| !id.is_nil()).collect();
    if !ids.is_empty() {
        return Ok(Asked::ById(ids));
    }
    Ok(Asked::ByName(topics.iter().filter_map(|topic| topic.name.clone()).collect()))
}

/// The answer to a request that is refused as a whole: the error with each topic.
fn refused(error: ErrorCode, topics: Vec<MetadataRequestTopic>) -> MetadataResponse {
    let topics = topics
        .into_iter()
        .map(|topic| MetadataResponseTopic {
            error_code: error.code(),
            // Null cannot be written before version 12.
            name: Some(topic.name.unwrap_or_default()),
            topic_id: topic.topic_id,
            ..Default::default()
        })
        .collect();
    MetadataResponse { topics, error_code: error.code(), ..Default::default() }
}

fn by_id(
    ctx: &RequestContext,
    image: &Image,
    ids: BTreeSet<TopicId>,
) -> Vec<MetadataResponseTopic> {
    let (known, unknown): (Vec<_>, Vec<_>) =
        ids.into_iter().partition(|id| image.topics.get_by_id(id).is_some());
    let unknown = unknown.into_iter().map(|topic_id| MetadataResponseTopic {
        error_code: ErrorCode::UnknownTopicId.code(),
        topic_id,
        ..Default::default()
    });
    let known = known.iter().filter_map(|id| image.topics.get_by_id(id));
    unknown.chain(known.map(|topic| describe(ctx, image, topic))).collect()
}

async fn by_name(
    ctx: &RequestContext,
    image: &Image,
    names: BTreeSet<String>,
    allow_auto_topic_creation: bool,
) -> Vec<MetadataResponseTopic> {
    let (known, unknown): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| image.topics.get(name).is_some());
    let mut topics: Vec<_> = known
        .iter()
        .filter_map(|name| image.topics.get(name))
        .map(|topic| describe(ctx, image, topic))
        .collect();
    let may_create = allow_auto_topic_creation && ctx.shared.settings.auto_create_topics_enable;
    let errors = if may_create {
        auto_create::create(ctx, unknown).await
    } else {
        unknown
            .into_iter()
            .map(|name| {
                let error = topic_name_error(&name);
                (name, error.unwrap_or(ErrorCode::UnknownTopicOrPartition))
            })
            .collect()
    };
    topics.extend(errors.into_iter().map(|(name, error)| MetadataResponseTopic {
        error_code: error.code(),
        is_internal: is_internal_topic(&name),
        name: Some(name),
        ..Default::default()
    }));
    topics
}

fn describe(ctx: &RequestContext, image: &Image, topic: &TopicImage) -> MetadataResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .map(|(index, partition)| describe_partition(ctx, image, *index, partition))
        .collect();
    MetadataResponseTopic {
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions,
        ..Default::default()
    }
}

fn describe_partition(
    ctx: &RequestContext,
    image: &Image,
    index: i32,
    partition: &PartitionRegistration,
) -> MetadataResponsePartition {
    // Version 0 knows no offline replicas: it leaves out those that are not alive and says so.
    let seen = |ids: &[BrokerId]| -> Vec<i32> {
        let all = ids.iter().copied();
        all.filter(|id| ctx.version > 0 || ctx.is_reachable(image, *id)).map(|id| id.0).collect()
    };
    let replica_nodes = seen(&partition.replicas);
    let isr_nodes = seen(&partition.isr);
    let is_online =
        |id: BrokerId| ctx.is_reachable(image, id) && image.cluster.has_directory_of(partition, id);
    let offline = partition.replicas.iter().filter(|id| !is_online(**id)).map(|id| id.0);
    let is_gone = ctx.is_gone(image, partition.leader);
    let leader = ctx.node(image, partition.leader).filter(|_| !is_gone);
    let error = match &leader {
        None if is_gone => ErrorCode::LeaderNotAvailable,
        None if !image.cluster.brokers.contains_key(&partition.leader) || ctx.version < 6 => {
            ErrorCode::LeaderNotAvailable
        }
        None => ErrorCode::ListenerNotFound,
        Some(_) if replica_nodes.len() < partition.replicas.len() => ErrorCode::ReplicaNotAvailable,
        Some(_) if isr_nodes.len() < partition.isr.len() => ErrorCode::ReplicaNotAvailable,
        Some(_) => ErrorCode::None,
    };
    MetadataResponsePartition {
        error_code: error.code(),
        partition_index: index,
        leader_id: leader.map_or(-1, |node| node.id),
        leader_epoch: partition.leader_epoch.0,
        replica_nodes,
        isr_nodes,
        offline_replicas: offline.collect(),
    }
}

fn brokers(ctx: &RequestContext, image: &Image) -> Vec<MetadataResponseBroker> {
    // One that has just gone stays in sight for a moment: librdkafka takes a broker that it hears of no more apart, and
    // with it, for a second, the partitions that are on their way from there to their new leaders.
    let gone = image.cluster.brokers.values().filter(|broker| broker.fenced);
    let gone = gone.filter(|broker| ctx.broker.has_gone_lately(broker));
    let nodes = ctx.alive_nodes(image).into_iter();
    let nodes = nodes.chain(gone.filter_map(|broker| ctx.node_of(broker)));
    nodes
        .map(|node| MetadataResponseBroker {
            node_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack,
        })
        .collect()
}

/// A broker that is alive: any of them passes the controller's requests on.
fn controller_id(ctx: &RequestContext, image: &Image) -> i32 {
    let mut alive = image.cluster.unfenced().map(|broker| broker.id);
    let own = ctx.broker.node_id();
    if image.cluster.is_active(own) { own.0 } else { alive.next().map_or(-1, |id| id.0) }
}
