//! RemoveRaftVoter (api key 81), version 0: takes a voter's vote (KIP-853). It goes on following.
//!
//! Known differences from Kafka: a leader whose own vote is taken has another one elected first, which then does it;
//! the last voter is not removed (INVALID_REQUEST).

use super::RequestContext;
use crate::broker::ApiError;
use ottla_protocol::apis::ListenerType;
use ottla_protocol::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};
use ottla_protocol::{BrokerId, ErrorCode};
use std::time::Duration;
use tokio::time::Instant;

/// How long a request looks for the leader that another one was followed by.
const SUCCESSION_MAX: Duration = Duration::from_secs(5);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: RemoveRaftVoterRequest,
) -> RemoveRaftVoterResponse {
    let deadline = Instant::now() + SUCCESSION_MAX;
    let is_own = request.voter_id == ctx.broker.node_id().0;
    let may_pass_on = is_own || ctx.listener_type == ListenerType::Broker;
    loop {
        let response = match may_pass_on && ctx.broker.is_led_elsewhere() {
            true => match ctx.broker.forward(ctx.version, request.clone()).await {
                Ok(response) => response,
                Err(error) => answered(Err(error.into())),
            },
            false => answered(remove(ctx, &request).await),
        };
        let is_led = response.error_code != ErrorCode::NotLeaderOrFollower.code();
        if is_led || !may_pass_on || Instant::now() >= deadline {
            return response;
        }
        tokio::time::sleep(PAUSE).await;
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
