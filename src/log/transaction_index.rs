//! The transaction index of a segment: the aborted transactions whose marker lies in it.
//!
//! Entries of 34 bytes, big endian: version (i16, 0), producer id, first offset, last offset, last stable offset
//! (i64 each). The file is made with its first entry. Source: KIP-98.

use super::directory::{Directory, TXN_INDEX_SUFFIX};
use super::error::StorageError;
use super::index_file::IndexFile;
use ottla_protocol::{Offset, ProducerId};

/// Bytes of an entry.
pub(crate) const ENTRY_SIZE: usize = 34;

/// An aborted transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: ProducerId,
    /// First offset of its records.
    pub first_offset: Offset,
    /// Offset of the abort marker.
    pub last_offset: Offset,
    /// Last stable offset once the marker was written.
    pub last_stable_offset: Offset,
}

#[derive(Debug)]
pub(crate) struct TransactionIndex {
    /// What is no matter of what an entry says is asked of it.
    pub(super) file: IndexFile<ENTRY_SIZE>,
}

fn number(entry: &[u8; ENTRY_SIZE], at: usize) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&entry[at..at + 8]);
    i64::from_be_bytes(bytes)
}

pub(super) fn parse(entry: &[u8; ENTRY_SIZE]) -> AbortedTransaction {
    AbortedTransaction {
        producer_id: ProducerId(number(entry, 2)),
        first_offset: Offset(number(entry, 10)),
        last_offset: Offset(number(entry, 18)),
        last_stable_offset: Offset(number(entry, 26)),
    }
}

impl TransactionIndex {
    pub(crate) fn new(base_offset: Offset, len: Option<u64>) -> Self {
        TransactionIndex { file: IndexFile::new(base_offset.0, TXN_INDEX_SUFFIX, len) }
    }

    pub(crate) fn append(
        &mut self,
        directory: &Directory,
        aborted: AbortedTransaction,
    ) -> Result<(), StorageError> {
        let mut entry = [0; ENTRY_SIZE];
        entry[2..10].copy_from_slice(&aborted.producer_id.0.to_be_bytes());
        entry[10..18].copy_from_slice(&aborted.first_offset.0.to_be_bytes());
        entry[18..26].copy_from_slice(&aborted.last_offset.0.to_be_bytes());
        entry[26..].copy_from_slice(&aborted.last_stable_offset.0.to_be_bytes());
        self.file.append(directory, entry)
    }

    /// Adds to `found` the transactions that a reader of `from..to` must skip; `true` when no later segment can
    /// have more of them.
    pub(crate) fn collect(
        &self,
        directory: &Directory,
        from: Offset,
        to: Offset,
        found: &mut Vec<AbortedTransaction>,
    ) -> Result<bool, StorageError> {
        for n in 0..self.file.entries() {
            let aborted = parse(&self.file.entry(directory, n)?);
            if aborted.last_offset >= from && aborted.first_offset < to {
                found.push(aborted);
            }
            if aborted.last_stable_offset >= to {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Drops the entries whose marker is at or after `offset`.
    pub(crate) fn truncate_to(
        &mut self,
        directory: &Directory,
        offset: Offset,
    ) -> Result<(), StorageError> {
        let kept = self.file.front(directory, 0, |entry| number(entry, 18) < offset.0)?;
        self.file.truncate(directory, kept.count)
    }
}
