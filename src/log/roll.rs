//! When the active segment ends and the next begins.

use super::Log;
use super::error::{ReadError, StorageError};
use super::segment::{Segment, SegmentFiles};
use ottla_protocol::{Offset, Timestamp};
use tracing::info;

impl Log {
    /// Kafka's rules: the segment would grow past `segment.bytes`; it is not empty and older than `segment.ms` less
    /// its jitter, by the records' time; an index is full; the offset is too far from its base.
    pub(super) fn should_roll(
        &mut self,
        size: usize,
        max_timestamp: Timestamp,
        last_offset: Offset,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let directory = self.directory.clone();
        let config = self.config.clone();
        let segment = self.active();
        if !segment.offset_index.can_append(last_offset)
            || i64::from(segment.size) > i64::from(config.segment_bytes) - size as i64
        {
            return Ok(true);
        }
        let index_bytes = config.segment_index_bytes;
        if segment.offset_index.is_full(index_bytes) || segment.time_index.is_full(index_bytes) {
            return Ok(true);
        }
        if segment.size == 0 {
            return Ok(false);
        }
        let age = match segment.age_ms(&directory, now, max_timestamp) {
            Ok(age) => age,
            Err(ReadError::Storage(error)) => return Err(error),
            // A first batch that cannot be read has no age; reading it says so.
            Err(_) => 0,
        };
        Ok(age > config.segment_ms_max().saturating_sub(segment.roll_jitter_ms))
    }

    /// Begins a segment at `base_offset` or the log end offset, whichever is later, with a producer snapshot there.
    pub(super) fn roll(&mut self, base_offset: Offset, now: Timestamp) -> Result<(), StorageError> {
        let base_offset = base_offset.max(self.log_end_offset);
        self.roll_to(base_offset, now).map_err(|e| self.fail_unless_full(e))
    }

    fn roll_to(&mut self, base_offset: Offset, now: Timestamp) -> Result<(), StorageError> {
        let directory = self.directory.clone();
        let active = self.active();
        if active.base_offset == base_offset {
            // Only an empty segment ends where it begins; it goes on.
            return Ok(());
        }
        // The new segment comes last: until then a disk that is full leaves the active one as it was.
        active.finish(&directory)?;
        // A flush would pass it by, and recovery trusts the indexes before the segment of the recovery point.
        if self.recovery_point.max(self.flushing_to) >= self.log_end_offset {
            self.active().sync_files(&directory)?;
            directory.sync_if_changed()?;
        }
        self.producers.set_map_end_offset(base_offset);
        self.producers.take_snapshot(&directory)?;
        let segment = self.new_segment(base_offset, now);
        segment.create_file(&directory)?;
        self.segments.push(segment);
        info!(topic = %self.topic, partition = self.partition, %base_offset, "rolled a new log segment");
        Ok(())
    }

    pub(super) fn new_segment(&self, base_offset: Offset, now: Timestamp) -> Segment {
        let mut segment = Segment::new(base_offset, SegmentFiles::default(), now);
        segment.roll_jitter_ms = self.roll_jitter_ms(base_offset);
        segment
    }

    /// Spreads rolls over `segment.jitter.ms`: the same log and segment always get the same share.
    pub(super) fn roll_jitter_ms(&self, base_offset: Offset) -> i64 {
        let jitter = self.config.segment_jitter_ms.min(self.config.segment_ms);
        if jitter <= 0 {
            return 0;
        }
        let name = format!("{}-{}-{base_offset}", self.topic, self.partition);
        i64::from(ottla_protocol::batch::crc32c(name.as_bytes())) % jitter
    }

    /// Rolls a segment that is older than `segment.ms`; says whether it did.
    ///
    /// # Errors
    /// The new segment cannot be made: the log is offline, unless the disk is full.
    pub fn roll_if_needed(&mut self, now: Timestamp) -> Result<bool, StorageError> {
        if self.is_offline || !self.should_roll(0, now, self.log_end_offset, now)? {
            return Ok(false);
        }
        let before = self.segments.len();
        self.roll(self.log_end_offset, now)?;
        Ok(self.segments.len() > before)
    }
}
