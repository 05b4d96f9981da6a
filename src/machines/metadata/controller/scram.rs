//! SCRAM credentials.
//!
//! The client salts and iterates; what is kept is what a server needs to check a proof. Source:
//! KIP-554, RFC 5802.

use super::{ApiError, Controller, ControllerReply, Decision};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use ottla_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use ottla_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use ottla_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
};
use ottla_protocol::metadata::{RemoveUserScramCredentialRecord, UserScramCredentialRecord};
use ottla_protocol::{ErrorCode, MetadataRecord};
use sha2::{Digest, Sha256, Sha512};
use std::collections::BTreeMap;

const SHA_256: i8 = 1;
const SHA_512: i8 = 2;
const ITERATIONS_MIN: i32 = 4096;
const ITERATIONS_MAX: i32 = 16384;

impl Controller {
    pub(super) fn alter_scram(&self, request: &AlterUserScramCredentialsRequest) -> Decision {
        let mut outcomes: BTreeMap<&str, Result<MetadataRecord, ApiError>> = BTreeMap::new();
        let twice = || {
            let text = "A user credential cannot be altered twice in the same request";
            Err(ApiError::new(ErrorCode::DuplicateResource, text))
        };
        for deletion in &request.deletions {
            let outcome = match outcomes.contains_key(deletion.name.as_str()) {
                true => twice(),
                false => self.delete_credential(deletion),
            };
            outcomes.insert(&deletion.name, outcome);
        }
        for upsertion in &request.upsertions {
            let outcome = match outcomes.contains_key(upsertion.name.as_str()) {
                true => twice(),
                false => new_credential(upsertion),
            };
            outcomes.insert(&upsertion.name, outcome);
        }
        let mut records = Vec::new();
        let results = outcomes
            .into_iter()
            .map(|(user, outcome)| {
                let error = match outcome {
                    Ok(record) => {
                        records.push(record);
                        ErrorCode::None.into()
                    }
                    Err(error) => error,
                };
                AlterUserScramCredentialsResult {
                    user: user.to_owned(),
                    error_code: error.code.code(),
                    error_message: error.message,
                }
            })
            .collect();
        let response = AlterUserScramCredentialsResponse { results, ..Default::default() };
        (records, ControllerReply::AlterUserScramCredentials(response))
    }

    fn delete_credential(
        &self,
        deletion: &ScramCredentialDeletion,
    ) -> Result<MetadataRecord, ApiError> {
        check_user(&deletion.name, deletion.mechanism)?;
        let key = (deletion.mechanism, deletion.name.clone());
        if !self.image.scram.credentials.contains_key(&key) {
            return Err(ApiError::new(
                ErrorCode::ResourceNotFound,
                "Attempt to delete a user credential that does not exist",
            ));
        }
        Ok(MetadataRecord::RemoveUserScramCredential(RemoveUserScramCredentialRecord {
            name: deletion.name.clone(),
            mechanism: deletion.mechanism,
        }))
    }
}

fn check_user(name: &str, mechanism: i8) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::new(ErrorCode::UnacceptableCredential, "Username must not be empty"));
    }
    if ![SHA_256, SHA_512].contains(&mechanism) {
        return Err(ApiError::new(ErrorCode::UnsupportedSaslMechanism, "Unknown SCRAM mechanism"));
    }
    Ok(())
}

fn new_credential(upsertion: &ScramCredentialUpsertion) -> Result<MetadataRecord, ApiError> {
    check_user(&upsertion.name, upsertion.mechanism)?;
    if upsertion.iterations < ITERATIONS_MIN {
        return Err(ApiError::new(ErrorCode::UnacceptableCredential, "Too few iterations"));
    }
    if upsertion.iterations > ITERATIONS_MAX {
        return Err(ApiError::new(ErrorCode::UnacceptableCredential, "Too many iterations"));
    }
    let salted = &upsertion.salted_password;
    let (stored_key, server_key) = if upsertion.mechanism == SHA_256 {
        let client_key = hmac_sha_256(salted, b"Client Key")?;
        (Bytes::copy_from_slice(&Sha256::digest(&client_key)), hmac_sha_256(salted, b"Server Key")?)
    } else {
        let client_key = hmac_sha_512(salted, b"Client Key")?;
        (Bytes::copy_from_slice(&Sha512::digest(&client_key)), hmac_sha_512(salted, b"Server Key")?)
    };
    Ok(MetadataRecord::UserScramCredential(UserScramCredentialRecord {
        name: upsertion.name.clone(),
        mechanism: upsertion.mechanism,
        salt: upsertion.salt.clone(),
        stored_key,
        server_key,
        iterations: upsertion.iterations,
    }))
}

fn hmac_sha_256(key: &[u8], text: &[u8]) -> Result<Bytes, ApiError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| bad_key())?;
    mac.update(text);
    Ok(Bytes::copy_from_slice(&mac.finalize().into_bytes()))
}

fn hmac_sha_512(key: &[u8], text: &[u8]) -> Result<Bytes, ApiError> {
    let mut mac = Hmac::<Sha512>::new_from_slice(key).map_err(|_| bad_key())?;
    mac.update(text);
    Ok(Bytes::copy_from_slice(&mac.finalize().into_bytes()))
}

fn bad_key() -> ApiError {
    ApiError::from(ErrorCode::UnacceptableCredential)
}
