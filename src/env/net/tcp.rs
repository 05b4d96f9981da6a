//! The system's own sockets.

use super::{FileRegion, ListenError, ListenOptions, Read, SendQueue};
use crate::env::cold::{self, ColdReader};
use bytes::{Buf, BufMut, BytesMut};
use rustix::fd::AsFd;
use rustix::net::SendFlags;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Mutex;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `host`, where empty means all addresses of the machine; port 0 lets the system choose.
    ///
    /// # Errors
    /// Every variant of [`ListenError`].
    pub async fn bind(
        host: &str,
        port: u16,
        options: &ListenOptions,
    ) -> Result<Listener, ListenError> {
        let addresses: Vec<SocketAddr> = if host.is_empty() {
            // A v6 socket takes v4 connections as well; a machine without v6 falls back.
            vec![
                SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
            ]
        } else {
            tokio::net::lookup_host((host, port))
                .await
                .map_err(|cause| ListenError::Resolve { host: host.to_owned(), cause })?
                .collect()
        };
        let mut failure = None;
        for address in addresses {
            match listen(address, options) {
                Ok(inner) => {
                    let address = inner.local_addr().unwrap_or(address);
                    return Ok(Listener { inner, address });
                }
                Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => {
                    return Err(ListenError::InUse { address });
                }
                Err(cause) => failure = Some(ListenError::Other { address, cause }),
            }
        }
        Err(failure.unwrap_or_else(|| ListenError::Resolve {
            host: host.to_owned(),
            cause: io::ErrorKind::NotFound.into(),
        }))
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection.
    ///
    /// # Errors
    /// What the system says: no more descriptors, or a connection that was gone again.
    pub async fn accept(&self) -> io::Result<Connection> {
        let (stream, peer) = self.inner.accept().await?;
        Connection::of(stream, peer)
    }
}

fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.bind(address)?;
    socket.listen(options.backlog)
}

/// The addresses of a host, in the resolver's order.
///
/// # Errors
/// What the resolver says.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// The address of this machine that packets to `host` come from; nothing is sent.
///
/// # Errors
/// The host cannot be resolved, or no way leads to it.
pub async fn own_address_towards(host: &str, port: u16) -> io::Result<IpAddr> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in resolve(host, port).await? {
        let unspecified = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let reached = async {
            let socket = UdpSocket::bind((unspecified, 0)).await?;
            // Connecting a datagram socket only chooses the route.
            socket.connect(address).await?;
            socket.local_addr()
        };
        match reached.await {
            Ok(own) => return Ok(own.ip().to_canonical()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A v4 address that came over a v6 socket, as v4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// One connection, accepted or dialled.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    /// Held by the one who sends.
    cold: Mutex<ColdReader>,
}

impl Connection {
    fn of(stream: TcpStream, peer: SocketAddr) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        // As Kafka does: a peer that vanished is found out by the kernel.
        rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
        if peer.ip().to_canonical().is_loopback() {
            // What never leaves the machine meets no congestion: a system's BBR would pace it with a timer's
            // interrupt every few packets. A system that does not let us choose keeps its own.
            let _ = rustix::net::sockopt::set_tcp_congestion(&stream, "reno");
        }
        let local = stream.local_addr()?;
        let cold = Mutex::default();
        Ok(Connection { stream, peer: canonical(peer), local: canonical(local), cold })
    }

    /// Connects to the first address of `host` that answers.
    ///
    /// # Errors
    /// The host cannot be resolved or reached; `TimedOut` when that took longer than `patience`; `ConnectionRefused`
    /// when the machine answers that nobody listens there.
    pub async fn dial(host: &str, port: u16, patience: Duration) -> io::Result<Connection> {
        let dialled = TcpStream::connect((host, port));
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let stream = tokio::time::timeout(patience, dialled).await.map_err(late)??;
        let peer = stream.peer_addr()?;
        Connection::of(stream, peer)
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The address that the peer dialled.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Waits until there is something to read, or the peer has closed.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Reads what has come, at most `limit` bytes, to the end of `buffer`.
    ///
    /// # Errors
    /// A broken connection.
    pub fn read(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<Read> {
        buffer.reserve(limit);
        let mut read = Read::Nothing;
        let result = self.stream.try_io(Interest::READABLE, || {
            let got = self.stream.try_read_buf(&mut (&mut *buffer).limit(limit))?;
            read = if got == 0 { Read::Closed } else { Read::Some };
            if got > 0 && got < limit {
                // The socket is drained: the runtime need not find it out with another read.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match result {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(read),
        }
    }

    /// Ends the reading side, which wakes up whoever waits in [`Connection::readable`]; answers can still be sent.
    pub fn close_read(&self) {
        // A connection that is gone already needs no closing.
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Read);
    }

    /// Sends all that is queued and leaves the queue empty.
    ///
    /// # Errors
    /// A broken connection; `TimedOut` when the peer took nothing for `patience`; or a file that ends before its region
    /// does: what was promised in the frame's length cannot be sent then, and the connection must be closed.
    pub async fn send(&self, queue: &mut SendQueue, patience: Option<Duration>) -> io::Result<()> {
        let regions = std::mem::take(&mut queue.regions);
        let mut sent = 0;
        for (at, region) in regions {
            let length = at - sent;
            self.send_bytes(&queue.bytes[..length], SendFlags::MORE, patience).await?;
            queue.bytes.advance(length);
            sent = at;
            self.send_file(&region, patience).await?;
        }
        self.send_bytes(&queue.bytes, SendFlags::empty(), patience).await?;
        queue.bytes.clear();
        Ok(())
    }

    /// Runs `send` once the socket takes bytes; waits for that no longer than `patience`.
    async fn writable<T>(
        &self,
        patience: Option<Duration>,
        send: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let sent = self.stream.async_io(Interest::WRITABLE, send);
        match patience {
            Some(patience) => {
                let late = |_| io::Error::from(io::ErrorKind::TimedOut);
                tokio::time::timeout(patience, sent).await.map_err(late)?
            }
            None => sent.await,
        }
    }

    async fn send_bytes(
        &self,
        mut bytes: &[u8],
        flags: SendFlags,
        patience: Option<Duration>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = self
                .writable(patience, || {
                    Ok(rustix::net::send(&self.stream, bytes, flags | SendFlags::NOSIGNAL)?)
                })
                .await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    async fn send_file(&self, region: &FileRegion, patience: Option<Duration>) -> io::Result<()> {
        let Some(descriptor) = region.file.descriptor() else {
            return self.copy_file(region, patience).await;
        };
        let mut position = region.position;
        let end = region.position + region.len as u64;
        // Up to here the bytes lie in memory.
        let mut ready = if region.is_recent { end } else { position };
        while position < end {
            if position == ready {
                let piece = cold::PIECE_BYTES.min((end - position) as usize);
                self.cold.lock().await.bring_in(region, position, piece).await?;
                ready = position + piece as u64;
            }
            let sent = self
                .writable(patience, || {
                    let left = (ready - position) as usize;
                    let socket = self.stream.as_fd();
                    Ok(rustix::fs::sendfile(socket, descriptor, Some(&mut position), left)?)
                })
                .await?;
            if sent == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// The way of a file that has no descriptor: read and send, a piece at a time.
    async fn copy_file(&self, region: &FileRegion, patience: Option<Duration>) -> io::Result<()> {
        const PIECE: usize = 64 * 1024;
        let mut piece = vec![0; region.len.min(PIECE)];
        let mut done = 0;
        while done < region.len {
            let length = (region.len - done).min(PIECE);
            region.file.read_exact_at(&mut piece[..length], region.position + done as u64)?;
            self.send_bytes(&piece[..length], SendFlags::empty(), patience).await?;
            done += length;
        }
        Ok(())
    }
}

/// Both ends of a connection over loopback.
#[cfg(test)]
pub(crate) async fn pair() -> (Connection, TcpStream) {
    let options = ListenOptions { backlog: 1, receive_buffer_bytes: None, send_buffer_bytes: None };
    let listener = Listener::bind("127.0.0.1", 0, &options).await.expect("a free port");
    let peer = TcpStream::connect(listener.address()).await.expect("connected");
    (listener.accept().await.expect("accepted"), peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (connection, _peer) = pair().await;
        let mut queue = SendQueue::default();
        // More than the buffers of both sockets hold.
        queue.bytes_mut().resize(64 << 20, 0);
        let sent = connection.send(&mut queue, Some(Duration::from_millis(20))).await;
        assert_eq!(sent.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
    }
}
