//! What the chores want of a partition: its settings, what retention lets go, its lines in the checkpoints.

use super::Partition;
use super::cleaning::CleaningState;
use crate::log::{DeletedFiles, LogConfig, StorageError};
use crate::machines::replica::Event;
use ottla_protocol::{Offset, Timestamp};
use std::sync::Arc;

impl Partition {
    /// `file.delete.delay.ms` of the topic.
    pub fn file_delete_delay_ms(&self) -> i64 {
        self.with_log(|log| log.config().file_delete_delay_ms).unwrap_or(0)
    }

    /// Takes new settings.
    pub fn set_config(&self, config: Arc<LogConfig>, min_insync_replicas: usize) {
        let now = self.clock.steady();
        let mut owned = self.owned.lock();
        if let Some(log) = owned.log.as_mut() {
            log.set_config(config);
        }
        let effects = owned.replica.step(Event::MinIsr { min_insync_replicas, now });
        // It fails without a log only.
        let _ = self.perform(&mut owned, effects);
    }

    /// Forgets producers that were silent for `producer.id.expiration.ms`.
    pub fn remove_expired_producers(&self, now: Timestamp) {
        // A partition that is closed has none.
        let _ = self.with_log(|log| log.remove_expired_producers(now));
    }

    /// Deletes what retention lets go; the files are to be removed later. Nothing while the log is being cleaned.
    ///
    /// # Errors
    /// The log is offline.
    pub fn apply_retention(&self, now: Timestamp) -> Result<Vec<DeletedFiles>, StorageError> {
        if self.is_offline() {
            return Ok(Vec::new());
        }
        let deleted = {
            let mut owned = self.owned.lock();
            if owned.cleaning == CleaningState::InProgress {
                return Ok(Vec::new());
            }
            let high_watermark = owned.replica.high_watermark();
            let Some(log) = owned.log.as_mut() else { return Ok(Vec::new()) };
            let deleted = log.apply_retention(now, high_watermark);
            self.note_failure(log, deleted.as_ref().err());
            let deleted = deleted?;
            if !deleted.is_empty() {
                let log_start_offset = log.log_start_offset();
                // The high watermark is at or above it already; no effect can come.
                owned.replica.step(Event::LogStartMoved { log_start_offset });
            }
            deleted
        };
        match deleted.last().map_or(Ok(()), DeletedFiles::sync_renames) {
            Ok(()) => Ok(deleted),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// What the checkpoints of the log directory hold: recovery point, log start offset, high
    /// watermark, how far the cleaner has come.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let owned = self.owned.lock();
        let log = owned.log.as_ref()?;
        Some(Checkpoint {
            directory: log.path().parent()?.to_owned(),
            recovery_point: log.recovery_point(),
            log_start_offset: log.log_start_offset(),
            first_segment: log.segments().next().map_or(Offset(0), |segment| segment.base_offset),
            high_watermark: owned.replica.high_watermark(),
            cleaned_to: log.cleaner_checkpoint(),
        })
    }

    /// The same for the log directory that the log moves to, so that it is there before the log is.
    pub fn future_checkpoint(&self) -> Option<Checkpoint> {
        let owned = self.owned.lock();
        let (log, moving) = (owned.log.as_ref()?, owned.moving.as_ref()?);
        Some(Checkpoint {
            directory: moving.log_dir.clone(),
            recovery_point: moving.flushed_to(),
            log_start_offset: log.log_start_offset(),
            first_segment: Offset(0),
            high_watermark: owned.replica.high_watermark(),
            cleaned_to: log.cleaner_checkpoint(),
        })
    }
}

/// A partition's line in the checkpoints of its log directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log directory.
    pub directory: std::path::PathBuf,
    /// Everything below is synced.
    pub recovery_point: Offset,
    /// First offset that may be read.
    pub log_start_offset: Offset,
    /// Base offset of the first segment.
    pub first_segment: Offset,
    /// Below it everything is committed.
    pub high_watermark: Offset,
    /// How far the cleaner has come; `None` where it never was here.
    pub cleaned_to: Option<Offset>,
}
