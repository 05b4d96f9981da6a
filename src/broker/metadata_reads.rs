//! What a controller gives to nodes without a vote: committed batches of the metadata log, and parts of snapshots.

use super::Broker;
use super::quorum::{Quorum, VoterStatus};
use super::snapshots::SnapshotId;
use crate::log::ReadError;
use bytes::Bytes;
use ottla_protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset, Timestamp};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// A node that has not fetched for so long follows no more, in milliseconds; as in Kafka.
const OBSERVER_SESSION_MS: i64 = 300_000;
/// Nodes without a vote that are remembered.
const OBSERVERS_MAX: usize = 10_000;

/// One look at the metadata log.
#[derive(Debug, Clone)]
pub struct MetadataRead {
    /// NOT_LEADER_OR_FOLLOWER, OFFSET_OUT_OF_RANGE, KAFKA_STORAGE_ERROR or none.
    pub error: ErrorCode,
    /// The quorum's leader; -1 while none is known.
    pub leader_id: BrokerId,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
    /// Below it everything is committed.
    pub high_watermark: Offset,
    /// First offset of the log.
    pub log_start_offset: Offset,
    /// The snapshot to begin with, where the log does not reach back: its end offset and epoch.
    pub snapshot: Option<(Offset, LeaderEpoch)>,
    /// Committed batches; the last may be cut.
    pub records: Bytes,
}

impl MetadataRead {
    /// Whether it need not wait for more.
    pub fn is_worth_telling(&self) -> bool {
        self.error.is_err() || self.snapshot.is_some() || !self.records.is_empty()
    }
}

/// The nodes that follow without a vote.
#[derive(Debug, Default)]
pub(super) struct Observers(Mutex<BTreeMap<BrokerId, VoterStatus>>);

impl Observers {
    fn note(
        &self,
        now: Timestamp,
        (id, directory_id): (BrokerId, Uuid),
        log_end_offset: Offset,
        committed: Offset,
    ) {
        let mut all = self.0.lock();
        let before = all.get(&id).map_or(Timestamp::NONE, |known| known.last_caught_up);
        if before == Timestamp::NONE && !all.contains_key(&id) {
            all.retain(|_, known| known.last_fetch.0 > now.0 - OBSERVER_SESSION_MS);
            if all.len() >= OBSERVERS_MAX {
                return;
            }
        }
        let last_caught_up = if log_end_offset >= committed { now } else { before };
        all.insert(
            id,
            VoterStatus { id, directory_id, log_end_offset, last_fetch: now, last_caught_up },
        );
    }

    fn present(&self, now: Timestamp) -> Vec<VoterStatus> {
        let all = self.0.lock();
        let is_present = |known: &&VoterStatus| known.last_fetch.0 > now.0 - OBSERVER_SESSION_MS;
        all.values().filter(is_present).copied().collect()
    }
}

impl Broker {
    /// Completes when more of the metadata is committed here, counted from this call on; never without a vote.
    pub fn metadata_moved(&self) -> impl Future<Output = ()> + Send + '_ {
        let moved = self.metadata.quorum().map(|quorum| quorum.moved());
        async {
            match moved {
                Some(moved) => moved.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Committed batches of the metadata log for a node and its directory, from the one that holds `from` on; reads the
    /// page cache.
    pub fn read_metadata(
        &self,
        (replica_id, directory_id): (BrokerId, Uuid),
        from: Offset,
        max_bytes: usize,
    ) -> MetadataRead {
        let mut read = MetadataRead {
            error: ErrorCode::NotLeaderOrFollower,
            leader_id: BrokerId::NONE,
            leader_epoch: LeaderEpoch::UNKNOWN,
            high_watermark: Offset::UNKNOWN,
            log_start_offset: Offset::UNKNOWN,
            snapshot: None,
            records: Bytes::new(),
        };
        let Some(quorum) = self.metadata.quorum() else { return read };
        (read.leader_id, read.leader_epoch) = leader_of(quorum);
        if quorum.leading().is_none() {
            return read;
        }
        let committed = quorum.committed();
        self.observers.note(self.clock.now(), (replica_id, directory_id), from, committed);
        read.high_watermark = committed;
        read.log_start_offset = quorum.log_start_offset();
        read.error = ErrorCode::None;
        match records(quorum, from, max_bytes, committed) {
            Ok(records) => read.records = records,
            Err(ErrorCode::OffsetOutOfRange) if from < committed => {
                let id = quorum.newest_snapshot();
                read.snapshot = id.map(|id| (id.end_offset, id.epoch));
                if read.snapshot.is_none() {
                    read.error = ErrorCode::OffsetOutOfRange;
                }
            }
            Err(error) => read.error = error,
        }
        read
    }

    /// The quorum's leader, -1 while none is known, and its epoch; -1 without a vote.
    pub fn quorum_leader(&self) -> (BrokerId, LeaderEpoch) {
        let quorum = self.metadata.quorum();
        quorum.map_or((BrokerId::NONE, LeaderEpoch::UNKNOWN), |quorum| leader_of(quorum))
    }

    /// Bytes of a snapshot from `position` on, and its whole size; waits for the disk.
    ///
    /// # Errors
    /// SNAPSHOT_NOT_FOUND, POSITION_OUT_OF_RANGE, KAFKA_STORAGE_ERROR; NOT_LEADER_OR_FOLLOWER without a vote.
    pub async fn metadata_snapshot(
        &self,
        (end_offset, epoch): (Offset, LeaderEpoch),
        position: u64,
        max_bytes: usize,
    ) -> Result<(u64, Bytes), ErrorCode> {
        let quorum = self.metadata.quorum().map(Arc::clone);
        let quorum = quorum.ok_or(ErrorCode::NotLeaderOrFollower)?;
        let id = SnapshotId { end_offset, epoch };
        let read = move || quorum.snapshot_part(id, position, max_bytes);
        let part = crate::env::blocking(read).await;
        part.unwrap_or_else(|error| {
            tracing::error!(%error, "reading a snapshot did not end");
            Err(ErrorCode::KafkaStorageError)
        })
    }

    /// The nodes that follow the metadata log without a vote, as the leader knows them.
    pub fn metadata_observers(&self) -> Vec<VoterStatus> {
        self.observers.present(self.clock.now())
    }
}

fn leader_of(quorum: &Quorum) -> (BrokerId, LeaderEpoch) {
    let known = *quorum.leader_changes().borrow();
    (known.leader.unwrap_or(BrokerId::NONE), known.epoch)
}

fn records(
    quorum: &Quorum,
    from: Offset,
    max_bytes: usize,
    committed: Offset,
) -> Result<Bytes, ErrorCode> {
    if from >= committed {
        return Ok(Bytes::new());
    }
    let failed = |error: &ReadError| {
        let code = error.error_code();
        if code == ErrorCode::KafkaStorageError {
            tracing::error!(%error, "the metadata log cannot be read");
        }
        code
    };
    let slice = quorum.read(from, max_bytes).map_err(|error| failed(&error))?;
    let Some(slice) = slice else { return Ok(Bytes::new()) };
    slice.to_bytes().map_err(|error| {
        tracing::error!(%error, "the metadata log cannot be read");
        ErrorCode::KafkaStorageError
    })
}
