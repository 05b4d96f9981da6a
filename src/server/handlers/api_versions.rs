//! ApiVersions (key 18), versions 0-5: which APIs and features this broker has.
//!
//! - v3: flexible, but with the oldest response header; the client's name and version, held against a pattern
//!   (KIP-511); supported and finalized features (KIP-584).
//! - v4: features whose lowest level is 0 are listed (KIP-1022); before they are left out.
//! - v5: the cluster and node that the client means; another one answers REBOOTSTRAP_REQUIRED (KIP-1242).
//!
//! A version that we do not know is answered in version 0 with UNSUPPORTED_VERSION and our APIs, so that the client
//! can come again. Known differences from Kafka: none.

use super::RequestContext;
use ottla_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ottla_protocol::{ErrorCode, apis};

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let named = is_software_name(&request.client_software_name)
        && is_software_name(&request.client_software_version);
    if ctx.version >= 3 && !named {
        return failure(ErrorCode::InvalidRequest);
    }
    ApiVersionsResponse { api_keys: apis::advertised(ctx.listener_type), ..Default::default() }
}

fn failure(error: ErrorCode) -> ApiVersionsResponse {
    ApiVersionsResponse { error_code: error.code(), ..Default::default() }
}

/// Letters and digits, with hyphens and dots between them.
fn is_software_name(name: &str) -> bool {
    let name = name.as_bytes();
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return false };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && name.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'))
}
