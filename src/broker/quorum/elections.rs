//! Heartbeats and elections, which openraft has the rules for and this the times.
//!
//! A voter that hears no leader asks the others first whether they would vote for it (KIP-996): one that was cut off
//! does not raise the epoch when it comes back. Voters keep to a leader that they heard, unless they know themselves
//! that it is dead, since its address refuses connections: then nothing is waited for. Silence alone is waited for
//! longer, and not at all while this process itself stood still.
//!
//! One election at a time: who stands, or has voted, neither stands (again) nor promises its vote to others as long as
//! votes may be on their way. Each is a sync, for which a busy machine may take long; another epoch would make it void.

use super::Shared;
use super::codec::PreVote;
use super::network::{RaftTransport, ask_pre_vote, tell_end};
use super::runtime::VOTE_BOUND_MS;
use super::types::Raft;
use super::voter_set::VoterSet;
use openraft::Config;
use ottla_protocol::{BrokerId, LeaderEpoch};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Times of the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumTiming {
    /// Between two messages of a leader.
    pub heartbeat: Duration,
    /// How long voters keep to a leader that they heard: no election within it, unless they know that it is dead.
    pub lease: Duration,
    /// Silence of a leader after which a voter stands for election, drawn from here...
    pub election_timeout_min: Duration,
    /// ...to here.
    pub election_timeout_max: Duration,
    /// How long a message may take.
    pub request_timeout: Duration,
}

impl Default for QuorumTiming {
    fn default() -> Self {
        QuorumTiming {
            heartbeat: Duration::from_millis(50),
            lease: Duration::from_millis(200),
            election_timeout_min: Duration::from_millis(500),
            election_timeout_max: Duration::from_millis(900),
            request_timeout: Duration::from_millis(500),
        }
    }
}

/// How long the clock of openraft sleeps, in milliseconds: it has nothing to do.
const IDLE_TICK_MS: u64 = 3_600_000;
/// How long a voter waits that has nothing to do, if nobody wakes it.
const IDLE: Duration = Duration::from_secs(3600);
/// A timer that comes so late has slept through messages, which are read now.
const LATE: Duration = Duration::from_millis(100);
/// Between voters that know of a dead leader, in the order of their ids.
const STAGGER: Duration = Duration::from_millis(12);
/// How long a candidate's own vote may take to be written before it tries again: a try would make that vote void.
const OWN_VOTE: Duration = Duration::from_secs(10);
/// What a voter waits at most before its first election: no leader has been heard of, and perhaps there is none.
const FIRST_WAIT: Duration = Duration::from_millis(150);

impl QuorumTiming {
    /// openraft's own configuration. Its timer is off, and with it its heartbeats and elections, and so is its lease,
    /// which knows nothing of leaders that are dead: `receive.rs` has ours. How long a message may take, a vote too,
    /// is the network's (`runtime.rs`).
    pub(super) fn config() -> Config {
        Config {
            heartbeat_interval: IDLE_TICK_MS,
            election_timeout_min: VOTE_BOUND_MS,
            election_timeout_max: VOTE_BOUND_MS + 1,
            enable_tick: false,
            enable_heartbeat: false,
            enable_elect: false,
            ..Config::default()
        }
    }
}

/// When this voter last heard of its leader, and which election it takes part in.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeaderContact {
    /// Since when the voter waits for a message.
    pub at: Instant,
    /// The last message in this process's time.
    pub heard: Option<Instant>,
    /// Since when the leader's address is known to refuse connections.
    dead_since: Option<Instant>,
    /// This voter asks the others whether they would vote for it.
    is_asking: bool,
    /// For whom it is to vote, and until when for nobody else.
    promised: Option<(BrokerId, Instant)>,
    /// Who has not voted for this voter in its own election.
    refusals: usize,
}

impl LeaderContact {
    /// Of a voter that has just started.
    pub fn none() -> LeaderContact {
        let at = Instant::now();
        LeaderContact {
            at,
            heard: None,
            dead_since: None,
            is_asking: false,
            promised: None,
            refusals: 0,
        }
    }

    /// The leader has been heard.
    pub fn hear(&mut self) {
        let now = Instant::now();
        *self = LeaderContact { at: now, heard: Some(now), ..LeaderContact::none() };
    }

    /// This voter gives its lead up: it waits as long for its successor as for any leader, and may vote for it.
    pub fn give_up(&mut self) {
        *self = LeaderContact::none();
    }

    /// The leader is dead.
    pub fn bury(&mut self) {
        self.dead_since.get_or_insert_with(Instant::now);
    }

    /// For whom this voter is to vote just now.
    fn promised(&self) -> Option<BrokerId> {
        self.promised.filter(|(_, until)| Instant::now() < *until).map(|(candidate, _)| candidate)
    }
}

impl Shared {
    /// Whether this voter keeps to a leader that it heard.
    pub(super) fn is_leader_kept(&self) -> bool {
        let LeaderContact { heard, dead_since, .. } = *self.contact.lock();
        let lease = self.log.params().timing.lease;
        dead_since.is_none() && heard.is_some_and(|heard| heard.elapsed() <= lease)
    }

    /// Promises this voter's vote to a candidate that would get it, unless another one has the promise. Of two that ask
    /// each other the one with the lower id gets it.
    pub(super) fn promise(&self, candidate: BrokerId) -> bool {
        let mut contact = self.contact.lock();
        if let Some(other) = contact.promised() {
            // Asking again makes it last no longer: one that others refuse must not keep this one from standing.
            return other == candidate;
        }
        if contact.is_asking && self.log.params().node_id() < candidate {
            return false;
        }
        contact.promised =
            Some((candidate, Instant::now() + self.log.params().timing.request_timeout));
        true
    }

    /// This voter has voted: no other election as long as the candidate may wait for votes.
    pub(super) fn note_vote(&self, candidate: BrokerId) {
        let until = Instant::now() + self.log.params().timing.request_timeout;
        self.contact.lock().promised = Some((candidate, until));
    }

    /// Another voter did not vote for this one in `epoch`, or did not answer. An election that cannot be won any more
    /// is not waited for.
    pub(super) fn note_refusal(&self, epoch: LeaderEpoch) {
        let own = self.log.params().node_id();
        let voters = self.log.voters().count();
        if self.log.ballot().epoch != epoch {
            return;
        }
        let mut contact = self.contact.lock();
        if contact.promised() != Some(own) {
            return;
        }
        contact.refusals += 1;
        if voters.saturating_sub(contact.refusals) < majority(voters) {
            contact.promised = Some((own, Instant::now() + between(STAGGER, STAGGER * 3)));
            self.alarm.notify_one();
        }
    }

    /// This voter stands for election. It does not try again before its own vote is written and the others are asked.
    fn promise_own(&self) {
        let own = self.log.params().node_id();
        // Alone, it asks nobody.
        let time = if self.log.voters().is_only(own) { self.time_to_vote() } else { OWN_VOTE };
        let mut contact = self.contact.lock();
        contact.promised = Some((own, Instant::now() + time));
        contact.refusals = 0;
    }

    /// The others are asked for their votes now.
    pub(super) fn note_asked(&self) {
        let own = self.log.params().node_id();
        let until = Instant::now() + self.time_to_vote();
        let mut contact = self.contact.lock();
        if contact.promised() == Some(own) && contact.refusals == 0 {
            contact.promised = Some((own, until));
            self.alarm.notify_one();
        }
    }

    /// How long votes are waited for before the next try.
    fn time_to_vote(&self) -> Duration {
        let time = self.log.params().timing.request_timeout;
        between(time, time * 3 / 2)
    }

    /// When this voter is to stand for election, by what it knows now.
    fn due(&self, voters: &VoterSet, contact: &LeaderContact, wait: Duration) -> Instant {
        let own = self.log.params().node_id();
        let due = match contact.dead_since {
            _ if voters.is_only(own) => Instant::now(),
            // Those who know at the same time that the leader is dead do not stand at the same time.
            Some(since) => {
                let leader = self.leader.borrow().leader;
                let rank = voters.ids().filter(|id| Some(*id) != leader && *id < own).count();
                since + STAGGER * u32::try_from(rank).unwrap_or(0)
            }
            None => contact.at + wait,
        };
        contact.promised.map_or(due, |(_, until)| due.max(until))
    }
}

/// How many of so many voters decide.
fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// A number between the bounds, other than the next one's.
fn between(min: Duration, max: Duration) -> Duration {
    let share = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    min + max.saturating_sub(min) * share / 256
}

/// Beats while this voter leads, and stands for election while none does; runs until openraft ends.
pub(super) async fn run(shared: Arc<Shared>, raft: Raft, transport: Arc<dyn RaftTransport>) {
    let timing = shared.log.params().timing;
    // The voters are asked at the same time; those that ask later follow.
    let mut wait = between(Duration::from_millis(10), FIRST_WAIT);
    let mut not_before = Instant::now();
    let node_id = shared.log.params().node_id();
    let mut voter_changes = shared.log.voter_changes();
    loop {
        if shared.is_closing() || shared.log.is_failed() {
            return;
        }
        let voters = Arc::clone(&voter_changes.borrow_and_update());
        let contact = *shared.contact.lock();
        let leads = shared.leader.borrow().leader == Some(node_id);
        let is_idle = match leads {
            true => voters.is_only(node_id) && shared.learners.lock().is_empty(),
            false => !shared.has_vote(),
        };
        let due = if is_idle {
            Instant::now() + IDLE
        } else if leads {
            Instant::now() + timing.heartbeat
        } else {
            // Not in the past: what is late below is the timer alone. A leader may be found dead long after.
            shared.due(&voters, &contact, wait).max(not_before).max(Instant::now())
        };
        let alarm = shared.alarm.notified();
        let woken = tokio::select! {
            biased;
            () = alarm => true,
            // The log outlives this task.
            Ok(()) = voter_changes.changed() => true,
            () = tokio::time::sleep_until(due) => false,
        };
        if woken || is_idle {
            continue;
        }
        if leads {
            if !shared.is_abdicating.load(Ordering::Acquire) {
                // One that has stopped beats no more.
                let _ = raft.trigger().heartbeat().await;
                shared.heed_majority(&raft);
            }
            continue;
        }
        if due.elapsed() > LATE && contact.dead_since.is_none() && !voters.is_only(node_id) {
            // Neither could the leader's messages be read.
            shared.contact.lock().at = Instant::now();
            wait = timing.election_timeout_min;
            continue;
        }
        let heard = *shared.contact.lock();
        if heard.at != contact.at {
            wait = between(timing.election_timeout_min, timing.election_timeout_max);
            continue;
        }
        if shared.is_stalled() || shared.leader.borrow().leader == Some(node_id) {
            not_before = Instant::now() + timing.heartbeat;
            continue;
        }
        // Somebody may have got this voter's promise meanwhile.
        if heard.promised().is_none() && stand(&shared, &raft, &transport).await {
            continue;
        }
        // Others may have tried at the same time: not again at the same time.
        not_before = Instant::now()
            + match contact.dead_since {
                Some(_) => between(STAGGER, STAGGER * 3),
                None => between(timing.heartbeat, timing.heartbeat * 3),
            };
    }
}

/// Stands for election where a majority would vote for this voter; answers whether it does.
async fn stand(shared: &Arc<Shared>, raft: &Raft, transport: &Arc<dyn RaftTransport>) -> bool {
    let epoch = shared.log.ballot().epoch;
    let since = {
        let mut contact = shared.contact.lock();
        contact.is_asking = true;
        contact.at
    };
    let would_win = would_win(shared, transport, epoch).await;
    let is_as_before = {
        let mut contact = shared.contact.lock();
        contact.is_asking = false;
        contact.at == since
    };
    // It may have heard a leader, or voted for somebody else, meanwhile.
    let stands = would_win && is_as_before && shared.log.ballot().epoch == epoch;
    if stands {
        shared.promise_own();
        // One that has stopped stands no more.
        let _ = raft.trigger().elect().await;
    }
    stands
}

/// Tells the other voters that this leader goes, so that they need not wait for its silence.
pub(super) async fn end_epoch(
    shared: &Arc<Shared>,
    transport: Arc<dyn RaftTransport>,
    epoch: LeaderEpoch,
) {
    let params = shared.log.params();
    let mut told = tokio::task::JoinSet::new();
    for voter in shared.log.voters().iter().filter(|voter| voter.id != params.node_id()) {
        let transport = Arc::clone(&transport);
        let (limit, to) = (params.timing.lease, (voter.id, voter.directory_id));
        told.spawn(async move {
            // One that does not hear it finds out by itself.
            let _ = tokio::time::timeout(limit, tell_end(transport.as_ref(), to, epoch)).await;
        });
    }
    while told.join_next().await.is_some() {}
}

/// Whether a majority would vote for this voter in the epoch after `epoch`.
async fn would_win(
    shared: &Arc<Shared>,
    transport: &Arc<dyn RaftTransport>,
    epoch: LeaderEpoch,
) -> bool {
    let params = shared.log.params();
    let (_, last) = shared.log.log_ids();
    let epoch = LeaderEpoch(epoch.0.saturating_add(1));
    let request = PreVote { epoch, candidate: params.node_id(), last };
    let voters = shared.log.voters();
    let mut asked = tokio::task::JoinSet::new();
    for voter in voters.iter().filter(|voter| voter.id != params.node_id()) {
        let transport = Arc::clone(transport);
        let (limit, to) = (params.timing.lease, (voter.id, voter.directory_id));
        asked.spawn(async move {
            let granted = ask_pre_vote(transport.as_ref(), to, request);
            tokio::time::timeout(limit, granted).await.unwrap_or(false)
        });
    }
    let needed = majority(voters.count());
    let mut votes = 1;
    while votes < needed
        && let Some(answer) = asked.join_next().await
    {
        votes += usize::from(matches!(answer, Ok(true)));
    }
    votes >= needed
}
