//! Heartbeat (api key 12), versions 0-4: a member of a classic group lives, and learns whether to
//! join again.
//!
//! - v1: throttle time. - v2: as v1. - v3: static members (KIP-345). - v4: flexible.
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{GroupRequest, GroupResponse};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let group_id = request.group_id.clone();
    let answer = ctx.broker.group(&group_id, GroupRequest::Heartbeat(request)).await;
    answer.and_then(GroupResponse::heartbeat).unwrap_or_else(|error| {
        // While the group loads no session runs: the member need not know.
        let error = match error {
            ErrorCode::CoordinatorLoadInProgress => ErrorCode::None,
            error => error,
        };
        HeartbeatResponse { error_code: error.code(), ..HeartbeatResponse::default() }
    })
}
