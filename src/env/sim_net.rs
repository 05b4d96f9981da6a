//! A network in memory: machines by name, links that delay, are cut in one direction or both, and connections that
//! keep the order of their bytes, as TCP's do, but not that of other connections.
//!
//! Time is what the driver says, in milliseconds: what is sent arrives when [`SimNet::advance`] comes to its time. A
//! cut link loses nothing, since TCP sends again: it arrives some time after the link is whole. A machine whose process
//! ended answers what comes for it with a reset, and refuses connections; one without power says nothing at all.
//! Deliberately not here: bandwidth, and the acknowledgements of TCP, which arrive at once.

use super::rng::Rng;
use super::sim_traffic::{Meter, RequestKind, Traffic};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::{Notify, oneshot};

/// The number of a machine, from 0 on.
pub type HostId = usize;

/// Bytes that a sender may have on their way and unread.
const WINDOW_BYTES: usize = 256 * 1024;
/// After so long a connection that was not answered is asked for again.
const SYN_PAUSE_MS: u64 = 1000;
/// What is sent again after a link was cut comes this late, at the most.
const RESEND_MS_MAX: u64 = 250;
/// The first port that is given to those who dial.
const FIRST_PORT: u16 = 32_768;

/// What one end is sent.
#[derive(Debug)]
enum Packet {
    Data(Bytes),
    Fin,
    Reset,
}

/// One end of a connection.
#[derive(Debug)]
struct End {
    host: HostId,
    /// On its way to this end, with the times of arrival, which rise.
    coming: VecDeque<(u64, Packet)>,
    coming_bytes: usize,
    received: BytesMut,
    has_ended: bool,
    is_reset: bool,
    is_shut: bool,
    /// Nobody holds it any more.
    is_gone: bool,
    readable: Arc<Notify>,
    writable: Arc<Notify>,
}

#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) came: Notify,
    pub(super) queue: Mutex<VecDeque<Hold>>,
}

/// One end, as its holder names it: the connection, and which of the two.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) connection: u64,
    pub(super) side: usize,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
}

#[derive(Debug)]
struct Dial {
    due: u64,
    from: HostId,
    to: HostId,
    port: u16,
    answer: oneshot::Sender<io::Result<Hold>>,
}

#[derive(Debug)]
struct Host {
    name: String,
    ip: IpAddr,
    has_power: bool,
    next_port: u16,
    listeners: BTreeMap<u16, Arc<Backlog>>,
}

#[derive(Debug)]
struct State {
    now_ms: u64,
    rng: Rng,
    hosts: Vec<Host>,
    cuts: BTreeSet<(HostId, HostId)>,
    /// Nothing arrives on a link before.
    resumes: BTreeMap<(HostId, HostId), u64>,
    /// Milliseconds that a link takes more than its least, at the most.
    slowness: BTreeMap<(HostId, HostId), u64>,
    connections: BTreeMap<u64, [End; 2]>,
    next_connection: u64,
    dials: Vec<Dial>,
    /// Nothing arrives before.
    next_due: u64,
    seen: DefaultHasher,
    packets: u64,
    /// Counts requests, where that is wanted.
    meter: Option<Meter>,
}

/// The network.
#[derive(Debug)]
pub struct SimNet(Mutex<State>);

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl SimNet {
    /// A network of machines with these names, all of them on.
    pub fn new(seed: u64, names: &[&str]) -> Arc<SimNet> {
        let host = |(id, name): (usize, &&str)| Host {
            name: (*name).to_owned(),
            ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, id as u8 + 1)),
            has_power: true,
            next_port: FIRST_PORT,
            listeners: BTreeMap::new(),
        };
        Arc::new(SimNet(Mutex::new(State {
            now_ms: 0,
            rng: Rng::new(seed),
            hosts: names.iter().enumerate().map(host).collect(),
            cuts: BTreeSet::new(),
            resumes: BTreeMap::new(),
            slowness: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            dials: Vec::new(),
            next_due: u64::MAX,
            seen: DefaultHasher::new(),
            packets: 0,
            meter: None,
        })))
    }

    /// Milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        self.0.lock().now_ms
    }

    /// When something arrives next, if nothing else is sent.
    pub fn next_due_ms(&self) -> u64 {
        self.0.lock().next_due
    }

    /// A number below `bound`, which is not 0.
    pub fn random_below(&self, bound: u64) -> u64 {
        self.0.lock().rng.next() % bound
    }

    /// What stands for all that has arrived so far: how many packets, and a hash over them.
    pub fn history(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.packets, state.seen.finish())
    }

    /// From now on requests on new connections are counted.
    pub fn count_requests(&self) {
        self.0.lock().meter = Some(Meter::default());
    }

    /// The requests that were counted so far.
    pub fn requests(&self) -> BTreeMap<RequestKind, Traffic> {
        self.0.lock().meter.as_ref().map(|meter| meter.seen().clone()).unwrap_or_default()
    }

    /// Lets everything arrive that is due by then.
    pub fn advance(&self, now_ms: u64) {
        let mut state = self.0.lock();
        state.now_ms = now_ms;
        if state.next_due <= now_ms {
            state.deliver();
        }
    }

    /// Nothing gets from one machine to another until [`SimNet::heal`]; the other direction is left alone.
    pub fn cut(&self, from: HostId, to: HostId) {
        self.0.lock().cuts.insert((from, to));
    }

    /// Makes all links whole and fast; what was held back comes soon.
    pub fn heal(&self) {
        let mut state = self.0.lock();
        state.slowness.clear();
        for link in std::mem::take(&mut state.cuts) {
            let resumes = state.now_ms + 1 + state.rng.next() % RESEND_MS_MAX;
            state.resumes.insert(link, resumes);
        }
        state.next_due = 0;
    }

    /// From now on the link takes up to so many milliseconds more.
    pub fn slow_down(&self, from: HostId, to: HostId, max_ms: u64) {
        self.0.lock().slowness.insert((from, to), max_ms);
    }

    /// Breaks one connection between two machines, if there is any: both ends learn it.
    pub fn break_connection(&self, one: HostId, other: HostId) -> bool {
        let mut state = self.0.lock();
        let is_between = |ends: &[End; 2]| {
            let hosts = [ends[0].host, ends[1].host];
            hosts == [one, other] || hosts == [other, one]
        };
        let found = state.connections.iter().filter(|(_, ends)| is_between(ends));
        let ids: Vec<u64> = found.map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return false;
        }
        let id = ids[state.rng.below(ids.len())];
        if let Some(ends) = state.connections.get_mut(&id) {
            ends.iter_mut().for_each(End::be_reset);
        }
        true
    }

    /// The process of a machine was killed: its connections are reset, and the machine refuses new ones.
    pub fn end_process(&self, host: HostId) {
        let mut state = self.0.lock();
        state.hosts[host].listeners.clear();
        for (id, side) in state.ends_of(host) {
            state.let_go(id, side, Some(Packet::Reset));
        }
        state.remove_gone();
    }

    /// The machine loses power: it says nothing from now on.
    pub fn power_off(&self, host: HostId) {
        let mut state = self.0.lock();
        state.hosts[host].has_power = false;
        state.hosts[host].listeners.clear();
        for (id, side) in state.ends_of(host) {
            state.let_go(id, side, None);
        }
        state.remove_gone();
    }

    /// The machine runs again.
    pub fn power_on(&self, host: HostId) {
        self.0.lock().hosts[host].has_power = true;
    }

    pub(super) fn find(&self, name: &str) -> io::Result<(HostId, IpAddr)> {
        let state = self.0.lock();
        let ip: Option<IpAddr> = name.parse().ok();
        let is_it = |host: &Host| host.name == name || Some(host.ip) == ip;
        let found = state.hosts.iter().position(is_it);
        let id = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok((id, state.hosts[id].ip))
    }

    pub(super) fn address(&self, host: HostId) -> IpAddr {
        self.0.lock().hosts[host].ip
    }

    /// Listens on a port of a machine; 0 lets it choose. `None` when the port is taken.
    pub(super) fn listen(&self, host: HostId, port: u16) -> Option<(Arc<Backlog>, SocketAddr)> {
        let mut state = self.0.lock();
        let host = &mut state.hosts[host];
        let port = if port == 0 { host.take_port() } else { port };
        if host.listeners.contains_key(&port) {
            return None;
        }
        let backlog = Arc::new(Backlog::default());
        host.listeners.insert(port, Arc::clone(&backlog));
        Some((backlog, SocketAddr::new(host.ip, port)))
    }

    pub(super) fn listen_no_more(&self, host: HostId, port: u16, backlog: &Arc<Backlog>) {
        let mut state = self.0.lock();
        let listeners = &mut state.hosts[host].listeners;
        if listeners.get(&port).is_some_and(|known| Arc::ptr_eq(known, backlog)) {
            listeners.remove(&port);
        }
        for end in backlog.queue.lock().drain(..) {
            state.let_go(end.connection, end.side, Some(Packet::Reset));
        }
    }

    /// Asks for a connection; the answer comes when the other machine has given it, if ever.
    pub(super) fn dial(
        &self,
        from: HostId,
        to: HostId,
        port: u16,
    ) -> oneshot::Receiver<io::Result<Hold>> {
        let mut state = self.0.lock();
        let (answer, answered) = oneshot::channel();
        let due = state.now_ms + state.delay(from, to) + state.delay(to, from);
        state.dials.push(Dial { due, from, to, port, answer });
        state.next_due = state.next_due.min(due);
        answered
    }

    pub(super) fn notifies(&self, end: &Hold) -> Option<(Arc<Notify>, Arc<Notify>)> {
        let state = self.0.lock();
        let end = &state.connections.get(&end.connection)?[end.side];
        Some((Arc::clone(&end.readable), Arc::clone(&end.writable)))
    }

    /// Whether a read would find something.
    pub(super) fn is_readable(&self, end: &Hold) -> bool {
        let state = self.0.lock();
        let Some(ends) = state.connections.get(&end.connection) else { return true };
        let end = &ends[end.side];
        !end.received.is_empty() || end.has_ended || end.is_reset || end.is_shut
    }

    /// Takes at most `limit` received bytes; `None` when the other side has closed.
    pub(super) fn read(&self, end: &Hold, limit: usize) -> io::Result<Option<BytesMut>> {
        let mut state = self.0.lock();
        let ends = state.connections.get_mut(&end.connection).ok_or_else(reset)?;
        let other = Arc::clone(&ends[1 - end.side].writable);
        let end = &mut ends[end.side];
        if end.is_shut {
            return Ok(None);
        }
        if end.received.is_empty() {
            return match (end.is_reset, end.has_ended) {
                (true, _) => Err(reset()),
                (false, true) => Ok(None),
                (false, false) => Ok(Some(BytesMut::new())),
            };
        }
        let count = end.received.len().min(limit);
        other.notify_one();
        Ok(Some(end.received.split_to(count)))
    }

    pub(super) fn shut(&self, end: &Hold) {
        let mut state = self.0.lock();
        if let Some(ends) = state.connections.get_mut(&end.connection) {
            ends[end.side].is_shut = true;
            ends[end.side].readable.notify_one();
        }
    }

    /// Sends as many of the bytes as the window lets; 0 when it is full.
    pub(super) fn send(&self, end: &Hold, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        let ends = state.connections.get(&end.connection).ok_or_else(reset)?;
        if ends[end.side].is_reset || ends[end.side].is_gone {
            return Err(reset());
        }
        let other = &ends[1 - end.side];
        let room = WINDOW_BYTES.saturating_sub(other.coming_bytes + other.received.len());
        let count = room.min(bytes.len());
        if count > 0 {
            if let Some(meter) = &mut state.meter {
                meter.sent(end.connection, end.side, &bytes[..count]);
            }
            let packet = Packet::Data(Bytes::copy_from_slice(&bytes[..count]));
            state.push(end.connection, 1 - end.side, packet);
        }
        Ok(count)
    }

    pub(super) fn close(&self, end: &Hold) {
        let mut state = self.0.lock();
        let Some(ends) = state.connections.get(&end.connection) else { return };
        let own = &ends[end.side];
        if own.is_gone {
            return;
        }
        // What was not read makes it a reset, as with TCP.
        let is_read = own.received.is_empty() && own.coming_bytes == 0;
        let last = if is_read { Packet::Fin } else { Packet::Reset };
        state.let_go(end.connection, end.side, Some(last));
        state.remove_gone();
    }
}

impl Host {
    fn take_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        port
    }
}

impl End {
    fn new(host: HostId) -> End {
        End {
            host,
            coming: VecDeque::new(),
            coming_bytes: 0,
            received: BytesMut::new(),
            has_ended: false,
            is_reset: false,
            is_shut: false,
            is_gone: false,
            readable: Arc::default(),
            writable: Arc::default(),
        }
    }

    fn be_reset(&mut self) {
        self.is_reset = true;
        self.coming.clear();
        self.coming_bytes = 0;
        self.readable.notify_one();
        self.writable.notify_one();
    }
}

impl State {
    fn delay(&mut self, from: HostId, to: HostId) -> u64 {
        let slowness = self.slowness.get(&(from, to)).copied().unwrap_or(0);
        // Most of what is sent at once arrives at once.
        let usual = if self.rng.one_in(4) { self.rng.next() % 3 } else { 0 };
        1 + usual + if slowness > 0 { self.rng.next() % (slowness + 1) } else { 0 }
    }

    fn is_open(&self, from: HostId, to: HostId) -> bool {
        let resumes = self.resumes.get(&(from, to)).copied().unwrap_or(0);
        !self.cuts.contains(&(from, to)) && resumes <= self.now_ms
    }

    fn ends_of(&self, host: HostId) -> Vec<(u64, usize)> {
        let all = self.connections.iter();
        let of = all.flat_map(|(id, ends)| ends.iter().enumerate().map(move |it| (*id, it)));
        of.filter(|(_, (_, end))| end.host == host).map(|(id, (side, _))| (id, side)).collect()
    }

    /// The holder of an end is gone; the other end is told, if `last` is something.
    fn let_go(&mut self, id: u64, side: usize, last: Option<Packet>) {
        let Some(ends) = self.connections.get_mut(&id) else { return };
        let was_reset = ends[side].is_reset;
        let end = &mut ends[side];
        if std::mem::replace(&mut end.is_gone, true) {
            return;
        }
        end.be_reset();
        if let Some(last) = last.filter(|_| !was_reset) {
            self.push(id, 1 - side, last);
        }
    }

    fn remove_gone(&mut self) {
        self.connections.retain(|_, ends| ends.iter().any(|end| !end.is_gone));
        if let Some(meter) = &mut self.meter {
            meter.retain(|connection| self.connections.contains_key(connection));
        }
    }

    fn push(&mut self, id: u64, to_side: usize, packet: Packet) {
        let Some(ends) = self.connections.get(&id) else { return };
        let (from, to) = (ends[1 - to_side].host, ends[to_side].host);
        let due = self.now_ms + self.delay(from, to);
        let Some(ends) = self.connections.get_mut(&id) else { return };
        let end = &mut ends[to_side];
        let due = end.coming.back().map_or(due, |(last, _)| due.max(*last));
        if let Packet::Data(bytes) = &packet {
            end.coming_bytes += bytes.len();
        }
        end.coming.push_back((due, packet));
        self.next_due = self.next_due.min(due);
    }

    fn deliver(&mut self) {
        self.next_due = u64::MAX;
        self.answer_dials();
        let mut resets = Vec::new();
        let mut next_due = u64::MAX;
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            for side in 0..2 {
                let due = self.deliver_to(id, side, &mut resets);
                next_due = next_due.min(due);
            }
        }
        self.next_due = self.next_due.min(next_due);
        for (id, side) in resets {
            self.push(id, side, Packet::Reset);
        }
    }

    /// Gives an end what has come for it; when there is more.
    fn deliver_to(&mut self, id: u64, side: usize, resets: &mut Vec<(u64, usize)>) -> u64 {
        let now = self.now_ms;
        let Some(ends) = self.connections.get(&id) else { return u64::MAX };
        let Some((due, _)) = ends[side].coming.front() else { return u64::MAX };
        let (from, to) = (ends[1 - side].host, ends[side].host);
        if *due > now {
            return *due;
        }
        if self.cuts.contains(&(from, to)) {
            // Healing looks at all links anew.
            return u64::MAX;
        }
        if !self.is_open(from, to) {
            return self.resumes.get(&(from, to)).copied().unwrap_or(now + 1);
        }
        let has_power = self.hosts[to].has_power;
        let Some(ends) = self.connections.get_mut(&id) else { return u64::MAX };
        let end = &mut ends[side];
        while let Some((due, packet)) = end.coming.pop_front_if(|(due, _)| *due <= now) {
            self.packets += 1;
            (id, side, due).hash(&mut self.seen);
            match packet {
                Packet::Data(bytes) => {
                    bytes.hash(&mut self.seen);
                    end.coming_bytes -= bytes.len();
                    if end.is_gone && has_power {
                        resets.push((id, 1 - side));
                    } else if !end.is_gone {
                        end.received.extend_from_slice(&bytes);
                        end.readable.notify_one();
                    }
                }
                Packet::Fin => {
                    end.has_ended = true;
                    end.readable.notify_one();
                }
                Packet::Reset => end.be_reset(),
            }
        }
        end.coming.front().map_or(u64::MAX, |(due, _)| *due)
    }

    fn answer_dials(&mut self) {
        let now = self.now_ms;
        for dial in std::mem::take(&mut self.dials) {
            if dial.answer.is_closed() {
                continue;
            }
            if dial.due > now {
                self.next_due = self.next_due.min(dial.due);
                self.dials.push(dial);
                continue;
            }
            let is_whole = self.is_open(dial.from, dial.to) && self.is_open(dial.to, dial.from);
            if !is_whole || !self.hosts[dial.to].has_power {
                let due = now + SYN_PAUSE_MS;
                self.next_due = self.next_due.min(due);
                self.dials.push(Dial { due, ..dial });
                continue;
            }
            (u64::MAX, dial.from, dial.to, dial.port).hash(&mut self.seen);
            self.connect(dial);
        }
    }

    fn connect(&mut self, dial: Dial) {
        let listening = self.hosts[dial.to].listeners.get(&dial.port).map(Arc::clone);
        let Some(backlog) = listening else {
            // Who does not wait any more does not hear it.
            let _ = dial.answer.send(Err(io::ErrorKind::ConnectionRefused.into()));
            return;
        };
        let from = &mut self.hosts[dial.from];
        let local = SocketAddr::new(from.ip, from.take_port());
        let peer = SocketAddr::new(self.hosts[dial.to].ip, dial.port);
        let connection = self.next_connection;
        self.next_connection += 1;
        let ends = [End::new(dial.from), End::new(dial.to)];
        self.connections.insert(connection, ends);
        if let Some(meter) = &mut self.meter {
            meter.connect(connection, dial.from, dial.port);
        }
        if dial.answer.send(Ok(Hold { connection, side: 0, local, peer })).is_err() {
            self.connections.remove(&connection);
            return;
        }
        backlog.queue.lock().push_back(Hold { connection, side: 1, local: peer, peer: local });
        backlog.came.notify_one();
    }
}
