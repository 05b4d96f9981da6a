//! AlterPartitionReassignments (api key 45), versions 0-1: moves replicas, or stops moving them
//! (KIP-455).
//!
//! - v1: the request says whether the replication factor may change (KIP-860).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let operation = ControllerRequest::AlterPartitionReassignments(request);
    match ctx.controller(operation).await {
        Ok(ControllerReply::AlterPartitionReassignments(response)) => response,
        other => {
            let error = super::admin::controller_error(other);
            AlterPartitionReassignmentsResponse {
                error_code: error.code(),
                error_message: Some(error.message().to_owned()),
                ..Default::default()
            }
        }
    }
}
