//! AddRaftVoter (api key 80), versions 0-1: gives a controller that follows a vote (KIP-853).
//!
//! - v1: may be answered before the change is committed (KIP-1186).
//!
//! Known differences from Kafka: the leader waits for the new voter to catch up as long as the request's time-out
//! says, where Kafka asks once; the levels of `kraft.version` that the new voter supports are taken to be this
//! broker's, since no other controller can vote beside it.

use super::RequestContext;
use crate::broker::{Answered, ApiError, Voter, VoterEndpoint};
use ottla_protocol::apis::ListenerType;
use ottla_protocol::messages::{AddRaftVoterRequest, AddRaftVoterResponse};
use ottla_protocol::{BrokerId, ErrorCode};
use std::time::Duration;

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: AddRaftVoterRequest) -> AddRaftVoterResponse {
    if ctx.listener_type == ListenerType::Broker && ctx.broker.is_led_elsewhere() {
        return match ctx.broker.forward(ctx.version, request).await {
            Ok(response) => response,
            Err(error) => answered(Err(error.into())),
        };
    }
    answered(add(ctx, request).await)
}

async fn add(ctx: &RequestContext, request: AddRaftVoterRequest) -> Result<(), ApiError> {
    super::admin::check_cluster_id(ctx, request.cluster_id.as_deref())?;
    if request.voter_id < 0 || request.voter_directory_id.is_nil() {
        let why = "Add voter request didn't include a valid voter";
        return Err(ApiError::new(ErrorCode::InvalidRequest, why));
    }
    let listener = ctx.broker.quorum_listener();
    if !request.listeners.iter().any(|it| it.name == listener) {
        let why = format!(
            "Add voter request didn't include the endpoint for the default listener {listener}"
        );
        return Err(ApiError::new(ErrorCode::InvalidRequest, why));
    }
    let endpoint = |it: ottla_protocol::messages::add_raft_voter_request::Listener| VoterEndpoint {
        name: it.name,
        address: (it.host, it.port),
    };
    let voter = Voter {
        id: BrokerId(request.voter_id),
        directory_id: request.voter_directory_id,
        endpoints: request.listeners.into_iter().map(endpoint).collect(),
        kraft_versions: (0, 1),
    };
    let answered = match request.ack_when_committed {
        true => Answered::Committed,
        false => Answered::Written,
    };
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    Ok(ctx.broker.voting()?.add_voter(voter, answered, timeout).await?)
}

fn answered(answer: Result<(), ApiError>) -> AddRaftVoterResponse {
    let (error_code, error_message) = match answer {
        Ok(()) => (0, None),
        Err(error) => (error.code.code(), error.message),
    };
    AddRaftVoterResponse { error_code, error_message, ..Default::default() }
}
