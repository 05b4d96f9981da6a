//! Where the entries lie: a batch's ordinal, which is openraft's index, beside its offsets and epoch.
//!
//! Offsets are not dense in batches, so ordinals are counted: from the newest snapshot on, whose own ordinal stands in
//! a file beside it (`<end offset>-<epoch>.checkpoint.raft`), or from 0 where the log begins at offset 0. Kafka does
//! not know the file and passes it over; where Kafka wrote the snapshot, ordinals begin anew at its end offset, which
//! is never less than the count.

use super::super::snapshots::SnapshotId;
use super::QuorumError;
use crate::env::Disk;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::{LeaderEpoch, Offset};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".raft";

/// Where one batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// The offset after its last record.
    pub end_offset: Offset,
    /// Its leader epoch.
    pub epoch: LeaderEpoch,
    /// Bytes.
    pub size: u32,
}

impl Position {
    /// Of a batch.
    pub fn of(header: &BatchHeader) -> Position {
        Position {
            base_offset: header.base_offset,
            end_offset: header.next_offset(),
            epoch: header.leader_epoch,
            size: u32::try_from(header.size()).unwrap_or(u32::MAX),
        }
    }
}

/// The last batch before the first that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purged {
    /// Its ordinal.
    pub index: u64,
    /// Its epoch.
    pub epoch: LeaderEpoch,
    /// Where it ends.
    pub end_offset: Offset,
}

/// The batches that openraft may ask for. Bounded by what the log keeps between snapshots.
#[derive(Debug, Default)]
pub(super) struct BatchIndex {
    purged: Option<Purged>,
    positions: VecDeque<Position>,
}

impl BatchIndex {
    /// Nothing but what was purged.
    pub fn after(purged: Option<Purged>) -> BatchIndex {
        BatchIndex { purged, positions: VecDeque::new() }
    }

    /// What went last.
    pub fn purged(&self) -> Option<Purged> {
        self.purged
    }

    /// Ordinal of the first batch, where there is one.
    pub fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    /// Ordinal of the next batch.
    pub fn next(&self) -> u64 {
        self.first() + self.positions.len() as u64
    }

    fn slot(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first())?).ok()
    }

    /// Where a batch lies.
    pub fn get(&self, index: u64) -> Option<Position> {
        self.positions.get(self.slot(index)?).copied()
    }

    /// Ordinal and epoch of the last batch, also one that was purged.
    pub fn last(&self) -> Option<(u64, LeaderEpoch)> {
        match self.positions.back() {
            Some(last) => Some((self.next() - 1, last.epoch)),
            None => self.purged.map(|purged| (purged.index, purged.epoch)),
        }
    }

    /// Epoch and end of the batch `index`, also of the one that was purged last.
    pub fn epoch_and_end(&self, index: u64) -> Option<(LeaderEpoch, Offset)> {
        if let Some(position) = self.get(index) {
            return Some((position.epoch, position.end_offset));
        }
        let purged = self.purged.filter(|purged| purged.index == index)?;
        Some((purged.epoch, purged.end_offset))
    }

    /// The log has grown by a batch.
    pub fn push(&mut self, position: Position) {
        self.positions.push_back(position);
    }

    /// The batches from `index` on are gone.
    pub fn truncate(&mut self, index: u64) {
        let keep = self.slot(index).unwrap_or(0);
        self.positions.truncate(keep);
    }

    /// The batches up to `purged` are gone, or not to be asked for any more.
    pub fn purge(&mut self, purged: Purged) {
        if self.purged.is_some_and(|before| before.index >= purged.index) {
            return;
        }
        let gone = self.slot(purged.index + 1).unwrap_or(0).min(self.positions.len());
        self.positions.drain(..gone);
        self.purged = Some(purged);
    }
}

fn path(dir: &Path, id: SnapshotId) -> PathBuf {
    dir.join(format!("{}{SUFFIX}", id.file_name()))
}

/// Whether a file name is one of ours beside a snapshot; then which snapshot's.
pub(super) fn snapshot_of_name(name: &str) -> Option<SnapshotId> {
    SnapshotId::of_name(name.strip_suffix(SUFFIX)?)
}

/// The ordinal of the last batch in a snapshot; `None` for one that Kafka wrote.
///
/// # Errors
/// The file cannot be read, or is no such file.
pub(super) fn read_ordinal(
    disk: &dyn Disk,
    dir: &Path,
    id: SnapshotId,
) -> Result<Option<u64>, QuorumError> {
    let path = path(dir, id);
    let bytes = match disk.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(QuorumError::File { path, source }),
    };
    let value: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    match value.and_then(|value| value.get("index")?.as_u64()) {
        Some(index) if index < u64::MAX >> 1 => Ok(Some(index)),
        _ => Err(QuorumError::State { path, cause: "index is missing".to_owned() }),
    }
}

/// Writes the ordinal, durably: before the snapshot, so that no snapshot of ours is without it.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write_ordinal(
    disk: &dyn Disk,
    dir: &Path,
    id: SnapshotId,
    index: u64,
) -> Result<(), QuorumError> {
    let path = path(dir, id);
    let text = serde_json::json!({ "version": 1, "index": index }).to_string();
    disk.write_atomic(&path, text.as_bytes()).map_err(|source| QuorumError::File { path, source })
}

/// Removes the ordinals of snapshots older than `id`.
///
/// # Errors
/// One cannot be removed.
pub(super) fn remove_ordinals_before(
    disk: &dyn Disk,
    dir: &Path,
    id: SnapshotId,
) -> Result<(), QuorumError> {
    let failed = |path: &Path, source| QuorumError::File { path: path.to_owned(), source };
    for entry in disk.list(dir).map_err(|source| failed(dir, source))? {
        if snapshot_of_name(&entry.name).is_some_and(|of| of < id) {
            let path = dir.join(&entry.name);
            disk.remove_file(&path).map_err(|source| failed(&path, source))?;
        }
    }
    Ok(())
}
