//! AssignReplicasToDirs (api key 73), version 0: in which log directories a broker has replicas (KIP-858).
//!
//! Served by the active controller, to nodes of the cluster. Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: AssignReplicasToDirsRequest,
) -> AssignReplicasToDirsResponse {
    match ctx.controller(ControllerRequest::AssignReplicasToDirs(request)).await {
        Ok(ControllerReply::AssignReplicasToDirs(response)) => response,
        other => {
            let error_code = super::admin::controller_error(other).code();
            AssignReplicasToDirsResponse { error_code, ..Default::default() }
        }
    }
}
