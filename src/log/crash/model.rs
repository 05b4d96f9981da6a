//! What a log must hold after a crash, by what it was told and has answered.
//!
//! Batches that must be there and batches that may be; records that compaction may have taken; offsets that were
//! promised to be durable. What producers and transactions are follows from the batches by [`replay`], which shares
//! no code with the log.

use super::super::AbortedTransaction;
use super::super::producer_state::ActiveProducer;
use bytes::Bytes;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::record::decode_records;
use ottla_protocol::{Offset, ProducerEpoch, ProducerId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
}

/// A batch as it lies in the log.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) header: BatchHeader,
    pub(super) bytes: Bytes,
    pub(super) records: Vec<Entry>,
}

impl Batch {
    pub(super) fn new(header: BatchHeader, bytes: Bytes) -> Result<Batch, String> {
        let records = decode_records(&header, &bytes, 1 << 20).map_err(|e| e.to_string())?;
        let records = records.into_iter().map(|record| Entry {
            offset: record.offset(&header).0,
            timestamp: record.timestamp(&header).0,
            key: record.key,
            value: record.value,
        });
        Ok(Batch { header, bytes, records: records.collect() })
    }

    pub(super) fn first(&self) -> i64 {
        self.header.base_offset.0
    }

    pub(super) fn last(&self) -> i64 {
        self.header.last_offset().0
    }

    pub(super) fn epoch(&self) -> i32 {
        self.header.leader_epoch.0
    }

    /// Of an end-of-transaction marker whether it aborts, and its coordinator's epoch.
    fn marker(&self) -> Option<(bool, i32)> {
        let record = self.records.first().filter(|_| self.header.is_control())?;
        let (key, value) = (record.key.as_ref()?, record.value.as_ref()?);
        let epoch = value.get(2..6)?.try_into().ok()?;
        Some((key.get(3) == Some(&0), i32::from_be_bytes(epoch)))
    }
}

/// What the batches say of producers and transactions.
#[derive(Debug, Clone, Default)]
pub(super) struct Replay {
    pub(super) producers: BTreeMap<i64, ActiveProducer>,
    pub(super) aborted: Vec<AbortedTransaction>,
}

impl Replay {
    pub(super) fn first_unstable(&self) -> Option<i64> {
        self.producers.values().filter_map(|it| it.current_txn_start_offset).map(|it| it.0).min()
    }

    fn take(&mut self, batch: &Batch) {
        let header = &batch.header;
        if header.producer_id.0 < 0 {
            return;
        }
        let producer = self.producers.entry(header.producer_id.0).or_insert(ActiveProducer {
            producer_id: header.producer_id,
            producer_epoch: ProducerEpoch::NONE,
            last_sequence: -1,
            last_timestamp: Timestamp::NONE,
            coordinator_epoch: -1,
            current_txn_start_offset: None,
        });
        let marker = batch.marker();
        if header.is_control() && marker.is_none() {
            // The cleaner has taken the marker and left the batch.
            return;
        }
        if producer.producer_epoch != header.producer_epoch {
            (producer.producer_epoch, producer.last_sequence) = (header.producer_epoch, -1);
        }
        producer.last_timestamp = header.max_timestamp;
        if !header.is_control() {
            producer.last_sequence = header.last_sequence();
            if header.is_transactional() && producer.current_txn_start_offset.is_none() {
                producer.current_txn_start_offset = Some(header.base_offset);
            }
            return;
        }
        let Some((is_abort, coordinator_epoch)) = marker else { return };
        producer.coordinator_epoch = coordinator_epoch;
        let begun = producer.current_txn_start_offset.take();
        let Some(first_offset) = begun.filter(|_| is_abort) else { return };
        let after = header.base_offset.plus(1);
        self.aborted.push(AbortedTransaction {
            producer_id: header.producer_id,
            first_offset,
            last_offset: header.base_offset,
            last_stable_offset: self.first_unstable().map_or(after, Offset),
        });
    }
}

/// Producers and transactions after `batches`.
pub(super) fn replay<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Replay {
    let mut replay = Replay::default();
    batches.into_iter().for_each(|batch| replay.take(batch));
    replay
}

/// How the log came to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// After an orderly close, or a process that was killed: what was written is there.
    WithPageCache,
    /// After a loss of power: what was synced is there.
    AfterPowerLoss,
}

/// What the log was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    /// Oldest first; those below the log start offset say what producers have done.
    pub(super) batches: Vec<Batch>,
    /// Batches of an append that has not answered.
    pub(super) unanswered: Vec<Batch>,
    /// A truncation to here has not answered: what is above may be gone.
    pub(super) cutting_to: Option<i64>,
    /// A verb that moves the log start offset has not answered: it may be as high as this.
    pub(super) start_max: i64,
    /// Checkpointed: it is never lower.
    pub(super) start_min: i64,
    /// Answered.
    pub(super) start: i64,
    /// Answered.
    pub(super) end: i64,
    /// Everything below was promised to be durable.
    pub(super) durable: i64,
    /// The cleaner may have taken records below.
    pub(super) cleaned_to: i64,
    /// Records that the cleaner took.
    pub(super) gone: BTreeSet<i64>,
}

impl Model {
    /// Whether the batch has to be there.
    pub(super) fn is_due(&self, batch: &Batch, opened: Opened, start: i64) -> bool {
        let is_kept = match opened {
            Opened::WithPageCache => true,
            Opened::AfterPowerLoss => batch.last() < self.durable,
        };
        // What lies below the log start offset goes with a cut that leaves nothing above it.
        let is_cut = |to| batch.last() >= to || batch.last() < self.start;
        is_kept && batch.last() >= start && !self.cutting_to.is_some_and(is_cut)
    }

    /// The batch that was appended at `first`.
    pub(super) fn find(&self, first: i64) -> Option<&Batch> {
        let n = self.batches.binary_search_by_key(&first, Batch::first);
        let unanswered = || self.unanswered.iter().find(|batch| batch.first() == first);
        n.ok().map(|n| &self.batches[n]).or_else(unanswered)
    }

    /// First offsets of batches whose transaction was aborted.
    pub(super) fn aborted(&self) -> BTreeSet<i64> {
        let all = replay(self.batches.iter().chain(&self.unanswered));
        let is_aborted = |batch: &&Batch| {
            let header = &batch.header;
            header.is_transactional()
                && all.aborted.iter().any(|it| {
                    it.producer_id == header.producer_id
                        && (it.first_offset.0..=it.last_offset.0).contains(&batch.first())
                })
        };
        self.batches.iter().filter(is_aborted).map(Batch::first).collect()
    }

    pub(super) fn was_cleaned(&self) -> bool {
        self.cleaned_to > 0
    }

    /// Takes `found`, which passed all checks, for what there is.
    pub(super) fn adopt(&mut self, opened: Opened, found: &[Batch], start: i64, end: i64) {
        let unanswered = std::mem::take(&mut self.unanswered);
        self.batches.extend(unanswered);
        let there: BTreeSet<i64> = found.iter().map(Batch::first).collect();
        let mut last_of: BTreeMap<ProducerId, i64> = BTreeMap::new();
        for batch in found {
            last_of.insert(batch.header.producer_id, batch.first());
        }
        let cleaned_to = self.cleaned_to;
        let mut batches = std::mem::take(&mut self.batches);
        batches.retain(|batch| {
            let id = batch.header.producer_id;
            // The cleaner keeps the last batch of every producer. What it took for one that is lost now was not lost.
            let is_newer = id.0 >= 0 && last_of.get(&id).is_none_or(|last| *last < batch.first());
            let is_lost = is_newer && !self.is_due(batch, opened, start);
            let may_be_cleaned = batch.last() < cleaned_to && !is_lost;
            batch.last() < start || there.contains(&batch.first()) || may_be_cleaned
        });
        self.batches = batches;
        let offsets: BTreeSet<i64> =
            found.iter().flat_map(|batch| &batch.records).map(|record| record.offset).collect();
        let all = self.batches.iter().flat_map(|batch| &batch.records);
        let cleaned = all.map(|record| record.offset).filter(|offset| *offset < cleaned_to);
        self.gone.extend(cleaned.filter(|offset| !offsets.contains(offset)));
        let cutting_to = self.cutting_to.take().unwrap_or(end);
        self.durable = match opened {
            Opened::WithPageCache => self.durable.min(end).min(cutting_to),
            Opened::AfterPowerLoss => end,
        };
        (self.start, self.start_max, self.end) = (start, start, end);
    }
}
