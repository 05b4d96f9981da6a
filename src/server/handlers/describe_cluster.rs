//! DescribeCluster (api key 60), versions 0-2: the cluster's id, brokers and controller (KIP-700).
//!
//! - v1: the kind of endpoint that the client means (KIP-919). - v2: fenced brokers, where asked for (KIP-1073).
//!
//! Known differences from Kafka: where several brokers are alive the first is named as the
//! controller, not any.

use super::{ALL_CLUSTER_OPERATIONS, Node, RequestContext};
use crate::broker::Image;
use ottla_protocol::ErrorCode;
use ottla_protocol::apis::ListenerType;
use ottla_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use ottla_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if ![BROKERS, CONTROLLERS].contains(&request.endpoint_type) {
        let text = format!("Unsupported endpoint type {}", request.endpoint_type);
        return failed(ctx, ErrorCode::UnsupportedEndpointType, text);
    }
    let (endpoint_type, name, other) = match ctx.listener_type {
        ListenerType::Broker => (BROKERS, "BROKER", "CONTROLLER"),
        ListenerType::Controller => (CONTROLLERS, "CONTROLLER", "BROKER"),
    };
    if request.endpoint_type != endpoint_type {
        let text = format!(
            "The request was sent to an endpoint of type {name}, but we wanted an endpoint of \
             type {other}"
        );
        return failed(ctx, ErrorCode::MismatchedEndpointType, text);
    }
    let image = ctx.broker.image();
    let (controller_id, brokers) = match ctx.listener_type {
        ListenerType::Broker => brokers(ctx, &image, request.include_fenced_brokers),
        ListenerType::Controller => controllers(ctx, &image),
    };
    let operations = match request.include_cluster_authorized_operations {
        true => ALL_CLUSTER_OPERATIONS,
        false => i32::MIN,
    };
    DescribeClusterResponse {
        error_message: None,
        endpoint_type,
        cluster_id: ctx.broker.cluster_id().to_owned(),
        controller_id,
        brokers,
        cluster_authorized_operations: operations,
        ..Default::default()
    }
}

fn brokers(
    ctx: &RequestContext,
    image: &Image,
    include_fenced: bool,
) -> (i32, Vec<DescribeClusterBroker>) {
    let alive = ctx.alive_nodes(image);
    let controller_id = alive.first().map_or(-1, |node| node.id);
    let mut brokers: Vec<DescribeClusterBroker> =
        alive.into_iter().map(|node| described(node, false)).collect();
    if include_fenced {
        brokers.extend(fenced(ctx, image));
    }
    (controller_id, brokers)
}

/// The controllers that registered, as tools see them that ask the quorum itself (KIP-919).
fn controllers(ctx: &RequestContext, image: &Image) -> (i32, Vec<DescribeClusterBroker>) {
    let registered = image.cluster.controllers.values();
    let nodes = registered.filter_map(|controller| {
        let endpoint = controller.listeners.get(&*ctx.listener)?;
        let (host, port) = (endpoint.host.clone(), i32::from(endpoint.port));
        Some(Node { id: controller.id.0, host, port, rack: None })
    });
    let nodes = nodes.map(|node| described(node, false)).collect();
    (ctx.broker.quorum_status().map_or(-1, |status| status.leader_id.0), nodes)
}

fn fenced(ctx: &RequestContext, image: &Image) -> Vec<DescribeClusterBroker> {
    let fenced = image.cluster.brokers.values().filter(|broker| broker.fenced);
    fenced.filter_map(|broker| Some(described(ctx.node_of(broker)?, true))).collect()
}

fn described(node: Node, is_fenced: bool) -> DescribeClusterBroker {
    DescribeClusterBroker {
        broker_id: node.id,
        host: node.host,
        port: node.port,
        rack: node.rack,
        is_fenced,
    }
}

/// Version 0 knows no kinds of endpoints, and so no error for the wrong one.
fn failed(ctx: &RequestContext, error: ErrorCode, text: String) -> DescribeClusterResponse {
    let error = if ctx.version == 0 { ErrorCode::InvalidRequest } else { error };
    DescribeClusterResponse {
        error_code: error.code(),
        error_message: Some(text),
        ..Default::default()
    }
}
