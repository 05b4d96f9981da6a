//! ListGroups (api key 16), versions 0-5: the groups that this broker coordinates.
//!
//! - v1: throttle time. - v2: as v1. - v3: flexible. - v4: filter by state, and the state in the
//!   answer (KIP-518).
//! - v5: filter by type, and the type in the answer (KIP-848).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{GroupRequest, GroupResponse};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let list = GroupRequest::List { states: request.states_filter, types: request.types_filter };
    let mut response = ListGroupsResponse::default();
    for index in ctx.broker.group_coordinators() {
        let answer = ctx.broker.group_coordinator(index, list.clone()).await;
        match answer.and_then(GroupResponse::list) {
            Ok(groups) => response.groups.extend(groups),
            // The partition went to another broker, which lists its groups.
            Err(ErrorCode::NotCoordinator) => {}
            Err(error) => {
                return ListGroupsResponse {
                    error_code: error.code(),
                    ..ListGroupsResponse::default()
                };
            }
        }
    }
    response
}
