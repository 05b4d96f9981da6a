//! Group commit: one sync for all appends that owe one (`flush.messages`, `ottla.ack.durability`).
//!
//! Such an append goes to the file and moves neither the high watermark nor the settled end. The first one starts a
//! thread of the blocking pool that syncs for all: whatever reaches the file while a sync runs waits for the next one,
//! which the same thread does.
//!
//! Producers that wait for an answer send their next records soon after it. So after a sync the thread waits for as
//! many records as that sync served, bounded by a share of what it took: else two halves of the producers take turns,
//! and each record waits for two syncs. Nobody waits for the thread while it waits for nobody's records.

use super::{Owned, Partition};
use crate::broker::partition::Flush;
use crate::env::blocking_again;
use crate::log::{FlushOwed, Log};
use ottla_protocol::Offset;
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause before files other than the log's own are tried again on a full disk; no sync has begun then.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// The gathering of a group takes at most this share of the last sync's time,
const GATHER_SHARE: u32 = 2;
/// and never more than this, however slow the disk.
const GATHER_MAX: Duration = Duration::from_millis(1);

/// What the thread of a partition's group commit does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// There is none.
    #[default]
    None,
    /// It syncs, or is about to.
    Syncs,
    /// It waits for appends; none owes a sync.
    Lingers,
}

/// The group commit of one partition.
#[derive(Debug, Default)]
pub(super) struct GroupCommit {
    stage: Stage,
    /// Records that the last sync served.
    records: i64,
    /// How long it took.
    sync: Duration,
    /// The log end offset with which a group is as large as the last one, while the thread waits for it.
    full_at: Option<Offset>,
}

/// What an append that owes a sync has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    /// Nothing: it owes none, and nothing before it does.
    Nothing,
    /// Start the thread.
    Start,
    /// Wake the thread up.
    Wake,
    /// Wait for it.
    Wait,
}

impl GroupCommit {
    /// Takes an append in that ends at `end`.
    pub(super) fn join(&mut self, owed: FlushOwed, end: Offset) -> Join {
        if owed == FlushOwed::Nothing && self.stage != Stage::Syncs {
            return Join::Nothing;
        }
        let is_first = std::mem::replace(&mut self.stage, Stage::Syncs) == Stage::None;
        match self.full_at {
            _ if is_first => Join::Start,
            Some(full_at) if end >= full_at => Join::Wake,
            _ => Join::Wait,
        }
    }
}

impl Partition {
    /// Does what an append that owes a sync has to do, without the partition's lock.
    pub(super) fn join_group_commit(self: &Arc<Self>, join: Join) {
        match join {
            Join::Start => self.start_group_commit(),
            Join::Wake => drop(self.gathered.notify_one()),
            Join::Nothing | Join::Wait => {}
        }
    }

    /// Syncs for all appends that owe it, until none does; on a thread that may block where there is a runtime.
    fn start_group_commit(self: &Arc<Self>) {
        let partition = Arc::clone(self);
        match tokio::runtime::Handle::try_current() {
            Ok(_) => blocking_again(move || partition.group_commit()),
            Err(_) => {
                while let Some(pause) = partition.group_commit() {
                    std::thread::sleep(pause);
                }
            }
        }
    }

    /// Answers a pause after which it has to go on.
    fn group_commit(&self) -> Option<Duration> {
        let mut owned = self.owned.lock();
        loop {
            self.gather(&mut owned);
            let owes = |log: &Log| log.flush_owed() != FlushOwed::Nothing && !log.is_offline();
            if !owned.log.as_ref().is_some_and(owes) || self.is_gone() {
                owned.group_commit.stage = Stage::None;
                self.settle(&mut owned);
                return None;
            }
            let before = self.settled_end();
            let start = Instant::now();
            let result = MutexGuard::unlocked(&mut owned, || self.flush(Flush::Owed));
            owned.group_commit.records = self.settled_end().0 - before.0;
            owned.group_commit.sync = start.elapsed();
            // What came while the disk was busy owes a sync of its own.
            let is_owed = owned.log.as_ref().is_some_and(owes);
            owned.group_commit.stage = if is_owed { Stage::Syncs } else { Stage::Lingers };
            if let Err(error) = result.as_ref()
                && is_owed
            {
                tracing::warn!(partition = ?self, %error, "cannot flush yet");
                return Some(FULL_PAUSE);
            }
        }
    }

    /// Waits a moment for as many records as the last sync served.
    fn gather(&self, owned: &mut MutexGuard<'_, Owned>) {
        let GroupCommit { records, sync, .. } = owned.group_commit;
        let deadline = Instant::now() + (sync / GATHER_SHARE).min(GATHER_MAX);
        let full_at = self.settled_end().plus(records);
        owned.group_commit.full_at = Some(full_at);
        while self.log_end_offset() < full_at
            && !self.is_gone()
            && !self.gathered.wait_until(owned, deadline).timed_out()
        {}
        owned.group_commit.full_at = None;
    }
}
