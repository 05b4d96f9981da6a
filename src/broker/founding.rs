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

/// Whether the directory has a metadata log that goes further than the first snapshot.
///
/// # Errors
/// It cannot be read.
pub(super) fn has_metadata_log(
    disk: &dyn Disk,
    metadata_log_dir: &Path,
) -> Result<bool, QuorumError> {
    let path = metadata_log_dir.join(METADATA_DIR);
    let is_later = |name: &str| {
        name.ends_with(".log") || SnapshotId::of_name(name).is_some_and(|id| id > FIRST)
    };
    match disk.list(&path) {
        Ok(entries) => Ok(entries.iter().any(|entry| is_later(&entry.name))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(QuorumError::File { path, source }),
    }
}

/// Writes the first snapshot of a quorum with these voters, durably.
///
/// # Errors
/// The directory cannot be read or written.
pub(super) fn write_first_voters(
    disk: &dyn Disk,
    metadata_log_dir: &Path,
    voters: impl IntoIterator<Item = Voter>,
    now: Timestamp,
) -> Result<(), QuorumError> {
    let path = metadata_log_dir.join(METADATA_DIR);
    let created = disk.create_dir_durably(&path);
    created.map_err(|source| QuorumError::File { path: path.clone(), source })?;
    let records = VoterRecords::dynamic(&VoterSet::dynamic(voters));
    snapshots::write(disk, &path, FIRST, &Image::default(), &records, now)
}

/// Founds a quorum of this node alone, where the directory has no metadata log yet and nobody has named other voters.
///
/// # Errors
/// The directory cannot be read or written.
pub(super) fn found_standalone(
    disk: &dyn Disk,
    metadata_log_dir: &Path,
    own: &Voter,
    now: Timestamp,
) -> Result<(), QuorumError> {
    let first = metadata_log_dir.join(METADATA_DIR).join(FIRST.file_name());
    if disk.exists(&first) || has_metadata_log(disk, metadata_log_dir)? {
        return Ok(());
    }
    write_first_voters(disk, metadata_log_dir, [own.clone()], now)
}
