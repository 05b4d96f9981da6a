//! The time-outs that run in one group coordinator: soft state, made anew after each load.

use std::collections::{BTreeMap, BTreeSet};

use ottla_protocol::Timestamp;

/// What is due when a timer ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A member (or a member to be) has not been heard of.
    Session { group: String, member: String },
    /// The join phase ends.
    Join { group: String },
    /// Members have not asked for their assignment.
    Sync { group: String },
    /// Offsets and groups are looked through for what has expired.
    Expiry,
}

/// Timers by name; setting one again moves it.
#[derive(Debug, Default)]
pub(super) struct Timers {
    ends: BTreeMap<Timer, Timestamp>,
    queue: BTreeSet<(Timestamp, Timer)>,
}

impl Timers {
    /// Sets `timer` to end at `at`.
    pub fn set(&mut self, timer: Timer, at: Timestamp) {
        self.cancel(&timer);
        self.queue.insert((at, timer.clone()));
        self.ends.insert(timer, at);
    }

    /// Stops `timer`, if it runs.
    pub fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.ends.remove(timer) {
            self.queue.remove(&(at, timer.clone()));
        }
    }

    /// When the next timer ends.
    pub fn next(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// The timers that have ended by `now`, in order. They still run: [`Timers::take`] each.
    pub fn due(&self, now: Timestamp) -> Vec<(Timestamp, Timer)> {
        self.queue.iter().take_while(|(at, _)| *at <= now).cloned().collect()
    }

    /// Stops a timer of [`Timers::due`]; false when an earlier one has stopped or moved it.
    pub fn take(&mut self, at: Timestamp, timer: &Timer) -> bool {
        let runs = self.ends.get(timer) == Some(&at);
        if runs {
            self.cancel(timer);
        }
        runs
    }
}
