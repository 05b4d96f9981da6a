//! Sockets of the simulated network (`sim_net.rs`), with the same face as the system's.

use super::{FileRegion, ListenError, ListenOptions, Read, SendQueue};
use crate::env::sim_host;
use crate::env::sim_net::{Backlog, Hold, HostId, SimNet};
use bytes::{Buf, BytesMut};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    net: Arc<SimNet>,
    host: HostId,
    backlog: Arc<Backlog>,
    address: SocketAddr,
}

impl Listener {
    /// Listens on a port of the machine, whatever `host` is; port 0 lets it choose.
    ///
    /// # Errors
    /// [`ListenError::InUse`].
    pub async fn bind(
        _host: &str,
        port: u16,
        _options: &ListenOptions,
    ) -> Result<Listener, ListenError> {
        let (net, host) = sim_host::current();
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let listening = net.listen(host, port).ok_or(ListenError::InUse { address });
        let (backlog, address) = listening?;
        Ok(Listener { net, host, backlog, address })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection.
    ///
    /// # Errors
    /// None, here.
    pub async fn accept(&self) -> io::Result<Connection> {
        loop {
            let came = self.backlog.came.notified();
            let next = self.backlog.queue.lock().pop_front();
            if let Some(hold) = next
                && let Some(connection) = Connection::of(&self.net, hold)
            {
                return Ok(connection);
            }
            if next.is_none() {
                came.await;
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.net.listen_no_more(self.host, self.address.port(), &self.backlog);
    }
}

/// The addresses of a machine.
///
/// # Errors
/// `NotFound`.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (_, ip) = sim_host::current().0.find(host)?;
    Ok(vec![SocketAddr::new(ip, port)])
}

/// The address of this machine.
///
/// # Errors
/// `NotFound`: there is no such machine as `host`.
pub async fn own_address_towards(host: &str, port: u16) -> io::Result<IpAddr> {
    resolve(host, port).await?;
    let (net, own) = sim_host::current();
    Ok(net.address(own))
}

/// One connection, accepted or dialled.
#[derive(Debug)]
pub struct Connection {
    net: Arc<SimNet>,
    hold: Hold,
    readable: Arc<Notify>,
    writable: Arc<Notify>,
}

impl Connection {
    /// `None` when it is gone already.
    fn of(net: &Arc<SimNet>, hold: Hold) -> Option<Connection> {
        let (readable, writable) = net.notifies(&hold)?;
        Some(Connection { net: Arc::clone(net), hold, readable, writable })
    }

    /// Connects to a machine by its name.
    ///
    /// # Errors
    /// `NotFound`; `TimedOut` when no answer came within `patience`; `ConnectionRefused` when the machine answers that
    /// nobody listens there.
    pub async fn dial(host: &str, port: u16, patience: Duration) -> io::Result<Connection> {
        let (net, own) = sim_host::current();
        let (to, _) = net.find(host)?;
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let dialled = net.dial(own, to, port);
        let answer = tokio::time::timeout(patience, dialled).await.map_err(late)?;
        let hold = answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Connection::of(&net, hold).ok_or_else(|| io::ErrorKind::ConnectionReset.into())
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.hold.peer
    }

    /// The address that the peer dialled.
    pub fn local(&self) -> SocketAddr {
        self.hold.local
    }

    /// Waits until there is something to read, or the peer has closed.
    ///
    /// # Errors
    /// None here; the read tells.
    pub async fn readable(&self) -> io::Result<()> {
        loop {
            let notified = self.readable.notified();
            if self.net.is_readable(&self.hold) {
                return Ok(());
            }
            notified.await;
        }
    }

    /// Reads what has come, at most `limit` bytes, to the end of `buffer`.
    ///
    /// # Errors
    /// A broken connection.
    pub fn read(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<Read> {
        match self.net.read(&self.hold, limit)? {
            None => Ok(Read::Closed),
            Some(bytes) if bytes.is_empty() => Ok(Read::Nothing),
            Some(bytes) => {
                buffer.extend_from_slice(&bytes);
                Ok(Read::Some)
            }
        }
    }

    /// Ends the reading side, which wakes up whoever waits in [`Connection::readable`]; answers can still be sent.
    pub fn close_read(&self) {
        self.net.shut(&self.hold);
    }

    /// Sends all that is queued and leaves the queue empty.
    ///
    /// # Errors
    /// A broken connection; `TimedOut` when the peer took nothing for `patience`; a file that ends before its region.
    pub async fn send(&self, queue: &mut SendQueue, patience: Option<Duration>) -> io::Result<()> {
        let regions = std::mem::take(&mut queue.regions);
        let mut sent = 0;
        for (at, region) in regions {
            let length = at - sent;
            self.send_bytes(&queue.bytes[..length], patience).await?;
            queue.bytes.advance(length);
            sent = at;
            self.send_file(&region, patience).await?;
        }
        self.send_bytes(&queue.bytes, patience).await?;
        queue.bytes.clear();
        Ok(())
    }

    async fn send_bytes(&self, mut bytes: &[u8], patience: Option<Duration>) -> io::Result<()> {
        while !bytes.is_empty() {
            let notified = self.writable.notified();
            let sent = self.net.send(&self.hold, bytes)?;
            bytes = &bytes[sent..];
            if sent > 0 {
                continue;
            }
            match patience {
                Some(patience) => {
                    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
                    tokio::time::timeout(patience, notified).await.map_err(late)?;
                }
                None => notified.await,
            }
        }
        Ok(())
    }

    async fn send_file(&self, region: &FileRegion, patience: Option<Duration>) -> io::Result<()> {
        let mut bytes = vec![0; region.len];
        region.file.read_exact_at(&mut bytes, region.position)?;
        self.send_bytes(&bytes, patience).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.net.close(&self.hold);
    }
}
