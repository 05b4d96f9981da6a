//! Making a partition durable: flushes that chores ask for, and group commit (`group_commit.rs`).
//!
//! Invariants: one sync of a log runs at a time, because the kernel tells a failure to one caller only; the wait for
//! the disk is outside the partition's lock; after a failed sync the log directory is offline, nothing is synced again
//! and nobody who waits is acknowledged.

use super::{Owned, Partition};
use crate::log::{FlushOwed, Log, StorageError};
use crate::machines::replica::Event;
use ottla_protocol::{ErrorCode, Offset};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The flush that a roll calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RollFlush {
    /// None runs.
    Idle,
    /// One runs.
    Runs,
    /// One runs, and there was another roll since it began.
    Again,
}

/// Which part of a log a flush is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Everything, if appends owe it.
    Owed,
    /// The segments before the active one, as a roll calls for.
    Inactive,
    /// Everything, if `flush.ms` has passed.
    Due,
}

impl Partition {
    /// Makes what `which` says durable; the wait for the disk is outside the lock.
    ///
    /// # Errors
    /// A write or sync failed: the log directory is offline, unless the disk was full before the sync began.
    pub fn flush(&self, which: Flush) -> Result<(), StorageError> {
        let _one_at_a_time = self.syncing.lock();
        let now = self.clock.now();
        let job = {
            let mut owned = self.owned.lock();
            let Some(log) = owned.log.as_mut() else { return Ok(()) };
            self.follow_directory(log);
            let job = match which {
                Flush::Inactive => log.prepare_flush_inactive(),
                Flush::Owed if log.flush_owed() != FlushOwed::Nothing => log.prepare_flush(),
                Flush::Due if log.is_flush_due(now) => log.prepare_flush(),
                Flush::Owed | Flush::Due => Ok(None),
            };
            self.note_failure(log, job.as_ref().err());
            job?
        };
        let Some(job) = job else { return Ok(()) };
        let result = job.run();
        let mut owned = self.owned.lock();
        let Some(log) = owned.log.as_mut() else { return result };
        match &result {
            Ok(()) => log.mark_flushed(&job, now),
            Err(_) => log.fail_flush(),
        }
        self.note_failure(log, result.as_ref().err());
        self.settle(&mut owned);
        result
    }

    /// Begins to make the segments before the active one durable, as Kafka does after a roll (`UnifiedLog.roll`);
    /// without a runtime the next checkpoint does it.
    pub(super) fn start_roll_flush(self: &Arc<Self>) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let before = {
            let flush = &mut self.owned.lock().roll_flush;
            let next = if *flush == RollFlush::Idle { RollFlush::Runs } else { RollFlush::Again };
            std::mem::replace(flush, next)
        };
        if before == RollFlush::Idle {
            let partition = Arc::clone(self);
            drop(crate::env::blocking(move || partition.flush_after_rolls()));
        }
    }

    fn flush_after_rolls(&self) {
        loop {
            match self.flush(Flush::Inactive) {
                Ok(()) => self.health.load().note_flush(),
                Err(error) => {
                    tracing::error!(partition = ?self, %error, "flush after a roll failed")
                }
            }
            let flush = &mut self.owned.lock().roll_flush;
            if *flush != RollFlush::Again {
                *flush = RollFlush::Idle;
                return;
            }
            *flush = RollFlush::Runs;
        }
    }

    /// Lets everything count that owes no sync any more: the replica machine learns how far this log is to be relied
    /// on, and the high watermark follows.
    pub(super) fn settle(&self, owned: &mut Owned) {
        let Some(log) = owned.log.as_ref().filter(|log| !log.is_offline()) else { return };
        let end = match log.flush_owed() {
            FlushOwed::Nothing => log.log_end_offset(),
            FlushOwed::BeforeCommit | FlushOwed::BeforeAnswer => log.recovery_point(),
        };
        if end <= self.settled_end() {
            return;
        }
        self.settled_end.store(end.0, Ordering::Release);
        let now = self.clock.steady();
        let effects = owned.replica.step(Event::Appended { log_end_offset: end, now });
        // It fails without a log only.
        let _ = self.perform(owned, effects);
        self.tell_all();
    }

    /// Below it no record owes a sync before it counts.
    pub fn settled_end(&self) -> Offset {
        Offset(self.settled_end.load(Ordering::Acquire))
    }

    /// Waits until no record below `end` owes a sync.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR: the sync failed, and nothing that rested on it may be acknowledged.
    /// NOT_LEADER_OR_FOLLOWER: the partition was closed or deleted.
    pub async fn settled(&self, end: Offset) -> Result<(), ErrorCode> {
        loop {
            let changed = self.changed();
            if self.settled_end() >= end {
                return Ok(());
            }
            if self.is_offline() {
                return Err(ErrorCode::KafkaStorageError);
            }
            if self.is_gone() {
                return Err(ErrorCode::NotLeaderOrFollower);
            }
            changed.await;
        }
    }

    /// Whether its log directory is out of use.
    pub fn is_offline(&self) -> bool {
        self.health.load().is_offline()
    }

    /// Takes the log and its directory offline: a sync failed.
    pub(super) fn fail(&self, error: StorageError) -> StorageError {
        if let Some(log) = self.owned.lock().log.as_mut() {
            log.fail_flush();
            self.note_failure(log, Some(&error));
        }
        error
    }

    /// A log is offline with its directory, whichever log of it failed: nothing of it is written or synced again.
    pub(super) fn follow_directory(&self, log: &mut Log) {
        if self.is_offline() {
            log.fail_flush();
        }
    }

    /// A log that failed takes its directory with it; who waits learns so.
    pub(super) fn note_failure(&self, log: &Log, cause: Option<&StorageError>) {
        if !log.is_offline() {
            return;
        }
        if self.health.load().take_offline() {
            let directory = log.path();
            let directory = directory.parent().unwrap_or(&directory).display();
            let cause = cause.map(ToString::to_string).unwrap_or_default();
            tracing::error!(%directory, partition = ?self, cause, "the log directory is offline");
        }
        self.tell_all();
    }
}
