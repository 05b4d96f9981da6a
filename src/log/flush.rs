//! Making appended records durable, in three steps so that the slow one needs no lock: [`Log::prepare_flush`],
//! [`FlushJob::run`], [`Log::mark_flushed`].
//!
//! A failed sync is never retried: the kernel may have dropped the pages. The log goes offline, and with it should
//! its log directory.

use super::Log;
use super::checkpoint::PARTITION_METADATA;
use super::directory::{Directory, ToSync};
use super::error::StorageError;
use crate::env::OpenMode;
use ottla_protocol::{Offset, Timestamp};
use std::sync::Arc;

/// What a sync of the newest records has to come before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushOwed {
    /// Nothing: the page cache is enough.
    Nothing,
    /// The high watermark may not pass them unsynced (`ottla.ack.durability=fsync`).
    BeforeCommit,
    /// Neither the high watermark nor any acknowledgement may (`flush.messages`).
    BeforeAnswer,
}

/// The files to sync for one flush.
#[derive(Debug)]
pub struct FlushJob {
    up_to: Offset,
    /// How often the log was truncated when the job was made.
    truncations: u64,
    files: ToSync,
    directory: Arc<Directory>,
}

impl FlushJob {
    /// Everything below is durable once `run` has succeeded.
    pub fn up_to(&self) -> Offset {
        self.up_to
    }

    /// Syncs the files and, where entries changed, the directory. Blocks for the disk.
    ///
    /// # Errors
    /// A sync failed: pass the failure to [`Log::fail_flush`], and do not run the job again.
    pub fn run(&self) -> Result<(), StorageError> {
        self.files.run(&self.directory)?;
        self.directory.sync_if_changed()
    }
}

impl Log {
    /// Writes what waits in memory and collects the files that are not synced up to the log end offset; `None` where
    /// all is durable.
    ///
    /// # Errors
    /// An index or the epochs cannot be written: the log is offline, unless the disk is full.
    pub fn prepare_flush(&mut self) -> Result<Option<FlushJob>, StorageError> {
        self.prepare_flush_up_to(self.log_end_offset)
    }

    /// As [`Log::prepare_flush`] for the segments before the active one, which is what a roll calls for.
    ///
    /// # Errors
    /// As [`Log::prepare_flush`].
    pub fn prepare_flush_inactive(&mut self) -> Result<Option<FlushJob>, StorageError> {
        let up_to = self.active().base_offset;
        self.prepare_flush_up_to(up_to)
    }

    fn prepare_flush_up_to(&mut self, up_to: Offset) -> Result<Option<FlushJob>, StorageError> {
        if up_to <= self.recovery_point || self.is_offline {
            return Ok(None);
        }
        self.collect_files(up_to).map(Some).map_err(|e| self.fail_unless_full(e))
    }

    fn collect_files(&mut self, up_to: Offset) -> Result<FlushJob, StorageError> {
        let directory = self.directory.clone();
        self.epochs.write_if_changed(&directory)?;
        let first = self.floor_segment(self.recovery_point).unwrap_or(0);
        let mut files = ToSync::new();
        let count = self.segments.len();
        for (n, segment) in self.segments.iter_mut().enumerate().skip(first) {
            if segment.base_offset >= up_to {
                break;
            }
            // The segment that the recovery point lies in is validated and indexed anew after a crash: of the last
            // one only the batches need to be durable.
            if n + 1 == count {
                segment.add_log_to(&mut files, &directory)?;
            } else {
                segment.write_indexes(&directory)?;
                segment.add_files_to(&mut files, &directory)?;
            }
        }
        self.add_metadata_to(&mut files)?;
        self.flushing_to = up_to;
        let files = files.take_owed();
        Ok(FlushJob { up_to, truncations: self.truncations, files, directory })
    }

    /// Moves the recovery point: `job` has run. A job from before a truncation moves nothing: other records may lie
    /// at its offsets by now.
    pub fn mark_flushed(&mut self, job: &FlushJob, now: Timestamp) {
        if job.truncations == self.truncations {
            self.recovery_point = self.recovery_point.max(job.up_to);
        }
        self.last_flush = now;
    }

    /// Puts the log offline: a flush of it failed.
    pub fn fail_flush(&mut self) {
        self.is_offline = true;
    }

    /// Makes everything up to the log end offset durable. Blocks for the disk.
    ///
    /// # Errors
    /// A write or sync failed: the log is offline, and its log directory should be.
    pub fn flush(&mut self, now: Timestamp) -> Result<(), StorageError> {
        let Some(job) = self.prepare_flush()? else { return Ok(()) };
        job.run().map_err(|e| self.fail(e))?;
        self.mark_flushed(&job, now);
        Ok(())
    }

    /// What the settings ask for the records that no sync has reached yet.
    pub fn flush_owed(&self) -> FlushOwed {
        let unflushed = self.unflushed_records();
        if unflushed >= self.config.flush_messages {
            FlushOwed::BeforeAnswer
        } else if unflushed > 0 && self.config.sync_before_commit {
            FlushOwed::BeforeCommit
        } else {
            FlushOwed::Nothing
        }
    }

    /// Whether `flush.ms` asks for a flush.
    pub fn is_flush_due(&self, now: Timestamp) -> bool {
        self.unflushed_records() > 0
            && now.0.saturating_sub(self.last_flush.0) >= self.config.flush_ms
    }

    /// Flushes, completes the active segment's files, writes a producer snapshot and gives all descriptors back.
    /// The log takes no appends after it.
    ///
    /// # Errors
    /// A write or sync failed: the shutdown is not a clean one.
    pub fn close(&mut self, now: Timestamp) -> Result<(), StorageError> {
        if self.is_offline || self.is_closed {
            return Ok(());
        }
        let directory = self.directory.clone();
        if self.is_untouched() {
            self.is_closed = true;
            return Ok(());
        }
        self.complete_files(&directory).map_err(|e| self.fail_unless_full(e))?;
        self.flush(now)?;
        self.sync_active_indexes(&directory).map_err(|e| self.fail(e))?;
        directory.sync_if_changed().map_err(|e| self.fail(e))?;
        for segment in &self.segments {
            segment.close_files();
        }
        self.is_closed = true;
        Ok(())
    }

    /// Adds `partition.metadata`, where it was written since the last flush.
    fn add_metadata_to(&mut self, to_sync: &mut ToSync) -> Result<(), StorageError> {
        if !std::mem::take(&mut self.is_metadata_file_new) {
            return Ok(());
        }
        let path = self.directory.join(PARTITION_METADATA);
        let file = self.directory.disk().open(&path, OpenMode::ReadWrite);
        to_sync.add_file(file.map_err(|e| StorageError::new("open", &path, e))?);
        Ok(())
    }

    /// Nothing was ever written into it: there is nothing to say about it on the disk.
    fn is_untouched(&self) -> bool {
        !self.directory.exists()
    }

    /// A clean shutdown promises sound indexes of every segment.
    fn sync_active_indexes(&mut self, directory: &Directory) -> Result<(), StorageError> {
        let mut files = ToSync::new();
        self.active().add_files_to(&mut files, directory)?;
        self.add_metadata_to(&mut files)?;
        files.take_owed().run(directory)
    }

    fn complete_files(&mut self, directory: &Directory) -> Result<(), StorageError> {
        if !self.topic_id.is_nil() {
            self.write_metadata_file()?;
        }
        self.active().finish(directory)?;
        self.epochs.write_if_changed(directory)?;
        self.producers.take_snapshot(directory)?;
        Ok(())
    }
}
