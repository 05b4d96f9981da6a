//! A connection: requests out, frames in, both blocking.

use super::BenchError;
use bytes::Bytes;
use ottla_protocol::request::{parse_response, write_request};
use ottla_protocol::{Message, Request};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A broker that says nothing for so long is gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// No answer to a load is larger.
const ANSWER_BYTES_MAX: usize = 128 << 20;
const CLIENT_ID: &str = "ottla-bench";

/// A connection to a broker.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    address: String,
    frame: Vec<u8>,
}

/// The whole frame of a request. Its correlation id is always 0: answers come in order.
pub(super) fn frame<R: Request>(version: i16, body: &R) -> Vec<u8> {
    write_request(0, Some(CLIENT_ID), version, body).to_vec()
}

impl Connection {
    pub(super) fn open(address: &str) -> Result<Connection, BenchError> {
        let failed = |e| BenchError::Io(address.to_owned(), e);
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed)?;
        Ok(Connection { stream, address: address.to_owned(), frame: Vec::new() })
    }

    pub(super) fn send(&mut self, frame: &[u8]) -> Result<(), BenchError> {
        self.stream.write_all(frame).map_err(|e| BenchError::Io(self.address.clone(), e))
    }

    /// The next answer, without its length.
    pub(super) fn receive(&mut self) -> Result<&[u8], BenchError> {
        let failed = |e| BenchError::Io(self.address.clone(), e);
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
    pub(super) fn call<R: Request>(
        &mut self,
        version: i16,
        body: &R,
    ) -> Result<R::Response, BenchError>
    where
        R::Response: Message,
    {
        self.send(&frame(version, body))?;
        let answer = Bytes::copy_from_slice(self.receive()?);
        Ok(parse_response(answer, version)?.1)
    }
}
