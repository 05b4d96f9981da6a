//! ApiVersions (api key 18), versions 0-5: which APIs and features this broker has.
//!
//! - v3: flexible, but with the oldest response header; the client's name and version, held against a pattern
//!   (KIP-511); supported and finalized features (KIP-584).
//! - v4: features whose lowest level is 0 are listed (KIP-1022); before they are left out.
//! - v5: the cluster and node that the client means; another one answers REBOOTSTRAP_REQUIRED (KIP-1242).
//!
//! A version that we do not know is answered in version 0 with UNSUPPORTED_VERSION and our APIs, so that the client
//! can come again. Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::Image;
use crate::broker::features::{FEATURES, KRAFT_VERSION};
use ottla_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};
use ottla_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ottla_protocol::{ErrorCode, apis};

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let is_named = is_software_name(&request.client_software_name)
        && is_software_name(&request.client_software_version);
    if ctx.version >= 3 && !is_named {
        return failure(ErrorCode::InvalidRequest);
    }
    if ctx.version >= 5 && is_meant_for_another(ctx, &request) {
        return failure(ErrorCode::RebootstrapRequired);
    }
    let image = ctx.broker.image();
    ApiVersionsResponse {
        api_keys: apis::advertised(ctx.listener_type),
        supported_features: supported_features(ctx.version, &image),
        finalized_features_epoch: image.offset.0,
        finalized_features: finalized_features(&image, ctx.broker.kraft_version()),
        ..Default::default()
    }
}

/// Whether the client has got to another cluster or broker than it means; without a cluster id it means anyone.
fn is_meant_for_another(ctx: &RequestContext, request: &ApiVersionsRequest) -> bool {
    request.cluster_id.as_deref().is_some_and(|cluster_id| {
        cluster_id != ctx.broker.cluster_id() || request.node_id != ctx.broker.node_id().0
    })
}

fn supported_features(version: i16, image: &Image) -> Vec<SupportedFeatureKey> {
    // Clients of earlier versions cannot read a lowest level of 0.
    let readable = FEATURES.iter().filter(|feature| version >= 4 || feature.range.min > 0);
    readable
        .map(|feature| SupportedFeatureKey {
            name: feature.name.to_owned(),
            min_version: feature.range.min,
            max_version: feature.range_at(image.features.level(feature.name)).max,
        })
        .collect()
}

fn finalized_features(image: &Image, kraft_version: i16) -> Vec<FinalizedFeatureKey> {
    let levels = image.features.levels.iter().map(|(name, level)| (name.as_str(), *level));
    let on = levels.chain([(KRAFT_VERSION, kraft_version)]).filter(|(_, level)| *level > 0);
    on.map(|(name, level)| FinalizedFeatureKey {
        name: name.to_owned(),
        max_version_level: level,
        min_version_level: level,
    })
    .collect()
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
