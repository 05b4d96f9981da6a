//! ElectLeaders (api key 43), versions 0-2: elects preferred or, uncleanly, any leaders (KIP-183,
//! KIP-460).
//!
//! - v1: the election's type and one error for the whole request. - v2: flexible.
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
    match ctx.controller(ControllerRequest::ElectLeaders(request)).await {
        Ok(ControllerReply::ElectLeaders(response)) => response,
        other => ElectLeadersResponse {
            error_code: super::admin::controller_error(other).code(),
            ..Default::default()
        },
    }
}
