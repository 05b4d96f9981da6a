//! Listeners: accepts connections within the limits, owns their tasks, and ends them in order.
//!
//! Invariant: every connection's task belongs to its listener's task set, and [`Server::stop`] waits for all of them.

use super::{Limits, RequestContext, Settings, Shared, connection};
use crate::broker::Broker;
use crate::env::net::{Connection, ListenError, ListenOptions, Listener};
use ottla_protocol::apis::ListenerType;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};

/// One entry of `listeners`.
#[derive(Debug, Clone)]
pub struct ListenerParams {
    /// Its name, as in `listener.security.protocol.map`.
    pub name: String,
    /// The host; empty for all addresses.
    pub host: String,
    /// The port; 0 lets the system choose.
    pub port: u16,
    /// Whether it is one of `controller.listener.names`, which serve the controller's APIs only.
    pub listener_type: ListenerType,
    /// Whether nodes reach the quorum and the controller by it too, because there is no listener of the controller's.
    pub is_shared: bool,
    /// Whether `advertised.listeners` names it; where not, clients are answered with the address that they dialled.
    pub advertised: Advertised,
    /// Socket settings.
    pub options: ListenOptions,
}

/// Where clients are sent that came by a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advertised {
    /// To the address that this broker is registered with.
    AsRegistered,
    /// To the address that they dialled.
    AsDialled,
}

/// A listener that holds its port but accepts nothing yet.
#[derive(Debug)]
pub struct BoundListener {
    listener: Listener,
    name: Arc<str>,
    listener_type: ListenerType,
    is_shared: bool,
    advertised: Advertised,
}

impl BoundListener {
    /// Takes the port.
    ///
    /// # Errors
    /// Every variant of [`ListenError`].
    pub async fn bind(params: &ListenerParams) -> Result<BoundListener, ListenError> {
        let listener = Listener::bind(&params.host, params.port, &params.options).await?;
        Ok(BoundListener {
            listener,
            name: params.name.as_str().into(),
            listener_type: params.listener_type,
            is_shared: params.is_shared,
            advertised: params.advertised,
        })
    }

    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whom it serves.
    pub fn listener_type(&self) -> ListenerType {
        self.listener_type
    }

    /// Whether it serves nodes before it serves clients.
    pub fn is_for_nodes(&self) -> bool {
        self.is_shared || self.listener_type == ListenerType::Controller
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }
}

/// The broker's open doors.
#[derive(Debug)]
pub struct Server {
    broker: Arc<Broker>,
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    accepting: Vec<JoinHandle<()>>,
}

/// How long connections get to send their last answers.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

impl Server {
    /// Starts to accept on every listener.
    pub fn start(
        broker: Arc<Broker>,
        limits: Limits,
        settings: Settings,
        listeners: Vec<BoundListener>,
    ) -> Server {
        // A semaphore has fewer permits than a usize has values.
        let slots = Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS));
        let mut server = Server {
            broker,
            shared: Arc::new(Shared::new(limits, settings)),
            slots: Arc::new(slots),
            accepting: Vec::new(),
        };
        server.open(listeners);
        server
    }

    /// Starts to accept on more listeners.
    pub fn open(&mut self, listeners: Vec<BoundListener>) {
        self.accepting.extend(listeners.into_iter().map(|bound| {
            let acceptor = Acceptor {
                bound,
                broker: Arc::clone(&self.broker),
                shared: Arc::clone(&self.shared),
                slots: Arc::clone(&self.slots),
                doors: Arc::default(),
            };
            tokio::spawn(acceptor.run())
        }));
    }

    /// Serves clients on the listeners that nodes come by already.
    pub fn let_clients_in(&self) {
        self.shared.let_clients_in();
    }

    /// Accepts nothing more, has parked requests answered, and waits until every connection is closed.
    pub async fn stop(self) {
        self.shared.stop();
        for task in self.accepting {
            // A task that panicked has been reported by the runtime.
            let _ = task.await;
        }
    }
}

struct Acceptor {
    bound: BoundListener,
    broker: Arc<Broker>,
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    doors: Arc<Mutex<Doors>>,
}

/// The open connections of one listener.
#[derive(Debug, Default)]
struct Doors {
    next: u64,
    open: HashMap<u64, Arc<Connection>>,
    per_ip: HashMap<IpAddr, usize>,
}

impl Doors {
    /// Puts a connection on the books, unless `allowed` of its address are there.
    fn open(&mut self, connection: &Arc<Connection>, allowed: usize) -> Option<u64> {
        let ip = connection.peer().ip();
        // An address that is refused gets no entry: there is no end of addresses.
        if self.per_ip.get(&ip).copied().unwrap_or(0) >= allowed {
            return None;
        }
        *self.per_ip.entry(ip).or_default() += 1;
        let number = self.next;
        self.next += 1;
        self.open.insert(number, connection.clone());
        Some(number)
    }
}

/// Takes the connection off the books when its task ends, however it ends.
struct Door {
    doors: Arc<Mutex<Doors>>,
    number: u64,
    ip: IpAddr,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut doors = self.doors.lock();
        doors.open.remove(&self.number);
        if let Some(count) = doors.per_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                doors.per_ip.remove(&self.ip);
            }
        }
    }
}

impl Acceptor {
    async fn run(self) {
        let mut tasks = JoinSet::new();
        let stopped = self.shared.stopped();
        tokio::pin!(stopped);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopped => break,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
                accepted = self.accept() => accepted,
            };
            if let Some((connection, door)) = accepted {
                tasks.spawn(self.serve(connection, door));
            }
        }
        self.close(tasks).await;
    }

    /// The next connection within the limits; waits while the broker has `max.connections` of them, as Kafka does.
    async fn accept(&self) -> Option<(Arc<Connection>, Door)> {
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        let connection = match self.bound.listener.accept().await {
            Ok(connection) => Arc::new(connection),
            Err(error) => {
                // Out of descriptors, as a rule: wait for some to be given back.
                warn!(listener = &*self.bound.name, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                return None;
            }
        };
        let ip = connection.peer().ip();
        let allowed = self.connections_allowed(ip);
        let Some(number) = self.doors.lock().open(&connection, allowed) else {
            if let Some(left_out) = self.shared.refusals.admit(tokio::time::Instant::now()) {
                info!(%ip, allowed, left_out, "too many connections from this address, closed one");
            }
            return None;
        };
        let door = Door { doors: self.doors.clone(), number, ip, _slot: slot };
        Some((connection, door))
    }

    fn connections_allowed(&self, ip: IpAddr) -> usize {
        let limits = &self.shared.limits;
        let own = limits.connections_per_ip_overrides.iter().find(|(host, _)| *host == ip);
        own.map_or(limits.connections_per_ip_max, |(_, allowed)| *allowed)
    }

    fn serve(
        &self,
        connection: Arc<Connection>,
        door: Door,
    ) -> impl Future<Output = ()> + Send + 'static {
        let context = RequestContext {
            broker: self.broker.clone(),
            version: 0,
            correlation_id: 0,
            client_id: None,
            peer: connection.peer(),
            local: connection.local(),
            listener: self.bound.name.clone(),
            listener_type: self.bound.listener_type,
            is_undecided: self.bound.is_shared,
            is_dialled_address_advertised: self.bound.advertised == Advertised::AsDialled,
            shared: self.shared.clone(),
            peer_broker: OnceLock::new(),
            peer_voter: OnceLock::new(),
            has_asked: AtomicBool::new(false),
            enveloped: None,
        };
        async move {
            connection::serve(&connection, context).await;
            drop(door);
        }
    }

    /// Wakes up every connection, so that it sends what it owes and goes.
    async fn close(&self, mut tasks: JoinSet<()>) {
        for connection in self.doors.lock().open.values() {
            connection.close_read();
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, all).await.is_err() {
            warn!(listener = &*self.bound.name, left = tasks.len(), "connections did not end");
            tasks.shutdown().await;
        }
        debug!(listener = &*self.bound.name, "listener closed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::net::pair;

    #[tokio::test]
    async fn an_address_that_may_not_connect_leaves_nothing_behind() {
        let (connection, _peer) = pair().await;
        let connection = Arc::new(connection);
        let mut doors = Doors::default();
        assert_eq!(doors.open(&connection, 0), None);
        assert!(doors.per_ip.is_empty() && doors.open.is_empty());
        assert_eq!(doors.open(&connection, 1), Some(0));
        assert_eq!(doors.open(&connection, 1), None);
    }
}
