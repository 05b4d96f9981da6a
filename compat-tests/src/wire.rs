//! Requests of our own to a broker, one connection each: what a scenario asks more often than a tool's JVM could.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::Request;
use ottla_protocol::request::{parse_response, write_request};

/// More than any answer to these requests.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Sends one request on a connection of its own; answers what comes back.
///
/// # Errors
/// If there is no whole answer within `limit`, or it is not one to this request.
pub fn call<R: Request>(
    address: &str,
    version: i16,
    body: &R,
    limit: Duration,
) -> Result<R::Response, String> {
    let frame = write_request(1, Some("compat"), version, body);
    let answer = exchange(address, &frame, limit)?;
    let parsed = parse_response(answer, version).map_err(|e| format!("{}: {e}", R::NAME))?;
    Ok(parsed.1)
}

/// Sends one frame on a connection of its own; answers the next frame without its length.
///
/// # Errors
/// If there is none within `limit`.
pub fn exchange(address: &str, frame: &[u8], limit: Duration) -> Result<Bytes, String> {
    let fail = |e: std::io::Error| format!("{address}: {e}");
    let to: SocketAddr = address.parse().map_err(|e| format!("{address}: {e}"))?;
    let mut stream = TcpStream::connect_timeout(&to, limit).map_err(fail)?;
    stream.set_read_timeout(Some(limit)).map_err(fail)?;
    stream.write_all(frame).map_err(fail)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(|e| format!("{address}: no answer: {e}"))?;
    let length = usize::try_from(i32::from_be_bytes(length)).map_err(|e| e.to_string())?;
    if length > ANSWER_BYTES_MAX {
        return Err(format!("{address}: an answer of {length} bytes"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).map_err(|e| format!("{address}: half an answer: {e}"))?;
    Ok(Bytes::from(answer))
}
