//! Changes of the ISR: a leader asks for them, the controller decides (KIP-497).
//!
//! A replica that is to join counts for the high watermark from the moment that the leader asks, since the controller
//! may have let it in before the leader hears of it. One that is to leave counts until the leader hears that it has.

use super::{Effect, Follower, Replica, Role};
use ottla_protocol::{BrokerEpoch, BrokerId, LeaderEpoch, Timestamp};

/// A member of the ISR that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsrMember {
    /// Its broker.
    pub id: BrokerId,
    /// The registration under which it fetched; -1 where it has not yet, and for the leader itself (KIP-903).
    pub broker_epoch: BrokerEpoch,
}

/// A change of the ISR that the controller is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrChange {
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The state that the change starts from.
    pub partition_epoch: i32,
    /// The ISR wanted.
    pub isr: Vec<IsrMember>,
}

/// What the controller answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IsrAnswer {
    /// The partition's state is this now.
    Committed {
        /// The leader's epoch.
        leader_epoch: LeaderEpoch,
        /// Counts the changes.
        partition_epoch: i32,
        /// The in-sync replicas.
        isr: Vec<BrokerId>,
    },
    /// It was not carried out, now or ever: INELIGIBLE_REPLICA, OPERATION_NOT_ATTEMPTED.
    Rejected,
}

/// A change that the controller was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    /// The replica that is to join; none where some are to leave.
    pub(super) joins: Option<BrokerId>,
}

impl Replica {
    /// Whether the change is the one under way; nobody wants to hear of any other.
    pub fn is_pending(&self, change: &IsrChange) -> bool {
        self.pending.is_some()
            && self.role == Role::Leader
            && self.leader_epoch == change.leader_epoch
            && self.partition_epoch == change.partition_epoch
    }

    pub(super) fn is_in_maximal_isr(&self, id: BrokerId) -> bool {
        self.isr.contains(&id)
            || self.pending.as_ref().is_some_and(|pending| pending.joins == Some(id))
    }

    /// Whether there is nothing more to learn of a follower from a fetch that says the same again.
    pub fn is_settled(&self, id: BrokerId) -> bool {
        self.pending.is_none()
            && self.isr.contains(&id)
            && self.follower(id).is_some_and(Follower::is_eligible)
    }

    /// Asks for a follower to join that has everything committed and everything from before this leader's epoch.
    pub(super) fn expand_isr(&mut self, id: BrokerId) -> Option<Effect> {
        if self.pending.is_some() || self.isr.contains(&id) {
            return None;
        }
        let follower = self.follower(id)?;
        let is_in_sync = follower.log_end_offset >= self.high_watermark
            && follower.log_end_offset >= self.epoch_start_offset;
        if !is_in_sync || !follower.is_eligible() {
            return None;
        }
        let isr: Vec<BrokerId> = self.isr.iter().copied().chain([id]).collect();
        Some(self.ask(&isr, Some(id)))
    }

    /// Asks for followers to leave that lag, or have just been fenced.
    pub(super) fn check_isr(&mut self, fenced: &[BrokerId], now: Timestamp) -> Option<Effect> {
        if self.role != Role::Leader || self.pending.is_some() {
            return None;
        }
        let stays = |id: &BrokerId| {
            *id == self.settings.broker_id
                || (!fenced.contains(id)
                    && self.follower(*id).is_some_and(|it| self.keeps_up(it, now)))
        };
        let isr: Vec<BrokerId> = self.isr.iter().copied().filter(stays).collect();
        (isr.len() < self.isr.len()).then(|| self.ask(&isr, None))
    }

    fn keeps_up(&self, follower: &super::Follower, now: Timestamp) -> bool {
        follower.is_caught_up(self.log_end_offset, self.settings.lag_time_max_ms, now)
    }

    fn ask(&mut self, isr: &[BrokerId], joins: Option<BrokerId>) -> Effect {
        self.pending = Some(Pending { joins });
        let broker_epoch = |id| {
            self.follower(id).map_or(super::BROKER_EPOCH_UNKNOWN, |follower| follower.broker_epoch)
        };
        let isr = isr.iter().map(|id| IsrMember { id: *id, broker_epoch: broker_epoch(*id) });
        Effect::AlterIsr(Box::new(IsrChange {
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            isr: isr.collect(),
        }))
    }

    pub(super) fn isr_answered(&mut self, change: &IsrChange, answer: IsrAnswer) {
        let is_pending = self.is_pending(change);
        match answer {
            IsrAnswer::Committed { leader_epoch, partition_epoch, isr } => {
                let is_news = self.role == Role::Leader
                    && leader_epoch == self.leader_epoch
                    && (partition_epoch > self.partition_epoch || is_pending);
                if is_news && partition_epoch >= self.partition_epoch {
                    self.isr = isr;
                    self.partition_epoch = partition_epoch;
                    self.pending = None;
                }
            }
            IsrAnswer::Rejected if is_pending => self.pending = None,
            IsrAnswer::Rejected => {}
        }
    }
}
