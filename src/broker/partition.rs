//! The single owner that joins one Log with its replica machine.
//!
//! Invariants: a Partition is the only writer of its Log; its lock is held for one append or one look-up and
//! never across an `.await`; the offsets that other threads read (`high_watermark`, `log_end_offset`,
//! `settled_end`) are published while it is held.

mod cleaning;
mod flush;
mod following;
mod group_commit;
mod leading;
mod moving;
mod read;
mod throttling;
mod upkeep;
mod watchers;

pub(super) use cleaning::CleaningEnd;
pub use flush::Flush;
pub(crate) use following::{FetchState, Fetched, FollowerError, LogPosition, Truncation};
pub use leading::{Acks, ReplicaView};
pub(crate) use moving::{Move, MoveBegin, MoveEnd, MoveError, NextCopy, copy};
pub use read::{IsolationLevel, PartitionRead, ReadFrom, ReadParams};
pub(crate) use throttling::Throttled;
pub use upkeep::Checkpoint;
pub use watchers::{Interest, News, Subscription};

use super::dir_health::{DirHealth, DirState};
use super::isr::IsrChanges;
use super::quota::Quotas;
use crate::env::Clock;
use crate::log::{
    ActiveProducer, AppendContext, AppendError, AppendInfo, AppendOrigin, Log, StorageError,
    TransactionCheck,
};
use crate::machines::replica::{Effect, Effects, Event, Replica, ReplicaSettings, Role};
use arc_swap::ArcSwap;
use bytes::Bytes;
use cleaning::CleaningState;
use flush::RollFlush;
use group_commit::{GroupCommit, Join};
use ottla_protocol::{ErrorCode, LeaderEpoch, Offset, TopicId};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use watchers::Watchers;

struct Owned {
    /// `None` once the partition is closed or deleted.
    log: Option<Log>,
    replica: Replica,
    group_commit: GroupCommit,
    roll_flush: RollFlush,
    cleaning: CleaningState,
    moving: Option<Arc<Move>>,
    /// The log was cut, and the checkpoint that says so is not written yet.
    is_cutting: bool,
}

/// One partition on this broker.
pub struct Partition {
    topic: Arc<str>,
    topic_id: TopicId,
    index: i32,
    clock: Arc<dyn Clock>,
    /// Of the log directory that it lies in now.
    health: ArcSwap<DirHealth>,
    owned: Mutex<Owned>,
    /// Held for a sync; taken before `owned`, never by an append.
    syncing: Mutex<()>,
    /// Told when a group is as large as the last one; waited for with `owned`.
    gathered: Condvar,
    high_watermark: AtomicI64,
    log_end_offset: AtomicI64,
    settled_end: AtomicI64,
    gone: AtomicBool,
    changed: Watchers,
    /// Told as well when the log grows that followers copy; only their fetches wait for it.
    grown: Watchers,
    /// Requests that wait for followers' log start offsets.
    deleting: AtomicUsize,
    isr_changes: Arc<IsrChanges>,
    quotas: Arc<Quotas>,
    throttled: ArcSwap<Throttled>,
    me: Weak<Partition>,
}

/// What a partition is made of.
pub(crate) struct PartitionParams {
    /// The topic's name, the topic's id, and the partition's number.
    pub(crate) name: (Arc<str>, TopicId, i32),
    /// For the replica machine.
    pub(crate) replica: ReplicaSettings,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// The open log.
    pub(crate) log: Log,
    /// The checkpointed one.
    pub(crate) high_watermark: Offset,
    /// Of the log directory that it lies in.
    pub(crate) health: Arc<DirHealth>,
    /// Where it asks for another ISR.
    pub(crate) isr_changes: Arc<IsrChanges>,
    /// What replicas may copy that are not in sync.
    pub(crate) quotas: Arc<Quotas>,
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
    /// The log directory is below its reserve, or a write found no space: NOT_ENOUGH_REPLICAS, which every client
    /// takes for "not written, try again" and counts no sequence for.
    #[error("the log directory is full")]
    DirectoryFull,
    /// The log refused the batches.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl ProduceError {
    /// The protocol's code, as each variant says.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            ProduceError::NotLeader => ErrorCode::NotLeaderOrFollower,
            ProduceError::NotEnoughReplicas { .. } | ProduceError::DirectoryFull => {
                ErrorCode::NotEnoughReplicas
            }
            ProduceError::Append(error) => error.error_code(),
        }
    }
}

impl Partition {
    /// A partition over an open log, which does not lead yet.
    pub(crate) fn new(params: PartitionParams) -> Arc<Self> {
        let PartitionParams { name, replica, clock, log, high_watermark, .. } = params;
        let end = log.log_end_offset();
        let start = log.log_start_offset();
        let replica = Replica::new(replica, end, high_watermark.max(start));
        let (topic, topic_id, index) = name;
        Arc::new_cyclic(|me| Partition {
            topic,
            topic_id,
            index,
            clock,
            high_watermark: AtomicI64::new(replica.high_watermark().0),
            log_end_offset: AtomicI64::new(end.0),
            settled_end: AtomicI64::new(end.0),
            health: ArcSwap::new(params.health),
            owned: Mutex::new(Owned {
                log: Some(log),
                replica,
                group_commit: GroupCommit::default(),
                roll_flush: RollFlush::Idle,
                cleaning: CleaningState::Idle,
                moving: None,
                is_cutting: false,
            }),
            syncing: Mutex::new(()),
            gathered: Condvar::new(),
            gone: AtomicBool::new(false),
            changed: Watchers::default(),
            grown: Watchers::default(),
            deleting: AtomicUsize::new(0),
            isr_changes: params.isr_changes,
            quotas: params.quotas,
            throttled: ArcSwap::default(),
            me: me.clone(),
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

    fn perform(&self, owned: &mut Owned, effects: Effects) -> Result<(), AppendError> {
        for effect in effects {
            let log = owned.log.as_mut().ok_or(AppendError::Offline)?;
            match effect {
                Effect::StartEpoch { leader_epoch, start_offset } => {
                    log.assign_leader_epoch(leader_epoch, start_offset);
                }
                Effect::HighWatermark(offset) => {
                    log.on_high_watermark(offset);
                    #[cfg(feature = "simulation")]
                    let offset = crate::env::sim_host::told_high_watermark(offset);
                    self.high_watermark.store(offset.0, Ordering::Release);
                    self.changed.tell();
                    if !owned.replica.followers().is_empty() {
                        self.grown.tell();
                    }
                }
                Effect::AlterIsr(change) => {
                    // It is gone only once nobody holds it, so there is nobody to ask for.
                    if let Some(me) = self.me.upgrade() {
                        self.isr_changes.submit(me, *change);
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends batches as their leader; `acks` is the producer's (-1 asks for `min.insync.replicas`). What
    /// [`AppendInfo::flush`] says is owed has begun when this returns; [`Partition::settled`] waits for it.
    ///
    /// # Errors
    /// [`ProduceError`]; nothing was appended.
    pub fn append(
        self: &Arc<Self>,
        records: Bytes,
        acks: i16,
        origin: AppendOrigin,
    ) -> Result<AppendInfo, ProduceError> {
        let info = self.append_batches(records, acks, origin)?;
        if info.has_rolled {
            self.start_roll_flush();
        }
        Ok(info)
    }

    fn append_batches(
        self: &Arc<Self>,
        records: Bytes,
        acks: i16,
        origin: AppendOrigin,
    ) -> Result<AppendInfo, ProduceError> {
        self.admit(origin)?;
        let now = self.clock.now();
        let mut owned = self.owned.lock();
        let Owned { log, replica, group_commit, .. } = &mut *owned;
        if replica.role() != Role::Leader {
            return Err(ProduceError::NotLeader);
        }
        if acks == -1 && replica.isr().len() < replica.min_isr() {
            return Err(self.not_enough(replica, replica.min_isr()));
        }
        let log = log.as_mut().ok_or(ProduceError::NotLeader)?;
        let context = AppendContext {
            leader_epoch: replica.leader_epoch(),
            now,
            origin,
            transaction: TransactionCheck::Unverified,
        };
        let info = match log.append_as_leader(records, context) {
            Ok(info) => info,
            Err(error) => return Err(self.append_failed(log, error)),
        };
        if origin == AppendOrigin::Client && self.health.load().spend(info.bytes) {
            tracing::error!(partition = ?self, "disk full to its reserve: producers have to wait");
        }
        let end = log.log_end_offset();
        self.log_end_offset.store(end.0, Ordering::Release);
        let has_followers = !replica.followers().is_empty();
        let join = group_commit.join(info.flush, end);
        if join == Join::Nothing {
            self.settled_end.store(end.0, Ordering::Release);
            let now = self.clock.steady();
            let effects = replica.step(Event::Appended { log_end_offset: end, now });
            self.perform(&mut owned, effects)?;
        }
        drop(owned);
        self.join_group_commit(join);
        if has_followers {
            self.grown.tell();
        }
        Ok(info)
    }

    /// Whether there is room for more records. Budgets of bytes for topics would be asked here too.
    fn admit(&self, origin: AppendOrigin) -> Result<(), ProduceError> {
        match self.health.load().state() {
            DirState::Usable => Ok(()),
            DirState::Full if origin == AppendOrigin::Client => Err(ProduceError::DirectoryFull),
            DirState::Full => Ok(()),
            DirState::Offline => Err(AppendError::Offline.into()),
        }
    }

    fn append_failed(&self, log: &Log, error: AppendError) -> ProduceError {
        match &error {
            AppendError::Storage(cause) if cause.is_storage_full() => {
                if self.health.load().fill() {
                    tracing::error!(partition = ?self, %cause, "disk full: producers have to wait");
                }
                ProduceError::DirectoryFull
            }
            AppendError::Storage(cause) => {
                self.note_failure(log, Some(cause));
                error.into()
            }
            _ => error.into(),
        }
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
    fn check_epoch(
        &self,
        replica: &Replica,
        epoch: LeaderEpoch,
        from: ReadFrom,
    ) -> Result<(), ErrorCode> {
        if self.is_offline() {
            return Err(ErrorCode::KafkaStorageError);
        }
        if epoch != LeaderEpoch::UNKNOWN && epoch < replica.leader_epoch() {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if epoch > replica.leader_epoch() {
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        match (replica.role(), from) {
            (Role::Leader, _) | (Role::Follower(_), ReadFrom::AnyReplica) => Ok(()),
            (Role::Follower(_) | Role::Idle, _) => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// Checks that this broker leads with the epoch that a client believes in; answers the epoch.
    ///
    /// # Errors
    /// FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, NOT_LEADER_OR_FOLLOWER; KAFKA_STORAGE_ERROR when its log directory is
    /// offline.
    pub fn check_leader(&self, current: LeaderEpoch) -> Result<LeaderEpoch, ErrorCode> {
        let owned = self.owned.lock();
        self.check_epoch(&owned.replica, current, ReadFrom::Leader)?;
        Ok(owned.replica.leader_epoch())
    }

    /// The newest leader epoch known.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.owned.lock().replica.leader_epoch()
    }

    /// Whether this broker leads the partition, and has since this epoch.
    pub fn has_led_since(&self, leader_epoch: LeaderEpoch) -> bool {
        self.owned.lock().replica.has_led_since(leader_epoch)
    }

    /// Whether this broker leads the partition.
    pub fn is_leader(&self) -> bool {
        self.owned.lock().replica.role() == Role::Leader
    }

    /// First offset that may be read.
    pub fn log_start_offset(&self) -> Offset {
        self.with_log(|log| log.log_start_offset()).unwrap_or(Offset(0))
    }

    /// Producers that the log remembers.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER.
    pub fn active_producers(&self) -> Result<Vec<ActiveProducer>, ErrorCode> {
        self.with_log(|log| log.active_producers())
    }

    /// Segments that were validated when the log was opened, and their bytes.
    pub fn recovered(&self) -> (usize, u64) {
        let found = self.with_log(|log| {
            let report = log.recovery_report();
            (report.recovered_segments, report.recovered_bytes)
        });
        found.unwrap_or_default()
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        self.with_log(|log| log.size()).unwrap_or(0)
    }

    /// Closes the log in order, where its directory did not fail; waiting requests learn that the partition is gone.
    ///
    /// # Errors
    /// The last bytes could not be made durable.
    pub fn close(&self) -> Result<(), StorageError> {
        let _one_at_a_time = self.syncing.lock();
        let now = self.clock.now();
        self.gone.store(true, Ordering::Release);
        let mut owned = self.owned.lock();
        let result = match owned.log.as_mut() {
            Some(log) => {
                self.follow_directory(log);
                let result = log.close(now);
                self.note_failure(log, result.as_ref().err());
                result
            }
            None => Ok(()),
        };
        self.settle(&mut owned);
        drop(owned);
        self.tell_all();
        result
    }

    /// Takes the log out of use for good and moves its directory to `to`, from where it is removed later.
    ///
    /// # Errors
    /// The directory cannot be renamed.
    pub fn delete(&self, to: impl FnOnce(&Log) -> std::path::PathBuf) -> Result<(), StorageError> {
        self.gone.store(true, Ordering::Release);
        let log = self.owned.lock().log.take();
        self.tell_all();
        match log {
            Some(mut log) => {
                let to = to(&log);
                log.rename_directory(&to)
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
