//! The offset index of a segment: where in the file the batch lies that ends with an offset.
//!
//! Entries of 8 bytes, big endian: offset less the segment's base offset (i32), position (i32). Sparse: one entry
//! for each `index.interval.bytes`. Source: Kafka documentation, "Log".

use super::directory::{Directory, INDEX_SUFFIX};
use super::error::StorageError;
use super::index_file::{Front, IndexFile};
use ottla_protocol::Offset;

/// Bytes of an entry.
pub(crate) const ENTRY_SIZE: usize = 8;

/// A batch's last offset and the position of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetPosition {
    pub(crate) offset: Offset,
    pub(crate) position: u32,
}

/// What a search found, and which entry of the index it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// 0 also for the segment's start.
    pub(crate) number: usize,
    pub(crate) place: OffsetPosition,
}

#[derive(Debug)]
pub(crate) struct OffsetIndex {
    base_offset: Offset,
    /// What is no matter of what an entry says is asked of it.
    pub(super) file: IndexFile<ENTRY_SIZE>,
}

pub(super) fn relative(entry: &[u8; ENTRY_SIZE]) -> i32 {
    i32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]])
}

pub(super) fn place(entry: &[u8; ENTRY_SIZE]) -> u32 {
    u32::from_be_bytes([entry[4], entry[5], entry[6], entry[7]])
}

impl OffsetIndex {
    pub(crate) fn new(base_offset: Offset, len: Option<u64>) -> Self {
        OffsetIndex { base_offset, file: IndexFile::new(base_offset.0, INDEX_SUFFIX, len) }
    }

    pub(crate) fn is_full(&self, index_bytes_max: i32) -> bool {
        self.file.entries() >= index_bytes_max.max(0) as usize / ENTRY_SIZE
    }

    fn parse(&self, entry: [u8; ENTRY_SIZE]) -> OffsetPosition {
        OffsetPosition {
            offset: self.base_offset.plus(i64::from(relative(&entry))),
            position: place(&entry),
        }
    }

    /// Whether an entry can hold `offset`.
    pub(crate) fn can_append(&self, offset: Offset) -> bool {
        (0..=i64::from(i32::MAX)).contains(&(offset.0 - self.base_offset.0))
    }

    /// Adds an entry; offsets only grow.
    pub(crate) fn append(
        &mut self,
        directory: &Directory,
        offset: Offset,
        position: u32,
    ) -> Result<(), StorageError> {
        let mut entry = [0; ENTRY_SIZE];
        entry[..4].copy_from_slice(&((offset.0 - self.base_offset.0) as i32).to_be_bytes());
        entry[4..].copy_from_slice(&position.to_be_bytes());
        self.file.append(directory, entry)
    }

    /// The entry with the largest offset that is not above `target`; the segment's start without one.
    pub(crate) fn lookup(
        &self,
        directory: &Directory,
        target: Offset,
    ) -> Result<IndexEntry, StorageError> {
        let wanted = target.0 - self.base_offset.0;
        let front = self.file.front(directory, 0, |entry| i64::from(relative(entry)) <= wanted)?;
        Ok(self.last_of(front))
    }

    /// The entry with the largest position that is not above `position`; the segment's start without one. `known` is
    /// the number of an entry before it, or 0.
    pub(crate) fn lookup_position(
        &self,
        directory: &Directory,
        known: usize,
        position: u32,
    ) -> Result<IndexEntry, StorageError> {
        let front = self.file.front(directory, known, |entry| place(entry) <= position)?;
        Ok(self.last_of(front))
    }

    fn last_of(&self, front: Front<ENTRY_SIZE>) -> IndexEntry {
        let start = OffsetPosition { offset: self.base_offset, position: 0 };
        let place = front.last.map_or(start, |entry| self.parse(entry));
        IndexEntry { number: front.count.saturating_sub(1), place }
    }

    /// The last entry; the segment's start without one.
    pub(crate) fn last(&self, directory: &Directory) -> Result<OffsetPosition, StorageError> {
        Ok(match self.file.last(directory)? {
            Some(entry) => self.parse(entry),
            None => OffsetPosition { offset: self.base_offset, position: 0 },
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
