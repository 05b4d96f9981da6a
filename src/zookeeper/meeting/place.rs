//! One of the addresses of `zookeeper.connect`: held by this process, or by another broker.

use super::MeetingError;
use super::nodes::Address;
use crate::env::Clock;
use crate::env::net::{self, Connection, ListenError, ListenOptions, Listener, Read, SendQueue};
use crate::zookeeper::server::{DoorServer, LocalSession, MARK};
use crate::zookeeper::wire::{CreateMode, ErrorCode, Request, Response, Watch};
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use zookeeper_client as zk;

/// How long whoever is at an address may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a session outlives its connection; Kafka's `zookeeper.session.timeout.ms` since 2.5. It is pinged three
/// times as often.
const SESSION_TIMEOUT: Duration = Duration::from_secs(18);
/// Longest answer to a word of four letters that is looked at.
const ANSWER_BYTES_MAX: usize = 4096;
/// Looks at an address that is taken and where nobody answers: one broker takes it while another looks.
const LOOKS: usize = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(5);
const LISTEN: ListenOptions =
    ListenOptions { backlog: 50, receive_buffer_bytes: None, send_buffer_bytes: None };

/// Who is at an address.
#[derive(Debug, PartialEq, Eq)]
enum Who {
    /// A broker of ours.
    Door,
    /// A server of Apache ZooKeeper.
    ZooKeeper,
    /// Somebody else.
    Stranger,
    /// Nobody listens there.
    Nobody,
    /// Somebody did, and hangs up: a broker that ends, as a rule.
    Gone,
    /// Nothing is known: the name, the way or the answer is missing.
    Unknown(String),
}

/// An address where brokers meet.
pub(super) enum Place {
    /// This process has it. The listeners wait until others may come.
    Own { server: Box<DoorServer>, session: LocalSession, listeners: Vec<Listener> },
    /// Another broker has it.
    Guest { client: zk::Client },
}

/// Whether a node was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Now,
    Before,
}

/// Goes to an address, or takes it where nobody has it and it is this machine's; `None` when neither can be done now.
///
/// # Errors
/// `ZooKeeper`, `Stranger`, `Nobody`.
pub(super) async fn go(address: &Address, clock: &Arc<dyn Clock>) -> Result<Place, MeetingError> {
    let at = shown(address);
    for _ in 0..LOOKS {
        match look(address).await {
            Who::Door => return visit(&at).await,
            Who::ZooKeeper => return Err(MeetingError::ZooKeeper { address: at }),
            Who::Stranger => return Err(MeetingError::Stranger { address: at }),
            Who::Unknown(cause) => return Err(MeetingError::Nobody { address: at, cause }),
            Who::Gone => {
                tokio::time::sleep(LOOK_PAUSE).await;
                continue;
            }
            Who::Nobody => {}
        }
        match take(address).await {
            Ok(listeners) => {
                let server = Box::new(DoorServer::new(Arc::clone(clock)));
                let session = server.local_session();
                return Ok(Place::Own { server, session, listeners });
            }
            Err(ListenError::InUse { .. }) => tokio::time::sleep(LOOK_PAUSE).await,
            Err(error) => {
                return Err(MeetingError::Nobody { address: at, cause: error.to_string() });
            }
        }
    }
    let cause = "whoever has the port does not answer".to_owned();
    Err(MeetingError::Nobody { address: at, cause })
}

/// Whether a broker of ours is at an address.
pub(super) async fn is_door(address: &Address) -> bool {
    look(address).await == Who::Door
}

pub(super) fn shown((host, port): &Address) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn look((host, port): &Address) -> Who {
    let connection = match Connection::dial(host, *port, PATIENCE).await {
        Ok(connection) => connection,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Who::Nobody,
        Err(error) => return Who::Unknown(error.to_string()),
    };
    match tokio::time::timeout(PATIENCE, ask(&connection)).await {
        Ok(Ok(answer)) if answer.starts_with(MARK.as_bytes()) => Who::Door,
        Ok(Ok(answer)) if is_zookeepers(&answer) => Who::ZooKeeper,
        // A stranger is one who says something.
        Ok(Ok(answer)) if !answer.is_empty() => Who::Stranger,
        Ok(_) => Who::Gone,
        Err(_) => Who::Unknown(format!("no answer within {PATIENCE:?}")),
    }
}

/// What it answers to `srvr`, up to its end.
async fn ask(connection: &Connection) -> io::Result<Vec<u8>> {
    let mut question = SendQueue::default();
    question.bytes_mut().extend_from_slice(b"srvr");
    connection.send(&mut question, Some(PATIENCE)).await?;
    let mut answer = BytesMut::new();
    while answer.len() < ANSWER_BYTES_MAX {
        connection.readable().await?;
        if connection.read(&mut answer, ANSWER_BYTES_MAX)? == Read::Closed {
            break;
        }
    }
    Ok(answer.to_vec())
}

/// A ZooKeeper tells its version, or that the word is not in its whitelist, or that it does not serve now.
fn is_zookeepers(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    text.contains("zookeeper") || text.contains("whitelist")
}

async fn visit(at: &str) -> Result<Place, MeetingError> {
    let connector = zk::Client::connector()
        .with_session_timeout(SESSION_TIMEOUT)
        .with_connection_timeout(PATIENCE)
        .with_fail_eagerly();
    match tokio::time::timeout(PATIENCE, connector.connect(at)).await {
        Ok(Ok(client)) => Ok(Place::Guest { client }),
        Ok(Err(error)) => {
            Err(MeetingError::Nobody { address: at.to_owned(), cause: error.to_string() })
        }
        Err(_) => {
            let cause = format!("no session within {PATIENCE:?}");
            Err(MeetingError::Nobody { address: at.to_owned(), cause })
        }
    }
}

/// Takes an address of this machine: a name for the machine itself on loopback only, every other one on all its
/// addresses, as a ZooKeeper would, since names differ from machine to machine.
async fn take((host, port): &Address) -> Result<Vec<Listener>, ListenError> {
    let resolved = net::resolve(host, *port).await;
    let addresses = resolved.map_err(|cause| ListenError::Resolve { host: host.clone(), cause })?;
    let is_loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if is_loopback {
        return take_all(&addresses).await;
    }
    let mut failure = None;
    for address in &addresses {
        match Listener::bind(&address.ip().to_string(), 0, &LISTEN).await {
            Ok(_) => return Ok(vec![Listener::bind("", *port, &LISTEN).await?]),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| ListenError::Resolve {
        host: host.clone(),
        cause: io::ErrorKind::NotFound.into(),
    }))
}

/// All or none, so that whoever has the first has them all.
async fn take_all(addresses: &[SocketAddr]) -> Result<Vec<Listener>, ListenError> {
    let (mut taken, mut failure) = (Vec::new(), None);
    for address in addresses {
        match Listener::bind(&address.ip().to_string(), address.port(), &LISTEN).await {
            Ok(listener) => taken.push(listener),
            Err(error @ ListenError::InUse { .. }) => return Err(error),
            // A machine without IPv6 still has a name for it.
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if taken.is_empty() => Err(error),
        _ => Ok(taken),
    }
}

impl Place {
    /// Lets others in.
    pub(super) fn open(&mut self) {
        if let Place::Own { server, listeners, .. } = self {
            server.open(std::mem::take(listeners));
        }
    }

    /// Leaves: nodes that go with the session are gone, and an own address is free again.
    pub(super) async fn leave(self) {
        if let Place::Own { server, session, .. } = self {
            drop(session);
            server.stop().await;
        }
    }

    /// Makes a node, unless there is one.
    pub(super) async fn make(
        &self,
        path: &str,
        data: &[u8],
        mode: CreateMode,
    ) -> Result<Made, MeetingError> {
        let made = match self {
            Place::Own { session, .. } => {
                let (path, data) = (path.to_owned(), Bytes::copy_from_slice(data));
                let create = Request::Create { path, data, mode, wants_stat: false };
                session.request(create).map(drop).map_err(lost)
            }
            Place::Guest { client } => {
                let mode = match mode {
                    CreateMode::Ephemeral => zk::CreateMode::Ephemeral,
                    _ => zk::CreateMode::Persistent,
                };
                let options = mode.with_acls(zk::Acls::anyone_all());
                client.create(path, data, &options).await.map(drop).map_err(client_lost)
            }
        };
        match made {
            Ok(()) => Ok(Made::Now),
            Err(Lost::NodeExists) => Ok(Made::Before),
            Err(other) => Err(other.into()),
        }
    }

    /// A node's content; `None` where there is no node.
    pub(super) async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, MeetingError> {
        let read = match self {
            Place::Own { session, .. } => {
                let get = Request::GetData { path: path.to_owned(), watch: Watch::None };
                match session.request(get) {
                    Ok(Response::Data(data, _)) => Ok(data.to_vec()),
                    Ok(_) => Err(Lost::Other("an answer to something else".to_owned())),
                    Err(error) => Err(lost(error)),
                }
            }
            Place::Guest { client } => {
                client.get_data(path).await.map(|(data, _)| data).map_err(client_lost)
            }
        };
        match read {
            Ok(data) => Ok(Some(data)),
            Err(Lost::NoNode) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    /// Takes a node away, where it is there.
    pub(super) async fn remove(&self, path: &str) -> Result<(), MeetingError> {
        let removed = match self {
            Place::Own { session, .. } => {
                let delete = Request::Delete { path: path.to_owned(), version: -1 };
                session.request(delete).map(drop).map_err(lost)
            }
            Place::Guest { client } => client.delete(path, None).await.map_err(client_lost),
        };
        match removed {
            Ok(()) | Err(Lost::NoNode) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    /// A node's children, and what completes when they change. Only one at a time may be waited for.
    pub(super) async fn children(
        &self,
        path: &str,
    ) -> Result<(Vec<String>, Changed<'_>), MeetingError> {
        match self {
            Place::Own { session, .. } => {
                let (path, watch) = (path.to_owned(), Watch::Leave);
                let list = Request::GetChildren { path, watch, wants_stat: false };
                match session.request(list).map_err(lost)? {
                    Response::Children(names, _) => Ok((names, Changed::Own(session))),
                    _ => Err(Lost::Other("an answer to something else".to_owned()).into()),
                }
            }
            Place::Guest { client } => {
                let listed = client.list_and_watch_children(path).await.map_err(client_lost)?;
                Ok((listed.0, Changed::Guest(Box::new(listed.1))))
            }
        }
    }

    /// Completes when there is no connection to the one who has the address.
    pub(super) async fn lost(&self) {
        match self {
            Place::Own { .. } => std::future::pending().await,
            Place::Guest { client } => {
                let mut states = client.state_watcher();
                while states.peek_state() == zk::SessionState::SyncConnected {
                    states.changed().await;
                }
            }
        }
    }
}

/// Completes when watched children change.
pub(super) enum Changed<'p> {
    Own(&'p LocalSession),
    Guest(Box<zk::OneshotWatcher>),
}

impl Changed<'_> {
    pub(super) async fn wait(self) {
        match self {
            Changed::Own(session) => drop(session.events().await),
            Changed::Guest(watcher) => drop(watcher.changed().await),
        }
    }
}

/// Why something could not be done with a node.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("there is such a node")]
    NodeExists,
    #[error("there is no such node")]
    NoNode,
    #[error("{0}")]
    Other(String),
}

impl From<Lost> for MeetingError {
    fn from(lost: Lost) -> MeetingError {
        MeetingError::Lost { cause: lost.to_string() }
    }
}

fn lost(error: ErrorCode) -> Lost {
    match error {
        ErrorCode::NodeExists => Lost::NodeExists,
        ErrorCode::NoNode => Lost::NoNode,
        other => Lost::Other(other.to_string()),
    }
}

fn client_lost(error: zk::Error) -> Lost {
    match error {
        zk::Error::NodeExists => Lost::NodeExists,
        zk::Error::NoNode => Lost::NoNode,
        other => Lost::Other(other.to_string()),
    }
}
