//! The rules for batches before they are appended, as Kafka 4.3.1 has them.
//!
//! A batch's header is always read, its CRC always checked. Its records are decoded only where a rule needs them;
//! this is the one list of those rules:
//!
//! 1. `compression.type` names another codec than the batch has: the batch is built anew.
//! 2. The topic is compacted: every record needs a key.
//! 3. `message.timestamp.before.max.ms` has a bound: the header tells only the largest timestamp.
//! 4. The header's largest timestamp is past `message.timestamp.after.max.ms`, or the producer marked the batch
//!    LogAppendTime: the records at fault are named.
//!
//! An uncompressed batch is walked by its records' lengths, so that their number is true. With LogAppendTime, type
//! and time are set in the header and the CRC is computed again; the records' bytes stay as they were sent.
//! Coordinators' batches are the broker's own and skip the rules for clients.

use super::config::{CompressionTarget, LogConfig};
use super::error::{AppendError, RecordError};
use super::producer_state::AppendOrigin;
use bytes::Bytes;
use ottla_protocol::batch::{
    self, BATCH_OVERHEAD, BatchError, BatchHeader, CRC_FROM, Compression, TimestampType,
};
use ottla_protocol::record::{BatchBuilder, BatchParams, Payload, RecordHeader, RecordView};
use ottla_protocol::{LeaderEpoch, Offset, Timestamp};

/// Errors of single records that a response names, so that a batch of bad records makes no huge response.
const RECORD_ERRORS_MAX: usize = 1000;

/// What the rules depend on beside the batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) config: &'a LogConfig,
    pub(crate) origin: AppendOrigin,
    pub(crate) now: Timestamp,
    /// For error messages.
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
}

/// A batch that may be appended.
#[derive(Debug)]
pub(crate) struct Validated {
    /// Its header as it will lie in the log, but for base offset and leader epoch.
    pub(crate) header: BatchHeader,
    pub(crate) bytes: BatchBytes,
}

/// The bytes of a validated batch.
#[derive(Debug)]
pub(crate) enum BatchBytes {
    /// Those that were sent.
    AsSent(Bytes),
    /// Another header, then what was sent after it.
    NewHeader([u8; BATCH_OVERHEAD], Bytes),
}

/// One whole batch at the front of `records`, its CRC checked.
///
/// # Errors
/// `Corrupt` for bytes that are no batch, `InvalidRecord` where there is none at all or magic 0 or 1.
pub(crate) fn first_batch(records: &Bytes) -> Result<(BatchHeader, Bytes), AppendError> {
    let header = match BatchHeader::parse(records) {
        Ok(header) if records.len() >= header.size() => header,
        Ok(_) | Err(BatchError::Short { .. }) => {
            return Err(AppendError::invalid_record("Record batch has no batches at all"));
        }
        Err(BatchError::BadMagic(magic @ 0..=1)) => {
            return Err(AppendError::invalid_record(format!(
                "Only record batches with magic version 2 are allowed, not {magic}"
            )));
        }
        Err(error) => return Err(AppendError::Corrupt(error.to_string())),
    };
    Ok((header, records.slice(..header.size())))
}

pub(crate) fn check_crc(header: &BatchHeader, batch: &[u8]) -> Result<(), AppendError> {
    batch::check_crc(header, batch).map_err(|error| match error {
        BatchError::BadCrc { stored, .. } => {
            AppendError::Corrupt(format!("Record is corrupt (stored crc = {stored})"))
        }
        error => AppendError::Corrupt(error.to_string()),
    })
}

/// `max.message.bytes`.
pub(crate) fn check_size(size: usize, config: &LogConfig) -> Result<(), AppendError> {
    if size as i64 > i64::from(config.max_message_bytes) {
        return Err(AppendError::RecordTooLarge(format!(
            "The record batch size in the append is {size} bytes which exceeds the maximum configured value of {}.",
            config.max_message_bytes
        )));
    }
    Ok(())
}

/// Whether `rest`, what follows the first batch, holds another whole one.
fn has_second_batch(rest: &[u8]) -> Result<bool, AppendError> {
    match BatchHeader::parse(rest) {
        Ok(header) => Ok(rest.len() >= header.size()),
        Err(BatchError::Short { .. }) => Ok(false),
        Err(error) => Err(AppendError::Corrupt(error.to_string())),
    }
}

fn check_client_header(header: &BatchHeader) -> Result<(), AppendError> {
    let last = header.last_offset_delta;
    if last < 0 {
        return Err(AppendError::invalid_record(format!(
            "Batch has an invalid offset range: [0, {last}]"
        )));
    }
    let count = header.records_count;
    if count <= 0 {
        return Err(AppendError::invalid_record(format!(
            "Invalid reported count for record batch: {count}"
        )));
    }
    if i64::from(last) + 1 != i64::from(count) {
        return Err(AppendError::invalid_record(format!(
            "Inconsistent batch offset range [0, {last}] and count of records {count}"
        )));
    }
    if header.is_control() {
        return Err(AppendError::invalid_record(
            "Clients are not allowed to write control records",
        ));
    }
    if header.producer_id.0 >= 0 && header.base_sequence < 0 {
        return Err(AppendError::invalid_record(format!(
            "Invalid sequence number {} in record batch with producerId {}",
            header.base_sequence, header.producer_id
        )));
    }
    Ok(())
}

/// Validates what a produce request (or a coordinator) wants appended: exactly one batch.
///
/// # Errors
/// Every kind of [`AppendError`] that speaks of batches and records.
pub(crate) fn validate(records: &Bytes, rules: &Rules<'_>) -> Result<Validated, AppendError> {
    let Rules { config, origin, .. } = *rules;
    let (header, batch) = first_batch(records)?;
    if origin == AppendOrigin::Client && header.base_offset.0 != 0 {
        return Err(AppendError::invalid_record(format!(
            "The baseOffset of the record batch in the append should be 0, but it is {}",
            header.base_offset
        )));
    }
    check_size(batch.len(), config)?;
    check_crc(&header, &batch)?;
    if records.len() > batch.len() && has_second_batch(&records[batch.len()..])? {
        return Err(AppendError::invalid_record(
            "Produce requests are only allowed to contain exactly one record batch per partition",
        ));
    }
    let Some(codec) = header.compression() else {
        return Err(AppendError::UnsupportedCompression(format!(
            "Unknown compression type id: {}",
            header.attributes & 7
        )));
    };
    if origin == AppendOrigin::Client {
        check_client_header(&header)?;
    }
    let target = match config.compression {
        CompressionTarget::Codec { codec: target, level }
            if target != codec && !header.is_control() =>
        {
            Some((target, level))
        }
        _ => None,
    };
    if target.is_none() && !needs_records(&header, rules) {
        if codec == Compression::None && origin == AppendOrigin::Client {
            check_lengths(&batch[BATCH_OVERHEAD..], header.records_count)?;
        }
        return Ok(with_times(header, batch, rules, header.max_timestamp));
    }
    let mut scratch = Vec::new();
    let limit = config.max_decompressed_message_bytes.max(0) as usize;
    let payload = Payload::expand(&header, &batch, limit, &mut scratch).map_err(records_error)?;
    let mut max_timestamp = Timestamp::NONE;
    let mut is_consecutive = true;
    let mut errors = RecordErrors::default();
    payload
        .visit(|index, record| {
            if origin == AppendOrigin::Client {
                errors.check(&header, rules, index, &record);
            }
            is_consecutive &= record.offset_delta as i64 == index as i64;
            max_timestamp = max_timestamp.max(record.timestamp(&header));
            Ok(())
        })
        .map_err(records_error)?;
    errors.into_result()?;
    match target {
        None if is_consecutive || origin != AppendOrigin::Client => {
            Ok(with_times(header, batch, rules, max_timestamp))
        }
        None => rebuild(&header, &payload, codec, None, rules),
        Some((target, level)) => rebuild(&header, &payload, target, level, rules),
    }
}

fn records_error(error: BatchError) -> AppendError {
    match error {
        BatchError::TooLarge { limit } => AppendError::RecordTooLarge(format!(
            "The record batch expands past the maximum configured value of {limit} bytes."
        )),
        BatchError::Invalid(message) => AppendError::invalid_record(message),
        error => AppendError::Corrupt(error.to_string()),
    }
}

/// The list at the head of this file, but for the codec.
fn needs_records(header: &BatchHeader, rules: &Rules<'_>) -> bool {
    let Rules { config, origin, now, .. } = *rules;
    if origin != AppendOrigin::Client {
        return false;
    }
    if config.cleanup_policy.compact || header.timestamp_type() == TimestampType::LogAppendTime {
        return true;
    }
    config.message_timestamp_type == TimestampType::CreateTime
        && (config.message_timestamp_before_max_ms < i64::MAX
            || header.max_timestamp.0.saturating_sub(now.0) > config.message_timestamp_after_max_ms)
}

/// Walks the records by their lengths.
fn check_lengths(mut records: &[u8], count: i32) -> Result<(), AppendError> {
    let invalid = || {
        AppendError::invalid_record("Record batch does not hold the records that its header says")
    };
    for _ in 0..count {
        let mut length = 0u32;
        let mut shift = 0;
        loop {
            let (byte, rest) = records.split_first().ok_or_else(invalid)?;
            records = rest;
            length |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return Err(invalid());
            }
        }
        // Zigzag: a negative length is odd.
        if length & 1 != 0 {
            return Err(invalid());
        }
        records = records.get((length >> 1) as usize..).ok_or_else(invalid)?;
    }
    if records.is_empty() { Ok(()) } else { Err(invalid()) }
}

/// Sets timestamp type and largest timestamp where the topic or the records say otherwise than the header.
fn with_times(
    mut header: BatchHeader,
    batch: Bytes,
    rules: &Rules<'_>,
    max_timestamp: Timestamp,
) -> Validated {
    let Rules { config, now, .. } = *rules;
    let kind = config.message_timestamp_type;
    let time = if kind == TimestampType::LogAppendTime { now } else { max_timestamp };
    if kind == header.timestamp_type() && time == header.max_timestamp {
        return Validated { header, bytes: BatchBytes::AsSent(batch) };
    }
    let mut front = [0; BATCH_OVERHEAD];
    front.copy_from_slice(&batch[..BATCH_OVERHEAD]);
    header.attributes = match kind {
        TimestampType::CreateTime => header.attributes & !8,
        TimestampType::LogAppendTime => header.attributes | 8,
    };
    header.max_timestamp = time;
    front[21..23].copy_from_slice(&header.attributes.to_be_bytes());
    front[35..43].copy_from_slice(&time.0.to_be_bytes());
    let rest = batch.slice(BATCH_OVERHEAD..);
    header.crc = batch::crc32c_append(batch::crc32c(&front[CRC_FROM..]), &rest);
    front[17..21].copy_from_slice(&header.crc.to_be_bytes());
    Validated { header, bytes: BatchBytes::NewHeader(front, rest) }
}

/// Builds the batch anew with another codec, or because its offsets were not consecutive.
fn rebuild(
    header: &BatchHeader,
    payload: &Payload<'_>,
    compression: Compression,
    level: Option<i32>,
    rules: &Rules<'_>,
) -> Result<Validated, AppendError> {
    let Rules { config, now, .. } = *rules;
    let log_append_time =
        (config.message_timestamp_type == TimestampType::LogAppendTime).then_some(now);
    let mut builder = BatchBuilder::new(BatchParams {
        base_offset: Offset(0),
        leader_epoch: LeaderEpoch::UNKNOWN,
        compression,
        level,
        log_append_time,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        is_transactional: header.is_transactional(),
        is_control: header.is_control(),
        delete_horizon: None,
    });
    let mut headers = Vec::new();
    for record in payload.iter() {
        let record = record.map_err(records_error)?;
        headers.clear();
        headers.extend(record.headers().map(|(key, value)| RecordHeader {
            key: Bytes::copy_from_slice(key),
            value: value.map(Bytes::copy_from_slice),
        }));
        builder.push(record.timestamp(header), record.key, record.value, &headers);
    }
    let bytes = builder.build().freeze();
    let header = BatchHeader::parse(&bytes).map_err(|e| AppendError::Corrupt(e.to_string()))?;
    check_size(bytes.len(), config)?;
    Ok(Validated { header, bytes: BatchBytes::AsSent(bytes) })
}

/// Collects what is wrong with single records.
#[derive(Debug, Default)]
struct RecordErrors {
    errors: Vec<RecordError>,
    count: usize,
    has_timestamp: bool,
}

impl RecordErrors {
    fn check(
        &mut self,
        header: &BatchHeader,
        rules: &Rules<'_>,
        index: usize,
        record: &RecordView<'_>,
    ) {
        let message = if rules.config.cleanup_policy.compact && record.key.is_none() {
            Some(format!(
                "Compacted topic cannot accept message without key in topic partition {}-{}",
                rules.topic, rules.partition
            ))
        } else {
            let message = timestamp_error(header, rules, record);
            self.has_timestamp |= message.is_some();
            message
        };
        if let Some(message) = message {
            self.count += 1;
            if self.errors.len() < RECORD_ERRORS_MAX {
                self.errors.push(RecordError { batch_index: index as i32, message: Some(message) });
            }
        }
    }

    fn into_result(self) -> Result<(), AppendError> {
        if self.count == 0 {
            return Ok(());
        }
        if self.has_timestamp {
            return Err(AppendError::InvalidTimestamp { records: self.errors });
        }
        let shown: Vec<String> = self.errors.iter().take(3).map(describe).collect();
        Err(AppendError::InvalidRecord {
            message: format!(
                "One or more records have been rejected due to {} record errors in total, and only showing the first three errors at most: [{}]",
                self.count,
                shown.join(", ")
            ),
            records: self.errors,
        })
    }
}

fn describe(error: &RecordError) -> String {
    let message = error.message.as_deref().unwrap_or_default();
    format!("RecordError(batchIndex={}, message='{message}')", error.batch_index)
}

fn timestamp_error(
    header: &BatchHeader,
    rules: &Rules<'_>,
    record: &RecordView<'_>,
) -> Option<String> {
    let Rules { config, now, .. } = *rules;
    let timestamp = record.timestamp(header);
    if config.message_timestamp_type == TimestampType::CreateTime && timestamp != Timestamp::NONE {
        let behind = now.0.wrapping_sub(timestamp.0);
        let (before, after) =
            (config.message_timestamp_before_max_ms, config.message_timestamp_after_max_ms);
        if behind > before || behind.wrapping_neg() > after {
            return Some(format!(
                "Timestamp {timestamp} of message with offset {} is out of range. The timestamp should be within [{}, {}]",
                record.offset(header),
                now.0.wrapping_sub(before),
                now.0.wrapping_add(after)
            ));
        }
        return None;
    }
    (header.timestamp_type() == TimestampType::LogAppendTime).then(|| {
        "Invalid timestamp type in message. Producer should not set timestamp type to LogAppendTime.".to_owned()
    })
}

#[cfg(test)]
mod tests;
