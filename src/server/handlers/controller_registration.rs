//! ControllerRegistration (api key 70), version 0: a controller has started (KIP-919).
//!
//! Served by the active controller, to nodes of the cluster. Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::{ControllerRegistrationRequest, ControllerRegistrationResponse};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: ControllerRegistrationRequest,
) -> ControllerRegistrationResponse {
    match ctx.controller(ControllerRequest::RegisterController(request)).await {
        Ok(ControllerReply::RegisterController(response)) => response,
        other => {
            let error_code = super::admin::controller_error(other).code();
            ControllerRegistrationResponse { error_code, ..Default::default() }
        }
    }
}
