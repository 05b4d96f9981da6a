//! The metadata quorum: the log `__cluster_metadata`, its snapshots and the file `quorum-state`, agreed among the
//! voters of `controller.quorum.voters` by Raft.
//!
//! Consensus is openraft's (decision 7); one voter alone goes the same way. Files are KRaft's: a LeaderChange control
//! batch opens every epoch, snapshots are `<end offset>-<epoch>.checkpoint` with header and footer records. Not here:
//! the machine that decides (`metadata.rs`, `host.rs`), and the connections (a [`RaftTransport`]). Source: KIP-595,
//! KIP-630.
//!
//! Invariant: nothing is reported committed before `fdatasync` of the log has returned on a majority; a vote is durable
//! before it is answered; after a failed write or sync the quorum takes no more records. A write that found no space
//! has left the log as it was, and refuses its records alone.

mod announce;
mod applied;
mod ballot;
mod changes;
mod codec;
mod elections;
mod index;
mod log;
mod network;
mod raft_log;
mod receive;
mod runtime;
mod shared;
mod types;
mod voter_set;

pub(super) use applied::{VoterRecords, replay_batch, take_voters};
pub use changes::Answered;
pub use elections::QuorumTiming;
pub use network::{BoxFuture, RaftTransport, TransportError};
pub use shared::LeaderAndEpoch;
pub use voter_set::{Voter, VoterEndpoint, VoterSet};

use super::dir_health::DirHealth;
use super::host::HostError;
use super::replay::ReplayError;
use super::snapshots::{self, SnapshotId};
use super::{Bootstrap, ControllerAddresses};
use crate::env::{Clock, Disk};
use crate::log::{AppendError, LogConfig, LogSlice, ReadError, RecoveryError, StorageError};
use crate::machines::metadata::{Controller, ControllerSettings, Image, record_version};
use applied::{Applied, Applier};
use bytes::Bytes;
pub(super) use log::open_log;
use log::{MetadataLog, WriteError};
use network::Network;
use openraft::{Config, SnapshotPolicy};
use ottla_protocol::record::{BatchBuilder, BatchParams};
use ottla_protocol::records::metadata::encode_metadata_record;
use ottla_protocol::{BrokerId, ErrorCode, LeaderEpoch, MetadataRecord, Offset, Timestamp};
use parking_lot::Mutex;
use raft_log::RaftLog;
use shared::Shared;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use types::Raft;
use uuid::Uuid;

/// Directory of the metadata log below `metadata.log.dir`.
pub const METADATA_DIR: &str = "__cluster_metadata-0";

/// Entries in one message to a follower; its bytes are bounded too.
const SEND_ENTRIES_MAX: u64 = 10_000;
/// Entries that stay after a snapshot, for voters that are a little behind.
const KEPT_ENTRIES: u64 = 1000;
/// How long a change of the voters may take that somebody asks for who says nothing of it; Kafka's
/// `controller.quorum.request.timeout.ms`.
const CHANGE_MAX: Duration = Duration::from_secs(2);
/// Longest wait for a node that is to catch up before it gets a vote.
const ADD_MAX: Duration = Duration::from_secs(600);

/// Why the metadata log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// It cannot be opened.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// It cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// It cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Its files cannot be synced, deleted or closed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file beside it cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `quorum-state`, or the file beside a snapshot, is no such file.
    #[error("{path}: {cause}", path = path.display())]
    State {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// An entry does not fit the log.
    #[error("metadata log at offset {offset}: {cause}")]
    Entry {
        /// Where the log ends.
        offset: Offset,
        /// What is wrong.
        cause: String,
    },
    /// Consensus has stopped; the reason.
    #[error("the metadata quorum has stopped: {0}")]
    Stopped(String),
}

impl QuorumError {
    /// The disk has no space for it, and nothing else is wrong.
    pub(super) fn is_storage_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            QuorumError::Storage(error) | QuorumError::Append(AppendError::Storage(error)) => {
                error.is_storage_full()
            }
            QuorumError::File { source, .. } => {
                matches!(source.kind(), StorageFull | QuotaExceeded)
            }
            _ => false,
        }
    }

    /// A file operation failed.
    fn is_of_the_disk(&self) -> bool {
        matches!(
            self,
            QuorumError::Storage(_)
                | QuorumError::Append(AppendError::Storage(_))
                | QuorumError::File { .. }
        )
    }
}

/// What the quorum needs to be opened.
#[derive(Debug, Clone)]
pub struct QuorumParams {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// `metadata.log.dir`.
    pub dir: PathBuf,
    /// Whether that takes records.
    pub health: Arc<DirHealth>,
    /// This node, with its directory and its listeners.
    pub own: Voter,
    /// The voters of the configuration, which count as long as the log names none; nobody where this node is to join a
    /// quorum.
    pub voters: VoterSet,
    /// Which of a voter's listeners is dialled, where it has it.
    pub listener: String,
    /// Where the others listen: the quorum notes what it learns.
    pub addresses: ControllerAddresses,
    /// Where the quorum is looked for that knows no voter.
    pub bootstrap: Bootstrap,
    /// What a machine that replays the log is made with.
    pub controller: ControllerSettings,
    /// `metadata.log.segment.bytes` and its kin.
    pub log: Arc<LogConfig>,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub snapshot_bytes: u64,
    /// Heartbeats and elections.
    pub timing: QuorumTiming,
}

impl QuorumParams {
    /// This node.
    pub fn node_id(&self) -> BrokerId {
        self.own.id
    }
}

/// Whom a quorum tells of what is committed and of its own leadership.
pub trait QuorumListener: Send + Sync + 'static {
    /// Everything up to the image's offset is committed. Called in order, on a thread that may wait, before anything
    /// else learns of the commit.
    fn publish(&self, image: Arc<Image>);

    /// This node leads from now on, and `controller` has replayed everything below `end`, which is committed.
    fn lead(&self, epoch: LeaderEpoch, controller: Controller, end: Offset);

    /// It leads no more: what was appended in `epoch` and is not committed may never be.
    fn resign(&self, epoch: LeaderEpoch);
}

/// One voter of the metadata quorum.
pub struct Quorum {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    transport: Mutex<Option<Arc<dyn RaftTransport>>>,
}

/// Where a voter stands, as its leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoterStatus {
    /// Which.
    pub id: BrokerId,
    /// Its directory; nil where nobody has said it.
    pub directory_id: Uuid,
    /// Its log's end; -1 where it is not known.
    pub log_end_offset: Offset,
    /// When it last answered; -1 for never, present time for the leader.
    pub last_fetch: Timestamp,
    /// When it last had all that the leader had.
    pub last_caught_up: Timestamp,
}

/// What `DescribeQuorum` tells of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumStatus {
    /// The leader; -1 while none is known.
    pub leader_id: BrokerId,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
    /// Below it everything is committed.
    pub high_watermark: Offset,
    /// The end of the log here.
    pub log_end_offset: Offset,
    /// All voters; of the others only the leader knows.
    pub voters: Vec<VoterStatus>,
    /// Controllers that follow without a vote, as the leader knows.
    pub learners: Vec<VoterStatus>,
    /// Whether the voters can be changed.
    pub is_dynamic: bool,
}

impl Quorum {
    /// Opens the log, and the state that its newest snapshot holds. Nothing is applied before [`Quorum::start`].
    ///
    /// # Errors
    /// Every [`QuorumError`].
    pub fn open(params: QuorumParams) -> Result<Quorum, QuorumError> {
        let log = MetadataLog::open(params)?;
        let applied = Applied::open(&log)?;
        let snapshot_index = log.snapshot().map(|(_, last)| last.index);
        let shared = Arc::new(Shared::new(log, applied));
        let voters = shared.voters_in(shared.applied.lock().voters());
        shared.log.set_snapshot_voters(voters, snapshot_index);
        Ok(Quorum { shared, tasks: Mutex::default(), transport: Mutex::new(None) })
    }

    /// Begins to take part. Alone, this node elects itself at once. Whoever listens is not kept alive.
    ///
    /// # Errors
    /// `Stopped`: what lies in the log cannot be used.
    pub async fn start(
        &self,
        listener: Arc<dyn QuorumListener>,
        transport: Arc<dyn RaftTransport>,
    ) -> Result<(), QuorumError> {
        let shared = &self.shared;
        let params = shared.log.params();
        shared.listen(&listener);
        let voters = shared.log.voters();
        let is_alone = !voters.is_dynamic && voters.is_only(params.node_id());
        let config = Arc::new(Config {
            cluster_name: String::new(),
            snapshot_policy: SnapshotPolicy::Never,
            max_payload_entries: SEND_ENTRIES_MAX,
            max_in_snapshot_log_to_keep: if is_alone { 0 } else { KEPT_ENTRIES },
            // A voter that lacks what is in the log gets it from the log, however much that is.
            replication_lag_threshold: u64::MAX,
            ..QuorumTiming::config()
        });
        let network = Network { shared: Arc::clone(shared), transport: Arc::clone(&transport) };
        let (store, applier) = (RaftLog(Arc::clone(shared)), Applier(Arc::clone(shared)));
        let raft = Raft::new(params.node_id().0, config, network, store, applier).await;
        let raft = raft.map_err(|error| QuorumError::Stopped(error.to_string()))?;
        shared.set_raft(raft.clone());
        let watching = tokio::spawn(Arc::clone(shared).watch_raft(raft.clone()));
        self.tasks.lock().push(watching);
        *self.transport.lock() = Some(Arc::clone(&transport));
        let electing = elections::run(Arc::clone(shared), raft, Arc::clone(&transport));
        let announcing = announce::run(Arc::clone(shared), transport);
        self.tasks.lock().extend([tokio::spawn(electing), tokio::spawn(announcing)]);
        Ok(())
    }

    /// Writes records as one batch that `epoch` is to propose; answers the first one's offset. The batch is proposed by
    /// [`Quorum::propose`], which must follow before the next.
    ///
    /// # Errors
    /// Every [`HostError`]; the reason has been logged.
    pub fn append(
        &self,
        epoch: LeaderEpoch,
        now: Timestamp,
        records: &[MetadataRecord],
    ) -> Result<Offset, HostError> {
        let metadata_version = self.metadata_version();
        let build = |base_offset| {
            let mut batch = BatchBuilder::new(BatchParams {
                base_offset,
                leader_epoch: epoch,
                ..BatchParams::default()
            });
            for record in records {
                let version = record_version(record, metadata_version);
                batch.push(now, None, Some(&encode_metadata_record(record, version)), &[]);
            }
            batch.build().freeze()
        };
        let written =
            self.shared.log.write_ahead(epoch, build, |batch| self.shared.hold(batch.clone()));
        let dir = self.shared.log.dir().display();
        match written {
            Ok(batch) => Ok(batch.header.base_offset),
            Err(WriteError::NoSpace) => {
                tracing::warn!(%dir, "no space for metadata records");
                Err(HostError::NoSpace)
            }
            Err(WriteError::Failed(error)) => {
                if self.shared.log.is_failed() {
                    tracing::error!(%dir, %error, "metadata log failed");
                    // The caller drops its machine, and the directory's failure ends the broker.
                    self.shared.log.fail();
                }
                Err(HostError::NotActive)
            }
        }
    }

    /// Proposes what [`Quorum::append`] wrote; `image` is the state with it.
    pub fn propose(&self, epoch: LeaderEpoch, image: Image) {
        self.shared.propose(epoch, image);
    }

    /// The epoch that this node leads.
    pub fn leading(&self) -> Option<LeaderEpoch> {
        self.shared.log.leading()
    }

    /// The finalized `metadata.version`, in whose versions records are written.
    pub fn metadata_version(&self) -> i16 {
        self.shared.metadata_version()
    }

    /// Takes the finalized `metadata.version`.
    pub fn set_metadata_version(&self, version: i16) {
        self.shared.set_metadata_version(version);
    }

    /// Below it everything is committed, applied and published here.
    pub fn committed(&self) -> Offset {
        self.shared.committed()
    }

    /// Completes when [`Quorum::committed`] or [`Quorum::leading`] may have changed, counted from this call on.
    pub fn moved(&self) -> impl Future<Output = ()> + Send + '_ {
        self.shared.moved.notified()
    }

    /// Tells of changes of the leader.
    pub fn leader_changes(&self) -> watch::Receiver<LeaderAndEpoch> {
        self.shared.leader.subscribe()
    }

    /// The leader is known to be dead, its address refuses connections: an election need not wait for its silence, and
    /// this voter keeps to it no more.
    pub fn leader_is_dead(&self) {
        self.shared.bury_leader();
    }

    /// Why consensus has stopped, where it has.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Answers a message of another voter. Bytes that are none are answered by an error message.
    pub async fn receive(&self, message: Bytes) -> Bytes {
        receive::receive(&self.shared, message).await
    }

    /// Who votes.
    pub fn voters(&self) -> Arc<VoterSet> {
        self.shared.log.voters()
    }

    /// Tells of changes of the voters.
    pub fn voter_changes(&self) -> watch::Receiver<Arc<VoterSet>> {
        self.shared.log.voter_changes()
    }

    /// Gives a node a vote, once it has what this leader has.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER, UNSUPPORTED_VERSION (`kraft.version` 0), DUPLICATE_VOTER; REQUEST_TIMED_OUT while
    /// another change is under way, or when the node does not catch up in time; KAFKA_STORAGE_ERROR without space.
    pub async fn add_voter(
        &self,
        voter: Voter,
        answered: Answered,
        timeout: Duration,
    ) -> Result<(), ErrorCode> {
        self.shared.add_voter(voter, answered, timeout.min(ADD_MAX)).await
    }

    /// Takes a voter's vote. A leader whose own it is has another one elected, who is to be asked again.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER, UNSUPPORTED_VERSION, VOTER_NOT_FOUND; REQUEST_TIMED_OUT while another change is under
    /// way, or when no majority has it in time; INVALID_REQUEST for the last voter; KAFKA_STORAGE_ERROR without space.
    pub async fn remove_voter(&self, id: BrokerId, directory_id: Uuid) -> Result<(), ErrorCode> {
        let removed = self.shared.remove_voter(id, directory_id, CHANGE_MAX).await;
        let transport = self.transport.lock().clone();
        if removed == Err(ErrorCode::NotLeaderOrFollower)
            && id == self.shared.log.params().node_id()
            && let Some(transport) = transport
        {
            self.shared.abdicate(transport).await;
        }
        removed
    }

    /// Notes where a voter listens now, and what it supports.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER, UNSUPPORTED_VERSION, VOTER_NOT_FOUND; REQUEST_TIMED_OUT while another change is under
    /// way, or when no majority has it in time; KAFKA_STORAGE_ERROR without space.
    pub async fn update_voter(&self, voter: Voter) -> Result<(), ErrorCode> {
        self.shared.update_voter(voter, CHANGE_MAX).await
    }

    /// Makes the voters of the configuration those of the log (`kraft.version` 1), from which on they can change.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER; REQUEST_TIMED_OUT while another change is under way, or when no majority has it in time;
    /// INVALID_UPDATE_VERSION where a voter has not said its directory; KAFKA_STORAGE_ERROR without space.
    pub async fn make_dynamic(&self) -> Result<(), ErrorCode> {
        self.shared.make_dynamic(CHANGE_MAX).await
    }

    /// What `DescribeQuorum` tells.
    pub fn status(&self) -> QuorumStatus {
        self.shared.status()
    }

    /// Committed batches from the one that holds `offset` on, for those who follow without a vote.
    ///
    /// # Errors
    /// Every [`ReadError`].
    pub fn read(&self, offset: Offset, max_bytes: usize) -> Result<Option<LogSlice>, ReadError> {
        self.shared.log.read(offset, max_bytes, self.committed())
    }

    /// First offset of the log.
    pub fn log_start_offset(&self) -> Offset {
        self.shared.log.log_start_offset()
    }

    /// The newest snapshot.
    pub(super) fn newest_snapshot(&self) -> Option<SnapshotId> {
        self.shared.log.snapshot().map(|(id, _)| id)
    }

    /// Bytes of a snapshot from `position` on, at most `max_bytes`, and its whole size. Blocks for the disk.
    ///
    /// # Errors
    /// SNAPSHOT_NOT_FOUND, POSITION_OUT_OF_RANGE, KAFKA_STORAGE_ERROR.
    pub(super) fn snapshot_part(
        &self,
        id: SnapshotId,
        position: u64,
        max_bytes: usize,
    ) -> Result<(u64, Bytes), ErrorCode> {
        let disk = self.shared.log.params().disk.as_ref();
        snapshots::read_part(disk, self.shared.log.dir(), id, position, max_bytes)
    }

    /// Takes part no more, which a leader tells the others, then flushes and closes the log.
    ///
    /// # Errors
    /// The last bytes could not be made durable.
    pub async fn close(&self) -> Result<(), QuorumError> {
        self.shared.begin_closing();
        let transport = self.transport.lock().take();
        if let (Some(transport), Some(epoch)) = (transport, self.leading()) {
            elections::end_epoch(&self.shared, transport, epoch).await;
        }
        self.shared.stop_raft().await;
        let tasks: Vec<JoinHandle<()>> = self.tasks.lock().drain(..).collect();
        for task in tasks {
            task.abort();
            // One that was aborted says so.
            let _ = task.await;
        }
        let shared = Arc::clone(&self.shared);
        let closed = crate::env::blocking(move || shared.close_log()).await;
        closed.map_err(|error| QuorumError::Stopped(error.to_string()))?
    }
}

impl Drop for Quorum {
    fn drop(&mut self) {
        // After `close` there is nothing left to end; a start that failed ends here.
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.shared.begin_closing();
        if let Some(raft) = self.shared.raft().cloned()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                let _ = raft.shutdown().await;
            });
        }
    }
}

#[cfg(test)]
mod tests;
