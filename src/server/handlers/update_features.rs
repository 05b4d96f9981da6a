//! UpdateFeatures (api key 57), versions 0-2: changes finalized features (KIP-584).
//!
//! - v0: a flag allows going down. - v1: the kind of change, and validate only (KIP-778).
//! - v2: no results for single features: all change or none does (KIP-1022).
//!
//! `kraft.version` is not in the metadata's records: the quorum raises it, where it is led, before the rest is done.
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::features::KRAFT_VERSION;
use crate::broker::{ApiError, ControllerReply, ControllerRequest};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::update_features_request::FeatureUpdateKey;
use ottla_protocol::messages::update_features_response::UpdatableFeatureResult;
use ottla_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

/// The kind of change that goes up (KIP-778).
const UPGRADE: i8 = 1;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    mut request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let kraft = request.feature_updates.iter().position(|update| update.feature == KRAFT_VERSION);
    if let Some(at) = kraft
        && ctx.broker.quorum_status().is_some_and(|it| it.leader_id == ctx.broker.node_id())
        && let Some(raised) = raise(ctx, &request.feature_updates[at], request.validate_only).await
    {
        if let Err(error) = raised {
            return refused(error);
        }
        request.feature_updates.remove(at);
        if request.feature_updates.is_empty() {
            return done(ctx);
        }
    }
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

/// Raises `kraft.version` where that is what the update wants; `None` where the controller is to answer it.
async fn raise(
    ctx: &RequestContext,
    update: &FeatureUpdateKey,
    validate_only: bool,
) -> Option<Result<(), ApiError>> {
    let (level, current) = (update.max_version_level, ctx.broker.kraft_version());
    let invalid = |why: &str| {
        let text = format!("Invalid update version {level} for feature {KRAFT_VERSION}. {why}");
        Some(Err(ApiError::new(ErrorCode::InvalidUpdateVersion, text)))
    };
    match level {
        1 if current == 1 => Some(Ok(())),
        0 if current == 1 => invalid("Can't downgrade the version of this feature."),
        1 if update.upgrade_type == UPGRADE && validate_only => Some(Ok(())),
        1 if update.upgrade_type == UPGRADE => {
            match async { ctx.broker.voting()?.make_dynamic().await }.await {
                Err(ErrorCode::InvalidUpdateVersion) => {
                    invalid("Not every voter was heard of since this controller leads.")
                }
                raised => Some(raised.map_err(ApiError::from)),
            }
        }
        _ => None,
    }
}

fn done(ctx: &RequestContext) -> UpdateFeaturesResponse {
    let result = UpdatableFeatureResult {
        feature: KRAFT_VERSION.to_owned(),
        // Kafka's text for no error, which it sends here.
        error_message: Some("NONE".to_owned()),
        ..Default::default()
    };
    let results = if ctx.version < 2 { vec![result] } else { Vec::new() };
    UpdateFeaturesResponse { error_message: None, results, ..Default::default() }
}

fn refused(error: ApiError) -> UpdateFeaturesResponse {
    let text = error.message.unwrap_or_default();
    UpdateFeaturesResponse {
        error_code: error.code.code(),
        error_message: Some(format!(
            "The update failed for all features since the following feature had an error: {text}"
        )),
        ..Default::default()
    }
}
