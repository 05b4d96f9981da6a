//! openraft's log store over [`MetadataLog`](super::log::MetadataLog).
//!
//! A full disk is no failure: what openraft appends waits until there is space, and so does this voter, which the
//! others do without. Everything else that fails ends openraft, and with it the broker (its metadata directory is
//! offline).

use super::Shared;
use super::log::WriteError;
use super::types::{QuorumEntry, Types};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    AnyError, ErrorSubject, ErrorVerb, LogId, LogState, OptionalSend, RaftLogReader, StorageError,
    StorageIOError, Vote,
};
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that one message to a follower may carry, about.
const SEND_BYTES_MAX: usize = 1 << 20;
/// Pause before a write is tried again that found no space.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(250);

/// The store, and each of its readers.
#[derive(Clone)]
pub(super) struct RaftLog(pub Arc<Shared>);

/// A failure as openraft takes it: it stops.
pub(super) fn fatal(
    subject: ErrorSubject<i32>,
    verb: ErrorVerb,
    error: &(impl std::error::Error + 'static),
) -> StorageError<i32> {
    StorageIOError::new(subject, verb, AnyError::new(error)).into()
}

impl RaftLog {
    /// Tries until there is space, or the quorum is closed.
    async fn with_space<T>(
        &self,
        verb: ErrorVerb,
        mut work: impl FnMut() -> Result<T, WriteError>,
    ) -> Result<T, StorageError<i32>> {
        loop {
            match work() {
                Ok(done) => {
                    self.0.set_stalled(false);
                    return Ok(done);
                }
                Err(WriteError::NoSpace) if !self.0.is_closing() => {
                    if self.0.set_stalled(true) {
                        let dir = self.0.log.dir().display();
                        tracing::warn!(%dir, "no space for the metadata log: this voter waits");
                    }
                    tokio::time::sleep(NO_SPACE_PAUSE).await;
                }
                Err(error) => return Err(fatal(ErrorSubject::Logs, verb, &error)),
            }
        }
    }
}

impl RaftLogReader<Types> for RaftLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<QuorumEntry>, StorageError<i32>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let entries = self.0.log.entries(start, end, usize::MAX);
        entries.map_err(|error| fatal(ErrorSubject::Logs, ErrorVerb::Read, &error))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<QuorumEntry>, StorageError<i32>> {
        let entries = self.0.log.entries(start, end, SEND_BYTES_MAX);
        entries.map_err(|error| fatal(ErrorSubject::Logs, ErrorVerb::Read, &error))
    }
}

impl RaftLogStorage<Types> for RaftLog {
    type LogReader = RaftLog;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<i32>> {
        let (last_purged_log_id, last_log_id) = self.0.log.log_ids();
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> RaftLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<i32>) -> Result<(), StorageError<i32>> {
        let lost = self.0.log.step_down(vote);
        let lost = lost.map_err(|error| fatal(ErrorSubject::Vote, ErrorVerb::Write, &error))?;
        if let Some(epoch) = lost {
            self.0.resigned(epoch);
        }
        self.with_space(ErrorVerb::Write, || self.0.log.save_vote(vote)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<i32>>, StorageError<i32>> {
        Ok(Some(self.0.log.vote_at_start()))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError<i32>>
    where
        I: IntoIterator<Item = QuorumEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<QuorumEntry> = entries.into_iter().collect();
        let append = || self.0.log.append(&entries);
        let Some(job) = self.with_space(ErrorVerb::Write, append).await? else {
            callback.log_io_completed(Ok(()));
            return Ok(());
        };
        // The device is waited for by a thread that may wait.
        let ran = crate::env::blocking(move || {
            let synced = job.run();
            (job, synced)
        });
        let (job, synced) =
            ran.await.map_err(|error| fatal(ErrorSubject::Logs, ErrorVerb::Write, &error))?;
        let finished = self.0.log.finish_flush(&job, synced);
        finished.map_err(|error| fatal(ErrorSubject::Logs, ErrorVerb::Write, &error))?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<i32>) -> Result<(), StorageError<i32>> {
        let cut = self.0.log.truncate(log_id.index);
        cut.map_err(|error| fatal(ErrorSubject::Log(log_id), ErrorVerb::Delete, &error))
    }

    async fn purge(&mut self, log_id: LogId<i32>) -> Result<(), StorageError<i32>> {
        let purged = self.0.log.purge(&log_id);
        purged.map_err(|error| fatal(ErrorSubject::Log(log_id), ErrorVerb::Delete, &error))
    }
}
