//! Compaction of one log: what of it can be cleaned, and putting cleaned segments in the place of others.
//!
//! Three steps, so that only the first and the last need the log itself: [`Log::cleanable`] and
//! [`Log::prepare_cleaning`] choose segments, [`Cleaning`] makes new files of them, [`Log::begin_swap`] and
//! [`Log::finish_swap`] take those in. When to clean and how fast is the broker's affair.
//!
//! Invariants: the active segment, and what is not below the last stable offset, is never cleaned; offsets stay; a
//! crash at any point leaves the old segments or the new one. Source: Kafka documentation, "Log Compaction";
//! KIP-58 (min lag), KIP-354 (max lag), KIP-534 (delete horizon).

mod clean;
mod filter;
mod key_map;
mod reader;
#[cfg(test)]
mod tests;
mod transactions;

pub use clean::{CleanStats, CleanedSegment, Cleaning, CleaningBuffers, CleaningError};

use super::Log;
use super::directory::{CLEANED_SUFFIX, SWAP_SUFFIX, file_name};
use super::error::{ReadError, StorageError};
use super::retention::{DeletedFiles, SEGMENT_SUFFIXES};
use super::segment::Segment;
use ottla_protocol::{Offset, Timestamp};
use tracing::{info, warn};

/// Suffixes of the files that the cleaner makes.
const MADE_SUFFIXES: &[&str] = SEGMENT_SUFFIXES.split_at(SEGMENT_SUFFIXES.len() - 1).0;

/// What of a log can be cleaned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cleanable {
    /// Everything below was cleaned before.
    pub first_dirty_offset: Offset,
    /// Base offset of the first segment that cannot be cleaned now.
    pub first_uncleanable_offset: Offset,
    /// Bytes between the two.
    pub cleanable_bytes: u64,
    /// Bytes below `first_dirty_offset`.
    pub clean_bytes: u64,
    /// A record waits longer than `max.compaction.lag.ms`.
    pub is_overdue: bool,
    /// The checkpoint was outside the log and does not count.
    pub is_reset: bool,
}

impl Cleanable {
    /// Share of the bytes that was not cleaned yet.
    pub fn ratio(&self) -> f64 {
        let total = self.cleanable_bytes + self.clean_bytes;
        if total == 0 { 0.0 } else { self.cleanable_bytes as f64 / total as f64 }
    }

    /// Whether the log should be cleaned (`min.cleanable.dirty.ratio`, `max.compaction.lag.ms`).
    pub fn is_due(&self, min_cleanable_dirty_ratio: f64) -> bool {
        self.cleanable_bytes > 0 && (self.is_overdue || self.ratio() > min_cleanable_dirty_ratio)
    }
}

/// Whether the active segment may be rolled for the cleaner's sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayRoll {
    /// Once it has as many bytes as this and is the larger part of the log.
    FromBytes(u32),
    /// As Kafka: appends alone roll.
    No,
}

impl Log {
    /// What can be cleaned, `checkpoint` being how far the cleaner has come; `None` where the log is not compacted or
    /// takes no writes.
    ///
    /// # Errors
    /// `Storage` and `Corrupt` where a segment's first batch or index cannot be read.
    pub fn cleanable(
        &self,
        checkpoint: Option<Offset>,
        high_watermark: Offset,
        now: Timestamp,
    ) -> Result<Option<Cleanable>, ReadError> {
        if !self.config.cleanup_policy.compact || self.is_offline || self.is_closed {
            return Ok(None);
        }
        let (first_dirty_offset, is_reset) = self.first_dirty_offset(checkpoint);
        let inactive = &self.segments[..self.segments.len() - 1];
        let dirty = self.floor_segment(first_dirty_offset).unwrap_or(0).min(inactive.len());
        let mut bound = self.last_stable_offset(high_watermark).max(first_dirty_offset);
        let lag_ms = self.config.min_compaction_lag_ms;
        if lag_ms > 0 {
            for segment in &inactive[dirty..] {
                if segment.largest_timestamp(&self.directory)?.0 > now.0.saturating_sub(lag_ms) {
                    bound = bound.min(segment.base_offset).max(first_dirty_offset);
                    break;
                }
            }
        }
        // The segment that holds the bound stays as it is.
        let end = self.floor_segment(bound).unwrap_or(0).min(inactive.len());
        let size = |segments: &[Segment]| segments.iter().map(|s| u64::from(s.size)).sum::<u64>();
        let is_clean = |segment: &Segment| segment.base_offset < first_dirty_offset;
        Ok(Some(Cleanable {
            first_dirty_offset,
            first_uncleanable_offset: self.segments[end].base_offset,
            cleanable_bytes: size(&inactive[dirty.min(end)..end]),
            clean_bytes: size(&self.segments[..self.segments.partition_point(is_clean)]),
            is_overdue: self.is_overdue(&inactive[dirty..], now)?,
            is_reset,
        }))
    }

    /// How far the cleaner has come, which the broker keeps in its checkpoint file; `None` where it never was here.
    pub fn cleaner_checkpoint(&self) -> Option<Offset> {
        self.cleaner_checkpoint
    }

    /// Notes how far the cleaner has come.
    pub fn set_cleaner_checkpoint(&mut self, offset: Option<Offset>) {
        self.cleaner_checkpoint = offset;
    }

    /// Whether a cleaning that was prepared when the log had been truncated so often can still be taken in.
    pub fn wants_cleaned(&self, truncations: u64) -> bool {
        self.config.cleanup_policy.compact
            && !self.is_offline
            && !self.is_closed
            && self.truncations == truncations
    }

    /// Puts the log offline: the files that a cleaning made cannot be written or synced.
    pub fn fail_cleaning(&mut self) {
        self.is_offline = true;
    }

    fn first_dirty_offset(&self, checkpoint: Option<Offset>) -> (Offset, bool) {
        let start = self.log_start_offset;
        let Some(checkpoint) = checkpoint else { return (start, false) };
        if checkpoint >= start && checkpoint <= self.log_end_offset {
            return (checkpoint, false);
        }
        // With `compact,delete` retention moves the start past what was cleaned as a matter of course.
        if checkpoint > self.log_end_offset || !self.config.cleanup_policy.delete {
            warn!(topic = %self.topic, partition = self.partition, %checkpoint,
                log_start_offset = %start, log_end_offset = %self.log_end_offset,
                "the cleaner's checkpoint is outside the log: cleaning begins at the log's start");
        }
        (start, true)
    }

    fn is_overdue(&self, dirty: &[Segment], now: Timestamp) -> Result<bool, ReadError> {
        let lag_ms = self.config.max_compaction_lag_ms.max(0);
        if lag_ms == i64::MAX {
            return Ok(false);
        }
        for segment in dirty {
            let first = segment.first_timestamp(&self.directory)?.0;
            if first > 0 && first < now.0.saturating_sub(lag_ms) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Rolls the active segment where `may_roll` and `min.cleanable.dirty.ratio` say that cleaning would pay.
    ///
    /// # Errors
    /// The new segment cannot be made: the log is offline.
    pub fn roll_for_cleaning(
        &mut self,
        may_roll: MayRoll,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let MayRoll::FromBytes(bytes_min) = may_roll else { return Ok(()) };
        if !self.config.cleanup_policy.compact || self.is_offline || self.is_closed {
            return Ok(());
        }
        let active = u64::from(self.active().size);
        let ratio = active as f64 / self.size().max(1) as f64;
        if active >= u64::from(bytes_min) && ratio > self.config.min_cleanable_dirty_ratio {
            self.roll(self.log_end_offset, now)?;
        }
        Ok(())
    }

    /// Takes what a cleaning needs to know out of the log.
    ///
    /// # Errors
    /// A transaction index cannot be read.
    pub fn prepare_cleaning(
        &self,
        cleanable: Cleanable,
        now: Timestamp,
    ) -> Result<Cleaning, StorageError> {
        let end = cleanable.first_uncleanable_offset;
        let first = self.segments.partition_point(|segment| segment.base_offset < end);
        // The markers of aborted transactions may lie after what is cleaned.
        let mut aborted_after = Vec::new();
        for segment in &self.segments[first..] {
            let index = &segment.transactions;
            if index.collect(&self.directory, Offset(0), end, &mut aborted_after)? {
                break;
            }
        }
        Ok(Cleaning::new(clean::CleaningParams {
            directory: self.directory.clone(),
            name: format!("{}-{}", self.topic, self.partition),
            config: self.config.clone(),
            segments: self.segments[..first].iter().map(Segment::view).collect(),
            aborted_after,
            last_records: self.producers.last_records(),
            cleanable,
            truncations: self.truncations,
            synced_to: self.recovery_point,
            now,
        }))
    }

    /// The segments that `cleaned` was made of, if they are still as they were.
    fn segments_of(&self, cleaned: &CleanedSegment) -> Option<std::ops::Range<usize>> {
        if self.is_offline || self.is_closed || self.truncations != cleaned.truncations {
            return None;
        }
        let (base_offset, _) = *cleaned.sources.first()?;
        let first = self.floor_segment(base_offset)?;
        let range = first..first + cleaned.sources.len();
        // The active segment is none of them.
        let found = self.segments.get(range.clone()).filter(|_| range.end < self.segments.len())?;
        let is_same = found.iter().zip(&cleaned.sources).all(|(segment, (base_offset, size))| {
            segment.base_offset == *base_offset && segment.size == *size
        });
        is_same.then_some(range)
    }

    /// First half of the swap: from here on a restart completes it. To be followed by
    /// [`CleanedSegment::sync_names`] and [`Log::finish_swap`]. `false` where the log has changed: the cleaned
    /// segment is of no use and [`CleanedSegment::discard`] is due.
    ///
    /// # Errors
    /// A rename failed: the log is offline.
    pub fn begin_swap(&mut self, cleaned: &CleanedSegment) -> Result<bool, StorageError> {
        if self.segments_of(cleaned).is_none() {
            return Ok(false);
        }
        for suffix in MADE_SUFFIXES {
            let name = file_name(cleaned.base_offset().0, suffix);
            let (from, to) = (format!("{name}{CLEANED_SUFFIX}"), format!("{name}{SWAP_SUFFIX}"));
            self.directory.rename_file(&from, &to).map_err(|e| self.fail(e))?;
        }
        Ok(true)
    }

    /// Second half of the swap; gives the files of the old segments, to be removed later. `None` where the log has
    /// changed since [`Log::begin_swap`]: the cleaned segment is removed, or completed by the next start where the
    /// log was closed meanwhile.
    ///
    /// # Errors
    /// A file operation failed: the log is offline.
    pub fn finish_swap(
        &mut self,
        cleaned: CleanedSegment,
    ) -> Result<Option<Vec<DeletedFiles>>, StorageError> {
        let Some(range) = self.segments_of(&cleaned) else {
            if !self.is_closed || self.truncations != cleaned.truncations {
                cleaned.discard().map_err(|e| self.fail(e))?;
            }
            return Ok(None);
        };
        self.replace(range, cleaned).map(Some).map_err(|e| self.fail(e))
    }

    fn replace(
        &mut self,
        range: std::ops::Range<usize>,
        cleaned: CleanedSegment,
    ) -> Result<Vec<DeletedFiles>, StorageError> {
        let base_offset = cleaned.base_offset();
        let new = cleaned.segment();
        let (count, size) = (range.len(), new.size);
        let old: Vec<Segment> = self.segments.splice(range, [new]).collect();
        let mut deleted = Vec::with_capacity(old.len());
        for segment in old {
            deleted.push(if segment.base_offset == base_offset {
                // The producers' snapshot at its base offset is still that of the new one.
                self.rename_files_to_deleted(segment, MADE_SUFFIXES)?
            } else {
                self.rename_to_deleted(segment)?
            });
        }
        for suffix in MADE_SUFFIXES {
            let name = file_name(base_offset.0, suffix);
            self.directory.rename_file(&format!("{name}{SWAP_SUFFIX}"), &name)?;
        }
        info!(topic = %self.topic, partition = self.partition, %base_offset, count, size,
            "a cleaned segment took the place of {count}");
        Ok(deleted)
    }
}
