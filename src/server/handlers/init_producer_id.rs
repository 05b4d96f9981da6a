//! InitProducerId (api key 22), versions 0-5: an id for an idempotent producer (KIP-98).
//!
//! - v1: as v0. - v2: flexible. - v3: a producer names the id and epoch it had (KIP-360).
//! - v4: PRODUCER_FENCED. - v5: TRANSACTION_ABORTABLE (KIP-890).
//!
//! Ids come from blocks that the controller records. Known differences from Kafka: transactions are not served yet,
//! so that a transactional id answers COORDINATOR_NOT_AVAILABLE, as Kafka does while it cannot make
//! `__transaction_state`.

use super::RequestContext;
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let failed = |error: ErrorCode| InitProducerIdResponse {
        error_code: error.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        return failed(ErrorCode::InvalidRequest);
    }
    match request.transactional_id.as_deref() {
        None => {}
        Some("") => return failed(ErrorCode::InvalidRequest),
        Some(_) => return failed(ErrorCode::CoordinatorNotAvailable),
    }
    match ctx.broker.next_producer_id().await {
        Ok(producer_id) => InitProducerIdResponse {
            producer_id: producer_id.0,
            producer_epoch: 0,
            ..Default::default()
        },
        Err(error) => failed(error),
    }
}
