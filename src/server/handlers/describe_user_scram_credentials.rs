//! DescribeUserScramCredentials (api key 50), version 0: which users have SCRAM credentials
//! (KIP-554).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{ApiError, Image};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use ottla_protocol::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
use std::collections::BTreeMap;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    describe(&ctx.broker.image(), &request)
}

fn describe(
    image: &Image,
    request: &DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
    match request.users.as_deref() {
        None | Some([]) => {
            asked.extend(image.scram.credentials.keys().map(|(_, user)| (user.as_str(), 1)));
        }
        Some(users) => users.iter().for_each(|user| *asked.entry(&user.name).or_default() += 1),
    }
    let results = asked.into_iter().map(|(user, times)| match credentials(image, user, times) {
        Ok(credential_infos) => DescribeUserScramCredentialsResult {
            user: user.to_owned(),
            credential_infos,
            ..Default::default()
        },
        Err(error) => DescribeUserScramCredentialsResult {
            user: user.to_owned(),
            error_code: error.code.code(),
            error_message: error.message,
            ..Default::default()
        },
    });
    DescribeUserScramCredentialsResponse { results: results.collect(), ..Default::default() }
}

fn credentials(image: &Image, user: &str, times: usize) -> Result<Vec<CredentialInfo>, ApiError> {
    if times > 1 {
        let text = format!(
            "Cannot describe SCRAM credentials for the same user twice in a single request: {user}"
        );
        return Err(ApiError::new(ErrorCode::DuplicateResource, text));
    }
    let infos: Vec<CredentialInfo> = image
        .scram
        .credentials
        .iter()
        .filter(|((_, name), _)| name == user)
        .map(|((mechanism, _), credential)| CredentialInfo {
            mechanism: *mechanism,
            iterations: credential.iterations,
        })
        .collect();
    if infos.is_empty() {
        let text = format!("Attempt to describe a user credential that does not exist: {user}");
        return Err(ApiError::new(ErrorCode::ResourceNotFound, text));
    }
    Ok(infos)
}
