//! Opening a log: what lies in the directory is sorted out, and after a crash everything past the recovery point is
//! validated again.
//!
//! After a clean shutdown no batch is read. After a crash the segments from the one that holds the recovery point on
//! are walked: every batch's CRC and offsets are checked, indexes are built anew, epochs and producers are replayed,
//! and the first byte that is no sound batch ends the log; what follows is cut, and said. Left-over files are treated
//! as Kafka does: `.deleted` and `.cleaned` go, `.swap` files of a compaction that had finished take the place of the
//! segments that they replace.
//!
//! The segment that takes the appends again is left as it is where all of it is sound: its indexes wait in memory, as
//! those of any active segment, and no snapshot is taken, which another crash would find of no use. So thousands of
//! logs with few records each cost their reads and no write (Kafka makes two index files and a snapshot for each).
//!
//! A start may end in a crash as well. What is removed, cut or built anew where no flush comes by is synced, in an
//! order that leaves the next start something that it recovers to the same: from the end of the log backwards.

use super::directory::{
    CLEANED_SUFFIX, DELETED_SUFFIX, Directory, INDEX_SUFFIX, LOG_SUFFIX, SWAP_SUFFIX,
    TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, offset_of_name,
};
use super::error::{ReadError, RecoveryError, StorageError};
use super::leader_epochs::LeaderEpochs;
use super::producer_state::ProducerState;
use super::retention::DeletedFiles;
use super::segment::{Segment, SegmentFiles};
use super::{Log, LogConfig, checkpoint};
use crate::env::Disk;
use crate::env::disk::DirEntry;
use ottla_protocol::{Offset, Timestamp, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tracing::{info, warn};

/// Snapshots of the metadata log that wait for deletion are not the log's.
const CHECKPOINT_DELETED_SUFFIX: &str = ".checkpoint.deleted";

/// What a log is opened with.
#[derive(Debug)]
pub struct LogParams {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The partition's own directory; if it is not there it is made with the first file.
    pub dir: PathBuf,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's index.
    pub partition: i32,
    /// The topic's id; nil where there is none.
    pub topic_id: TopicId,
    /// Settings.
    pub config: Arc<LogConfig>,
    /// As checkpointed; 0 without a checkpoint.
    pub log_start_offset: Offset,
    /// As checkpointed; 0 without a checkpoint.
    pub recovery_point: Offset,
    /// The clean-shutdown file was there: nothing needs recovery.
    pub clean_shutdown: bool,
    /// What the process before wrote is durable: [`Disk::sync_all`] has run since.
    pub earlier_writes_synced: bool,
    /// Present time.
    pub now: Timestamp,
}

/// Bytes at a segment's end that were no batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment's file.
    pub path: PathBuf,
    /// Offset of the log's end after the cut.
    pub offset: Offset,
    /// Where the file ends now.
    pub position: u64,
    /// Bytes that went.
    pub bytes: u64,
    /// What was wrong with them.
    pub cause: String,
}

/// What opening a log found and did.
#[derive(Debug, Default)]
pub struct RecoveryReport {
    /// Segments whose batches were validated again.
    pub recovered_segments: usize,
    /// Bytes of those segments.
    pub recovered_bytes: u64,
    /// What was cut.
    pub cuts: Vec<Cut>,
    /// Segments after a cut: renamed, to be removed by the caller.
    pub deleted: Vec<DeletedFiles>,
}

impl Log {
    /// Opens the log in a directory, recovering it where the last shutdown was not clean.
    ///
    /// # Errors
    /// `Storage` for a failed file operation, `Invalid` for a file that cannot be used, `Read` where a segment below
    /// the recovery point cannot be read.
    pub fn open(params: LogParams) -> Result<Log, RecoveryError> {
        let directory = Arc::new(Directory::new(params.disk.clone(), params.dir.clone()));
        let entries = directory.list()?;
        if params.topic_id.is_nil() {
            directory.create()?;
        }
        let entries = sort_out(&directory, entries)?;
        let mut has_metadata_file =
            entries.iter().any(|e| e.name == checkpoint::PARTITION_METADATA && e.len > 0);
        if has_metadata_file && !params.clean_shutdown {
            let read = checkpoint::read_partition_metadata(&*params.disk, &params.dir);
            has_metadata_file = !matches!(read, Ok(None));
        }
        let mut log = Log {
            epochs: LeaderEpochs::open(&directory)?,
            producers: ProducerState::new(entries.iter().map(|entry| entry.name.as_str())),
            directory,
            topic: params.topic.clone(),
            partition: params.partition,
            topic_id: params.topic_id,
            config: params.config.clone(),
            segments: Vec::new(),
            log_start_offset: params.log_start_offset,
            log_end_offset: params.log_start_offset,
            recovery_point: params.recovery_point,
            last_flush: params.now,
            flushing_to: Offset(0),
            truncations: 0,
            cleaner_checkpoint: None,
            is_offline: false,
            is_closed: false,
            has_metadata_file,
            is_metadata_file_new: false,
            recovered: RecoveryReport::default(),
        };
        if !params.clean_shutdown && !params.earlier_writes_synced {
            // Of what an earlier process wrote nobody knows what it synced.
            log.directory.mark_unsynced();
            // What it removed must not come back beside what is written now.
            log.directory.sync_entries()?;
            log.is_metadata_file_new = log.has_metadata_file;
        }
        log.load(&params, &entries)?;
        Ok(log)
    }

    fn load(&mut self, params: &LogParams, entries: &[DirEntry]) -> Result<(), RecoveryError> {
        let files = segment_files(&self.directory, entries)?;
        let mut to_recover = BTreeSet::new();
        for (base_offset, files) in files {
            let mut segment = Segment::new(Offset(base_offset), files, params.now);
            segment.roll_jitter_ms = self.roll_jitter_ms(segment.base_offset);
            if let Some(cause) = unsound_index(&files) {
                if params.clean_shutdown || segment.base_offset < params.recovery_point {
                    let path = self.directory.join(&segment.name());
                    warn!(path = %path.display(), cause, "indexes of the segment are built anew");
                }
                to_recover.insert(self.segments.len());
            }
            self.segments.push(segment);
        }
        if !params.clean_shutdown {
            let first = self.first_to_recover(params)?;
            to_recover.extend(first..self.segments.len());
        }
        if let Some(first) = self.segments.first() {
            self.log_start_offset = self.log_start_offset.max(first.base_offset);
        }
        self.remove_stray_snapshots()?;
        let is_recovering = !to_recover.is_empty();
        let of = to_recover.len();
        for (done, n) in to_recover.into_iter().enumerate() {
            let Some(segment) = self.segments.get(n) else { break };
            let path = self.directory.join(&segment.name());
            info!(path = %path.display(), "recovering segment {} of {of}", done + 1);
            self.recover_segment(n, params)?;
        }
        self.settle(params, is_recovering)
    }

    fn remove_stray_snapshots(&mut self) -> Result<(), StorageError> {
        let bases = self.segments.iter().map(|segment| segment.base_offset.0).collect();
        self.producers.remove_stray_snapshots(&self.directory, &bases)
    }

    /// The segment that holds the recovery point. A log that ends before it was cut since, and how much of what was
    /// written then was synced nobody knows: the first one.
    fn first_to_recover(&self, params: &LogParams) -> Result<usize, RecoveryError> {
        let recovery_point = params.recovery_point;
        let Some(n) = self.floor_segment(recovery_point) else { return Ok(0) };
        let segment = &self.segments[n];
        if segment.base_offset == recovery_point {
            return Ok(n);
        }
        match segment.find(&self.directory, recovery_point.plus(-1)) {
            Ok(Some(_)) => Ok(n),
            Ok(None) | Err(ReadError::Corrupt { .. }) => {
                if !params.earlier_writes_synced {
                    // What was cut must not come back: indexes that are half made by then would be trusted again.
                    segment.sync_file(&self.directory)?;
                }
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sets offsets, epochs and producers by what the segments hold.
    fn settle(&mut self, params: &LogParams, is_recovering: bool) -> Result<(), RecoveryError> {
        let directory = self.directory.clone();
        let mut end = match self.segments.last() {
            Some(last) => Some(last.next_offset(&directory)?),
            None => None,
        };
        if let Some(found) = end.filter(|end| *end < params.log_start_offset) {
            warn!(topic = %self.topic, partition = self.partition, log_end_offset = %found,
                log_start_offset = %params.log_start_offset,
                "log ends before its log start offset: segments are missing, and what is left is deleted");
            self.delete_from(0)?;
            self.epochs.clear();
            self.producers.truncate_fully_and_start_at(&directory, params.log_start_offset)?;
            end = None;
        }
        if self.segments.is_empty() {
            let mut segment = self.new_segment(params.log_start_offset, params.now);
            if params.log_start_offset.0 > 0 {
                segment.create_file(&directory)?;
                segment.finish(&directory)?;
                // Its name is where the log starts.
                directory.sync_if_changed()?;
            }
            self.segments.push(segment);
        }
        self.log_end_offset = end.unwrap_or(params.log_start_offset);
        self.log_start_offset = params.log_start_offset.max(self.segments[0].base_offset);
        let is_clean = params.clean_shutdown && end.is_some();
        self.recovery_point = if is_clean {
            self.log_end_offset
        } else {
            params.recovery_point.min(self.log_end_offset)
        };
        self.epochs.truncate_from_start(self.log_start_offset);
        self.epochs.truncate_from_end(self.log_end_offset);
        if !params.clean_shutdown {
            self.complete_epochs()?;
            // Those past the end must not be taken for the epochs of what is appended now.
            self.epochs.write_if_wrong(&directory)?;
        }
        self.remove_stray_snapshots()?;
        if is_clean && !is_recovering && self.producers.latest_snapshot().is_none() {
            // Kafka before 0.11 wrote no snapshots, and no producers.
            self.producers.set_map_end_offset(self.log_end_offset);
            self.producers.take_snapshot(&directory)?;
            return Ok(());
        }
        self.rebuild_producers(params.now)?;
        Ok(())
    }

    /// Validates segment `n` batch by batch; a cut ends the log there.
    fn recover_segment(&mut self, n: usize, params: &LogParams) -> Result<(), RecoveryError> {
        let directory = self.directory.clone();
        let base_offset = self.segments[n].base_offset;
        let path = directory.join(&self.segments[n].name());
        self.replay_producers(base_offset, n, params.now)?;
        let file_len = {
            let file = self.segments[n].file(&directory)?;
            file.len().map_err(|e| StorageError::new("stat", &path, e))?
        };
        // No flush will come by, and the next recovery trusts its indexes: it has to find one missing until all are
        // durable.
        let is_trusted = self.floor_segment(self.recovery_point).is_some_and(|first| n < first);
        if is_trusted {
            self.segments[n].time_index.file.begin_anew(&directory)?;
        }
        let cause = self.validate_batches(n, file_len)?;
        let segment = &self.segments[n];
        let (position, offset) = (segment.size, segment.next_offset(&directory)?);
        let is_cut = u64::from(position) < file_len;
        if is_cut {
            let is_filled =
                self.config.preallocate && segment.is_zero_from_end(&directory, file_len)?;
            // Before the cut: a start that finds it made must not find what lay behind it.
            self.delete_from(n + 1)?;
            let segment = &mut self.segments[n];
            segment.cut_at(&directory, position)?;
            let bytes = file_len - u64::from(position);
            let cause = cause.unwrap_or_default();
            if is_filled {
                info!(path = %path.display(), %offset, position, bytes,
                    "the zeros that were preallocated behind the segment's end were cut");
            } else {
                warn!(path = %path.display(), %offset, position, bytes, cause,
                    "the segment's end is no sound batch and was cut");
                let position = u64::from(position);
                self.recovered.cuts.push(Cut { path, offset, position, bytes, cause });
            }
        } else if self.is_before_a_hole(n, offset, params) {
            warn!(path = %path.display(), %offset, "batches after the segment are lost, with those behind them");
            self.delete_from(n + 1)?;
        }
        self.recovered.recovered_segments += 1;
        self.recovered.recovered_bytes += file_len;
        self.producers.set_map_end_offset(offset);
        let is_last = n + 1 == self.segments.len();
        if !is_last || is_cut || params.clean_shutdown {
            self.segments[n].finish(&directory)?;
        }
        if !is_last {
            self.producers.take_snapshot(&directory)?;
        }
        if is_trusted {
            self.segments[n].sync_files(&directory)?;
            directory.sync_if_changed()?;
            self.segments[n].time_index.file.end_anew(&directory)?;
        }
        if is_cut || is_last && !params.earlier_writes_synced {
            // What is appended now must never be followed by what was cut, here or by the process before.
            self.segments[n].sync_file(&directory)?;
        }
        Ok(())
    }

    /// Whether segment `n`, which ends at `end`, is followed by one that begins later, past what was synced: a loss of
    /// power has taken whole batches and left no trace of them. A replica that kept what is behind would say that it
    /// has all. Cleaning leaves such gaps too, and the checkpoint may be from before it.
    fn is_before_a_hole(&self, n: usize, end: Offset, params: &LogParams) -> bool {
        let next = self.segments.get(n + 1).map(|next| next.base_offset);
        !self.config.cleanup_policy.compact
            && next.is_some_and(|next| next > end && next > params.recovery_point)
    }

    /// Deletes the segments from index `n` on, the last first, so that a crash leaves no hole.
    fn delete_from(&mut self, n: usize) -> Result<(), StorageError> {
        for segment in self.segments.split_off(n).into_iter().rev() {
            let path = self.directory.join(&segment.name());
            warn!(path = %path.display(), bytes = segment.size, "segment is deleted by recovery");
            let files = self.rename_to_deleted(segment)?;
            self.recovered.deleted.push(files);
        }
        // They must not come back behind what is appended now.
        self.directory.sync_if_changed()
    }
}

/// Deals with the left-overs of deletion and compaction; gives the entries that remain.
fn sort_out(directory: &Directory, entries: Vec<DirEntry>) -> Result<Vec<DirEntry>, RecoveryError> {
    let is_left_over = |entry: &DirEntry| {
        [DELETED_SUFFIX, CLEANED_SUFFIX, SWAP_SUFFIX]
            .iter()
            .any(|suffix| entry.name.ends_with(suffix))
            && !entry.name.ends_with(CHECKPOINT_DELETED_SUFFIX)
            && !entry.is_dir
    };
    if !entries.iter().any(is_left_over) {
        return Ok(entries);
    }
    let with_suffix = |suffix: &'static str| {
        entries
            .iter()
            .filter(move |e| is_left_over(e) && e.name.ends_with(suffix))
            .map(|e| e.name.as_str())
    };
    for name in with_suffix(DELETED_SUFFIX) {
        directory.remove_file(name)?;
    }
    // A split of a segment that had not finished leaves `.cleaned` files; its `.swap` files are not to be used.
    let cleaned_min = with_suffix(CLEANED_SUFFIX).filter_map(offset_of_name).min();
    let (unfinished, finished): (Vec<&str>, Vec<&str>) =
        with_suffix(SWAP_SUFFIX).partition(|name| {
            cleaned_min.is_some_and(|min| offset_of_name(name).is_some_and(|at| at >= min))
        });
    for name in unfinished.into_iter().chain(with_suffix(CLEANED_SUFFIX)) {
        directory.remove_file(name)?;
    }
    finish_swap(directory, &entries, &finished)?;
    directory.sync_if_changed()?;
    Ok(directory.list()?)
}

/// Lets the `.swap` files take the place of the segments within their offsets.
fn finish_swap(
    directory: &Directory,
    entries: &[DirEntry],
    swaps: &[&str],
) -> Result<(), RecoveryError> {
    let log_swap = format!("{LOG_SUFFIX}{SWAP_SUFFIX}");
    let mut range: Option<(i64, i64)> = None;
    for name in swaps.iter().filter(|name| name.ends_with(&log_swap)) {
        let Some(base) = offset_of_name(name) else { continue };
        let len = entries.iter().find(|e| e.name == **name).map_or(0, |e| e.len);
        let end = last_offset_of_file(directory, name, len)?.unwrap_or(base - 1) + 1;
        let (low, high) = range.unwrap_or((base, end));
        range = Some((low.min(base), high.max(end)));
    }
    if let Some((low, high)) = range {
        for entry in entries.iter().filter(|e| !e.is_dir && !e.name.ends_with(SWAP_SUFFIX)) {
            if offset_of_name(&entry.name).is_some_and(|at| at >= low && at < high) {
                info!(file = %entry.name, "deleting a file of a segment that was compacted away");
                directory.remove_file(&entry.name)?;
            }
        }
    }
    for name in swaps {
        if let Some(real) = name.strip_suffix(SWAP_SUFFIX) {
            info!(file = %name, "finishing an interrupted swap of segments");
            directory.rename_file(name, real)?;
        }
    }
    Ok(())
}

/// Last offset of the batches in a file that has not its final name yet.
fn last_offset_of_file(
    directory: &Directory,
    name: &str,
    len: u64,
) -> Result<Option<i64>, StorageError> {
    let path = directory.join(name);
    let file = directory
        .disk()
        .open(&path, crate::env::OpenMode::Read)
        .map_err(|e| StorageError::new("open", &path, e))?;
    let (mut position, mut last) = (0, None);
    let mut front = [0; ottla_protocol::batch::BATCH_OVERHEAD];
    while position + front.len() as u64 <= len {
        file.read_exact_at(&mut front, position)
            .map_err(|e| StorageError::new("read", &path, e).at(position))?;
        let Ok(header) = ottla_protocol::batch::BatchHeader::parse(&front) else { break };
        last = Some(header.last_offset().0);
        position += header.size() as u64;
    }
    Ok(last)
}

/// The files of each segment by base offset; index files without a `.log` go.
fn segment_files(
    directory: &Directory,
    entries: &[DirEntry],
) -> Result<BTreeMap<i64, SegmentFiles>, StorageError> {
    let mut files: BTreeMap<i64, SegmentFiles> = BTreeMap::new();
    let named = |suffix: &'static str| {
        entries
            .iter()
            .filter(move |e| !e.is_dir && e.name.ends_with(suffix))
            .filter_map(|e| offset_of_name(&e.name).map(|offset| (offset, e)))
    };
    for (offset, entry) in named(LOG_SUFFIX) {
        files.entry(offset).or_default().log = Some(entry.len);
    }
    for suffix in [INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX] {
        for (offset, entry) in named(suffix) {
            let Some(segment) = files.get_mut(&offset) else {
                let path = directory.join(&entry.name);
                warn!(path = %path.display(), "index file without a log file is deleted");
                directory.remove_file(&entry.name)?;
                continue;
            };
            match suffix {
                INDEX_SUFFIX => segment.offset_index = Some(entry.len),
                TIME_INDEX_SUFFIX => segment.time_index = Some(entry.len),
                _ => segment.transactions = Some(entry.len),
            }
        }
    }
    Ok(files)
}

/// Why the indexes of a segment cannot be used, by their lengths alone.
fn unsound_index(files: &SegmentFiles) -> Option<&'static str> {
    if files.log.unwrap_or(0) == 0 {
        return None;
    }
    let (Some(offsets), Some(times)) = (files.offset_index, files.time_index) else {
        return Some("an index file is missing");
    };
    let is_whole = |len: u64, entry: usize| len.is_multiple_of(entry as u64);
    let transactions = files.transactions.unwrap_or(0);
    let all_whole = is_whole(offsets, super::offset_index::ENTRY_SIZE)
        && is_whole(times, super::time_index::ENTRY_SIZE)
        && is_whole(transactions, super::transaction_index::ENTRY_SIZE);
    (!all_whole).then_some("an index file's length is no multiple of its entries'")
}
