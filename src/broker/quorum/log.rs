//! The metadata log of this voter: Kafka's files, with the ordinals that openraft counts in.
//!
//! A leader's host writes its batches here before openraft hears of them: so an offset is known, and a disk without
//! space refuses, while the caller waits. Such batches are *unclaimed* until openraft appends them; when the epoch
//! ends first they are cut off again. Nothing of them was sent or counted, so cutting loses nothing.
//!
//! Invariants: batches lie end to end; an epoch's unclaimed batches are the log's tail; after a failed write or sync
//! nothing is appended any more.

mod reading;
mod voters;

use super::ballot::Ballot;
use super::index::{self, BatchIndex, Position, Purged};
use super::types::{self, Batch, Payload, QuorumEntry};
use super::voter_set::{VoterHistory, VoterSet, voters_of};
use super::{METADATA_DIR, QuorumError, QuorumParams};
use crate::broker::replay::{ReplayError, replay_log};
use crate::broker::snapshots::{self, SnapshotId};
use crate::env::Disk;
use crate::log::{
    AppendContext, AppendError, AppendOrigin, FlushJob, Log, LogConfig, LogParams, StorageError,
    TransactionCheck,
};
use bytes::Bytes;
use openraft::LogId;
use ottla_protocol::{
    BrokerId, CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID, LeaderEpoch, Offset, Timestamp,
};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Bytes of the newest batches that stay in memory: what openraft appends it reads again at once, to send and to apply.
const RECENT_BYTES_MAX: usize = 4 << 20;

/// Why entries could not be appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The disk has no space: the log is as it was, and the same may be tried again.
    #[error("there is no space")]
    NoSpace,
    /// The log takes no more.
    #[error(transparent)]
    Failed(#[from] QuorumError),
}

impl From<AppendError> for WriteError {
    fn from(error: AppendError) -> Self {
        WriteError::Failed(error.into())
    }
}

#[derive(Debug, Clone, Copy)]
struct Snapshot {
    id: SnapshotId,
    index: u64,
}

struct Inner {
    log: Log,
    index: BatchIndex,
    /// Batches at the tail that openraft has not appended yet.
    unclaimed: usize,
    snapshot: Option<Snapshot>,
    ballot: Ballot,
    /// What `quorum-state` says.
    written: Ballot,
    voters: VoterHistory,
    /// Who voted for this node in the ballot's epoch.
    granting: Vec<BrokerId>,
    /// The epoch that this node leads, from its LeaderChange batch on.
    leading: Option<LeaderEpoch>,
    /// Where its first batch ends, or its newest one that sets voters.
    settled_at: Offset,
    /// The newest batches, the last one last.
    recent: VecDeque<Bytes>,
    recent_bytes: usize,
    failed: bool,
}

/// The log `__cluster_metadata` and what lies beside it.
pub(super) struct MetadataLog {
    params: QuorumParams,
    dir: PathBuf,
    /// Who votes, for those who want to follow it.
    voters: watch::Sender<Arc<VoterSet>>,
    inner: Mutex<Inner>,
}

/// Opens the log of the metadata below `metadata.log.dir`, which a crash may have left as it was; answers its directory
/// too.
///
/// # Errors
/// The directory cannot be made; the log cannot be recovered.
pub(in crate::broker) fn open_log(
    disk: &Arc<dyn Disk>,
    metadata_log_dir: &Path,
    config: &Arc<LogConfig>,
    now: Timestamp,
) -> Result<(PathBuf, Log), QuorumError> {
    let dir = metadata_log_dir.join(METADATA_DIR);
    let created = disk.create_dir_durably(&dir);
    created.map_err(|source| QuorumError::File { path: dir.clone(), source })?;
    let log = Log::open(LogParams {
        disk: Arc::clone(disk),
        dir: dir.clone(),
        topic: CLUSTER_METADATA_TOPIC.into(),
        partition: 0,
        topic_id: CLUSTER_METADATA_TOPIC_ID,
        config: Arc::clone(config),
        log_start_offset: Offset(0),
        recovery_point: Offset(0),
        clean_shutdown: false,
        earlier_writes_synced: false,
        now,
    })?;
    Ok((dir, log))
}

impl MetadataLog {
    /// Opens the log: recovery, and the ordinals of its batches.
    ///
    /// # Errors
    /// Every [`QuorumError`].
    pub fn open(params: QuorumParams) -> Result<MetadataLog, QuorumError> {
        let now = params.clock.now();
        let (dir, mut log) = open_log(&params.disk, &params.dir, &params.log, now)?;
        let disk = params.disk.as_ref();
        let id = snapshots::newest(disk, &dir)?.filter(|id| id.end_offset > Offset(0));
        let start = id.map_or(Offset(0), |id| id.end_offset);
        if let Some(id) = id
            && !goes_on_after(&log, id)
        {
            // The snapshot was installed, and a crash came before the log was begun anew after it.
            log.truncate_fully_and_start_at(start, params.clock.now())
                .map_err(ReplayError::from)?;
        }
        let snapshot = match id {
            None => None,
            Some(id) => {
                let known = index::read_ordinal(disk, &dir, id)?;
                let index = known.unwrap_or(u64::try_from(id.end_offset.0 - 1).unwrap_or(0));
                Some(Snapshot { id, index })
            }
        };
        let purged = snapshot.map(|Snapshot { id, index }| Purged {
            index,
            epoch: id.epoch,
            end_offset: id.end_offset,
        });
        let mut index = BatchIndex::after(purged);
        let mut voters = VoterHistory::new(params.voters.clone());
        replay_log(&log, start.max(log.log_start_offset()), |header, batch| {
            // A snapshot ends with a batch; one that began before it is no part of what follows.
            if header.base_offset >= start {
                let set = voters_of(header, batch);
                let offset = header.base_offset;
                if let Some(set) = set.map_err(|cause| ReplayError::Batch { offset, cause })? {
                    voters.push(index.next(), set);
                }
                index.push(Position::of(header));
            }
            Ok(())
        })?;
        let written = Ballot::read(disk, &dir)?;
        let mut ballot = written;
        if let Some((_, epoch)) = index.last()
            && epoch > ballot.epoch
        {
            ballot = Ballot { epoch, ..Ballot::default() };
        }
        let inner = Inner {
            log,
            index,
            unclaimed: 0,
            snapshot,
            ballot,
            written,
            voters,
            granting: Vec::new(),
            leading: None,
            settled_at: Offset(0),
            recent: VecDeque::new(),
            recent_bytes: 0,
            failed: false,
        };
        let voters = watch::Sender::new(Arc::clone(inner.voters.latest()));
        Ok(MetadataLog { params, dir, voters, inner: Mutex::new(inner) })
    }

    /// Its directory.
    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// What it was opened with.
    pub fn params(&self) -> &QuorumParams {
        &self.params
    }

    /// The log's end, unclaimed batches included.
    pub fn log_end_offset(&self) -> Offset {
        self.inner.lock().log.log_end_offset()
    }

    /// Log ids of the batch that was purged last and of the last one; unclaimed ones do not count.
    pub fn log_ids(&self) -> (Option<LogId<i32>>, Option<LogId<i32>>) {
        let inner = self.inner.lock();
        let purged = inner.index.purged();
        let last = match inner.unclaimed {
            0 => inner.index.last(),
            unclaimed => {
                let before = inner.index.next().checked_sub(unclaimed as u64 + 1);
                before.and_then(|at| inner.index.epoch_and_end(at).map(|(epoch, _)| (at, epoch)))
            }
        };
        (
            purged.map(|purged| types::log_id(purged.epoch, purged.index)),
            last.map(|(index, epoch)| types::log_id(epoch, index)),
        )
    }

    /// Where the batch with this ordinal ends; `None` when it is not known any more.
    pub fn end_of(&self, index: u64) -> Option<Offset> {
        self.inner.lock().index.epoch_and_end(index).map(|(_, end)| end)
    }

    /// The newest snapshot and the log id of what it ends with.
    pub fn snapshot(&self) -> Option<(SnapshotId, LogId<i32>)> {
        let snapshot = self.inner.lock().snapshot?;
        Some((snapshot.id, types::log_id(snapshot.id.epoch, snapshot.index)))
    }

    /// The vote with which openraft begins.
    pub fn vote_at_start(&self) -> openraft::Vote<i32> {
        self.inner.lock().ballot.at_start(self.params.own.id)
    }

    /// The epoch of the vote.
    pub fn ballot(&self) -> Ballot {
        self.inner.lock().ballot
    }

    /// The epoch that this node leads.
    pub fn leading(&self) -> Option<LeaderEpoch> {
        self.inner.lock().leading
    }

    /// Whether a write or a sync has failed, or the log was closed.
    pub fn is_failed(&self) -> bool {
        self.inner.lock().failed
    }

    /// Ends the leadership of this node where a vote is not for it in the epoch that it leads; answers which one ended.
    pub fn step_down(
        &self,
        vote: &openraft::Vote<i32>,
    ) -> Result<Option<LeaderEpoch>, QuorumError> {
        let ballot = Ballot::of(vote);
        let mut inner = self.inner.lock();
        let me = Some(self.params.own.id);
        let lost = inner.leading.filter(|led| *led != ballot.epoch || ballot.voted_for != me);
        if lost.is_some() {
            inner.leading = None;
            self.cut_unclaimed(&mut inner)?;
        }
        Ok(lost)
    }

    /// A voter granted this node its vote in `epoch`.
    pub fn note_grant(&self, epoch: LeaderEpoch, voter: BrokerId) {
        let mut inner = self.inner.lock();
        if inner.ballot.epoch == epoch && !inner.granting.contains(&voter) {
            inner.granting.push(voter);
        }
    }

    /// Takes a vote, durably. That the one who got this vote was elected is kept in memory until the log is closed: an
    /// epoch would begin a sync later, and who forgets it knows as much as one who has not heard of it.
    pub fn save_vote(&self, vote: &openraft::Vote<i32>) -> Result<(), WriteError> {
        let ballot = Ballot::of(vote);
        let mut inner = self.inner.lock();
        // Alone, the vote for oneself is kept with the election that it wins at once.
        let is_own = ballot.voted_for == Some(self.params.own.id) && !ballot.is_elected;
        let is_alone = inner.voters.latest().is_only(self.params.own.id);
        if !(is_own && is_alone || inner.written.is_vote_of(&ballot)) {
            let written = self.write_ballot(&mut inner, ballot);
            written.map_err(|error| self.refusal(error))?;
        }
        if inner.ballot.epoch != ballot.epoch {
            inner.granting = vec![self.params.own.id];
        }
        inner.ballot = ballot;
        Ok(())
    }

    fn write_ballot(&self, inner: &mut Inner, ballot: Ballot) -> Result<(), QuorumError> {
        let voters = Arc::clone(inner.voters.latest());
        ballot.write(self.params.disk.as_ref(), &self.dir, &voters)?;
        inner.written = ballot;
        Ok(())
    }

    /// Cuts off what the host wrote and openraft will not append.
    fn cut_unclaimed(&self, inner: &mut Inner) -> Result<(), QuorumError> {
        if inner.unclaimed == 0 {
            return Ok(());
        }
        let first = inner.index.next() - inner.unclaimed as u64;
        inner.unclaimed = 0;
        self.cut(inner, first)
    }

    fn cut(&self, inner: &mut Inner, first: u64) -> Result<(), QuorumError> {
        let Some(position) = inner.index.get(first) else { return Ok(()) };
        let removed = inner.index.next() - first;
        for _ in 0..removed {
            if let Some(bytes) = inner.recent.pop_back() {
                inner.recent_bytes -= bytes.len();
            }
        }
        inner.index.truncate(first);
        if inner.voters.truncate(first) {
            self.tell_voters(inner);
        }
        let cut = inner.log.truncate_to(position.base_offset, self.params.clock.now());
        cut.map_err(|error| {
            inner.failed = true;
            self.params.health.take_offline();
            ReplayError::from(error).into()
        })
    }

    /// Removes the entries from `index` on: another leader's lie there.
    pub fn truncate(&self, index: u64) -> Result<(), QuorumError> {
        let mut inner = self.inner.lock();
        self.cut_unclaimed(&mut inner)?;
        self.cut(&mut inner, index)
    }

    /// Writes a batch that this node is to propose in `epoch`, which is to be durable when openraft has appended it.
    /// `build` makes it for its base offset; `held` is called once it is written, before anything else can be.
    pub fn write_ahead(
        &self,
        epoch: LeaderEpoch,
        build: impl FnOnce(Offset) -> Bytes,
        held: impl FnOnce(&Batch),
    ) -> Result<Batch, WriteError> {
        let mut inner = self.inner.lock();
        if inner.leading != Some(epoch) {
            return Err(AppendError::Offline.into());
        }
        let bytes = build(inner.log.log_end_offset());
        let batch = Batch::parse(bytes).map_err(|cause| self.unsound(&inner, cause.to_string()))?;
        self.write(&mut inner, &batch, AppendOrigin::RaftLeader)?;
        inner.unclaimed += 1;
        held(&batch);
        Ok(batch)
    }

    /// Runs `propose` where `epoch` is still led: what it sends to openraft comes before all that ends the epoch.
    pub fn while_leading(&self, epoch: LeaderEpoch, propose: impl FnOnce()) {
        let inner = self.inner.lock();
        if inner.leading == Some(epoch) {
            propose();
        }
    }

    /// Appends entries of openraft: its own leader's, which lie here already, the start of an epoch, or those of
    /// another leader. Answers the sync that they wait for. Called again after `NoSpace` it goes on where it stopped.
    pub fn append(&self, entries: &[QuorumEntry]) -> Result<Option<FlushJob>, WriteError> {
        let mut inner = self.inner.lock();
        for entry in entries {
            self.append_entry(&mut inner, entry)?;
        }
        let job = inner.log.prepare_flush();
        job.map_err(|error| {
            inner.failed = inner.failed || inner.log.is_offline();
            self.refusal(error.into())
        })
    }

    fn append_entry(&self, inner: &mut Inner, entry: &QuorumEntry) -> Result<(), WriteError> {
        let next = inner.index.next() - inner.unclaimed as u64;
        let epoch = types::epoch_of_id(&entry.log_id);
        if entry.log_id.index < next {
            return Ok(());
        }
        if entry.log_id.index > next {
            return Err(self
                .unsound(inner, format!("{} is to follow {next}", entry.log_id))
                .into());
        }
        match &entry.payload {
            Payload::EpochStart => {
                self.cut_unclaimed(inner)?;
                if entry.voters.is_some() {
                    let cause = "voters that change are of no use here yet".to_owned();
                    return Err(self.unsound(inner, cause).into());
                }
                let bytes = self.epoch_start(inner, epoch);
                let batch = Batch::parse(bytes).map_err(|e| self.unsound(inner, e.to_string()))?;
                self.write(inner, &batch, AppendOrigin::RaftLeader)?;
                inner.leading = Some(epoch);
                inner.settled_at = batch.header.next_offset();
            }
            Payload::Batch(batch) => {
                let position = Position::of(&batch.header);
                if position.epoch != epoch {
                    let what = format!("a batch of epoch {} as {}", position.epoch, entry.log_id);
                    return Err(self.unsound(inner, what).into());
                }
                if inner.unclaimed > 0 {
                    if inner.index.get(next) == Some(position) && inner.leading == Some(epoch) {
                        inner.unclaimed -= 1;
                        return Ok(());
                    }
                    self.cut_unclaimed(inner)?;
                }
                self.write(inner, batch, AppendOrigin::Replication)?;
            }
        }
        Ok(())
    }

    fn write(
        &self,
        inner: &mut Inner,
        batch: &Batch,
        origin: AppendOrigin,
    ) -> Result<(), WriteError> {
        if inner.failed {
            return Err(AppendError::Offline.into());
        }
        let position = Position::of(&batch.header);
        let end = inner.log.log_end_offset();
        if position.base_offset != end {
            let what = format!("a batch at offset {} is to go to {end}", position.base_offset);
            return Err(self.unsound(inner, what).into());
        }
        let now = self.params.clock.now();
        let bytes = batch.bytes.clone();
        let appended = match origin {
            AppendOrigin::RaftLeader => {
                let (leader_epoch, transaction) = (position.epoch, TransactionCheck::Verified);
                let context = AppendContext { leader_epoch, now, origin, transaction };
                inner.log.append_as_leader(bytes, context)
            }
            _ => inner.log.append_as_follower(bytes, now),
        };
        appended.map_err(|error| {
            let refusal = self.refusal(error.into());
            let is_as_it_was = matches!(refusal, WriteError::NoSpace) && !inner.log.is_offline();
            inner.failed = !is_as_it_was;
            refusal
        })?;
        if let Some(voters) = &batch.voters {
            inner.voters.push(inner.index.next(), Arc::clone(voters));
            inner.settled_at = batch.header.next_offset();
            self.tell_voters(inner);
        }
        inner.index.push(position);
        inner.recent_bytes += batch.bytes.len();
        inner.recent.push_back(batch.bytes.clone());
        while inner.recent_bytes > RECENT_BYTES_MAX && inner.recent.len() > 1 {
            let oldest = inner.recent.pop_front();
            inner.recent_bytes -= oldest.map_or(0, |bytes| bytes.len());
        }
        Ok(())
    }

    /// A disk that fails takes the directory with it, and so the broker. One that is full makes producers wait, whose
    /// records are the first that can.
    fn refusal(&self, error: QuorumError) -> WriteError {
        if error.is_storage_full() {
            self.params.health.fill();
            return WriteError::NoSpace;
        }
        if error.is_of_the_disk() {
            self.params.health.take_offline();
        }
        WriteError::Failed(error)
    }

    fn unsound(&self, inner: &Inner, cause: String) -> QuorumError {
        QuorumError::Entry { offset: inner.log.log_end_offset(), cause }
    }

    /// A sync has ended: everything up to its end is durable, or the log is of no more use.
    pub fn finish_flush(
        &self,
        job: &FlushJob,
        synced: Result<(), StorageError>,
    ) -> Result<(), QuorumError> {
        let mut inner = self.inner.lock();
        match synced {
            Ok(()) => {
                inner.log.mark_flushed(job, self.params.clock.now());
                Ok(())
            }
            Err(error) => {
                // The records are in the file, and nobody knows whether they last.
                inner.log.fail_flush();
                inner.failed = true;
                self.params.health.take_offline();
                Err(error.into())
            }
        }
    }

    /// Takes no more appends; answers the epoch that was led.
    pub fn fail(&self) -> Option<LeaderEpoch> {
        let mut inner = self.inner.lock();
        inner.failed = true;
        inner.leading.take()
    }

    /// A snapshot lies here, durably, whose last batch has the ordinal `index`.
    pub fn set_snapshot(&self, id: SnapshotId, index: u64) {
        let mut inner = self.inner.lock();
        if inner.snapshot.is_none_or(|before| before.id < id) {
            inner.snapshot = Some(Snapshot { id, index });
        }
    }

    /// Drops the entries up to `id`, which a snapshot holds. Where the log does not reach so far, or has others, it
    /// begins anew after the snapshot.
    pub fn purge(&self, id: &LogId<i32>) -> Result<(), QuorumError> {
        let now = self.params.clock.now();
        let mut inner = self.inner.lock();
        let epoch = types::epoch_of_id(id);
        let known = inner.index.epoch_and_end(id.index).filter(|(known, _)| *known == epoch);
        if let Some((_, end_offset)) = known {
            inner.index.purge(Purged { index: id.index, epoch, end_offset });
            inner.voters.purge(id.index);
            let files = {
                if inner.log.set_log_start_offset(end_offset, end_offset).is_err() {
                    return Ok(());
                }
                inner.log.apply_retention(now, end_offset)?
            };
            return Ok(files.iter().try_for_each(|files| files.remove())?);
        }
        let covering = inner.snapshot.filter(|snapshot| snapshot.index >= id.index);
        let Some(Snapshot { id: snapshot, index }) = covering else {
            return Err(self.unsound(&inner, format!("{id} is in no snapshot")));
        };
        let end_offset = snapshot.end_offset;
        inner.unclaimed = 0;
        inner.recent.clear();
        inner.recent_bytes = 0;
        inner.index = BatchIndex::after(Some(Purged { index, epoch: snapshot.epoch, end_offset }));
        if inner.voters.truncate(0) {
            self.tell_voters(&inner);
        }
        let begun = inner.log.truncate_fully_and_start_at(end_offset, now);
        begun.map_err(|error| {
            inner.failed = true;
            self.params.health.take_offline();
            ReplayError::from(error).into()
        })
    }

    /// First offset of the log.
    pub fn log_start_offset(&self) -> Offset {
        self.inner.lock().log.log_start_offset()
    }

    /// Flushes and closes the log. It takes no more appends.
    pub fn close(&self) -> Result<(), QuorumError> {
        let mut inner = self.inner.lock();
        inner.leading = None;
        if !inner.failed {
            self.cut_unclaimed(&mut inner)?;
            let ballot = inner.ballot;
            if inner.written != ballot {
                self.write_ballot(&mut inner, ballot)?;
            }
        }
        inner.failed = true;
        Ok(inner.log.close(self.params.clock.now())?)
    }
}

/// Whether what the log holds after the snapshot goes on from it.
fn goes_on_after(log: &Log, id: SnapshotId) -> bool {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    if end < id.end_offset {
        return false;
    }
    // What lay before is gone: the log was begun at the snapshot, or cut there.
    if start >= id.end_offset {
        return true;
    }
    let last = Offset(id.end_offset.0 - 1);
    log.epoch_for_offset(last).is_none_or(|epoch| epoch == id.epoch)
}
