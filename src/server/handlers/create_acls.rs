//! CreateAcls (api key 30), versions 1-3: answered as by a broker without an authorizer (KIP-140).
//!
//! - v1: prefixed patterns (KIP-290). - v2: flexible. - v3: user resources (KIP-373).
//!
//! Known differences from Kafka: there is no authorizer to configure yet.

use super::RequestContext;
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::create_acls_response::AclCreationResult;
use ottla_protocol::messages::{CreateAclsRequest, CreateAclsResponse};

/// Answers the request.
pub async fn handle(_ctx: &RequestContext, request: CreateAclsRequest) -> CreateAclsResponse {
    let disabled = AclCreationResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured.".into()),
    };
    CreateAclsResponse { results: vec![disabled; request.creations.len()], ..Default::default() }
}
