//! LeaveGroup (api key 13), versions 0-5: members leave a classic group.
//!
//! - v0-2: one member, whose error is the answer's. - v1: throttle time. - v3: several members,
//!   also by group instance (KIP-345). - v4: flexible. - v5: reason (KIP-800).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{GroupRequest, GroupResponse};
use ottla_protocol::messages::leave_group_request::MemberIdentity;
use ottla_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

/// From this version on several members leave at once.
const BATCHED_SINCE: i16 = 3;

/// Answers the request.
pub async fn handle(ctx: &RequestContext, mut request: LeaveGroupRequest) -> LeaveGroupResponse {
    if ctx.version < BATCHED_SINCE {
        let member_id = std::mem::take(&mut request.member_id);
        request.members = vec![MemberIdentity { member_id, ..MemberIdentity::default() }];
    }
    let group_id = request.group_id.clone();
    let answer = ctx.broker.group(&group_id, GroupRequest::Leave(request)).await;
    let mut response = answer.and_then(GroupResponse::leave).unwrap_or_else(|error| {
        LeaveGroupResponse { error_code: error.code(), ..LeaveGroupResponse::default() }
    });
    if ctx.version < BATCHED_SINCE && response.error_code == 0 {
        response.error_code = response.members.first().map_or(0, |member| member.error_code);
    }
    response
}
