//! What the log knows of idempotent and transactional producers (KIP-98, KIP-360): the last five batches of each,
//! and the transactions that are open or not yet below the high watermark.
//!
//! Deliberately not here: who may write to a transaction (the coordinator's work). Invariant: the state is that of
//! all batches below `map_end_offset`; it can always be rebuilt from a snapshot and the batches after it.

use super::directory::{Directory, SNAPSHOT_SUFFIX, file_name, offset_of_name};
use super::error::AppendError;
use super::error::StorageError;
use super::producer_snapshot;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::{Offset, ProducerEpoch, ProducerId, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tracing::warn;

/// Batches remembered for each producer: as many as a client may have in flight.
pub const BATCHES_KEPT: usize = 5;

/// Where a batch came from; decides which rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A produce request: every rule.
    Client,
    /// A coordinator on this broker: markers allowed, sequences not checked.
    Coordinator,
    /// The metadata quorum: offsets and epochs are set by the caller.
    RaftLeader,
    /// A follower or recovery: the leader has checked.
    Replication,
}

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchMetadata {
    pub(crate) last_sequence: i32,
    pub(crate) last_offset: Offset,
    pub(crate) offset_delta: i32,
    pub(crate) timestamp: Timestamp,
}

impl BatchMetadata {
    pub(crate) fn first_sequence(&self) -> i32 {
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        // Sequences wrap from the largest i32 to 0.
        (if first < 0 { first + i64::from(i32::MAX) + 1 } else { first }) as i32
    }

    pub(crate) fn first_offset(&self) -> Offset {
        self.last_offset.plus(-i64::from(self.offset_delta))
    }
}

/// What is known of one producer id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerEntry {
    pub(crate) epoch: ProducerEpoch,
    pub(crate) coordinator_epoch: i32,
    pub(crate) last_timestamp: Timestamp,
    pub(crate) current_txn_first_offset: Option<Offset>,
    batches: [Option<BatchMetadata>; BATCHES_KEPT],
}

impl ProducerEntry {
    pub(crate) const EMPTY: ProducerEntry = ProducerEntry {
        epoch: ProducerEpoch::NONE,
        coordinator_epoch: -1,
        last_timestamp: Timestamp::NONE,
        current_txn_first_offset: None,
        batches: [None; BATCHES_KEPT],
    };

    /// The newest batch.
    pub(crate) fn last_batch(&self) -> Option<&BatchMetadata> {
        self.batches.iter().rev().flatten().next()
    }

    pub(crate) fn last_sequence(&self) -> i32 {
        self.last_batch().map_or(-1, |batch| batch.last_sequence)
    }

    /// The remembered batch that has exactly this epoch and these sequences.
    pub(crate) fn duplicate_of(&self, header: &BatchHeader) -> Option<BatchMetadata> {
        if header.producer_epoch != self.epoch {
            return None;
        }
        self.batches.iter().flatten().copied().find(|batch| {
            batch.first_sequence() == header.base_sequence
                && batch.last_sequence == header.last_sequence()
        })
    }

    fn set_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches = [None; BATCHES_KEPT];
        }
    }

    pub(crate) fn push(&mut self, batch: BatchMetadata) {
        match self.batches.iter().position(Option::is_none) {
            Some(free) => self.batches[free] = Some(batch),
            None => {
                self.batches.rotate_left(1);
                self.batches[BATCHES_KEPT - 1] = Some(batch);
            }
        }
    }
}

/// One active producer, as DescribeProducers shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of its last record, -1 without one.
    pub last_sequence: i32,
    /// Timestamp of its last batch.
    pub last_timestamp: Timestamp,
    /// Epoch of the coordinator that wrote its last marker, -1 without one.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub current_txn_start_offset: Option<Offset>,
}

/// The end of a transaction, as its marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndMarker {
    pub(crate) is_abort: bool,
    pub(crate) coordinator_epoch: i32,
    pub(crate) timestamp: Timestamp,
}

/// A transaction that a marker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompletedTxn {
    pub(crate) producer_id: ProducerId,
    pub(crate) first_offset: Offset,
    pub(crate) last_offset: Offset,
    pub(crate) is_aborted: bool,
}

#[derive(Debug, Clone, Copy)]
struct OpenTxn {
    producer_id: ProducerId,
    /// Offset of its marker, once there is one.
    last_offset: Option<Offset>,
}

/// A producer's next state, checked and not yet in force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProducerUpdate {
    pub(crate) producer_id: ProducerId,
    pub(crate) entry: ProducerEntry,
    pub(crate) completed: Option<CompletedTxn>,
    started_at: Option<Offset>,
}

/// All producers of one log.
#[derive(Debug, Default)]
pub(crate) struct ProducerState {
    producers: HashMap<i64, ProducerEntry>,
    /// Open transactions by first offset.
    ongoing: BTreeMap<i64, OpenTxn>,
    /// Ended ones whose marker is not below the high watermark yet.
    unreplicated: BTreeMap<i64, OpenTxn>,
    snapshots: BTreeSet<i64>,
    map_end_offset: i64,
    last_snapshot_offset: i64,
}

fn in_sequence(last: i32, next: i32) -> bool {
    i64::from(next) == i64::from(last) + 1 || (next == 0 && last == i32::MAX)
}

fn check_epoch(
    header: &BatchHeader,
    at: Offset,
    entry: &ProducerEntry,
    origin: AppendOrigin,
) -> Result<(), AppendError> {
    if header.producer_epoch >= entry.epoch {
        return Ok(());
    }
    let message = format!(
        "Epoch of producer {} at offset {at} is {}, which is smaller than the last seen epoch {}",
        header.producer_id, header.producer_epoch, entry.epoch
    );
    if origin == AppendOrigin::Replication {
        warn!("{message}");
        return Ok(());
    }
    Err(AppendError::InvalidProducerEpoch(message))
}

/// `entry` is the present state; a producer that is not known (expired, or its records deleted) may start anywhere.
fn check_sequence(
    header: &BatchHeader,
    at: Offset,
    entry: &ProducerEntry,
) -> Result<(), AppendError> {
    if entry.epoch == ProducerEpoch::NONE {
        return Ok(());
    }
    if header.producer_epoch != entry.epoch {
        if header.base_sequence == 0 {
            return Ok(());
        }
        return Err(AppendError::OutOfOrderSequence(format!(
            "Invalid sequence number for new epoch of producer {} at offset {at}: {} (request epoch), {} (seq. number), {} (current producer epoch)",
            header.producer_id, header.producer_epoch, header.base_sequence, entry.epoch
        )));
    }
    let last = entry.last_sequence();
    if in_sequence(last, header.base_sequence) {
        return Ok(());
    }
    Err(AppendError::OutOfOrderSequence(format!(
        "Out of order sequence number for producer {} at offset {at}: {} (incoming seq. number), {last} (current end sequence number)",
        header.producer_id, header.base_sequence
    )))
}

impl ProducerState {
    /// The snapshots that lie in the directory, given its file names; no state yet.
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let snapshots =
            names.filter(|name| name.ends_with(SNAPSHOT_SUFFIX)).filter_map(offset_of_name);
        ProducerState { snapshots: snapshots.collect(), ..ProducerState::default() }
    }

    pub(crate) fn map_end_offset(&self) -> Offset {
        Offset(self.map_end_offset)
    }

    pub(crate) fn set_map_end_offset(&mut self, offset: Offset) {
        self.map_end_offset = offset.0;
    }

    pub(crate) fn get(&self, producer_id: ProducerId) -> Option<&ProducerEntry> {
        self.producers.get(&producer_id.0)
    }

    pub(crate) fn latest_snapshot(&self) -> Option<Offset> {
        self.snapshots.last().copied().map(Offset)
    }

    pub(crate) fn active(&self) -> Vec<ActiveProducer> {
        let mut all: Vec<ActiveProducer> = self
            .producers
            .iter()
            .map(|(id, entry)| ActiveProducer {
                producer_id: ProducerId(*id),
                producer_epoch: entry.epoch,
                last_sequence: entry.last_sequence(),
                last_timestamp: entry.last_timestamp,
                coordinator_epoch: entry.coordinator_epoch,
                current_txn_start_offset: entry.current_txn_first_offset,
            })
            .collect();
        all.sort_by_key(|producer| producer.producer_id);
        all
    }

    /// Of each producer the last offset of its last batch, where there is one, and its epoch: what the cleaner keeps.
    pub(crate) fn last_records(&self) -> BTreeMap<ProducerId, (Option<Offset>, ProducerEpoch)> {
        self.producers
            .iter()
            .map(|(id, entry)| {
                let last = entry.last_batch().map(|batch| batch.last_offset);
                (ProducerId(*id), (last, entry.epoch))
            })
            .collect()
    }

    /// Checks a batch against `entry` and says what the producer's state is after it. `marker` is the control
    /// record of a control batch.
    pub(crate) fn prepare(
        entry: &ProducerEntry,
        header: &BatchHeader,
        base_offset: Offset,
        marker: Option<EndMarker>,
        origin: AppendOrigin,
    ) -> Result<ProducerUpdate, AppendError> {
        let producer_id = header.producer_id;
        let mut update =
            ProducerUpdate { producer_id, entry: *entry, completed: None, started_at: None };
        check_epoch(header, base_offset, entry, origin)?;
        if header.is_control() {
            if let Some(marker) = marker {
                Self::prepare_marker(&mut update, header, base_offset, marker, origin)?;
            }
            return Ok(update);
        }
        if origin == AppendOrigin::Client {
            check_sequence(header, base_offset, entry)?;
        }
        let last_offset = base_offset.plus(i64::from(header.last_offset_delta));
        let next = &mut update.entry;
        next.set_epoch(header.producer_epoch);
        next.push(BatchMetadata {
            last_sequence: header.last_sequence(),
            last_offset,
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        next.last_timestamp = header.max_timestamp;
        match (next.current_txn_first_offset, header.is_transactional()) {
            (Some(_), false) => Err(AppendError::InvalidTxnState(format!(
                "Expected transactional write from producer {producer_id} at offset {base_offset}"
            ))),
            (None, true) => {
                next.current_txn_first_offset = Some(base_offset);
                update.started_at = Some(base_offset);
                Ok(update)
            }
            _ => Ok(update),
        }
    }

    fn prepare_marker(
        update: &mut ProducerUpdate,
        header: &BatchHeader,
        offset: Offset,
        marker: EndMarker,
        origin: AppendOrigin,
    ) -> Result<(), AppendError> {
        let entry = &mut update.entry;
        if entry.coordinator_epoch > marker.coordinator_epoch && origin != AppendOrigin::Replication
        {
            return Err(AppendError::TransactionCoordinatorFenced(format!(
                "Invalid coordinator epoch for producerId {} at offset {offset}: {} (zombie), {} (current)",
                header.producer_id, marker.coordinator_epoch, entry.coordinator_epoch
            )));
        }
        update.completed = entry.current_txn_first_offset.map(|first_offset| CompletedTxn {
            producer_id: header.producer_id,
            first_offset,
            last_offset: offset,
            is_aborted: marker.is_abort,
        });
        entry.set_epoch(header.producer_epoch);
        entry.coordinator_epoch = marker.coordinator_epoch;
        entry.current_txn_first_offset = None;
        entry.last_timestamp = marker.timestamp;
        Ok(())
    }

    /// Puts an update in force, its batch being written.
    pub(crate) fn apply(&mut self, update: &ProducerUpdate) {
        self.producers.insert(update.producer_id.0, update.entry);
        if let Some(first) = update.started_at {
            self.ongoing
                .insert(first.0, OpenTxn { producer_id: update.producer_id, last_offset: None });
        }
    }

    /// The last stable offset once `completed` has ended, the high watermark aside.
    pub(crate) fn last_stable_offset_after(&self, completed: &CompletedTxn) -> Offset {
        self.ongoing
            .iter()
            .find(|(_, txn)| txn.producer_id != completed.producer_id)
            .map_or(completed.last_offset.plus(1), |(first, _)| Offset(*first))
    }

    pub(crate) fn complete(&mut self, completed: &CompletedTxn) {
        if let Some(mut txn) = self.ongoing.remove(&completed.first_offset.0) {
            txn.last_offset = Some(completed.last_offset);
            self.unreplicated.insert(completed.first_offset.0, txn);
        }
    }

    /// Ended transactions whose marker is below `high_watermark` no longer hold the last stable offset back.
    pub(crate) fn on_high_watermark(&mut self, high_watermark: Offset) {
        if !self.unreplicated.is_empty() {
            self.unreplicated
                .retain(|_, txn| txn.last_offset.is_none_or(|last| last >= high_watermark));
        }
    }

    /// First offset of the oldest transaction that is open, or whose marker is at or above `high_watermark`.
    pub(crate) fn first_unstable_offset(&self, high_watermark: Offset) -> Option<Offset> {
        let ongoing = self.ongoing.keys().next();
        let unreplicated = self
            .unreplicated
            .iter()
            .find(|(_, txn)| txn.last_offset.is_none_or(|last| last >= high_watermark))
            .map(|(first, _)| first);
        ongoing.into_iter().chain(unreplicated).min().copied().map(Offset)
    }

    /// The transactions that are open, with their first offsets.
    pub(crate) fn ongoing_transactions(&self) -> Vec<(ProducerId, Offset)> {
        self.ongoing.iter().map(|(first, txn)| (txn.producer_id, Offset(*first))).collect()
    }

    /// The transaction is not open any more, and had no effect.
    pub(crate) fn forget_transaction(&mut self, producer_id: ProducerId, first_offset: Offset) {
        self.ongoing.remove(&first_offset.0);
        if let Some(entry) = self.producers.get_mut(&producer_id.0) {
            entry.current_txn_first_offset = None;
        }
    }

    /// Forgets producers that were silent for `expiration_ms` and have no open transaction.
    pub(crate) fn remove_expired(&mut self, now: Timestamp, expiration_ms: i64) {
        self.producers.retain(|_, entry| !is_expired(entry, now, expiration_ms));
    }

    /// Forgets everything; the snapshots remain.
    fn clear(&mut self) {
        self.producers.clear();
        self.ongoing.clear();
        self.unreplicated.clear();
    }

    /// Sets the state back to the last usable snapshot within `log_start_offset..=log_end_offset`; snapshots
    /// outside, and those that are corrupt, are removed.
    pub(crate) fn truncate_and_reload(
        &mut self,
        directory: &Directory,
        log_start_offset: Offset,
        log_end_offset: Offset,
        now: Timestamp,
        expiration_ms: i64,
    ) -> Result<(), StorageError> {
        let outside: Vec<i64> = self
            .snapshots
            .iter()
            .copied()
            .filter(|&at| at > log_end_offset.0 || at <= log_start_offset.0)
            .collect();
        for offset in outside {
            self.remove_snapshot(directory, Offset(offset))?;
        }
        if log_end_offset.0 == self.map_end_offset {
            self.on_log_start_offset(log_start_offset);
            return Ok(());
        }
        self.clear();
        while let Some(offset) = self.latest_snapshot() {
            let name = file_name(offset.0, SNAPSHOT_SUFFIX);
            match producer_snapshot::read(directory, &name)? {
                Ok(entries) => {
                    for (id, entry) in entries {
                        if is_expired(&entry, now, expiration_ms) {
                            continue;
                        }
                        if let Some(first) = entry.current_txn_first_offset {
                            let txn = OpenTxn { producer_id: id, last_offset: None };
                            self.ongoing.insert(first.0, txn);
                        }
                        self.producers.insert(id.0, entry);
                    }
                    self.last_snapshot_offset = offset.0;
                    self.map_end_offset = offset.0;
                    return Ok(());
                }
                Err(cause) => {
                    warn!(path = %directory.join(&name).display(), %cause, "producer snapshot is unusable and removed");
                    self.remove_snapshot(directory, offset)?;
                }
            }
        }
        self.last_snapshot_offset = log_start_offset.0;
        self.map_end_offset = log_start_offset.0;
        Ok(())
    }

    /// Writes a snapshot of the state at `map_end_offset` where there is none yet.
    pub(crate) fn take_snapshot(
        &mut self,
        directory: &Directory,
    ) -> Result<Option<Offset>, StorageError> {
        if self.map_end_offset <= self.last_snapshot_offset {
            return Ok(None);
        }
        let mut entries: Vec<(ProducerId, &ProducerEntry)> =
            self.producers.iter().map(|(id, entry)| (ProducerId(*id), entry)).collect();
        entries.sort_by_key(|(id, _)| *id);
        let name = file_name(self.map_end_offset, SNAPSHOT_SUFFIX);
        producer_snapshot::write(directory, &name, &entries)?;
        self.snapshots.insert(self.map_end_offset);
        self.last_snapshot_offset = self.map_end_offset;
        Ok(Some(Offset(self.map_end_offset)))
    }

    pub(crate) fn on_log_start_offset(&mut self, log_start_offset: Offset) {
        self.on_high_watermark(log_start_offset);
        self.map_end_offset = self.map_end_offset.max(log_start_offset.0);
        self.last_snapshot_offset = self.latest_snapshot().unwrap_or(log_start_offset).0;
    }

    /// Forgets everything, snapshots included, and goes on at `offset`.
    pub(crate) fn truncate_fully_and_start_at(
        &mut self,
        directory: &Directory,
        offset: Offset,
    ) -> Result<(), StorageError> {
        self.clear();
        for at in std::mem::take(&mut self.snapshots) {
            directory.remove_file(&file_name(at, SNAPSHOT_SUFFIX))?;
        }
        self.last_snapshot_offset = 0;
        self.map_end_offset = offset.0;
        Ok(())
    }

    pub(crate) fn remove_snapshot(
        &mut self,
        directory: &Directory,
        at: Offset,
    ) -> Result<(), StorageError> {
        self.snapshots.remove(&at.0);
        directory.remove_file(&file_name(at.0, SNAPSHOT_SUFFIX))
    }

    /// Takes the snapshot of a deleted segment out of the books; `true` when there was one.
    pub(crate) fn forget_snapshot(&mut self, at: Offset) -> bool {
        self.snapshots.remove(&at.0)
    }

    /// Removes the snapshots that belong to no segment, but for one past the last segment's base offset.
    pub(crate) fn remove_stray_snapshots(
        &mut self,
        directory: &Directory,
        base_offsets: &BTreeSet<i64>,
    ) -> Result<(), StorageError> {
        let last_base = base_offsets.last().copied().unwrap_or(i64::MIN);
        let mut stray: Vec<i64> = self.snapshots.difference(base_offsets).copied().collect();
        if stray.last().is_some_and(|&at| at >= last_base) {
            stray.pop();
        }
        for at in stray {
            self.remove_snapshot(directory, Offset(at))?;
        }
        Ok(())
    }
}

fn is_expired(entry: &ProducerEntry, now: Timestamp, expiration_ms: i64) -> bool {
    entry.current_txn_first_offset.is_none()
        && now.0.saturating_sub(entry.last_timestamp.0) >= expiration_ms
}
