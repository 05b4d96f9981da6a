//! The cleaning itself: the map of keys from the dirty segments, then each group of segments copied into a new one
//! without the records that later ones supersede. Works on files only; the log goes on meanwhile.

use super::super::config::LogConfig;
use super::super::directory::{CLEANED_SUFFIX, Directory, SWAP_SUFFIX, file_name};
use super::super::error::{ReadError, StorageError};
use super::super::segment::{BatchMeta, Segment, SegmentFiles};
use super::super::transaction_index::AbortedTransaction;
use super::filter::{Filter, expand};
use super::key_map::KeyMap;
use super::reader::Reader;
use super::transactions::CleanedTransactions;
use super::{Cleanable, MADE_SUFFIXES};
use ottla_protocol::batch::{BATCH_OVERHEAD, BatchHeader};
use ottla_protocol::{Offset, ProducerEpoch, ProducerId, Timestamp};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

/// A segment's positions are 31 bits in Kafka.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// Memory of one cleaning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CleaningBuffers {
    /// This thread's share of `log.cleaner.dedupe.buffer.size`.
    pub map_bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`.
    pub load_factor: f64,
    /// This thread's share of `log.cleaner.io.buffer.size`, for reads and as much again for writes; a larger batch
    /// makes it grow.
    pub io_bytes: usize,
}

/// Why a cleaning ended early.
#[derive(Debug, thiserror::Error)]
pub enum CleaningError {
    /// The pace function broke it off.
    #[error("the cleaning was stopped")]
    Stopped,
    /// The map takes no key.
    #[error(
        "log.cleaner.dedupe.buffer.size is too small for a single key: raise it or lower log.cleaner.threads"
    )]
    MapTooSmall,
    /// The records left need more than a segment takes.
    #[error("the cleaned segment grows past 2^31 bytes")]
    TooLarge,
    /// A segment cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A new file cannot be written or synced.
    #[error(transparent)]
    Write(#[from] StorageError),
}

/// What a cleaning did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CleanStats {
    /// Bytes read for the map.
    pub map_bytes_read: u64,
    /// Keys in the map.
    pub keys: usize,
    /// Bytes read for the copy.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Records read for the copy.
    pub records_read: u64,
    /// Records written.
    pub records_written: u64,
    /// Records without a key, which were dropped.
    pub invalid_records: u64,
}

pub(super) struct CleaningParams {
    pub(super) directory: Arc<Directory>,
    pub(super) name: String,
    pub(super) config: Arc<LogConfig>,
    pub(super) segments: Vec<Segment>,
    pub(super) aborted_after: Vec<AbortedTransaction>,
    pub(super) last_records: BTreeMap<ProducerId, (Option<Offset>, ProducerEpoch)>,
    pub(super) cleanable: Cleanable,
    pub(super) truncations: u64,
    pub(super) synced_to: Offset,
    pub(super) now: Timestamp,
}

/// A cleaned segment on disk that is not part of the log yet.
#[derive(Debug)]
pub struct CleanedSegment {
    /// Base offset and size of the segments that it replaces.
    pub(super) sources: Vec<(Offset, u32)>,
    pub(super) truncations: u64,
    segment: Segment,
    directory: Arc<Directory>,
}

impl CleanedSegment {
    /// Its base offset, which is that of the first segment it replaces.
    pub fn base_offset(&self) -> Offset {
        self.segment.base_offset
    }

    /// Makes the renames of [`super::Log::begin_swap`] durable. Blocks for the disk.
    ///
    /// # Errors
    /// The sync failed: the log is to go offline.
    pub fn sync_names(&self) -> Result<(), StorageError> {
        self.directory.sync_if_changed()
    }

    /// Removes its files: the log has changed.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn discard(&self) -> Result<(), StorageError> {
        for suffix in MADE_SUFFIXES {
            let name = file_name(self.segment.base_offset.0, suffix);
            self.directory.remove_file(&format!("{name}{CLEANED_SUFFIX}"))?;
            self.directory.remove_file(&format!("{name}{SWAP_SUFFIX}"))?;
        }
        Ok(())
    }

    pub(super) fn segment(self) -> Segment {
        self.segment
    }
}

/// One pass over a log: first [`Cleaning::build_map`], then [`Cleaning::next`] until it gives no more.
pub struct Cleaning {
    params: CleaningParams,
    map: KeyMap,
    transactions: CleanedTransactions,
    /// Segments cleaned so far.
    done: usize,
    /// Base offset of the segment that is being made.
    staged: Option<Offset>,
    io_bytes: usize,
    stats: CleanStats,
}

impl std::fmt::Debug for Cleaning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cleaning({}, {:?})", self.params.name, self.params.cleanable)
    }
}

/// Called with bytes read or written; may wait, and breaks the cleaning off.
pub(super) type Pace<'a> = dyn FnMut(usize) -> ControlFlow<()> + 'a;

impl Cleaning {
    pub(super) fn new(params: CleaningParams) -> Self {
        Cleaning {
            params,
            map: KeyMap::new(0, 1.0, 0),
            transactions: CleanedTransactions::default(),
            done: 0,
            staged: None,
            io_bytes: 0,
            stats: CleanStats::default(),
        }
    }

    /// `topic-partition`.
    pub fn name(&self) -> &str {
        &self.params.name
    }

    /// How often the log had been truncated when it was prepared, for [`super::Log::wants_cleaned`].
    pub fn truncations(&self) -> u64 {
        self.params.truncations
    }

    /// The offsets that it cleans.
    pub fn cleanable(&self) -> Cleanable {
        self.params.cleanable
    }

    /// Removes what a call of [`Cleaning::next`] that failed has written.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn discard(&self) -> Result<(), StorageError> {
        let Some(base_offset) = self.staged else { return Ok(()) };
        let staging = self.params.directory.with_suffix(CLEANED_SUFFIX);
        let mut suffixes = MADE_SUFFIXES.iter();
        suffixes.try_for_each(|suffix| staging.remove_file(&file_name(base_offset.0, suffix)))
    }

    /// What it did so far.
    pub fn stats(&self) -> CleanStats {
        self.stats
    }

    /// Everything below is clean once all is swapped in.
    pub fn end_offset(&self) -> Offset {
        self.map.latest_offset().plus(1)
    }

    /// Reads the dirty segments into the map until it is full.
    ///
    /// # Errors
    /// Every [`CleaningError`] but `Write` and `TooLarge`.
    pub fn build_map(
        &mut self,
        buffers: CleaningBuffers,
        pace: &mut Pace<'_>,
    ) -> Result<(), CleaningError> {
        let Cleanable { first_dirty_offset: start, first_uncleanable_offset: end, .. } =
            self.params.cleanable;
        let keys_max = usize::try_from(end.0 - start.0).unwrap_or(0);
        self.map = KeyMap::new(buffers.map_bytes, buffers.load_factor, keys_max);
        self.io_bytes = buffers.io_bytes.max(BATCH_OVERHEAD);
        if self.map.capacity() == 0 {
            return Err(CleaningError::MapTooSmall);
        }
        self.map.set_latest_offset(start.plus(-1));
        let mut transactions = CleanedTransactions::default();
        let is_before = |segment: &Segment| segment.base_offset <= start;
        let first = self.params.segments.partition_point(is_before).saturating_sub(1);
        for n in first..self.params.segments.len() {
            transactions.add(self.aborted_in(n)?);
            let segment = &self.params.segments[n];
            let next = self.params.segments.get(n + 1).map_or(end, |next| next.base_offset);
            let mut builder = MapBuilder {
                map: &mut self.map,
                transactions: &mut transactions,
                start,
                stats: &mut self.stats,
                scratch: Vec::new(),
            };
            let directory = &self.params.directory;
            let from = segment.offset_index.lookup(directory, start)?.place.position;
            let mut reader = Reader::open(segment, directory, from, self.io_bytes)?;
            let mut is_full = false;
            while let Some((header, batch)) = reader.next(pace)? {
                if !builder.take(&header, batch).map_err(|e| reader.corrupt(e))? {
                    is_full = true;
                    break;
                }
            }
            segment.close_files();
            if is_full {
                break;
            }
            self.map.set_latest_offset(next.plus(-1));
        }
        self.stats.keys = self.map.len();
        Ok(())
    }

    /// The aborted transactions that segment `n` may have batches of.
    fn aborted_in(&self, n: usize) -> Result<Vec<AbortedTransaction>, StorageError> {
        let segments = &self.params.segments;
        let from = segments[n].base_offset;
        let end = self.params.cleanable.first_uncleanable_offset;
        let to = segments.get(n + 1).map_or(end, |next| next.base_offset);
        let mut found = Vec::new();
        for segment in &segments[n..] {
            let is_complete =
                segment.transactions.collect(&self.params.directory, from, to, &mut found)?;
            segment.transactions.file.close();
            if is_complete {
                return Ok(found);
            }
        }
        found.extend(self.params.aborted_after.iter().filter(|txn| txn.first_offset < to));
        Ok(found)
    }

    /// Cleans the next group of segments into a new one, synced, under its temporary names; `None` after the last.
    ///
    /// # Errors
    /// Every [`CleaningError`] but `MapTooSmall`: [`Cleaning::discard`] is due.
    pub fn next(&mut self, pace: &mut Pace<'_>) -> Result<Option<CleanedSegment>, CleaningError> {
        let group = self.next_group();
        if group.is_empty() {
            return Ok(None);
        }
        self.done = group.end;
        self.sync_sources()?;
        let staging = self.params.directory.with_suffix(CLEANED_SUFFIX);
        let base_offset = self.params.segments[group.start].base_offset;
        self.staged = Some(base_offset);
        self.discard()?;
        let files = SegmentFiles::default();
        let mut target = Segment::new(base_offset, files, self.params.now);
        target.create_file(&staging)?;
        for n in group.clone() {
            let aborted = self.aborted_in(n)?;
            self.transactions.add(aborted);
            self.clean_into(n, &mut target, &staging, pace)?;
            self.params.segments[n].close_files();
        }
        target.finish(&staging)?;
        target.sync_files(&staging)?;
        target.close_files();
        self.keep_modified(&group, &staging.join(&target.name()))?;
        let mut segment = target.view();
        segment.roll_jitter_ms = self.params.segments[group.start].roll_jitter_ms;
        self.staged = None;
        Ok(Some(CleanedSegment {
            sources: self.params.segments[group].iter().map(|s| (s.base_offset, s.size)).collect(),
            truncations: self.params.truncations,
            segment,
            directory: self.params.directory.clone(),
        }))
    }

    /// A record goes because a later one supersedes it: that one has to be durable first.
    fn sync_sources(&mut self) -> Result<(), StorageError> {
        let CleaningParams { directory, segments, synced_to, cleanable, .. } = &mut self.params;
        let is_synced = |segment: &Segment| segment.base_offset < *synced_to;
        // The last of these may go on past the recovery point.
        let first = segments.partition_point(is_synced).saturating_sub(1);
        if cleanable.first_uncleanable_offset <= *synced_to {
            return Ok(());
        }
        for segment in &segments[first..] {
            segment.sync_file(directory)?;
        }
        // The log has handles of its own to these files.
        directory.sync_closed(directory.disk().open_files().owed_by_closed())?;
        *synced_to = cleanable.first_uncleanable_offset;
        directory.sync_if_changed()
    }

    /// Retention goes by the file's time where no record is left.
    fn keep_modified(&self, group: &Range<usize>, path: &Path) -> Result<(), StorageError> {
        let (directory, last) = (&self.params.directory, &self.params.segments[group.end - 1]);
        let source = directory.join(&last.name());
        let modified = directory.disk().modified_ms(&source);
        let modified = modified.map_err(|e| StorageError::new("stat", &source, e))?;
        let set = directory.disk().set_modified_ms(path, modified);
        set.map_err(|e| StorageError::new("touch", path, e))
    }

    /// As many segments below the end as fit into one by their present sizes.
    fn next_group(&self) -> Range<usize> {
        let segments = &self.params.segments;
        let start = self.done;
        if segments.get(start).is_none_or(|first| first.base_offset >= self.end_offset()) {
            return start..start;
        }
        let config = &self.params.config;
        let bytes_max = u64::try_from(config.segment_bytes).unwrap_or(0);
        let index_bytes_max = u64::try_from(config.segment_index_bytes).unwrap_or(0);
        let sizes = |segment: &Segment| {
            let index =
                segment.offset_index.file.entries() * super::super::offset_index::ENTRY_SIZE;
            let times = segment.time_index.file.entries() * super::super::time_index::ENTRY_SIZE;
            [u64::from(segment.size), index as u64, times as u64]
        };
        let mut total = sizes(&segments[start]);
        let mut end = start + 1;
        while let Some(segment) = segments.get(end).filter(|s| s.base_offset < self.end_offset()) {
            let more = sizes(segment);
            let sum = [total[0] + more[0], total[1] + more[1], total[2] + more[2]];
            let next = segments.get(end + 1).map(|next| next.base_offset);
            let next = next.unwrap_or(self.params.cleanable.first_uncleanable_offset);
            let reach = next.0 - 1 - segments[start].base_offset.0;
            let is_in_reach = segment.size == 0 || reach <= i64::from(i32::MAX);
            if sum[0] > bytes_max
                || sum[1] > index_bytes_max
                || sum[2] > index_bytes_max
                || !is_in_reach
            {
                break;
            }
            total = sum;
            end += 1;
        }
        start..end
    }

    fn clean_into(
        &mut self,
        n: usize,
        target: &mut Segment,
        staging: &Directory,
        pace: &mut Pace<'_>,
    ) -> Result<(), CleaningError> {
        let interval = self.params.config.index_interval_bytes;
        let mut filter = Filter {
            map: &self.map,
            params: &self.params,
            transactions: &mut self.transactions,
            stats: &mut self.stats,
            scratch: Vec::new(),
        };
        let segment = &self.params.segments[n];
        let mut reader = Reader::open(segment, &self.params.directory, 0, self.io_bytes)?;
        let (mut out, mut metas) = (Vec::new(), Vec::new());
        loop {
            let next = reader.next(pace)?;
            let is_end = next.is_none();
            if let Some((header, batch)) = next {
                let before = out.len();
                let kept = filter.keep(&header, batch, &mut out).map_err(|e| reader.corrupt(e))?;
                if let Some(aborted) = kept {
                    target.transactions.append(staging, aborted)?;
                }
                if out.len() > before {
                    metas.push(meta_of(&out[before..]).map_err(|e| reader.corrupt(e))?);
                }
            }
            if !out.is_empty() && (is_end || out.len() >= self.io_bytes) {
                if u64::from(target.size) + out.len() as u64 > SEGMENT_BYTES_MAX {
                    return Err(CleaningError::TooLarge);
                }
                paced(pace, out.len())?;
                target.append(staging, &[IoSlice::new(&out)], &metas, interval)?;
                filter.stats.bytes_written += out.len() as u64;
                out.clear();
                metas.clear();
            }
            if is_end {
                return Ok(());
            }
        }
    }
}

pub(super) fn paced(pace: &mut Pace<'_>, bytes: usize) -> Result<(), CleaningError> {
    match pace(bytes) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(CleaningError::Stopped),
    }
}

fn meta_of(batch: &[u8]) -> Result<BatchMeta, String> {
    let header = BatchHeader::parse(batch).map_err(|e| e.to_string())?;
    Ok(BatchMeta {
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        max_timestamp: header.max_timestamp,
        size: header.size(),
    })
}

/// Puts the keys of batches into the map.
struct MapBuilder<'a> {
    map: &'a mut KeyMap,
    transactions: &'a mut CleanedTransactions,
    start: Offset,
    stats: &'a mut CleanStats,
    scratch: Vec<u8>,
}

impl MapBuilder<'_> {
    /// `false` when the map was full before the batch's end.
    fn take(&mut self, header: &BatchHeader, batch: Vec<u8>) -> Result<bool, String> {
        self.stats.map_bytes_read += batch.len() as u64;
        if header.is_control() {
            self.transactions.on_control_batch(header, &batch);
        } else if !self.transactions.on_batch(header) {
            let payload = expand(header, &batch, &mut self.scratch)?;
            for record in payload.iter() {
                let record = record.map_err(|e| e.to_string())?;
                let (Some(key), offset) = (record.key, record.offset(header)) else { continue };
                if offset >= self.start && !self.map.put(key, offset) {
                    return Ok(false);
                }
            }
        }
        if header.last_offset() >= self.start {
            self.map.set_latest_offset(header.last_offset());
        }
        Ok(true)
    }
}
