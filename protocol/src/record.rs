//! The records inside a batch: reading them with every check that Kafka makes, and building
//! batches.
//!
//! Three ways to read, from cheap to dear: [`Payload::visit`] (borrowed records, nothing kept),
//! [`Payload::iter`], and [`decode_records`] (owned). Not here: rules about offsets, timestamps and
//! keys that depend on a topic's configuration (the log has them); [`check_producer_header`] and
//! [`check_consecutive`] are those that do not. Source: Kafka documentation, "Message Format:
//! Record"; KIP-98, KIP-82 (headers). Invariant: bytes of any content give records or a
//! [`BatchError`], and memory for them stays within the limit.

use bytes::{BufMut, Bytes, BytesMut};
use std::borrow::Cow;

use crate::batch::{self, BATCH_OVERHEAD, BatchError, BatchHeader, Compression, LOG_OVERHEAD};
use crate::batch::{MAGIC_V2, TimestampType};
use crate::compression;
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

/// Bytes of the smallest record: length, attributes, two deltas, no key, no value, no headers.
const SMALLEST_RECORD: usize = 7;

/// A record, owned; its bytes are slices of the batch or of what it expanded to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// No bit of it is used yet.
    pub attributes: i8,
    /// Milliseconds after the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Offset less the batch's base offset.
    pub offset_delta: i32,
    /// What compaction and partitioning go by.
    pub key: Option<Bytes>,
    /// `None` is a tombstone in a compacted topic.
    pub value: Option<Bytes>,
    /// In the producer's order; keys may repeat.
    pub headers: Vec<RecordHeader>,
}

/// A record's header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordHeader {
    /// UTF-8 by Kafka's rules, which nobody enforces.
    pub key: Bytes,
    /// May be null.
    pub value: Option<Bytes>,
}

impl RecordHeader {
    /// A header with a value.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> RecordHeader {
        RecordHeader { key: key.into(), value: Some(value.into()) }
    }

    /// The key as text; bytes that are not UTF-8 are replaced, as Kafka's clients do.
    pub fn key_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.key)
    }
}

impl Record {
    /// The record's offset in a batch with this header.
    pub fn offset(&self, header: &BatchHeader) -> Offset {
        header.base_offset.plus(i64::from(self.offset_delta))
    }

    /// The record's timestamp in a batch with this header.
    pub fn timestamp(&self, header: &BatchHeader) -> Timestamp {
        timestamp(header, self.timestamp_delta)
    }
}

fn timestamp(header: &BatchHeader, delta: i64) -> Timestamp {
    match header.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => Timestamp(header.base_timestamp.0.wrapping_add(delta)),
    }
}

/// A record as it lies in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// No bit of it is used yet.
    pub attributes: i8,
    /// Milliseconds after the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Offset less the batch's base offset.
    pub offset_delta: i32,
    /// What compaction and partitioning go by.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Number of headers.
    pub headers_count: u32,
    /// The headers' bytes, checked.
    headers: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// The record's offset in a batch with this header.
    pub fn offset(&self, header: &BatchHeader) -> Offset {
        header.base_offset.plus(i64::from(self.offset_delta))
    }

    /// The record's timestamp in a batch with this header.
    pub fn timestamp(&self, header: &BatchHeader) -> Timestamp {
        timestamp(header, self.timestamp_delta)
    }

    /// Key and value of each header.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut cursor = Cursor { bytes: self.headers };
        // The headers were read once before, so that they end where they should.
        (0..self.headers_count).map_while(move |_| cursor.header().ok())
    }

    /// Copies the record out of `whole`, which it lies in, without copying its bytes.
    fn to_owned_in(self, whole: &Bytes) -> Record {
        Record {
            attributes: self.attributes,
            timestamp_delta: self.timestamp_delta,
            offset_delta: self.offset_delta,
            key: self.key.map(|key| whole.slice_ref(key)),
            value: self.value.map(|value| whole.slice_ref(value)),
            headers: self
                .headers()
                .map(|(key, value)| RecordHeader {
                    key: whole.slice_ref(key),
                    value: value.map(|value| whole.slice_ref(value)),
                })
                .collect(),
        }
    }
}

/// What is left of a record or of all records. Errors are `&'static str`: the hot path formats
/// nothing.
struct Cursor<'a> {
    bytes: &'a [u8],
}

type Parsed<T> = Result<T, &'static str>;

const CUT: &str = "record ends inside a field";

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Parsed<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(CUT)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Parsed<u8> {
        let (byte, rest) = self.bytes.split_first().ok_or(CUT)?;
        self.bytes = rest;
        Ok(*byte)
    }

    #[inline]
    fn varint(&mut self) -> Parsed<i32> {
        let first = self.byte()?;
        let mut value = u32::from(first & 0x7f);
        if first & 0x80 != 0 {
            let mut shift = 7;
            loop {
                let byte = self.byte()?;
                value |= u32::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
                shift += 7;
                if shift > 28 {
                    return Err("record has a variable-length integer that is too long");
                }
            }
        }
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    #[inline]
    fn varlong(&mut self) -> Parsed<i64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err("record has a variable-length integer that is too long")
    }

    /// Bytes after their length; every negative length is null, as Kafka reads it.
    #[inline]
    fn nullable(&mut self) -> Parsed<Option<&'a [u8]>> {
        match usize::try_from(self.varint()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn header(&mut self) -> Parsed<(&'a [u8], Option<&'a [u8]>)> {
        let key = self.nullable()?.ok_or("record header has a key of negative length")?;
        Ok((key, self.nullable()?))
    }

    fn record(&mut self) -> Parsed<RecordView<'a>> {
        let length = usize::try_from(self.varint()?).map_err(|_| "record of negative length")?;
        let mut body = Cursor { bytes: self.take(length)? };
        let mut record = RecordView {
            attributes: body.byte()? as i8,
            timestamp_delta: body.varlong()?,
            offset_delta: body.varint()?,
            key: body.nullable()?,
            value: body.nullable()?,
            headers_count: 0,
            headers: &[],
        };
        let count = body.varint()?;
        record.headers_count =
            u32::try_from(count).map_err(|_| "record with a negative number of headers")?;
        record.headers = body.bytes;
        for _ in 0..record.headers_count {
            body.header()?;
        }
        if !body.bytes.is_empty() {
            return Err("record is shorter than it says");
        }
        Ok(record)
    }
}

/// All records of one batch, expanded.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Payload<'a> {
    /// Expands the records of `batch`, which is one whole batch with this header, into `scratch`
    /// where they are compressed. The CRC is not checked.
    ///
    /// # Errors
    /// `Short`, `TooLarge` (more than `limit` bytes), `Decompress`, and `Invalid` for a codec that
    /// does not exist or a count that the bytes cannot hold.
    pub fn expand(
        header: &BatchHeader,
        batch: &'a [u8],
        limit: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Payload<'a>, BatchError> {
        let data = records_of(header, batch)?;
        let bytes = match codec(header)? {
            Compression::None => data,
            _ if header.records_count == 0 => &[],
            codec => {
                compression::decompress_into(codec, data, limit, scratch)?;
                scratch.as_slice()
            }
        };
        Payload::new(bytes, header.records_count)
    }

    fn new(bytes: &'a [u8], count: i32) -> Result<Payload<'a>, BatchError> {
        match usize::try_from(count) {
            Ok(count) if count <= bytes.len() / SMALLEST_RECORD => Ok(Payload { bytes, count }),
            _ => Err(BatchError::Invalid(format!(
                "batch says it has {count} records in {} bytes",
                bytes.len()
            ))),
        }
    }

    /// The records' bytes, uncompressed.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How many records there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The records, front to back; after an error there is nothing more.
    pub fn iter(&self) -> RecordIter<'a> {
        RecordIter { cursor: Cursor { bytes: self.bytes }, left: self.count, done: false }
    }

    /// Calls `each` with the index and view of every record, and checks that nothing follows the
    /// last.
    ///
    /// # Errors
    /// `Invalid` for a malformed record, and whatever `each` returns.
    pub fn visit<E: From<BatchError>>(
        &self,
        mut each: impl FnMut(usize, RecordView<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (index, record) in self.iter().enumerate() {
            each(index, record?)?;
        }
        Ok(())
    }
}

/// Walks the records of a [`Payload`].
pub struct RecordIter<'a> {
    cursor: Cursor<'a>,
    left: usize,
    done: bool,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.left == 0 {
            self.done = true;
            let extra = self.cursor.bytes.len();
            return (extra > 0).then(|| {
                Err(BatchError::Invalid(format!("{extra} bytes follow the batch's last record")))
            });
        }
        self.left -= 1;
        let record = self.cursor.record();
        self.done = record.is_err();
        Some(record.map_err(|reason| BatchError::Invalid(reason.to_owned())))
    }
}

fn codec(header: &BatchHeader) -> Result<Compression, BatchError> {
    header.compression().ok_or_else(|| {
        BatchError::Invalid(format!("unknown compression type {}", header.attributes & 7))
    })
}

fn records_of<'a>(header: &BatchHeader, batch: &'a [u8]) -> Result<&'a [u8], BatchError> {
    batch
        .get(BATCH_OVERHEAD..header.size())
        .ok_or(BatchError::Short { needed: header.size(), have: batch.len() })
}

/// Reads all records of `batch`, which is one whole batch with this header. The CRC is not checked.
///
/// # Errors
/// As [`Payload::expand`], and `Invalid` for a malformed record or bytes after the last.
pub fn decode_records(
    header: &BatchHeader,
    batch: &Bytes,
    limit: usize,
) -> Result<Vec<Record>, BatchError> {
    let mut whole = batch.clone();
    let data = records_of(header, batch)?;
    let payload = match codec(header)? {
        Compression::None => Payload::new(data, header.records_count)?,
        _ if header.records_count == 0 => Payload::new(&[], 0)?,
        codec => {
            whole = compression::decompress(codec, data, limit)?;
            Payload::new(&whole, header.records_count)?
        }
    };
    let mut records = Vec::with_capacity(payload.count.min(DECODE_START));
    for record in payload.iter() {
        records.push(record?.to_owned_in(&whole));
    }
    Ok(records)
}

/// First allocation for decoded records; a record here is larger than its smallest form on the
/// wire.
const DECODE_START: usize = 1024;

/// The checks on a producer's batch that need its header only.
///
/// # Errors
/// `Invalid` with what is wrong.
pub fn check_producer_header(header: &BatchHeader) -> Result<(), BatchError> {
    let by_offsets = i64::from(header.last_offset_delta) + 1;
    let invalid = |reason: String| Err(BatchError::Invalid(reason));
    if by_offsets <= 0 {
        return invalid(format!("batch has a last offset delta of {}", header.last_offset_delta));
    }
    if header.records_count <= 0 {
        return invalid(format!("batch says it has {} records", header.records_count));
    }
    if by_offsets != i64::from(header.records_count) {
        return invalid(format!(
            "batch has {by_offsets} offsets and {} records",
            header.records_count
        ));
    }
    if header.is_control() {
        return invalid("clients may not write control batches".to_owned());
    }
    if header.producer_id.0 >= 0 && header.base_sequence < 0 {
        return invalid(format!(
            "batch of producer {} has the sequence {}",
            header.producer_id, header.base_sequence
        ));
    }
    codec(header).map(|_| ())
}

/// Reads every record and checks that their offset deltas are 0, 1, 2, ...
///
/// # Errors
/// `Invalid` for a malformed record or another delta.
pub fn check_consecutive(payload: &Payload<'_>) -> Result<(), BatchError> {
    payload.visit(|index, record| {
        if i64::from(record.offset_delta) == index as i64 {
            return Ok(());
        }
        Err(BatchError::Invalid(format!(
            "record {index} of the batch has the offset delta {}",
            record.offset_delta
        )))
    })
}

mod builder;
pub use builder::{BatchBuilder, BatchParams};

#[cfg(test)]
mod tests;
