//! AlterPartition (api key 56), versions 2-3: a leader wants another ISR (KIP-497).
//!
//! - v2: topic ids (KIP-841). - v3: the epochs of the brokers in the ISR (KIP-903).
//!
//! Served by the active controller, to nodes of the cluster. Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: AlterPartitionRequest,
) -> AlterPartitionResponse {
    match ctx.controller(ControllerRequest::AlterPartition(request)).await {
        Ok(ControllerReply::AlterPartition(response)) => response,
        other => {
            let error_code = super::admin::controller_error(other).code();
            AlterPartitionResponse { error_code, ..Default::default() }
        }
    }
}
