//! Reading a partition: fetches, replays and look-ups of offsets.

use super::super::replay::{self, ReplayError};
use super::{Owned, Partition};
use crate::env::OpenMode;
use crate::log::{
    AbortedTransaction, Log, LogSlice, MinOne, ReadError, StorageError, TimeQuery, TimestampOffset,
};
use crate::machines::replica::{Event, FollowerFetch};
use bytes::Bytes;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::{ErrorCode, LeaderEpoch, Offset};
use std::sync::atomic::Ordering;

/// Places that are brought into memory for one look-up: a binary search of an index, and a few headers.
pub(super) const COLD_LOOKS_MAX: usize = 32;
/// Bytes brought in at each.
const COLD_LOOK_BYTES: usize = 64 * 1024;
/// Look-ups by time that the log's cleaning, truncation or retention may overtake before one is done with the lock.
const TIME_VIEWS_MAX: usize = 4;

/// What a reader may see (`isolation.level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationLevel {
    /// Everything below the high watermark.
    ReadUncommitted,
    /// Everything below the last stable offset.
    ReadCommitted,
    /// Everything that there is: for replicas.
    LogEnd,
}

/// Whom a reader may read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// The leader alone.
    Leader,
    /// Any replica, as far as it knows what is committed (KIP-392).
    AnyReplica,
}

/// One partition of a fetch.
#[derive(Debug, Clone, Copy)]
pub struct ReadParams {
    /// First offset wanted.
    pub offset: Offset,
    /// Bytes at the most, but for a first batch that is larger.
    pub max_bytes: usize,
    /// Whether a first batch larger than `max_bytes` is returned whole.
    pub min_one: MinOne,
    /// How far the reader may see.
    pub isolation: IsolationLevel,
    /// Whether only the leader will do.
    pub from: ReadFrom,
    /// The epoch that the client believes in; -1 for none.
    pub current_leader_epoch: LeaderEpoch,
    /// The epoch of the record before `offset`, as the client knows it; -1 for none.
    pub last_fetched_epoch: LeaderEpoch,
    /// Of a follower: who it is and how far.
    pub follower: Option<FollowerFetch>,
    /// Whether the leader has noted how far the follower is, which it is to do once for each fetch.
    pub is_noted: bool,
}

/// What a read found.
#[derive(Debug)]
pub struct PartitionRead {
    /// Where the batches lie; empty when there is nothing up to the reader's bound.
    pub slice: Option<LogSlice>,
    /// Below it everything is committed.
    pub high_watermark: Offset,
    /// Below it every transaction is decided.
    pub last_stable_offset: Offset,
    /// First offset that is left.
    pub log_start_offset: Offset,
    /// The log's end.
    pub log_end_offset: Offset,
    /// Aborted transactions that overlap the batches, for `ReadCommitted`.
    pub aborted: Vec<AbortedTransaction>,
    /// The client's log leaves this one where this epoch ends, which is here; nothing is read then (KIP-595).
    pub diverging: Option<(LeaderEpoch, Offset)>,
    /// Until the partition tells of a change the reader gets nothing more, and the leader has nothing to note of it.
    pub is_quiet: bool,
}

impl Partition {
    /// Finds the batches for a fetch; only headers are read.
    ///
    /// # Errors
    /// OFFSET_OUT_OF_RANGE, KAFKA_STORAGE_ERROR, and those of [`Partition::check_leader`].
    pub fn read(&self, params: ReadParams) -> Result<PartitionRead, ErrorCode> {
        self.find(params, Log::read, Log::aborted_transactions)?
            .map_err(|error| self.read_failed(&error))
    }

    /// [`Partition::read`] for a thread that must not wait for the device: `None` where that is needed, and
    /// [`Partition::read_cold`] has to be called on another.
    ///
    /// # Errors
    /// Those of [`Partition::read`].
    pub fn read_from_memory(&self, params: ReadParams) -> Result<Option<PartitionRead>, ErrorCode> {
        match self.find(params, Log::read_from_memory, Log::aborted_from_memory)? {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.not_in_memory().is_some() => Ok(None),
            Err(error) => Err(self.read_failed(&error)),
        }
    }

    /// [`Partition::read`] of what may not lie in memory: it is brought there while the partition's lock is free,
    /// so that its producers do not wait.
    ///
    /// # Errors
    /// Those of [`Partition::read`].
    pub fn read_cold(&self, params: ReadParams) -> Result<PartitionRead, ErrorCode> {
        for _ in 0..COLD_LOOKS_MAX {
            let found = self.find(params, Log::read_from_memory, Log::aborted_from_memory)?;
            let error = match found {
                Ok(read) => return Ok(read),
                Err(error) => error,
            };
            let Some((path, position)) = error.not_in_memory() else {
                return Err(self.read_failed(&error));
            };
            let disk = self.with_log(|log| log.disk().clone())?;
            // A file that is gone or cannot be read is found so by the look-up, which names it.
            let Ok(file) = disk.open(path, OpenMode::Read) else { break };
            let len = file.len().unwrap_or_default().saturating_sub(position);
            if file.bring_in(position, COLD_LOOK_BYTES.min(len as usize), 0).is_err() {
                break;
            }
        }
        self.read(params)
    }

    fn find(
        &self,
        params: ReadParams,
        read: impl Fn(&Log, Offset, usize, MinOne, Offset) -> Result<Option<LogSlice>, ReadError>,
        aborted: impl Fn(&Log, Offset, Offset) -> Result<Vec<AbortedTransaction>, StorageError>,
    ) -> Result<Result<PartitionRead, ReadError>, ErrorCode> {
        let mut owned = self.owned.lock();
        self.check_epoch(&owned.replica, params.current_leader_epoch, params.from)?;
        let log = owned.log.as_ref().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let diverging = find_divergence(log, &params)?;
        let mut is_held_up = false;
        if let (Some(fetch), None) = (&params.follower, diverging) {
            if !params.is_noted {
                self.note_follower(&mut owned, fetch)?;
            }
            is_held_up = self.is_held_up(&owned.replica, fetch.replica);
        }
        let log = owned.log.as_ref().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let high_watermark = owned.replica.high_watermark();
        let last_stable_offset = log.last_stable_offset(high_watermark);
        let log_end_offset = log.log_end_offset();
        let bound = match params.isolation {
            IsolationLevel::ReadUncommitted => high_watermark,
            IsolationLevel::ReadCommitted => last_stable_offset,
            IsolationLevel::LogEnd => log_end_offset,
        };
        let slice = match diverging.is_some() || is_held_up {
            true => Ok(None),
            false => read(log, params.offset, params.max_bytes, params.min_one, bound),
        };
        let slice = match slice {
            Ok(slice) => slice,
            Err(error) => return Ok(Err(error)),
        };
        let aborted = match (&slice, params.isolation) {
            (Some(_), IsolationLevel::ReadCommitted) => match aborted(log, params.offset, bound) {
                Ok(aborted) => aborted,
                Err(error) => return Ok(Err(error.into())),
            },
            _ => Vec::new(),
        };
        Ok(Ok(PartitionRead {
            slice,
            high_watermark,
            last_stable_offset,
            log_start_offset: log.log_start_offset(),
            log_end_offset,
            aborted,
            is_quiet: diverging.is_none()
                && !is_held_up
                && params.offset >= bound
                && params.follower.is_none_or(|it| owned.replica.is_settled(it.replica)),
            diverging,
        }))
    }

    /// Notes how far a follower is, which moves the high watermark and lets it into the ISR.
    fn note_follower(&self, owned: &mut Owned, fetch: &FollowerFetch) -> Result<(), ErrorCode> {
        if owned.replica.follower(fetch.replica).is_none() {
            // It knows of an assignment that this leader has not heard of yet.
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        if owned.replica.is_stale(fetch.replica, fetch.broker_epoch) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let log = owned.log.as_ref().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let own = log.log_start_offset()..=log.log_end_offset();
        if !own.contains(&fetch.fetch_offset) {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let now = self.clock.steady();
        self.step(owned, Event::Fetched { fetch: *fetch, now });
        if self.deleting.load(Ordering::Acquire) > 0 {
            self.changed.tell();
        }
        Ok(())
    }

    fn read_failed(&self, error: &ReadError) -> ErrorCode {
        let code = error.error_code();
        if code == ErrorCode::KafkaStorageError {
            tracing::error!(partition = ?self, %error, "read failed");
        }
        code
    }

    /// Hands every batch of the log to `visit`, up to the end that the log has now.
    ///
    /// # Errors
    /// Every `ReplayError`.
    pub fn replay(
        &self,
        visit: impl FnMut(&BatchHeader, &Bytes) -> Result<(), ReplayError>,
    ) -> Result<(), ReplayError> {
        let (from, end) = (self.log_start_offset(), self.log_end_offset());
        if self.is_offline() {
            return Err(ReplayError::Offline);
        }
        let region = |offset, max| {
            let owned = self.owned.lock();
            match &owned.log {
                Some(log) => log.read(offset, max, MinOne::Yes, end),
                None => Ok(None),
            }
        };
        replay::replay(from, end, region, visit)
    }

    /// Below it every transaction is decided.
    pub fn last_stable_offset(&self) -> Offset {
        let owned = self.owned.lock();
        let high_watermark = owned.replica.high_watermark();
        owned.log.as_ref().map_or(high_watermark, |log| log.last_stable_offset(high_watermark))
    }

    /// The record that `query` asks for, `None` where there is none; for a thread that must not wait for the device.
    /// Where that is needed, the answer is `None` and [`Partition::find_by_time_cold`] has to be called on another.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR, NOT_LEADER_OR_FOLLOWER.
    pub fn find_by_time_in_memory(
        &self,
        query: TimeQuery,
    ) -> Result<Option<Option<TimestampOffset>>, ErrorCode> {
        match self.with_log(|log| log.find_by_time_in_memory(query))? {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.not_in_memory().is_some() => Ok(None),
            Err(error) => Err(self.read_failed(&error)),
        }
    }

    /// The record that `query` asks for; `None` where there is none. The partition's lock is free meanwhile, so that
    /// its producers do not wait.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR, NOT_LEADER_OR_FOLLOWER.
    pub fn find_by_time_cold(
        &self,
        query: TimeQuery,
    ) -> Result<Option<TimestampOffset>, ErrorCode> {
        for _ in 0..TIME_VIEWS_MAX {
            let view = self.with_log(|log| log.time_view())?;
            let found = view.find(query);
            if self.with_log(|log| log.has_all_of(&view))? {
                return found.map_err(|error| self.read_failed(&error));
            }
        }
        let found = self.with_log(|log| log.find_by_time(query))?;
        found.map_err(|error| self.read_failed(&error))
    }

    /// The epoch in which the record at `offset` was written; -1 when it is not known.
    pub fn epoch_for_offset(&self, offset: Offset) -> LeaderEpoch {
        let found = self.with_log(|log| log.epoch_for_offset(offset));
        found.ok().flatten().unwrap_or(LeaderEpoch::UNKNOWN)
    }

    /// The largest epoch not above `epoch` and where it ends (KIP-279).
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER.
    pub fn end_offset_for_epoch(
        &self,
        epoch: LeaderEpoch,
    ) -> Result<Option<(LeaderEpoch, Offset)>, ErrorCode> {
        self.with_log(|log| log.end_offset_for_epoch(epoch))
    }
}

/// Where the client's log leaves this one.
fn find_divergence(
    log: &Log,
    params: &ReadParams,
) -> Result<Option<(LeaderEpoch, Offset)>, ErrorCode> {
    let last = params.last_fetched_epoch;
    if last == LeaderEpoch::UNKNOWN {
        return Ok(None);
    }
    let (epoch, end) = log.end_offset_for_epoch(last).ok_or(ErrorCode::OffsetOutOfRange)?;
    if params.offset < log.log_start_offset() {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    Ok((epoch < last || end < params.offset).then_some((epoch, end)))
}
