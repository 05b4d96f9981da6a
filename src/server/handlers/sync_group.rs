//! SyncGroup (api key 14), versions 0-5: a member of a classic group gets its assignment, which the
//! leader brings.
//!
//! - v1: throttle time. - v2: as v1. - v3: static members (KIP-345). - v4: flexible.
//! - v5: protocol type and name, which must be there (KIP-559).
//!
//! Known differences from Kafka: a request that waits is answered when its member leaves or asks
//! again on another connection; Kafka never answers it.

use super::RequestContext;
use crate::broker::{GroupRequest, GroupResponse};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

/// Answers the request, when the leader has sent the assignments.
pub async fn handle(ctx: &RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    let failed = |error: ErrorCode| SyncGroupResponse {
        error_code: error.code(),
        ..SyncGroupResponse::default()
    };
    if ctx.version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return failed(ErrorCode::InconsistentGroupProtocol);
    }
    let group_id = request.group_id.clone();
    let answer = ctx.broker.group(&group_id, GroupRequest::Sync(request)).await;
    answer.and_then(GroupResponse::sync).unwrap_or_else(failed)
}
