//! Heartbeats and elections, which openraft has the rules for and this the times.
//!
//! A voter that hears no leader asks the others first whether they would vote for it (KIP-996): one that was cut off
//! does not raise the epoch when it comes back. A leader whose address refuses connections is dead, and an election
//! waits only until voters keep to it no more; silence alone is waited for longer, and not at all while this process
//! itself stood still.

use super::Shared;
use super::codec::PreVote;
use super::network::{RaftTransport, ask_pre_vote, tell_end};
use super::types::Raft;
use openraft::Config;
use ottla_protocol::LeaderEpoch;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Times of the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumTiming {
    /// Between two messages of a leader.
    pub heartbeat: Duration,
    /// How long voters keep to a leader that they heard: no election within it.
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
/// Added to the lease: another voter may have heard the leader a little later.
const LEASE_MARGIN: Duration = Duration::from_millis(5);
/// Between voters that know of a dead leader, in the order of their ids.
const STAGGER: Duration = Duration::from_millis(12);
/// What a voter waits at most before its first election: no leader has been heard of, and perhaps there is none.
const FIRST_WAIT: Duration = Duration::from_millis(150);

impl QuorumTiming {
    /// openraft's own configuration. Its timer is off, and with it its heartbeats and elections; the numbers bound
    /// votes and the lease. How long a message may take is the network's.
    pub(super) fn config(&self) -> Config {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let lease = ms(self.lease).max(2);
        Config {
            heartbeat_interval: IDLE_TICK_MS,
            election_timeout_min: lease - 1,
            election_timeout_max: lease,
            enable_tick: false,
            enable_heartbeat: false,
            enable_elect: false,
            ..Config::default()
        }
    }
}

impl Shared {
    /// Whether this voter keeps to a leader that it heard.
    pub(super) fn is_leader_kept(&self) -> bool {
        let heard = self.contact.lock().heard;
        heard.is_some_and(|heard| heard.elapsed() <= self.log.params().timing.lease)
    }
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
        } else if voters.is_only(node_id) {
            Instant::now()
        } else if contact.is_suspect {
            // Those who know at the same time that the leader is dead do not stand at the same time.
            let rank = voters.ids().position(|id| id == node_id).unwrap_or(0);
            let stagger = STAGGER * u32::try_from(rank).unwrap_or(0);
            contact.heard.unwrap_or(contact.at) + timing.lease + LEASE_MARGIN + stagger
        } else {
            contact.at + wait
        };
        // Not in the past: what is late below is the timer alone. A leader may be found dead long after it was heard.
        let due = if leads { due } else { due.max(not_before).max(Instant::now()) };
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
        if due.elapsed() > LATE && !voters.is_only(node_id) {
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
        let would_win = would_win(&shared, &transport).await;
        // Others may have tried at the same time: not again at the same time.
        let pause = match (would_win, contact.is_suspect) {
            (false, true) => between(STAGGER, STAGGER * 3),
            (false, false) => between(timing.heartbeat, timing.heartbeat * 3),
            (true, _) => between(timing.heartbeat * 2, timing.heartbeat * 5),
        };
        if would_win && shared.contact.lock().at == contact.at {
            let _ = raft.trigger().elect().await;
        }
        not_before = Instant::now() + pause;
    }
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

/// Whether a majority would vote for this voter.
async fn would_win(shared: &Arc<Shared>, transport: &Arc<dyn RaftTransport>) -> bool {
    let params = shared.log.params();
    let (_, last) = shared.log.log_ids();
    let epoch = LeaderEpoch(shared.log.ballot().epoch.0.saturating_add(1));
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
    let needed = voters.count() / 2 + 1;
    let mut votes = 1;
    while votes < needed
        && let Some(answer) = asked.join_next().await
    {
        votes += usize::from(matches!(answer, Ok(true)));
    }
    votes >= needed
}
