//! What a classic consumer puts into JoinGroup (its subscription) and gets from SyncGroup (its
//! assignment): opaque to the group protocol, but tools show it and offset deletion looks at it.
//!
//! Both are a version as INT16 and a body. Versions only add to the end, so that a version of the
//! future is read as the highest that is known.
//! Source: KIP-429, KIP-792; Kafka's ConsumerProtocol.

use bytes::Bytes;

use super::group::encode_part;
use crate::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use crate::wire::{Message, Reader, WireError};

/// The protocol type of consumer groups.
pub const PROTOCOL_TYPE: &str = "consumer";

/// The subscription in a JoinGroup request's protocol metadata, and the version it is of.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode_subscription(
    bytes: &Bytes,
) -> Result<(ConsumerProtocolSubscription, i16), WireError> {
    decode(bytes)
}

/// The assignment in a SyncGroup request or response, and the version it is of.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode_assignment(bytes: &Bytes) -> Result<(ConsumerProtocolAssignment, i16), WireError> {
    decode(bytes)
}

/// The bytes of a subscription.
pub fn encode_subscription(subscription: &ConsumerProtocolSubscription, version: i16) -> Bytes {
    encode_part(version, subscription, version)
}

/// The bytes of an assignment.
pub fn encode_assignment(assignment: &ConsumerProtocolAssignment, version: i16) -> Bytes {
    encode_part(version, assignment, version)
}

fn decode<M: Message>(bytes: &Bytes) -> Result<(M, i16), WireError> {
    let mut r = Reader::new(bytes.clone());
    let version = r.i16()?;
    if version < M::VERSIONS.0 {
        return Err(WireError::BadVersion { message: M::NAME, version });
    }
    let version = version.min(M::VERSIONS.1);
    Ok((M::decode(&mut r, version)?, version))
}
