//! One partition's replica state: leader or follower, in-sync replicas and the high watermark.
//!
//! A protocol machine: [`Replica::step`] takes an event and returns effects, in order. It knows nothing of files or
//! connections. As the leader it hears of appends and of the followers' fetches, moves the high watermark, and asks
//! the controller for another ISR; as a follower it takes the leader's high watermark over as far as its own log goes.
//!
//! Invariants: the high watermark never goes back while this replica leads, and never passes the log end offset of a
//! member of the maximal ISR (the committed one and a replica that is about to join, KIP-497); one change of the ISR is
//! under way at a time; with one replica a step allocates nothing.
//!
//! Source: Kafka documentation, "Replication"; Kafka's `Partition`; KIP-101, 497, 841, 903, 966.

mod follower;
mod isr;
#[cfg(test)]
mod tests;

pub use follower::{BROKER_EPOCH_UNKNOWN, Eligibility, Follower, FollowerFetch};
pub use isr::{IsrAnswer, IsrChange, IsrMember};

use isr::Pending;
use ottla_protocol::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, Timestamp};

/// The leadership that the committed metadata gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The leader's epoch; an epoch that is older than the one known is ignored.
    pub leader_epoch: LeaderEpoch,
    /// Counts the changes of the partition's state (KIP-497).
    pub partition_epoch: i32,
    /// The replicas that are in sync.
    pub isr: Vec<BrokerId>,
    /// All replicas.
    pub replicas: Vec<BrokerId>,
    /// The offset of the metadata that give it.
    pub metadata_offset: Offset,
}

/// What happened to the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The committed metadata makes this broker the leader, or changes the leadership it has.
    Lead {
        /// What it says.
        leadership: Leadership,
        /// The local log's end: a new epoch starts here.
        log_end_offset: Offset,
        /// How much of it may be relied on.
        settled_end_offset: Offset,
        /// Present time.
        now: Timestamp,
    },
    /// Another broker leads; `BrokerId::NONE` for none.
    Follow {
        /// Who.
        leader: BrokerId,
        /// The new leader's epoch.
        leader_epoch: LeaderEpoch,
        /// Counts the changes of the partition's state.
        partition_epoch: i32,
    },
    /// The local log grew to this end, as far as it may be relied on.
    Appended {
        /// The offset after the last record.
        log_end_offset: Offset,
        /// Present time.
        now: Timestamp,
    },
    /// The local log was cut, or begun anew, and ends here.
    Truncated {
        /// The offset after the last record.
        log_end_offset: Offset,
    },
    /// The leader has told its high watermark, after what it sent was appended.
    LeaderHighWatermark(Offset),
    /// A follower fetched from this leader.
    Fetched {
        /// What it asked for.
        fetch: FollowerFetch,
        /// Present time.
        now: Timestamp,
    },
    /// Time to look for followers that lag.
    CheckIsr {
        /// Present time.
        now: Timestamp,
    },
    /// The committed metadata fence these brokers, or have them on their way out, or without the directory of this
    /// replica.
    Fenced {
        /// Who; others' followers may be among them.
        fenced: Vec<BrokerId>,
        /// The offset of the metadata that say so.
        metadata_offset: Offset,
        /// Present time.
        now: Timestamp,
    },
    /// The controller has answered a change of the ISR.
    IsrAnswered {
        /// The change.
        change: IsrChange,
        /// What it said.
        answer: IsrAnswer,
        /// Present time.
        now: Timestamp,
    },
    /// `min.insync.replicas` is this now.
    MinIsr {
        /// The setting.
        min_insync_replicas: usize,
        /// Present time.
        now: Timestamp,
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
    /// Ask the controller for another ISR.
    AlterIsr(Box<IsrChange>),
}

/// The effects of one event, in order. None has more than three, so that an append allocates nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Effects([Option<Effect>; 3]);

impl Effects {
    fn one(effect: Option<Effect>) -> Self {
        Effects([effect, None, None])
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Effect>, 3>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// What this broker is to the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It appends and serves.
    Leader,
    /// It copies from this leader.
    Follower(BrokerId),
    /// Nobody leads, or nothing is known yet.
    Idle,
}

/// What does not change, or seldom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaSettings {
    /// This broker.
    pub broker_id: BrokerId,
    /// `replica.lag.time.max.ms`.
    pub lag_time_max_ms: i64,
    /// `min.insync.replicas` of the topic.
    pub min_insync_replicas: usize,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Replica {
    settings: ReplicaSettings,
    role: Role,
    leader_epoch: LeaderEpoch,
    partition_epoch: i32,
    /// The newest metadata that told of the leadership, or of followers that are fenced.
    metadata_offset: Offset,
    isr: Vec<BrokerId>,
    /// A change of the ISR that the controller was asked for.
    pending: Option<Pending>,
    /// Every other replica, while it leads.
    followers: Vec<Follower>,
    /// The epoch in which it began to lead; later ones changed something else.
    led_since: LeaderEpoch,
    /// Where this leader's epoch began.
    epoch_start_offset: Offset,
    log_end_offset: Offset,
    high_watermark: Offset,
    /// What the leader said last, while it follows.
    leader_high_watermark: Offset,
}

impl Replica {
    /// A replica that does not lead yet. `high_watermark` is the checkpointed one.
    pub fn new(settings: ReplicaSettings, log_end_offset: Offset, high_watermark: Offset) -> Self {
        Replica {
            settings,
            role: Role::Idle,
            leader_epoch: LeaderEpoch::UNKNOWN,
            partition_epoch: -1,
            metadata_offset: Offset::UNKNOWN,
            isr: Vec::new(),
            pending: None,
            followers: Vec::new(),
            led_since: LeaderEpoch::UNKNOWN,
            epoch_start_offset: Offset::UNKNOWN,
            log_end_offset,
            high_watermark: high_watermark.min(log_end_offset),
            leader_high_watermark: Offset::UNKNOWN,
        }
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The newest epoch known.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Whether it leads and has led since `leader_epoch`, so that what was appended then is in the log still.
    pub fn has_led_since(&self, leader_epoch: LeaderEpoch) -> bool {
        self.role == Role::Leader && leader_epoch >= self.led_since
    }

    /// Where the epoch of this leader began.
    pub fn epoch_start_offset(&self) -> Offset {
        self.epoch_start_offset
    }

    /// The partition epoch of the newest state known.
    pub fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    /// The committed in-sync replicas while it leads.
    pub fn isr(&self) -> &[BrokerId] {
        &self.isr
    }

    /// How many replicas the ISR has, one that is about to join with them.
    pub fn maximal_isr_len(&self) -> usize {
        let joins = self.pending.as_ref().and_then(|pending| pending.joins);
        self.isr.len() + usize::from(joins.is_some_and(|joins| !self.isr.contains(&joins)))
    }

    /// The other replicas while it leads.
    pub fn followers(&self) -> &[Follower] {
        &self.followers
    }

    /// One of the other replicas while it leads.
    pub fn follower(&self, id: BrokerId) -> Option<&Follower> {
        self.followers.iter().find(|follower| follower.id == id)
    }

    /// The offset below which every in-sync replica has every record.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// `min.insync.replicas`, but not more than there are replicas, as since Kafka 4.0.
    pub fn min_isr(&self) -> usize {
        self.settings.min_insync_replicas.min(self.followers.len() + 1)
    }

    /// The first offset that is left on every replica whose broker is alive (KIP-107); `own` is the local log's start.
    pub fn low_watermark(&self, own: Offset, is_alive: impl Fn(BrokerId) -> bool) -> Offset {
        let alive = self.followers.iter().filter(|follower| is_alive(follower.id));
        alive.map(|follower| follower.log_start_offset).fold(own, Offset::min)
    }

    /// Whether a fetch under this registration is older than one that was seen (KIP-903).
    pub fn is_stale(&self, replica: BrokerId, broker_epoch: BrokerEpoch) -> bool {
        broker_epoch != BROKER_EPOCH_UNKNOWN
            && self.follower(replica).is_some_and(|known| known.broker_epoch > broker_epoch)
    }

    /// Takes one event.
    pub fn step(&mut self, event: Event) -> Effects {
        let effects = match event {
            Event::Lead { leadership, log_end_offset, settled_end_offset, now } => {
                self.lead(leadership, (log_end_offset, settled_end_offset), now)
            }
            Event::Follow { leader, leader_epoch, partition_epoch } => {
                self.follow(leader, leader_epoch, partition_epoch);
                Effects::default()
            }
            Event::Appended { log_end_offset, now } => {
                // A follower that had everything has had it until now, however long ago it last asked.
                for follower in &mut self.followers {
                    follower.leader_grows(self.log_end_offset, now);
                }
                self.log_end_offset = log_end_offset;
                Effects::one(self.advance(now))
            }
            Event::Truncated { log_end_offset } => Effects::one(self.truncated(log_end_offset)),
            Event::LeaderHighWatermark(offset) => {
                self.leader_high_watermark = offset;
                Effects::one(self.advance_as_follower())
            }
            Event::Fetched { fetch, now } => self.fetched(fetch, now),
            Event::CheckIsr { now } => {
                let change = self.check_isr(&[], now);
                // Those that have lagged for too long, and are in no ISR, hold nothing back any more.
                Effects([self.advance(now), change, None])
            }
            Event::Fenced { fenced, metadata_offset, now } => {
                self.metadata_offset = self.metadata_offset.max(metadata_offset);
                for follower in self.followers.iter_mut().filter(|it| fenced.contains(&it.id)) {
                    follower.fence();
                }
                let change = self.check_isr(&fenced, now);
                // Nor do those that are fenced now.
                Effects([self.advance(now), change, None])
            }
            Event::IsrAnswered { change, answer, now } => {
                self.isr_answered(&change, answer);
                Effects::one(self.advance(now))
            }
            Event::MinIsr { min_insync_replicas, now } => {
                self.settings.min_insync_replicas = min_insync_replicas;
                Effects::one(self.advance(now))
            }
            Event::LogStartMoved { log_start_offset } => {
                let is_below = self.high_watermark < log_start_offset;
                Effects::one(is_below.then(|| self.set_high_watermark(log_start_offset)))
            }
        };
        debug_assert!(self.validate(), "{self:?}");
        effects
    }

    fn lead(
        &mut self,
        leadership: Leadership,
        (log_end_offset, settled_end_offset): (Offset, Offset),
        now: Timestamp,
    ) -> Effects {
        let Leadership { leader_epoch, partition_epoch, isr, replicas, metadata_offset } =
            leadership;
        if leader_epoch < self.leader_epoch || partition_epoch < self.partition_epoch {
            return Effects::default();
        }
        self.metadata_offset = self.metadata_offset.max(metadata_offset);
        let is_new_leader = self.role != Role::Leader;
        let is_new_epoch = leader_epoch > self.leader_epoch || is_new_leader;
        if !is_new_epoch && partition_epoch == self.partition_epoch {
            // The controller's answer came before the Image; another change may be under way by now.
            return Effects::default();
        }
        self.role = Role::Leader;
        self.leader_epoch = leader_epoch;
        self.partition_epoch = partition_epoch;
        self.isr = isr;
        self.pending = None;
        self.log_end_offset = settled_end_offset;
        if is_new_leader {
            self.followers.clear();
            self.led_since = leader_epoch;
        }
        self.set_replicas(&replicas, now);
        let mut start = None;
        if is_new_epoch {
            self.epoch_start_offset = log_end_offset;
            for follower in &mut self.followers {
                let is_in_sync = self.isr.contains(&follower.id);
                follower.begin_epoch(is_in_sync, log_end_offset, now);
            }
            start = Some(Effect::StartEpoch { leader_epoch, start_offset: log_end_offset });
        }
        Effects([start, self.advance(now), None])
    }

    fn set_replicas(&mut self, replicas: &[BrokerId], now: Timestamp) {
        self.followers.retain(|follower| replicas.contains(&follower.id));
        for id in replicas.iter().filter(|id| **id != self.settings.broker_id) {
            if self.follower(*id).is_none() {
                self.followers.push(Follower::new(*id, self.isr.contains(id), now));
            }
        }
    }

    fn follow(&mut self, leader: BrokerId, leader_epoch: LeaderEpoch, partition_epoch: i32) {
        if leader_epoch < self.leader_epoch || partition_epoch < self.partition_epoch {
            return;
        }
        if leader_epoch > self.leader_epoch {
            self.leader_high_watermark = Offset::UNKNOWN;
        }
        self.role = if leader == BrokerId::NONE { Role::Idle } else { Role::Follower(leader) };
        self.leader_epoch = leader_epoch;
        self.partition_epoch = partition_epoch;
        self.isr.clear();
        self.pending = None;
        self.followers.clear();
    }

    fn fetched(&mut self, mut fetch: FollowerFetch, now: Timestamp) -> Effects {
        let leader_end = self.log_end_offset;
        if fetch.metadata_offset < self.metadata_offset {
            // Newer metadata may have fenced it. If not, its next fetch tells.
            fetch.eligibility = Eligibility::Ineligible;
        }
        let follower = self.followers.iter_mut().find(|follower| follower.id == fetch.replica);
        let Some(follower) = follower.filter(|_| self.role == Role::Leader) else {
            return Effects::default();
        };
        let has_moved = follower.fetched(&fetch, leader_end, now);
        let change = self.expand_isr(fetch.replica);
        let advance = if has_moved { self.advance(now) } else { None };
        Effects([advance, change, None])
    }

    fn truncated(&mut self, log_end_offset: Offset) -> Option<Effect> {
        self.log_end_offset = log_end_offset;
        // What the leader said was of a log that ours was not a part of.
        self.leader_high_watermark = Offset::UNKNOWN;
        (self.high_watermark > log_end_offset).then(|| self.set_high_watermark(log_end_offset))
    }

    fn set_high_watermark(&mut self, offset: Offset) -> Effect {
        self.high_watermark = offset;
        Effect::HighWatermark(offset)
    }

    fn advance(&mut self, now: Timestamp) -> Option<Effect> {
        match self.role {
            Role::Leader => self.advance_as_leader(now),
            Role::Follower(_) => self.advance_as_follower(),
            Role::Idle => None,
        }
    }

    /// Moves the high watermark to the least end of the maximal ISR. Below the minimum it stays: what is committed then
    /// could be lost with fewer replicas than the topic asks for (KIP-966). A replica that is caught up and about to
    /// join is waited for, else a busy leader would never let it in.
    fn advance_as_leader(&mut self, now: Timestamp) -> Option<Effect> {
        if self.isr.len() < self.min_isr() {
            return None;
        }
        let mut end = self.log_end_offset;
        for follower in &self.followers {
            if follower.log_end_offset < end && self.holds_back(follower, now) {
                end = follower.log_end_offset;
            }
        }
        (end > self.high_watermark).then(|| self.set_high_watermark(end))
    }

    fn holds_back(&self, follower: &Follower, now: Timestamp) -> bool {
        let lag_max_ms = self.settings.lag_time_max_ms;
        self.is_in_maximal_isr(follower.id)
            || (follower.is_eligible()
                && follower.is_caught_up(self.log_end_offset, lag_max_ms, now))
    }

    fn advance_as_follower(&mut self) -> Option<Effect> {
        let end = self.leader_high_watermark.min(self.log_end_offset);
        let follows = matches!(self.role, Role::Follower(_));
        (follows && end > self.high_watermark).then(|| self.set_high_watermark(end))
    }

    fn validate(&self) -> bool {
        (self.role != Role::Leader || self.leader_epoch > LeaderEpoch::UNKNOWN)
            && (self.role == Role::Leader || (self.followers.is_empty() && self.pending.is_none()))
            && self.followers.iter().all(|follower| follower.id != self.settings.broker_id)
    }
}
