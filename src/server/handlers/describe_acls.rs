//! DescribeAcls (api key 29), versions 1-3: answered as by a broker without an authorizer
//! (KIP-140).
//!
//! - v1: prefixed patterns (KIP-290). - v2: flexible. - v3: user resources (KIP-373).
//!
//! Known differences from Kafka: there is no authorizer to configure yet.

use super::RequestContext;
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

/// Answers the request.
pub async fn handle(_ctx: &RequestContext, _request: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured on the broker".into()),
        ..Default::default()
    }
}
