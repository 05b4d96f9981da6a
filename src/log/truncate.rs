//! Cutting the log's end: a follower whose records differ from its leader's.

use super::Log;
use super::directory::{
    Directory, INDEX_SUFFIX, LOG_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, file_name,
};
use super::error::{ReadError, StorageError};
use super::segment::Segment;
use ottla_protocol::{Offset, Timestamp};
use tracing::info;

impl Log {
    /// Removes every record from `offset` on, and the whole batch that holds it, durably; epochs and producers
    /// follow. The owner writes the recovery point to its checkpoint before it appends again: what is appended now is
    /// not what was synced. Blocks for the disk.
    ///
    /// # Errors
    /// `Storage` and `Corrupt`: the log is offline.
    pub fn truncate_to(&mut self, offset: Offset, now: Timestamp) -> Result<(), ReadError> {
        if offset >= self.log_end_offset {
            self.epochs.truncate_from_end(self.log_end_offset);
            return Ok(());
        }
        info!(topic = %self.topic, partition = self.partition, %offset, "truncating");
        self.truncations += 1;
        let result = if self.segments[0].base_offset > offset {
            self.replace_all(offset, offset, now)
        } else {
            self.cut_from(offset, now)
        };
        result.inspect_err(|_| self.is_offline = true)
    }

    /// Removes everything, durably, and goes on at `offset`. The owner writes its checkpoints before it appends again.
    /// Blocks for the disk.
    ///
    /// # Errors
    /// `Storage`: the log is offline.
    pub fn truncate_fully_and_start_at(
        &mut self,
        offset: Offset,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        self.truncations += 1;
        self.replace_all(offset, offset, now).inspect_err(|_| self.is_offline = true)
    }

    fn cut_from(&mut self, offset: Offset, now: Timestamp) -> Result<(), ReadError> {
        let directory = self.directory.clone();
        let keep = self.floor_segment(offset).unwrap_or(0);
        // From the last one on, so that a crash leaves no hole.
        for segment in self.segments.split_off(keep + 1).into_iter().rev() {
            self.remove_segment_files(segment.base_offset)?;
            self.producers.remove_snapshot(&directory, segment.base_offset)?;
        }
        directory.sync_if_changed()?;
        self.active().truncate_to(&directory, offset, now)?;
        // What is written over it must never be followed by the rest of it.
        self.active().sync_file(&directory)?;
        self.lower_cleaner_checkpoint();
        let start = self.log_start_offset.min(offset);
        self.log_end_offset = self.active().next_offset(&directory)?.min(offset);
        if self.log_end_offset < start {
            // The log begins within a batch that is gone. What is left lies before its start, and a hole between the
            // two would be taken for lost batches after a crash.
            return self.replace_all(start, start, now);
        }
        self.recovery_point = self.recovery_point.min(self.log_end_offset);
        self.log_start_offset = self.log_start_offset.min(self.log_end_offset);
        self.epochs.truncate_from_end(self.log_end_offset);
        self.epochs.write_if_changed(&directory)?;
        directory.sync_if_changed()?;
        self.rebuild_producers(now)?;
        self.producers.take_snapshot(&directory)?;
        Ok(())
    }

    fn replace_all(
        &mut self,
        offset: Offset,
        start: Offset,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        let directory = self.directory.clone();
        // One that nothing was written into yet has none.
        directory.create()?;
        let mut old = std::mem::take(&mut self.segments);
        for segment in old.drain(1..).rev() {
            self.remove_segment_files(segment.base_offset)?;
        }
        directory.sync_if_changed()?;
        // The first one says where the log starts, until the new one does.
        let old = old.pop().map(|first| empty(first, &directory)).transpose()?;
        self.producers.truncate_fully_and_start_at(&directory, offset)?;
        self.epochs.clear();
        self.epochs.write_if_changed(&directory)?;
        let segment = self.new_segment(offset, now);
        segment.create_file(&directory)?;
        self.segments.push(segment);
        directory.sync_if_changed()?;
        if let Some(old) = old.filter(|old| *old != offset) {
            self.remove_segment_files(old)?;
        }
        self.lower_cleaner_checkpoint();
        self.log_end_offset = offset;
        self.log_start_offset = start;
        self.recovery_point = self.recovery_point.min(offset);
        directory.sync_if_changed()?;
        Ok(())
    }

    /// What is appended now was never cleaned.
    fn lower_cleaner_checkpoint(&mut self) {
        let base_offset = self.active().base_offset;
        self.cleaner_checkpoint = self.cleaner_checkpoint.map(|offset| offset.min(base_offset));
    }

    pub(super) fn remove_segment_files(&self, base_offset: Offset) -> Result<(), ReadError> {
        for suffix in [LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX] {
            self.directory.remove_file(&file_name(base_offset.0, suffix))?;
        }
        Ok(())
    }
}

/// Takes everything out of a segment's files, durably; gives its base offset.
fn empty(mut segment: Segment, directory: &Directory) -> Result<Offset, StorageError> {
    if directory.disk().exists(&directory.join(&segment.name())) {
        segment.cut_at(directory, 0)?;
        segment.sync_file(directory)?;
        segment.reset_for_recovery();
        segment.write_indexes(directory)?;
        segment.sync_files(directory)?;
    }
    Ok(segment.base_offset)
}
