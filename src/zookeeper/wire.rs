//! ZooKeeper's wire: its records in jute encoding, as a server sees them.
//!
//! A frame is a length and that many bytes, as Kafka's (`ottla_protocol::frame`); numbers are big-endian, text and
//! bytes have a length of four bytes before them. Deliberately not here: what the requests do (`door.rs`) and sockets
//! (`server.rs`).
//! Invariants: no bytes panic, and nothing is allocated past what the frame can back.
//! Source: ZooKeeper's `zookeeper.jute` and its programmer's guide.

use bytes::Bytes;
use ottla_protocol::{Reader, WireError, Writer};

/// Longest frame of a client, in bytes: ZooKeeper's own default of `jute.maxbuffer`.
pub(super) const FRAME_BYTES_MAX: usize = 0xf_ffff;
/// Bytes of a session's password.
pub(super) const PASSWORD_BYTES: usize = 16;
/// The xid of a reply that is none: a watch that fired.
const EVENT_XID: i32 = -1;
/// The connection's state that an event tells of: it is there.
const SYNC_CONNECTED: i32 = 3;
/// Every permission, for everybody.
const ALL: i32 = 31;

/// How a request ends that does not end well: ZooKeeper's own codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(i32)]
pub enum ErrorCode {
    /// The server cannot: one of its bounds is reached.
    #[error("the server has no room for more")]
    SystemError = -1,
    /// The request's bytes are not what its type says.
    #[error("the request is malformed")]
    Marshalling = -5,
    /// This server does not know the operation.
    #[error("the operation is not served")]
    Unimplemented = -6,
    /// A path or flag that cannot be.
    #[error("the arguments are wrong")]
    BadArguments = -8,
    /// There is no such node.
    #[error("there is no such node")]
    NoNode = -101,
    /// The node has another version.
    #[error("the node has another version")]
    BadVersion = -103,
    /// Ephemeral nodes have no children.
    #[error("ephemeral nodes have no children")]
    NoChildrenForEphemerals = -108,
    /// The node is there.
    #[error("the node exists")]
    NodeExists = -110,
    /// The node has children.
    #[error("the node has children")]
    NotEmpty = -111,
    /// The session is over.
    #[error("the session has expired")]
    SessionExpired = -112,
    /// No access control entry is given.
    #[error("the access control list is empty")]
    InvalidAcl = -114,
    /// Nobody is known here.
    #[error("authentication failed")]
    AuthFailed = -115,
}

/// The first frame of a connection: a session is wanted, or wanted back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectRequest {
    /// How long the session is to outlive its connection, in milliseconds.
    pub timeout_ms: i32,
    /// The session that is to go on; 0 for a new one.
    pub session_id: i64,
    pub password: Bytes,
    /// Clients since ZooKeeper 3.4 say whether a server that only reads will do, and want to hear it back.
    pub has_read_only: bool,
}

impl ConnectRequest {
    /// # Errors
    /// [`WireError`] when the frame is none.
    pub fn decode(frame: Bytes) -> Result<ConnectRequest, WireError> {
        let mut r = Reader::new(frame);
        let _protocol_version = r.i32()?;
        let _last_zxid_seen = r.i64()?;
        let timeout_ms = r.i32()?;
        let session_id = r.i64()?;
        let password = r.nullable_bytes(false, true)?.unwrap_or_default();
        Ok(ConnectRequest { timeout_ms, session_id, password, has_read_only: r.left() > 0 })
    }
}

/// The answer to a [`ConnectRequest`]; without a session, the one that was wanted back is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectResponse {
    pub timeout_ms: i32,
    pub session_id: i64,
    pub password: [u8; PASSWORD_BYTES],
}

impl ConnectResponse {
    /// The session is over: zeroes throughout.
    pub const EXPIRED: ConnectResponse =
        ConnectResponse { timeout_ms: 0, session_id: 0, password: [0; PASSWORD_BYTES] };

    pub fn encode(&self, has_read_only: bool, into: &mut Writer) {
        frame(into, |w| {
            w.i32(0);
            w.i32(self.timeout_ms);
            w.i64(self.session_id);
            w.bytes(&self.password, false);
            if has_read_only {
                w.bool(false);
            }
        });
    }
}

/// How a node comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateMode {
    /// It stays.
    Persistent,
    /// It goes with the session.
    Ephemeral,
    /// It stays, and its name ends in a number that its parent has not had.
    PersistentSequential,
    /// It goes with the session, and its name ends in a number that its parent has not had.
    EphemeralSequential,
}

impl CreateMode {
    fn of(flags: i32) -> Option<CreateMode> {
        Some(match flags {
            0 => CreateMode::Persistent,
            1 => CreateMode::Ephemeral,
            2 => CreateMode::PersistentSequential,
            3 => CreateMode::EphemeralSequential,
            _ => return None,
        })
    }
}

/// Whether a reading request leaves a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// It does.
    Leave,
    /// It does not.
    None,
}

/// The watches that a client had, told to the server that it has come back to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watches {
    /// What the client has seen.
    pub zxid: i64,
    /// Of nodes' data.
    pub data: Vec<String>,
    /// Of nodes that were not there.
    pub exist: Vec<String>,
    /// Of nodes' children.
    pub child: Vec<String>,
}

/// What a client wants of a session's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A new node.
    Create {
        /// Its path.
        path: String,
        /// Its content.
        data: Bytes,
        /// How it comes to be.
        mode: CreateMode,
        /// Whether the answer tells the node's state beside its path.
        wants_stat: bool,
    },
    /// A node and its content go.
    Delete {
        /// Which.
        path: String,
        /// The version that it must have; -1 for any.
        version: i32,
    },
    /// Is it there?
    Exists {
        /// Which.
        path: String,
        /// Whether to tell when that changes.
        watch: Watch,
    },
    /// A node's content.
    GetData {
        /// Which.
        path: String,
        /// Whether to tell when it changes.
        watch: Watch,
    },
    /// Other content for a node.
    SetData {
        /// Which.
        path: String,
        /// The content.
        data: Bytes,
        /// The version that it must have; -1 for any.
        version: i32,
    },
    /// The names of a node's children.
    GetChildren {
        /// Which.
        path: String,
        /// Whether to tell when they change.
        watch: Watch,
        /// Whether the answer tells the node's state too.
        wants_stat: bool,
    },
    /// Who may do what with a node.
    GetAcl {
        /// Which.
        path: String,
    },
    /// Nothing: this server is its own leader.
    Sync {
        /// Told back.
        path: String,
    },
    /// Watches of an earlier connection.
    SetWatches(Watches),
    /// No watch is left on a node.
    RemoveWatches {
        /// Which.
        path: String,
        /// What kind: 1 children, 2 data, 3 any.
        kind: i32,
    },
    /// The session lives.
    Ping,
    /// The session is over.
    CloseSession,
}

/// One request with what its answer has to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestFrame {
    /// The client's number for it.
    pub xid: i32,
    /// What it wants, or why that cannot be had.
    pub request: Result<Request, ErrorCode>,
}

impl RequestFrame {
    /// # Errors
    /// [`WireError`] when not even the request's head is there.
    pub fn decode(frame: Bytes) -> Result<RequestFrame, WireError> {
        let mut r = Reader::new(frame);
        let (xid, operation) = (r.i32()?, r.i32()?);
        let request = decode(operation, &mut r).unwrap_or(Err(ErrorCode::Marshalling));
        Ok(RequestFrame { xid, request })
    }
}

fn decode(operation: i32, r: &mut Reader) -> Result<Result<Request, ErrorCode>, WireError> {
    Ok(Ok(match operation {
        1 | 15 => return create(r, operation == 15),
        2 => Request::Delete { path: text(r)?, version: r.i32()? },
        3 => Request::Exists { path: text(r)?, watch: watch(r)? },
        4 => Request::GetData { path: text(r)?, watch: watch(r)? },
        5 => Request::SetData { path: text(r)?, data: data(r)?, version: r.i32()? },
        6 => Request::GetAcl { path: text(r)? },
        8 | 12 => {
            Request::GetChildren { path: text(r)?, watch: watch(r)?, wants_stat: operation == 12 }
        }
        9 => Request::Sync { path: text(r)? },
        11 => Request::Ping,
        18 => Request::RemoveWatches { path: text(r)?, kind: r.i32()? },
        100 | 102 => return Ok(Err(ErrorCode::AuthFailed)),
        101 => Request::SetWatches(Watches {
            zxid: r.i64()?,
            data: texts(r)?,
            exist: texts(r)?,
            child: texts(r)?,
        }),
        -11 => Request::CloseSession,
        _ => return Ok(Err(ErrorCode::Unimplemented)),
    }))
}

fn create(r: &mut Reader, wants_stat: bool) -> Result<Result<Request, ErrorCode>, WireError> {
    let (path, data) = (text(r)?, data(r)?);
    let acls = r.array(false, true, |r| Ok((r.i32()?, text(r)?, text(r)?)))?.unwrap_or_default();
    let Some(mode) = CreateMode::of(r.i32()?) else { return Ok(Err(ErrorCode::BadArguments)) };
    if acls.is_empty() {
        return Ok(Err(ErrorCode::InvalidAcl));
    }
    Ok(Ok(Request::Create { path, data, mode, wants_stat }))
}

fn text(r: &mut Reader) -> Result<String, WireError> {
    let at = r.position();
    let bytes = r.bytes(false)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| WireError::BadString { at })?;
    Ok(text.to_owned())
}

fn texts(r: &mut Reader) -> Result<Vec<String>, WireError> {
    Ok(r.array(false, true, text)?.unwrap_or_default())
}

fn data(r: &mut Reader) -> Result<Bytes, WireError> {
    Ok(r.nullable_bytes(false, true)?.unwrap_or_default())
}

fn watch(r: &mut Reader) -> Result<Watch, WireError> {
    Ok(if r.bool()? { Watch::Leave } else { Watch::None })
}

/// What is known of a node beside its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// The change that made it.
    pub czxid: i64,
    /// The last change of its content.
    pub mzxid: i64,
    /// When it was made, in milliseconds since 1970.
    pub ctime_ms: i64,
    /// When its content last changed.
    pub mtime_ms: i64,
    /// Changes of its content.
    pub version: i32,
    /// Changes of its children.
    pub cversion: i32,
    /// The session that it goes with; 0 for none.
    pub ephemeral_owner: i64,
    /// Bytes of its content.
    pub data_length: i32,
    /// Its children.
    pub children: i32,
    /// The last change of its children.
    pub pzxid: i64,
}

impl Stat {
    fn encode(&self, w: &mut Writer) {
        for zxid_or_time in [self.czxid, self.mzxid, self.ctime_ms, self.mtime_ms] {
            w.i64(zxid_or_time);
        }
        w.i32(self.version);
        w.i32(self.cversion);
        // The version of the access control list, which does not change.
        w.i32(0);
        w.i64(self.ephemeral_owner);
        w.i32(self.data_length);
        w.i32(self.children);
        w.i64(self.pzxid);
    }
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// It is done.
    Done,
    /// Create: the path, which may end in a number, and the state where that was asked for.
    Created(String, Option<Stat>),
    /// A node's state.
    Stat(Stat),
    /// A node's content and state.
    Data(Bytes, Stat),
    /// The names of a node's children, and its state where that was asked for.
    Children(Vec<String>, Option<Stat>),
    /// Everybody may do everything.
    Acl(Stat),
    /// The path that was given.
    Path(String),
}

impl Response {
    fn encode(&self, w: &mut Writer) {
        match self {
            Response::Done => {}
            Response::Created(path, stat) => {
                w.bytes(path.as_bytes(), false);
                stat.iter().for_each(|stat| stat.encode(w));
            }
            Response::Stat(stat) => stat.encode(w),
            Response::Data(data, stat) => {
                w.bytes(data, false);
                stat.encode(w);
            }
            Response::Children(names, stat) => {
                w.array(names, false, |w, name| w.bytes(name.as_bytes(), false));
                stat.iter().for_each(|stat| stat.encode(w));
            }
            Response::Acl(stat) => {
                w.array(&[("world", "anyone")], false, |w, (scheme, id)| {
                    w.i32(ALL);
                    w.bytes(scheme.as_bytes(), false);
                    w.bytes(id.as_bytes(), false);
                });
                stat.encode(w);
            }
            Response::Path(path) => w.bytes(path.as_bytes(), false),
        }
    }
}

/// What a watch tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum EventKind {
    /// The node is there now.
    Created = 1,
    /// It is gone.
    Deleted = 2,
    /// It has other content.
    DataChanged = 3,
    /// It has other children.
    ChildrenChanged = 4,
}

/// A watch that fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// To which node.
    pub path: String,
}

impl Event {
    pub(super) fn encode(&self, into: &mut Writer) {
        frame(into, |w| {
            w.i32(EVENT_XID);
            w.i64(-1);
            w.i32(0);
            w.i32(self.kind as i32);
            w.i32(SYNC_CONNECTED);
            w.bytes(self.path.as_bytes(), false);
        });
    }
}

/// Queues the answer to the request of this number; `zxid` is the last change that it knows of.
pub(super) fn encode_reply(
    xid: i32,
    zxid: i64,
    result: &Result<Response, ErrorCode>,
    into: &mut Writer,
) {
    frame(into, |w| {
        w.i32(xid);
        w.i64(zxid);
        match result {
            Ok(response) => {
                w.i32(0);
                response.encode(w);
            }
            Err(error) => w.i32(*error as i32),
        }
    });
}

fn frame(into: &mut Writer, write: impl FnOnce(&mut Writer)) {
    let start = into.len();
    into.i32(0);
    write(into);
    // What is written was bounded when it came in: no node has more than a frame's bytes.
    into.set_i32(start, (into.len() - start - 4) as i32);
}

#[cfg(test)]
mod tests;
