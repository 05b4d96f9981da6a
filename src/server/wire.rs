//! Frames and request headers as a connection reads them.

use bytes::{Buf, Bytes, BytesMut};
use ottla_protocol::generated::SCHEMA_APIS;
use ottla_protocol::messages::RequestHeader;
use ottla_protocol::{ApiKey, Message, Reader, WireError};

/// The length of the frame at the start of `input`, where it is there and could be one.
pub(crate) fn frame_length(input: &BytesMut) -> Option<usize> {
    let length = i32::from_be_bytes(*input.first_chunk::<4>()?);
    usize::try_from(length).ok()
}

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The peer speaks HTTP.
    #[error("the peer speaks HTTP, not Kafka's protocol")]
    Http,
    /// The peer speaks TLS.
    #[error("the peer speaks TLS on a listener without it")]
    Tls,
    /// The length cannot be one.
    #[error("the frame's length {length} is not between 0 and {max}")]
    BadLength {
        /// The length on the wire.
        length: i32,
        /// `socket.request.max.bytes`.
        max: usize,
    },
}

/// Takes the next whole frame off `input`, without its length.
///
/// # Errors
/// Every variant of [`FrameError`], before anything is allocated for the frame.
pub(crate) fn next_frame(input: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(first) = input.first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*first);
    let size = usize::try_from(length).ok().filter(|size| *size <= max);
    let Some(size) = size else {
        return Err(match first {
            b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"DELE" | b"PRI " | b"CONN" => {
                FrameError::Http
            }
            [0x16, 0x03, ..] => FrameError::Tls,
            _ => FrameError::BadLength { length, max },
        });
    };
    if input.len() < 4 + size {
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(input.split_to(size).freeze()))
}

/// Reads the request header; the reader stands at the body.
///
/// # Errors
/// [`WireError`] when there is no header, or its API is unknown.
pub(crate) fn parse_header(frame: Bytes) -> Result<(RequestHeader, Reader), WireError> {
    let mut reader = Reader::new(frame);
    let mut look = reader.clone();
    let (key, version) = (look.i16()?, look.i16()?);
    let api = ApiKey::from_code(key).and_then(schema);
    let Some((_, _, _, _, flexible)) = api else {
        return Err(WireError::Invalid(format!("there is no API with key {key}")));
    };
    let header = RequestHeader::decode(&mut reader, if version >= *flexible { 2 } else { 1 })?;
    Ok((header, reader))
}

fn schema(api: ApiKey) -> Option<&'static (ApiKey, i16, i16, i16, i16)> {
    SCHEMA_APIS.iter().find(|(key, ..)| *key == api)
}
