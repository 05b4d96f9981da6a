//! How a leader changes the voters: one at a time, each change a VotersRecord that the new set agrees on.
//!
//! A set of one more or one less shares a voter with every majority of the one before it, so no joint set is needed as
//! long as the change before is committed, and a record of the leader's own epoch with it (KIP-853). Who is to have a
//! vote follows without one first, until it has what the leader has; that it follows is known to its leader alone.

use super::shared::Shared;
use super::types::Batch;
use super::voter_set::{Voter, VoterSet};
use super::{elections, log::WriteError, network::RaftTransport};
use ottla_protocol::messages::KRaftVersionRecord;
use ottla_protocol::record::{BatchBuilder, BatchParams};
use ottla_protocol::records::control::ControlRecord;
use ottla_protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How often a leader looks how far a new voter has come.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// How long an election may take that a leader has asked for.
const SUCCESSION_MAX: Duration = Duration::from_secs(3);
/// A voter that has answered so lately is there.
const HEARD: Duration = Duration::from_secs(1);
/// Silence after which a node without a vote is not sent to any more.
const FORGOTTEN: Duration = Duration::from_secs(15);
/// Nodes without a vote that a leader sends to.
const LEARNERS_MAX: usize = 1000;

/// A node that follows without a vote.
#[derive(Debug, Clone)]
pub(super) struct Learner {
    /// Who.
    pub voter: Voter,
    /// When it last said that it is there.
    pub heard: Instant,
}

/// Whether a change is answered when it is written, or when it is committed (KIP-1186).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Once it is in the leader's log.
    Written,
    /// Once a majority has it.
    Committed,
}

impl Shared {
    /// The epoch that is led and the voters, where those may be changed now.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER; UNSUPPORTED_VERSION while the voters are those of the configuration; REQUEST_TIMED_OUT
    /// while a change, or the epoch's first record, is not committed.
    fn changeable(&self) -> Result<(LeaderEpoch, Arc<VoterSet>), ErrorCode> {
        let epoch = self.log.leading().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let (voters, settled_at) = self.log.voters_and_settled();
        if !voters.is_dynamic {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if self.committed() < settled_at || self.is_suspended() {
            return Err(ErrorCode::RequestTimedOut);
        }
        Ok((epoch, voters))
    }

    /// The same, waiting for what is to be committed first: a leader that was just elected is asked to do what the one
    /// before could not.
    async fn await_changeable(
        &self,
        deadline: Instant,
    ) -> Result<(LeaderEpoch, Arc<VoterSet>), ErrorCode> {
        loop {
            let moved = self.moved.notified();
            match self.changeable() {
                Err(ErrorCode::RequestTimedOut) => {}
                found => return found,
            }
            // A leader that was suspended goes on without a commit.
            let look = (Instant::now() + LOOK_PAUSE).min(deadline);
            let _ = tokio::time::timeout_at(look, moved).await;
            if Instant::now() >= deadline {
                return Err(ErrorCode::RequestTimedOut);
            }
        }
    }

    /// Writes and proposes a new set; answers where its record ends.
    fn write_voters(
        &self,
        epoch: LeaderEpoch,
        set: &VoterSet,
        learners: BTreeSet<BrokerId>,
        first: Option<KRaftVersionRecord>,
    ) -> Result<Offset, ErrorCode> {
        let now = self.log.params().clock.now();
        let build = |base_offset| {
            let mut batch = BatchBuilder::new(BatchParams {
                base_offset,
                leader_epoch: epoch,
                is_control: true,
                ..BatchParams::default()
            });
            let version = first.map(ControlRecord::KRaftVersion);
            for record in version.into_iter().chain([set.to_record()]) {
                batch.push(now, Some(&record.key()), Some(&record.value()), &[]);
            }
            batch.build().freeze()
        };
        let hold = |batch: &Batch| self.hold_control(Batch { learners, ..batch.clone() });
        match self.log.write_ahead(epoch, build, hold) {
            Ok(batch) => {
                self.alarm.notify_one();
                Ok(batch.header.next_offset())
            }
            Err(WriteError::NoSpace) => Err(ErrorCode::KafkaStorageError),
            Err(WriteError::Failed(_)) => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// Waits until everything below `end` is committed in this epoch.
    async fn await_commit(
        &self,
        epoch: LeaderEpoch,
        end: Offset,
        deadline: Instant,
    ) -> Result<(), ErrorCode> {
        loop {
            let moved = self.moved.notified();
            if self.committed() >= end {
                return Ok(());
            }
            if self.log.leading() != Some(epoch) {
                return Err(ErrorCode::NotLeaderOrFollower);
            }
            if tokio::time::timeout_at(deadline, moved).await.is_err() {
                return Err(ErrorCode::RequestTimedOut);
            }
        }
    }

    /// Those who follow without a vote, as the newest entry has them. openraft is asked: its metrics may be older than
    /// what is committed, and a disk would be taken for the one before it that was to go first.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER where openraft has stopped.
    pub(super) async fn learner_ids(&self) -> Result<BTreeSet<BrokerId>, ErrorCode> {
        let raft = self.raft().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let learners = raft.with_raft_state(|state| {
            let membership = state.membership_state.effective().membership();
            membership.learner_ids().map(BrokerId).collect()
        });
        learners.await.map_err(|_| ErrorCode::NotLeaderOrFollower)
    }

    /// Notes that a node is there which has no vote.
    pub(super) fn note_learner(&self, voter: &Voter) {
        let params = self.log.params();
        if let Some(address) = voter.address(&params.listener) {
            params.addresses.set(voter.id, address.clone());
        }
        let mut learners = self.learners.lock();
        let heard = Instant::now();
        learners.retain(|it| it.voter.id != voter.id);
        if learners.len() < LEARNERS_MAX {
            learners.push(Learner { voter: voter.clone(), heard });
        }
    }

    /// Whether the disk that follows without a vote is this one.
    fn is_let_in(&self, voter: &Voter) -> bool {
        self.let_in.lock().get(&voter.id) == Some(&voter.directory_id)
    }

    fn forget_learners(&self, is_kept: impl Fn(&Learner) -> bool) {
        self.learners.lock().retain(is_kept);
    }

    /// Has the nodes that are known to be there, and no others, follow without a vote. A change that runs goes first.
    pub(super) async fn let_learners_in(&self) {
        let Ok(_changing) = self.changing.try_lock() else { return };
        let Ok((epoch, voters)) = self.changeable() else { return };
        self.forget_learners(|it| {
            it.heard.elapsed() < FORGOTTEN && voters.get(it.voter.id).is_none()
        });
        let Ok(now) = self.learner_ids().await else { return };
        let learners = self.learners.lock().clone();
        // What openraft knows of one disk must not be taken for another's: that one goes first.
        let is_same = |it: &&Learner| !now.contains(&it.voter.id) || self.is_let_in(&it.voter);
        let wanted: BTreeSet<BrokerId> =
            learners.iter().filter(is_same).map(|it| it.voter.id).collect();
        if wanted != now {
            for learner in learners.iter().filter(|it| wanted.contains(&it.voter.id)) {
                self.let_in.lock().insert(learner.voter.id, learner.voter.directory_id);
            }
            // What cannot be written now is tried again with the next one who says that it is there.
            let _ = self.write_voters(epoch, &voters, wanted, None);
        }
    }

    /// Gives a node a vote, once it has what this leader has.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER, UNSUPPORTED_VERSION, DUPLICATE_VOTER; REQUEST_TIMED_OUT while another change is under
    /// way, or when the node does not catch up in time; KAFKA_STORAGE_ERROR without space.
    pub(super) async fn add_voter(
        &self,
        voter: Voter,
        answered: Answered,
        timeout: Duration,
    ) -> Result<(), ErrorCode> {
        let deadline = Instant::now() + timeout;
        let changing = self.changing.try_lock().map_err(|_| ErrorCode::RequestTimedOut)?;
        let (epoch, voters) = self.await_changeable(deadline).await?;
        if voters.get(voter.id).is_some() {
            return Err(ErrorCode::DuplicateVoter);
        }
        self.note_learner(&voter);
        let mut learners = self.learner_ids().await?;
        if learners.contains(&voter.id) && !self.is_let_in(&voter) {
            drop(changing);
            self.let_learners_in().await;
            return Err(ErrorCode::RequestTimedOut);
        }
        if learners.insert(voter.id) {
            self.let_in.lock().insert(voter.id, voter.directory_id);
            let end = self.write_voters(epoch, &voters, learners.clone(), None)?;
            self.await_commit(epoch, end, deadline).await?;
        }
        self.await_catching_up(epoch, voter.id, deadline).await?;
        let (epoch, voters) = self.await_changeable(deadline).await?;
        learners.remove(&voter.id);
        let id = voter.id;
        let end = self.write_voters(epoch, &voters.with(voter), learners, None)?;
        self.forget_learners(|it| it.voter.id != id);
        tracing::info!(voter = %id, "added to the voters of the metadata quorum");
        match answered {
            Answered::Written => Ok(()),
            Answered::Committed => self.await_commit(epoch, end, deadline).await,
        }
    }

    async fn await_catching_up(
        &self,
        epoch: LeaderEpoch,
        id: BrokerId,
        deadline: Instant,
    ) -> Result<(), ErrorCode> {
        let (_, goal) = self.log.log_ids();
        loop {
            if self.log.leading() != Some(epoch) {
                return Err(ErrorCode::NotLeaderOrFollower);
            }
            let matched = self.raft().and_then(|raft| {
                let metrics = raft.metrics();
                let metrics = metrics.borrow();
                *metrics.replication.as_ref()?.get(&id.0)?
            });
            if matched.is_some() && matched >= goal {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ErrorCode::RequestTimedOut);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Takes a voter's vote. It goes on following. A leader does not take its own: it is to hand over first.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER, UNSUPPORTED_VERSION, VOTER_NOT_FOUND; REQUEST_TIMED_OUT while another change is under
    /// way, or when no majority has it in time; INVALID_REQUEST for the last voter; KAFKA_STORAGE_ERROR without space.
    pub(super) async fn remove_voter(
        &self,
        id: BrokerId,
        directory_id: Uuid,
        timeout: Duration,
    ) -> Result<(), ErrorCode> {
        let deadline = Instant::now() + timeout;
        let _changing = self.changing.try_lock().map_err(|_| ErrorCode::RequestTimedOut)?;
        let (epoch, voters) = self.await_changeable(deadline).await?;
        let removed = voters.get(id).filter(|voter| voter.directory_id == directory_id);
        let removed = removed.ok_or(ErrorCode::VoterNotFound)?;
        if voters.count() == 1 {
            return Err(ErrorCode::InvalidRequest);
        }
        if id == self.log.params().node_id() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let mut learners = self.learner_ids().await?;
        if self.hears(id, HEARD) {
            // It must hear of it. One that does not answer may come back with another disk.
            self.note_learner(removed);
            self.let_in.lock().insert(id, directory_id);
            learners.insert(id);
        }
        let end = self.write_voters(epoch, &voters.without(id), learners, None)?;
        tracing::info!(voter = %id, "removed from the voters of the metadata quorum");
        self.await_commit(epoch, end, deadline).await
    }

    /// Notes where a voter listens now, and what it supports.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER, UNSUPPORTED_VERSION, VOTER_NOT_FOUND; REQUEST_TIMED_OUT while another change is under
    /// way, or when no majority has it in time; KAFKA_STORAGE_ERROR without space.
    pub(super) async fn update_voter(
        &self,
        voter: Voter,
        timeout: Duration,
    ) -> Result<(), ErrorCode> {
        let deadline = Instant::now() + timeout;
        let _changing = self.changing.try_lock().map_err(|_| ErrorCode::RequestTimedOut)?;
        let (epoch, voters) = self.await_changeable(deadline).await?;
        let known = voters.get(voter.id).filter(|it| it.directory_id == voter.directory_id);
        if *known.ok_or(ErrorCode::VoterNotFound)? == voter {
            return Ok(());
        }
        let id = voter.id;
        let learners = self.learner_ids().await?;
        let end = self.write_voters(epoch, &voters.with(voter), learners, None)?;
        tracing::info!(voter = %id, "a voter of the metadata quorum listens elsewhere now");
        self.await_commit(epoch, end, deadline).await
    }

    /// Makes the voters of the configuration those of the log, `kraft.version` 1, from which on they can change.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER; REQUEST_TIMED_OUT while another change is under way, or when no majority has it in time;
    /// INVALID_UPDATE_VERSION where a voter has not said its directory and where it listens; KAFKA_STORAGE_ERROR
    /// without space.
    pub(super) async fn make_dynamic(&self, timeout: Duration) -> Result<(), ErrorCode> {
        let deadline = Instant::now() + timeout;
        let _changing = self.changing.try_lock().map_err(|_| ErrorCode::RequestTimedOut)?;
        let epoch = self.log.leading().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let (voters, settled_at) = self.log.voters_and_settled();
        if voters.is_dynamic {
            return Ok(());
        }
        if self.committed() < settled_at {
            return Err(ErrorCode::RequestTimedOut);
        }
        let own = &self.log.params().own;
        let told = self.told.lock().clone();
        let voter =
            |id: BrokerId| if id == own.id { Some(own.clone()) } else { told.get(&id).cloned() };
        let known: Option<Vec<Voter>> = voters.ids().map(voter).collect();
        let set = VoterSet::dynamic(known.ok_or(ErrorCode::InvalidUpdateVersion)?);
        let version = KRaftVersionRecord { version: 0, k_raft_version: 1 };
        let end = self.write_voters(epoch, &set, BTreeSet::new(), Some(version))?;
        tracing::info!("the voters of the metadata quorum can be changed from now on");
        self.await_commit(epoch, end, deadline).await
    }

    /// Has another voter elected: this leader beats no more and takes no records until one is, or for three seconds.
    pub(super) async fn abdicate(self: &Arc<Self>, transport: Arc<dyn RaftTransport>) {
        let Some(epoch) = self.log.leading() else { return };
        self.is_abdicating.store(true, Ordering::Release);
        self.contact.lock().give_up();
        self.suspend(epoch);
        elections::end_epoch(self, transport, epoch).await;
        let deadline = Instant::now() + SUCCESSION_MAX;
        while self.log.leading() == Some(epoch) && Instant::now() < deadline {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        // Where nobody could be elected, it goes on as one that has its majority back.
        self.is_abdicating.store(false, Ordering::Release);
        self.alarm.notify_one();
    }
}
