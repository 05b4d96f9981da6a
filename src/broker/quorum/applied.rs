//! What is committed, applied: on every voter the newest Image is made of it and published, and snapshots are written.
//!
//! A leader's host has replayed its own records already, so its Images wait here until their records are committed. For
//! all others a standby machine replays; when this node is elected and its LeaderChange is committed, the standby goes
//! to the new host, and is made anew from the newest Image when the epoch ends.
//!
//! Invariant: what is published rests on committed entries only, in their order, and comes before whatever waits for
//! the commit.

use super::index;
use super::raft_log::fatal;
use super::types::{self, Batch, Payload, QuorumEntry, SnapshotFile, Types};
use super::voter_set::VoterSet;
use super::{QuorumError, Shared};
use crate::broker::replay::ReplayError;
use crate::broker::snapshots::{self, SnapshotId};
use crate::machines::metadata::{Controller, Image};
use crate::machines::{Entry, Machine};
use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{
    ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StoredMembership,
};
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::messages::KRaftVersionRecord;
use ottla_protocol::record::decode_records;
use ottla_protocol::records::control::ControlRecord;
use ottla_protocol::records::metadata::decode_metadata_record;
use ottla_protocol::{LeaderEpoch, Offset, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A metadata batch is written by us or by Kafka, uncompressed; more than this is not one.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// The newest `kraft.version` and voters that control records of the log set, by type. A snapshot repeats them
/// (KIP-853): the log before it, where they stood, goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::broker) struct VoterRecords(pub(super) BTreeMap<i16, ControlRecord>);

impl VoterRecords {
    /// Those that are set, `kraft.version` first.
    pub(in crate::broker) fn records(&self) -> impl Iterator<Item = &ControlRecord> {
        self.0.values()
    }

    /// The voters that they name.
    pub(in crate::broker) fn voters(&self) -> Option<VoterSet> {
        self.0.values().find_map(|record| match record {
            ControlRecord::Voters(voters) => Some(VoterSet::from_record(voters)),
            _ => None,
        })
    }

    /// The finalized `kraft.version`.
    pub(in crate::broker) fn kraft_version(&self) -> i16 {
        let version = self.0.values().find_map(|record| match record {
            ControlRecord::KRaftVersion(version) => Some(version.k_raft_version),
            _ => None,
        });
        version.unwrap_or(0)
    }

    /// Those of a new quorum whose voters can be changed.
    pub(in crate::broker) fn dynamic(voters: &VoterSet) -> VoterRecords {
        let version = KRaftVersionRecord { version: 0, k_raft_version: 1 };
        let mut records = VoterRecords::default();
        records.take(vec![ControlRecord::KRaftVersion(version), voters.to_record()]);
        records
    }

    fn take(&mut self, records: Vec<ControlRecord>) {
        for record in records {
            if matches!(record, ControlRecord::KRaftVersion(_) | ControlRecord::Voters(_)) {
                self.0.insert(record.type_id(), record);
            }
        }
    }
}

/// State as of the last entry applied.
#[derive(Debug)]
pub(super) struct Applied {
    /// Replays where no host does; `None` while a host has it, and until it is needed.
    standby: Option<Controller>,
    /// As of `end`.
    image: Image,
    last: Option<LogId<i32>>,
    end: Offset,
    voters: VoterRecords,
    /// Bytes applied since the newest snapshot.
    pub(super) bytes_since_snapshot: u64,
}

/// What an entry told.
enum Told {
    Records,
    /// An epoch of this leader begins.
    EpochStart(i32),
}

impl Applied {
    /// What the newest snapshot holds, or nothing.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn open(shared: &super::log::MetadataLog) -> Result<Applied, QuorumError> {
        let params = shared.params();
        let mut applied = Applied {
            standby: None,
            image: Image::default(),
            last: None,
            end: Offset(0),
            voters: VoterRecords::default(),
            bytes_since_snapshot: 0,
        };
        let Some(id) = snapshots::newest(params.disk.as_ref(), shared.dir())? else {
            return Ok(applied);
        };
        let bytes = snapshots::read(params.disk.as_ref(), shared.dir(), id)?;
        let last = shared.snapshot().map(|(_, last)| last);
        applied.load(Controller::new(params.controller.clone()), &bytes, id, last)?;
        Ok(applied)
    }

    /// Replaces everything by a snapshot.
    fn load(
        &mut self,
        mut controller: Controller,
        bytes: &Bytes,
        id: SnapshotId,
        last: Option<LogId<i32>>,
    ) -> Result<(), QuorumError> {
        let mut voters = VoterRecords::default();
        snapshots::replay(bytes, id, &mut controller, &mut voters)?;
        self.image = controller.image().clone();
        self.standby = Some(controller);
        self.last = last;
        self.end = id.end_offset;
        self.voters = voters;
        self.bytes_since_snapshot = 0;
        Ok(())
    }

    /// The voters that control records set.
    pub(super) fn voters(&self) -> &VoterRecords {
        &self.voters
    }

    fn standby(&mut self, shared: &Shared) -> &mut Controller {
        let image = &self.image;
        self.standby.get_or_insert_with(|| {
            Controller::of_image(shared.log.params().controller.clone(), image.clone())
        })
    }

    /// Applies one entry.
    fn apply(
        &mut self,
        shared: &Shared,
        id: LogId<i32>,
        batch: &Batch,
    ) -> Result<Told, QuorumError> {
        let header = &batch.header;
        let mut told = Told::Records;
        if header.is_control() {
            let records = control_records(header, &batch.bytes)?;
            for record in &records {
                if let ControlRecord::LeaderChange(change) = record {
                    told = Told::EpochStart(change.leader_id);
                }
            }
            self.voters.take(records);
            match &mut self.standby {
                Some(standby) => standby.advance_to(header.last_offset()),
                None => self.image.advance_to(header.last_offset()),
            }
        } else if let Some(image) = shared.image_of(header.next_offset()) {
            self.image = image;
            self.standby = None;
        } else {
            let standby = self.standby(shared);
            replay_batch(header, &batch.bytes, Offset(0), standby)?;
        }
        self.last = Some(id);
        self.end = header.next_offset();
        self.bytes_since_snapshot += batch.bytes.len() as u64;
        Ok(told)
    }

    /// Everything below is applied.
    pub(super) fn end(&self) -> Offset {
        self.end
    }

    /// Gives the machine to a host: this node leads, and everything before is applied.
    pub(super) fn lead(&mut self, shared: &Shared, epoch: LeaderEpoch) {
        self.standby(shared);
        if let Some(controller) = self.standby.take() {
            shared.lead(epoch, controller, self.end);
        }
    }

    /// Takes the standby's state as that of all that was applied; once for many entries, as the standby copies what it
    /// changes of a state that is kept.
    fn settle(&mut self) {
        if let Some(standby) = &self.standby {
            self.image = standby.image().clone();
        }
    }

    /// Writes a snapshot when enough was applied since the last one; answers whether.
    pub(super) fn snapshot_if_due(&mut self, shared: &Shared) -> Result<bool, QuorumError> {
        let params = shared.log.params();
        let Some(last) = self.last else { return Ok(false) };
        if self.bytes_since_snapshot < params.snapshot_bytes || shared.log.is_failed() {
            return Ok(false);
        }
        let id = SnapshotId { end_offset: self.end, epoch: types::epoch_of_id(&last) };
        if shared.log.snapshot().is_some_and(|(before, _)| before >= id) {
            return Ok(false);
        }
        let (disk, dir) = (params.disk.as_ref(), shared.log.dir());
        index::write_ordinal(disk, dir, id, last.index)?;
        snapshots::write(disk, dir, id, &self.image, &self.voters, params.clock.now())?;
        self.bytes_since_snapshot = 0;
        shared.log.set_snapshot(id, last.index);
        snapshots::remove_before(disk, dir, id)?;
        index::remove_ordinals_before(disk, dir, id)?;
        Ok(true)
    }
}

/// openraft's state machine.
pub(super) struct Applier(pub Arc<Shared>);

impl Applier {
    /// Runs `work` on a thread that may wait: publishing opens logs.
    async fn blocking<T: Send + 'static>(
        &self,
        subject: ErrorSubject<i32>,
        work: impl FnOnce(&Shared) -> Result<T, QuorumError> + Send + 'static,
    ) -> Result<T, StorageError<i32>> {
        let shared = Arc::clone(&self.0);
        let ran = crate::env::blocking(move || work(&shared)).await;
        let done = ran.map_err(|error| fatal(subject.clone(), ErrorVerb::Write, &error))?;
        done.map_err(|error| fatal(subject, ErrorVerb::Write, &error))
    }
}

impl Shared {
    /// Applies committed entries, publishes once, and lets those know who wait for the commit. Answers whether
    /// a snapshot was written.
    fn apply(&self, entries: Vec<QuorumEntry>) -> Result<bool, QuorumError> {
        let mut applied = self.applied.lock();
        let mut begun = None;
        for entry in entries {
            let Payload::Batch(batch) = &entry.payload else {
                let cause = "an entry that is not in the log is committed".to_owned();
                return Err(QuorumError::Entry { offset: applied.end, cause });
            };
            if let Told::EpochStart(leader) = applied.apply(self, entry.log_id, batch)? {
                begun = Some((types::epoch_of_id(&entry.log_id), leader));
            }
        }
        applied.settle();
        self.publish(&applied);
        if let Some((epoch, leader)) = begun
            && leader == self.log.params().node_id().0
            && self.log.leading() == Some(epoch)
            // Otherwise it begins once a majority is back.
            && !self.is_suspended()
        {
            applied.lead(self, epoch);
        }
        let written = applied.snapshot_if_due(self);
        Ok(written.unwrap_or_else(|error| {
            tracing::error!(%error, "snapshot of the cluster metadata not written");
            false
        }))
    }

    fn publish(&self, applied: &Applied) {
        self.set_metadata_version(applied.image.features.metadata_version());
        if let Some(listener) = self.listener() {
            listener.publish(Arc::new(applied.image.clone()));
        }
        self.commit(applied.end);
    }

    /// Takes a snapshot that lies here already, under its final name.
    fn install(&self, id: SnapshotId, last: LogId<i32>, bytes: &Bytes) -> Result<(), QuorumError> {
        let mut applied = self.applied.lock();
        if applied.end >= id.end_offset {
            return Ok(());
        }
        let controller = Controller::new(self.log.params().controller.clone());
        applied.load(controller, bytes, id, Some(last))?;
        self.log.set_snapshot_voters(self.voters_in(&applied.voters), Some(last.index));
        self.publish(&applied);
        let (disk, dir) = (self.log.params().disk.as_ref(), self.log.dir());
        snapshots::remove_before(disk, dir, id)?;
        index::remove_ordinals_before(disk, dir, id)
    }

    /// The voters where these records were the newest: those of the configuration where they name none.
    pub(super) fn voters_in(&self, records: &VoterRecords) -> VoterSet {
        records.voters().unwrap_or_else(|| self.log.params().voters.clone())
    }

    fn current_snapshot(&self) -> Result<Option<Snapshot<Types>>, QuorumError> {
        let Some((id, last)) = self.log.snapshot() else { return Ok(None) };
        let bytes = snapshots::read(self.log.params().disk.as_ref(), self.log.dir(), id)?;
        let file = SnapshotFile { end_offset: id.end_offset, bytes };
        // Nobody asks this one for the voters, which a receiver reads in the file.
        let voters = self.log.voters();
        Ok(Some(Snapshot { meta: snapshot_meta(id, last, &voters), snapshot: Box::new(file) }))
    }
}

/// A snapshot as openraft describes it.
pub(super) fn snapshot_meta(
    id: SnapshotId,
    last: LogId<i32>,
    voters: &VoterSet,
) -> SnapshotMeta<i32, openraft::EmptyNode> {
    SnapshotMeta {
        last_log_id: Some(last),
        last_membership: stored(voters),
        snapshot_id: id.file_name(),
    }
}

/// Voters of whom no entry that is still in the log tells.
fn stored(voters: &VoterSet) -> StoredMembership<i32, openraft::EmptyNode> {
    StoredMembership::new(None, voters.membership(&BTreeSet::new()))
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<i32>>, StoredMembership<i32, openraft::EmptyNode>), StorageError<i32>>
    {
        let applied = self.0.applied.lock();
        Ok((applied.last, stored(&self.0.voters_in(&applied.voters))))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError<i32>>
    where
        I: IntoIterator<Item = QuorumEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<QuorumEntry> = entries.into_iter().collect();
        let replies = vec![(); entries.len()];
        let subject = ErrorSubject::StateMachine;
        if self.blocking(subject, move |shared| shared.apply(entries)).await? {
            self.0.note_snapshot().await;
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(Arc::clone(&self.0))
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError<i32>> {
        Ok(Box::new(SnapshotFile { end_offset: Offset(0), bytes: Bytes::new() }))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<i32, openraft::EmptyNode>,
        snapshot: Box<SnapshotFile>,
    ) -> Result<(), StorageError<i32>> {
        let Some(last) = meta.last_log_id else { return Ok(()) };
        let id = SnapshotId { end_offset: snapshot.end_offset, epoch: types::epoch_of_id(&last) };
        let install = move |shared: &Shared| shared.install(id, last, &snapshot.bytes);
        self.blocking(ErrorSubject::Snapshot(None), install).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<i32>> {
        self.blocking(ErrorSubject::Snapshot(None), Shared::current_snapshot).await
    }
}

/// Snapshots are written when entries are applied; openraft is shown the newest.
pub(super) struct Builder(Arc<Shared>);

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<i32>> {
        let applier = Applier(Arc::clone(&self.0));
        let subject = ErrorSubject::Snapshot(None);
        let newest = applier.blocking(subject.clone(), Shared::current_snapshot).await?;
        newest.ok_or_else(|| {
            let cause = "there is no snapshot".to_owned();
            let error = QuorumError::Entry { offset: Offset(0), cause };
            fatal(subject, ErrorVerb::Read, &error)
        })
    }
}

/// The records of a control batch.
fn control_records(header: &BatchHeader, batch: &Bytes) -> Result<Vec<ControlRecord>, ReplayError> {
    let records = decode_records(header, batch, BATCH_BYTES_MAX)
        .map_err(|cause| ReplayError::Batch { offset: header.base_offset, cause })?;
    let decode = |record: ottla_protocol::record::Record| {
        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        ControlRecord::decode(&key, &value).map_err(|cause| ReplayError::Record {
            offset: header.base_offset,
            cause: cause.to_string(),
        })
    };
    records.into_iter().map(decode).collect()
}

/// Takes the voters of a control batch of a snapshot.
pub(in crate::broker) fn take_voters(
    header: &BatchHeader,
    batch: &Bytes,
    voters: &mut VoterRecords,
) -> Result<(), ReplayError> {
    voters.take(control_records(header, batch)?);
    Ok(())
}

/// Replays one batch of the log or of a snapshot; records below `from` are passed over.
pub(in crate::broker) fn replay_batch(
    header: &BatchHeader,
    batch: &Bytes,
    from: Offset,
    controller: &mut Controller,
) -> Result<(), ReplayError> {
    let records = decode_records(header, batch, BATCH_BYTES_MAX)
        .map_err(|cause| ReplayError::Batch { offset: header.base_offset, cause })?;
    for record in records {
        let offset = record.offset(header);
        if offset < from {
            continue;
        }
        let value = record.value.unwrap_or_default();
        let (record, _) = decode_metadata_record(value)
            .map_err(|cause| ReplayError::Record { offset, cause: cause.to_string() })?;
        let timestamp = Timestamp(header.base_timestamp.0);
        controller.replay(&Entry { offset, timestamp, record });
    }
    Ok(())
}
