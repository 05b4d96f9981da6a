//! Writes record batches: from records to the bytes of one batch, CRC included.
//!
//! Records are encoded as they are pushed and compressed at the end. Not here: when a batch is
//! full.

use super::*;

/// What a batch's header says besides its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchParams {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Epoch of the leader that appends; -1 from a producer.
    pub leader_epoch: LeaderEpoch,
    /// How the records are compressed.
    pub compression: Compression,
    /// The codec's level; `None` is its default.
    pub level: Option<i32>,
    /// With this time, all records have it in place of their own.
    pub log_append_time: Option<Timestamp>,
    /// -1 without idempotence.
    pub producer_id: ProducerId,
    /// -1 without idempotence.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record, -1 without idempotence.
    pub base_sequence: i32,
    /// Part of a transaction.
    pub is_transactional: bool,
    /// Holds markers rather than data.
    pub is_control: bool,
    /// When its tombstones may go (KIP-534); then the base timestamp.
    pub delete_horizon: Option<Timestamp>,
}

impl Default for BatchParams {
    fn default() -> Self {
        BatchParams {
            base_offset: Offset(0),
            leader_epoch: LeaderEpoch::UNKNOWN,
            compression: Compression::None,
            level: None,
            log_append_time: None,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: -1,
            is_transactional: false,
            is_control: false,
            delete_horizon: None,
        }
    }
}

impl BatchParams {
    fn attributes(&self) -> i16 {
        let bit = |set: bool, bit: i16| if set { 1 << bit } else { 0 };
        self.compression as i16
            | bit(self.log_append_time.is_some(), 3)
            | bit(self.is_transactional, 4)
            | bit(self.is_control, 5)
            | bit(self.delete_horizon.is_some(), 6)
    }
}

/// Collects records into one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    params: BatchParams,
    /// Room for the header, then the records, uncompressed.
    buf: BytesMut,
    base_timestamp: Option<Timestamp>,
    max_timestamp: Timestamp,
    last_offset_delta: i32,
    count: i32,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(params: BatchParams) -> BatchBuilder {
        let mut buf = BytesMut::with_capacity(512);
        buf.put_bytes(0, BATCH_OVERHEAD);
        BatchBuilder {
            params,
            buf,
            base_timestamp: params.delete_horizon,
            max_timestamp: Timestamp::NONE,
            last_offset_delta: -1,
            count: 0,
        }
    }

    /// Adds a record at the offset after the last one's.
    pub fn push(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) {
        self.push_at(self.last_offset_delta + 1, timestamp, key, value, headers);
    }

    /// Adds a record at an offset delta of its own, which is above all before it (compaction leaves
    /// gaps).
    pub fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) {
        debug_assert!(offset_delta > self.last_offset_delta, "offsets go up");
        let base = *self.base_timestamp.get_or_insert(timestamp);
        let delta = timestamp.0.wrapping_sub(base.0);
        let length = body_size(delta, offset_delta, key, value, headers);
        self.buf.reserve(varint_size(length as i64) + length);
        put_varint(&mut self.buf, length as i64);
        self.buf.put_i8(0);
        put_varint(&mut self.buf, delta);
        put_varint(&mut self.buf, i64::from(offset_delta));
        put_nullable(&mut self.buf, key);
        put_nullable(&mut self.buf, value);
        put_varint(&mut self.buf, headers.len() as i64);
        for header in headers {
            put_nullable(&mut self.buf, Some(&header.key));
            put_nullable(&mut self.buf, header.value.as_deref());
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.last_offset_delta = offset_delta;
        self.count += 1;
    }

    /// Keeps the batch's last offset where compaction took its last records away.
    pub fn set_last_offset(&mut self, last_offset: Offset) {
        let delta = last_offset.0 - self.params.base_offset.0;
        debug_assert!(delta >= i64::from(self.last_offset_delta), "the last offset is the highest");
        self.last_offset_delta = i32::try_from(delta).unwrap_or(i32::MAX);
    }

    /// Records so far.
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Offset that the next record gets.
    pub fn next_offset(&self) -> Offset {
        self.params.base_offset.plus(i64::from(self.last_offset_delta) + 1)
    }

    /// Bytes of the batch so far, before compression.
    pub fn size(&self) -> usize {
        self.buf.len()
    }

    /// Bytes that [`BatchBuilder::push`] would add for this record, before compression.
    pub fn size_of(
        &self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) -> usize {
        let base = self.base_timestamp.unwrap_or(timestamp);
        let delta = timestamp.0.wrapping_sub(base.0);
        let length = body_size(delta, self.last_offset_delta + 1, key, value, headers);
        varint_size(length as i64) + length
    }

    /// The bytes of the batch.
    pub fn build(self) -> BytesMut {
        let params = self.params;
        let mut buf = self.buf;
        if params.compression != Compression::None {
            let level = params.level.unwrap_or(compression::default_level(params.compression));
            let records = compression::compress(params.compression, level, &buf[BATCH_OVERHEAD..]);
            buf.truncate(BATCH_OVERHEAD);
            buf.extend_from_slice(&records);
        }
        let max_timestamp = params.log_append_time.unwrap_or(self.max_timestamp);
        let base_timestamp = self.base_timestamp.unwrap_or(Timestamp::NONE);
        let length = (buf.len() - LOG_OVERHEAD) as i32;
        let mut header = &mut buf[..BATCH_OVERHEAD];
        header.put_i64(params.base_offset.0);
        header.put_i32(length);
        header.put_i32(params.leader_epoch.0);
        header.put_i8(MAGIC_V2);
        header.put_u32(0);
        header.put_i16(params.attributes());
        header.put_i32(self.last_offset_delta);
        header.put_i64(base_timestamp.0);
        header.put_i64(max_timestamp.0);
        header.put_i64(params.producer_id.0);
        header.put_i16(params.producer_epoch.0);
        header.put_i32(params.base_sequence);
        header.put_i32(self.count);
        batch::set_crc(&mut buf);
        buf
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// A VARINT is a VARLONG of a small number, so one function writes both.
fn put_varint(buf: &mut BytesMut, value: i64) {
    let mut value = zigzag(value);
    while value >= 0x80 {
        buf.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

fn varint_size(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn put_nullable(buf: &mut BytesMut, bytes: Option<&[u8]>) {
    put_varint(buf, bytes.map_or(-1, |bytes| bytes.len() as i64));
    buf.put_slice(bytes.unwrap_or_default());
}

fn nullable_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint_size(bytes.len() as i64) + bytes.len())
}

fn body_size(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[RecordHeader],
) -> usize {
    let headers_size: usize = headers
        .iter()
        .map(|header| nullable_size(Some(&header.key)) + nullable_size(header.value.as_deref()))
        .sum();
    1 + varint_size(timestamp_delta)
        + varint_size(i64::from(offset_delta))
        + nullable_size(key)
        + nullable_size(value)
        + varint_size(headers.len() as i64)
        + headers_size
}
