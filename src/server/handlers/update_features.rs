//! UpdateFeatures (api key 57), versions 0-2: changes finalized features (KIP-584).
//!
//! - v0: a flag allows going down. - v1: the kind of change, and validate only (KIP-778).
//! - v2: no results for single features: all change or none does (KIP-1022).
//!
//! Known differences from Kafka: `kraft.version` cannot be raised.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let operation = ControllerRequest::UpdateFeatures { request, version: ctx.version };
    match ctx.controller(operation).await {
        Ok(ControllerReply::UpdateFeatures(response)) => response,
        other => {
            let error = super::admin::controller_error(other);
            UpdateFeaturesResponse {
                error_code: error.code(),
                error_message: Some(error.message().to_owned()),
                ..Default::default()
            }
        }
    }
}
