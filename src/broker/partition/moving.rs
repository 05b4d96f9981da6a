//! A move of the log to another log directory, as the partition sees it.
//!
//! A copy of the log (`topic-N.<id>-future`) is made from outside, slice by slice; the partition says what to copy, and
//! takes the copy in when it has everything. Invariants: there is one move at a time; the cleaner and a move never
//! meet; the swap is made with both locks held and nothing to copy, so no reader or writer sees two logs. At any moment
//! the directory `topic-N` is whole in one log directory: the copy gets that name before the log gives it up.
//!
//! Source: KIP-113.

use super::cleaning::CleaningState;
use super::{DirHealth, Partition};
use crate::log::{AppendError, AppendInfo, Log, LogSlice, MinOne, ReadError, StorageError};
use bytes::Bytes;
use ottla_protocol::{ErrorCode, Offset, Timestamp};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Bytes copied at a time, which is the memory that a move takes, but for a batch that is larger.
const COPY_BYTES: usize = 1 << 20;
/// With more than so many records to copy the swap has to wait: it keeps producers waiting.
const LAST_RECORDS: i64 = 1000;

/// A move under way.
#[derive(Debug)]
pub(crate) struct Move {
    /// The log directory that the log moves to.
    pub log_dir: PathBuf,
    copied_to: AtomicI64,
    flushed_to: AtomicI64,
    size: AtomicU64,
}

/// What a request to move a partition has come to.
#[derive(Debug)]
pub(crate) enum MoveBegin {
    /// The log is in that directory; a move away from it was cancelled.
    IsThere,
    /// A move there is under way.
    UnderWay,
    /// A move has begun; one to elsewhere was cancelled.
    Begun(Arc<Move>),
}

/// What to copy next.
#[derive(Debug)]
pub(crate) enum NextCopy {
    /// These batches.
    Slice(LogSlice),
    /// The log starts after the copy's end: the copy has to begin anew here.
    RestartAt(Offset),
    /// The copy has everything.
    CaughtUp,
}

/// How an attempt to finish a move ended.
pub(crate) enum MoveEnd {
    /// The copy is the log.
    Done,
    /// Too much is to be copied still, or the cleaner has not let go.
    NotYet(Box<Log>),
    /// The move was cancelled, or the partition closed or deleted.
    Cancelled,
}

/// Why a move failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    /// The move was cancelled, or the partition closed or deleted.
    #[error("it was cancelled")]
    Cancelled,
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its file cannot be read.
    #[error("cannot read the log: {0}")]
    File(#[from] std::io::Error),
    /// The copy takes no batches.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The copy cannot be written.
    #[error(transparent)]
    Write(#[from] StorageError),
    /// The copy cannot be made.
    #[error(transparent)]
    Open(#[from] crate::log::RecoveryError),
    /// The directory that it moves to has no room.
    #[error("the log directory is full")]
    Full,
}

/// The replica in the directory that it moves to, as DescribeLogDirs tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FutureReplica {
    /// The log directory.
    pub log_dir: PathBuf,
    /// Bytes that it has.
    pub size: u64,
    /// How far its end is behind the log's.
    pub offset_lag: i64,
}

impl Move {
    /// Notes how far the copy has come.
    pub(crate) fn note(&self, future: &Log) {
        self.copied_to.store(future.log_end_offset().0, Ordering::Release);
        self.flushed_to.store(future.recovery_point().0, Ordering::Release);
        self.size.store(future.size(), Ordering::Release);
    }

    /// Whether the copy has records that the log, which ends at `end`, has not.
    pub(super) fn is_ahead_of(&self, end: Offset) -> bool {
        self.copied_to.load(Ordering::Acquire) > end.0
    }

    pub(super) fn flushed_to(&self) -> Offset {
        Offset(self.flushed_to.load(Ordering::Acquire))
    }
}

impl Partition {
    /// Begins a move to `log_dir`, or cancels one.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER when the partition is closed, KAFKA_STORAGE_ERROR when its log directory is offline.
    pub(crate) fn begin_move(&self, log_dir: &Path) -> Result<MoveBegin, ErrorCode> {
        if self.is_offline() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let mut owned = self.owned.lock();
        let log = owned.log.as_ref().ok_or(ErrorCode::NotLeaderOrFollower)?;
        if log.path().parent() == Some(log_dir) {
            owned.moving = None;
            return Ok(MoveBegin::IsThere);
        }
        if owned.moving.as_ref().is_some_and(|moving| moving.log_dir == log_dir) {
            return Ok(MoveBegin::UnderWay);
        }
        let [copied_to, flushed_to] = [const { AtomicI64::new(0) }; 2];
        let log_dir = log_dir.to_owned();
        let moving = Arc::new(Move { log_dir, copied_to, flushed_to, size: AtomicU64::new(0) });
        owned.moving = Some(Arc::clone(&moving));
        Ok(MoveBegin::Begun(moving))
    }

    /// Whether the log lies in this log directory.
    pub(crate) fn is_in(&self, log_dir: &Path) -> bool {
        let owned = self.owned.lock();
        owned.log.as_ref().is_some_and(|log| log.path().parent() == Some(log_dir))
    }

    /// Whether `moving` is still wanted.
    pub(crate) fn wants_move(&self, moving: &Arc<Move>) -> bool {
        if self.is_gone() || self.is_offline() {
            return false;
        }
        self.owned.lock().moving.as_ref().is_some_and(|it| Arc::ptr_eq(it, moving))
    }

    /// Forgets a move that failed.
    pub(crate) fn end_move(&self, moving: &Arc<Move>) {
        let mut owned = self.owned.lock();
        owned.moving.take_if(|it| Arc::ptr_eq(it, moving));
    }

    /// The replica in the directory that the log moves to.
    pub(crate) fn future_replica(&self) -> Option<FutureReplica> {
        let owned = self.owned.lock();
        let (log, moving) = (owned.log.as_ref()?, owned.moving.as_ref()?);
        let copied_to = moving.copied_to.load(Ordering::Acquire);
        Some(FutureReplica {
            log_dir: moving.log_dir.clone(),
            size: moving.size.load(Ordering::Acquire),
            offset_lag: log.log_end_offset().0 - copied_to,
        })
    }

    /// Where a copy begins: at the first batch that is left, which may hold offsets before the log's start.
    ///
    /// # Errors
    /// The log is closed or cannot be read.
    pub(crate) fn copy_start(&self) -> Result<Offset, MoveError> {
        let owned = self.owned.lock();
        let log = owned.log.as_ref().ok_or(MoveError::Cancelled)?;
        Ok(first_batch(log)?)
    }

    /// What a copy that ends at `end` needs next.
    ///
    /// # Errors
    /// The log is closed or cannot be read.
    pub(crate) fn next_copy(&self, end: Offset) -> Result<NextCopy, MoveError> {
        let owned = self.owned.lock();
        let log = owned.log.as_ref().ok_or(MoveError::Cancelled)?;
        Ok(next_copy(log, end)?)
    }

    /// Takes `future` in as the log, `to` being its directory and `retired` what becomes of the one that it replaces.
    /// Waits for the disk with the locks held: appends wait, as in Kafka, for what little is left to copy.
    ///
    /// # Errors
    /// The log cannot be read or the copy not written; the log is as it was.
    pub(crate) fn finish_move(
        &self,
        moving: &Arc<Move>,
        mut future: Log,
        (to, retired): (&Path, &Path),
        health: &Arc<DirHealth>,
    ) -> Result<MoveEnd, MoveError> {
        let _one_at_a_time = self.syncing.lock();
        let now = self.clock.now();
        let mut owned = self.owned.lock();
        let is_wanted = owned.moving.as_ref().is_some_and(|it| Arc::ptr_eq(it, moving));
        if self.is_gone() || self.is_offline() || !is_wanted {
            return Ok(MoveEnd::Cancelled);
        }
        let high_watermark = owned.replica.high_watermark();
        let is_cleaning = owned.cleaning == CleaningState::InProgress;
        let Some(log) = owned.log.as_mut() else { return Ok(MoveEnd::Cancelled) };
        let lag = log.log_end_offset().0 - future.log_end_offset().0;
        if is_cleaning || lag > LAST_RECORDS {
            return Ok(MoveEnd::NotYet(Box::new(future)));
        }
        loop {
            match next_copy(log, future.log_end_offset())? {
                NextCopy::Slice(slice) => drop(copy(&slice, &mut future, now)?),
                NextCopy::RestartAt(_) => return Ok(MoveEnd::NotYet(Box::new(future))),
                NextCopy::CaughtUp => break,
            }
        }
        future.take_over(log, high_watermark, now)?;
        future.rename_directory(to)?;
        if let Err(error) = log.rename_directory(retired) {
            // The metadata names the other one, so the next start sets this one aside.
            tracing::error!(partition = ?self, %error, "the directory that the log has left stays");
        }
        owned.log = Some(future);
        owned.moving = None;
        self.health.store(Arc::clone(health));
        self.settle(&mut owned);
        drop(owned);
        self.tell_all();
        Ok(MoveEnd::Done)
    }
}

fn first_batch(log: &Log) -> Result<Offset, ReadError> {
    let start = log.log_start_offset();
    let slice = log.read(start, 1, MinOne::Yes, log.log_end_offset())?;
    Ok(slice.map_or(start, |slice| slice.base_offset.min(start)))
}

fn next_copy(log: &Log, end: Offset) -> Result<NextCopy, ReadError> {
    let log_end = log.log_end_offset();
    if end < log.log_start_offset() {
        let first = first_batch(log)?;
        if end < first {
            return Ok(NextCopy::RestartAt(first));
        }
    }
    let from = end.max(log.log_start_offset());
    let slice = log.read(from, COPY_BYTES, MinOne::Yes, log_end)?;
    Ok(slice.map_or(NextCopy::CaughtUp, NextCopy::Slice))
}

/// Appends the batches of `slice` to the copy; says how many bytes they were.
///
/// # Errors
/// The slice cannot be read, or the copy not written.
pub(crate) fn copy(slice: &LogSlice, future: &mut Log, now: Timestamp) -> Result<usize, MoveError> {
    Ok(append_given(future, slice.to_bytes()?, now)?.bytes)
}

/// Appends batches with the offsets that they have, in one segment however many they are.
pub(super) fn append_given(
    log: &mut Log,
    batches: Bytes,
    now: Timestamp,
) -> Result<AppendInfo, AppendError> {
    if batches.len() as i64 <= i64::from(log.config().segment_bytes) {
        return log.append_as_follower(batches, now);
    }
    // Batches from when `segment.bytes` was larger, or many small ones: Kafka takes them in one append too.
    let segment_bytes = i32::try_from(batches.len()).unwrap_or(i32::MAX);
    let config = log.config().clone();
    log.set_config(Arc::new(crate::log::LogConfig { segment_bytes, ..(*config).clone() }));
    let appended = log.append_as_follower(batches, now);
    log.set_config(config);
    appended
}
