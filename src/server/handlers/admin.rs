//! What the handlers share that ask the controller.

use super::RequestContext;
use crate::broker::effective::BrokerSources;
use crate::broker::{ControllerReply, Image};
use ottla_protocol::ErrorCode;

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

/// Whether a broker's configuration is `true`.
pub(super) fn is_enabled(ctx: &RequestContext, name: &str) -> bool {
    let image = ctx.broker.image();
    broker_sources(ctx, &image).broker_key(name).value.as_deref() == Some("true")
}
