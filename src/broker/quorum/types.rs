//! The metadata quorum in openraft's terms: an entry is one record batch of `__cluster_metadata`, its term the batch's
//! leader epoch, its index the batch's ordinal. Node ids are `node.id`.

use super::runtime::QuorumRuntime;
use super::voter_set::{VoterSet, voters_of};
use bytes::Bytes;
use openraft::entry::{FromAppData, RaftEntry, RaftPayload};
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use openraft::{CommittedLeaderId, EmptyNode, LeaderId, LogId, Membership, RaftLogId, Vote};
use ottla_protocol::batch::{BatchError, BatchHeader};
use ottla_protocol::{BrokerId, LeaderEpoch, Offset};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

openraft::declare_raft_types!(
    /// What openraft is told of our types.
    pub(super) Types:
        D = Batch,
        R = (),
        NodeId = i32,
        Node = EmptyNode,
        Entry = QuorumEntry,
        SnapshotData = SnapshotFile,
        Responder = Unwaited,
        AsyncRuntime = QuorumRuntime,
);

/// openraft at work.
pub(super) type Raft = openraft::Raft<Types>;
/// Voters, as openraft keeps them.
pub(super) type Voters = Membership<i32, EmptyNode>;

/// A whole record batch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    /// Its header.
    pub header: BatchHeader,
    /// All of it.
    pub bytes: Bytes,
    /// The voters that it sets.
    pub voters: Option<Arc<VoterSet>>,
    /// Those whom its leader lets follow without a vote. Nobody else needs to know: not in the log.
    pub learners: BTreeSet<BrokerId>,
}

impl Batch {
    /// The one batch that `bytes` are.
    pub fn parse(bytes: Bytes) -> Result<Batch, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        if header.size() != bytes.len() || header.last_offset_delta < 0 {
            let (size, have) = (header.size(), bytes.len());
            return Err(BatchError::Invalid(format!("a batch of {size} bytes in {have}")));
        }
        Batch::of(header, bytes)
    }
}

impl Batch {
    /// The batch with this header.
    pub fn of(header: BatchHeader, bytes: Bytes) -> Result<Batch, BatchError> {
        let voters = voters_of(&header, &bytes)?;
        Ok(Batch { header, bytes, voters, learners: BTreeSet::new() })
    }
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Payload {
    /// An epoch begins: the log makes a LeaderChange batch of it.
    EpochStart,
    /// A batch of the log.
    Batch(Batch),
}

/// An entry of openraft's log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct QuorumEntry {
    /// Leader epoch and ordinal.
    pub log_id: LogId<i32>,
    /// The batch.
    pub payload: Payload,
    /// The voters that it sets.
    pub voters: Option<Voters>,
}

impl QuorumEntry {
    /// The entry that a batch is.
    pub fn of(log_id: LogId<i32>, batch: Batch) -> QuorumEntry {
        let voters = batch.voters.as_ref().map(|voters| voters.membership(&batch.learners));
        QuorumEntry { log_id, payload: Payload::Batch(batch), voters }
    }

    /// Where the entry ends in the log, once it lies there.
    pub fn end_offset(&self) -> Option<Offset> {
        match &self.payload {
            Payload::EpochStart => None,
            Payload::Batch(batch) => Some(batch.header.next_offset()),
        }
    }
}

impl fmt::Display for QuorumEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.log_id)
    }
}

impl RaftPayload<i32, EmptyNode> for QuorumEntry {
    fn is_blank(&self) -> bool {
        self.payload == Payload::EpochStart && self.voters.is_none()
    }

    fn get_membership(&self) -> Option<&Voters> {
        self.voters.as_ref()
    }
}

impl RaftLogId<i32> for QuorumEntry {
    fn get_log_id(&self) -> &LogId<i32> {
        &self.log_id
    }

    fn set_log_id(&mut self, log_id: &LogId<i32>) {
        self.log_id = *log_id;
    }
}

impl RaftEntry<i32, EmptyNode> for QuorumEntry {
    fn new_blank(log_id: LogId<i32>) -> Self {
        QuorumEntry { log_id, payload: Payload::EpochStart, voters: None }
    }

    fn new_membership(log_id: LogId<i32>, voters: Voters) -> Self {
        QuorumEntry { log_id, payload: Payload::EpochStart, voters: Some(voters) }
    }
}

impl FromAppData<Batch> for QuorumEntry {
    fn from_app_data(batch: Batch) -> Self {
        QuorumEntry::of(LogId::default(), batch)
    }
}

/// The bytes of a `.checkpoint` file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SnapshotFile {
    /// The offset after the last record in it.
    pub end_offset: Offset,
    /// The file.
    pub bytes: Bytes,
}

/// Nobody waits for a proposal's fate: the host looks at what is committed, and at who leads.
#[derive(Debug)]
pub(super) struct Unwaited;

impl Responder<Types> for Unwaited {
    type Receiver = ();

    fn from_app_data(batch: Batch) -> (Batch, Self, ()) {
        (batch, Unwaited, ())
    }

    fn send(self, _result: ClientWriteResult<Types>) {}
}

/// The log id of a batch.
pub(super) fn log_id(epoch: LeaderEpoch, index: u64) -> LogId<i32> {
    LogId::new(CommittedLeaderId::new(term_of(epoch), 0), index)
}

/// A leader epoch as a term. Epochs of a log are not negative.
pub(super) fn term_of(epoch: LeaderEpoch) -> u64 {
    u64::try_from(epoch.0).unwrap_or(0)
}

/// A term as a leader epoch; one that no epoch can be is refused where it comes in.
pub(super) fn epoch_of(term: u64) -> LeaderEpoch {
    LeaderEpoch(i32::try_from(term).unwrap_or(i32::MAX))
}

/// The epoch of a log id.
pub(super) fn epoch_of_id(id: &LogId<i32>) -> LeaderEpoch {
    epoch_of(id.leader_id.term)
}

/// A vote, or a leader's claim where it is `committed`.
pub(super) fn vote(epoch: LeaderEpoch, voted_for: Option<BrokerId>, committed: bool) -> Vote<i32> {
    let leader_id = LeaderId { term: term_of(epoch), voted_for: voted_for.map(|id| id.0) };
    Vote { leader_id, committed }
}
