//! A segment: one `.log` file of batches and its indexes.
//!
//! Deliberately not here: rules for appends, and when to roll or delete. Invariants: only whole batches lie below
//! `size`; their offsets grow and are within 2^31 of the base offset; bytes of the file past `size` mean nothing and
//! are overwritten. Files are opened on first use; an empty segment at the log's beginning has none.

mod files;

use super::cursors::{Cursor, Cursors};
use super::directory::{Directory, LOG_SUFFIX, LazyFile};
use super::error::{ReadError, StorageError};
use super::offset_index::{self, OffsetIndex};
use super::time_index::{self, TimeIndex, TimestampOffset};
use super::transaction_index::{self, TransactionIndex};
use crate::env::DiskFile;
use ottla_protocol::batch::{BATCH_OVERHEAD, BatchHeader};
use ottla_protocol::{Offset, Timestamp};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Bytes read at once while walking over headers.
const SCAN_BYTES: usize = 4096;
/// Newest batches of the active segment whose place is remembered, so that readers at the log's end need no index.
const TAIL_BATCHES: usize = 32;
/// Headers that are read to end a region with a whole batch; with the default interval an index entry is nearer.
const HEADERS_MAX: usize = 256;

/// Where a batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchPosition {
    pub(crate) base_offset: Offset,
    pub(crate) last_offset: Offset,
    pub(crate) position: u32,
    pub(crate) size: u32,
}

impl BatchPosition {
    fn of(header: &BatchHeader, at: u64) -> Self {
        BatchPosition {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            position: at as u32,
            size: header.size() as u32,
        }
    }
}

/// What an append needs to know of a batch, once it is validated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchMeta {
    pub(crate) base_offset: Offset,
    pub(crate) last_offset: Offset,
    pub(crate) max_timestamp: Timestamp,
    pub(crate) size: usize,
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: Offset,
    pub(crate) size: u32,
    pub(crate) offset_index: OffsetIndex,
    pub(crate) time_index: TimeIndex,
    pub(crate) transactions: TransactionIndex,
    /// Taken off `segment.ms`.
    pub(crate) roll_jitter_ms: i64,
    file: LazyFile,
    created: Timestamp,
    bytes_since_index_entry: u32,
    /// A write failed: the file may have bytes past `size`.
    has_torn_end: bool,
    /// Where the zeros end that lie ahead of the batches, if there are any.
    filled_to: u64,
    /// Largest timestamp and the last offset of the batch that has it; read from the time index when first needed.
    max_timestamp: Mutex<Option<TimestampOffset>>,
    /// Largest timestamp of the first batch.
    first_timestamp: Mutex<Option<Timestamp>>,
    tail: VecDeque<BatchPosition>,
    cursors: Cursors,
}

/// Lengths of a segment's files, as the directory lists them; `None` for one that is not there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SegmentFiles {
    pub(crate) log: Option<u64>,
    pub(crate) offset_index: Option<u64>,
    pub(crate) time_index: Option<u64>,
    pub(crate) transactions: Option<u64>,
}

impl Segment {
    pub(crate) fn new(base_offset: Offset, files: SegmentFiles, created: Timestamp) -> Self {
        let size = files.log.unwrap_or(0);
        let is_empty = size == 0;
        Segment {
            base_offset,
            size: u32::try_from(size).unwrap_or(u32::MAX),
            offset_index: OffsetIndex::new(base_offset, files.offset_index),
            time_index: TimeIndex::new(base_offset, files.time_index),
            transactions: TransactionIndex::new(base_offset, files.transactions),
            roll_jitter_ms: 0,
            file: LazyFile::new(base_offset.0, LOG_SUFFIX),
            created,
            bytes_since_index_entry: 0,
            has_torn_end: false,
            filled_to: 0,
            max_timestamp: Mutex::new(
                is_empty
                    .then_some(TimestampOffset { timestamp: Timestamp::NONE, offset: base_offset }),
            ),
            first_timestamp: Mutex::new(None),
            tail: VecDeque::new(),
            cursors: Cursors::default(),
        }
    }

    /// Another view of the segment as it is now, with descriptors of its own: its batches, and the index entries that
    /// are in the files.
    pub(crate) fn view(&self) -> Segment {
        let len = |entries: usize, size: usize| Some((entries * size) as u64);
        let transactions = self.transactions.file.written();
        let files = SegmentFiles {
            log: Some(u64::from(self.size)),
            offset_index: len(self.offset_index.file.written(), offset_index::ENTRY_SIZE),
            time_index: len(self.time_index.file.written(), time_index::ENTRY_SIZE),
            transactions: len(transactions, transaction_index::ENTRY_SIZE)
                .filter(|_| transactions > 0),
        };
        let mut view = Segment::new(self.base_offset, files, self.created);
        view.roll_jitter_ms = self.roll_jitter_ms;
        view.max_timestamp = Mutex::new(*self.max_timestamp.lock());
        view
    }

    pub(crate) fn name(&self) -> String {
        self.file.name()
    }

    /// The `.log` file; made if it is not there.
    pub(crate) fn create_file(
        &self,
        directory: &Directory,
    ) -> Result<Arc<dyn DiskFile>, StorageError> {
        self.file.create(directory)
    }

    pub(crate) fn file(&self, directory: &Directory) -> Result<Arc<dyn DiskFile>, StorageError> {
        self.file.get(directory)
    }

    pub(crate) fn file_error(
        &self,
        directory: &Directory,
        operation: &'static str,
        position: u64,
        e: std::io::Error,
    ) -> StorageError {
        self.file.error(directory, operation, e).at(position)
    }

    fn corrupt(&self, directory: &Directory, position: u64, cause: impl ToString) -> ReadError {
        ReadError::Corrupt { path: self.file.path(directory), position, cause: cause.to_string() }
    }

    /// Writes `slices`, which are `batches` one after another, at the end, and the index entries that are due.
    pub(crate) fn append(
        &mut self,
        directory: &Directory,
        slices: &[IoSlice<'_>],
        batches: &[BatchMeta],
        index_interval_bytes: i32,
    ) -> Result<(), StorageError> {
        let position = u64::from(self.size);
        let file = match position {
            0 => self.create_file(directory)?,
            _ => self.file.get_to_write(directory)?,
        };
        if let Err(e) = file.write_all_at(slices, position) {
            // What was written of it lies past the segment's size, which is what counts. It goes at once, or is
            // overwritten by the next append and goes when the segment is finished.
            self.has_torn_end = file.set_len(position).is_err();
            self.filled_to = 0;
            return Err(self.file_error(directory, "write", position, e));
        }
        for batch in batches {
            self.note(directory, batch, index_interval_bytes)?;
        }
        Ok(())
    }

    /// Takes one batch into account that now lies at the segment's end.
    pub(crate) fn note(
        &mut self,
        directory: &Directory,
        batch: &BatchMeta,
        index_interval_bytes: i32,
    ) -> Result<(), StorageError> {
        let position = self.size;
        if position == 0 {
            *self.first_timestamp.get_mut() = Some(batch.max_timestamp);
        }
        let mut largest = self.max_timestamp(directory)?;
        if batch.max_timestamp > largest.timestamp {
            largest = TimestampOffset { timestamp: batch.max_timestamp, offset: batch.last_offset };
            *self.max_timestamp.get_mut() = Some(largest);
        }
        if i64::from(self.bytes_since_index_entry) > i64::from(index_interval_bytes) {
            self.offset_index.append(directory, batch.last_offset, position)?;
            self.time_index.maybe_append(directory, largest)?;
            self.bytes_since_index_entry = 0;
        }
        self.bytes_since_index_entry =
            self.bytes_since_index_entry.saturating_add(batch.size as u32);
        self.size += batch.size as u32;
        if self.tail.len() == TAIL_BATCHES {
            self.tail.pop_front();
        }
        self.tail.push_back(BatchPosition {
            base_offset: batch.base_offset,
            last_offset: batch.last_offset,
            position,
            size: batch.size as u32,
        });
        Ok(())
    }

    /// Largest timestamp so far and the last offset of its batch; -1 without records.
    pub(crate) fn max_timestamp(
        &self,
        directory: &Directory,
    ) -> Result<TimestampOffset, StorageError> {
        let mut known = self.max_timestamp.lock();
        if let Some(largest) = *known {
            return Ok(largest);
        }
        let last = self.time_index.last(directory)?;
        *known = Some(last);
        Ok(last)
    }

    /// Largest timestamp, or the time of the file's last change where no record has one.
    pub(crate) fn largest_timestamp(
        &self,
        directory: &Directory,
    ) -> Result<Timestamp, StorageError> {
        let largest = self.max_timestamp(directory)?.timestamp;
        if largest.0 >= 0 {
            return Ok(largest);
        }
        let path = self.file.path(directory);
        match directory.disk().modified_ms(&path) {
            Ok(ms) => Ok(Timestamp(ms)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(self.created),
            Err(e) => Err(StorageError::new("stat", &path, e)),
        }
    }

    /// Walks the headers of the batches from `position` to `end`; stops where `visit` breaks.
    ///
    /// # Errors
    /// `Corrupt` at the first position where no whole batch lies; whatever was visited before is sound.
    pub(crate) fn scan<T>(
        &self,
        directory: &Directory,
        mut position: u64,
        end: u64,
        mut visit: impl FnMut(&BatchHeader, u64) -> ControlFlow<T>,
    ) -> Result<Option<T>, ReadError> {
        if position >= end {
            return Ok(None);
        }
        let file = self.file(directory)?;
        let mut chunk = [0; SCAN_BYTES];
        let (mut from, mut len) = (position, 0);
        while position < end {
            let mut at = (position - from) as usize;
            if at + BATCH_OVERHEAD > len {
                let wanted = SCAN_BYTES.min((end - position) as usize);
                if wanted < BATCH_OVERHEAD {
                    return Err(self.corrupt(directory, position, "a batch is cut"));
                }
                directory
                    .read_exact_at(&*file, &mut chunk[..wanted], position)
                    .map_err(|e| self.file_error(directory, "read", position, e))?;
                (from, len, at) = (position, wanted, 0);
            }
            let header = BatchHeader::parse(&chunk[at..len])
                .map_err(|e| self.corrupt(directory, position, e))?;
            if position + header.size() as u64 > end {
                return Err(self.corrupt(directory, position, "a batch is cut"));
            }
            if let ControlFlow::Break(found) = visit(&header, position) {
                return Ok(Some(found));
            }
            position += header.size() as u64;
        }
        Ok(None)
    }

    /// Whether the batch that holds `offset` is among the newest.
    pub(crate) fn is_recent(&self, offset: Offset) -> bool {
        self.tail.front().is_some_and(|first| offset >= first.base_offset)
    }

    /// The first batch whose last offset is not below `offset`.
    pub(crate) fn find(
        &self,
        directory: &Directory,
        offset: Offset,
    ) -> Result<Option<BatchPosition>, ReadError> {
        if self.is_recent(offset) {
            let n = self.tail.partition_point(|batch| batch.last_offset < offset);
            return Ok(self.tail.get(n).copied());
        }
        Ok(self.find_in_file(directory, offset)?.map(|cursor| cursor.batch))
    }

    fn find_in_file(
        &self,
        directory: &Directory,
        offset: Offset,
    ) -> Result<Option<Cursor>, ReadError> {
        if let Some(cursor) = self.cursors.find(offset) {
            return Ok(Some(cursor));
        }
        let entry = self.offset_index.lookup(directory, offset)?;
        let position = entry.place.position;
        let batch = match self.find_from(directory, offset, position) {
            // An index that points into nowhere is not believed: the file's start always is a batch.
            Err(ReadError::Corrupt { .. }) if position > 0 => {
                self.find_from(directory, offset, 0)?
            }
            found => found?,
        };
        Ok(batch.map(|batch| Cursor { batch, entry: entry.number }))
    }

    /// The first batch whose last offset is not below `offset`, and where the last batch begins that does not end
    /// within `bytes` of it; remembers that place, where a sequential reader goes on. Without an end, all of the
    /// segment is within `bytes`, or only a long search would tell.
    pub(crate) fn find_region(
        &self,
        directory: &Directory,
        offset: Offset,
        bytes: usize,
    ) -> Result<Option<(BatchPosition, Option<u32>)>, ReadError> {
        let from = if self.is_recent(offset) {
            self.find(directory, offset)?.map(|batch| Cursor { batch, entry: 0 })
        } else {
            self.find_in_file(directory, offset)?
        };
        let Some(from) = from else { return Ok(None) };
        let limit = u64::from(from.batch.position) + bytes as u64;
        if limit >= u64::from(self.size) || bytes < from.batch.size as usize {
            return Ok(Some((from.batch, None)));
        }
        let next = self.batch_over(directory, &from, limit as u32)?;
        if let Some(next) = next {
            self.cursors.note(next);
        }
        Ok(Some((from.batch, next.map(|next| next.batch.position))))
    }

    /// The batch at or behind `from` that does not end at or before `limit`.
    fn batch_over(
        &self,
        directory: &Directory,
        from: &Cursor,
        limit: u32,
    ) -> Result<Option<Cursor>, ReadError> {
        let is_over = |batch: &BatchPosition| batch.position + batch.size > limit;
        if self.tail.front().is_some_and(|first| first.position <= limit) {
            let over = self.tail.iter().find(|batch| is_over(batch));
            return Ok(over.map(|batch| Cursor { batch: *batch, entry: from.entry }));
        }
        let entry = self.offset_index.lookup_position(directory, from.entry, limit)?;
        let start = entry.place.position.max(from.batch.position);
        let mut left = HEADERS_MAX;
        let over = self.scan(directory, u64::from(start), u64::from(self.size), |header, at| {
            let batch = BatchPosition::of(header, at);
            left -= 1;
            if is_over(&batch) {
                return ControlFlow::Break(Some(batch));
            }
            if left == 0 { ControlFlow::Break(None) } else { ControlFlow::Continue(()) }
        });
        match over {
            // Whoever reads what is damaged will see it.
            Err(ReadError::Corrupt { .. }) => Ok(None),
            over => Ok(over?.flatten().map(|batch| Cursor { batch, entry: entry.number })),
        }
    }

    fn find_from(
        &self,
        directory: &Directory,
        offset: Offset,
        position: u32,
    ) -> Result<Option<BatchPosition>, ReadError> {
        self.scan(directory, u64::from(position), u64::from(self.size), |header, at| {
            if header.last_offset() < offset {
                return ControlFlow::Continue(());
            }
            ControlFlow::Break(BatchPosition::of(header, at))
        })
    }

    /// The offset after the last batch.
    pub(crate) fn next_offset(&self, directory: &Directory) -> Result<Offset, ReadError> {
        if let Some(last) = self.tail.back() {
            return Ok(last.last_offset.plus(1));
        }
        let mut next = self.base_offset;
        let entry = self.offset_index.last(directory)?;
        let mut from_entry = |position| {
            self.scan(directory, u64::from(position), u64::from(self.size), |header, _| {
                next = header.next_offset();
                ControlFlow::<()>::Continue(())
            })
        };
        match from_entry(entry.position) {
            Err(ReadError::Corrupt { .. }) if entry.position > 0 => from_entry(0)?,
            other => other?,
        };
        Ok(next)
    }

    /// Largest timestamp of the first batch; -1 without one.
    pub(crate) fn first_timestamp(&self, directory: &Directory) -> Result<Timestamp, ReadError> {
        let mut known = self.first_timestamp.lock();
        if let Some(first) = *known {
            return Ok(first);
        }
        let first = self.scan(directory, 0, u64::from(self.size), |header, _| {
            ControlFlow::Break(header.max_timestamp)
        })?;
        *known = first;
        Ok(first.unwrap_or(Timestamp::NONE))
    }

    /// How long the segment has taken appends, by the records' own time where they have one.
    pub(crate) fn age_ms(
        &self,
        directory: &Directory,
        now: Timestamp,
        max_timestamp: Timestamp,
    ) -> Result<i64, ReadError> {
        let first = self.first_timestamp(directory)?;
        let (from, to) = if first.0 >= 0 { (first, max_timestamp) } else { (self.created, now) };
        Ok(to.0.saturating_sub(from.0))
    }

    /// Cuts everything from the batch that holds `offset` on; says how many bytes went.
    pub(crate) fn truncate_to(
        &mut self,
        directory: &Directory,
        offset: Offset,
        now: Timestamp,
    ) -> Result<u32, ReadError> {
        let found = self.find(directory, offset)?;
        self.offset_index.truncate_to(directory, offset)?;
        self.time_index.truncate_to(directory, offset)?;
        self.transactions.truncate_to(directory, offset)?;
        let mut cut = 0;
        if let Some(batch) = found {
            cut = self.size - batch.position;
            self.cut_at(directory, batch.position)?;
        }
        self.bytes_since_index_entry = 0;
        if self.size == 0 {
            self.created = now;
            *self.first_timestamp.get_mut() = None;
        }
        let largest = self.read_max_timestamp(directory)?;
        *self.max_timestamp.get_mut() = Some(largest);
        Ok(cut)
    }

    /// Makes `size` the file's size.
    pub(crate) fn cut_at(&mut self, directory: &Directory, size: u32) -> Result<(), StorageError> {
        self.tail.clear();
        self.cursors.clear();
        self.size = size;
        self.has_torn_end = false;
        self.filled_to = 0;
        self.file
            .get_to_write(directory)?
            .set_len(u64::from(size))
            .map_err(|e| self.file_error(directory, "truncate", u64::from(size), e))
    }

    /// Largest timestamp by the time index and the batches after its last entry.
    fn read_max_timestamp(&self, directory: &Directory) -> Result<TimestampOffset, ReadError> {
        let mut largest = self.time_index.last(directory)?;
        let entry = self.offset_index.lookup(directory, largest.offset)?;
        self.scan(
            directory,
            u64::from(entry.place.position),
            u64::from(self.size),
            |header, _| {
                if header.max_timestamp > largest.timestamp {
                    let offset = header.last_offset();
                    largest = TimestampOffset { timestamp: header.max_timestamp, offset };
                }
                ControlFlow::<()>::Continue(())
            },
        )?;
        Ok(largest)
    }

    /// Empties the indexes and forgets what is known of the batches, to be noted again one by one.
    pub(crate) fn reset_for_recovery(&mut self) {
        self.offset_index.file.reset();
        self.time_index.file.reset();
        self.transactions.file.reset();
        self.tail.clear();
        self.cursors.clear();
        self.size = 0;
        self.bytes_since_index_entry = 0;
        *self.first_timestamp.get_mut() = None;
        let none = TimestampOffset { timestamp: Timestamp::NONE, offset: self.base_offset };
        *self.max_timestamp.get_mut() = Some(none);
    }
}
