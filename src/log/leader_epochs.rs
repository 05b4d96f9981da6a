//! Which leader epoch begins at which offset (KIP-101, KIP-279), kept in `leader-epoch-checkpoint`.
//!
//! Invariant: epochs and start offsets both grow from entry to entry. The file is text: version `0`, the number of
//! entries, then `epoch start_offset` lines. It is written before the recovery point moves past a change; what a
//! crash loses, recovery reads from the batches again.

use super::directory::Directory;
use super::error::StorageError;
use ottla_protocol::{LeaderEpoch, Offset};
use std::fmt::Write as _;
use std::io;
use tracing::warn;

pub(crate) const FILE_NAME: &str = "leader-epoch-checkpoint";

/// An epoch and the offset of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Where it starts.
    pub start_offset: Offset,
}

/// The epochs of one log.
#[derive(Debug, Default)]
pub(crate) struct LeaderEpochs {
    entries: Vec<EpochEntry>,
    is_changed: bool,
    /// The file may have an entry that is no longer so.
    is_file_wrong: bool,
}

/// The entries as the file has them; the error is the number of the line that is wrong.
pub(super) fn parse(text: &str) -> Result<Vec<EpochEntry>, usize> {
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some("0") {
        return Err(1);
    }
    let count: usize = lines.next().and_then(|line| line.trim().parse().ok()).ok_or(2usize)?;
    let mut entries: Vec<EpochEntry> = Vec::new();
    for (n, line) in lines.enumerate() {
        let entry = (|| {
            let (epoch, offset) = line.trim().split_once(' ')?;
            let epoch = LeaderEpoch(epoch.parse().ok()?);
            let start_offset = Offset(offset.trim().parse().ok()?);
            Some(EpochEntry { epoch, start_offset })
        })();
        entries.push(entry.ok_or(n + 3)?);
    }
    if entries.len() == count { Ok(entries) } else { Err(2) }
}

impl LeaderEpochs {
    /// Reads the checkpoint. One that cannot be understood is as none, with a warning: the batches have the truth.
    pub(crate) fn open(directory: &Directory) -> Result<Self, StorageError> {
        let path = directory.join(FILE_NAME);
        let bytes = match directory.disk().read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(LeaderEpochs::default()),
            Err(e) => return Err(StorageError::new("read", &path, e)),
        };
        let read = std::str::from_utf8(&bytes).ok().and_then(|text| parse(text).ok());
        let mut epochs = LeaderEpochs::default();
        match read {
            Some(entries) => {
                for entry in entries {
                    epochs.assign(entry.epoch, entry.start_offset);
                }
                epochs.is_changed = false;
                epochs.is_file_wrong = false;
            }
            None => {
                warn!(path = %path.display(), "leader epoch checkpoint is malformed and is written anew");
                epochs.is_changed = true;
            }
        }
        Ok(epochs)
    }

    /// Writes the checkpoint where something changed since.
    pub(crate) fn write_if_changed(&mut self, directory: &Directory) -> Result<(), StorageError> {
        if !self.is_changed {
            return Ok(());
        }
        let mut text = format!("0\n{}\n", self.entries.len());
        for entry in &self.entries {
            let _ = writeln!(text, "{} {}", entry.epoch, entry.start_offset);
        }
        let path = directory.join(FILE_NAME);
        directory
            .disk()
            .write_atomic(&path, text.as_bytes())
            .map_err(|e| StorageError::new("write", &path, e))?;
        self.is_changed = false;
        self.is_file_wrong = false;
        Ok(())
    }

    /// Writes the checkpoint where it says what is no longer so. What is only missing in it, the batches tell again.
    pub(crate) fn write_if_wrong(&mut self, directory: &Directory) -> Result<(), StorageError> {
        if self.is_file_wrong { self.write_if_changed(directory) } else { Ok(()) }
    }

    pub(crate) fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    pub(crate) fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// Notes that `epoch` begins at `start_offset`; entries that contradict it go.
    pub(crate) fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) {
        if epoch.0 < 0 || start_offset.0 < 0 {
            return;
        }
        if let Some(last) = self.entries.last()
            && last.epoch == epoch
            && start_offset >= last.start_offset
        {
            return;
        }
        let before = self.entries.len();
        while let Some(last) = self.entries.last()
            && (last.epoch >= epoch || last.start_offset >= start_offset)
        {
            self.entries.pop();
        }
        let removed = before - self.entries.len();
        self.is_file_wrong |= removed > 0;
        if removed > 1 {
            warn!(%epoch, %start_offset, removed, "new leader epoch replaced entries that contradict it");
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        self.is_changed = true;
    }

    /// The epoch not above `epoch` and the offset where it ends (KIP-279); `None` for an epoch that is unknown.
    pub(crate) fn end_offset_for(
        &self,
        epoch: LeaderEpoch,
        log_end_offset: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        if epoch.0 < 0 {
            return None;
        }
        if self.latest() == Some(epoch) {
            return Some((epoch, log_end_offset));
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end = self.entries.get(next)?.start_offset;
        let floor = next.checked_sub(1).map_or(epoch, |n| self.entries[n].epoch);
        Some((floor, end))
    }

    /// The epoch in which the record at `offset` was written.
    pub(crate) fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        let n = self.entries.partition_point(|entry| entry.start_offset <= offset);
        n.checked_sub(1).map(|n| self.entries[n].epoch)
    }

    /// Drops the epochs that begin at or after `end_offset`.
    pub(crate) fn truncate_from_end(&mut self, end_offset: Offset) {
        let n = self.entries.partition_point(|entry| entry.start_offset < end_offset);
        if n < self.entries.len() {
            self.entries.truncate(n);
            self.is_changed = true;
            self.is_file_wrong = true;
        }
    }

    /// Lets the log begin at `start_offset`: of the epochs that begin up to there the last remains and begins there.
    pub(crate) fn truncate_from_start(&mut self, start_offset: Offset) {
        let n = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        if n == 0 || (n == 1 && self.entries[0].start_offset == start_offset) {
            return;
        }
        self.entries.drain(..n - 1);
        self.entries[0].start_offset = start_offset;
        self.is_changed = true;
    }

    /// Puts `older` before the others; those of its last epoch begin where it does.
    pub(crate) fn prepend(&mut self, mut older: Vec<EpochEntry>) {
        if older.is_empty() {
            return;
        }
        let last = older[older.len() - 1].epoch;
        let later = self.entries.partition_point(|entry| entry.epoch <= last);
        older.extend_from_slice(&self.entries[later..]);
        self.entries = older;
        self.is_changed = true;
    }

    pub(crate) fn clear(&mut self) {
        self.is_changed |= !self.entries.is_empty();
        self.is_file_wrong |= !self.entries.is_empty();
        self.entries.clear();
    }
}
