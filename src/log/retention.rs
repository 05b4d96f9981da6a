//! What makes segments go: age, size, and a log start offset that moved past them.
//!
//! A deleted segment's files are renamed to `.deleted` at once, so that a restart removes them, and removed by the
//! caller `file.delete.delay.ms` later, so that a fetch under way can finish. Compacted-only logs lose segments to
//! the log start offset only.

use super::Log;
use super::directory::{
    DELETED_SUFFIX, Directory, INDEX_SUFFIX, LOG_SUFFIX, SNAPSHOT_SUFFIX, TIME_INDEX_SUFFIX,
    TXN_INDEX_SUFFIX, file_name,
};
use super::error::StorageError;
use super::segment::Segment;
use ottla_protocol::{Offset, Timestamp};
use std::sync::Arc;
use tracing::info;

/// All files of a segment, the snapshot last.
pub(super) const SEGMENT_SUFFIXES: [&str; 5] =
    [LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, SNAPSHOT_SUFFIX];

/// The files of one deleted segment, renamed and to be removed later.
#[derive(Debug)]
pub struct DeletedFiles {
    /// The segment's base offset.
    pub base_offset: Offset,
    /// Bytes of its batches.
    pub size: u64,
    names: Vec<String>,
    directory: Arc<Directory>,
}

impl DeletedFiles {
    /// Makes the renames of all files of this log durable. Blocks for the disk.
    ///
    /// # Errors
    /// The directory cannot be synced.
    pub fn sync_renames(&self) -> Result<(), StorageError> {
        self.directory.sync_if_changed()
    }

    /// Removes the files, durably. One that is gone already is no failure. Blocks for the disk.
    ///
    /// # Errors
    /// A file cannot be removed, or the directory not synced.
    pub fn remove(&self) -> Result<(), StorageError> {
        self.names.iter().try_for_each(|name| self.directory.remove_file(name))?;
        self.directory.sync_if_changed()
    }
}

/// Why the log start offset cannot move: OFFSET_OUT_OF_RANGE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot move the log start offset to {offset}, which is above the high watermark {high_watermark}"
)]
pub struct StartOffsetError {
    /// Where to.
    pub offset: Offset,
    /// The bound.
    pub high_watermark: Offset,
}

impl Log {
    /// Moves the log start offset up to `offset` (DeleteRecords, or a leader's that moved); says whether it moved.
    /// The segments below go with the next [`Log::apply_retention`].
    ///
    /// # Errors
    /// `offset` is above the high watermark.
    pub fn set_log_start_offset(
        &mut self,
        offset: Offset,
        high_watermark: Offset,
    ) -> Result<bool, StartOffsetError> {
        if offset > high_watermark {
            return Err(StartOffsetError { offset, high_watermark });
        }
        if offset <= self.log_start_offset {
            return Ok(false);
        }
        self.log_start_offset = offset;
        self.epochs.truncate_from_start(offset);
        self.producers.on_log_start_offset(offset);
        Ok(true)
    }

    /// Deletes the segments that retention lets go, none with records at or above `high_watermark`. When all go, an
    /// empty one is rolled first.
    ///
    /// # Errors
    /// A rename or the new segment failed: the log is offline.
    pub fn apply_retention(
        &mut self,
        now: Timestamp,
        high_watermark: Offset,
    ) -> Result<Vec<DeletedFiles>, StorageError> {
        if self.is_offline {
            return Ok(Vec::new());
        }
        let mut deleted =
            self.delete_oldest(high_watermark, now, "log start offset", |log, n, _| {
                Ok(log
                    .segments
                    .get(n + 1)
                    .is_some_and(|next| next.base_offset <= log.log_start_offset))
            })?;
        if !self.config.cleanup_policy.delete {
            return Ok(deleted);
        }
        let bound = self.config.retention_bytes;
        if bound >= 0 && self.size() as i64 >= bound {
            let mut surplus = self.size() as i64 - bound;
            deleted.extend(self.delete_oldest(
                high_watermark,
                now,
                "retention.bytes",
                |_, _, segment| {
                    let size = i64::from(segment.size);
                    let goes = surplus >= size;
                    surplus -= if goes { size } else { 0 };
                    Ok(goes)
                },
            )?);
        }
        let retention_ms = self.config.retention_ms;
        if retention_ms >= 0 {
            deleted.extend(self.delete_oldest(
                high_watermark,
                now,
                "retention.ms",
                |log, _, segment| {
                    let largest = segment.largest_timestamp(&log.directory)?;
                    Ok(now.0.saturating_sub(largest.0) > retention_ms)
                },
            )?);
        }
        Ok(deleted)
    }

    /// Deletes segments from the oldest on while `goes` says so.
    fn delete_oldest(
        &mut self,
        high_watermark: Offset,
        now: Timestamp,
        reason: &str,
        mut goes: impl FnMut(&Log, usize, &Segment) -> Result<bool, StorageError>,
    ) -> Result<Vec<DeletedFiles>, StorageError> {
        let mut count = 0;
        for (n, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(n + 1);
            let end = next.map_or(self.log_end_offset, |next| next.base_offset);
            let is_empty_active = next.is_none() && segment.size == 0;
            if is_empty_active || end > high_watermark || !goes(self, n, segment)? {
                break;
            }
            count += 1;
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        if count == self.segments.len() {
            match self.roll(self.log_end_offset, now) {
                // A full disk must get rid of the others all the same.
                Err(error) if error.is_storage_full() && count > 1 => count -= 1,
                rolled => rolled?,
            }
        }
        let start = self.segments[count].base_offset.max(self.log_start_offset);
        self.log_start_offset = start;
        self.epochs.truncate_from_start(start);
        self.producers.on_log_start_offset(start);
        let gone: Vec<Segment> = self.segments.drain(..count).collect();
        let (topic, partition) = (&self.topic, self.partition);
        info!(%topic, partition, count, log_start_offset = %start, "deleting segments by {reason}");
        gone.into_iter()
            .map(|segment| self.rename_to_deleted(segment))
            .collect::<Result<_, _>>()
            .map_err(|e| self.fail(e))
    }

    pub(super) fn rename_to_deleted(
        &mut self,
        segment: Segment,
    ) -> Result<DeletedFiles, StorageError> {
        let suffixes = match self.producers.forget_snapshot(segment.base_offset) {
            true => &SEGMENT_SUFFIXES[..],
            false => &SEGMENT_SUFFIXES[..SEGMENT_SUFFIXES.len() - 1],
        };
        self.rename_files_to_deleted(segment, suffixes)
    }

    /// As `rename_to_deleted`, for the files with these suffixes.
    pub(super) fn rename_files_to_deleted(
        &self,
        segment: Segment,
        suffixes: &[&str],
    ) -> Result<DeletedFiles, StorageError> {
        let base_offset = segment.base_offset;
        let mut names = Vec::new();
        for suffix in suffixes {
            let name = file_name(base_offset.0, suffix);
            let deleted = format!("{name}{DELETED_SUFFIX}");
            self.directory.rename_file(&name, &deleted)?;
            names.push(deleted);
        }
        Ok(DeletedFiles {
            base_offset,
            size: u64::from(segment.size),
            names,
            directory: self.directory.clone(),
        })
    }
}
