//! What of a batch the cleaner keeps: the records that no later one supersedes, tombstones and markers up to their
//! delete horizon (KIP-534), and the headers that offsets and sequences rest on.

use super::super::transaction_index::AbortedTransaction;
use super::clean::{CleanStats, CleaningParams};
use super::key_map::KeyMap;
use super::transactions::{CleanedTransactions, Marker};
use ottla_protocol::batch::{self, BatchHeader, TimestampType};
use ottla_protocol::record::{BatchBuilder, BatchParams, Payload, RecordHeader, RecordView};

/// Decides what of a batch stays.
pub(super) struct Filter<'a> {
    pub(super) map: &'a KeyMap,
    pub(super) params: &'a CleaningParams,
    pub(super) transactions: &'a mut CleanedTransactions,
    pub(super) stats: &'a mut CleanStats,
    pub(super) scratch: Vec<u8>,
}

/// What becomes of a batch without records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Empty {
    /// It stays, for what its header says.
    Kept,
    Dropped,
}

impl Filter<'_> {
    /// Appends what stays of a batch to `out`; gives the aborted transaction whose marker it is, where that stays
    /// because of the transaction's batches.
    pub(super) fn keep(
        &mut self,
        header: &BatchHeader,
        batch: Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Option<AbortedTransaction>, String> {
        self.stats.bytes_read += batch.len() as u64;
        self.stats.records_read += header.records_count.max(0) as u64;
        let mut aborted = None;
        let mut is_unneeded_marker = false;
        let is_dropped = if header.is_control() {
            match self.transactions.on_control_batch(header, &batch) {
                Marker::Needed(txn) => aborted = txn,
                Marker::Unneeded => is_unneeded_marker = true,
            }
            is_unneeded_marker && self.is_past_horizon(header)
        } else {
            self.transactions.on_batch(header)
        };
        let empty = self.empty_batch(header);
        if is_dropped {
            if empty == Empty::Kept {
                write_empty(header, out);
            }
            return Ok(aborted);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let payload = expand(header, &batch, &mut scratch)?;
        let mut retained: Vec<RecordView<'_>> = Vec::new();
        for record in payload.iter() {
            let record = record.map_err(|e| e.to_string())?;
            if header.is_control() || self.is_retained(header, &record) {
                retained.push(record);
            }
        }
        self.stats.records_written += retained.len() as u64;
        if retained.is_empty() {
            if empty == Empty::Kept {
                write_empty(header, out);
            }
        } else {
            let has_tombstones = retained.iter().any(|record| record.value.is_none());
            let needs_horizon =
                (has_tombstones || is_unneeded_marker) && !header.has_delete_horizon();
            if retained.len() == payload.count() && !needs_horizon {
                out.extend_from_slice(&batch);
            } else {
                out.extend_from_slice(&self.rebuild(header, &retained, needs_horizon));
            }
        }
        drop(retained);
        self.scratch = scratch;
        Ok(aborted)
    }

    fn is_past_horizon(&self, header: &BatchHeader) -> bool {
        header.has_delete_horizon() && header.base_timestamp <= self.params.now
    }

    /// The batch of each active producer that its sequence is known by stays, and the last of all, so that the log's
    /// offsets do not fall back.
    fn empty_batch(&self, header: &BatchHeader) -> Empty {
        let last = self.params.last_records.get(&header.producer_id);
        let is_last_of_producer = last.is_some_and(|(last_offset, epoch)| match last_offset {
            Some(last_offset) => header.last_offset() == *last_offset,
            None => header.is_control() && header.producer_epoch == *epoch,
        });
        let bound = self.params.cleanable.first_uncleanable_offset;
        let is_kept =
            (header.producer_id.0 >= 0 && is_last_of_producer) || header.next_offset() == bound;
        if is_kept { Empty::Kept } else { Empty::Dropped }
    }

    fn is_retained(&mut self, header: &BatchHeader, record: &RecordView<'_>) -> bool {
        let offset = record.offset(header);
        if offset > self.map.latest_offset() {
            return true;
        }
        let Some(key) = record.key else {
            self.stats.invalid_records += 1;
            return false;
        };
        offset >= self.map.get(key) && (record.value.is_some() || !self.is_past_horizon(header))
    }

    /// The batch with these records only, at their offsets and with the first and last offset that it had.
    fn rebuild(
        &self,
        header: &BatchHeader,
        retained: &[RecordView<'_>],
        needs_horizon: bool,
    ) -> bytes::BytesMut {
        let delete_horizon = if needs_horizon {
            Some(self.params.now.plus_ms(self.params.config.delete_retention_ms))
        } else {
            Some(header.base_timestamp).filter(|_| header.has_delete_horizon())
        };
        let mut builder = BatchBuilder::new(BatchParams { delete_horizon, ..params_of(header) });
        for record in retained {
            let headers: Vec<RecordHeader> = record
                .headers()
                .map(|(key, value)| RecordHeader {
                    key: bytes::Bytes::copy_from_slice(key),
                    value: value.map(bytes::Bytes::copy_from_slice),
                })
                .collect();
            let timestamp = record.timestamp(header);
            builder.push_at(record.offset_delta, timestamp, record.key, record.value, &headers);
        }
        builder.set_last_offset(header.last_offset());
        builder.build()
    }
}

fn params_of(header: &BatchHeader) -> BatchParams {
    let is_append_time = header.timestamp_type() == TimestampType::LogAppendTime;
    BatchParams {
        base_offset: header.base_offset,
        leader_epoch: header.leader_epoch,
        compression: header.compression().unwrap_or(batch::Compression::None),
        level: None,
        log_append_time: is_append_time.then_some(header.max_timestamp),
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        is_transactional: header.is_transactional(),
        is_control: header.is_control(),
        delete_horizon: None,
    }
}

/// The header alone, which keeps offsets, producer and sequence.
fn write_empty(header: &BatchHeader, out: &mut Vec<u8>) {
    let params = BatchParams { compression: batch::Compression::None, ..params_of(header) };
    let mut builder = BatchBuilder::new(params);
    builder.set_last_offset(header.last_offset());
    let mut empty = builder.build();
    batch::set_max_timestamp(&mut empty, header.timestamp_type(), header.max_timestamp);
    out.extend_from_slice(&empty);
}

/// The records of a batch, which `scratch` holds where they were compressed.
pub(super) fn expand<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<Payload<'a>, String> {
    // The bound on expanded bytes held when the batch was appended.
    Payload::expand(header, batch, i32::MAX as usize, scratch).map_err(|e| e.to_string())
}
