//! Length-prefixed frames: cuts what a socket gave into requests or responses.
//!
//! A frame is an INT32 length and that many bytes. Not here: sockets, and what is in the frame
//! (`request.rs`).
//! Source: Kafka documentation, "Protocol: Common Request and Response Structure".
//! Invariant: the length is checked before anything is kept or allocated for it.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;

/// Why the peer does not speak Kafka, or more of it than we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative.
    #[error("a frame of {0} bytes")]
    Negative(i32),
    /// The length is above the limit (`socket.request.max.bytes`).
    #[error("a frame of {length} bytes, larger than the allowed {max}")]
    TooLarge {
        /// What the peer says.
        length: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The first bytes are those of an HTTP request.
    #[error("an HTTP request, not Kafka's protocol")]
    Http,
    /// The first bytes are those of a TLS handshake on a listener without TLS.
    #[error("a TLS handshake on a listener that is not TLS")]
    Tls,
}

/// How HTTP requests begin; each is, read as a length, above a gigabyte.
const HTTP: [&[u8; 4]; 9] =
    [b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI "];
/// A TLS record of the type "handshake", major version 3.
const TLS: [u8; 2] = [0x16, 0x03];

/// Takes the first whole frame out of `buf`, without its length; `None` when it is not all there.
///
/// # Errors
/// Every [`FrameError`]; the connection is of no more use then.
pub fn next_frame(buf: &mut BytesMut, max: usize) -> Result<Option<Bytes>, FrameError> {
    match missing(buf, max)? {
        0 => {
            let length = length(buf, max)?.unwrap_or(0);
            buf.advance(LENGTH_BYTES);
            Ok(Some(buf.split_to(length).freeze()))
        }
        _ => Ok(None),
    }
}

/// Bytes that must still be read until `buf` begins with a whole frame, as far as can be told.
///
/// # Errors
/// Every [`FrameError`].
pub fn missing(buf: &[u8], max: usize) -> Result<usize, FrameError> {
    Ok(match length(buf, max)? {
        Some(length) => (LENGTH_BYTES + length).saturating_sub(buf.len()),
        None => LENGTH_BYTES - buf.len(),
    })
}

fn length(buf: &[u8], max: usize) -> Result<Option<usize>, FrameError> {
    let Some(first) = buf.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*first);
    match usize::try_from(length) {
        Ok(length) if length <= max => Ok(Some(length)),
        _ if HTTP.contains(&first) => Err(FrameError::Http),
        _ if first.starts_with(&TLS) => Err(FrameError::Tls),
        Ok(length) => Err(FrameError::TooLarge { length, max }),
        Err(_) => Err(FrameError::Negative(length)),
    }
}

#[cfg(test)]
mod tests;
