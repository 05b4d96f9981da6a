//! The single owner that joins one Log with its replica machine.
//!
//! Invariants: a Partition is the only writer of its Log; its lock is held for one append or one look-up and never across an
//! `.await`; the offsets that other threads read (`high_watermark`, `log_end_offset`) are published while it is held.

use crate::env::Clock;
use crate::log::{
    AppendContext, AppendError, AppendInfo, AppendOrigin, Log, LogConfig, LogSlice, MinOne,
    ReadError,
};
use crate::machines::replica::{Effect, Event, Replica, Role};
use bytes::Bytes;
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
            owned: Mutex::new(Owned { log: Some(log), replica, min_insync_replicas }),
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
    /// The epoch could not be noted in the log.
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

    fn perform(&self, owned: &mut Owned, effects: Vec<Effect>) -> Result<(), AppendError> {
        for effect in effects {
            match effect {
                Effect::StartEpoch { leader_epoch, start_offset } => {
                    let log = owned.log.as_mut().ok_or(AppendError::Offline)?;
                    log.start_leader_epoch(leader_epoch, start_offset)?;
                }
                Effect::HighWatermark(offset) => {
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
        let Owned { log, replica, min_insync_replicas } = &mut *owned;
        if replica.role() != Role::Leader {
            return Err(ProduceError::NotLeader);
        }
        if acks == -1 && replica.isr().len() < *min_insync_replicas {
            return Err(self.not_enough(replica, *min_insync_replicas));
        }
        let log = log.as_mut().ok_or(ProduceError::NotLeader)?;
        let context = AppendContext { leader_epoch: replica.leader_epoch(), now, origin };
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
}
