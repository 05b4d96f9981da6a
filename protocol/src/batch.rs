//! Record batch v2 as it lies on the wire and on disk: a view of the header, its CRC, and the
//! fields that the leader sets. Records are not decoded here (see `record.rs`).
//!
//! Source: Kafka documentation, "Message Format: Record Batch". All integers are big endian:
//! `base_offset i64, batch_length i32, partition_leader_epoch i32, magic i8, crc u32, attributes
//! i16, last_offset_delta i32, base_timestamp i64, max_timestamp i64, producer_id i64,
//! producer_epoch i16, base_sequence i32, records_count i32, records`. The CRC-32C covers
//! everything after itself, so base offset and leader epoch may be set without touching it.

use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

/// Bytes of a batch before its first record.
pub const BATCH_OVERHEAD: usize = 61;
/// Bytes before those that `batch_length` counts.
pub const LOG_OVERHEAD: usize = 12;
/// Where the bytes that the CRC covers begin.
pub const CRC_FROM: usize = 21;
/// The magic of record batches; 0 and 1 are message sets.
pub const MAGIC_V2: i8 = 2;

const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;

/// A codec of the batch's records, in the attributes' lowest three bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Compression {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Compression {
    /// The codec of an attribute's bits, `None` for 5 to 7, which no codec has.
    pub fn from_bits(bits: i16) -> Option<Compression> {
        Some(match bits & 7 {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            _ => return None,
        })
    }
}

/// What `max_timestamp` and the records' timestamps mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's time.
    CreateTime,
    /// The broker's time at append; all records have the batch's `max_timestamp`.
    LogAppendTime,
}

/// Why bytes are not a sound batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header or than `batch_length` says.
    #[error("batch needs {needed} bytes, {have} are there")]
    Short {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        have: usize,
    },
    /// `batch_length` is below the header's size.
    #[error("batch length {0} is below the smallest possible")]
    BadLength(i32),
    /// Not magic 2.
    #[error("magic {0} is not supported here")]
    BadMagic(i8),
    /// The CRC-32C does not match.
    #[error("CRC is {computed:#010x}, the batch says {stored:#010x}")]
    BadCrc {
        /// In the header.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// A header field or a record contradicts another.
    #[error("{0}")]
    Invalid(String),
    /// The records are not what the codec makes.
    #[error("{codec:?} data is broken: {reason}")]
    Decompress {
        /// The batch's codec.
        codec: Compression,
        /// What the decoder met.
        reason: String,
    },
    /// The records expand past the bound.
    #[error("records expand past {limit} bytes")]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
}

/// The fixed fields of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes after the length field.
    pub batch_length: i32,
    /// Epoch of the leader that appended it; -1 from a producer.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C as stored.
    pub crc: u32,
    /// Codec (bits 0-2), timestamp type (3), transactional (4), control (5), has delete horizon
    /// (6).
    pub attributes: i16,
    /// Offset of the last record less the base offset.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, or the delete horizon where bit 6 is set.
    pub base_timestamp: Timestamp,
    /// Largest timestamp of the records.
    pub max_timestamp: Timestamp,
    /// -1 without idempotence.
    pub producer_id: ProducerId,
    /// -1 without idempotence.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record, -1 without idempotence.
    pub base_sequence: i32,
    /// Records in the batch.
    pub records_count: i32,
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may end anywhere after it. The CRC is not
    /// checked.
    ///
    /// # Errors
    /// `Short` with fewer than 61 bytes, `BadLength`, `BadMagic`.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if bytes.len() > MAGIC_AT && bytes[MAGIC_AT] as i8 != MAGIC_V2 {
            return Err(BatchError::BadMagic(bytes[MAGIC_AT] as i8));
        }
        if bytes.len() < BATCH_OVERHEAD {
            return Err(BatchError::Short { needed: BATCH_OVERHEAD, have: bytes.len() });
        }
        let header = BatchHeader {
            base_offset: Offset(i64::from_be_bytes(chunk(bytes, 0))),
            batch_length: i32::from_be_bytes(chunk(bytes, 8)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(chunk(bytes, 12))),
            crc: u32::from_be_bytes(chunk(bytes, CRC_AT)),
            attributes: i16::from_be_bytes(chunk(bytes, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(chunk(bytes, 23)),
            base_timestamp: Timestamp(i64::from_be_bytes(chunk(bytes, 27))),
            max_timestamp: Timestamp(i64::from_be_bytes(chunk(bytes, MAX_TIMESTAMP_AT))),
            producer_id: ProducerId(i64::from_be_bytes(chunk(bytes, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(chunk(bytes, 51))),
            base_sequence: i32::from_be_bytes(chunk(bytes, 53)),
            records_count: i32::from_be_bytes(chunk(bytes, 57)),
        };
        if header.batch_length < (BATCH_OVERHEAD - LOG_OVERHEAD) as i32 {
            return Err(BatchError::BadLength(header.batch_length));
        }
        Ok(header)
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        self.batch_length as usize + LOG_OVERHEAD
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// Offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// The codec, `None` where the bits name none.
    pub fn compression(&self) -> Option<Compression> {
        Compression::from_bits(self.attributes)
    }

    /// Which clock the timestamps are of.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & 8 == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & 16 != 0
    }

    /// Holds markers rather than data.
    pub fn is_control(&self) -> bool {
        self.attributes & 32 != 0
    }

    /// `base_timestamp` is the time from which tombstones may go (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & 64 != 0
    }

    /// Sequence of the last record; sequences wrap from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last & i64::from(i32::MAX)) as i32
    }
}

/// Checks the CRC of the whole batch at the start of `bytes`.
///
/// # Errors
/// `Short` when `bytes` ends before the batch does, `BadCrc`.
pub fn check_crc(header: &BatchHeader, bytes: &[u8]) -> Result<(), BatchError> {
    if bytes.len() < header.size() {
        return Err(BatchError::Short { needed: header.size(), have: bytes.len() });
    }
    let computed = crc32c::crc32c(&bytes[CRC_FROM..header.size()]);
    if computed != header.crc {
        return Err(BatchError::BadCrc { stored: header.crc, computed });
    }
    Ok(())
}

/// The first 16 bytes of a batch as the leader writes them: everything that may change without a
/// new CRC.
pub fn leader_prefix(header: &BatchHeader, base_offset: Offset, epoch: LeaderEpoch) -> [u8; 16] {
    let mut prefix = [0; 16];
    prefix[..8].copy_from_slice(&base_offset.0.to_be_bytes());
    prefix[8..12].copy_from_slice(&header.batch_length.to_be_bytes());
    prefix[12..].copy_from_slice(&epoch.0.to_be_bytes());
    prefix
}

/// Sets the base offset in place.
pub fn set_base_offset(batch: &mut [u8], base_offset: Offset) {
    batch[..8].copy_from_slice(&base_offset.0.to_be_bytes());
}

/// Sets the leader epoch in place.
pub fn set_leader_epoch(batch: &mut [u8], epoch: LeaderEpoch) {
    batch[12..16].copy_from_slice(&epoch.0.to_be_bytes());
}

/// Sets timestamp type and largest timestamp in place, and the CRC anew. `batch` is one whole
/// batch.
pub fn set_max_timestamp(batch: &mut [u8], kind: TimestampType, max_timestamp: Timestamp) {
    let mut attributes = i16::from_be_bytes(chunk(batch, ATTRIBUTES_AT));
    match kind {
        TimestampType::CreateTime => attributes &= !8,
        TimestampType::LogAppendTime => attributes |= 8,
    }
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&max_timestamp.0.to_be_bytes());
    set_crc(batch);
}

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// CRC-32C of what `crc` is of, followed by `bytes`.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// Computes and stores the CRC of one whole batch.
pub fn set_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Walks the whole batches in `bytes`; stops at the first that is cut or is no batch.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    bytes: &'a [u8],
}

/// The batches of `bytes`, front to back; CRCs are not checked.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let whole = BatchHeader::parse(self.bytes).and_then(|header| {
            let have = self.bytes.len();
            if have < header.size() {
                return Err(BatchError::Short { needed: header.size(), have });
            }
            Ok(header)
        });
        match whole {
            Ok(header) => {
                let (batch, rest) = self.bytes.split_at(header.size());
                self.bytes = rest;
                Some(Ok((header, batch)))
            }
            Err(error) => {
                self.bytes = &[];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_past_the_last_one_do_not_overflow() {
        let mut bytes = [0; BATCH_OVERHEAD];
        bytes[..8].copy_from_slice(&i64::MAX.to_be_bytes());
        bytes[8..12].copy_from_slice(&49i32.to_be_bytes());
        bytes[MAGIC_AT] = MAGIC_V2 as u8;
        bytes[23..27].copy_from_slice(&i32::MAX.to_be_bytes());
        let header = BatchHeader::parse(&bytes).expect("a header");
        assert_eq!(header.last_offset(), Offset(i64::MAX));
        assert_eq!(header.next_offset(), Offset(i64::MAX));
    }
}
