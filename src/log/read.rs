//! Reads: a region of a segment's file for a fetch.
//!
//! A region is found with the offset index and a few headers, or without a system call among the newest batches;
//! its bytes are not read here. It begins with the batch that holds the offset and ends with a batch, but within one
//! where only a long search would find the last one's end.

use super::Log;
use super::directory::Directory;
use super::error::{ReadError, StorageError};
use super::segment::{BatchPosition, Segment};
use super::transaction_index::AbortedTransaction;
use crate::env::DiskFile;
use bytes::Bytes;
use ottla_protocol::Offset;
use std::sync::Arc;

/// Whether the first batch is returned whole even if it is larger than asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinOne {
    /// It is (KIP-74).
    Yes,
    /// It is left out then, as a reader could do nothing with a part of it.
    No,
}

/// A region of a segment's file.
#[derive(Debug, Clone)]
pub struct LogSlice {
    /// The `.log` file; stays readable when the segment is deleted.
    pub file: Arc<dyn DiskFile>,
    /// First byte.
    pub position: u64,
    /// Bytes; not zero.
    pub len: usize,
    /// Bytes that the limits allow: more than `len` where the last batch would not have been whole.
    pub available: usize,
    /// Offset of the first record of the region's first batch; may be below the offset asked for.
    pub base_offset: Offset,
    /// It begins among the newest batches, which surely lie in memory.
    pub is_recent: bool,
}

impl LogSlice {
    /// Copies the region out, for readers within the broker.
    ///
    /// # Errors
    /// The file cannot be read, or was cut since.
    pub fn to_bytes(&self) -> std::io::Result<Bytes> {
        let mut bytes = vec![0; self.len];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(Bytes::from(bytes))
    }
}

impl Log {
    /// The batches from the one that holds `offset` on, at most `max_bytes` and below `upper_bound` (the high
    /// watermark, the last stable offset or the log end offset, which is a batch's first offset); `None` where there
    /// is nothing to read yet, or the first batch is too large.
    ///
    /// # Errors
    /// `OffsetOutOfRange`; `Corrupt` and `Storage` when the segment cannot be read.
    pub fn read(
        &self,
        offset: Offset,
        max_bytes: usize,
        min_one: MinOne,
        upper_bound: Offset,
    ) -> Result<Option<LogSlice>, ReadError> {
        self.read_in(&self.directory, offset, max_bytes, min_one, upper_bound)
    }

    /// [`Log::read`] without waiting for the device.
    ///
    /// # Errors
    /// Those of [`Log::read`]; one of which [`ReadError::not_in_memory`] says where to read first.
    pub fn read_from_memory(
        &self,
        offset: Offset,
        max_bytes: usize,
        min_one: MinOne,
        upper_bound: Offset,
    ) -> Result<Option<LogSlice>, ReadError> {
        self.read_in(&self.directory.memory_only(), offset, max_bytes, min_one, upper_bound)
    }

    fn read_in(
        &self,
        directory: &Directory,
        offset: Offset,
        max_bytes: usize,
        min_one: MinOne,
        upper_bound: Offset,
    ) -> Result<Option<LogSlice>, ReadError> {
        if offset < self.log_start_offset || offset > self.log_end_offset {
            return Err(self.out_of_range(offset));
        }
        let upper_bound = upper_bound.min(self.log_end_offset);
        if offset >= upper_bound {
            return Ok(None);
        }
        let Some(first) = self.floor_segment(offset) else { return Err(self.out_of_range(offset)) };
        for n in first..self.segments.len() {
            let segment = &self.segments[n];
            if segment.base_offset >= upper_bound {
                return Ok(None);
            }
            let found = segment.find_region(directory, offset, max_bytes)?;
            let Some((batch, whole_end)) = found else { continue };
            let end = self.end_position(directory, n, upper_bound)?;
            return self.slice(segment, batch, (end, whole_end), max_bytes, min_one);
        }
        Ok(None)
    }

    fn slice(
        &self,
        segment: &Segment,
        batch: BatchPosition,
        (end, whole_end): (u32, Option<u32>),
        max_bytes: usize,
        min_one: MinOne,
    ) -> Result<Option<LogSlice>, ReadError> {
        let whole = batch.size as usize;
        if min_one == MinOne::No && max_bytes < whole {
            return Ok(None);
        }
        let bytes_to = |end: u32| end.saturating_sub(batch.position) as usize;
        let available = max_bytes.max(whole).min(bytes_to(end));
        if available == 0 {
            return Ok(None);
        }
        let len = whole_end.map_or(available, |end| available.min(bytes_to(end)));
        Ok(Some(LogSlice {
            file: segment.file(&self.directory)?,
            position: u64::from(batch.position),
            len,
            available,
            base_offset: batch.base_offset,
            is_recent: segment.is_recent(batch.base_offset),
        }))
    }

    /// Where the batches below `upper_bound` end in segment `n`.
    fn end_position(
        &self,
        directory: &Directory,
        n: usize,
        upper_bound: Offset,
    ) -> Result<u32, ReadError> {
        let segment = &self.segments[n];
        let next_base = self.segments.get(n + 1).map(|next| next.base_offset);
        if upper_bound >= next_base.unwrap_or(self.log_end_offset) {
            return Ok(segment.size);
        }
        Ok(segment.find(directory, upper_bound)?.map_or(segment.size, |batch| batch.position))
    }

    fn out_of_range(&self, offset: Offset) -> ReadError {
        ReadError::OffsetOutOfRange {
            offset,
            log_start_offset: self.log_start_offset,
            log_end_offset: self.log_end_offset,
        }
    }

    /// Aborted transactions with records in `from..to`, by their markers' offsets.
    ///
    /// # Errors
    /// A transaction index cannot be read.
    pub fn aborted_transactions(
        &self,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<AbortedTransaction>, StorageError> {
        self.aborted_in(&self.directory, from, to)
    }

    /// [`Log::aborted_transactions`] without waiting for the device.
    ///
    /// # Errors
    /// As [`Log::read_from_memory`].
    pub fn aborted_from_memory(
        &self,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<AbortedTransaction>, StorageError> {
        self.aborted_in(&self.directory.memory_only(), from, to)
    }

    fn aborted_in(
        &self,
        directory: &Directory,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<AbortedTransaction>, StorageError> {
        let mut found = Vec::new();
        let first = self.floor_segment(from).unwrap_or(0);
        for segment in &self.segments[first..] {
            if segment.transactions.collect(directory, from, to, &mut found)? {
                break;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
