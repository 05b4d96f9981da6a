//! Reading the metadata log's records from its files as they lie, before anything opens it: opening recovers it.
//!
//! Source: KIP-595, KIP-630 (snapshots), KIP-631 (records).

use super::replay::BatchReader;
use crate::env::{Disk, DiskFile, OpenMode};
use bytes::Bytes;
use ottla_protocol::batch::{BATCH_OVERHEAD, BatchHeader, check_crc};
use ottla_protocol::record::decode_records;
use ottla_protocol::records::metadata::decode_metadata_record;
use ottla_protocol::{MetadataRecord, Offset};
use std::io;
use std::path::{Path, PathBuf};

/// Records of one batch, expanded.
const RECORDS_BYTES_MAX: usize = 256 << 20;

/// Why the metadata log's files cannot be read to their end.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record is damaged, or of a kind or version that does not exist here.
    #[error("{path}: record at offset {offset}: {cause}", path = path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// Which record.
        offset: Offset,
        /// What is wrong.
        cause: String,
    },
}

/// Hands the records of the newest snapshot, then those of the log, to `visit`, in the order of their offsets; control
/// records are left out. Records that the snapshot holds and the log still has come twice. A log's tail that is torn or
/// damaged ends it: recovery says what it cuts. Answers whether `dir` has any snapshot or segment.
///
/// # Errors
/// Every [`ScanError`].
pub fn scan_metadata(
    disk: &dyn Disk,
    dir: &Path,
    visit: &mut dyn FnMut(&MetadataRecord),
) -> Result<bool, ScanError> {
    let unreadable = |source| ScanError::Unreadable { path: dir.to_owned(), source };
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unreadable(error)),
    };
    let ends_with = |name: &str, suffix: &str| {
        name.strip_suffix(suffix).is_some_and(|stem| stem.starts_with(|c: char| c.is_ascii_digit()))
    };
    // Both are named by offsets of twenty digits, so the order of names is that of offsets.
    let snapshot = entries.iter().rfind(|entry| ends_with(&entry.name, ".checkpoint"));
    let segments = entries.iter().filter(|entry| ends_with(&entry.name, ".log"));
    let mut is_there = false;
    for entry in snapshot.into_iter().chain(segments) {
        is_there = true;
        scan_file(disk, &dir.join(&entry.name), visit)?;
    }
    Ok(is_there)
}

fn scan_file(
    disk: &dyn Disk,
    path: &Path,
    visit: &mut dyn FnMut(&MetadataRecord),
) -> Result<(), ScanError> {
    let unreadable = |source| ScanError::Unreadable { path: path.to_owned(), source };
    let file = disk.open(path, OpenMode::Read).map_err(unreadable)?;
    let len = file.len().map_err(unreadable)?;
    let mut reader = BatchReader::new(&*file as &dyn DiskFile, len);
    let mut position = 0;
    while position + BATCH_OVERHEAD as u64 <= len {
        let head = reader.bytes(position, BATCH_OVERHEAD).map_err(unreadable)?;
        let Ok(header) = BatchHeader::parse(head) else { return Ok(()) };
        if header.size() as u64 > len - position {
            return Ok(());
        }
        let batch = reader.bytes(position, header.size()).map_err(unreadable)?;
        if check_crc(&header, batch).is_err() {
            return Ok(());
        }
        position += header.size() as u64;
        if header.is_control() {
            continue;
        }
        let wrong = |offset, cause| ScanError::Record { path: path.to_owned(), offset, cause };
        let batch = Bytes::copy_from_slice(batch);
        let records = decode_records(&header, &batch, RECORDS_BYTES_MAX)
            .map_err(|error| wrong(header.base_offset, error.to_string()))?;
        for record in records {
            let value = record.value.clone().unwrap_or_default();
            let decoded = decode_metadata_record(value);
            let (decoded, _) =
                decoded.map_err(|error| wrong(record.offset(&header), error.to_string()))?;
            visit(&decoded);
        }
    }
    Ok(())
}
