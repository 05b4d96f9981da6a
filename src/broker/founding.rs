//! How a node comes to a metadata quorum: where its directories hold none yet, and where it looks for one.
//!
//! Invariant: only [`Founding::Standalone`] and [`Founding::Static`] begin a quorum, so that of nodes which are to meet
//! one alone may be told to. Source: KIP-853 (voters that change), KIP-1186 (joining by itself).

use super::controller_addresses::Address;
use super::quorum::{METADATA_DIR, QuorumError, Voter, VoterRecords, VoterSet};
use super::snapshots::{self, SnapshotId};
use crate::env::Disk;
use crate::machines::metadata::Image;
use ottla_protocol::{LeaderEpoch, Offset, Timestamp};
use std::path::Path;
use tokio::sync::watch;

/// What directories without a metadata log are made to.
#[derive(Debug, Clone)]
pub enum Founding {
    /// The quorum of `controller.quorum.voters`, or this node alone, with voters that never change (`kraft.version` 0).
    Static,
    /// A new quorum of which this node is the only voter and to which others can be added (`kraft.version` 1).
    Standalone,
    /// None: this node follows the one that it finds.
    Join,
}

/// Where a node that knows no voter looks for the quorum, and what it wants there.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Host and port of listeners on which the quorum's messages are served. They may change at any time; an empty
    /// list is waited with.
    pub servers: watch::Receiver<Vec<Address>>,
    /// `controller.quorum.auto.join.enable`: a controller that is no voter asks to become one.
    pub auto_join: bool,
    /// With as many voters nobody joins by itself.
    pub voters_max: usize,
}

impl Bootstrap {
    /// The servers that do not change, without auto join.
    pub fn fixed(servers: Vec<Address>) -> Bootstrap {
        // Nobody tells of changes: that the sender is gone is no error.
        let (_, servers) = watch::channel(servers);
        Bootstrap { servers, auto_join: false, voters_max: usize::MAX }
    }
}

/// The snapshot with which a quorum begins whose voters can be changed: nothing but `kraft.version` 1 and the voters.
const FIRST: SnapshotId = SnapshotId { end_offset: Offset(0), epoch: LeaderEpoch(0) };

/// Writes the first snapshot of a quorum with these voters, durably, where the directory has no metadata log yet.
///
/// # Errors
/// The directory cannot be read or written.
pub(super) fn write_first_voters(
    disk: &dyn Disk,
    metadata_log_dir: &Path,
    voters: impl IntoIterator<Item = Voter>,
    now: Timestamp,
) -> Result<(), QuorumError> {
    let dir = metadata_log_dir.join(METADATA_DIR);
    let failed = |source| QuorumError::File { path: dir.clone(), source };
    disk.create_dir_durably(&dir).map_err(failed)?;
    let is_of_a_log = |name: &str| name.ends_with(".checkpoint") || name.ends_with(".log");
    if disk.list(&dir).map_err(failed)?.iter().any(|entry| is_of_a_log(&entry.name)) {
        return Ok(());
    }
    let records = VoterRecords::dynamic(&VoterSet::dynamic(voters));
    snapshots::write(disk, &dir, FIRST, &Image::default(), &records, now)
}
