//! Serves the door to clients of ZooKeeper: sockets, sessions' connections, and the end of silent sessions.
//!
//! One task a connection; requests are answered in their order, and a watch's event leaves before anything that was
//! answered after the change. One task for all sessions' ends: it sleeps until the first that could be over.
//! [`LocalSession`] is a session of this process, without a socket.
//! Invariant: no lock is held across an await; a client that does not read is not read from either.
//! Source: ZooKeeper's programmer's guide, "ZooKeeper Sessions"; its administrator's guide, "The Four Letter Words".

use super::door::{Door, Now, SessionId};
use super::wire::{
    ConnectRequest, ConnectResponse, ErrorCode, Event, FRAME_BYTES_MAX, Request, RequestFrame,
    Response, encode_reply,
};
use crate::env::Clock;
use crate::env::net::{Connection, Listener, Read, SendQueue};
use bytes::{Bytes, BytesMut};
use ottla_protocol::frame::{self, FrameError};
use ottla_protocol::{WireError, Writer};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use uuid::Uuid;

/// How the answer to `srvr` begins: the mark by which a door of ours is told from a ZooKeeper.
pub const MARK: &str = "Ottla version: ";
/// Bounds of a session's timeout in milliseconds: a ZooKeeper's with its default `tickTime` of 2 s.
const TIMEOUT_MS: std::ops::RangeInclusive<i32> = 4_000..=40_000;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 10_000;
/// How long a client may take for its first frame, or to read what it asked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes read at once.
const CHUNK: usize = 4096;
/// Bytes of answers that are written before more requests are looked at.
const ANSWERS_MAX: usize = 256 * 1024;
/// An expiry that comes so late has been held up with all else in this process.
const OVERSLEPT: Duration = Duration::from_secs(1);

/// Why a connection ends before its client wants.
#[derive(Debug, thiserror::Error)]
enum Close {
    #[error("closed by the client")]
    ByPeer,
    #[error("connection broken: {0}")]
    Broken(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("malformed: {0}")]
    Malformed(#[from] WireError),
    #[error("no session was asked for in time")]
    Silent,
    #[error("its session is over")]
    Expired,
}

#[derive(Debug)]
struct State {
    door: Door,
    /// The connection that each session has now.
    connections: BTreeMap<SessionId, Arc<Notify>>,
}

impl State {
    /// Wakes the connections that have something to send, or no session any more.
    fn wake(&mut self) {
        for id in self.door.take_woken() {
            if let Some(connection) = self.connections.get(&id) {
                connection.notify_one();
            }
            if !self.door.has_session(id) {
                self.connections.remove(&id);
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    begun: Instant,
    /// There is a session that may end sooner than was thought.
    sooner: Notify,
}

impl Shared {
    fn now(&self) -> Now {
        Now {
            wall_ms: self.clock.now().0,
            uptime_ms: i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Does something with the door and tells those whom it concerns.
    fn with<T>(&self, act: impl FnOnce(&mut Door, Now) -> T) -> T {
        let now = self.now();
        let mut state = self.state.lock();
        let result = act(&mut state.door, now);
        state.wake();
        result
    }

    fn connect(&self, id: SessionId) -> Arc<Notify> {
        let wake = Arc::new(Notify::new());
        let earlier = self.state.lock().connections.insert(id, Arc::clone(&wake));
        // A client that comes back is on its newest connection: the one before ends.
        if let Some(earlier) = earlier {
            earlier.notify_one();
        }
        wake
    }

    fn is_connection(&self, id: SessionId, wake: &Arc<Notify>) -> bool {
        let state = self.state.lock();
        state.connections.get(&id).is_some_and(|current| Arc::ptr_eq(current, wake))
    }
}

/// A door that is open to clients.
#[derive(Debug)]
pub struct DoorServer {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    accepting: Vec<JoinHandle<()>>,
    expiring: JoinHandle<()>,
}

impl DoorServer {
    /// A new, empty door that nobody can come to yet.
    pub fn new(clock: Arc<dyn Clock>) -> DoorServer {
        let now = Now { wall_ms: clock.now().0, uptime_ms: 0 };
        let state = State { door: Door::new(now), connections: BTreeMap::new() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            clock,
            begun: Instant::now(),
            sooner: Notify::new(),
        });
        let expiring = tokio::spawn(expire(Arc::clone(&shared)));
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        DoorServer { shared, slots, accepting: Vec::new(), expiring }
    }

    /// Serves it on these addresses.
    pub fn open(&mut self, listeners: Vec<Listener>) {
        self.accepting.extend(listeners.into_iter().map(|listener| {
            tokio::spawn(accept(listener, Arc::clone(&self.shared), Arc::clone(&self.slots)))
        }));
    }

    /// A session of this process, which lives as long as the value.
    pub fn local_session(&self) -> LocalSession {
        let (id, password) = fresh();
        self.shared.with(|door, now| {
            // It is the first, and nobody else has a random number.
            let _ = door.open_session(id, password, None, now);
        });
        let wake = self.shared.connect(id);
        LocalSession { shared: Arc::clone(&self.shared), id, wake }
    }

    /// Gives the addresses back and ends all connections; the sessions are gone with the door.
    pub async fn stop(self) {
        self.expiring.abort();
        for task in self.accepting {
            task.abort();
            // It was aborted: that is what it says.
            let _ = task.await;
        }
    }
}

/// A session of the process that has the door.
#[derive(Debug)]
pub struct LocalSession {
    shared: Arc<Shared>,
    id: SessionId,
    wake: Arc<Notify>,
}

impl LocalSession {
    /// Does at once what a client would ask for.
    ///
    /// # Errors
    /// ZooKeeper's own code.
    pub fn request(&self, request: Request) -> Result<Response, ErrorCode> {
        self.shared.with(|door, now| door.handle(self.id, request, now))
    }

    /// The next watches that fire.
    pub async fn events(&self) -> Vec<Event> {
        loop {
            let events = self.shared.state.lock().door.take_events(self.id);
            if !events.is_empty() {
                return events;
            }
            self.wake.notified().await;
        }
    }
}

impl Drop for LocalSession {
    fn drop(&mut self) {
        self.shared.with(|door, _| door.close_session(self.id));
    }
}

/// A session's number and password. Numbers are positive: 0 is none, and some clients show them with a sign.
fn fresh() -> (SessionId, [u8; 16]) {
    let number = (Uuid::new_v4().as_u128() & 0x7fff_ffff_ffff_ffff) as i64;
    (SessionId(number.max(1)), *Uuid::new_v4().as_bytes())
}

async fn accept(listener: Listener, shared: Arc<Shared>, slots: Arc<Semaphore>) {
    let mut tasks = JoinSet::new();
    loop {
        // Never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => {
                tasks.spawn(serve(Arc::clone(&shared), connection, slot));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of a ZooKeeper client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Ends the sessions that are silent for too long.
async fn expire(shared: Arc<Shared>) {
    loop {
        let next = shared.state.lock().door.next_expiry_ms();
        let Some(next) = next else {
            shared.sooner.notified().await;
            continue;
        };
        let until = shared.begun + Duration::from_millis(next.max(0).unsigned_abs());
        tokio::select! {
            biased;
            () = shared.sooner.notified() => continue,
            () = tokio::time::sleep_until(until) => {}
        }
        if until.elapsed() > OVERSLEPT {
            shared.with(|door, now| door.excuse_silence(now));
            continue;
        }
        for id in shared.with(Door::expire) {
            tracing::info!(
                session = format_args!("{:#x}", id.0),
                "a ZooKeeper session has expired"
            );
        }
    }
}

async fn serve(shared: Arc<Shared>, connection: Connection, _slot: OwnedSemaphorePermit) {
    let mut client =
        Client { shared, connection, input: BytesMut::new(), output: Writer::default() };
    let end = match tokio::time::timeout(PATIENCE, client.begin()).await {
        Ok(Ok(Some((id, wake)))) => client.run(id, wake).await,
        Ok(Ok(None)) => Ok(()),
        Ok(Err(close)) => Err(close),
        Err(_) => Err(Close::Silent),
    };
    let peer = client.connection.peer();
    match end {
        Ok(()) => tracing::debug!(%peer, "a ZooKeeper client has gone"),
        Err(reason) => tracing::debug!(%peer, %reason, "connection of a ZooKeeper client closed"),
    }
}

/// One connection.
struct Client {
    shared: Arc<Shared>,
    connection: Connection,
    input: BytesMut,
    output: Writer,
}

impl Client {
    /// The first frame: a session, or a word of four letters, after whose answer the connection ends.
    async fn begin(&mut self) -> Result<Option<(SessionId, Arc<Notify>)>, Close> {
        let frame = loop {
            if let Some(word) = self.input.first_chunk::<4>()
                && word.iter().all(u8::is_ascii_lowercase)
            {
                let answer = self.word(word);
                self.output.raw(answer.as_bytes());
                self.flush().await?;
                return Ok(None);
            }
            match frame::next_frame(&mut self.input, FRAME_BYTES_MAX)? {
                Some(frame) => break frame,
                None => self.read().await?,
            }
        };
        let request = ConnectRequest::decode(frame)?;
        let session = self.session(&request);
        let response = match &session {
            Some((_, response)) => *response,
            None => ConnectResponse::EXPIRED,
        };
        response.encode(request.has_read_only, &mut self.output);
        let connected = session.map(|(id, _)| (id, self.shared.connect(id)));
        self.flush().await?;
        Ok(connected)
    }

    fn session(&self, request: &ConnectRequest) -> Option<(SessionId, ConnectResponse)> {
        let response = |id: SessionId, timeout_ms: i32, password| ConnectResponse {
            timeout_ms,
            session_id: id.0,
            password,
        };
        if request.session_id != 0 {
            let id = SessionId(request.session_id);
            let resume = |door: &mut Door, now| door.resume_session(id, &request.password, now);
            let timeout_ms = i32::try_from(self.shared.with(resume)?).ok()?;
            let password = request.password.first_chunk().copied()?;
            return Some((id, response(id, timeout_ms, password)));
        }
        let (id, password) = fresh();
        let timeout_ms = request.timeout_ms.clamp(*TIMEOUT_MS.start(), *TIMEOUT_MS.end());
        let open = |door: &mut Door, now| {
            door.open_session(id, password, Some(i64::from(timeout_ms)), now)
        };
        self.shared.with(open).ok()?;
        self.shared.sooner.notify_one();
        Some((id, response(id, timeout_ms, password)))
    }

    fn word(&self, word: &[u8; 4]) -> String {
        let state = self.shared.state.lock();
        match word {
            b"ruok" => "imok".to_owned(),
            b"isro" => "rw".to_owned(),
            b"srvr" => format!(
                "{MARK}{}\nConnections: {}\nZxid: {:#x}\nMode: standalone\nNode count: {}\n",
                env!("CARGO_PKG_VERSION"),
                state.connections.len(),
                state.door.zxid(),
                state.door.node_count(),
            ),
            _ => format!("{} is not served here.\n", word.escape_ascii()),
        }
    }

    async fn run(&mut self, id: SessionId, wake: Arc<Notify>) -> Result<(), Close> {
        loop {
            while let Some(frame) = frame::next_frame(&mut self.input, FRAME_BYTES_MAX)? {
                if self.handle(id, frame)? == Next::Close {
                    return self.flush().await;
                }
                if self.output.len() >= ANSWERS_MAX {
                    self.flush().await?;
                }
            }
            self.flush().await?;
            tokio::select! {
                biased;
                () = wake.notified() => {
                    if !self.shared.is_connection(id, &wake) {
                        return Err(Close::Expired);
                    }
                    let events = self.shared.state.lock().door.take_events(id);
                    events.iter().for_each(|event| event.encode(&mut self.output));
                }
                read = self.connection.readable() => {
                    read?;
                    self.read_some()?;
                }
            }
        }
    }

    fn handle(&mut self, id: SessionId, frame: Bytes) -> Result<Next, Close> {
        let RequestFrame { xid, request } = RequestFrame::decode(frame)?;
        let next = if request == Ok(Request::CloseSession) { Next::Close } else { Next::GoOn };
        let (events, zxid, result) = self.shared.with(|door, now| {
            let result = request.and_then(|request| door.handle(id, request, now));
            (door.take_events(id), door.zxid(), result)
        });
        if result == Err(ErrorCode::SessionExpired) {
            return Err(Close::Expired);
        }
        events.iter().for_each(|event| event.encode(&mut self.output));
        encode_reply(xid, zxid, &result, &mut self.output);
        Ok(next)
    }

    async fn read(&mut self) -> Result<(), Close> {
        self.connection.readable().await?;
        self.read_some()
    }

    fn read_some(&mut self) -> Result<(), Close> {
        match self.connection.read(&mut self.input, CHUNK)? {
            Read::Closed => Err(Close::ByPeer),
            Read::Some | Read::Nothing => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), Close> {
        if self.output.is_empty() {
            return Ok(());
        }
        let mut queue = SendQueue::default();
        *queue.bytes_mut() = std::mem::take(&mut self.output).into_inner();
        Ok(self.connection.send(&mut queue, Some(PATIENCE)).await?)
    }
}

/// What becomes of a connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    Close,
}

#[cfg(test)]
mod tests;
