//! AlterClientQuotas (api key 49), versions 0-1: sets and removes quotas (KIP-546).
//!
//! - v1: flexible.
//!
//! Known differences from Kafka: an `ip` entity must be an address; names are not looked up.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::alter_client_quotas_response::{EntityData, EntryData};
use ottla_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    match ctx.controller(ControllerRequest::AlterClientQuotas(request.clone())).await {
        Ok(ControllerReply::AlterClientQuotas(response)) => response,
        other => {
            let error = super::admin::controller_error(other);
            let entries = request.entries.into_iter().map(|entry| EntryData {
                error_code: error.code(),
                error_message: Some(error.message().to_owned()),
                entity: entry
                    .entity
                    .into_iter()
                    .map(|part| EntityData {
                        entity_type: part.entity_type,
                        entity_name: part.entity_name,
                    })
                    .collect(),
            });
            AlterClientQuotasResponse { entries: entries.collect(), ..Default::default() }
        }
    }
}
