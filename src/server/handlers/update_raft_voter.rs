//! UpdateRaftVoter (api key 82), version 0: where a voter listens now, and which levels of `kraft.version` it supports
//! (KIP-853).
//!
//! Known differences from Kafka: while `kraft.version` is 0 the answer is UNSUPPORTED_VERSION; voters of this broker's
//! own kind say it in a message of their own.

use super::RequestContext;
use crate::broker::{Voter, VoterEndpoint};
use ottla_protocol::messages::update_raft_voter_request::Listener;
use ottla_protocol::messages::update_raft_voter_response::CurrentLeader;
use ottla_protocol::messages::{UpdateRaftVoterRequest, UpdateRaftVoterResponse};
use ottla_protocol::{BrokerId, ErrorCode};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: UpdateRaftVoterRequest,
) -> UpdateRaftVoterResponse {
    let error = match update(ctx, request).await {
        Ok(()) => ErrorCode::None,
        Err(error) => error,
    };
    let status = ctx.broker.quorum_status();
    let leader = status.map(|status| {
        let address = ctx.broker.settings().controllers.get(status.leader_id);
        let (host, port) = address.unwrap_or_default();
        CurrentLeader {
            leader_id: status.leader_id.0,
            leader_epoch: status.leader_epoch.0,
            host,
            port: i32::from(port),
        }
    });
    UpdateRaftVoterResponse {
        error_code: error.code(),
        current_leader: leader.unwrap_or_default(),
        ..Default::default()
    }
}

async fn update(ctx: &RequestContext, request: UpdateRaftVoterRequest) -> Result<(), ErrorCode> {
    super::admin::check_cluster_id(ctx, request.cluster_id.as_deref())
        .map_err(|error| error.code)?;
    let status = ctx.broker.quorum_status().ok_or(ErrorCode::NotLeaderOrFollower)?;
    if status.leader_id != ctx.broker.node_id() {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    match request.current_leader_epoch - status.leader_epoch.0 {
        0 => {}
        older if older < 0 => return Err(ErrorCode::FencedLeaderEpoch),
        _ => return Err(ErrorCode::UnknownLeaderEpoch),
    }
    let versions = &request.k_raft_version_feature;
    let versions = (versions.min_supported_version, versions.max_supported_version);
    let listener = ctx.broker.quorum_listener();
    let is_valid = request.voter_id >= 0
        && !request.voter_directory_id.is_nil()
        && request.listeners.iter().any(|it| it.name == listener)
        && (0..=versions.1).contains(&versions.0);
    if !is_valid {
        return Err(ErrorCode::InvalidRequest);
    }
    let endpoint = |it: Listener| VoterEndpoint { name: it.name, address: (it.host, it.port) };
    let voter = Voter {
        id: BrokerId(request.voter_id),
        directory_id: request.voter_directory_id,
        endpoints: request.listeners.into_iter().map(endpoint).collect(),
        kraft_versions: versions,
    };
    ctx.broker.voting()?.update_voter(voter).await
}
