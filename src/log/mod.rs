//! Room 2: one partition on disk, in Kafka's own files.
//!
//! A [`Log`] is a directory of segments (`.log` with `.index`, `.timeindex`, `.txnindex`), leader epochs and producer
//! snapshots. It validates, appends, reads, rolls, truncates, recovers and deletes. Deliberately not here:
//! replication and the high watermark (the replica machine's), who may read or write (the broker's), transactions'
//! coordinators. Verbs that write take `&mut self`, reads `&self`; the owner serialises them and decides on which
//! thread they run: appends and reads touch the page cache only, [`FlushJob::run`] waits for the disk.
//!
//! Invariants: offsets are those that were given and never change; only whole, validated batches lie below the log
//! end offset; indexes and producer state can always be rebuilt from the batches; nothing is acknowledged that rests
//! on a failed write or sync, after which the log is offline.
//!
//! Source: Kafka documentation, "Log"; KIP-33, KIP-98, KIP-101, KIP-107, KIP-279, KIP-360.

mod append;
pub mod check;
pub mod checkpoint;
mod compaction;
mod config;
mod cursors;
mod directory;
mod error;
mod flush;
mod index_file;
mod leader_epochs;
mod metadata_scan;
mod moving;
mod offset_index;
pub mod own_properties;
mod partition_scan;
mod producer_snapshot;
mod producer_state;
mod read;
mod recovery;
mod replay;
mod retention;
mod roll;
mod segment;
mod time_index;
mod transaction_index;
mod truncate;
mod validate;

pub use append::{AppendContext, AppendInfo, TransactionCheck};
pub use compaction::{
    CleanStats, Cleanable, CleanedSegment, Cleaning, CleaningBuffers, CleaningError, MayRoll,
};
pub use config::{CleanupPolicy, CompressionTarget, LogConfig};
pub use error::{AppendError, ReadError, RecordError, RecoveryError, StorageError};
pub use flush::{FlushJob, FlushOwed};
pub use leader_epochs::EpochEntry;
pub use metadata_scan::{ScanError, scan_metadata};
pub use partition_scan::{PartitionFiles, scan_partition};
pub use producer_state::{ActiveProducer, AppendOrigin, BATCHES_KEPT};
pub use read::{LogSlice, MinOne};
pub use recovery::{Cut, LogParams, RecoveryReport};
pub use retention::{DeletedFiles, StartOffsetError};
pub use time_index::TimestampOffset;
pub use transaction_index::AbortedTransaction;

use crate::env::Disk;
use directory::Directory;
use leader_epochs::LeaderEpochs;
use ottla_protocol::{LeaderEpoch, Offset, Timestamp, TopicId};
use producer_state::ProducerState;
use segment::Segment;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One partition on disk.
#[derive(Debug)]
pub struct Log {
    directory: Arc<Directory>,
    topic: Arc<str>,
    partition: i32,
    topic_id: TopicId,
    config: Arc<LogConfig>,
    /// By base offset; the last takes the appends. Never empty.
    segments: Vec<Segment>,
    log_start_offset: Offset,
    log_end_offset: Offset,
    recovery_point: Offset,
    epochs: LeaderEpochs,
    producers: ProducerState,
    last_flush: Timestamp,
    /// The recovery point once the flush under way has ended.
    flushing_to: Offset,
    /// Counts truncations, so that a flush that began before one is known.
    truncations: u64,
    /// How far the cleaner has come; a truncation takes it back.
    cleaner_checkpoint: Option<Offset>,
    /// A write or a sync failed: nothing more is written.
    is_offline: bool,
    /// [`Log::close`] has run.
    is_closed: bool,
    /// `partition.metadata` lies in the directory.
    has_metadata_file: bool,
    /// It was written since the last flush.
    is_metadata_file_new: bool,
    recovered: RecoveryReport,
}

/// One segment, as tools and metrics show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// First offset it may hold.
    pub base_offset: Offset,
    /// Bytes of its batches.
    pub size: u64,
}

impl Log {
    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition's index.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The topic's id.
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// The directory it lies in.
    pub fn path(&self) -> PathBuf {
        self.directory.path()
    }

    /// The disk that holds it.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        self.directory.disk()
    }

    /// Present settings.
    pub fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    /// Takes new settings; they hold from the next verb on.
    pub fn set_config(&mut self, config: Arc<LogConfig>) {
        self.config = config;
    }

    /// First offset that may be read.
    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// The offset of the next record.
    pub fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    /// Everything below is synced: where recovery after a crash begins.
    pub fn recovery_point(&self) -> Offset {
        self.recovery_point
    }

    /// Records that no sync has reached yet.
    pub fn unflushed_records(&self) -> i64 {
        self.log_end_offset.0 - self.recovery_point.0
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.size)).sum()
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = SegmentInfo> + '_ {
        self.segments.iter().map(|segment| SegmentInfo {
            base_offset: segment.base_offset,
            size: u64::from(segment.size),
        })
    }

    /// Whether an earlier failure stopped all writes.
    pub fn is_offline(&self) -> bool {
        self.is_offline
    }

    /// What opening it found and did.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.recovered
    }

    /// The files of the segments that recovery took out, to be removed.
    pub fn take_deleted_by_recovery(&mut self) -> Vec<DeletedFiles> {
        std::mem::take(&mut self.recovered.deleted)
    }

    /// The offset below which READ_COMMITTED consumers may read: `high_watermark`, or the first offset of an
    /// undecided transaction.
    pub fn last_stable_offset(&self, high_watermark: Offset) -> Offset {
        match self.producers.first_unstable_offset(high_watermark) {
            Some(first) => first.max(self.log_start_offset).min(high_watermark),
            None => high_watermark,
        }
    }

    /// Lets go of transactions whose markers `high_watermark` has passed. Called when it moves.
    pub fn on_high_watermark(&mut self, high_watermark: Offset) {
        self.producers.on_high_watermark(high_watermark);
    }

    /// Producers that the log remembers.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        self.producers.active()
    }

    /// Whether `producer_id` has an open transaction here.
    pub fn has_ongoing_transaction(&self, producer_id: ottla_protocol::ProducerId) -> bool {
        self.producers
            .get(producer_id)
            .is_some_and(|entry| entry.current_txn_first_offset.is_some())
    }

    /// Forgets producers that were silent for `producer.id.expiration.ms`.
    pub fn remove_expired_producers(&mut self, now: Timestamp) {
        self.producers.remove_expired(now, self.config.producer_id_expiration_ms);
    }

    /// The leader epochs, oldest first.
    pub fn leader_epochs(&self) -> &[EpochEntry] {
        self.epochs.entries()
    }

    /// Epoch of the newest record, or of the leader that took over since.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest()
    }

    /// Notes that a leader with `epoch` begins at `start_offset`. Written before the recovery point next moves.
    pub fn assign_leader_epoch(&mut self, epoch: LeaderEpoch, start_offset: Offset) {
        self.epochs.assign(epoch, start_offset);
    }

    /// The largest epoch not above `epoch` and where it ends (KIP-279); `None` for an unknown epoch.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_offset_for(epoch, self.log_end_offset)
    }

    /// The epoch in which the record at `offset` was written.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.epochs.epoch_for_offset(offset)
    }

    /// Moves the directory, open files and all: topic deletion, or a move to another log directory. One that was
    /// never written into is not on the disk, and nothing is moved.
    ///
    /// # Errors
    /// The rename or the sync of a parent directory failed.
    pub fn rename_directory(&mut self, to: &Path) -> Result<(), StorageError> {
        self.directory.rename_to(to)
    }

    fn active(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a log always has a segment")
    }

    /// Index of the segment that holds `offset`, or would.
    fn floor_segment(&self, offset: Offset) -> Option<usize> {
        self.segments.partition_point(|segment| segment.base_offset <= offset).checked_sub(1)
    }

    /// As [`Log::fail`], but for a disk that is full, where nothing was changed that the next try does not do again.
    fn fail_unless_full(&mut self, error: StorageError) -> StorageError {
        if error.is_storage_full() { error } else { self.fail(error) }
    }

    /// Puts the log offline: nothing that rests on a failed write or sync may be acknowledged.
    fn fail(&mut self, error: StorageError) -> StorageError {
        self.is_offline = true;
        error
    }
}

#[cfg(test)]
mod crash;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod many;
#[cfg(test)]
mod proptests;
#[cfg(test)]
mod racing;
#[cfg(test)]
mod tests;
