//! What the offset, time and transaction index have in common: a file of entries of one size, searched in place.
//!
//! New entries wait in memory and are written [`PENDING_MAX`] at a time, at a flush, a roll and a close, so that an
//! append costs one system call and not three. Nothing rests on entries that a crash loses: recovery rebuilds the
//! indexes past the recovery point, and the recovery point moves only after they are written and synced.
//!
//! Kafka allocates an active segment's index at `segment.index.bytes` and trims it when the segment closes; ours
//! grow as they are written. Kafka reads both.

use super::directory::{Directory, LazyFile, ToSync};
use super::error::StorageError;
use crate::env::DiskFile;
use std::io::IoSlice;
use std::sync::Arc;

/// Entries that wait in memory: a few kilobytes for each log that is written to.
const PENDING_MAX: usize = 512;
/// Entries that a search reads in one go once it has come so near: those of 2 MB of log with the default interval.
const BLOCK: usize = 512;

/// Entries of `N` bytes in one file.
#[derive(Debug)]
pub(crate) struct IndexFile<const N: usize> {
    file: LazyFile,
    written: usize,
    pending: Vec<[u8; N]>,
    /// The file exists; an index without entries has none until the segment is closed.
    is_made: bool,
    /// The file may have bytes past the written entries. They go before the next write.
    has_stale_end: bool,
    /// All entries wait in memory, and there is no file, until [`IndexFile::end_anew`].
    is_held: bool,
}

/// Entries at the front of an index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Front<const N: usize> {
    /// How many.
    pub(crate) count: usize,
    /// The last of them; `None` without one.
    pub(crate) last: Option<[u8; N]>,
}

impl<const N: usize> IndexFile<N> {
    /// `len` bytes are there; what is beyond the last whole entry is ignored.
    pub(crate) fn new(base_offset: i64, suffix: &'static str, len: Option<u64>) -> Self {
        let bytes = len.unwrap_or(0) as usize;
        IndexFile {
            file: LazyFile::new(base_offset, suffix),
            written: bytes / N,
            pending: Vec::new(),
            is_made: len.is_some(),
            has_stale_end: !bytes.is_multiple_of(N),
            is_held: false,
        }
    }

    pub(crate) fn entries(&self) -> usize {
        self.written + self.pending.len()
    }

    /// Entries that are in the file.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    pub(crate) fn append(
        &mut self,
        directory: &Directory,
        entry: [u8; N],
    ) -> Result<(), StorageError> {
        self.pending.push(entry);
        if self.is_held || self.pending.len() < PENDING_MAX {
            return Ok(());
        }
        match self.write_pending(directory) {
            // The batch is in the log; its entry waits on. More come only as far as the log itself finds space.
            Err(error) if error.is_storage_full() => Ok(()),
            written => written,
        }
    }

    pub(crate) fn write_pending(&mut self, directory: &Directory) -> Result<(), StorageError> {
        if self.has_stale_end {
            self.set_len(directory)?;
        }
        if self.is_held || self.pending.is_empty() {
            return Ok(());
        }
        let file = self.file_to_write(directory)?;
        let position = (self.written * N) as u64;
        let bytes = self.pending.as_flattened();
        file.write_all_at(&[IoSlice::new(bytes)], position)
            .map_err(|e| self.file.error(directory, "write", e).at(position))?;
        self.written += self.pending.len();
        self.pending.clear();
        Ok(())
    }

    pub(crate) fn entry(&self, directory: &Directory, n: usize) -> Result<[u8; N], StorageError> {
        if n >= self.written {
            return Ok(self.pending[n - self.written]);
        }
        let mut entry = [0; N];
        self.read_written(directory, n, std::slice::from_mut(&mut entry))?;
        Ok(entry)
    }

    pub(crate) fn last(&self, directory: &Directory) -> Result<Option<[u8; N]>, StorageError> {
        match self.entries() {
            0 => Ok(None),
            n => self.entry(directory, n - 1).map(Some),
        }
    }

    fn read_written(
        &self,
        directory: &Directory,
        n: usize,
        out: &mut [[u8; N]],
    ) -> Result<(), StorageError> {
        let position = (n * N) as u64;
        let file = self.file.get(directory)?;
        directory
            .read_exact_at(&*file, out.as_flattened_mut(), position)
            .map_err(|e| self.file.error(directory, "read", e).at(position))
    }

    /// The entries from the front that satisfy `is_before`; those that do are all in front of those that do not.
    /// `known` is the number of one that does and has few others behind it, or 0.
    pub(crate) fn front(
        &self,
        directory: &Directory,
        known: usize,
        is_before: impl Fn(&[u8; N]) -> bool,
    ) -> Result<Front<N>, StorageError> {
        let in_pending = self.pending.partition_point(&is_before);
        if in_pending > 0 {
            let last = self.pending.get(in_pending - 1).copied();
            return Ok(Front { count: self.written + in_pending, last });
        }
        if (1..self.written).contains(&known) {
            let near = self.written.min(known + BLOCK);
            let found = self.search(directory, known, near, &is_before)?;
            if found.count < near || near == self.written {
                return Ok(found);
            }
        }
        self.search(directory, 0, self.written, is_before)
    }

    /// [`IndexFile::front`] of the written entries from `low` to `high`.
    fn search(
        &self,
        directory: &Directory,
        mut low: usize,
        mut high: usize,
        is_before: impl Fn(&[u8; N]) -> bool,
    ) -> Result<Front<N>, StorageError> {
        let mut last = None;
        while high - low > BLOCK {
            let middle = low + (high - low) / 2;
            let entry = self.entry(directory, middle)?;
            if is_before(&entry) {
                last = Some(entry);
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low == high {
            return Ok(Front { count: low, last });
        }
        let mut block = [[0; N]; BLOCK];
        let block = &mut block[..high - low];
        self.read_written(directory, low, block)?;
        let count = block.partition_point(is_before);
        let last = count.checked_sub(1).map_or(last, |n| Some(block[n]));
        Ok(Front { count: low + count, last })
    }

    pub(crate) fn truncate(
        &mut self,
        directory: &Directory,
        entries: usize,
    ) -> Result<(), StorageError> {
        if entries >= self.written {
            self.pending.truncate(entries - self.written);
            return Ok(());
        }
        self.pending.clear();
        self.written = entries;
        self.set_len(directory)
    }

    fn set_len(&mut self, directory: &Directory) -> Result<(), StorageError> {
        let file = self.file_to_write(directory)?;
        file.set_len((self.written * N) as u64)
            .map_err(|e| self.file.error(directory, "truncate", e))?;
        self.has_stale_end = false;
        Ok(())
    }

    /// Drops all entries. Those in the file go before others are written.
    pub(crate) fn reset(&mut self) {
        self.has_stale_end |= self.written > 0;
        self.pending.clear();
        self.written = 0;
    }

    /// Writes what waits and makes the file even where it has no entries: Kafka rebuilds a segment without one.
    pub(crate) fn finish(&mut self, directory: &Directory) -> Result<(), StorageError> {
        self.write_pending(directory)?;
        if self.is_made || self.is_held {
            return Ok(());
        }
        self.file_to_write(directory).map(drop)
    }

    /// Takes the file away, durably: a start that finds none builds the segment's indexes anew. What comes waits in
    /// memory.
    pub(crate) fn begin_anew(&mut self, directory: &Directory) -> Result<(), StorageError> {
        self.close();
        directory.remove_file(&self.file.name())?;
        directory.sync_entries()?;
        self.pending.clear();
        (self.written, self.is_made, self.has_stale_end) = (0, false, false);
        self.is_held = true;
        Ok(())
    }

    /// Writes what came since [`IndexFile::begin_anew`]; the file is there whole and durable, or not at all.
    pub(crate) fn end_anew(&mut self, directory: &Directory) -> Result<(), StorageError> {
        let path = self.file.path(directory);
        let written = directory.disk().write_atomic(&path, self.pending.as_flattened());
        written.map_err(|e| StorageError::new("write", &path, e))?;
        self.written = std::mem::take(&mut self.pending).len();
        (self.is_made, self.is_held) = (true, false);
        Ok(())
    }

    fn file_to_write(&mut self, directory: &Directory) -> Result<Arc<dyn DiskFile>, StorageError> {
        if self.is_made {
            return self.file.get_to_write(directory);
        }
        let file = self.file.create(directory)?;
        self.is_made = true;
        Ok(file)
    }

    /// Adds the file to those to sync, once it is made.
    pub(crate) fn add_to(
        &self,
        to_sync: &mut ToSync,
        directory: &Directory,
    ) -> Result<(), StorageError> {
        if self.is_made { to_sync.add(&self.file, directory) } else { Ok(()) }
    }

    pub(crate) fn close(&self) {
        self.file.close();
    }
}
