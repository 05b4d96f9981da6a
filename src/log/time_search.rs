//! Look-ups of records by their timestamps (KIP-33, KIP-734).
//!
//! Each segment's largest timestamp says whether it has the record, its time index and offset index say near which
//! batch. That can read much that is not in memory, so there is a [`TimeView`]: a log as it was at one moment, to be
//! searched by a thread that may wait, while the log takes appends. Batches that lie in a file do not change, but the
//! log may be truncated, cleaned or cut at its beginning meanwhile: [`Log::has_all_of`] tells.

use super::Log;
use super::directory::Directory;
use super::error::ReadError;
use super::segment::Segment;
use super::time_index::TimestampOffset;
use ottla_protocol::batch::{BatchHeader, TimestampType};
use ottla_protocol::record::Payload;
use ottla_protocol::{Offset, Timestamp};
use std::ops::ControlFlow;
use std::sync::Arc;

/// The record that is looked for, from the log start offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeQuery {
    /// The first one whose timestamp is at least this.
    AtOrAfter(Timestamp),
    /// The first one of those with the largest timestamp (KIP-734).
    Largest,
}

/// A log as it was at one moment.
#[derive(Debug)]
pub struct TimeView {
    directory: Arc<Directory>,
    segments: Vec<Segment>,
    log_start_offset: Offset,
    truncations: u64,
}

impl TimeView {
    /// The record; `None` where there is none. Blocks for the disk.
    ///
    /// # Errors
    /// `Corrupt` and `Storage` when a segment cannot be read, which may be because it is gone.
    pub fn find(&self, query: TimeQuery) -> Result<Option<TimestampOffset>, ReadError> {
        let Self { directory, segments, log_start_offset, .. } = self;
        TimeSearch { directory, segments, log_start_offset: *log_start_offset }.find(query)
    }
}

impl Log {
    /// The record; `None` where there is none.
    ///
    /// # Errors
    /// `Corrupt` and `Storage` when a segment cannot be read.
    pub fn find_by_time(&self, query: TimeQuery) -> Result<Option<TimestampOffset>, ReadError> {
        self.time_search(&self.directory).find(query)
    }

    /// [`Log::find_by_time`] without waiting for the device.
    ///
    /// # Errors
    /// Those of [`Log::find_by_time`]; one of which [`ReadError::not_in_memory`] says where it would have to wait.
    pub fn find_by_time_in_memory(
        &self,
        query: TimeQuery,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        self.time_search(&self.directory.memory_only()).find(query)
    }

    fn time_search<'a>(&'a self, directory: &'a Directory) -> TimeSearch<'a> {
        let (segments, log_start_offset) = (&self.segments[..], self.log_start_offset);
        TimeSearch { directory, segments, log_start_offset }
    }

    /// The log as it is now.
    pub fn time_view(&self) -> TimeView {
        TimeView {
            directory: self.directory.clone(),
            segments: self.segments.iter().map(Segment::view).collect(),
            log_start_offset: self.log_start_offset,
            truncations: self.truncations,
        }
    }

    /// Whether the batches of `view` are still where they were then.
    pub fn has_all_of(&self, view: &TimeView) -> bool {
        let Some(first) = view.segments.first() else { return true };
        let begin = self.segments.partition_point(|it| it.base_offset < first.base_offset);
        let mut now = self.segments[begin..].iter();
        let is_same = |(n, then): (usize, &Segment)| {
            let is_last = n + 1 == view.segments.len();
            now.next().is_some_and(|now| {
                now.base_offset == then.base_offset
                    && (now.size == then.size || is_last && now.size > then.size)
            })
        };
        self.truncations == view.truncations && view.segments.iter().enumerate().all(is_same)
    }
}

/// A search through some segments.
struct TimeSearch<'a> {
    directory: &'a Directory,
    segments: &'a [Segment],
    log_start_offset: Offset,
}

impl TimeSearch<'_> {
    fn find(&self, query: TimeQuery) -> Result<Option<TimestampOffset>, ReadError> {
        match query {
            TimeQuery::AtOrAfter(timestamp) => self.at_or_after(timestamp),
            TimeQuery::Largest => self.largest(),
        }
    }

    fn at_or_after(&self, timestamp: Timestamp) -> Result<Option<TimestampOffset>, ReadError> {
        for segment in self.segments {
            // The segment's largest timestamp may lie below the log start offset.
            if segment.largest_timestamp(self.directory)? >= timestamp
                && let Some(found) = self.search_segment(segment, timestamp)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn search_segment(
        &self,
        segment: &Segment,
        timestamp: Timestamp,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let entry = segment.time_index.lookup(self.directory, timestamp)?;
        let from = entry.offset.max(self.log_start_offset);
        let entry = segment.offset_index.lookup(self.directory, from)?;
        let mut position = u64::from(entry.place.position);
        // A batch may hold the timestamp below the log start offset only: then the search goes on after it.
        while let Some((header, at)) = self.batch_with_timestamp(segment, position, timestamp)? {
            let records = self.read_batch(segment, &header, at)?;
            let found = first_record(&header, &records, |found| {
                found.timestamp >= timestamp && found.offset >= self.log_start_offset
            });
            if let Some(found) = found.map_err(|cause| self.corrupt(segment, at, cause))? {
                return Ok(Some(found));
            }
            position = at + header.size() as u64;
        }
        Ok(None)
    }

    fn batch_with_timestamp(
        &self,
        segment: &Segment,
        position: u64,
        timestamp: Timestamp,
    ) -> Result<Option<(BatchHeader, u64)>, ReadError> {
        segment.scan(self.directory, position, u64::from(segment.size), |header, at| {
            let is_below = header.last_offset() < self.log_start_offset;
            if header.max_timestamp < timestamp || is_below {
                return ControlFlow::Continue(());
            }
            ControlFlow::Break((*header, at))
        })
    }

    fn largest(&self) -> Result<Option<TimestampOffset>, ReadError> {
        let mut largest: Option<(&Segment, TimestampOffset)> = None;
        for segment in self.segments {
            let found = if segment.base_offset < self.log_start_offset {
                self.largest_above_start(segment)?
            } else {
                segment.max_timestamp(self.directory)?
            };
            if largest.is_none_or(|(_, before)| found.timestamp > before.timestamp) {
                largest = Some((segment, found));
            }
        }
        let Some((segment, largest)) = largest.filter(|(_, found)| found.timestamp.0 >= 0) else {
            return Ok(None);
        };
        let entry = segment.offset_index.lookup(self.directory, largest.offset)?;
        let end = u64::from(segment.size);
        let batch =
            segment.scan(self.directory, u64::from(entry.place.position), end, |header, at| {
                if header.last_offset() >= largest.offset {
                    ControlFlow::Break((*header, at))
                } else {
                    ControlFlow::Continue(())
                }
            })?;
        let Some((header, at)) = batch else { return Ok(None) };
        let records = self.read_batch(segment, &header, at)?;
        let found = if header.timestamp_type() == TimestampType::LogAppendTime {
            Ok(Some(TimestampOffset {
                timestamp: header.max_timestamp,
                offset: header.base_offset,
            }))
        } else {
            first_record(&header, &records, |found| {
                found.timestamp == largest.timestamp && found.offset >= self.log_start_offset
            })
        };
        found.map_err(|cause| self.corrupt(segment, at, cause))
    }

    /// The largest timestamp at or after the log start offset, which the segment holds, and the last offset of the
    /// batch that has it.
    fn largest_above_start(&self, segment: &Segment) -> Result<TimestampOffset, ReadError> {
        let (start, end) = (self.log_start_offset, u64::from(segment.size));
        let none = TimestampOffset { timestamp: Timestamp::NONE, offset: start };
        let Some(first) = segment.find(self.directory, start)? else { return Ok(none) };
        let (mut largest, mut cut) = (none, None);
        segment.scan(self.directory, u64::from(first.position), end, |header, at| {
            let offset = header.last_offset();
            if header.base_offset < start {
                cut = Some((*header, at));
            } else if header.max_timestamp > largest.timestamp {
                largest = TimestampOffset { timestamp: header.max_timestamp, offset };
            }
            ControlFlow::<()>::Continue(())
        })?;
        let Some((header, at)) = cut else { return Ok(largest) };
        let records = self.read_batch(segment, &header, at)?;
        let mut offset_largest = none;
        let found = first_record(&header, &records, |found| {
            if found.offset >= start && found.timestamp > offset_largest.timestamp {
                let offset = header.last_offset();
                offset_largest = TimestampOffset { timestamp: found.timestamp, offset };
            }
            false
        });
        found.map_err(|cause| self.corrupt(segment, at, cause))?;
        let is_cut = offset_largest.timestamp >= largest.timestamp;
        Ok(if is_cut { offset_largest } else { largest })
    }

    fn read_batch(
        &self,
        segment: &Segment,
        header: &BatchHeader,
        at: u64,
    ) -> Result<Vec<u8>, ReadError> {
        let mut batch = vec![0; header.size()];
        let file = segment.file(self.directory)?;
        self.directory
            .read_exact_at(&*file, &mut batch, at)
            .map_err(|e| segment.file_error(self.directory, "read", at, e))?;
        Ok(batch)
    }

    fn corrupt(&self, segment: &Segment, position: u64, cause: String) -> ReadError {
        ReadError::Corrupt { path: self.directory.join(&segment.name()), position, cause }
    }
}

/// The first record of a batch that `is_wanted`.
fn first_record(
    header: &BatchHeader,
    batch: &[u8],
    mut is_wanted: impl FnMut(&TimestampOffset) -> bool,
) -> Result<Option<TimestampOffset>, String> {
    let mut scratch = Vec::new();
    let limit = i32::MAX as usize;
    let payload = Payload::expand(header, batch, limit, &mut scratch).map_err(|e| e.to_string())?;
    for record in payload.iter() {
        let record = record.map_err(|e| e.to_string())?;
        let found =
            TimestampOffset { timestamp: record.timestamp(header), offset: record.offset(header) };
        if is_wanted(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
