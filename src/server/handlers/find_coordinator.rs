//! FindCoordinator (api key 10), versions 0-6: which broker coordinates a group.
//!
//! - v0: groups only. - v1: key types, error message, throttle time. - v2: as v1. - v3: flexible.
//! - v4: several keys (KIP-699). - v5: TRANSACTION_ABORTABLE (KIP-890). - v6: share partitions
//!   (KIP-932).
//!
//! The internal topic is made when it is first asked for. The answer waits a moment for it, where
//! Kafka's is COORDINATOR_NOT_AVAILABLE at once: of clients that start together the one that asked
//! first would be the last to join its group.
//!
//! Known differences from Kafka: transactions and share groups are not served yet: a transactional
//! id is answered COORDINATOR_NOT_AVAILABLE and a share partition INVALID_REQUEST.

use super::nodes::Node;
use super::{RequestContext, auto_create};
use crate::broker::{Image, partition_for};
use ottla_protocol::messages::find_coordinator_response::Coordinator;
use ottla_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use ottla_protocol::{ErrorCode, GROUP_METADATA_TOPIC};
use std::time::Duration;

/// From this version on one request asks for several keys.
const BATCHED_SINCE: i16 = 4;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// How long the answer waits for the topic that was just created to be known here.
const CREATION_WAIT: Duration = Duration::from_millis(200);

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if request.key_type == GROUP {
        ensure_topic(ctx).await;
    }
    if ctx.version < BATCHED_SINCE {
        return unbatched(find(ctx, request.key_type, &request.key));
    }
    let mut response = FindCoordinatorResponse::default();
    for key in request.coordinator_keys {
        let found = find(ctx, request.key_type, &key);
        response.coordinators.push(batched(key, found));
    }
    response
}

/// Has the groups' topic made where it is not there, and waits a moment for it.
async fn ensure_topic(ctx: &RequestContext) {
    let has_topic = |image: &Image| image.topics.get(GROUP_METADATA_TOPIC).is_some();
    if has_topic(&ctx.broker.image()) {
        return;
    }
    auto_create::create(ctx, vec![GROUP_METADATA_TOPIC.to_owned()]).await;
    ctx.broker.await_image(CREATION_WAIT, has_topic).await;
}

fn batched(key: String, found: Result<Node, ErrorCode>) -> Coordinator {
    match found {
        Ok(node) => Coordinator {
            key,
            node_id: node.id,
            host: node.host,
            port: node.port,
            ..Coordinator::default()
        },
        Err(error) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: error.code(),
            ..Coordinator::default()
        },
    }
}

fn unbatched(found: Result<Node, ErrorCode>) -> FindCoordinatorResponse {
    match found {
        Ok(node) => FindCoordinatorResponse {
            node_id: node.id,
            host: node.host,
            port: node.port,
            // Kafka names the absence of an error too.
            error_message: Some(ErrorCode::None.name().to_owned()),
            ..FindCoordinatorResponse::default()
        },
        Err(error) => FindCoordinatorResponse {
            node_id: -1,
            port: -1,
            error_code: error.code(),
            error_message: Some(error.message().to_owned()),
            ..FindCoordinatorResponse::default()
        },
    }
}

fn find(ctx: &RequestContext, key_type: i8, key: &str) -> Result<Node, ErrorCode> {
    match key_type {
        GROUP => {}
        TRANSACTION => return Err(ErrorCode::CoordinatorNotAvailable),
        _ => return Err(ErrorCode::InvalidRequest),
    }
    let image = ctx.broker.image();
    let topic = image.topics.get(GROUP_METADATA_TOPIC).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let index = partition_for(key, topic.partition_count());
    topic
        .partition(index)
        .filter(|partition| partition.has_leader())
        .filter(|partition| ctx.is_reachable(&image, partition.leader))
        .and_then(|partition| ctx.node(&image, partition.leader))
        .ok_or(ErrorCode::CoordinatorNotAvailable)
}
