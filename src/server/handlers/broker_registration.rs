//! BrokerRegistration (api key 62), versions 0-4: a broker has started (KIP-631).
//!
//! - v1: whether it migrates from ZooKeeper. - v2: its log directories (KIP-858). - v3: the epoch under which it
//!   stopped (KIP-966). - v4: features from 0.
//!
//! Served by the active controller, to nodes of the cluster. Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::{BrokerRegistrationRequest, BrokerRegistrationResponse};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: BrokerRegistrationRequest,
) -> BrokerRegistrationResponse {
    match ctx.controller(ControllerRequest::RegisterBroker(request)).await {
        Ok(ControllerReply::RegisterBroker(response)) => response,
        other => {
            let error_code = super::admin::controller_error(other).code();
            BrokerRegistrationResponse { error_code, ..Default::default() }
        }
    }
}
