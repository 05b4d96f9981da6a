//! The leader's side of a partition: leadership, the ISR, acknowledgements, and deletion of records.
//!
//! Source: Kafka's `Partition`; KIP-107, KIP-392, KIP-497.

use super::{Owned, Partition};
use crate::log::AppendError;
use crate::machines::replica::{Event, IsrAnswer, IsrChange, Leadership, Role};
use ottla_protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset, Timestamp};
use std::sync::atomic::Ordering;

use super::flush::Flush;

/// How far the acknowledgement of a record has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Some in-sync replicas have not got it yet.
    Wait,
    /// It can be answered.
    Done(Result<(), ErrorCode>),
}

/// A follower as the choice of a replica to read from sees it (KIP-392).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaView {
    /// Its broker.
    pub id: BrokerId,
    /// Where its log ends, as the leader knows it.
    pub log_end_offset: Offset,
    /// When it had everything.
    pub last_caught_up: Timestamp,
}

/// Counts a request that waits for followers' log start offsets, which they else need not tell about.
#[derive(Debug)]
pub struct Deletion<'a>(&'a Partition);

impl Drop for Deletion<'_> {
    fn drop(&mut self) {
        self.0.deleting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Partition {
    /// Takes the leadership that the committed metadata gives. Records that a crash left unsynced are synced first
    /// where the settings let nothing unsynced count.
    ///
    /// # Errors
    /// The partition is closed, or a sync failed.
    pub(crate) fn lead(&self, leadership: Leadership) -> Result<(), AppendError> {
        self.flush(Flush::Owed)?;
        // A truncation that is under way ends first, with its checkpoint.
        let one_at_a_time = self.syncing.lock();
        let now = self.clock.steady();
        let mut owned = self.owned.lock();
        let log_end_offset = owned.log.as_ref().ok_or(AppendError::Offline)?.log_end_offset();
        let settled_end_offset = self.settled_end();
        let led = Event::Lead { leadership, log_end_offset, settled_end_offset, now };
        let effects = owned.replica.step(led);
        let performed = self.perform(&mut owned, effects);
        drop(owned);
        drop(one_at_a_time);
        self.tell_all();
        performed
    }

    /// Whether the leader still wants this change of its ISR.
    pub(crate) fn wants_isr(&self, change: &IsrChange) -> bool {
        !self.is_gone() && self.owned.lock().replica.is_pending(change)
    }

    /// Takes the controller's answer to a change of the ISR.
    pub(crate) fn isr_answered(&self, change: IsrChange, answer: IsrAnswer) {
        let now = self.clock.steady();
        let mut owned = self.owned.lock();
        if let IsrAnswer::Committed { isr, partition_epoch, .. } = &answer {
            tracing::info!(partition = ?self, ?isr, partition_epoch, "the controller changed the ISR");
        }
        self.step(&mut owned, Event::IsrAnswered { change, answer, now });
        drop(owned);
        self.tell_all();
    }

    /// Looks for followers that lag.
    pub(crate) fn check_isr(&self) {
        self.look_at_followers(|now| Event::CheckIsr { now });
    }

    /// Lets go of those followers that are in `fenced`, by the metadata up to this offset.
    pub(crate) fn fence(&self, fenced: Vec<BrokerId>, metadata_offset: Offset) {
        self.look_at_followers(|now| Event::Fenced { fenced, metadata_offset, now });
    }

    fn look_at_followers(&self, event: impl FnOnce(Timestamp) -> Event) {
        let now = self.clock.steady();
        let mut owned = self.owned.lock();
        if owned.replica.role() == Role::Leader && !owned.replica.followers().is_empty() {
            self.step(&mut owned, event(now));
        }
    }

    pub(super) fn step(&self, owned: &mut Owned, event: Event) {
        let effects = owned.replica.step(event);
        // It fails without a log only, which has nothing to note then.
        let _ = self.perform(owned, effects);
    }

    /// Whether a producer may be told that its record, appended under `leader_epoch` and ending below `required`, is
    /// in all in-sync replicas.
    pub fn acks(&self, required: Offset, leader_epoch: LeaderEpoch) -> Acks {
        let owned = self.owned.lock();
        let replica = &owned.replica;
        if self.is_gone() || !replica.has_led_since(leader_epoch) {
            return Acks::Done(Err(ErrorCode::NotLeaderOrFollower));
        }
        if replica.high_watermark() >= required {
            let is_enough = replica.maximal_isr_len() >= replica.min_isr();
            return Acks::Done(match is_enough {
                true => Ok(()),
                false => Err(ErrorCode::NotEnoughReplicasAfterAppend),
            });
        }
        match self.is_offline() {
            true => Acks::Done(Err(ErrorCode::KafkaStorageError)),
            false => Acks::Wait,
        }
    }

    /// Whether this broker leads the partition with an epoch of which the high watermark does not cover the start: it
    /// cannot say yet where the partition ends for consumers (KIP-207).
    pub fn is_high_watermark_behind(&self) -> bool {
        let owned = self.owned.lock();
        owned.replica.role() == Role::Leader
            && owned.replica.epoch_start_offset() > owned.replica.high_watermark()
    }

    /// The followers that a consumer at `offset` could read from: members of the ISR that have it. `None` where this
    /// broker does not lead.
    pub fn followers_with(&self, offset: Offset) -> Option<Vec<ReplicaView>> {
        let owned = self.owned.lock();
        let replica = &owned.replica;
        if replica.role() != Role::Leader {
            return None;
        }
        let has_it = replica.followers().iter().filter(|follower| {
            replica.isr().contains(&follower.id)
                && follower.log_end_offset >= offset
                && (Offset(0)..=offset).contains(&follower.log_start_offset)
        });
        let view = has_it.map(|follower| ReplicaView {
            id: follower.id,
            log_end_offset: follower.log_end_offset,
            last_caught_up: follower.last_caught_up,
        });
        Some(view.collect())
    }

    /// Moves the log start offset (`Offset(-1)` is the high watermark) and answers where it is to be then on every
    /// replica (KIP-107).
    ///
    /// # Errors
    /// OFFSET_OUT_OF_RANGE, POLICY_VIOLATION where the topic is not deleted by retention, NOT_LEADER_OR_FOLLOWER,
    /// KAFKA_STORAGE_ERROR.
    pub fn delete_records(&self, before: Offset) -> Result<Offset, ErrorCode> {
        if self.is_offline() {
            return Err(ErrorCode::KafkaStorageError);
        }
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
        let moved = log
            .set_log_start_offset(target, high_watermark)
            .map_err(|_| ErrorCode::OffsetOutOfRange)?;
        drop(owned);
        if moved {
            // Followers learn it from their next answer.
            self.grown.tell();
        }
        Ok(target)
    }

    /// Lets [`Partition::changed`] tell of followers' log start offsets too while the guard lives.
    pub fn begin_deletion(&self) -> Deletion<'_> {
        self.deleting.fetch_add(1, Ordering::AcqRel);
        Deletion(self)
    }

    /// The first offset that is left on every replica whose broker is alive.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR.
    pub fn low_watermark(&self, is_alive: impl Fn(BrokerId) -> bool) -> Result<Offset, ErrorCode> {
        if self.is_offline() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let owned = self.owned.lock();
        match (&owned.log, owned.replica.role()) {
            (Some(log), Role::Leader) => {
                Ok(owned.replica.low_watermark(log.log_start_offset(), is_alive))
            }
            _ => Err(ErrorCode::NotLeaderOrFollower),
        }
    }
}
