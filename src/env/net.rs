//! Sockets: listening, connecting, reading what has come, and sending bytes and file regions (`sendfile`).
//!
//! Deliberately not here: frames and requests (`server::connection`). [`Listener`] and [`Connection`] are the seam: no
//! other file names a socket type. In the simulation (the feature `simulation`, which `sim/` builds with) a network in
//! memory takes the place of the real one, which is not in that program at all: nothing is chosen at run time.
//! Invariant: nothing is read or sent past what the caller bounds.

#[cfg(feature = "simulation")]
mod sim;
#[cfg(not(feature = "simulation"))]
mod tcp;

#[cfg(feature = "simulation")]
pub use sim::{Connection, Listener, own_address_towards, resolve};
#[cfg(all(test, not(feature = "simulation")))]
pub(crate) use tcp::pair;
#[cfg(not(feature = "simulation"))]
pub use tcp::{Connection, Listener, own_address_towards, resolve};

use super::DiskFile;
use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// How a listener and the connections that it accepts are set up.
#[derive(Debug, Clone, Copy)]
pub struct ListenOptions {
    /// Length of the queue of connections that were not accepted yet.
    pub backlog: u32,
    /// `SO_RCVBUF` in bytes, `None` for the system's default.
    pub receive_buffer_bytes: Option<u32>,
    /// `SO_SNDBUF` in bytes, `None` for the system's default.
    pub send_buffer_bytes: Option<u32>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The host is no address of this machine.
    #[error("cannot resolve the host {host} to listen on: {cause}")]
    Resolve {
        /// The host as configured.
        host: String,
        /// What the resolver said.
        cause: io::Error,
    },
    /// Another process listens there.
    #[error("port {} is already in use by another process ({address})", address.port())]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {cause}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

/// What came of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Bytes were added to the buffer.
    Some,
    /// Nothing is there yet.
    Nothing,
    /// The peer has closed its side.
    Closed,
}

/// Part of a file that is to be sent as it lies there.
#[derive(Debug, Clone)]
pub struct FileRegion {
    /// The file.
    pub file: Arc<dyn DiskFile>,
    /// First byte.
    pub position: u64,
    /// Bytes.
    pub len: usize,
    /// The bytes surely lie in memory.
    pub is_recent: bool,
}

/// Bytes, with regions of files between them, on their way out.
#[derive(Debug, Default)]
pub struct SendQueue {
    bytes: BytesMut,
    /// Each region goes out before the byte at its index in `bytes`; in ascending order.
    regions: Vec<(usize, FileRegion)>,
}

impl SendQueue {
    /// The bytes so far, to write on to; regions stay where they are between them.
    pub fn bytes_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Puts a region of a file before the byte at `at` of [`SendQueue::bytes_mut`], after all earlier regions.
    pub fn push_file(&mut self, at: usize, region: FileRegion) {
        debug_assert!(
            at <= self.bytes.len() && self.regions.last().is_none_or(|last| last.0 <= at)
        );
        if region.len > 0 {
            self.regions.push((at, region));
        }
    }

    /// Bytes queued, those of files included.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.regions.iter().map(|(_, region)| region.len).sum::<usize>()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.regions.is_empty()
    }

    /// Puts all of `other` after what is queued.
    pub fn append(&mut self, other: SendQueue) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let shift = self.bytes.len();
        self.bytes.unsplit(other.bytes);
        self.regions.extend(other.regions.into_iter().map(|(at, region)| (shift + at, region)));
    }

    /// Takes back everything after the first `length` bytes, with the regions there.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.regions.retain(|(at, _)| *at <= length);
    }

    /// Gives the memory of an empty queue back.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = SendQueue::default();
        }
    }
}
