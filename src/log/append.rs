//! Appends: the leader's, which validate and set offsets, and those of followers and the metadata quorum, which take
//! the offsets that they are given.
//!
//! The hot path reads the header, checks the CRC and writes `[16 bytes of prefix][the rest of the frame's batch]`
//! with one system call.

use super::error::{AppendError, StorageError};
use super::flush::FlushOwed;
use super::producer_state::{
    AppendOrigin, EndMarker, ProducerEntry, ProducerState, ProducerUpdate,
};
use super::segment::BatchMeta;
use super::transaction_index::AbortedTransaction;
use super::validate::{self, BatchBytes, Rules, Validated};
use super::{Log, LogConfig, checkpoint};
use bytes::Bytes;
use ottla_protocol::batch::{self, BatchHeader, TimestampType};
use ottla_protocol::record::Payload;
use ottla_protocol::{LeaderEpoch, Offset, ProducerId, Timestamp};
use std::collections::BTreeMap;
use std::io::IoSlice;

/// Largest expanded control record: a marker is a few bytes.
const MARKER_BYTES_MAX: usize = 1024;

/// Whether the transaction's coordinator has confirmed that the partition belongs to it (KIP-890).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionCheck {
    /// It has, or `transaction.partition.verification.enable` is false.
    Verified,
    /// Nobody asked: the first batch of a transaction is refused.
    Unverified,
}

/// What the leader knows beside the batch.
#[derive(Debug, Clone, Copy)]
pub struct AppendContext {
    /// The leader's epoch, written into the batch.
    pub leader_epoch: LeaderEpoch,
    /// Present time.
    pub now: Timestamp,
    /// Who appends.
    pub origin: AppendOrigin,
    /// For transactional batches.
    pub transaction: TransactionCheck,
}

/// What was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendInfo {
    /// Offset of the first record; of a duplicate, that of the original.
    pub first_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// With LogAppendTime the time that all records have, else -1.
    pub log_append_time: Timestamp,
    /// Largest timestamp.
    pub max_timestamp: Timestamp,
    /// First offset of the log.
    pub log_start_offset: Offset,
    /// Records appended.
    pub records_count: i64,
    /// Bytes appended.
    pub bytes: usize,
    /// The batch was appended before and nothing was written.
    pub is_duplicate: bool,
    /// The append began a new segment: a flush up to its base offset is due.
    pub has_rolled: bool,
    /// What a sync has to come before. The log does not flush by itself: the owner does, outside its lock.
    pub flush: FlushOwed,
    /// The leader's epoch under which it was appended.
    pub leader_epoch: LeaderEpoch,
}

impl Log {
    /// Validates one batch, gives it the next offsets and the leader's epoch, and appends it. The records' bytes go
    /// to the file as they are. `AppendOrigin::RaftLeader` takes any number of batches with their offsets and epoch.
    ///
    /// # Errors
    /// Every kind but those of followers. After `Storage` the log is offline, unless the disk is full.
    pub fn append_as_leader(
        &mut self,
        records: Bytes,
        context: AppendContext,
    ) -> Result<AppendInfo, AppendError> {
        self.check_writable()?;
        if context.origin == AppendOrigin::RaftLeader {
            return self.append_given(&records, context);
        }
        let config = self.config.clone();
        let Validated { header, bytes } =
            validate::validate(&records, &self.rules(&config, &context))?;
        let base_offset = self.log_end_offset;
        self.epochs.assign(context.leader_epoch, base_offset);
        let update = match self.check_producer(&header, base_offset, &bytes, &context)? {
            Checked::Duplicate(info) => return Ok(info),
            Checked::Update(update) => update,
        };
        let meta = BatchMeta {
            base_offset,
            last_offset: base_offset.plus(i64::from(header.last_offset_delta)),
            max_timestamp: header.max_timestamp,
            size: header.size(),
        };
        let has_rolled = self.prepare_segment(&[meta], context.now)?;
        let prefix = batch::leader_prefix(&header, base_offset, context.leader_epoch);
        match &bytes {
            BatchBytes::AsSent(batch) => {
                self.write(
                    &[IoSlice::new(&prefix), IoSlice::new(&batch[prefix.len()..])],
                    &[meta],
                )?;
            }
            BatchBytes::NewHeader(front, rest) => {
                let front = IoSlice::new(&front[prefix.len()..]);
                self.write(&[IoSlice::new(&prefix), front, IoSlice::new(rest)], &[meta])?;
            }
        }
        self.finish_append(update.as_slice())?;
        let is_log_append_time = config.message_timestamp_type == TimestampType::LogAppendTime;
        Ok(AppendInfo {
            first_offset: base_offset,
            last_offset: meta.last_offset,
            log_append_time: if is_log_append_time { context.now } else { Timestamp::NONE },
            max_timestamp: header.max_timestamp,
            log_start_offset: self.log_start_offset,
            records_count: i64::from(header.records_count),
            bytes: meta.size,
            is_duplicate: false,
            has_rolled,
            flush: self.flush_owed(),
            leader_epoch: context.leader_epoch,
        })
    }

    /// Appends what the leader has, with its offsets and epochs. A batch that is cut at the end is left out.
    ///
    /// # Errors
    /// `Corrupt`, `UnexpectedOffset`, `OffsetsOutOfOrder`, `InvalidTxnState`, `Storage`, `Offline`.
    pub fn append_as_follower(
        &mut self,
        records: Bytes,
        now: Timestamp,
    ) -> Result<AppendInfo, AppendError> {
        self.check_writable()?;
        let context = AppendContext {
            leader_epoch: LeaderEpoch::UNKNOWN,
            now,
            origin: AppendOrigin::Replication,
            transaction: TransactionCheck::Verified,
        };
        self.append_given(&records, context)
    }

    fn rules<'a>(&'a self, config: &'a LogConfig, context: &AppendContext) -> Rules<'a> {
        let AppendContext { origin, now, .. } = *context;
        Rules { config, origin, now, topic: &self.topic, partition: self.partition }
    }

    fn check_writable(&self) -> Result<(), AppendError> {
        if self.is_offline || self.is_closed { Err(AppendError::Offline) } else { Ok(()) }
    }

    /// The state of the batch's producer after it, or where the batch lies already.
    fn check_producer(
        &self,
        header: &BatchHeader,
        base_offset: Offset,
        bytes: &BatchBytes,
        context: &AppendContext,
    ) -> Result<Checked, AppendError> {
        if header.producer_id.0 < 0 {
            return Ok(Checked::Update(None));
        }
        let entry = self.producers.get(header.producer_id);
        if context.origin == AppendOrigin::Client
            && let Some(original) = entry.and_then(|entry| entry.duplicate_of(header))
        {
            return Ok(Checked::Duplicate(AppendInfo {
                first_offset: original.first_offset(),
                last_offset: original.last_offset,
                log_append_time: original.timestamp,
                max_timestamp: original.timestamp,
                log_start_offset: self.log_start_offset,
                records_count: i64::from(header.records_count),
                bytes: 0,
                is_duplicate: true,
                has_rolled: false,
                flush: self.flush_owed(),
                leader_epoch: context.leader_epoch,
            }));
        }
        let entry = entry.unwrap_or(&ProducerEntry::EMPTY);
        if header.is_transactional()
            && !header.is_control()
            && entry.current_txn_first_offset.is_none()
            && context.transaction == TransactionCheck::Unverified
        {
            let message = "Record was not part of an ongoing transaction".to_owned();
            return Err(AppendError::InvalidTxnState(message));
        }
        let marker = match bytes {
            BatchBytes::AsSent(batch) if header.is_control() => end_marker(header, batch),
            BatchBytes::NewHeader(front, rest) if header.is_control() => {
                end_marker(header, &[&front[..], &rest[..]].concat())
            }
            _ => None,
        };
        let update = ProducerState::prepare(entry, header, base_offset, marker, context.origin)?;
        Ok(Checked::Update(Some(update)))
    }

    /// Appends whole batches with the offsets they have.
    fn append_given(
        &mut self,
        records: &Bytes,
        context: AppendContext,
    ) -> Result<AppendInfo, AppendError> {
        let mut metas = Vec::new();
        let mut headers = Vec::new();
        let (mut end, mut records_count) = (0, 0);
        while end < records.len() {
            let rest = records.slice(end..);
            let (header, batch) = match validate::first_batch(&rest) {
                Ok(first) => first,
                // The rest is a batch that the fetch cut off.
                Err(AppendError::InvalidRecord { .. }) if rest.len() < rest_needs(&rest) => break,
                Err(error) => return Err(error),
            };
            self.check_given(&header, &batch, metas.last(), &context)?;
            metas.push(BatchMeta {
                base_offset: header.base_offset,
                last_offset: header.last_offset(),
                max_timestamp: header.max_timestamp,
                size: header.size(),
            });
            end += batch.len();
            records_count += i64::from(header.records_count.max(0));
            headers.push((header, batch));
        }
        let (Some(first), Some(last)) = (metas.first().copied(), metas.last().copied()) else {
            return Err(AppendError::invalid_record("Record batch has no batches at all"));
        };
        if first.base_offset < self.log_end_offset {
            return Err(AppendError::UnexpectedOffset {
                first_offset: first.base_offset,
                log_end_offset: self.log_end_offset,
            });
        }
        let updates = self.prepare_given(&headers, context.origin)?;
        for (header, _) in &headers {
            self.epochs.assign(header.leader_epoch, header.base_offset);
        }
        let has_rolled = self.prepare_segment(&metas, context.now)?;
        self.write(&[IoSlice::new(&records[..end])], &metas)?;
        self.finish_append(&updates)?;
        Ok(AppendInfo {
            first_offset: first.base_offset,
            last_offset: last.last_offset,
            log_append_time: Timestamp::NONE,
            max_timestamp: metas
                .iter()
                .map(|meta| meta.max_timestamp)
                .max()
                .unwrap_or(Timestamp::NONE),
            log_start_offset: self.log_start_offset,
            records_count,
            bytes: end,
            is_duplicate: false,
            has_rolled,
            flush: self.flush_owed(),
            leader_epoch: context.leader_epoch,
        })
    }

    fn check_given(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        before: Option<&BatchMeta>,
        context: &AppendContext,
    ) -> Result<(), AppendError> {
        if context.origin == AppendOrigin::RaftLeader {
            if header.leader_epoch != context.leader_epoch {
                let message = "Append from Raft leader did not set the batch epoch correctly";
                return Err(AppendError::invalid_record(message));
            }
            validate::check_size(batch.len(), &self.config)?;
        }
        validate::check_crc(header, batch)?;
        let previous = before.map_or(header.base_offset.0 - 1, |meta| meta.last_offset.0);
        if header.base_offset.0 <= previous || header.last_offset_delta < 0 {
            return Err(AppendError::OffsetsOutOfOrder(format!(
                "Out of order offsets found in append: {} after {previous}",
                header.base_offset
            )));
        }
        Ok(())
    }

    /// The producers' states after all of `batches`.
    fn prepare_given(
        &self,
        batches: &[(BatchHeader, Bytes)],
        origin: AppendOrigin,
    ) -> Result<Vec<ProducerUpdate>, AppendError> {
        let mut updates: Vec<ProducerUpdate> = Vec::new();
        let mut latest: BTreeMap<ProducerId, usize> = BTreeMap::new();
        for (header, batch) in batches {
            if header.producer_id.0 < 0 {
                continue;
            }
            let earlier = latest.get(&header.producer_id).map(|n| &updates[*n]);
            let entry = match earlier {
                Some(update) => &update.entry,
                None => self.producers.get(header.producer_id).unwrap_or(&ProducerEntry::EMPTY),
            };
            let marker = if header.is_control() { end_marker(header, batch) } else { None };
            latest.insert(header.producer_id, updates.len());
            updates.push(ProducerState::prepare(
                entry,
                header,
                header.base_offset,
                marker,
                origin,
            )?);
        }
        Ok(updates)
    }

    /// Rolls where the batches need it; `true` when it did.
    fn prepare_segment(
        &mut self,
        metas: &[BatchMeta],
        now: Timestamp,
    ) -> Result<bool, AppendError> {
        let size: usize = metas.iter().map(|meta| meta.size).sum();
        let (Some(first), Some(last)) = (metas.first(), metas.last()) else { return Ok(false) };
        if size as i64 > i64::from(self.config.segment_bytes) {
            return Err(AppendError::RecordListTooLarge(format!(
                "Message batch size is {size} bytes in append, which exceeds the maximum configured segment size of {}.",
                self.config.segment_bytes
            )));
        }
        let max_timestamp =
            metas.iter().map(|meta| meta.max_timestamp).max().unwrap_or(Timestamp::NONE);
        self.write_metadata_file()?;
        if !self.should_roll(size, max_timestamp, last.last_offset, now)? {
            return Ok(false);
        }
        self.roll(first.base_offset, now)?;
        Ok(true)
    }

    /// `partition.metadata` comes before any record, so that every record's topic is known.
    pub(super) fn write_metadata_file(&mut self) -> Result<(), StorageError> {
        if self.has_metadata_file || self.topic_id.is_nil() {
            return Ok(());
        }
        self.directory.create()?;
        checkpoint::write_partition_metadata(
            &**self.directory.disk(),
            &self.directory.path(),
            self.topic_id,
        )?;
        self.directory.mark_changed();
        self.has_metadata_file = true;
        self.is_metadata_file_new = true;
        Ok(())
    }

    fn write(&mut self, slices: &[IoSlice<'_>], metas: &[BatchMeta]) -> Result<(), AppendError> {
        let directory = self.directory.clone();
        let interval = self.config.index_interval_bytes;
        if let Err(error) = self.active().append(&directory, slices, metas, interval) {
            // With a full disk nothing of it counts: the segment's size has not moved.
            return Err(self.fail_unless_full(error).into());
        }
        if let Some(last) = metas.last() {
            self.log_end_offset = last.last_offset.plus(1);
        }
        if self.config.preallocate {
            let appended = metas.iter().map(|meta| meta.size).sum();
            let segment_bytes = self.config.segment_bytes;
            let filled = self.active().fill_ahead(&directory, appended, segment_bytes);
            filled.map_err(|e| self.fail(e))?;
        }
        Ok(())
    }

    /// Puts producers and transactions in order after a write.
    fn finish_append(&mut self, updates: &[ProducerUpdate]) -> Result<(), AppendError> {
        let directory = self.directory.clone();
        for update in updates {
            self.producers.apply(update);
            let Some(completed) = &update.completed else { continue };
            if completed.is_aborted {
                let aborted = AbortedTransaction {
                    producer_id: completed.producer_id,
                    first_offset: completed.first_offset,
                    last_offset: completed.last_offset,
                    last_stable_offset: self.producers.last_stable_offset_after(completed),
                };
                let written = self.active().transactions.append(&directory, aborted);
                written.map_err(|e| self.fail(e))?;
            }
            self.producers.complete(completed);
        }
        self.producers.set_map_end_offset(self.log_end_offset);
        Ok(())
    }
}

enum Checked {
    Duplicate(AppendInfo),
    Update(Option<ProducerUpdate>),
}

/// Bytes that the batch at the front of `rest` has by its own account.
fn rest_needs(rest: &[u8]) -> usize {
    match BatchHeader::parse(rest) {
        Ok(header) => header.size(),
        Err(batch::BatchError::Short { needed, .. }) => needed,
        Err(_) => 0,
    }
}

/// The end-of-transaction marker in a control batch; `None` for other control records.
pub(crate) fn end_marker(header: &BatchHeader, batch: &[u8]) -> Option<EndMarker> {
    let mut scratch = Vec::new();
    let payload = Payload::expand(header, batch, MARKER_BYTES_MAX, &mut scratch).ok()?;
    let record = payload.iter().next()?.ok()?;
    // Key: version i16, type i16 (0 abort, 1 commit). Value: version i16, coordinator epoch i32.
    let [_, _, high, low, ..] = record.key? else { return None };
    let kind = i16::from_be_bytes([*high, *low]);
    if !(0..=1).contains(&kind) {
        return None;
    }
    let [_, _, a, b, c, d, ..] = record.value? else { return None };
    Some(EndMarker {
        is_abort: kind == 0,
        coordinator_epoch: i32::from_be_bytes([*a, *b, *c, *d]),
        timestamp: record.timestamp(header),
    })
}
