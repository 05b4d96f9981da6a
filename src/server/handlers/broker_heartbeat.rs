//! BrokerHeartbeat (api key 63), versions 0-2: a broker is alive, and where it stands (KIP-631).
//!
//! - v1: log directories that are offline (KIP-858). - v2: those that get nothing new (KIP-1066).
//!
//! Served by the active controller, to brokers of the cluster. The connection that it comes by tells as much: when it
//! is reset, the controller looks whether the broker is still there.
//! Known differences from Kafka: none in the answers.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse};
use ottla_protocol::{BrokerEpoch, BrokerId};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: BrokerHeartbeatRequest,
) -> BrokerHeartbeatResponse {
    let sender = (BrokerId(request.broker_id), BrokerEpoch(request.broker_epoch));
    match ctx.controller(ControllerRequest::BrokerHeartbeat(request)).await {
        Ok(ControllerReply::BrokerHeartbeat(response)) => {
            if response.error_code == 0 {
                // One connection belongs to one process: its first word stands.
                ctx.peer_broker.get_or_init(|| sender);
            }
            response
        }
        other => {
            let error_code = super::admin::controller_error(other).code();
            BrokerHeartbeatResponse { error_code, ..Default::default() }
        }
    }
}
