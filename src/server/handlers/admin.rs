//! What the handlers share that ask the controller.

use super::RequestContext;
use crate::broker::effective::BrokerSources;
use crate::broker::{ApiError, ControllerReply, Image};
use crate::config::cordon::{CORDONED_LOG_DIRS, cordoned};
use ottla_protocol::ErrorCode;
use std::collections::BTreeMap;

/// The error to answer when the controller did not give the reply that belongs to the request.
pub(super) fn controller_error(reply: Result<ControllerReply, ErrorCode>) -> ErrorCode {
    reply.err().unwrap_or(ErrorCode::UnknownServerError)
}

/// Where this broker's configuration comes from.
pub(super) fn broker_sources<'a>(ctx: &'a RequestContext, image: &Image) -> BrokerSources<'a> {
    let settings = ctx.broker.settings();
    BrokerSources::new(image, settings.node_id, &settings.controller.values)
}

/// A broker's configuration that is a number.
pub(super) fn broker_number(ctx: &RequestContext, name: &str) -> Option<i64> {
    let image = ctx.broker.image();
    broker_sources(ctx, &image).broker_key(name).value?.parse().ok()
}

/// Whether these configurations of a broker cordon only directories that it has.
pub(super) fn check_cordoned_dirs(
    ctx: &RequestContext,
    configs: &BTreeMap<String, String>,
) -> Result<(), ApiError> {
    let Some(value) = configs.get(CORDONED_LOG_DIRS) else { return Ok(()) };
    let checked = cordoned(value, &ctx.broker.settings().log_dirs);
    checked.map(drop).map_err(|text| {
        ApiError::new(ErrorCode::InvalidRequest, format!("requirement failed: {text}"))
    })
}

/// Whether the running cleaner can have these configurations of a broker, or of all brokers.
pub(super) fn check_cleaner(
    ctx: &RequestContext,
    name: &str,
    configs: &BTreeMap<String, String>,
) -> Result<(), ApiError> {
    let checked = ctx.broker.settings().check_cleaner(&ctx.broker.image(), name, configs);
    checked.map_err(|text| ApiError::new(ErrorCode::InvalidRequest, text))
}

/// Whether a broker's configuration is `true`.
pub(super) fn is_enabled(ctx: &RequestContext, name: &str) -> bool {
    let image = ctx.broker.image();
    broker_sources(ctx, &image).broker_key(name).value.as_deref() == Some("true")
}

/// Whether a request is for this cluster; one that names none is for any.
pub(super) fn check_cluster_id(ctx: &RequestContext, id: Option<&str>) -> Result<(), ApiError> {
    let own = ctx.broker.cluster_id();
    match id.filter(|id| *id != own) {
        None => Ok(()),
        Some(id) => {
            let text = format!("The given id \"{id}\" doesn't match the cluster id \"{own}\"");
            Err(ApiError::new(ErrorCode::InconsistentClusterId, text))
        }
    }
}
