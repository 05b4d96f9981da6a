//! The single owner that joins one Log with its replica machine.
//!
//! Invariants: a Partition is the only writer of its Log; its lock is held for one append or one look-up and
//! never across an `.await`; the offsets that other threads read (`high_watermark`, `log_end_offset`) are
//! published while it is held.

mod cleaning;
mod upkeep;

pub(super) use cleaning::CleaningEnd;
pub use upkeep::Checkpoint;

use super::replay::{self, ReplayError};
use crate::env::Clock;
use crate::log::{
    AbortedTransaction, ActiveProducer, AppendContext, AppendError, AppendInfo, AppendOrigin, Log,
    LogSlice, MinOne, ReadError, StorageError, TimestampOffset, TransactionCheck,
};
use crate::machines::replica::{Effect, Effects, Event, Replica, Role};
use bytes::Bytes;
use cleaning::CleaningState;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset, Timestamp, TopicId};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

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

struct Owned {
    /// `None` once the partition is closed or deleted.
    log: Option<Log>,
    replica: Replica,
    min_insync_replicas: usize,
    cleaning: CleaningState,
}

/// One partition on this broker.
pub struct Partition {
    topic: Arc<str>,
    topic_id: TopicId,
    index: i32,
    clock: Arc<dyn Clock>,
    owned: Mutex<Owned>,
    high_watermark: AtomicI64,
    log_end_offset: AtomicI64,
    gone: AtomicBool,
    changed: Notify,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

/// Why a partition did not append.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// This broker does not lead the partition: NOT_LEADER_OR_FOLLOWER.
    #[error("this broker is not the leader of the partition")]
    NotLeader,
    /// Fewer replicas in sync than `min.insync.replicas`: NOT_ENOUGH_REPLICAS.
    #[error(
        "The size of the current ISR : {isr} is insufficient to satisfy the min.isr requirement of {min} for partition {partition}, live replica(s) broker.id are : {members}"
    )]
    NotEnoughReplicas {
        /// In-sync replicas.
        isr: usize,
        /// `min.insync.replicas`.
        min: usize,
        /// The partition.
        partition: String,
        /// The in-sync replicas' ids.
        members: String,
    },
    /// The log refused the batches.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl ProduceError {
    /// The protocol's code, as each variant says.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            ProduceError::NotLeader => ErrorCode::NotLeaderOrFollower,
            ProduceError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
            ProduceError::Append(error) => error.error_code(),
        }
    }
}

impl Partition {
    /// A partition over an open log, which does not lead yet.
    pub fn new(
        broker_id: BrokerId,
        clock: Arc<dyn Clock>,
        name: (Arc<str>, TopicId, i32),
        log: Log,
        high_watermark: Offset,
        min_insync_replicas: usize,
    ) -> Arc<Self> {
        let end = log.log_end_offset();
        let start = log.log_start_offset();
        let replica = Replica::new(broker_id, end, high_watermark.max(start));
        let (topic, topic_id, index) = name;
        Arc::new(Partition {
            topic,
            topic_id,
            index,
            clock,
            high_watermark: AtomicI64::new(replica.high_watermark().0),
            log_end_offset: AtomicI64::new(end.0),
            owned: Mutex::new(Owned {
                log: Some(log),
                replica,
                min_insync_replicas,
                cleaning: CleaningState::Idle,
            }),
            gone: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    /// The topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The topic's id.
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// The partition's number.
    pub fn index(&self) -> i32 {
        self.index
    }

    /// Below it everything is committed.
    pub fn high_watermark(&self) -> Offset {
        Offset(self.high_watermark.load(Ordering::Acquire))
    }

    /// The log's end.
    pub fn log_end_offset(&self) -> Offset {
        Offset(self.log_end_offset.load(Ordering::Acquire))
    }

    /// Whether the partition was closed or deleted.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Completes when the high watermark moves or the partition goes away, counted from this call on.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Takes the leadership that the committed metadata gives.
    ///
    /// # Errors
    /// The partition is closed.
    pub fn lead(
        &self,
        leader_epoch: LeaderEpoch,
        partition_epoch: i32,
        isr: Vec<BrokerId>,
    ) -> Result<(), AppendError> {
        let mut owned = self.owned.lock();
        let end = owned.log.as_ref().ok_or(AppendError::Offline)?.log_end_offset();
        let effects = owned.replica.step(Event::Lead {
            leader_epoch,
            partition_epoch,
            isr,
            log_end_offset: end,
        });
        self.perform(&mut owned, effects)
    }

    /// Gives leadership up.
    pub fn resign(&self, leader_epoch: LeaderEpoch) {
        self.owned.lock().replica.step(Event::Resign { leader_epoch });
        self.changed.notify_waiters();
    }

    fn perform(&self, owned: &mut Owned, effects: Effects) -> Result<(), AppendError> {
        for effect in effects {
            let log = owned.log.as_mut().ok_or(AppendError::Offline)?;
            match effect {
                Effect::StartEpoch { leader_epoch, start_offset } => {
                    log.assign_leader_epoch(leader_epoch, start_offset);
                }
                Effect::HighWatermark(offset) => {
                    log.on_high_watermark(offset);
                    self.high_watermark.store(offset.0, Ordering::Release);
                    self.changed.notify_waiters();
                }
            }
        }
        Ok(())
    }

    /// Appends batches as their leader; `acks` is the producer's (-1 asks for `min.insync.replicas`).
    ///
    /// # Errors
    /// [`ProduceError`]; nothing was appended.
    pub fn append(
        &self,
        records: Bytes,
        acks: i16,
        origin: AppendOrigin,
    ) -> Result<AppendInfo, ProduceError> {
        let now = self.clock.now();
        let mut owned = self.owned.lock();
        let Owned { log, replica, min_insync_replicas, .. } = &mut *owned;
        if replica.role() != Role::Leader {
            return Err(ProduceError::NotLeader);
        }
        if acks == -1 && replica.isr().len() < *min_insync_replicas {
            return Err(self.not_enough(replica, *min_insync_replicas));
        }
        let log = log.as_mut().ok_or(ProduceError::NotLeader)?;
        let context = AppendContext {
            leader_epoch: replica.leader_epoch(),
            now,
            origin,
            transaction: TransactionCheck::Unverified,
        };
        let info = log.append_as_leader(records, context)?;
        let end = log.log_end_offset();
        self.log_end_offset.store(end.0, Ordering::Release);
        let effects = replica.step(Event::Appended { log_end_offset: end });
        self.perform(&mut owned, effects)?;
        Ok(info)
    }

    fn not_enough(&self, replica: &Replica, min: usize) -> ProduceError {
        let members: Vec<String> = replica.isr().iter().map(|id| id.to_string()).collect();
        ProduceError::NotEnoughReplicas {
            isr: members.len(),
            min,
            partition: format!("{}-{}", self.topic, self.index),
            members: members.join(","),
        }
    }

    /// Runs `look` on the open log.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER once the partition is closed.
    fn with_log<T>(&self, look: impl FnOnce(&mut Log) -> T) -> Result<T, ErrorCode> {
        let mut owned = self.owned.lock();
        owned.log.as_mut().map(look).ok_or(ErrorCode::NotLeaderOrFollower)
    }

    /// Checks the epoch that a client believes in (KIP-320).
    fn check_epoch(replica: &Replica, epoch: LeaderEpoch) -> Result<(), ErrorCode> {
        if epoch != LeaderEpoch::UNKNOWN && epoch < replica.leader_epoch() {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if epoch > replica.leader_epoch() {
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        if replica.role() != Role::Leader {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(())
    }

    /// Checks that this broker leads with the epoch that a client believes in; answers the epoch.
    ///
    /// # Errors
    /// FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, NOT_LEADER_OR_FOLLOWER.
    pub fn check_leader(&self, current: LeaderEpoch) -> Result<LeaderEpoch, ErrorCode> {
        let owned = self.owned.lock();
        Self::check_epoch(&owned.replica, current)?;
        Ok(owned.replica.leader_epoch())
    }

    /// The newest leader epoch known.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.owned.lock().replica.leader_epoch()
    }

    /// Whether this broker leads the partition.
    pub fn is_leader(&self) -> bool {
        self.owned.lock().replica.role() == Role::Leader
    }

    /// Finds the batches for a fetch; only headers are read.
    ///
    /// # Errors
    /// OFFSET_OUT_OF_RANGE, KAFKA_STORAGE_ERROR, and those of [`Partition::check_leader`].
    pub fn read(&self, params: ReadParams) -> Result<PartitionRead, ErrorCode> {
        let owned = self.owned.lock();
        Self::check_epoch(&owned.replica, params.current_leader_epoch)?;
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
        let region = |offset, max| {
            let owned = self.owned.lock();
            match &owned.log {
                Some(log) => log.read(offset, max, MinOne::Yes, end),
                None => Ok(None),
            }
        };
        replay::replay(from, end, region, visit)
    }

    /// First offset that may be read.
    pub fn log_start_offset(&self) -> Offset {
        self.with_log(|log| log.log_start_offset()).unwrap_or(Offset(0))
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

    /// Moves the log start offset (`Offset(-1)` is the high watermark) and answers where it is then (KIP-107).
    ///
    /// # Errors
    /// OFFSET_OUT_OF_RANGE, POLICY_VIOLATION where the topic is not deleted by retention, NOT_LEADER_OR_FOLLOWER.
    pub fn delete_records(&self, before: Offset) -> Result<Offset, ErrorCode> {
        let mut owned = self.owned.lock();
        if owned.replica.role() != Role::Leader {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let high_watermark = owned.replica.high_watermark();
        let log = owned.log.as_mut().ok_or(ErrorCode::NotLeaderOrFollower)?;
        if !log.config().cleanup_policy.delete {
            return Err(ErrorCode::PolicyViolation);
        }
        let target = if before == Offset::UNKNOWN { high_watermark } else { before };
        if target < Offset(0) {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        log.set_log_start_offset(target, high_watermark)
            .map_err(|_| ErrorCode::OffsetOutOfRange)?;
        Ok(log.log_start_offset())
    }

    /// Producers that the log remembers.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER.
    pub fn active_producers(&self) -> Result<Vec<ActiveProducer>, ErrorCode> {
        self.with_log(|log| log.active_producers())
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        self.with_log(|log| log.size()).unwrap_or(0)
    }

    /// Makes what `which` says durable; the wait for the disk is outside the lock.
    ///
    /// # Errors
    /// A write or sync failed: the log is offline.
    pub fn flush(&self, which: Flush) -> Result<(), StorageError> {
        let now = self.clock.now();
        let job = {
            let mut owned = self.owned.lock();
            let Some(log) = owned.log.as_mut() else { return Ok(()) };
            match which {
                Flush::All => log.prepare_flush()?,
                Flush::Inactive => log.prepare_flush_inactive()?,
                Flush::Due if log.is_flush_due(now) => log.prepare_flush()?,
                Flush::Due => None,
            }
        };
        let Some(job) = job else { return Ok(()) };
        let result = job.run();
        let mut owned = self.owned.lock();
        if let Some(log) = owned.log.as_mut() {
            match &result {
                Ok(()) => log.mark_flushed(&job, now),
                Err(_) => log.fail_flush(),
            }
        }
        result
    }

    /// Closes the log in order; waiting requests learn that the partition is gone.
    ///
    /// # Errors
    /// The last bytes could not be made durable.
    pub fn close(&self) -> Result<(), StorageError> {
        let now = self.clock.now();
        self.gone.store(true, Ordering::Release);
        let result = match self.owned.lock().log.as_mut() {
            Some(log) => log.close(now),
            None => Ok(()),
        };
        self.changed.notify_waiters();
        result
    }

    /// Takes the log out of use for good and moves its directory to `to`, from where it is removed later.
    ///
    /// # Errors
    /// The directory cannot be renamed.
    pub fn delete(&self, to: impl FnOnce(&Log) -> std::path::PathBuf) -> Result<(), StorageError> {
        self.gone.store(true, Ordering::Release);
        let log = self.owned.lock().log.take();
        self.changed.notify_waiters();
        match log {
            Some(mut log) => {
                let to = to(&log);
                log.rename_directory(&to)
            }
            None => Ok(()),
        }
    }
}

/// Which part of a log a flush is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Everything.
    All,
    /// The segments before the active one, as a roll calls for.
    Inactive,
    /// Everything, if `flush.ms` has passed.
    Due,
}
