//! The cleaner's side of a partition: what of its log can be cleaned, and taking cleaned segments in.
//!
//! Invariants: one cleaning at a time, and no retention meanwhile; a log that was truncated, closed, deleted or is no
//! longer compacted takes nothing in. The slow steps are not here, so the lock is held for renames at the most.

use super::{Owned, Partition};
use crate::log::{Cleanable, CleanedSegment, Cleaning, DeletedFiles, ReadError, StorageError};
use ottla_protocol::Timestamp;

/// Where a partition stands with the cleaner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CleaningState {
    /// It may be chosen.
    Idle,
    /// A thread cleans it.
    InProgress,
    /// A cleaning failed for good: set aside until the next start.
    Uncleanable,
}

/// How a cleaning ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CleaningEnd {
    /// All was swapped in.
    Done,
    /// It was broken off and may be tried again.
    Stopped,
    /// It would fail again.
    Failed,
}

impl Owned {
    fn cleanable(&self, now: Timestamp) -> Result<Option<Cleanable>, ReadError> {
        match &self.log {
            Some(log) if self.cleaning == CleaningState::Idle && self.moving.is_none() => {
                log.cleanable(log.cleaner_checkpoint(), self.replica.high_watermark(), now)
            }
            _ => Ok(None),
        }
    }
}

impl Partition {
    /// What of the log should be cleaned now; `None` where there is nothing, a cleaning is under way, or it was set
    /// aside. A checkpoint outside the log is put right.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub(crate) fn cleanable(&self, now: Timestamp) -> Result<Option<Cleanable>, ReadError> {
        let mut owned = self.owned.lock();
        let Some(found) = owned.cleanable(now)? else { return Ok(None) };
        let Some(log) = owned.log.as_mut() else { return Ok(None) };
        if found.is_reset {
            log.set_cleaner_checkpoint(Some(found.first_dirty_offset));
        }
        Ok(Some(found).filter(|it| it.is_due(log.config().min_cleanable_dirty_ratio)))
    }

    /// Begins a cleaning, to be followed by [`Partition::end_cleaning`]; `None` where there is nothing to clean after
    /// all.
    ///
    /// # Errors
    /// A segment or an index cannot be read.
    pub(crate) fn begin_cleaning(&self, now: Timestamp) -> Result<Option<Cleaning>, ReadError> {
        let mut owned = self.owned.lock();
        let (Some(found), Some(log)) = (owned.cleanable(now)?, &owned.log) else { return Ok(None) };
        let cleaning = log.prepare_cleaning(found, now)?;
        owned.cleaning = CleaningState::InProgress;
        Ok(Some(cleaning))
    }

    /// Whether a cleaning that began when the log had been truncated so often is still of use.
    pub(crate) fn wants_cleaned(&self, truncations: u64) -> bool {
        let owned = self.owned.lock();
        // As in Kafka, a move to another log directory breaks a cleaning off.
        owned.moving.is_none()
            && owned.log.as_ref().is_some_and(|log| log.wants_cleaned(truncations))
    }

    /// Takes a cleaned segment in and gives the files of those that it replaces, to be removed later; `None` where
    /// the log has changed and the segment was removed. Waits for the disk, without the lock.
    ///
    /// # Errors
    /// A rename or sync failed: the log is offline.
    pub(crate) fn swap_in(
        &self,
        cleaned: CleanedSegment,
    ) -> Result<Option<Vec<DeletedFiles>>, StorageError> {
        let has_begun = {
            let mut owned = self.owned.lock();
            let is_moving = owned.moving.is_some();
            match owned.log.as_mut() {
                Some(log) if log.config().cleanup_policy.compact && !is_moving => {
                    let begun = log.begin_swap(&cleaned);
                    self.note_failure(log, begun.as_ref().err());
                    begun?
                }
                _ => false,
            }
        };
        if !has_begun {
            cleaned.discard()?;
            return Ok(None);
        }
        let synced = cleaned.sync_names();
        let mut owned = self.owned.lock();
        let Some(log) = owned.log.as_mut() else { return Ok(None) };
        if let Err(error) = synced {
            log.fail_cleaning();
            self.note_failure(log, Some(&error));
            return Err(error);
        }
        let replaced = log.finish_swap(cleaned);
        self.note_failure(log, replaced.as_ref().err());
        replaced
    }

    /// Puts the log offline: a file of a cleaning could not be written.
    pub(crate) fn fail_cleaning(&self) {
        if let Some(log) = self.owned.lock().log.as_mut() {
            log.fail_cleaning();
            self.note_failure(log, None);
        }
    }

    /// Ends what [`Partition::begin_cleaning`] began; `true` where the checkpoint has moved.
    pub(crate) fn end_cleaning(&self, cleaning: &Cleaning, end: CleaningEnd) -> bool {
        let mut owned = self.owned.lock();
        owned.cleaning = match end {
            CleaningEnd::Failed => CleaningState::Uncleanable,
            CleaningEnd::Done | CleaningEnd::Stopped => CleaningState::Idle,
        };
        let Some(log) = owned.log.as_mut() else { return false };
        let is_done = end == CleaningEnd::Done && log.wants_cleaned(cleaning.truncations());
        if is_done {
            log.set_cleaner_checkpoint(Some(cleaning.end_offset()));
        }
        is_done
    }

    /// Sets the partition aside: it cannot even be told what of it is to be cleaned. `true` the first time.
    pub(crate) fn set_uncleanable(&self) -> bool {
        let mut owned = self.owned.lock();
        std::mem::replace(&mut owned.cleaning, CleaningState::Uncleanable)
            != CleaningState::Uncleanable
    }

    /// Rolls the active segment where it has `bytes_min` bytes and cleaning it would pay.
    ///
    /// # Errors
    /// The new segment cannot be made: the log is offline.
    pub(crate) fn roll_for_cleaning(
        &self,
        may_roll: crate::log::MayRoll,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        match self.owned.lock().log.as_mut() {
            Some(log) => log.roll_for_cleaning(may_roll, now),
            None => Ok(()),
        }
    }

    /// Whether the log is compacted.
    pub(crate) fn is_compacted(&self) -> bool {
        self.with_log(|log| log.config().cleanup_policy.compact).unwrap_or(false)
    }
}
