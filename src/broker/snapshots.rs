//! Snapshots of the cluster metadata: `<end offset>-<epoch>.checkpoint` in the metadata log's directory.
//!
//! A snapshot is a file of record batches: a control batch with the header record, the Image's records, a
//! control batch with the footer record. Source: KIP-630. Invariant: a file under its final name is whole and
//! durable.

use super::quorum::{QuorumError, VoterRecords, replay_batch, take_voters};
use super::replay::ReplayError;
use crate::env::{Disk, OpenMode};
use crate::machines::metadata::{Controller, Image, record_version};
use bytes::Bytes;
use ottla_protocol::batch::batches;
use ottla_protocol::messages::{SnapshotFooterRecord, SnapshotHeaderRecord};
use ottla_protocol::record::{BatchBuilder, BatchParams};
use ottla_protocol::records::control::ControlRecord;
use ottla_protocol::records::metadata::encode_metadata_record;
use ottla_protocol::{ErrorCode, LeaderEpoch, MetadataRecord, Offset, Timestamp};
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".checkpoint";
/// Records in one batch of a snapshot.
const BATCH_RECORDS: usize = 1000;

/// Which state a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    /// The offset after the last record in it.
    pub end_offset: Offset,
    /// The epoch of that record.
    pub epoch: LeaderEpoch,
}

impl SnapshotId {
    /// The file's name.
    pub(super) fn file_name(self) -> String {
        format!("{:020}-{:010}{SUFFIX}", self.end_offset.0, self.epoch.0)
    }

    /// The snapshot of a file name; `None` for other files.
    pub(super) fn of_name(name: &str) -> Option<SnapshotId> {
        let (offset, epoch) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let end_offset = Offset(offset.parse().ok()?);
        Some(SnapshotId { end_offset, epoch: LeaderEpoch(epoch.parse().ok()?) })
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> QuorumError {
    let path: PathBuf = path.to_owned();
    move |source| QuorumError::File { path, source }
}

fn all(disk: &dyn Disk, dir: &Path) -> Result<Vec<SnapshotId>, QuorumError> {
    let entries = disk.list(dir).map_err(failed(dir))?;
    let mut ids: Vec<SnapshotId> =
        entries.iter().filter_map(|entry| SnapshotId::of_name(&entry.name)).collect();
    ids.sort();
    Ok(ids)
}

/// The newest snapshot there is.
///
/// # Errors
/// The directory cannot be listed.
pub fn newest(disk: &dyn Disk, dir: &Path) -> Result<Option<SnapshotId>, QuorumError> {
    Ok(all(disk, dir)?.pop())
}

/// The bytes of a snapshot.
///
/// # Errors
/// The file cannot be read.
pub fn read(disk: &dyn Disk, dir: &Path, id: SnapshotId) -> Result<Bytes, QuorumError> {
    let path = dir.join(id.file_name());
    disk.read(&path).map(Bytes::from).map_err(failed(&path))
}

/// Bytes of a snapshot from `position` on, at most `max_bytes`, and its whole size.
///
/// # Errors
/// SNAPSHOT_NOT_FOUND, POSITION_OUT_OF_RANGE, KAFKA_STORAGE_ERROR.
pub fn read_part(
    disk: &dyn Disk,
    dir: &Path,
    id: SnapshotId,
    position: u64,
    max_bytes: usize,
) -> Result<(u64, Bytes), ErrorCode> {
    let path = dir.join(id.file_name());
    let failed = |error: std::io::Error| match error.kind() {
        // It was replaced by a newer one.
        std::io::ErrorKind::NotFound => ErrorCode::SnapshotNotFound,
        _ => {
            tracing::error!(path = %path.display(), %error, "cannot read a snapshot");
            ErrorCode::KafkaStorageError
        }
    };
    let file = disk.open(&path, OpenMode::Read).map_err(failed)?;
    let size = file.len().map_err(failed)?;
    let left = size.checked_sub(position).ok_or(ErrorCode::PositionOutOfRange)?;
    let mut bytes = vec![0; max_bytes.min(usize::try_from(left).unwrap_or(usize::MAX))];
    file.read_exact_at(&mut bytes, position).map_err(failed)?;
    Ok((size, bytes.into()))
}

/// Replays a snapshot into `controller`, which is empty.
///
/// # Errors
/// It is damaged.
pub fn replay(
    bytes: &Bytes,
    id: SnapshotId,
    controller: &mut Controller,
    voters: &mut VoterRecords,
) -> Result<(), QuorumError> {
    for batch in batches(bytes) {
        let (header, batch) =
            batch.map_err(|cause| ReplayError::Batch { offset: id.end_offset, cause })?;
        ottla_protocol::batch::check_crc(&header, batch)
            .map_err(|cause| ReplayError::Batch { offset: header.base_offset, cause })?;
        let batch = bytes.slice_ref(batch);
        if header.is_control() {
            take_voters(&header, &batch, voters)?;
        } else {
            replay_batch(&header, &batch, Offset(0), controller)?;
        }
    }
    // Offsets inside a snapshot count its own records, which may be more or fewer than the log had.
    controller.stand_at(Offset(id.end_offset.0 - 1));
    Ok(())
}

/// Writes a snapshot that another voter made, after all of it was read once.
///
/// # Errors
/// The file could not be written and made durable.
pub fn store(
    disk: &dyn Disk,
    dir: &Path,
    id: SnapshotId,
    bytes: &Bytes,
) -> Result<(), QuorumError> {
    let path = dir.join(id.file_name());
    disk.write_atomic(&path, bytes).map_err(failed(&path))
}

/// Writes the snapshot `id` of `image`.
///
/// # Errors
/// The file could not be written and made durable.
pub fn write(
    disk: &dyn Disk,
    dir: &Path,
    id: SnapshotId,
    image: &Image,
    voters: &VoterRecords,
    now: Timestamp,
) -> Result<(), QuorumError> {
    let head = SnapshotHeaderRecord { version: 0, last_contained_log_timestamp: now.0 };
    let metadata_version = image.features.metadata_version();
    let records = image.to_records();
    let bytes = encode((head, id.epoch, now), voters, &records, metadata_version);
    let path = dir.join(id.file_name());
    disk.write_atomic(&path, &bytes).map_err(failed(&path))
}

/// A file of these records between header and footer, all written `now`.
pub(super) fn encode(
    (header, leader_epoch, now): (SnapshotHeaderRecord, LeaderEpoch, Timestamp),
    voters: &VoterRecords,
    records: &[MetadataRecord],
    metadata_version: i16,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut next = Offset(0);
    let params = |base_offset: Offset, is_control| BatchParams {
        base_offset,
        leader_epoch,
        is_control,
        ..BatchParams::default()
    };
    let control = |next: Offset, records: &[&ControlRecord]| {
        let mut batch = BatchBuilder::new(params(next, true));
        for record in records {
            batch.push(now, Some(&record.key()), Some(&record.value()), &[]);
        }
        batch.build()
    };
    let header = ControlRecord::SnapshotHeader(header);
    let first: Vec<_> = std::iter::once(&header).chain(voters.records()).collect();
    bytes.extend_from_slice(&control(next, &first));
    next = next.plus(first.len() as i64);
    for records in records.chunks(BATCH_RECORDS) {
        let mut batch = BatchBuilder::new(params(next, false));
        for record in records {
            let version = record_version(record, metadata_version);
            batch.push(now, None, Some(&encode_metadata_record(record, version)), &[]);
        }
        next = batch.next_offset();
        bytes.extend_from_slice(&batch.build());
    }
    let footer = ControlRecord::SnapshotFooter(SnapshotFooterRecord { version: 0 });
    bytes.extend_from_slice(&control(next, &[&footer]));
    bytes
}

/// Removes every snapshot older than `id`.
///
/// # Errors
/// One could not be removed.
pub fn remove_before(disk: &dyn Disk, dir: &Path, id: SnapshotId) -> Result<(), QuorumError> {
    for old in all(disk, dir)?.into_iter().filter(|old| *old < id) {
        let path = dir.join(old.file_name());
        disk.remove_file(&path).map_err(failed(&path))?;
    }
    disk.sync_dir(dir).map_err(failed(dir))
}
