//! AlterUserScramCredentials (api key 51), version 0: sets and removes SCRAM credentials (KIP-554).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use ottla_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
};
use std::collections::BTreeSet;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let deleted = request.deletions.iter().map(|deletion| deletion.name.clone());
    let upserted = request.upsertions.iter().map(|upsertion| upsertion.name.clone());
    let users: BTreeSet<String> = deleted.chain(upserted).collect();
    match ctx.controller(ControllerRequest::AlterUserScramCredentials(request)).await {
        Ok(ControllerReply::AlterUserScramCredentials(response)) => response,
        other => {
            let error = super::admin::controller_error(other);
            let results = users.into_iter().map(|user| AlterUserScramCredentialsResult {
                user,
                error_code: error.code(),
                error_message: Some(error.message().to_owned()),
            });
            AlterUserScramCredentialsResponse { results: results.collect(), ..Default::default() }
        }
    }
}
