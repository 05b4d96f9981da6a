//! A plain client for the program's own commands: requests out, frames in, both blocking.
//!
//! Deliberately not here: what brokers ask of each other (`broker/peers.rs`), TLS and SASL.

use bytes::Bytes;
use ottla_protocol::request::{parse_response, write_request};
use ottla_protocol::{Message, Request, WireError};
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// No answer is larger.
const ANSWER_BYTES_MAX: usize = 128 << 20;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The broker cannot be reached, closed the connection, or said nothing for too long.
    #[error("{0}: {1}")]
    Io(String, Error),
    /// An answer is no such answer.
    #[error("the broker's answer cannot be read: {0}")]
    Wire(#[from] WireError),
}

/// A connection to a broker.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    address: String,
    client_id: &'static str,
    frame: Vec<u8>,
}

/// The whole frame of a request. Its correlation id is always 0: answers come in order.
pub(crate) fn frame<R: Request>(client_id: &str, version: i16, body: &R) -> Vec<u8> {
    write_request(0, Some(client_id), version, body).to_vec()
}

impl Connection {
    /// Connects to `host:port`; an answer may take `patience`.
    pub(crate) fn open(
        address: &str,
        client_id: &'static str,
        patience: Duration,
    ) -> Result<Connection, ClientError> {
        let failed = |e| ClientError::Io(address.to_owned(), e);
        let mut last = Error::new(ErrorKind::NotFound, "the name has no address");
        for resolved in address.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&resolved, CONNECT_TIMEOUT.min(patience)) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(failed)?;
                    stream.set_read_timeout(Some(patience)).map_err(failed)?;
                    let address = address.to_owned();
                    return Ok(Connection { stream, address, client_id, frame: Vec::new() });
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<(), ClientError> {
        self.stream.write_all(frame).map_err(|e| ClientError::Io(self.address.clone(), e))
    }

    /// The next answer, without its length.
    pub(crate) fn receive(&mut self) -> Result<&[u8], ClientError> {
        let failed = |e| ClientError::Io(self.address.clone(), e);
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(failed)?;
        let length = i32::from_be_bytes(length);
        let length = usize::try_from(length).ok().filter(|length| *length <= ANSWER_BYTES_MAX);
        let Some(length) = length else {
            return Err(failed(std::io::Error::other("an answer of an impossible length")));
        };
        if self.frame.len() < length {
            self.frame.resize(length, 0);
        }
        self.stream.read_exact(&mut self.frame[..length]).map_err(failed)?;
        Ok(&self.frame[..length])
    }

    /// One request and its answer.
    pub(crate) fn call<R: Request>(
        &mut self,
        version: i16,
        body: &R,
    ) -> Result<R::Response, ClientError>
    where
        R::Response: Message,
    {
        self.send(&frame(self.client_id, version, body))?;
        let answer = Bytes::copy_from_slice(self.receive()?);
        Ok(parse_response(answer, version)?.1)
    }
}
