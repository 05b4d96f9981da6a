//! The file of a producer snapshot: `<offset>.snapshot`, the producers at that offset.
//!
//! Big endian: version (i16, 1), CRC-32C of what follows it (u32), number of entries (i32), and for each: producer
//! id (i64), epoch (i16), last sequence (i32), last offset (i64), offset delta (i32), timestamp (i64), coordinator
//! epoch (i32), first offset of the open transaction or -1 (i64). Only the last batch of a producer is kept.
//! Source: Kafka's ProducerSnapshot schema.

use super::directory::Directory;
use super::error::StorageError;
use super::producer_state::{BatchMetadata, ProducerEntry};
use crate::env::OpenMode;
use ottla_protocol::batch::crc32c;
use ottla_protocol::{Offset, ProducerEpoch, ProducerId, Timestamp};
use std::io::IoSlice;

const VERSION: i16 = 1;
const CRC_AT: usize = 2;
const ENTRIES_AT: usize = 6;
const ENTRY_SIZE: usize = 46;

/// Encodes the entries.
pub(crate) fn encode(entries: &[(ProducerId, &ProducerEntry)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENTRIES_AT + 4 + entries.len() * ENTRY_SIZE);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(entries.len() as i32).to_be_bytes());
    for (id, entry) in entries {
        let last = entry.last_batch();
        bytes.extend_from_slice(&id.0.to_be_bytes());
        bytes.extend_from_slice(&entry.epoch.0.to_be_bytes());
        bytes.extend_from_slice(&last.map_or(-1, |b| b.last_sequence).to_be_bytes());
        bytes.extend_from_slice(&last.map_or(-1, |b| b.last_offset.0).to_be_bytes());
        bytes.extend_from_slice(&last.map_or(0, |b| b.offset_delta).to_be_bytes());
        bytes.extend_from_slice(&entry.last_timestamp.0.to_be_bytes());
        bytes.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
        let first = entry.current_txn_first_offset.unwrap_or(Offset::UNKNOWN);
        bytes.extend_from_slice(&first.0.to_be_bytes());
    }
    let crc = crc32c(&bytes[ENTRIES_AT..]);
    bytes[CRC_AT..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
    bytes
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }
}

fn decode_entry(fields: &mut Fields<'_>) -> Option<(ProducerId, ProducerEntry)> {
    let id = ProducerId(fields.i64()?);
    let mut entry = ProducerEntry::EMPTY;
    entry.epoch = ProducerEpoch(fields.i16()?);
    let last_sequence = fields.i32()?;
    let last_offset = Offset(fields.i64()?);
    let offset_delta = fields.i32()?;
    entry.last_timestamp = Timestamp(fields.i64()?);
    entry.coordinator_epoch = fields.i32()?;
    entry.current_txn_first_offset = Some(fields.i64()?).filter(|first| *first >= 0).map(Offset);
    if last_offset.0 >= 0 {
        let timestamp = entry.last_timestamp;
        entry.push(BatchMetadata { last_sequence, last_offset, offset_delta, timestamp });
    }
    Some((id, entry))
}

/// Decodes a snapshot; the error says what is wrong with it.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<(ProducerId, ProducerEntry)>, String> {
    let mut fields = Fields(bytes);
    let version = fields.i16().ok_or("the file is cut")?;
    if version != VERSION {
        return Err(format!("version {version} is not known"));
    }
    let stored = fields.take().map(u32::from_be_bytes).ok_or("the file is cut")?;
    let computed = crc32c(fields.0);
    if stored != computed {
        return Err(format!("CRC is {computed:#010x}, the file says {stored:#010x}"));
    }
    let count = fields.i32().ok_or("the file is cut")?;
    if count < 0 || fields.0.len() < count as usize * ENTRY_SIZE {
        return Err(format!("{count} entries do not fit the file"));
    }
    (0..count)
        .map(|_| decode_entry(&mut fields).ok_or_else(|| "the file is cut".to_owned()))
        .collect()
}

pub(crate) type Decoded = Result<Vec<(ProducerId, ProducerEntry)>, String>;

pub(crate) fn read(directory: &Directory, name: &str) -> Result<Decoded, StorageError> {
    let path = directory.join(name);
    match directory.disk().read(&path) {
        Ok(bytes) => Ok(decode(&bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Ok(Err("the file is gone".to_owned()))
        }
        Err(e) => Err(StorageError::new("read", &path, e)),
    }
}

/// Writes a snapshot. It is not synced here: a torn one fails its CRC and is rebuilt from the batches.
pub(crate) fn write(
    directory: &Directory,
    name: &str,
    entries: &[(ProducerId, &ProducerEntry)],
) -> Result<(), StorageError> {
    let path = directory.join(name);
    let error = |e| StorageError::new("write", &path, e);
    let file = directory.disk().open(&path, OpenMode::Create).map_err(error)?;
    let bytes = encode(entries);
    file.set_len(0).map_err(error)?;
    file.write_all_at(&[IoSlice::new(&bytes)], 0).map_err(error)?;
    directory.mark_changed();
    Ok(())
}
