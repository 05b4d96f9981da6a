//! DeleteAcls (api key 31), versions 1-3: answered as by a broker without an authorizer (KIP-140).
//!
//! - v1: prefixed patterns (KIP-290). - v2: flexible. - v3: user resources (KIP-373).
//!
//! Known differences from Kafka: there is no authorizer to configure yet.

use super::RequestContext;
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use ottla_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};

/// Answers the request.
pub async fn handle(_ctx: &RequestContext, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let disabled = DeleteAclsFilterResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured.".into()),
        ..Default::default()
    };
    let filter_results = vec![disabled; request.filters.len()];
    DeleteAclsResponse { filter_results, ..Default::default() }
}
