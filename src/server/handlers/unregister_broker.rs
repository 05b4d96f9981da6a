//! UnregisterBroker (api key 64), version 0: takes a broker out of the cluster (KIP-631).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    match ctx.controller(ControllerRequest::UnregisterBroker(request)).await {
        Ok(ControllerReply::UnregisterBroker(response)) => response,
        other => {
            let error = super::admin::controller_error(other);
            UnregisterBrokerResponse {
                error_code: error.code(),
                error_message: Some(error.message().to_owned()),
                ..Default::default()
            }
        }
    }
}
