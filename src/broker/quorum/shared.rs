//! What the tasks of one voter share.

use super::applied::Applied;
use super::changes::Learner;
use super::elections::LeaderContact;
use super::log::MetadataLog;
use super::types::{Batch, Raft};
use super::voter_set::Voter;
use super::{QuorumError, QuorumListener, QuorumStatus, VoterStatus};
use crate::machines::metadata::{Controller, Image};
use ottla_protocol::{BrokerId, LeaderEpoch, Offset, Timestamp};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI16, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// Who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaderAndEpoch {
    /// The leader, while one is known.
    pub leader: Option<BrokerId>,
    /// The newest epoch that this voter has seen.
    pub epoch: LeaderEpoch,
}

/// What a leader has written and what it thinks of it.
#[derive(Default)]
struct Proposals {
    /// Written and not proposed yet.
    written: Vec<Batch>,
    /// The state at the end of each proposal, until that is committed.
    images: VecDeque<(Offset, Image)>,
}

/// What the leader knows of another voter.
#[derive(Debug, Clone, Copy)]
struct Contact {
    last_fetch: Timestamp,
    last_caught_up: Timestamp,
}

/// The middle of a voter.
pub(super) struct Shared {
    pub log: MetadataLog,
    pub applied: Mutex<Applied>,
    pub moved: Notify,
    pub leader: watch::Sender<LeaderAndEpoch>,
    pub contact: Mutex<LeaderContact>,
    /// Wakes the elections before their time.
    pub alarm: Notify,
    /// Those who follow this leader without a vote.
    pub learners: Mutex<Vec<Learner>>,
    /// With which directories those are in the newest entry.
    pub let_in: Mutex<BTreeMap<BrokerId, Uuid>>,
    /// What voters of the configuration have said of themselves.
    pub told: Mutex<BTreeMap<BrokerId, Voter>>,
    /// Held while the voters are changed.
    pub changing: tokio::sync::Mutex<()>,
    /// The snapshot that is being received.
    pub incoming: Mutex<Option<super::receive::Incoming>>,
    committed: AtomicI64,
    metadata_version: AtomicI16,
    proposals: Mutex<Proposals>,
    listener: Mutex<Option<Weak<dyn QuorumListener>>>,
    raft: OnceLock<Raft>,
    contacts: Mutex<BTreeMap<BrokerId, Contact>>,
    failure: Mutex<Option<String>>,
    is_stalled: AtomicBool,
    /// This leader hears no majority, and has given its controller up.
    is_suspended: AtomicBool,
    /// This leader wants another one to be elected.
    pub is_abdicating: AtomicBool,
    is_closing: AtomicBool,
}

/// Hands a batch to openraft.
fn send(raft: &Raft, batch: Batch) {
    // Only the answer of an openraft that has stopped is waited for, which `watch_raft` sees as well.
    let sent = pin!(raft.client_write_ff(batch));
    let _ = sent.poll(&mut Context::from_waker(Waker::noop()));
}

impl Shared {
    /// Of an open log.
    pub fn new(log: MetadataLog, applied: Applied) -> Shared {
        let epoch = log.ballot().epoch;
        Shared {
            log,
            applied: Mutex::new(applied),
            moved: Notify::new(),
            leader: watch::Sender::new(LeaderAndEpoch { leader: None, epoch }),
            contact: Mutex::new(LeaderContact::none()),
            alarm: Notify::new(),
            learners: Mutex::default(),
            let_in: Mutex::default(),
            told: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
            incoming: Mutex::new(None),
            committed: AtomicI64::new(0),
            metadata_version: AtomicI16::new(0),
            proposals: Mutex::default(),
            listener: Mutex::new(None),
            raft: OnceLock::new(),
            contacts: Mutex::default(),
            failure: Mutex::new(None),
            is_stalled: AtomicBool::new(false),
            is_suspended: AtomicBool::new(false),
            is_abdicating: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
        }
    }

    /// Takes the one who is told of everything.
    pub fn listen(&self, listener: &Arc<dyn QuorumListener>) {
        *self.listener.lock() = Some(Arc::downgrade(listener));
    }

    /// Who is told, until the quorum is closed.
    pub fn listener(&self) -> Option<Arc<dyn QuorumListener>> {
        self.listener.lock().as_ref().and_then(Weak::upgrade)
    }

    /// openraft has begun.
    pub fn set_raft(&self, raft: Raft) {
        // A quorum is started once.
        let _ = self.raft.set(raft);
    }

    /// openraft, once it has begun.
    pub fn raft(&self) -> Option<&Raft> {
        self.raft.get()
    }

    /// Keeps a batch that was written until it is proposed.
    pub fn hold(&self, batch: Batch) {
        self.proposals.lock().written.push(batch);
    }

    /// Keeps a control batch that was written; it goes with what the host proposes next, or at once where nothing of
    /// the host's is before it. Called while the log cannot be written otherwise.
    pub fn hold_control(&self, batch: Batch) {
        let mut proposals = self.proposals.lock();
        if !proposals.written.is_empty() {
            proposals.written.push(batch);
        } else if let Some(raft) = self.raft.get() {
            send(raft, batch);
        }
    }

    /// Hands what was written to openraft, in order, while the epoch lasts: openraft refuses it before it can begin
    /// another, since the election is asked for later through the same queue.
    pub fn propose(&self, epoch: LeaderEpoch, image: Image) {
        self.log.while_leading(epoch, || {
            let mut proposals = self.proposals.lock();
            let Proposals { written, images } = &mut *proposals;
            let Some(raft) = self.raft.get() else { return };
            for batch in written.drain(..) {
                images.push_back((batch.header.next_offset(), image.clone()));
                send(raft, batch);
            }
        });
    }

    /// The state of a proposal that is committed now.
    pub fn image_of(&self, end: Offset) -> Option<Image> {
        let mut proposals = self.proposals.lock();
        while proposals.images.front().is_some_and(|(offset, _)| *offset < end) {
            proposals.images.pop_front();
        }
        let is_here = proposals.images.front().is_some_and(|(offset, _)| *offset == end);
        if is_here { proposals.images.pop_front().map(|(_, image)| image) } else { None }
    }

    /// Everything below `end` is committed.
    pub fn commit(&self, end: Offset) {
        self.committed.fetch_max(end.0, Ordering::AcqRel);
        self.moved.notify_waiters();
    }

    /// Below it everything is committed, applied and published.
    pub fn committed(&self) -> Offset {
        Offset(self.committed.load(Ordering::Acquire))
    }

    /// The finalized `metadata.version`.
    pub fn metadata_version(&self) -> i16 {
        self.metadata_version.load(Ordering::Acquire)
    }

    /// Takes it.
    pub fn set_metadata_version(&self, version: i16) {
        self.metadata_version.store(version, Ordering::Release);
    }

    /// This node leads, and its epoch's first batch is committed.
    pub fn lead(&self, epoch: LeaderEpoch, controller: Controller, end: Offset) {
        if let Some(listener) = self.listener() {
            listener.lead(epoch, controller, end);
        }
        self.moved.notify_waiters();
    }

    /// This node has lost the leadership of `epoch`.
    pub fn resigned(&self, epoch: LeaderEpoch) {
        *self.proposals.lock() = Proposals::default();
        self.contacts.lock().clear();
        self.learners.lock().clear();
        self.let_in.lock().clear();
        self.told.lock().clear();
        self.is_suspended.store(false, Ordering::Release);
        if let Some(listener) = self.listener() {
            listener.resign(epoch);
        }
        self.moved.notify_waiters();
    }

    /// A leader that hears no majority can commit nothing: its controller is given up, so that callers are told, and
    /// begins again in the same epoch once a majority is back and has everything.
    pub fn heed_majority(&self, raft: &Raft) {
        let Some(epoch) = self.log.leading() else { return };
        let silence_ms = raft.metrics().borrow().millis_since_quorum_ack.unwrap_or(0);
        let limit = self.log.params().timing.election_timeout_max;
        if u128::from(silence_ms) > limit.as_millis() {
            if self.suspend(epoch) {
                tracing::warn!(%epoch, silence_ms, "no majority of the metadata quorum answers");
            }
            return;
        }
        if !self.is_suspended() {
            return;
        }
        // Whoever applies publishes too, which may take its time: there is another beat.
        let Some(mut applied) = self.applied.try_lock() else { return };
        // One that had begun just when it was to be given up writes no more from here on: what it wrote is applied
        // before another one begins, for two would each make Images without the other's records.
        if let Some(listener) = self.listener() {
            listener.resign(epoch);
        }
        if applied.end() == self.log.log_end_offset() {
            self.is_suspended.store(false, Ordering::Release);
            applied.lead(self, epoch);
        }
    }

    /// Whether this leader's controller is given up for now.
    pub fn is_suspended(&self) -> bool {
        self.is_suspended.load(Ordering::Acquire)
    }

    /// Gives this leader's controller up for now; answers whether that is new.
    pub fn suspend(&self, epoch: LeaderEpoch) -> bool {
        let is_new = !self.is_suspended.swap(true, Ordering::AcqRel);
        if is_new && let Some(listener) = self.listener() {
            listener.resign(epoch);
        }
        is_new
    }

    /// The directory of a node that this one sends to; nil where it is not known. Of one without a vote it is the one
    /// that was let in, of which openraft knows what it has; another may have said since that it is there.
    pub fn directory_of(&self, id: BrokerId) -> Uuid {
        if let Some(voter) = self.log.voters().get(id) {
            return voter.directory_id;
        }
        self.let_in.lock().get(&id).copied().unwrap_or_default()
    }

    /// Whether this node has a vote.
    pub fn has_vote(&self) -> bool {
        let own = &self.log.params().own;
        self.log.voters().has(own.id, own.directory_id)
    }

    /// A snapshot was written here: openraft may forget what is before it.
    pub async fn note_snapshot(&self) {
        if let Some(raft) = self.raft.get() {
            // One that has stopped forgets nothing any more.
            let _ = raft.trigger().snapshot().await;
        }
    }

    /// Notes whether this voter waits for space; answers whether that is new.
    pub fn set_stalled(&self, is_stalled: bool) -> bool {
        self.is_stalled.swap(is_stalled, Ordering::AcqRel) != is_stalled
    }

    /// Whether this voter waits for space on its disk.
    pub fn is_stalled(&self) -> bool {
        self.is_stalled.load(Ordering::Acquire)
    }

    /// Whether the quorum is being closed.
    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Why openraft has stopped.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// The leader is gone: there may be an election at once.
    pub fn bury_leader(&self) {
        self.contact.lock().bury();
        self.alarm.notify_one();
    }

    /// The leader has been heard.
    pub fn hear_leader(&self) {
        self.contact.lock().hear();
    }

    /// Whether another node has answered this leader lately.
    pub fn hears(&self, id: BrokerId, within: Duration) -> bool {
        let now = self.log.params().clock.now().0;
        let contacts = self.contacts.lock();
        let within = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        contacts.get(&id).is_some_and(|contact| now - contact.last_fetch.0 < within)
    }

    /// Another voter has answered this leader, and has everything up to `end`.
    pub fn hear_voter(&self, voter: BrokerId, end: Option<Offset>) {
        let now = self.log.params().clock.now();
        let is_caught_up = end.is_some_and(|end| end >= self.log.log_end_offset());
        let mut contacts = self.contacts.lock();
        let contact = contacts
            .entry(voter)
            .or_insert(Contact { last_fetch: now, last_caught_up: Timestamp::NONE });
        contact.last_fetch = now;
        if is_caught_up {
            contact.last_caught_up = now;
        }
    }

    /// Follows openraft: who leads, and whether it has stopped.
    pub async fn watch_raft(self: Arc<Self>, raft: Raft) {
        let mut changes = raft.server_metrics();
        loop {
            let seen = {
                let metrics = changes.borrow_and_update();
                LeaderAndEpoch {
                    leader: metrics.current_leader.map(BrokerId),
                    epoch: super::types::epoch_of(metrics.vote.leader_id.term),
                }
            };
            let is_new = self.leader.send_if_modified(|known| {
                let is_new = *known != seen;
                *known = seen;
                is_new
            });
            if is_new {
                if let Some(leader) = seen.leader
                    && self.log.voters().count() > 1
                {
                    tracing::info!(%leader, epoch = %seen.epoch, "leader of the metadata quorum");
                }
                self.alarm.notify_one();
            }
            if changes.changed().await.is_err() {
                break;
            }
        }
        if self.is_closing() {
            return;
        }
        let cause = match &raft.metrics().borrow().running_state {
            Ok(()) => "its task ended".to_owned(),
            Err(fatal) => fatal.to_string(),
        };
        tracing::error!(dir = %self.log.dir().display(), %cause, "the metadata quorum has stopped");
        *self.failure.lock() = Some(cause);
        self.log.params().health.take_offline();
        let led = self.log.fail();
        self.resigned(led.unwrap_or(LeaderEpoch::UNKNOWN));
    }

    /// What is known of all voters.
    pub fn status(&self) -> QuorumStatus {
        let params = self.log.params();
        let now = params.clock.now();
        let LeaderAndEpoch { leader, epoch } = *self.leader.borrow();
        let log_end_offset = self.log.log_end_offset();
        let replication =
            self.raft.get().and_then(|raft| raft.metrics().borrow().replication.clone());
        let contacts = self.contacts.lock();
        let status = |id: BrokerId, directory_id: Uuid| {
            if id == params.node_id() {
                let (last_fetch, last_caught_up) = match leader == Some(id) {
                    true => (now, now),
                    false => (Timestamp::NONE, Timestamp::NONE),
                };
                return VoterStatus {
                    id,
                    directory_id,
                    log_end_offset,
                    last_fetch,
                    last_caught_up,
                };
            }
            let matched = replication.as_ref().and_then(|all| *all.get(&id.0)?);
            let end = matched.and_then(|matched| self.log.end_of(matched.index));
            let contact = contacts.get(&id);
            VoterStatus {
                id,
                directory_id,
                log_end_offset: end.unwrap_or(Offset::UNKNOWN),
                last_fetch: contact.map_or(Timestamp::NONE, |contact| contact.last_fetch),
                last_caught_up: contact.map_or(Timestamp::NONE, |contact| contact.last_caught_up),
            }
        };
        let set = self.log.voters();
        let learners = self.learners.lock();
        QuorumStatus {
            leader_id: leader.unwrap_or(BrokerId(-1)),
            leader_epoch: epoch,
            high_watermark: self.committed(),
            log_end_offset,
            voters: set.iter().map(|voter| status(voter.id, voter.directory_id)).collect(),
            learners: learners
                .iter()
                .map(|it| status(it.voter.id, it.voter.directory_id))
                .collect(),
            is_dynamic: set.is_dynamic,
        }
    }

    /// Nobody is told any more, and nothing waits for space.
    pub fn begin_closing(&self) {
        self.is_closing.store(true, Ordering::Release);
        *self.listener.lock() = None;
    }

    /// Ends openraft.
    pub async fn stop_raft(&self) {
        if let Some(raft) = self.raft.get() {
            // It may have stopped by itself.
            let _ = raft.shutdown().await;
        }
    }

    /// Waits for what is being applied, and closes the log.
    pub fn close_log(&self) -> Result<(), QuorumError> {
        let _applied = self.applied.lock();
        self.log.close()
    }
}
