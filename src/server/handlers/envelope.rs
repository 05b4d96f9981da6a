//! Envelope (api key 58), version 0: a request of a client that a broker passes on to the controller (KIP-590).
//!
//! In it are the client's request with its header, who sent it, and from which address; the answer holds what the
//! client is to get, header included. Apache Kafka's brokers send all that only the controller decides so; Ottla's send
//! such requests as they are. ClusterAction, which it takes, everybody has without an authorizer, and the principal is
//! read and not asked for anything.
//!
//! Errors of the envelope: PRINCIPAL_DESERIALIZATION_FAILURE; INVALID_REQUEST for an address that is none and for an
//! API that brokers do not pass on; UNSUPPORTED_VERSION for a request that cannot be read or is not served in this
//! version (Kafka's broker closes the client's connection then); NOT_CONTROLLER where this is not the active
//! controller (Kafka's broker looks for that and asks again).
//! Known differences from Kafka: ListPartitionReassignments is answered by every controller.

use super::{Close, RequestContext, route};
use crate::env::net::SendQueue;
use bytes::Bytes;
use ottla_protocol::apis;
use ottla_protocol::frame::LENGTH_BYTES;
use ottla_protocol::messages::{DefaultPrincipalData, EnvelopeRequest, EnvelopeResponse};
use ottla_protocol::{ApiKey, ErrorCode, Message, Reader, request};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the context of a request says that came in an envelope.
#[derive(Debug, Default)]
pub(crate) struct Enveloped {
    /// Whether its answer is that of a controller that is not the active one.
    is_misdirected: AtomicBool,
}

impl RequestContext {
    /// Notes that this request gets the answer of a controller that is not the active one.
    pub(super) fn note_misdirected(&self) {
        if let Some(enveloped) = &self.enveloped {
            enveloped.is_misdirected.store(true, Ordering::Relaxed);
        }
    }
}

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: EnvelopeRequest) -> EnvelopeResponse {
    match answer(ctx, request).await {
        Ok(bytes) => EnvelopeResponse { response_data: Some(bytes), error_code: 0 },
        Err(error) => {
            tracing::debug!(peer = %ctx.peer, %error, "a request in an envelope is not answered");
            EnvelopeResponse { response_data: None, error_code: error.code() }
        }
    }
}

/// Header and body of what the client is to get.
async fn answer(ctx: &RequestContext, envelope: EnvelopeRequest) -> Result<Bytes, ErrorCode> {
    check_principal(envelope.request_principal)?;
    let client = client_address(&envelope.client_host_address)?;
    let unreadable = |_| ErrorCode::UnsupportedVersion;
    let (header, body) = request::parse_header(envelope.request_data).map_err(unreadable)?;
    let api = header.api().ok_or(ErrorCode::UnsupportedVersion)?;
    if !is_forwardable(api) {
        return Err(ErrorCode::InvalidRequest);
    }
    let served = apis::check(header.api_key, header.api_version, ctx.listener_type);
    served.ok_or(ErrorCode::UnsupportedVersion)?;
    let inner = RequestContext {
        broker: ctx.broker.clone(),
        version: header.api_version,
        correlation_id: header.correlation_id,
        client_id: header.client_id,
        // The envelope has no port.
        peer: SocketAddr::new(client, 0),
        local: ctx.local,
        listener: ctx.listener.clone(),
        listener_type: ctx.listener_type,
        is_undecided: false,
        is_dialled_address_advertised: ctx.is_dialled_address_advertised,
        shared: ctx.shared.clone(),
        peer_broker: OnceLock::new(),
        peer_voter: OnceLock::new(),
        has_asked: AtomicBool::new(false),
        enveloped: Some(Enveloped::default()),
    };
    let pending = route(&inner, api, body).ok_or(ErrorCode::UnsupportedVersion)?;
    let answer = pending.await.map_err(|close| failed(&close))?;
    let enveloped = inner.enveloped.unwrap_or_default();
    if enveloped.is_misdirected.into_inner() {
        return Err(ErrorCode::NotController);
    }
    Ok(without_length(answer))
}

/// What a broker passes on to the controller: Kafka's list. What of it is not served is refused by its version.
fn is_forwardable(api: ApiKey) -> bool {
    matches!(
        api,
        ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::CreateAcls
            | ApiKey::DeleteAcls
            | ApiKey::AlterConfigs
            | ApiKey::CreatePartitions
            | ApiKey::CreateDelegationToken
            | ApiKey::RenewDelegationToken
            | ApiKey::ExpireDelegationToken
            | ApiKey::ElectLeaders
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::AlterPartitionReassignments
            | ApiKey::ListPartitionReassignments
            | ApiKey::AlterClientQuotas
            | ApiKey::AlterUserScramCredentials
            | ApiKey::DescribeQuorum
            | ApiKey::UpdateFeatures
            | ApiKey::UnregisterBroker
            | ApiKey::AllocateProducerIds
            | ApiKey::AddRaftVoter
            | ApiKey::RemoveRaftVoter
    )
}

/// Whether the principal is one: a version, and what that says.
fn check_principal(principal: Option<Bytes>) -> Result<(), ErrorCode> {
    let read = |bytes| {
        let mut r = Reader::new(bytes);
        let version = r.i16()?;
        DefaultPrincipalData::from_bytes(r.rest(), version)
    };
    match principal.map(read) {
        Some(Ok(_)) => Ok(()),
        Some(Err(_)) | None => Err(ErrorCode::PrincipalDeserializationFailure),
    }
}

/// An address of four or of sixteen bytes.
fn client_address(bytes: &[u8]) -> Result<IpAddr, ErrorCode> {
    let four = bytes.first_chunk::<4>().filter(|_| bytes.len() == 4);
    let sixteen = bytes.first_chunk::<16>().filter(|_| bytes.len() == 16);
    let address = four.map(|it| IpAddr::from(*it)).or(sixteen.map(|it| IpAddr::from(*it)));
    address.ok_or(ErrorCode::InvalidRequest)
}

/// The envelope's error for a request that a connection of its own would end with.
fn failed(close: &Close) -> ErrorCode {
    match close {
        Close::Malformed(_) | Close::NotServed { .. } => ErrorCode::UnsupportedVersion,
        Close::ByPeer
        | Close::Broken(_)
        | Close::Idle
        | Close::Frame(_)
        | Close::OtherCluster { .. }
        | Close::UnansweredProduce(_) => ErrorCode::UnknownServerError,
    }
}

/// A frame's bytes without its length.
fn without_length(mut frame: SendQueue) -> Bytes {
    std::mem::take(frame.bytes_mut()).freeze().slice(LENGTH_BYTES..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_four_bytes_or_sixteen() {
        assert_eq!(client_address(&[127, 0, 0, 1]), Ok(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(client_address(&[0; 16]), Ok(IpAddr::from([0; 16])));
        for bytes in [&[][..], &[1; 3], &[1; 5], &[1; 17]] {
            assert_eq!(client_address(bytes), Err(ErrorCode::InvalidRequest));
        }
    }

    #[test]
    fn a_principal_is_a_version_and_its_data() {
        let failure = Err(ErrorCode::PrincipalDeserializationFailure);
        // Version 0, "User", "ANONYMOUS", not by token, no tagged fields: as Kafka writes it.
        let anonymous = b"\0\0\x05User\x0aANONYMOUS\0\0";
        assert_eq!(check_principal(Some(Bytes::from_static(anonymous))), Ok(()));
        assert_eq!(check_principal(None), failure);
        assert_eq!(check_principal(Some(Bytes::new())), failure);
        assert_eq!(check_principal(Some(Bytes::from_static(b"\0\x01\x05User\x01\0\0"))), failure);
        assert_eq!(check_principal(Some(Bytes::from_static(b"\0\0\x05User\x0aANON"))), failure);
    }
}
