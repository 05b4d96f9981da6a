//! The metadata quorum: the log `__cluster_metadata`, its snapshots and the file `quorum-state`.
//!
//! Today the quorum has one voter, this node, so a record is committed once it is durable here; the voters'
//! agreement comes with the cluster. Files are KRaft's: a LeaderChange control batch opens every epoch,
//! snapshots are `<end offset>-<epoch>.checkpoint` with header and footer records. Source: KIP-595, KIP-630.
//!
//! Invariant: nothing is reported committed before `fdatasync` of the log has returned; after a failed write or
//! sync the quorum takes no more records. A write that found no space has left the log as it was, and refuses its
//! records alone.

use super::dir_health::DirHealth;
use super::host::HostError;
use super::replay::{ReplayError, replay_log};
use super::snapshots::{self, SnapshotId};
use crate::env::{Clock, Disk};
use crate::log::{
    AppendContext, AppendError, AppendOrigin, Log, LogConfig, LogParams, RecoveryError,
    StorageError, TransactionCheck,
};
use crate::machines::metadata::{Controller, Image, record_version};
use crate::machines::{Entry, Machine};
use bytes::Bytes;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::messages::LeaderChangeMessage;
use ottla_protocol::messages::leader_change_message::Voter;
use ottla_protocol::record::{BatchBuilder, BatchParams, decode_records};
use ottla_protocol::records::control::ControlRecord;
use ottla_protocol::records::metadata::{decode_metadata_record, encode_metadata_record};
use ottla_protocol::{
    BrokerId, CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID, LeaderEpoch, MetadataRecord,
    Offset, Timestamp,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI16, AtomicI64, Ordering};

/// Directory of the metadata log below `metadata.log.dir`.
pub const METADATA_DIR: &str = "__cluster_metadata-0";
const QUORUM_STATE: &str = "quorum-state";
/// A metadata batch is written by us or by Kafka, uncompressed; more than this is not one.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// Why the metadata log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// It cannot be opened.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// It cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// It cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Its files cannot be synced, deleted or closed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file beside it cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `quorum-state` is no such file.
    #[error("{path}: {cause}", path = path.display())]
    State {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// What the metadata log needs to be opened.
#[derive(Debug, Clone)]
pub struct QuorumParams {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// `metadata.log.dir`.
    pub dir: PathBuf,
    /// Whether that takes records.
    pub health: Arc<DirHealth>,
    /// This node.
    pub node_id: BrokerId,
    /// `metadata.log.segment.bytes` and its kin.
    pub log: Arc<LogConfig>,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub snapshot_bytes: u64,
}

/// The newest `kraft.version` and voters that control records of the log set, by type. A snapshot repeats them
/// (KIP-853): the log before it, where they stood, goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct VoterRecords(BTreeMap<i16, ControlRecord>);

impl VoterRecords {
    /// Those that are set, `kraft.version` first.
    pub(super) fn records(&self) -> impl Iterator<Item = &ControlRecord> {
        self.0.values()
    }

    fn take(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<(), ReplayError> {
        let records = decode_records(header, batch, BATCH_BYTES_MAX)
            .map_err(|cause| ReplayError::Batch { offset: header.base_offset, cause })?;
        for record in records {
            let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
            let decoded = ControlRecord::decode(&key, &value).map_err(|cause| {
                ReplayError::Record { offset: header.base_offset, cause: cause.to_string() }
            })?;
            if matches!(decoded, ControlRecord::KRaftVersion(_) | ControlRecord::Voters(_)) {
                self.0.insert(decoded.type_id(), decoded);
            }
        }
        Ok(())
    }
}

struct Owned {
    log: Log,
    epoch: LeaderEpoch,
    snapshot: Option<SnapshotId>,
    bytes_since_snapshot: u64,
    voters: VoterRecords,
    failed: bool,
}

/// The metadata log of this node.
pub struct Quorum {
    params: QuorumParams,
    dir: PathBuf,
    owned: Mutex<Owned>,
    committed: AtomicI64,
    /// The finalized `metadata.version`: records are written in its versions.
    metadata_version: AtomicI16,
}

/// What `DescribeQuorum` tells of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumStatus {
    /// The leader: this node.
    pub leader_id: BrokerId,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
    /// Below it everything is committed.
    pub high_watermark: Offset,
    /// The log's end.
    pub log_end_offset: Offset,
}

impl Quorum {
    /// Opens the log and replays newest snapshot and log into `controller`.
    ///
    /// # Errors
    /// Every [`QuorumError`].
    pub fn open(params: QuorumParams, controller: &mut Controller) -> Result<Quorum, QuorumError> {
        let dir = params.dir.join(METADATA_DIR);
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| QuorumError::File { path, source }
        };
        params.disk.create_dir_durably(&dir).map_err(file_error(&dir))?;
        let mut voters = VoterRecords::default();
        let snapshot = snapshots::load_newest(params.disk.as_ref(), &dir, controller, &mut voters)?;
        let start = snapshot.map_or(Offset(0), |id| id.end_offset);
        let log = Log::open(LogParams {
            disk: Arc::clone(&params.disk),
            dir: dir.clone(),
            topic: CLUSTER_METADATA_TOPIC.into(),
            partition: 0,
            topic_id: CLUSTER_METADATA_TOPIC_ID,
            config: Arc::clone(&params.log),
            log_start_offset: Offset(0),
            recovery_point: Offset(0),
            clean_shutdown: false,
            earlier_writes_synced: false,
            now: params.clock.now(),
        })?;
        let mut log = log;
        if log.log_end_offset() < start {
            log.truncate_fully_and_start_at(start, params.clock.now())
                .map_err(ReplayError::from)?;
        }
        let logged = log.latest_epoch().unwrap_or(LeaderEpoch(0));
        let epoch = stored_epoch(params.disk.as_ref(), &dir)?.max(logged);
        let from = start.max(log.log_start_offset());
        let bytes_since_snapshot = replay_into(&log, from, controller, &mut voters)?;
        let end = log.log_end_offset();
        let owned = Owned { log, epoch, snapshot, bytes_since_snapshot, voters, failed: false };
        let committed = AtomicI64::new(end.0);
        let metadata_version = AtomicI16::new(controller.image().features.metadata_version());
        Ok(Quorum { params, dir, owned: Mutex::new(owned), committed, metadata_version })
    }

    /// Opens a new epoch with this node as its leader.
    ///
    /// # Errors
    /// The epoch could not be made durable.
    pub fn elect(&self) -> Result<LeaderEpoch, QuorumError> {
        let mut owned = self.owned.lock();
        let epoch = LeaderEpoch(owned.epoch.0 + 1);
        self.store_epoch(epoch)?;
        owned.epoch = epoch;
        let now = self.params.clock.now();
        let end = owned.log.log_end_offset();
        owned.log.assign_leader_epoch(epoch, end);
        let node = self.params.node_id;
        let voter = Voter { voter_id: node.0, ..Voter::default() };
        let record = ControlRecord::LeaderChange(LeaderChangeMessage {
            version: 0,
            leader_id: node.0,
            voters: vec![voter.clone()],
            granting_voters: vec![voter],
        });
        let mut batch = BatchBuilder::new(BatchParams {
            base_offset: end,
            leader_epoch: epoch,
            is_control: true,
            ..BatchParams::default()
        });
        batch.push(now, Some(&record.key()), Some(&record.value()), &[]);
        self.write(&mut owned, now, batch.build().freeze())?;
        Ok(epoch)
    }

    fn store_epoch(&self, epoch: LeaderEpoch) -> Result<(), QuorumError> {
        // KRaft's QuorumStateData, version 0: the voters are those of the configuration.
        let node = self.params.node_id.0;
        let state = serde_json::json!({
            "clusterId": "",
            "leaderId": node,
            "leaderEpoch": epoch.0,
            "votedId": -1,
            "appliedOffset": 0,
            "currentVoters": [{"voterId": node}],
            "data_version": 0,
        });
        let path = self.dir.join(QUORUM_STATE);
        let bytes = state.to_string().into_bytes();
        let written = self.params.disk.write_atomic(&path, &bytes);
        written.map_err(|source| QuorumError::File { path, source })
    }

    fn write(&self, owned: &mut Owned, now: Timestamp, batch: Bytes) -> Result<(), AppendError> {
        if owned.failed {
            return Err(AppendError::Offline);
        }
        let bytes = batch.len() as u64;
        let context = AppendContext {
            leader_epoch: owned.epoch,
            now,
            origin: AppendOrigin::RaftLeader,
            transaction: TransactionCheck::Verified,
        };
        owned.log.append_as_leader(batch, context).inspect_err(|error| {
            let is_as_it_was = self.note_refusal(error) && !owned.log.is_offline();
            owned.failed = !is_as_it_was;
        })?;
        owned.log.flush(now).inspect_err(|_| {
            // The records are in the file, and nobody knows whether they last.
            owned.failed = true;
            self.params.health.take_offline();
        })?;
        owned.bytes_since_snapshot += bytes;
        self.committed.store(owned.log.log_end_offset().0, Ordering::Release);
        Ok(())
    }

    /// A disk that fails takes the directory with it, and so the broker. One that is full makes producers wait, whose
    /// records are the first that can; whether it is that.
    fn note_refusal(&self, error: &AppendError) -> bool {
        let AppendError::Storage(cause) = error else { return false };
        let is_full = cause.is_storage_full();
        if is_full {
            self.params.health.fill();
        } else {
            self.params.health.take_offline();
        }
        is_full
    }

    /// Appends records as one batch and makes them durable; answers the first one's offset.
    ///
    /// # Errors
    /// Every [`HostError`]; the reason has been logged.
    pub fn append(&self, now: Timestamp, records: &[MetadataRecord]) -> Result<Offset, HostError> {
        let mut owned = self.owned.lock();
        let base = owned.log.log_end_offset();
        let metadata_version = self.metadata_version();
        let mut batch = BatchBuilder::new(BatchParams {
            base_offset: base,
            leader_epoch: owned.epoch,
            ..BatchParams::default()
        });
        for record in records {
            let version = record_version(record, metadata_version);
            let value = encode_metadata_record(record, version);
            batch.push(now, None, Some(&value), &[]);
        }
        match self.write(&mut owned, now, batch.build().freeze()) {
            Ok(()) => Ok(base),
            Err(error) if owned.failed => {
                tracing::error!(dir = %self.dir.display(), %error, "metadata log failed");
                Err(HostError::NotActive)
            }
            Err(error) => {
                tracing::warn!(dir = %self.dir.display(), %error, "no space for metadata records");
                Err(HostError::NoSpace)
            }
        }
    }

    /// The finalized `metadata.version`, in whose versions records are written.
    pub fn metadata_version(&self) -> i16 {
        self.metadata_version.load(Ordering::Acquire)
    }

    /// Takes the finalized `metadata.version`.
    pub fn set_metadata_version(&self, version: i16) {
        self.metadata_version.store(version, Ordering::Release);
    }

    /// Below it everything is committed.
    pub fn committed(&self) -> Offset {
        Offset(self.committed.load(Ordering::Acquire))
    }

    /// What `DescribeQuorum` tells.
    pub fn status(&self) -> QuorumStatus {
        let owned = self.owned.lock();
        QuorumStatus {
            leader_id: self.params.node_id,
            leader_epoch: owned.epoch,
            high_watermark: self.committed(),
            log_end_offset: owned.log.log_end_offset(),
        }
    }

    /// Writes a snapshot of `image` when enough was written since the last one, and drops the log before it.
    ///
    /// # Errors
    /// The snapshot could not be written; the log is whole without it.
    pub fn snapshot_if_due(&self, image: &Image) -> Result<Option<SnapshotId>, QuorumError> {
        let mut owned = self.owned.lock();
        if owned.bytes_since_snapshot < self.params.snapshot_bytes || owned.failed {
            return Ok(None);
        }
        let id = SnapshotId { end_offset: image.offset.plus(1), epoch: owned.epoch };
        if owned.snapshot == Some(id) || id.end_offset > self.committed() {
            return Ok(None);
        }
        let now = self.params.clock.now();
        snapshots::write(self.params.disk.as_ref(), &self.dir, id, image, &owned.voters, now)?;
        owned.bytes_since_snapshot = 0;
        owned.snapshot = Some(id);
        // The snapshot ends below the committed end, so the start can move there.
        let committed = self.committed();
        if owned.log.set_log_start_offset(id.end_offset, committed).is_ok() {
            for files in owned.log.apply_retention(now, committed)? {
                files.remove()?;
            }
        }
        snapshots::remove_before(self.params.disk.as_ref(), &self.dir, id)?;
        Ok(Some(id))
    }

    pub fn leader_is_dead(&self) {}

    /// Flushes and closes the log.
    ///
    /// # Errors
    /// The last bytes could not be made durable.
    pub fn close(&self) -> Result<(), QuorumError> {
        let mut owned = self.owned.lock();
        owned.failed = true;
        Ok(owned.log.close(self.params.clock.now())?)
    }
}

fn stored_epoch(disk: &dyn Disk, dir: &Path) -> Result<LeaderEpoch, QuorumError> {
    let path = dir.join(QUORUM_STATE);
    if !disk.exists(&path) {
        return Ok(LeaderEpoch(0));
    }
    let bytes =
        disk.read(&path).map_err(|source| QuorumError::File { path: path.clone(), source })?;
    let state: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|error| QuorumError::State { path: path.clone(), cause: error.to_string() })?;
    let epoch = state.get("leaderEpoch").and_then(serde_json::Value::as_i64);
    match epoch.and_then(|epoch| i32::try_from(epoch).ok()) {
        Some(epoch) => Ok(LeaderEpoch(epoch)),
        None => Err(QuorumError::State { path, cause: "leaderEpoch is missing".to_owned() }),
    }
}

/// Replays the log from `from` on; answers how many bytes that was.
fn replay_into(
    log: &Log,
    from: Offset,
    controller: &mut Controller,
    voters: &mut VoterRecords,
) -> Result<u64, QuorumError> {
    let mut bytes = 0;
    replay_log(log, from, |header, batch| {
        bytes += batch.len() as u64;
        replay_batch(header, batch, from, controller, voters)
    })?;
    let end = log.log_end_offset();
    if end > Offset(0) {
        controller.advance_to(Offset(end.0 - 1));
    }
    Ok(bytes)
}

/// Replays one batch of the log or of a snapshot; records below `from` are passed over.
pub(super) fn replay_batch(
    header: &BatchHeader,
    batch: &Bytes,
    from: Offset,
    controller: &mut Controller,
    voters: &mut VoterRecords,
) -> Result<(), ReplayError> {
    if header.is_control() {
        voters.take(header, batch)?;
        controller.advance_to(header.last_offset());
        return Ok(());
    }
    let records = decode_records(header, batch, BATCH_BYTES_MAX)
        .map_err(|cause| ReplayError::Batch { offset: header.base_offset, cause })?;
    for record in records {
        let offset = record.offset(header);
        if offset < from {
            continue;
        }
        let value = record.value.unwrap_or_default();
        let (record, _) = decode_metadata_record(value)
            .map_err(|cause| ReplayError::Record { offset, cause: cause.to_string() })?;
        let timestamp = Timestamp(header.base_timestamp.0);
        controller.replay(&Entry { offset, timestamp, record });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
