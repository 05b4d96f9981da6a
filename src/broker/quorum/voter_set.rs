//! The voters of the quorum: those of the configuration, which never change (`kraft.version` 0), or those of the newest
//! VotersRecord in the log (`kraft.version` 1).
//!
//! A set counts from the moment in which its record is in the log, committed or not, as in Raft; sets that follow each
//! other differ by one voter, so that their majorities meet. Source: KIP-853.

use super::types::Voters;
use crate::broker::Address;
use bytes::Bytes;
use ottla_protocol::BrokerId;
use ottla_protocol::batch::{BatchError, BatchHeader};
use ottla_protocol::messages::{VotersRecord, voters_record};
use ottla_protocol::record::decode_records;
use ottla_protocol::records::control::ControlRecord;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use uuid::Uuid;

/// A control batch of the metadata log is small; more than this is none.
const CONTROL_BYTES_MAX: usize = 16 << 20;

/// A listener of a voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoterEndpoint {
    /// The listener's name.
    pub name: String,
    /// Host and port.
    pub address: Address,
}

/// One voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// `node.id`.
    pub id: BrokerId,
    /// Id of the directory of its metadata log; nil where nobody has said it.
    pub directory_id: Uuid,
    /// Where it listens for controllers.
    pub endpoints: Vec<VoterEndpoint>,
    /// The levels of `kraft.version` that it supports: lowest and highest.
    pub kraft_versions: (i16, i16),
}

impl Voter {
    /// A voter of the configuration.
    pub fn fixed(id: BrokerId) -> Voter {
        Voter { id, directory_id: Uuid::nil(), endpoints: Vec::new(), kraft_versions: (0, 0) }
    }

    /// Where it listens: on the listener of that name, or on its first.
    pub fn address(&self, listener: &str) -> Option<&Address> {
        let named = self.endpoints.iter().find(|endpoint| endpoint.name == listener);
        named.or_else(|| self.endpoints.first()).map(|endpoint| &endpoint.address)
    }

    fn from_record(record: &voters_record::Voter) -> Voter {
        let endpoint = |endpoint: &voters_record::Endpoint| VoterEndpoint {
            name: endpoint.name.clone(),
            address: (endpoint.host.clone(), endpoint.port),
        };
        let versions = &record.k_raft_version_feature;
        Voter {
            id: BrokerId(record.voter_id),
            directory_id: record.voter_directory_id,
            endpoints: record.endpoints.iter().map(endpoint).collect(),
            kraft_versions: (versions.min_supported_version, versions.max_supported_version),
        }
    }

    fn to_record(&self) -> voters_record::Voter {
        let endpoint = |endpoint: &VoterEndpoint| voters_record::Endpoint {
            name: endpoint.name.clone(),
            host: endpoint.address.0.clone(),
            port: endpoint.address.1,
        };
        voters_record::Voter {
            voter_id: self.id.0,
            voter_directory_id: self.directory_id,
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            k_raft_version_feature: voters_record::KRaftVersionFeature {
                min_supported_version: self.kraft_versions.0,
                max_supported_version: self.kraft_versions.1,
            },
        }
    }
}

/// All voters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VoterSet {
    /// Whether a record of the log names them, so that another can change them.
    pub is_dynamic: bool,
    voters: BTreeMap<BrokerId, Voter>,
}

impl VoterSet {
    /// Those of the configuration; nobody where the node is to join a quorum.
    pub fn fixed(ids: impl IntoIterator<Item = BrokerId>) -> VoterSet {
        let voters = ids.into_iter().map(|id| (id, Voter::fixed(id))).collect();
        VoterSet { is_dynamic: false, voters }
    }

    /// Those that `voters` are, from now on by records of the log.
    pub fn dynamic(voters: impl IntoIterator<Item = Voter>) -> VoterSet {
        let voters = voters.into_iter().map(|voter| (voter.id, voter)).collect();
        VoterSet { is_dynamic: true, voters }
    }

    /// Those of a record.
    pub fn from_record(record: &VotersRecord) -> VoterSet {
        VoterSet::dynamic(record.voters.iter().map(Voter::from_record))
    }

    /// The record that names them.
    pub fn to_record(&self) -> ControlRecord {
        let voters = self.voters.values().map(Voter::to_record).collect();
        ControlRecord::Voters(VotersRecord { version: 0, voters })
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Voter> {
        self.voters.values()
    }

    /// Their ids.
    pub fn ids(&self) -> impl Iterator<Item = BrokerId> {
        self.voters.keys().copied()
    }

    /// One of them.
    pub fn get(&self, id: BrokerId) -> Option<&Voter> {
        self.voters.get(&id)
    }

    /// Whether the node is one of them, with this directory.
    pub fn has(&self, id: BrokerId, directory_id: Uuid) -> bool {
        let is_it = |voter: &Voter| {
            let known = voter.directory_id;
            known.is_nil() || directory_id.is_nil() || known == directory_id
        };
        self.get(id).is_some_and(is_it)
    }

    /// Whether this node is all there are.
    pub fn is_only(&self, id: BrokerId) -> bool {
        self.voters.len() == 1 && self.voters.contains_key(&id)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.voters.len()
    }

    /// The same with one more, or with one as it is now.
    pub fn with(&self, voter: Voter) -> VoterSet {
        let mut set = self.clone();
        set.voters.insert(voter.id, voter);
        set
    }

    /// The same without one.
    pub fn without(&self, id: BrokerId) -> VoterSet {
        let mut set = self.clone();
        set.voters.remove(&id);
        set
    }

    /// The set as openraft has it, with those who follow without a vote.
    pub(super) fn membership(&self, learners: &BTreeSet<BrokerId>) -> Voters {
        let voters: BTreeSet<i32> = self.ids().map(|id| id.0).collect();
        if voters.is_empty() {
            return Voters::default();
        }
        let learners: BTreeSet<i32> = learners.iter().map(|id| id.0).collect();
        Voters::new(vec![voters], learners)
    }
}

/// The voters that a control batch sets, if it does.
///
/// # Errors
/// It is damaged.
pub(super) fn voters_of(
    header: &BatchHeader,
    batch: &Bytes,
) -> Result<Option<Arc<VoterSet>>, BatchError> {
    if !header.is_control() {
        return Ok(None);
    }
    let mut found = None;
    for record in decode_records(header, batch, CONTROL_BYTES_MAX)? {
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        let record = ControlRecord::decode(&key, &value)
            .map_err(|cause| BatchError::Invalid(cause.to_string()))?;
        if let ControlRecord::Voters(voters) = record {
            found = Some(Arc::new(VoterSet::from_record(&voters)));
        }
    }
    Ok(found)
}

/// The newest set and those that the log may go back to.
#[derive(Debug)]
pub(super) struct VoterHistory {
    base: Arc<VoterSet>,
    /// By the ordinal of the batch that sets them.
    changes: VecDeque<(u64, Arc<VoterSet>)>,
}

impl VoterHistory {
    /// Those who vote as long as the log names nobody else.
    pub fn new(base: VoterSet) -> VoterHistory {
        VoterHistory { base: Arc::new(base), changes: VecDeque::new() }
    }

    /// Those who vote now.
    pub fn latest(&self) -> &Arc<VoterSet> {
        self.changes.back().map_or(&self.base, |(_, set)| set)
    }

    /// The ordinal of the batch that set them; `None` where that is not in the log any more.
    pub fn latest_index(&self) -> Option<u64> {
        self.changes.back().map(|(index, _)| *index)
    }

    /// The batch `index` sets them.
    pub fn push(&mut self, index: u64, set: Arc<VoterSet>) {
        self.changes.push_back((index, set));
    }

    /// Those who vote where the log names nobody.
    pub fn set_base(&mut self, base: VoterSet) {
        self.base = Arc::new(base);
    }

    /// The batches from `index` on are gone; answers whether that changes anything.
    pub fn truncate(&mut self, index: u64) -> bool {
        let before = self.changes.len();
        self.changes.retain(|(at, _)| *at < index);
        self.changes.len() < before
    }

    /// The batches up to `index` are committed, and will not be asked for.
    pub fn purge(&mut self, index: u64) {
        while let Some((_, set)) = self.changes.pop_front_if(|(at, _)| *at <= index) {
            self.base = set;
        }
    }
}
