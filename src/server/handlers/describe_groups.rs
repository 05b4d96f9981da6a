//! DescribeGroups (api key 15), versions 0-6: state, protocol and members of classic groups.
//!
//! - v1: throttle time. - v2: as v1. - v3: authorized operations (KIP-430). - v4: group instance
//!   ids (KIP-345).
//! - v5: flexible. - v6: GROUP_ID_NOT_FOUND with a message; before, a group that does not exist is
//!   `Dead` (KIP-1043).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{GroupRequest, GroupResponse};
use ottla_protocol::messages::describe_groups_response::DescribedGroup;
use ottla_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

/// What can be done with a group, as bits of Kafka's operation codes: read 3, delete 6, describe 8,
/// describe configs 10, alter configs 11. Without an authorizer everybody may.
const ALL_GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut response = DescribeGroupsResponse::default();
    for group_id in request.groups {
        let describe =
            GroupRequest::Describe { version: ctx.version, groups: vec![group_id.clone()] };
        let described =
            ctx.broker.group(&group_id, describe).await.and_then(GroupResponse::describe);
        response.groups.extend(described.unwrap_or_else(|error| {
            vec![DescribedGroup { group_id, error_code: error.code(), ..DescribedGroup::default() }]
        }));
    }
    if request.include_authorized_operations {
        for group in response.groups.iter_mut().filter(|group| group.error_code == 0) {
            group.authorized_operations = ALL_GROUP_OPERATIONS;
        }
    }
    response
}
