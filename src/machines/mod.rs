//! Room 3: pure decisions. Events in, records and effects out; no clock, I/O, randomness, async or hash order.
//!
//! A *recorded machine* (controller, group) changes its hard state only in [`Machine::replay`]: an operation returns
//! records and effects, `broker/host.rs` replays and appends the records, and lets the effects out when the records are
//! committed. (Kafka's CoordinatorResult and CoordinatorRuntime.)

use ottla_protocol::{Offset, Timestamp};

pub mod group;
pub mod metadata;
pub mod replica;

/// Names a request that waits for its reply: the shell keeps the connection's end, the machine only the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A record of the machine's log, with where and when it was appended.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<R> {
    /// Its offset in the machine's log.
    pub offset: Offset,
    /// When it was appended.
    pub timestamp: Timestamp,
    /// The record.
    pub record: R,
}

/// What an operation decided.
#[derive(Debug)]
pub struct Output<M: Machine> {
    /// One atomic batch for the machine's log; may be empty.
    pub records: Vec<M::Record>,
    /// What is to be done once the records (or the last record written before) are committed, in order.
    pub effects: Vec<M::Effect>,
}

impl<M: Machine> Output<M> {
    /// Nothing to write, nothing to do.
    pub fn none() -> Self {
        Output { records: Vec::new(), effects: Vec::new() }
    }

    /// Nothing to write, one effect.
    pub fn effect(effect: M::Effect) -> Self {
        Output { records: Vec::new(), effects: vec![effect] }
    }

    /// Appends another output's records and effects.
    pub fn extend(&mut self, other: Self) {
        self.records.extend(other.records);
        self.effects.extend(other.effects);
    }
}

/// A recorded machine.
///
/// `handle` and `tick` may change soft state (sessions, parked requests); hard state changes only in
/// `replay`, which the shell calls for every record that they return, before the next operation.
pub trait Machine: Sized {
    /// What it is asked.
    type Request;
    /// What its log holds.
    type Record;
    /// What it has done outside.
    type Effect;

    /// Takes note that the wall clock is so many milliseconds ahead of `now` from here on: for what is written down.
    fn set_wall_ahead(&mut self, _ms: i64) {}

    /// Decides on a request. The reply is an effect that carries `id`, now or later.
    fn handle(&mut self, now: Timestamp, id: RequestId, request: Self::Request) -> Output<Self>;

    /// Does what is due: time-outs, expiry.
    fn tick(&mut self, now: Timestamp) -> Output<Self>;

    /// When [`Machine::tick`] is next due; `None` while nothing waits for time.
    fn deadline(&self) -> Option<Timestamp>;

    /// Applies a record of the log, at load and right after an operation returned it.
    fn replay(&mut self, entry: &Entry<Self::Record>);
}
