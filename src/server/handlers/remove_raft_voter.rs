//! RemoveRaftVoter (api key 81), version 0: takes a voter's vote (KIP-853). It goes on following.
//!
//! Known differences from Kafka: a leader whose own vote is taken has another one elected first, which then does it;
//! the last voter is not removed (INVALID_REQUEST).

use super::RequestContext;
use crate::broker::ApiError;
use ottla_protocol::apis::ListenerType;
use ottla_protocol::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};
use ottla_protocol::{BrokerId, ErrorCode};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: RemoveRaftVoterRequest,
) -> RemoveRaftVoterResponse {
    let is_brokers = ctx.listener_type == ListenerType::Broker;
    if !(is_brokers && ctx.broker.is_led_elsewhere()) {
        let removed = remove(ctx, &request).await;
        let is_own = request.voter_id == ctx.broker.node_id().0;
        let is_not_led = |error: &ApiError| error.code == ErrorCode::NotLeaderOrFollower;
        let is_handed_over = removed.as_ref().is_err_and(is_not_led) && (is_brokers || is_own);
        if !(is_handed_over && ctx.broker.is_led_elsewhere()) {
            return answered(removed);
        }
    }
    match ctx.broker.forward(ctx.version, request).await {
        Ok(response) => response,
        Err(error) => answered(Err(error.into())),
    }
}

async fn remove(ctx: &RequestContext, request: &RemoveRaftVoterRequest) -> Result<(), ApiError> {
    super::admin::check_cluster_id(ctx, request.cluster_id.as_deref())?;
    if request.voter_id < 0 || request.voter_directory_id.is_nil() {
        let why = "Remove voter request didn't include a valid voter";
        return Err(ApiError::new(ErrorCode::InvalidRequest, why));
    }
    let id = BrokerId(request.voter_id);
    let removed = ctx.broker.remove_voter(id, request.voter_directory_id).await;
    Ok(removed?)
}

fn answered(answer: Result<(), ApiError>) -> RemoveRaftVoterResponse {
    let (error_code, error_message) = match answer {
        Ok(()) => (0, None),
        Err(error) => (error.code.code(), error.message),
    };
    RemoveRaftVoterResponse { error_code, error_message, ..Default::default() }
}
