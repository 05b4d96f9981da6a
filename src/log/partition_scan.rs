//! What a partition's files say without its batches, as they lie, before anything opens the log: opening recovers it.

use super::checkpoint::read_partition_metadata;
use super::directory::{LOG_SUFFIX, SNAPSHOT_SUFFIX};
use super::error::{RecoveryError, StorageError};
use super::leader_epochs::{self, parse};
use super::producer_snapshot;
use crate::env::{Disk, OpenMode};
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
    /// The lowest magic with which a segment begins; `None` without records. Below 2 nothing is read here.
    pub magic: Option<u8>,
}

/// Where every format of records has the bytes that follow, and its magic.
const SIZE_AT: usize = 8;
const MAGIC_AT: usize = 16;

/// The magic of a segment's first batch or message; `None` where there is none, or zeroes after a power cut.
fn first_magic(disk: &dyn Disk, path: &Path) -> Result<Option<u8>, StorageError> {
    let failed = |e| StorageError::new("read", path, e);
    let file = disk.open(path, OpenMode::Read).map_err(failed)?;
    let mut head = [0; MAGIC_AT + 1];
    if file.len().map_err(failed)? < head.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut head, 0).map_err(failed)?;
    let has_size = head[SIZE_AT..SIZE_AT + 4].iter().any(|byte| *byte != 0);
    Ok(has_size.then_some(head[MAGIC_AT]))
}

/// Reads the small files of the partition's directory and the head of each segment. Checkpoints and snapshots that
/// are damaged count as not there: opening the log makes them anew.
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
    let mut magic = None;
    let entries = disk.list(dir).map_err(|e| StorageError::new("list", dir, e))?;
    for entry in entries.iter().filter(|entry| entry.name.ends_with(LOG_SUFFIX)) {
        let first = first_magic(disk, &dir.join(&entry.name))?;
        magic = magic.into_iter().chain(first).min();
    }
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
        magic,
    })
}
