//! The last step of a copy of a log that takes its place: a move to another log directory.
//!
//! The copy is a log of its own, made of the batches of the other by [`Log::append_as_follower`]. What the batches do
//! not tell is taken over here. Source: KIP-113.

use super::Log;
use super::error::StorageError;
use ottla_protocol::{Offset, Timestamp};

impl Log {
    /// Takes over what `source` knows beside its batches, all of which this log has: where it starts and ends, its
    /// leader epochs, what was decided below `high_watermark`, how far the cleaner came. Everything is durable then.
    /// Blocks for the disk.
    ///
    /// # Errors
    /// A write or sync failed: this log is of no use.
    pub fn take_over(
        &mut self,
        source: &Log,
        high_watermark: Offset,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        // Compaction may have left no record at the end.
        if self.log_end_offset < source.log_end_offset {
            self.log_end_offset = source.log_end_offset;
            self.roll(source.log_end_offset, now)?;
            self.producers.set_map_end_offset(self.log_end_offset);
        }
        self.config = source.config.clone();
        self.epochs.clear();
        for entry in source.epochs.entries() {
            self.epochs.assign(entry.epoch, entry.start_offset);
        }
        if source.log_start_offset > self.log_start_offset {
            self.log_start_offset = source.log_start_offset;
            self.producers.on_log_start_offset(self.log_start_offset);
        }
        self.producers.on_high_watermark(high_watermark);
        self.cleaner_checkpoint = source.cleaner_checkpoint;
        if !source.directory.exists() && !self.directory.exists() {
            self.recovery_point = self.log_end_offset;
            return Ok(());
        }
        self.write_metadata_file()?;
        self.flush(now)?;
        self.sync_directory()
    }

    fn sync_directory(&mut self) -> Result<(), StorageError> {
        let directory = self.directory.clone();
        self.epochs.write_if_changed(&directory)?;
        directory.sync_if_changed()
    }
}
