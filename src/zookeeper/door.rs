//! The door's state: nodes, sessions and watches, as ZooKeeper has them.
//!
//! Pure: requests and the time go in, answers come out, and who is to be told of a change is asked for afterwards. All
//! of it is in memory; what must outlive the one who holds the door is in the brokers' directories (decision 8).
//! Invariants: a node has a parent, and an ephemeral one a session; a session that is over leaves no node and no watch;
//! nodes, their bytes, sessions and watches have bounds.
//! Source: ZooKeeper's programmer's guide, "Ephemeral Nodes", "ZooKeeper Sessions", "ZooKeeper Watches".

use super::wire::{
    CreateMode, ErrorCode, Event, EventKind, PASSWORD_BYTES, Request, Response, Stat, Watch,
    Watches,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes; Kafka of the time had some for each partition.
const NODES_MAX: usize = 1_000_000;
/// Bytes of all nodes' contents and paths together.
const BYTES_MAX: usize = 256 << 20;
/// Bytes of a path.
const PATH_BYTES_MAX: usize = 4096;
/// Sessions at a time.
const SESSIONS_MAX: usize = 10_000;
/// Watches of one session; a client of 2014 has a few for each partition that it knows.
const WATCHES_MAX: usize = 100_000;
/// Kind of a watch in RemoveWatches: of children.
const CHILDREN: i32 = 1;
/// Kind of a watch in RemoveWatches: of data.
const DATA: i32 = 2;

/// A session's number; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub i64);

/// When something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970, for nodes to tell.
    pub wall_ms: i64,
    /// Milliseconds of a clock that nobody sets, for sessions to end by.
    pub uptime_ms: i64,
}

#[derive(Debug, Default)]
struct Node {
    data: Bytes,
    stat: Stat,
    children: BTreeSet<String>,
    /// Children made so far: the number in a sequential one's name.
    created: i32,
}

impl Node {
    fn stat(&self) -> Stat {
        Stat {
            data_length: self.data.len() as i32,
            children: self.children.len() as i32,
            ..self.stat
        }
    }
}

#[derive(Debug)]
struct Session {
    password: [u8; PASSWORD_BYTES],
    /// How long it lives without a word; one of this process itself as long as that.
    timeout_ms: Option<i64>,
    last_heard_ms: i64,
    ephemerals: BTreeSet<String>,
    data_watches: BTreeSet<String>,
    child_watches: BTreeSet<String>,
    events: Vec<Event>,
}

type Watchers = BTreeMap<String, BTreeSet<SessionId>>;

/// Nodes, sessions and watches.
#[derive(Debug)]
pub struct Door {
    nodes: BTreeMap<String, Node>,
    bytes: usize,
    zxid: i64,
    sessions: BTreeMap<SessionId, Session>,
    data_watchers: Watchers,
    child_watchers: Watchers,
    woken: BTreeSet<SessionId>,
}

impl Door {
    /// An empty one. Its changes are numbered upwards from the time, so that they go on where another's ended.
    pub fn new(now: Now) -> Door {
        Door {
            nodes: BTreeMap::from([("/".to_owned(), Node::default())]),
            bytes: 0,
            zxid: now.wall_ms << 20,
            sessions: BTreeMap::new(),
            data_watchers: Watchers::new(),
            child_watchers: Watchers::new(),
            woken: BTreeSet::new(),
        }
    }

    /// The last change.
    pub fn zxid(&self) -> i64 {
        self.zxid
    }

    /// How many nodes there are, the root among them.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Begins a session under an id that nobody has; without a timeout it ends with [`Door::close_session`] alone.
    ///
    /// # Errors
    /// `SystemError` when there are too many, or the id is one of theirs.
    pub fn open_session(
        &mut self,
        id: SessionId,
        password: [u8; PASSWORD_BYTES],
        timeout_ms: Option<i64>,
        now: Now,
    ) -> Result<(), ErrorCode> {
        if self.sessions.len() >= SESSIONS_MAX || self.sessions.contains_key(&id) {
            return Err(ErrorCode::SystemError);
        }
        let session = Session {
            password,
            timeout_ms,
            last_heard_ms: now.uptime_ms,
            ephemerals: BTreeSet::new(),
            data_watches: BTreeSet::new(),
            child_watches: BTreeSet::new(),
            events: Vec::new(),
        };
        self.sessions.insert(id, session);
        Ok(())
    }

    /// Goes on with a session on another connection: its nodes stay, its watches are the client's to set again. The
    /// timeout that it has; `None` when there is no such session, or not with this password.
    pub fn resume_session(&mut self, id: SessionId, password: &[u8], now: Now) -> Option<i64> {
        let session = self.sessions.get_mut(&id)?;
        if session.password[..] != *password {
            return None;
        }
        session.last_heard_ms = now.uptime_ms;
        session.events.clear();
        let timeout_ms = session.timeout_ms?;
        self.forget_watches(id);
        Some(timeout_ms)
    }

    /// Ends a session: its ephemeral nodes go.
    pub fn close_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let ephemerals = std::mem::take(&mut session.ephemerals);
        self.forget_watches(id);
        self.sessions.remove(&id);
        self.woken.insert(id);
        for path in ephemerals {
            // It is there and has no children: both are kept so.
            let _ = self.delete(&path, -1);
        }
    }

    /// Ends the sessions that have said nothing for too long; which those were.
    pub fn expire(&mut self, now: Now) -> Vec<SessionId> {
        let is_over = |(id, session): (&SessionId, &Session)| {
            session.deadline_ms().is_some_and(|deadline| deadline <= now.uptime_ms).then_some(*id)
        };
        let over: Vec<SessionId> = self.sessions.iter().filter_map(is_over).collect();
        for id in &over {
            self.close_session(*id);
        }
        over
    }

    /// Counts every session as heard of now: this process itself was asleep, and they may have spoken.
    pub fn excuse_silence(&mut self, now: Now) {
        for session in self.sessions.values_mut() {
            session.last_heard_ms = now.uptime_ms;
        }
    }

    /// When the next session ends if nothing is heard, in milliseconds of uptime.
    pub fn next_expiry_ms(&self) -> Option<i64> {
        self.sessions.values().filter_map(Session::deadline_ms).min()
    }

    /// Whether the session is not over.
    pub fn has_session(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Sessions that have something to hear, or are over, since this was last asked.
    pub fn take_woken(&mut self) -> BTreeSet<SessionId> {
        std::mem::take(&mut self.woken)
    }

    /// The watches of a session that fired, in the order of the changes. They go to the client before the answer to
    /// anything that it asks from now on.
    pub fn take_events(&mut self, id: SessionId) -> Vec<Event> {
        let session = self.sessions.get_mut(&id);
        session.map(|session| std::mem::take(&mut session.events)).unwrap_or_default()
    }

    /// Does what a session's client wants.
    ///
    /// # Errors
    /// ZooKeeper's own code for it.
    pub fn handle(
        &mut self,
        id: SessionId,
        request: Request,
        now: Now,
    ) -> Result<Response, ErrorCode> {
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::SessionExpired)?;
        session.last_heard_ms = now.uptime_ms;
        match request {
            Request::Create { path, data, mode, wants_stat } => {
                let (path, stat) = self.create(id, path, data, mode, now)?;
                Ok(Response::Created(path, wants_stat.then_some(stat)))
            }
            Request::Delete { path, version } => {
                self.delete(&path, version).map(|()| Response::Done)
            }
            Request::Exists { path, watch } => {
                check_path(&path)?;
                self.watch_data(id, &path, watch)?;
                self.node(&path).map(|node| Response::Stat(node.stat()))
            }
            Request::GetData { path, watch } => {
                let node = self.node(&path)?;
                let answer = Response::Data(node.data.clone(), node.stat());
                self.watch_data(id, &path, watch)?;
                Ok(answer)
            }
            Request::SetData { path, data, version } => {
                self.set_data(&path, data, version, now).map(Response::Stat)
            }
            Request::GetChildren { path, watch, wants_stat } => {
                let node = self.node(&path)?;
                let names = node.children.iter().cloned().collect();
                let answer = Response::Children(names, wants_stat.then_some(node.stat()));
                self.watch_children(id, &path, watch)?;
                Ok(answer)
            }
            Request::GetAcl { path } => self.node(&path).map(|node| Response::Acl(node.stat())),
            Request::Sync { path } => Ok(Response::Path(path)),
            Request::SetWatches(watches) => self.set_watches(id, watches).map(|()| Response::Done),
            Request::RemoveWatches { path, kind } => {
                self.remove_watches(id, &path, kind);
                Ok(Response::Done)
            }
            Request::Ping => Ok(Response::Done),
            Request::CloseSession => {
                self.close_session(id);
                Ok(Response::Done)
            }
        }
    }

    fn node(&self, path: &str) -> Result<&Node, ErrorCode> {
        check_path(path)?;
        self.nodes.get(path).ok_or(ErrorCode::NoNode)
    }

    fn create(
        &mut self,
        id: SessionId,
        mut path: String,
        data: Bytes,
        mode: CreateMode,
        now: Now,
    ) -> Result<(String, Stat), ErrorCode> {
        use CreateMode::{Ephemeral, EphemeralSequential, PersistentSequential};
        let is_sequential = matches!(mode, PersistentSequential | EphemeralSequential);
        if is_sequential {
            // Only with its number is it a path: `/locks/` becomes `/locks/0000000000`.
            let (parent, _) = split(&path)?;
            let number = self.nodes.get(parent).ok_or(ErrorCode::NoNode)?.created;
            path = format!("{path}{number:010}");
        }
        check_path(&path)?;
        if self.nodes.contains_key(&path) {
            return Err(ErrorCode::NodeExists);
        }
        let bytes = path.len() + data.len();
        if self.nodes.len() >= NODES_MAX || self.bytes + bytes > BYTES_MAX {
            return Err(ErrorCode::SystemError);
        }
        let (parent_path, name) = split(&path)?;
        let (parent_path, name) = (parent_path.to_owned(), name.to_owned());
        let parent = self.nodes.get_mut(&parent_path).ok_or(ErrorCode::NoNode)?;
        if parent.stat.ephemeral_owner != 0 {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        self.zxid += 1;
        parent.created = parent.created.wrapping_add(1);
        parent.stat.cversion = parent.stat.cversion.wrapping_add(1);
        parent.stat.pzxid = self.zxid;
        parent.children.insert(name);
        let is_ephemeral = matches!(mode, Ephemeral | EphemeralSequential);
        let stat = Stat {
            czxid: self.zxid,
            mzxid: self.zxid,
            pzxid: self.zxid,
            ctime_ms: now.wall_ms,
            mtime_ms: now.wall_ms,
            ephemeral_owner: if is_ephemeral { id.0 } else { 0 },
            ..Stat::default()
        };
        let node = Node { data, stat, ..Node::default() };
        let stat = node.stat();
        self.nodes.insert(path.clone(), node);
        self.bytes += bytes;
        if is_ephemeral && let Some(session) = self.sessions.get_mut(&id) {
            session.ephemerals.insert(path.clone());
        }
        self.fire_data(&path, EventKind::Created);
        self.fire_children(&parent_path, EventKind::ChildrenChanged);
        Ok((path, stat))
    }

    fn delete(&mut self, path: &str, version: i32) -> Result<(), ErrorCode> {
        let node = self.node(path)?;
        let (parent_path, name) = split(path)?;
        check_version(version, node.stat.version)?;
        if !node.children.is_empty() {
            return Err(ErrorCode::NotEmpty);
        }
        let (owner, bytes) = (SessionId(node.stat.ephemeral_owner), path.len() + node.data.len());
        self.zxid += 1;
        self.bytes -= bytes;
        self.nodes.remove(path);
        if let Some(session) = self.sessions.get_mut(&owner) {
            session.ephemerals.remove(path);
        }
        if let Some(parent) = self.nodes.get_mut(parent_path) {
            parent.children.remove(name);
            parent.stat.cversion = parent.stat.cversion.wrapping_add(1);
            parent.stat.pzxid = self.zxid;
        }
        self.fire_data(path, EventKind::Deleted);
        self.fire_children(path, EventKind::Deleted);
        self.fire_children(parent_path, EventKind::ChildrenChanged);
        Ok(())
    }

    fn set_data(
        &mut self,
        path: &str,
        data: Bytes,
        version: i32,
        now: Now,
    ) -> Result<Stat, ErrorCode> {
        let node = self.node(path)?;
        check_version(version, node.stat.version)?;
        let bytes = self.bytes - node.data.len() + data.len();
        if bytes > BYTES_MAX {
            return Err(ErrorCode::SystemError);
        }
        let node = self.nodes.get_mut(path).ok_or(ErrorCode::NoNode)?;
        self.zxid += 1;
        self.bytes = bytes;
        node.data = data;
        node.stat.version = node.stat.version.wrapping_add(1);
        node.stat.mzxid = self.zxid;
        node.stat.mtime_ms = now.wall_ms;
        let stat = node.stat();
        self.fire_data(path, EventKind::DataChanged);
        Ok(stat)
    }

    fn watch_data(&mut self, id: SessionId, path: &str, watch: Watch) -> Result<(), ErrorCode> {
        if watch == Watch::None {
            return Ok(());
        }
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::SessionExpired)?;
        session.check_watches()?;
        session.data_watches.insert(path.to_owned());
        self.data_watchers.entry(path.to_owned()).or_default().insert(id);
        Ok(())
    }

    fn watch_children(&mut self, id: SessionId, path: &str, watch: Watch) -> Result<(), ErrorCode> {
        if watch == Watch::None {
            return Ok(());
        }
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::SessionExpired)?;
        session.check_watches()?;
        session.child_watches.insert(path.to_owned());
        self.child_watchers.entry(path.to_owned()).or_default().insert(id);
        Ok(())
    }

    /// Sets watches that an earlier connection had; what has changed since is told at once.
    fn set_watches(&mut self, id: SessionId, watches: Watches) -> Result<(), ErrorCode> {
        let seen = watches.zxid;
        for path in watches.data {
            match self.nodes.get(&path) {
                None => self.tell(id, EventKind::Deleted, &path),
                Some(node) if node.stat.mzxid > seen => {
                    self.tell(id, EventKind::DataChanged, &path);
                }
                Some(_) => self.watch_data(id, &path, Watch::Leave)?,
            }
        }
        for path in watches.exist {
            match self.nodes.contains_key(&path) {
                true => self.tell(id, EventKind::Created, &path),
                false => self.watch_data(id, &path, Watch::Leave)?,
            }
        }
        for path in watches.child {
            match self.nodes.get(&path) {
                None => self.tell(id, EventKind::Deleted, &path),
                Some(node) if node.stat.pzxid > seen => {
                    self.tell(id, EventKind::ChildrenChanged, &path);
                }
                Some(_) => self.watch_children(id, &path, Watch::Leave)?,
            }
        }
        Ok(())
    }

    fn remove_watches(&mut self, id: SessionId, path: &str, kind: i32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if kind != CHILDREN && session.data_watches.remove(path) {
            remove_watcher(&mut self.data_watchers, path, id);
        }
        if kind != DATA && session.child_watches.remove(path) {
            remove_watcher(&mut self.child_watchers, path, id);
        }
    }

    fn forget_watches(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for path in std::mem::take(&mut session.data_watches) {
            remove_watcher(&mut self.data_watchers, &path, id);
        }
        for path in std::mem::take(&mut session.child_watches) {
            remove_watcher(&mut self.child_watchers, &path, id);
        }
    }

    fn fire_data(&mut self, path: &str, kind: EventKind) {
        for id in self.data_watchers.remove(path).unwrap_or_default() {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.data_watches.remove(path);
            }
            self.tell(id, kind, path);
        }
    }

    fn fire_children(&mut self, path: &str, kind: EventKind) {
        for id in self.child_watchers.remove(path).unwrap_or_default() {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.child_watches.remove(path);
            }
            self.tell(id, kind, path);
        }
    }

    fn tell(&mut self, id: SessionId, kind: EventKind, path: &str) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let event = Event { kind, path: path.to_owned() };
        // A node that goes is told of once, whatever its watchers watched.
        if session.events.last() != Some(&event) {
            session.events.push(event);
        }
        self.woken.insert(id);
    }
}

impl Session {
    fn deadline_ms(&self) -> Option<i64> {
        Some(self.last_heard_ms.saturating_add(self.timeout_ms?))
    }

    fn check_watches(&self) -> Result<(), ErrorCode> {
        // Events that were not fetched count too: a client that watches again and never reads must not grow.
        let count = self.data_watches.len() + self.child_watches.len() + self.events.len();
        if count < WATCHES_MAX { Ok(()) } else { Err(ErrorCode::SystemError) }
    }
}

fn remove_watcher(watchers: &mut Watchers, path: &str, id: SessionId) {
    if let Some(ids) = watchers.get_mut(path) {
        ids.remove(&id);
        if ids.is_empty() {
            watchers.remove(path);
        }
    }
}

fn check_version(wanted: i32, version: i32) -> Result<(), ErrorCode> {
    if wanted == -1 || wanted == version { Ok(()) } else { Err(ErrorCode::BadVersion) }
}

/// A path's parent and its last name; the root has none.
fn split(path: &str) -> Result<(&str, &str), ErrorCode> {
    match path.rsplit_once('/') {
        Some(_) if path == "/" => Err(ErrorCode::BadArguments),
        Some(("", name)) => Ok(("/", name)),
        Some(split) => Ok(split),
        None => Err(ErrorCode::BadArguments),
    }
}

fn check_path(path: &str) -> Result<(), ErrorCode> {
    let is_name = |name: &str| {
        !matches!(name, "" | "." | "..") && !name.chars().any(|c| c.is_control() || c == '\u{fffd}')
    };
    let names = path.strip_prefix('/').ok_or(ErrorCode::BadArguments)?;
    let is_path = path.len() <= PATH_BYTES_MAX && (path == "/" || names.split('/').all(is_name));
    if is_path { Ok(()) } else { Err(ErrorCode::BadArguments) }
}

#[cfg(test)]
mod tests;
