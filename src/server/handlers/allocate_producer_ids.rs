//! AllocateProducerIds (api key 67), version 0: a block of producer ids for a broker (KIP-730).
//!
//! A broker gives them out one by one; what is left of a block when it stops is never used.
//!
//! Served by the active controller, to nodes of the cluster. Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: AllocateProducerIdsRequest,
) -> AllocateProducerIdsResponse {
    match ctx.controller(ControllerRequest::AllocateProducerIds(request)).await {
        Ok(ControllerReply::AllocateProducerIds(response)) => response,
        other => {
            let error_code = super::admin::controller_error(other).code();
            AllocateProducerIdsResponse { error_code, ..Default::default() }
        }
    }
}
