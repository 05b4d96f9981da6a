//! A segment's files: filled ahead, completed, synced, closed.

use super::{SCAN_BYTES, Segment};
use crate::log::directory::{Directory, LazyFile, ToSync};
use crate::log::error::StorageError;
use std::collections::VecDeque;
use std::io::IoSlice;

/// How far the file is filled ahead of the batches at once.
const FILL_BYTES: usize = 256 * 1024;
static ZEROS: [u8; FILL_BYTES] = [0; FILL_BYTES];
/// Larger appends gain little by it.
const FILL_APPEND_BYTES_MAX: usize = 16 * 1024;

impl Segment {
    /// Fills the file with zeros behind the batches, of which `appended` bytes are new, but not past `segment_bytes`:
    /// what is then written over the zeros changes neither the file's length nor its blocks, and a sync of it is one
    /// of data alone.
    pub(crate) fn fill_ahead(
        &mut self,
        directory: &Directory,
        appended: usize,
        segment_bytes: i32,
    ) -> Result<(), StorageError> {
        let size = u64::from(self.size);
        if size <= self.filled_to || appended > FILL_APPEND_BYTES_MAX {
            return Ok(());
        }
        let file = self.file.get_to_write(directory)?;
        let room = u64::try_from(segment_bytes).unwrap_or_default().saturating_sub(size);
        let zeros = &ZEROS[..FILL_BYTES.min(room as usize)];
        if let Err(e) = file.write_all_at(&[IoSlice::new(zeros)], size) {
            self.has_torn_end = file.set_len(size).is_err();
            let error = self.file_error(directory, "write", size, e);
            // The batches are there, and the next ones find out for themselves whether there is room for them.
            return if error.is_storage_full() { Ok(()) } else { Err(error) };
        }
        self.filled_to = size + zeros.len() as u64;
        Ok(())
    }

    /// Whether nothing but zeros lies behind the batches in a file of `file_len` bytes.
    pub(crate) fn is_zero_from_end(
        &self,
        directory: &Directory,
        file_len: u64,
    ) -> Result<bool, StorageError> {
        let file = self.file(directory)?;
        let mut chunk = [0; SCAN_BYTES];
        let mut position = u64::from(self.size);
        while position < file_len {
            let len = (chunk.len() as u64).min(file_len - position) as usize;
            directory
                .read_exact_at(&*file, &mut chunk[..len], position)
                .map_err(|e| self.file_error(directory, "read", position, e))?;
            if chunk[..len] != ZEROS[..len] {
                return Ok(false);
            }
            position += len as u64;
        }
        Ok(true)
    }

    /// Writes what the indexes still hold in memory.
    pub(crate) fn write_indexes(&mut self, directory: &Directory) -> Result<(), StorageError> {
        self.offset_index.file.write_pending(directory)?;
        self.time_index.file.write_pending(directory)?;
        self.transactions.file.write_pending(directory)
    }

    /// Completes the files of a segment that takes no more appends, as Kafka expects to find them.
    pub(crate) fn finish(&mut self, directory: &Directory) -> Result<(), StorageError> {
        if self.size == 0 && directory_is_without(directory, &self.file) {
            return Ok(());
        }
        if self.has_torn_end || self.filled_to > u64::from(self.size) {
            self.cut_at(directory, self.size)?;
        }
        let largest = self.max_timestamp(directory)?;
        self.time_index.maybe_append(directory, largest)?;
        self.offset_index.file.finish(directory)?;
        self.time_index.file.finish(directory)?;
        self.transactions.file.write_pending(directory)?;
        self.tail = VecDeque::new();
        Ok(())
    }

    /// Makes the `.log` file durable, where it is there.
    pub(crate) fn sync_file(&self, directory: &Directory) -> Result<(), StorageError> {
        if directory_is_without(directory, &self.file) {
            return Ok(());
        }
        let mut to_sync = ToSync::new();
        to_sync.add(&self.file, directory)?;
        to_sync.take_owed().run(directory)
    }

    /// Makes the batches and all index entries durable.
    pub(crate) fn sync_files(&self, directory: &Directory) -> Result<(), StorageError> {
        let mut to_sync = ToSync::new();
        self.add_files_to(&mut to_sync, directory)?;
        to_sync.take_owed().run(directory)
    }

    /// Adds the `.log` file to those to sync, where it has batches.
    pub(crate) fn add_log_to(
        &self,
        to_sync: &mut ToSync,
        directory: &Directory,
    ) -> Result<(), StorageError> {
        if self.size > 0 { to_sync.add(&self.file, directory) } else { Ok(()) }
    }

    /// Adds the files that have to be synced for every batch and index entry to be durable.
    pub(crate) fn add_files_to(
        &self,
        to_sync: &mut ToSync,
        directory: &Directory,
    ) -> Result<(), StorageError> {
        self.add_log_to(to_sync, directory)?;
        self.offset_index.file.add_to(to_sync, directory)?;
        self.time_index.file.add_to(to_sync, directory)?;
        self.transactions.file.add_to(to_sync, directory)
    }

    /// Gives the descriptors back.
    pub(crate) fn close_files(&self) {
        self.cursors.clear();
        self.file.close();
        self.offset_index.file.close();
        self.time_index.file.close();
        self.transactions.file.close();
    }
}

fn directory_is_without(directory: &Directory, file: &LazyFile) -> bool {
    !directory.disk().exists(&file.path(directory))
}
