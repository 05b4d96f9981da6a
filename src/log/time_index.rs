//! The time index of a segment: the largest timestamp so far and the offset of the batch that has it.
//!
//! Entries of 12 bytes, big endian: timestamp (i64), offset less the segment's base offset (i32). Timestamps only
//! grow. Source: KIP-33.

use super::directory::{Directory, TIME_INDEX_SUFFIX};
use super::error::StorageError;
use super::index_file::IndexFile;
use ottla_protocol::{Offset, Timestamp};

/// Bytes of an entry.
pub(crate) const ENTRY_SIZE: usize = 12;

/// A timestamp and the offset of a record or batch that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Timestamp; -1 is none.
    pub timestamp: Timestamp,
    /// Offset.
    pub offset: Offset,
}

#[derive(Debug)]
pub(crate) struct TimeIndex {
    base_offset: Offset,
    /// What is no matter of what an entry says is asked of it.
    pub(super) file: IndexFile<ENTRY_SIZE>,
}

pub(super) fn timestamp(entry: &[u8; ENTRY_SIZE]) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&entry[..8]);
    i64::from_be_bytes(bytes)
}

pub(super) fn relative(entry: &[u8; ENTRY_SIZE]) -> i32 {
    i32::from_be_bytes([entry[8], entry[9], entry[10], entry[11]])
}

impl TimeIndex {
    pub(crate) fn new(base_offset: Offset, len: Option<u64>) -> Self {
        TimeIndex { base_offset, file: IndexFile::new(base_offset.0, TIME_INDEX_SUFFIX, len) }
    }

    /// One entry is kept free for the one that a roll adds.
    pub(crate) fn is_full(&self, index_bytes_max: i32) -> bool {
        self.file.entries() + 1 >= index_bytes_max.max(0) as usize / ENTRY_SIZE
    }

    /// The last entry; -1 at the segment's start without one.
    pub(crate) fn last(&self, directory: &Directory) -> Result<TimestampOffset, StorageError> {
        Ok(match self.file.last(directory)? {
            Some(entry) => self.parse(&entry),
            None => TimestampOffset { timestamp: Timestamp::NONE, offset: self.base_offset },
        })
    }

    fn parse(&self, entry: &[u8; ENTRY_SIZE]) -> TimestampOffset {
        TimestampOffset {
            timestamp: Timestamp(timestamp(entry)),
            offset: self.base_offset.plus(i64::from(relative(entry))),
        }
    }

    /// Adds an entry where its timestamp is above the last one's.
    pub(crate) fn maybe_append(
        &mut self,
        directory: &Directory,
        entry: TimestampOffset,
    ) -> Result<(), StorageError> {
        if entry.timestamp <= self.last(directory)?.timestamp {
            return Ok(());
        }
        let mut bytes = [0; ENTRY_SIZE];
        bytes[..8].copy_from_slice(&entry.timestamp.0.to_be_bytes());
        bytes[8..].copy_from_slice(&((entry.offset.0 - self.base_offset.0) as i32).to_be_bytes());
        self.file.append(directory, bytes)
    }

    /// The entry with the largest timestamp that is not above `target`; -1 at the segment's start without one.
    pub(crate) fn lookup(
        &self,
        directory: &Directory,
        target: Timestamp,
    ) -> Result<TimestampOffset, StorageError> {
        let front = self.file.front(directory, 0, |entry| timestamp(entry) <= target.0)?;
        Ok(match front.last {
            Some(entry) => self.parse(&entry),
            None => TimestampOffset { timestamp: Timestamp::NONE, offset: self.base_offset },
        })
    }

    /// Drops the entries at and after `offset`.
    pub(crate) fn truncate_to(
        &mut self,
        directory: &Directory,
        offset: Offset,
    ) -> Result<(), StorageError> {
        let wanted = offset.0 - self.base_offset.0;
        let kept = self.file.front(directory, 0, |entry| i64::from(relative(entry)) < wanted)?;
        self.file.truncate(directory, kept.count)
    }
}
