//! One partition's replica state at its leader: leadership, in-sync replicas and the high watermark.
//!
//! A protocol machine: [`Replica::step`] takes an event and returns effects, in order. It knows nothing of files or
//! followers' connections. Source: Kafka documentation, "Replication"; KIP-101 (leader epochs).
//! Invariants: the high watermark never goes back while this replica leads, and never passes the log end offset
//! of an in-sync replica.

use ottla_protocol::{BrokerId, LeaderEpoch, Offset};

/// What happened to the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The committed metadata makes this broker the leader, or changes the leadership it has.
    Lead {
        /// The leader's epoch; an epoch that is older than the one known is ignored.
        leader_epoch: LeaderEpoch,
        /// Counts the changes of the partition's state (KIP-497).
        partition_epoch: i32,
        /// The replicas that are in sync.
        isr: Vec<BrokerId>,
        /// The local log's end.
        log_end_offset: Offset,
    },
    /// Another broker leads, or none.
    Resign {
        /// The new leader's epoch.
        leader_epoch: LeaderEpoch,
    },
    /// The local log grew to this end.
    Appended {
        /// The offset after the last record.
        log_end_offset: Offset,
    },
    /// The log start moved, by retention or by DeleteRecords.
    LogStartMoved {
        /// The first offset that is left.
        log_start_offset: Offset,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A leader appends under a new epoch: note where it starts.
    StartEpoch {
        /// The epoch.
        leader_epoch: LeaderEpoch,
        /// Its first offset.
        start_offset: Offset,
    },
    /// The high watermark is here now.
    HighWatermark(Offset),
}

/// The effects of one event, in order. None has more than two, so that an append allocates nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Effects([Option<Effect>; 2]);

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Effect>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// Whether this broker leads the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It appends and serves.
    Leader,
    /// It does not.
    Idle,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Replica {
    broker_id: BrokerId,
    role: Role,
    leader_epoch: LeaderEpoch,
    partition_epoch: i32,
    isr: Vec<BrokerId>,
    log_end_offset: Offset,
    high_watermark: Offset,
}

impl Replica {
    /// A replica that does not lead yet. `high_watermark` is the checkpointed one.
    pub fn new(broker_id: BrokerId, log_end_offset: Offset, high_watermark: Offset) -> Self {
        Replica {
            broker_id,
            role: Role::Idle,
            leader_epoch: LeaderEpoch::UNKNOWN,
            partition_epoch: -1,
            isr: Vec::new(),
            log_end_offset,
            high_watermark: high_watermark.min(log_end_offset),
        }
    }

    /// Whether it leads.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The newest epoch known.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// The partition epoch of the newest leadership.
    pub fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    /// The in-sync replicas while it leads.
    pub fn isr(&self) -> &[BrokerId] {
        &self.isr
    }

    /// The offset below which every in-sync replica has every record.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Takes one event.
    pub fn step(&mut self, event: Event) -> Effects {
        let effects = match event {
            Event::Lead { leader_epoch, partition_epoch, isr, log_end_offset } => {
                self.lead(leader_epoch, partition_epoch, isr, log_end_offset)
            }
            Event::Resign { leader_epoch } => {
                if leader_epoch >= self.leader_epoch {
                    self.leader_epoch = leader_epoch;
                    self.role = Role::Idle;
                    self.isr.clear();
                }
                Effects::default()
            }
            Event::Appended { log_end_offset } => {
                self.log_end_offset = log_end_offset;
                Effects([self.advance(), None])
            }
            Event::LogStartMoved { log_start_offset } => {
                if self.high_watermark < log_start_offset {
                    self.high_watermark = log_start_offset;
                    Effects([Some(Effect::HighWatermark(log_start_offset)), None])
                } else {
                    Effects::default()
                }
            }
        };
        debug_assert!(self.validate(), "{self:?}");
        effects
    }

    fn lead(
        &mut self,
        leader_epoch: LeaderEpoch,
        partition_epoch: i32,
        isr: Vec<BrokerId>,
        log_end_offset: Offset,
    ) -> Effects {
        if leader_epoch < self.leader_epoch || partition_epoch < self.partition_epoch {
            return Effects::default();
        }
        let is_new = leader_epoch > self.leader_epoch || self.role == Role::Idle;
        let start = Effect::StartEpoch { leader_epoch, start_offset: log_end_offset };
        self.role = Role::Leader;
        self.leader_epoch = leader_epoch;
        self.partition_epoch = partition_epoch;
        self.isr = isr;
        self.log_end_offset = log_end_offset;
        Effects([is_new.then_some(start), self.advance()])
    }

    /// Only replicas that replicate could hold the high watermark back; alone in the ISR, the leader's own end is it.
    fn advance(&mut self) -> Option<Effect> {
        let alone = self.isr.iter().all(|member| *member == self.broker_id);
        if self.role != Role::Leader || !alone || self.log_end_offset <= self.high_watermark {
            return None;
        }
        self.high_watermark = self.log_end_offset;
        Some(Effect::HighWatermark(self.high_watermark))
    }

    fn validate(&self) -> bool {
        self.high_watermark <= self.log_end_offset.max(self.high_watermark)
            && (self.role == Role::Idle || self.leader_epoch > LeaderEpoch::UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(replica: &mut Replica, event: Event) -> Vec<Effect> {
        replica.step(event).into_iter().collect()
    }

    fn lead(epoch: i32, partition_epoch: i32, end: i64) -> Event {
        Event::Lead {
            leader_epoch: LeaderEpoch(epoch),
            partition_epoch,
            isr: vec![BrokerId(1)],
            log_end_offset: Offset(end),
        }
    }

    #[test]
    fn leader_alone_in_the_isr_commits_what_it_appends() {
        let mut replica = Replica::new(BrokerId(1), Offset(5), Offset(3));
        let effects = step(&mut replica, lead(0, 0, 5));
        assert_eq!(
            effects,
            vec![
                Effect::StartEpoch { leader_epoch: LeaderEpoch(0), start_offset: Offset(5) },
                Effect::HighWatermark(Offset(5))
            ]
        );
        let effects = step(&mut replica, Event::Appended { log_end_offset: Offset(8) });
        assert_eq!(effects, vec![Effect::HighWatermark(Offset(8))]);
    }

    #[test]
    fn leader_does_not_advance_past_an_isr_member_that_it_has_not_heard_of() {
        let mut replica = Replica::new(BrokerId(1), Offset(0), Offset(0));
        step(
            &mut replica,
            Event::Lead {
                leader_epoch: LeaderEpoch(0),
                partition_epoch: 0,
                isr: vec![BrokerId(1), BrokerId(2)],
                log_end_offset: Offset(0),
            },
        );
        assert_eq!(step(&mut replica, Event::Appended { log_end_offset: Offset(4) }), vec![]);
        assert_eq!(replica.high_watermark(), Offset(0));
    }

    #[test]
    fn an_older_leadership_is_ignored() {
        let mut replica = Replica::new(BrokerId(1), Offset(0), Offset(0));
        step(&mut replica, lead(4, 7, 0));
        assert_eq!(step(&mut replica, lead(3, 8, 0)), vec![]);
        assert_eq!(replica.leader_epoch(), LeaderEpoch(4));
        step(&mut replica, Event::Resign { leader_epoch: LeaderEpoch(5) });
        assert_eq!(replica.role(), Role::Idle);
    }
}
