//! Requests and responses as frames: their headers, and bodies whose type is known late.
//!
//! Not here: which versions a broker serves (`apis.rs`), and the bodies (generated).
//! Source: KIP-482 (header versions), KIP-511 (the header of ApiVersions' response never changes).

use bytes::{Bytes, BytesMut};

use crate::frame::LENGTH_BYTES;
use crate::generated::ApiKey;
pub use crate::generated::any::{AnyRequest, AnyResponse};
use crate::types::BrokerId;
use crate::wire::{Message, Reader, Request, WireError, Writer};

/// The key under which voters of the metadata quorum send each other messages of their own, on the controller's
/// listeners only: "OT". It is no API of Kafka's and in no answer to ApiVersions.
pub const QUORUM_MESSAGE_KEY: i16 = 0x4f54;

/// The name by which a node says in ApiVersions (KIP-511) that it wants the controller: on a listener that serves
/// clients and the quorum, its connection is one of a controller's listener from then on.
pub const CONTROLLER_PEER: &str = "ottla-controller-peer";

/// What stands before a request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// Key of an API in Kafka's schemas.
    pub api_key: i16,
    /// The version of request and response, which nobody has checked yet.
    pub api_version: i16,
    /// Comes back with the response.
    pub correlation_id: i32,
    /// `client.id`; Kafka takes null for an empty one.
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// The API of the key, which [`parse_header`] has seen to exist.
    pub fn api(&self) -> Option<ApiKey> {
        ApiKey::from_code(self.api_key)
    }
}

/// Whether request and response bodies are flexible in this version.
pub fn is_flexible(api: ApiKey, version: i16) -> bool {
    version >= api.flexible_since()
}

/// Whether the response's header has tagged fields.
pub fn has_flexible_header(api: ApiKey, version: i16) -> bool {
    // A client that has asked for a version the broker does not have must be able to read the
    // answer.
    api != ApiKey::ApiVersions && is_flexible(api, version)
}

/// Reads a request's header; the reader stands at the body then.
///
/// # Errors
/// `Invalid` for an api key that is in no schema, else what is wrong with the bytes.
pub fn parse_header(frame: Bytes) -> Result<(RequestHeader, Reader), WireError> {
    let mut r = Reader::new(frame);
    let api_key = r.i16()?;
    let api_version = r.i16()?;
    let api = ApiKey::from_code(api_key);
    if api.is_none() && api_key != QUORUM_MESSAGE_KEY {
        return Err(WireError::Invalid(format!("unknown api key {api_key}")));
    }
    let correlation_id = r.i32()?;
    let client_id = r.nullable_string(false, true)?;
    if api.is_some_and(|api| is_flexible(api, api_version)) {
        r.skip_tagged()?;
    }
    Ok((RequestHeader { api_key, api_version, correlation_id, client_id }, r))
}

/// A request with a body of any API, as fuzzers and tests need it. Bytes after the body are left
/// alone, as in Kafka.
///
/// # Errors
/// [`WireError`] when header or body are not what they should be.
pub fn try_decode_any(frame: Bytes) -> Result<(RequestHeader, AnyRequest), WireError> {
    let (header, mut r) = parse_header(frame)?;
    let body = decode_body(header.api_key, header.api_version, &mut r)?;
    Ok((header, body))
}

/// The body of a request of any API.
///
/// # Errors
/// [`WireError`] when the key is unknown or the bytes are not such a request.
pub fn decode_body(key: i16, version: i16, r: &mut Reader) -> Result<AnyRequest, WireError> {
    let Some(api) = ApiKey::from_code(key) else {
        return Err(WireError::Invalid(format!("unknown api key {key}")));
    };
    AnyRequest::decode(api, r, version)
}

/// Begins a response's frame: room for the length, then the header. The body comes after.
pub fn begin_response(correlation_id: i32, api: ApiKey, version: i16) -> Writer {
    let mut w = Writer::append_to(BytesMut::with_capacity(256));
    w.i32(0);
    w.i32(correlation_id);
    if has_flexible_header(api, version) {
        w.no_tags();
    }
    w
}

/// Ends a frame that [`begin_response`] began. `following` more bytes of it are sent by another way
/// (`sendfile`).
pub fn finish_frame(mut w: Writer, following: usize) -> BytesMut {
    let length = w.len() - LENGTH_BYTES + following;
    w.set_i32(0, length as i32);
    w.into_inner()
}

/// The whole frame, length included, of the response to the request with this correlation id.
pub fn write_response<R: Message>(correlation_id: i32, version: i16, body: &R) -> BytesMut {
    let mut w = match ApiKey::from_code(R::KEY) {
        Some(api) => begin_response(correlation_id, api, version),
        None => unreachable!("{} is a response, whose key is an api key", R::NAME),
    };
    body.encode(&mut w, version);
    finish_frame(w, 0)
}

/// The whole frame, length included, of a request.
pub fn write_request<R: Request>(
    correlation_id: i32,
    client_id: Option<&str>,
    version: i16,
    body: &R,
) -> BytesMut {
    let mut w = begin_request(R::KEY, version, correlation_id, client_id, R::FLEXIBLE);
    body.encode(&mut w, version);
    finish_frame(w, 0)
}

/// The whole frame, length included, of a message that voter `sender` of a cluster sends another; version 0.
pub fn write_quorum_message(
    correlation_id: i32,
    (sender, cluster_id): (BrokerId, &str),
    body: &[u8],
) -> BytesMut {
    let mut w = begin_request(QUORUM_MESSAGE_KEY, 0, correlation_id, None, i16::MAX);
    w.i32(sender.0);
    w.string(cluster_id, false);
    w.raw(body);
    finish_frame(w, 0)
}

/// The whole frame, length included, of the answer to a voter's message.
pub fn write_quorum_answer(correlation_id: i32, body: &[u8]) -> BytesMut {
    let mut w = Writer::append_to(BytesMut::with_capacity(8 + body.len()));
    w.i32(0);
    w.i32(correlation_id);
    w.raw(body);
    finish_frame(w, 0)
}

/// The whole frame, length included, of a request of any API.
pub fn write_any_request(
    correlation_id: i32,
    client_id: Option<&str>,
    version: i16,
    body: &AnyRequest,
) -> BytesMut {
    let api = body.key();
    let flexible_since = api.flexible_since();
    let mut w = begin_request(api as i16, version, correlation_id, client_id, flexible_since);
    body.encode(&mut w, version);
    finish_frame(w, 0)
}

fn begin_request(
    key: i16,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    flexible_since: i16,
) -> Writer {
    let mut w = Writer::append_to(BytesMut::with_capacity(256));
    w.i32(0);
    w.i16(key);
    w.i16(version);
    w.i32(correlation_id);
    w.nullable_string(client_id, false, true);
    if version >= flexible_since {
        w.no_tags();
    }
    w
}

/// Correlation id and body of a response's frame, which comes without its length.
///
/// # Errors
/// [`WireError`] when the bytes are not exactly such a response.
pub fn parse_response<R: Message>(frame: Bytes, version: i16) -> Result<(i32, R), WireError> {
    let Some(api) = ApiKey::from_code(R::KEY) else {
        return Err(WireError::Invalid(format!("{} is no response", R::NAME)));
    };
    let (correlation_id, r) = parse_response_header(frame, api, version)?;
    Ok((correlation_id, R::from_bytes(r.rest(), version)?))
}

/// Correlation id of a response's frame; the reader stands at the body then.
///
/// # Errors
/// [`WireError`] when the header is cut.
pub fn parse_response_header(
    frame: Bytes,
    api: ApiKey,
    version: i16,
) -> Result<(i32, Reader), WireError> {
    let mut r = Reader::new(frame);
    let correlation_id = r.i32()?;
    if has_flexible_header(api, version) {
        r.skip_tagged()?;
    }
    Ok((correlation_id, r))
}

#[cfg(test)]
mod tests;
