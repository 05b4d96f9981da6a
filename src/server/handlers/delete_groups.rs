//! DeleteGroups (api key 42), versions 0-3: deletes groups without members, with their offsets
//! (KIP-229).
//!
//! - v1: as v0. - v2: flexible. - v3: an error message for each group.
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{GroupRequest, GroupResponse};
use ottla_protocol::messages::delete_groups_response::DeletableGroupResult;
use ottla_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use std::collections::BTreeSet;

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut response = DeleteGroupsResponse::default();
    let mut seen = BTreeSet::new();
    for group_id in request.groups_names {
        if !seen.insert(group_id.clone()) {
            continue;
        }
        let delete = GroupRequest::DeleteGroups(vec![group_id.clone()]);
        let results =
            ctx.broker.group(&group_id, delete).await.and_then(GroupResponse::delete_groups);
        response.results.extend(results.unwrap_or_else(|error| {
            vec![DeletableGroupResult {
                group_id,
                error_code: error.code(),
                ..DeletableGroupResult::default()
            }]
        }));
    }
    response
}
