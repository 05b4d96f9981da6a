//! Changes of the quorum's voters that somebody asks for (KIP-853). They are made where the quorum's leader is, which
//! is to be asked directly, or through a broker that passes them on.

use super::Broker;
use super::quorum::Quorum;
use ottla_protocol::{BrokerId, ErrorCode};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long another leader may take to become known.
const SUCCESSION_MAX: Duration = Duration::from_secs(3);

impl Broker {
    /// The quorum in which this node votes, to ask changes of that need nobody but its leader.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER where it has no vote.
    pub fn voting(&self) -> Result<&Arc<Quorum>, ErrorCode> {
        self.metadata.quorum().ok_or(ErrorCode::NotLeaderOrFollower)
    }

    /// The listener that a voter must have, on which the others dial it.
    pub fn quorum_listener(&self) -> &str {
        self.settings.quorum_listeners().first().map_or("", |listener| &listener.name)
    }

    /// The id of the directory in which the metadata log is.
    pub fn metadata_directory_id(&self) -> Uuid {
        self.directories.metadata_directory_id()
    }

    /// The finalized `kraft.version`: 1 where voters can be changed.
    pub fn kraft_version(&self) -> i16 {
        self.metadata.kraft_version()
    }

    /// Takes a voter's vote. Where it is this leader's own, another leader is elected first: this completes with
    /// NOT_LEADER_OR_FOLLOWER once that one is known.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER, UNSUPPORTED_VERSION (`kraft.version` 0), VOTER_NOT_FOUND, KAFKA_STORAGE_ERROR;
    /// INVALID_REQUEST for the last voter; REQUEST_TIMED_OUT while another change is under way, or when no majority has
    /// it in time.
    pub async fn remove_voter(&self, id: BrokerId, directory_id: Uuid) -> Result<(), ErrorCode> {
        let removed = self.voting()?.remove_voter(id, directory_id).await;
        if removed == Err(ErrorCode::NotLeaderOrFollower) && id == self.node_id() {
            let mut active = self.metadata.active();
            let known = active.wait_for(|_| self.is_led_elsewhere());
            // Where nobody is elected, the caller hears that this one cannot do it.
            let _ = tokio::time::timeout(SUCCESSION_MAX, known).await;
        }
        removed
    }
}
