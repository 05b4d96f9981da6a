//! Reading a partition: fetches, replays and look-ups of offsets.

use super::super::replay::{self, ReplayError};
use super::Partition;
use crate::log::{AbortedTransaction, LogSlice, MinOne, ReadError, TimestampOffset};
use bytes::Bytes;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::{ErrorCode, LeaderEpoch, Offset, Timestamp};

/// What a reader may see (`isolation.level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationLevel {
    /// Everything below the high watermark.
    ReadUncommitted,
    /// Everything below the last stable offset.
    ReadCommitted,
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
    /// The epoch that the client believes in; -1 for none.
    pub current_leader_epoch: LeaderEpoch,
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
}

impl Partition {
    /// Finds the batches for a fetch; only headers are read.
    ///
    /// # Errors
    /// OFFSET_OUT_OF_RANGE, KAFKA_STORAGE_ERROR, and those of [`Partition::check_leader`].
    pub fn read(&self, params: ReadParams) -> Result<PartitionRead, ErrorCode> {
        let owned = self.owned.lock();
        self.check_epoch(&owned.replica, params.current_leader_epoch)?;
        let log = owned.log.as_ref().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let high_watermark = owned.replica.high_watermark();
        let last_stable_offset = log.last_stable_offset(high_watermark);
        let bound = match params.isolation {
            IsolationLevel::ReadUncommitted => high_watermark,
            IsolationLevel::ReadCommitted => last_stable_offset,
        };
        let slice = log
            .read(params.offset, params.max_bytes, params.min_one, bound)
            .map_err(|error| self.read_failed(&error))?;
        let aborted = match (&slice, params.isolation) {
            (Some(_), IsolationLevel::ReadCommitted) => log
                .aborted_transactions(params.offset, bound)
                .map_err(|error| self.read_failed(&ReadError::from(error)))?,
            _ => Vec::new(),
        };
        Ok(PartitionRead {
            slice,
            high_watermark,
            last_stable_offset,
            log_start_offset: log.log_start_offset(),
            log_end_offset: log.log_end_offset(),
            aborted,
        })
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

    /// The first record at or after a time; `None` where there is none.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR, NOT_LEADER_OR_FOLLOWER.
    pub fn offset_for_timestamp(
        &self,
        timestamp: Timestamp,
    ) -> Result<Option<TimestampOffset>, ErrorCode> {
        self.with_log(|log| log.offset_for_timestamp(timestamp))?
            .map_err(|error| self.read_failed(&error))
    }

    /// The record with the largest timestamp.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR, NOT_LEADER_OR_FOLLOWER.
    pub fn max_timestamp(&self) -> Result<Option<TimestampOffset>, ErrorCode> {
        self.with_log(|log| log.max_timestamp())?.map_err(|error| self.read_failed(&error))
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
