//! What a leader knows of one follower, from the follower's fetches.
//!
//! Source: KIP-16 (lag by time), KIP-841 and KIP-903 (who may be in the ISR).

use ottla_protocol::{BrokerEpoch, BrokerId, Offset, Timestamp};

/// A registration that is not known: the fetch came in a version without it.
pub const BROKER_EPOCH_UNKNOWN: BrokerEpoch = BrokerEpoch(-1);

/// Whether the committed metadata let a replica be in the ISR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eligibility {
    /// Its broker is there, neither fenced nor on its way out, and has not started anew since it fetched.
    Eligible,
    /// It must not join.
    Ineligible,
}

/// One fetch of a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerFetch {
    /// Who fetches.
    pub replica: BrokerId,
    /// Its broker's registration; -1 where the request has none.
    pub broker_epoch: BrokerEpoch,
    /// What the metadata says of it.
    pub eligibility: Eligibility,
    /// The offset of the metadata that say so; from before the leadership, or a follower's fencing, they count for
    /// nothing.
    pub metadata_offset: Offset,
    /// Where it wants to read on: its log ends here.
    pub fetch_offset: Offset,
    /// Where its log starts.
    pub log_start_offset: Offset,
}

/// The state of one follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    /// Its broker.
    pub id: BrokerId,
    /// Where its log ends; unknown before its first fetch from this leader.
    pub log_end_offset: Offset,
    /// Where its log starts; unknown likewise.
    pub log_start_offset: Offset,
    /// The registration that it fetched under.
    pub broker_epoch: BrokerEpoch,
    /// The last time at which it had everything that the leader had.
    pub last_caught_up: Timestamp,
    last_fetch: Timestamp,
    /// The leader's end at its last fetch.
    leader_end_at_fetch: Offset,
    eligibility: Eligibility,
}

/// A time that is longer ago than any lag that is allowed.
const LONG_AGO: Timestamp = Timestamp(0);

impl Follower {
    /// A follower that this leader has not heard of; one in the ISR was in sync just now.
    pub(super) fn new(id: BrokerId, is_in_sync: bool, now: Timestamp) -> Self {
        Follower {
            id,
            log_end_offset: Offset::UNKNOWN,
            log_start_offset: Offset::UNKNOWN,
            broker_epoch: BROKER_EPOCH_UNKNOWN,
            last_caught_up: if is_in_sync { now } else { LONG_AGO },
            last_fetch: LONG_AGO,
            leader_end_at_fetch: Offset::UNKNOWN,
            eligibility: Eligibility::Ineligible,
        }
    }

    /// The leader has a new epoch: a member of the ISR gets the whole time that it may lag.
    pub(super) fn begin_epoch(&mut self, is_in_sync: bool, leader_end: Offset, now: Timestamp) {
        self.leader_end_at_fetch = leader_end;
        self.last_fetch = if is_in_sync { now } else { LONG_AGO };
        self.last_caught_up = if is_in_sync { now } else { LONG_AGO };
    }

    /// Takes a fetch in; whether its end has moved.
    pub(super) fn fetched(
        &mut self,
        fetch: &FollowerFetch,
        leader_end: Offset,
        now: Timestamp,
    ) -> bool {
        if fetch.fetch_offset >= leader_end {
            self.last_caught_up = self.last_caught_up.max(now);
        } else if fetch.fetch_offset >= self.leader_end_at_fetch {
            // It has what the leader had when it last asked, so it was in sync then.
            self.last_caught_up = self.last_caught_up.max(self.last_fetch);
        }
        let has_moved = self.log_end_offset != fetch.fetch_offset;
        self.log_end_offset = fetch.fetch_offset;
        self.log_start_offset = fetch.log_start_offset;
        self.leader_end_at_fetch = self.leader_end_at_fetch.max(leader_end);
        self.last_fetch = now;
        self.broker_epoch = fetch.broker_epoch;
        self.eligibility = fetch.eligibility;
        has_moved
    }

    /// The leader's log, which ended at `leader_end`, is about to grow.
    pub(super) fn leader_grows(&mut self, leader_end: Offset, now: Timestamp) {
        if self.log_end_offset >= leader_end {
            self.last_caught_up = self.last_caught_up.max(now);
        }
    }

    /// Whether it has everything, or had it less than `lag_max_ms` ago.
    pub(super) fn is_caught_up(&self, leader_end: Offset, lag_max_ms: i64, now: Timestamp) -> bool {
        self.log_end_offset >= leader_end
            || now.0.saturating_sub(self.last_caught_up.0) <= lag_max_ms
    }

    /// Whether the metadata let it be in the ISR when it last fetched.
    pub(super) fn is_eligible(&self) -> bool {
        self.eligibility == Eligibility::Eligible
    }

    /// Its broker was fenced.
    pub(super) fn fence(&mut self) {
        self.eligibility = Eligibility::Ineligible;
    }
}
