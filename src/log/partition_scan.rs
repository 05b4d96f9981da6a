//! What a partition's small files say, as they lie, before anything opens the log: opening recovers it.

use super::checkpoint::read_partition_metadata;
use super::directory::SNAPSHOT_SUFFIX;
use super::error::{RecoveryError, StorageError};
use super::leader_epochs::{self, parse};
use super::producer_snapshot;
use crate::env::Disk;
use ottla_protocol::{LeaderEpoch, ProducerId, TopicId};
use std::io;
use std::path::Path;

/// What is known of a partition without its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionFiles {
    /// The topic's id, where the directory has it.
    pub topic_id: Option<TopicId>,
    /// The last leader epoch that records were written in.
    pub leader_epoch: LeaderEpoch,
    /// The highest producer id that a producer snapshot names; batches after the last snapshot may have higher ones.
    pub producer_id: ProducerId,
}

/// Reads the small files of the partition's directory. Checkpoints and snapshots that are damaged count as not there:
/// opening the log makes them anew.
///
/// # Errors
/// A file cannot be read, or the topic id cannot be understood.
pub fn scan_partition(disk: &dyn Disk, dir: &Path) -> Result<PartitionFiles, RecoveryError> {
    let read = |name: &str| {
        let path = dir.join(name);
        match disk.read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StorageError::new("read", &path, e)),
        }
    };
    let epochs = read(leader_epochs::FILE_NAME)?;
    let epochs = epochs.and_then(|bytes| parse(std::str::from_utf8(&bytes).ok()?).ok());
    let leader_epoch = epochs.unwrap_or_default().iter().map(|entry| entry.epoch).max();
    let mut producer_id = ProducerId::NONE;
    let entries = disk.list(dir).map_err(|e| StorageError::new("list", dir, e))?;
    for entry in entries.iter().filter(|entry| entry.name.ends_with(SNAPSHOT_SUFFIX)) {
        let Some(bytes) = read(&entry.name)? else { continue };
        let producers = producer_snapshot::decode(&bytes).unwrap_or_default();
        let highest = producers.iter().map(|(id, _)| *id).max();
        producer_id = producer_id.max(highest.unwrap_or(ProducerId::NONE));
    }
    Ok(PartitionFiles {
        topic_id: read_partition_metadata(disk, dir)?,
        leader_epoch: leader_epoch.unwrap_or(LeaderEpoch(0)),
        producer_id,
    })
}
