//! The file `quorum-state`: the epoch that this voter stands in, and whom it gave its vote or follows there.
//!
//! Source: KIP-595, version 0 of QuorumStateData where the voters are those of the configuration; KIP-853, version 1
//! where the log names them, which says the directory of a candidate instead. A leader that is known
//! stands as `leaderId`, a vote for one that is not elected yet as `votedId`; Kafka knows no third case, nor does
//! openraft.

use super::QuorumError;
use super::types;
use super::voter_set::VoterSet;
use crate::env::Disk;
use openraft::Vote;
use ottla_protocol::{BrokerId, LeaderEpoch, uuid_to_text};
use serde_json::{Value, json};
use std::path::Path;
use uuid::Uuid;

/// The file's name.
const QUORUM_STATE: &str = "quorum-state";

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ballot {
    /// The newest epoch that this voter has seen.
    pub epoch: LeaderEpoch,
    /// Who got the vote, or leads.
    pub voted_for: Option<BrokerId>,
    /// The one named was elected.
    pub is_elected: bool,
}

impl Ballot {
    /// Of openraft's vote.
    pub fn of(vote: &Vote<i32>) -> Ballot {
        Ballot {
            epoch: types::epoch_of(vote.leader_id.term),
            voted_for: vote.leader_id.voted_for.map(BrokerId),
            is_elected: vote.committed,
        }
    }

    /// Whether this is the same vote as another, whatever became of whoever got it.
    pub fn is_vote_of(&self, other: &Ballot) -> bool {
        self.epoch == other.epoch && self.voted_for.is_some() && self.voted_for == other.voted_for
    }

    /// What openraft begins with. A leader that was restarted is none any more: Kafka's readers, and ours, go by one
    /// LeaderChange record an epoch, and what it knew of its followers is gone.
    pub fn at_start(self, node_id: BrokerId) -> Vote<i32> {
        let is_elected = self.is_elected && self.voted_for != Some(node_id);
        types::vote(self.epoch, self.voted_for, is_elected)
    }

    /// Reads the file; the default where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is no such file.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Ballot, QuorumError> {
        let path = dir.join(QUORUM_STATE);
        let bytes = match disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Ballot::default());
            }
            Err(source) => return Err(QuorumError::File { path, source }),
        };
        let state: Value = serde_json::from_slice(&bytes)
            .map_err(|error| QuorumError::State { path: path.clone(), cause: error.to_string() })?;
        let number = |name: &str| {
            let number = state.get(name).and_then(Value::as_i64);
            number.and_then(|number| i32::try_from(number).ok())
        };
        let Some(epoch) = number("leaderEpoch").filter(|epoch| *epoch >= 0) else {
            return Err(QuorumError::State { path, cause: "leaderEpoch is missing".to_owned() });
        };
        let someone = |name: &str| number(name).filter(|id| *id >= 0).map(BrokerId);
        let leader = someone("leaderId");
        Ok(Ballot {
            epoch: LeaderEpoch(epoch),
            voted_for: leader.or_else(|| someone("votedId")),
            is_elected: leader.is_some(),
        })
    }

    /// Writes the file, durably.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(self, disk: &dyn Disk, dir: &Path, voters: &VoterSet) -> Result<(), QuorumError> {
        let named = self.voted_for.map_or(-1, |id| id.0);
        let (leader, voted) = if self.is_elected { (named, -1) } else { (-1, named) };
        let ids: Vec<Value> = voters.ids().map(|voter| json!({ "voterId": voter.0 })).collect();
        let state = match voters.is_dynamic {
            true => {
                let directory = self.voted_for.filter(|_| !self.is_elected);
                let directory = directory.and_then(|id| voters.get(id));
                json!({
                    "leaderId": leader,
                    "leaderEpoch": self.epoch.0,
                    "votedId": voted,
                    "votedDirectoryId":
                        uuid_to_text(directory.map_or(Uuid::nil(), |voter| voter.directory_id)),
                    "data_version": 1,
                })
            }
            false => json!({
                "clusterId": "",
                "leaderId": leader,
                "leaderEpoch": self.epoch.0,
                "votedId": voted,
                "appliedOffset": 0,
                "currentVoters": ids,
                "data_version": 0,
            }),
        };
        let path = dir.join(QUORUM_STATE);
        let written = disk.write_atomic(&path, state.to_string().as_bytes());
        written.map_err(|source| QuorumError::File { path, source })
    }
}
