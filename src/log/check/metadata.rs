//! What the metadata log has beside a log's files: records of the schemas, snapshots, `quorum-state`.
//!
//! Source: KIP-595 (`quorum-state`), KIP-630 (snapshots), KIP-631 (records).

use super::finding::{Finding, Findings, Kind};
use crate::env::Disk;
use bytes::Bytes;
use ottla_protocol::Offset;
use ottla_protocol::batch::{BatchHeader, batches, check_crc};
use ottla_protocol::record::{Record, decode_records};
use ottla_protocol::records::control::ControlRecord;
use ottla_protocol::records::metadata::decode_metadata_record;
use std::path::Path;

/// Records of one batch, expanded.
const RECORDS_BYTES_MAX: usize = 64 << 20;
/// Kafka's snapshots of large clusters have some hundred megabytes.
const SNAPSHOT_BYTES_MAX: u64 = 2 << 30;

pub(super) const QUORUM_STATE: &str = "quorum-state";
pub(super) const CHECKPOINT_SUFFIX: &str = ".checkpoint";

/// The end offset in the name of a snapshot, `<end offset>-<epoch>.checkpoint`.
pub(super) fn snapshot_end(name: &str) -> Option<Offset> {
    let (offset, epoch) = name.strip_suffix(CHECKPOINT_SUFFIX)?.split_once('-')?;
    epoch.parse::<i32>().ok()?;
    offset.parse().ok().map(Offset)
}

/// Decodes the records of one whole batch of the metadata log; the error has the offset of the first that is wrong.
pub(super) fn check_batch(header: &BatchHeader, batch: &[u8]) -> Result<(), (Offset, String)> {
    let at_base = |error: String| (header.base_offset, error);
    let batch = Bytes::copy_from_slice(&batch[..header.size().min(batch.len())]);
    let records =
        decode_records(header, &batch, RECORDS_BYTES_MAX).map_err(|e| at_base(e.to_string()))?;
    for record in records {
        let offset = record.offset(header);
        let decoded = if header.is_control() {
            decode_control(&record).map(|_| ())
        } else {
            let value = record.value.clone().unwrap_or_default();
            decode_metadata_record(value).map(|_| ()).map_err(|e| e.to_string())
        };
        decoded.map_err(|error| (offset, error))?;
    }
    Ok(())
}

fn decode_control(record: &Record) -> Result<ControlRecord, String> {
    let key = record.key.clone().unwrap_or_default();
    let value = record.value.clone().unwrap_or_default();
    ControlRecord::decode(&key, &value).map_err(|e| e.to_string())
}

/// Reads a snapshot from its header record to its footer record.
pub(super) fn check_snapshot(disk: &dyn Disk, path: &Path, len: u64, findings: &mut Findings) {
    if len > SNAPSHOT_BYTES_MAX {
        findings.push(Finding::new(Kind::Metadata, path, format!("a snapshot of {len} bytes")));
        return;
    }
    let bytes = match disk.read(path) {
        Ok(bytes) => bytes,
        // A newer one took its place.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
        Err(e) => return findings.push(Finding::new(Kind::Unreadable, path, e.to_string())),
    };
    let (mut position, mut ends) = (0, (None, None));
    for batch in batches(&bytes) {
        let checked =
            batch.and_then(|(header, batch)| check_crc(&header, batch).map(|()| (header, batch)));
        let (header, batch) = match checked {
            Ok(sound) => sound,
            Err(error) => {
                findings.push(Finding::new(Kind::Metadata, path, error.to_string()).at(position));
                return;
            }
        };
        if let Err((offset, error)) = check_batch(&header, batch) {
            let finding = Finding::new(Kind::Metadata, path, error).at(position);
            findings.push(finding.at_offset(offset));
        }
        let kind = control_kind(&header, batch);
        if position == 0 {
            ends.0 = kind;
        }
        ends.1 = kind;
        position += header.size() as u64;
    }
    let is_whole = ends == (Some(SNAPSHOT_HEADER), Some(SNAPSHOT_FOOTER));
    if !is_whole {
        let what = "it has no header or no footer record: it is not whole";
        findings.push(Finding::new(Kind::Metadata, path, what).at(position));
    }
}

const SNAPSHOT_HEADER: i16 = 3;
const SNAPSHOT_FOOTER: i16 = 4;

fn control_kind(header: &BatchHeader, batch: &[u8]) -> Option<i16> {
    if !header.is_control() {
        return None;
    }
    let batch = Bytes::copy_from_slice(batch);
    let records = decode_records(header, &batch, RECORDS_BYTES_MAX).ok()?;
    // The header's batch may go on with the voters of the quorum.
    let first = decode_control(records.first()?).ok()?.type_id();
    Some(first)
}

/// Reads `quorum-state`.
pub(super) fn check_quorum_state(disk: &dyn Disk, path: &Path, findings: &mut Findings) {
    let bytes = match disk.read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
        Err(e) => return findings.push(Finding::new(Kind::Unreadable, path, e.to_string())),
    };
    let what = match serde_json::from_slice::<serde_json::Value>(&bytes) {
        Err(error) => error.to_string(),
        Ok(state) => {
            let epoch = state.get("leaderEpoch").and_then(serde_json::Value::as_i64);
            if epoch.is_some_and(|epoch| (0..=i64::from(i32::MAX)).contains(&epoch)) {
                return;
            }
            "it has no leaderEpoch".to_owned()
        }
    };
    findings.push(Finding::new(Kind::QuorumState, path, what));
}
