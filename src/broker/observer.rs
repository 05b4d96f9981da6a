//! The metadata of a node without a vote: it follows the quorum's log by Fetch, and by FetchSnapshot where it is far
//! behind.
//!
//! Its log holds committed batches only, so that nothing it has applied is ever taken back: Apache Kafka's controllers
//! give others too, which are left out until they are committed. It need not be synced: what a crash takes is fetched
//! again. Source: KIP-595, KIP-630.
//! Invariant: what is published are the records of one log in their order, a snapshot standing for those before it.

use super::dir_health::DirHealth;
use super::peers::{PeerClient, PeerError, PeerParams};
use super::quorum::{
    LeaderAndEpoch, QuorumError, QuorumListener, VoterRecords, open_log, replay_batch, take_voters,
};
use super::replay::{ReplayError, replay_log};
use super::snapshots::{self, SnapshotId};
use super::{Address, Bootstrap, ControllerAddresses};
use crate::env::{Clock, Disk};
use crate::log::{Log, LogConfig};
use crate::machines::metadata::{Controller, ControllerSettings};
use bytes::{Bytes, BytesMut};
use ottla_protocol::apis::ListenerType;
use ottla_protocol::batch::{BatchHeader, batches};
use ottla_protocol::messages::{
    FetchRequest, FetchResponse, FetchSnapshotRequest, fetch_request, fetch_response,
    fetch_snapshot_request,
};
use ottla_protocol::{
    BrokerId, CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID, ErrorCode, LeaderEpoch, Offset,
    apis,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How long a controller may keep a fetch that finds nothing new; as in Kafka.
const WAIT_MAX_MS: i32 = 500;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of the log in one answer.
const FETCH_BYTES: i32 = 8 << 20;
/// Longest answer: one batch may be larger than what was asked for.
const ANSWER_BYTES_MAX: usize = 300 << 20;
/// Largest snapshot.
const SNAPSHOT_BYTES_MAX: i64 = 4 << 30;
/// Connections that are kept.
const CLIENTS_MAX: usize = 64;
/// Wait before the next controller is asked.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Wait before it is asked again what there was not committed yet.
const COMMIT_PAUSE: Duration = Duration::from_millis(10);

/// What an observer needs to be opened.
pub(super) struct ObserverParams {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// `metadata.log.dir`.
    pub dir: PathBuf,
    /// Whether that takes records.
    pub health: Arc<DirHealth>,
    /// This node.
    pub node_id: BrokerId,
    /// What a machine that replays the log is made with.
    pub controller: ControllerSettings,
    /// `metadata.log.segment.bytes` and its kin.
    pub log: Arc<LogConfig>,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub snapshot_bytes: u64,
    /// Where the controllers listen.
    pub controllers: ControllerAddresses,
    /// Where the quorum is looked for that knows no controller.
    pub bootstrap: Bootstrap,
    /// Which of a voter's listeners is dialled, where it has it.
    pub listener: String,
}

struct Inner {
    log: Log,
    machine: Controller,
    voters: VoterRecords,
    snapshot: Option<SnapshotId>,
    bytes_since_snapshot: u64,
}

impl Inner {
    /// The epoch of the last batch, which may be in the snapshot alone.
    fn last_epoch(&self) -> LeaderEpoch {
        let in_snapshot = self.snapshot.map(|id| id.epoch);
        self.log.latest_epoch().or(in_snapshot).unwrap_or(LeaderEpoch(0))
    }
}

/// A node without a vote.
pub(super) struct Observer {
    params: ObserverParams,
    dir: PathBuf,
    inner: Mutex<Inner>,
    committed: AtomicI64,
    leader: watch::Sender<LeaderAndEpoch>,
}

/// Why a round with a controller brought nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("the controller answers {0}")]
    Refused(ErrorCode),
    #[error("the answer is not for the metadata log")]
    NotOurs,
    #[error(
        "the metadata log here is not the controllers', whose ends at offset {0} where this one goes on: stop this \
         node and remove {CLUSTER_METADATA_TOPIC}-0"
    )]
    Diverging(Offset),
    #[error(transparent)]
    Local(#[from] QuorumError),
    #[error("no space for the metadata log: this node waits: {0}")]
    NoSpace(QuorumError),
    #[error("{0}")]
    Ended(String),
}

impl Trouble {
    /// A write failed that changes nothing where it finds no space.
    fn of_write(error: impl Into<QuorumError>) -> Trouble {
        let error = error.into();
        if error.is_storage_full() { Trouble::NoSpace(error) } else { Trouble::Local(error) }
    }
}

impl Observer {
    /// Opens the log and replays newest snapshot and log.
    ///
    /// # Errors
    /// Every [`QuorumError`].
    pub(super) fn open(params: ObserverParams) -> Result<Observer, QuorumError> {
        let now = params.clock.now();
        let (dir, log) = open_log(&params.disk, &params.dir, &params.log, now)?;
        let snapshot = snapshots::newest(params.disk.as_ref(), &dir)?;
        let machine = Controller::new(params.controller.clone());
        let voters = VoterRecords::default();
        let mut inner = Inner { log, machine, voters, snapshot, bytes_since_snapshot: 0 };
        if let Some(id) = snapshot {
            let bytes = snapshots::read(params.disk.as_ref(), &dir, id)?;
            snapshots::replay(&bytes, id, &mut inner.machine, &mut inner.voters)?;
            if inner.log.log_end_offset() < id.end_offset {
                inner
                    .log
                    .truncate_fully_and_start_at(id.end_offset, now)
                    .map_err(ReplayError::from)?;
            }
        }
        let Inner { log, machine, voters, bytes_since_snapshot, .. } = &mut inner;
        let from = snapshot.map_or(Offset(0), |id| id.end_offset).max(log.log_start_offset());
        replay_log(log, from, |header, batch| {
            *bytes_since_snapshot += batch.len() as u64;
            apply(machine, voters, header, batch, from)
        })?;
        let end = log.log_end_offset();
        let epoch = inner.last_epoch();
        let (leader, _) = watch::channel(LeaderAndEpoch { leader: None, epoch });
        let committed = AtomicI64::new(end.0);
        Ok(Observer { params, dir, inner: Mutex::new(inner), committed, leader })
    }

    /// Below it everything is committed, applied and published here.
    pub(super) fn committed(&self) -> Offset {
        Offset(self.committed.load(Ordering::Acquire))
    }

    /// The finalized `kraft.version`.
    pub(super) fn kraft_version(&self) -> i16 {
        self.inner.lock().voters.kraft_version()
    }

    /// Tells of changes of the leader.
    pub(super) fn leader_changes(&self) -> watch::Receiver<LeaderAndEpoch> {
        self.leader.subscribe()
    }

    /// Follows the quorum until the broker stops.
    pub(super) async fn run(
        self: Arc<Self>,
        listener: Arc<dyn QuorumListener>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut clients = BTreeMap::new();
        let mut last_trouble = String::new();
        // What lies here is published at once: that the directories hold it shows that it was committed.
        self.publish(&listener);
        while !*stop.borrow() {
            let Some(address) = self.whom_to_ask() else {
                // Where the quorum is may be told later.
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            };
            let client = self.client(&mut clients, &address);
            let round = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                round = Arc::clone(&self).round(client, Arc::clone(&listener)) => round,
            };
            let Err(trouble) = round else {
                last_trouble.clear();
                continue;
            };
            let text = trouble.to_string();
            let (is_new, (host, port)) = (text != last_trouble, &address);
            match trouble {
                // Space may come back, and what is here is what was applied.
                Trouble::NoSpace(_) if is_new => tracing::warn!("following the metadata: {text}"),
                Trouble::NoSpace(_) => {}
                _ => {
                    self.lose(&address);
                    if is_new {
                        tracing::info!(host, port, "following the metadata: {text}");
                    }
                }
            }
            last_trouble = text;
            if self.params.health.is_offline() {
                return;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn client(&self, clients: &mut BTreeMap<Address, PeerClient>, address: &Address) -> PeerClient {
        if clients.len() > CLIENTS_MAX {
            clients.clear();
        }
        let client = |(host, port): &Address| {
            PeerClient::new(PeerParams {
                host: host.clone(),
                port: *port,
                client_id: format!("observer-{}", self.params.node_id),
                patience: PATIENCE,
                answer_bytes_max: ANSWER_BYTES_MAX,
                wanted: ListenerType::Controller,
            })
        };
        clients.entry(address.clone()).or_insert_with_key(client).clone()
    }

    /// The leader, or the controllers and bootstrap servers one after another.
    fn whom_to_ask(&self) -> Option<Address> {
        if let Some(leader) = self.leader.borrow().leader
            && let Some(known) = self.params.controllers.get(leader)
        {
            return Some(known);
        }
        let known = self.params.controllers.all().into_values();
        let bootstrap = self.params.bootstrap.servers.borrow();
        let all: BTreeSet<Address> = known.chain(bootstrap.iter().cloned()).collect();
        let turn = self.params.clock.now().0 / RETRY_PAUSE.as_millis() as i64;
        let turn = turn.unsigned_abs() as usize % all.len().max(1);
        all.into_iter().nth(turn)
    }

    /// Notes who leads, as a controller says.
    fn learn(&self, leader: i32, epoch: i32) {
        let seen = LeaderAndEpoch {
            leader: (leader >= 0).then_some(BrokerId(leader)),
            epoch: LeaderEpoch(epoch),
        };
        self.leader.send_if_modified(|known| {
            let is_new = seen.epoch >= known.epoch && *known != seen;
            if is_new {
                *known = seen;
            }
            is_new
        });
    }

    /// The one that was asked is not who leads, or does not answer.
    fn lose(&self, asked: &Address) {
        self.leader.send_if_modified(|known| {
            let address = known.leader.and_then(|leader| self.params.controllers.get(leader));
            let is_lost = address.as_ref() == Some(asked);
            if is_lost {
                known.leader = None;
            }
            is_lost
        });
    }

    /// Whether the leader is known, and another than this.
    fn is_elsewhere(&self, client: &PeerClient) -> bool {
        let leader = self.leader.borrow().leader;
        let address = leader.and_then(|leader| self.params.controllers.get(leader));
        address.is_some_and(|(host, port)| !client.params().is_for(&host, port))
    }

    /// One fetch and what comes of it.
    async fn round(
        self: Arc<Self>,
        client: PeerClient,
        listener: Arc<dyn QuorumListener>,
    ) -> Result<(), Trouble> {
        let max = apis::find(ottla_protocol::ApiKey::Fetch as i16).map_or(0, |api| api.max);
        let epoch = self.leader.borrow().epoch;
        let response = client.call(max, self.request(epoch)).await?;
        for endpoint in &response.node_endpoints {
            if let Ok(port) = u16::try_from(endpoint.port) {
                let address = (endpoint.host.clone(), port);
                self.params.controllers.set(BrokerId(endpoint.node_id), address);
            }
        }
        let partition = metadata_partition(response)?;
        let current = &partition.current_leader;
        if current.leader_epoch >= 0 {
            self.learn(current.leader_id, current.leader_epoch);
        }
        match ErrorCode::from_code(partition.error_code) {
            ErrorCode::None => {}
            ErrorCode::NotLeaderOrFollower if self.is_elsewhere(&client) => return Ok(()),
            // The answer has told the epoch that there is.
            ErrorCode::FencedLeaderEpoch if self.leader.borrow().epoch > epoch => return Ok(()),
            error => return Err(Trouble::Refused(error)),
        }
        if partition.diverging_epoch.end_offset >= 0 {
            return Err(Trouble::Diverging(Offset(partition.diverging_epoch.end_offset)));
        }
        if partition.snapshot_id.end_offset >= 0 {
            let id = SnapshotId {
                end_offset: Offset(partition.snapshot_id.end_offset),
                epoch: LeaderEpoch(partition.snapshot_id.epoch),
            };
            let bytes = self.fetch_snapshot(&client, id).await?;
            return self
                .on_a_thread(move |observer| {
                    observer.install(id, &bytes)?;
                    observer.publish(&listener);
                    Ok(())
                })
                .await;
        }
        let Some(records) = partition.records.filter(|records| !records.is_empty()) else {
            return Ok(());
        };
        let records = committed_part(&records, Offset(partition.high_watermark));
        if records.is_empty() {
            tokio::time::sleep(COMMIT_PAUSE).await;
            return Ok(());
        }
        self.on_a_thread(move |observer| {
            observer.append(records)?;
            observer.publish(&listener);
            observer.snapshot_if_due();
            Ok(())
        })
        .await
    }

    /// Publishing opens logs, and the disk may be slow.
    async fn on_a_thread(
        self: Arc<Self>,
        work: impl FnOnce(&Observer) -> Result<(), Trouble> + Send + 'static,
    ) -> Result<(), Trouble> {
        let done = crate::env::blocking(move || {
            let done = work(&self);
            if done.as_ref().is_err_and(|trouble| !matches!(trouble, Trouble::NoSpace(_))) {
                // What lies here and what was applied may not be the same any more.
                self.params.health.take_offline();
            }
            done
        });
        done.await.map_err(|error| Trouble::Ended(error.to_string()))?
    }

    fn request(&self, epoch: LeaderEpoch) -> FetchRequest {
        let inner = self.inner.lock();
        let end = inner.log.log_end_offset();
        let partition = fetch_request::FetchPartition {
            partition: 0,
            current_leader_epoch: epoch.0,
            fetch_offset: end.0,
            last_fetched_epoch: inner.last_epoch().0,
            log_start_offset: inner.log.log_start_offset().0,
            partition_max_bytes: FETCH_BYTES,
            high_watermark: self.committed().0,
            ..Default::default()
        };
        FetchRequest {
            cluster_id: Some(self.params.controller.cluster_id.clone()),
            replica_state: fetch_request::ReplicaState {
                replica_id: self.params.node_id.0,
                replica_epoch: -1,
            },
            max_wait_ms: WAIT_MAX_MS,
            min_bytes: 1,
            max_bytes: FETCH_BYTES,
            session_epoch: -1,
            topics: vec![fetch_request::FetchTopic {
                topic: CLUSTER_METADATA_TOPIC.to_owned(),
                topic_id: CLUSTER_METADATA_TOPIC_ID,
                partitions: vec![partition],
            }],
            ..Default::default()
        }
    }

    async fn fetch_snapshot(&self, client: &PeerClient, id: SnapshotId) -> Result<Bytes, Trouble> {
        let mut bytes = BytesMut::new();
        let epoch = self.leader.borrow().epoch;
        loop {
            let partition = fetch_snapshot_request::PartitionSnapshot {
                partition: 0,
                current_leader_epoch: epoch.0,
                snapshot_id: fetch_snapshot_request::SnapshotId {
                    end_offset: id.end_offset.0,
                    epoch: id.epoch.0,
                },
                position: bytes.len() as i64,
                ..Default::default()
            };
            let request = FetchSnapshotRequest {
                cluster_id: Some(self.params.controller.cluster_id.clone()),
                replica_id: self.params.node_id.0,
                max_bytes: FETCH_BYTES,
                topics: vec![fetch_snapshot_request::TopicSnapshot {
                    name: CLUSTER_METADATA_TOPIC.to_owned(),
                    partitions: vec![partition],
                }],
            };
            let response = client.call(1, request).await?;
            let part = response.topics.into_iter().next();
            let part = part.and_then(|topic| topic.partitions.into_iter().next());
            let part = part.ok_or(Trouble::NotOurs)?;
            for code in [response.error_code, part.error_code] {
                let error = ErrorCode::from_code(code);
                if error.is_err() {
                    return Err(Trouble::Refused(error));
                }
            }
            let is_sound = part.position == bytes.len() as i64
                && part.size <= SNAPSHOT_BYTES_MAX
                && (part.size == part.position || !part.unaligned_records.is_empty());
            if !is_sound {
                return Err(Trouble::NotOurs);
            }
            bytes.extend_from_slice(&part.unaligned_records);
            if bytes.len() as i64 >= part.size {
                return Ok(bytes.freeze());
            }
        }
    }

    /// Puts a snapshot in the place of everything that is here.
    fn install(&self, id: SnapshotId, bytes: &Bytes) -> Result<(), Trouble> {
        let mut machine = Controller::new(self.params.controller.clone());
        let mut voters = VoterRecords::default();
        snapshots::replay(bytes, id, &mut machine, &mut voters)?;
        let disk = self.params.disk.as_ref();
        snapshots::store(disk, &self.dir, id, bytes).map_err(Trouble::of_write)?;
        let mut inner = self.inner.lock();
        let now = self.params.clock.now();
        let truncated = inner.log.truncate_fully_and_start_at(id.end_offset, now);
        truncated.map_err(ReplayError::from).map_err(QuorumError::from)?;
        inner.machine = machine;
        inner.voters = voters;
        inner.snapshot = Some(id);
        inner.bytes_since_snapshot = 0;
        Ok(snapshots::remove_before(disk, &self.dir, id)?)
    }

    fn append(&self, records: Bytes) -> Result<(), Trouble> {
        let mut inner = self.inner.lock();
        let (from, now) = (inner.log.log_end_offset(), self.params.clock.now());
        let is_new = from == inner.log.log_start_offset();
        inner.log.append_as_follower(records.clone(), now).map_err(Trouble::of_write)?;
        if is_new {
            // Partitions follow from it, and without a metadata log beside them nothing starts after a loss of power.
            inner.log.flush(now).map_err(QuorumError::from)?;
        }
        let end = inner.log.log_end_offset();
        let Inner { machine, voters, bytes_since_snapshot, .. } = &mut *inner;
        for batch in batches(&records) {
            // The last one may be cut: the log has left it out.
            let Ok((header, batch)) = batch else { break };
            if header.next_offset() > end {
                break;
            }
            *bytes_since_snapshot += batch.len() as u64;
            let applied = apply(machine, voters, &header, &records.slice_ref(batch), from);
            applied.map_err(QuorumError::from)?;
        }
        Ok(())
    }

    fn publish(&self, listener: &Arc<dyn QuorumListener>) {
        let (image, end) = {
            let inner = self.inner.lock();
            self.note_voters(&inner.voters);
            (Arc::new(inner.machine.image().clone()), inner.log.log_end_offset())
        };
        listener.publish(image);
        self.committed.store(end.0, Ordering::Release);
    }

    /// Where the voters listen that the log names.
    fn note_voters(&self, records: &VoterRecords) {
        let voters = records.voters();
        for voter in voters.iter().flat_map(|voters| voters.iter()) {
            if let Some(address) = voter.address(&self.params.listener) {
                self.params.controllers.set(voter.id, address.clone());
            }
        }
    }

    /// Writes a snapshot when enough was applied since the last one, and drops the log before it.
    fn snapshot_if_due(&self) {
        let mut inner = self.inner.lock();
        if inner.bytes_since_snapshot < self.params.snapshot_bytes {
            return;
        }
        let Some(epoch) = inner.log.latest_epoch() else { return };
        let id = SnapshotId { end_offset: inner.log.log_end_offset(), epoch };
        if let Err(error) = self.snapshot(&mut inner, id) {
            tracing::error!(%error, "snapshot of the cluster metadata not written");
        }
    }

    fn snapshot(&self, inner: &mut Inner, id: SnapshotId) -> Result<(), QuorumError> {
        let (disk, now) = (self.params.disk.as_ref(), self.params.clock.now());
        snapshots::write(disk, &self.dir, id, inner.machine.image(), &inner.voters, now)?;
        inner.bytes_since_snapshot = 0;
        inner.snapshot = Some(id);
        if inner.log.set_log_start_offset(id.end_offset, id.end_offset).is_ok() {
            for files in inner.log.apply_retention(now, id.end_offset)? {
                files.remove()?;
            }
        }
        snapshots::remove_before(disk, &self.dir, id)
    }

    /// Flushes and closes the log.
    ///
    /// # Errors
    /// The last bytes could not be made durable.
    pub(super) fn close(&self) -> Result<(), QuorumError> {
        Ok(self.inner.lock().log.close(self.params.clock.now())?)
    }
}

fn apply(
    machine: &mut Controller,
    voters: &mut VoterRecords,
    header: &BatchHeader,
    batch: &Bytes,
    from: Offset,
) -> Result<(), ReplayError> {
    if header.is_control() {
        take_voters(header, batch, voters)?;
        machine.advance_to(header.last_offset());
        return Ok(());
    }
    replay_batch(header, batch, from, machine)
}

/// The whole batches below the high watermark.
fn committed_part(records: &Bytes, high_watermark: Offset) -> Bytes {
    let mut length = 0;
    for batch in batches(records) {
        // The last one may be cut.
        let Ok((header, batch)) = batch else { break };
        if header.next_offset() > high_watermark {
            break;
        }
        length += batch.len();
    }
    records.slice(..length)
}

/// The answer for the metadata log's only partition.
fn metadata_partition(response: FetchResponse) -> Result<fetch_response::PartitionData, Trouble> {
    let error = ErrorCode::from_code(response.error_code);
    if error.is_err() {
        return Err(Trouble::Refused(error));
    }
    let topic = response.responses.into_iter().next();
    let partition = topic.and_then(|topic| topic.partitions.into_iter().next());
    partition.filter(|partition| partition.partition_index == 0).ok_or(Trouble::NotOurs)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::registered;
    use super::super::tests::settings;
    use super::*;
    use crate::env::SystemClock;
    use crate::env::faulty::FaultyDisk;
    use ottla_protocol::Timestamp;
    use ottla_protocol::messages::SnapshotHeaderRecord;
    use ottla_protocol::record::{BatchBuilder, BatchParams};
    use ottla_protocol::records::metadata::encode_metadata_record;

    fn batch(base_offset: i64, records: usize) -> Bytes {
        let base_offset = Offset(base_offset);
        let mut batch = BatchBuilder::new(BatchParams { base_offset, ..Default::default() });
        for _ in 0..records {
            batch.push(Timestamp(1), None, Some(b"x"), &[]);
        }
        batch.build().freeze()
    }

    #[test]
    fn only_whole_batches_below_the_high_watermark_are_taken() {
        let (first, second) = (batch(7, 2), batch(9, 1));
        let both = Bytes::from([&first[..], &second[..]].concat());
        let check = |high_watermark, expected: &Bytes| {
            assert_eq!(committed_part(&both, Offset(high_watermark)), expected, "{high_watermark}");
        };
        check(-1, &Bytes::new());
        check(8, &Bytes::new());
        check(9, &first);
        check(10, &both);
        check(11, &both);
        let cut = both.slice(..both.len() - 1);
        assert_eq!(committed_part(&cut, Offset(10)), first);
    }

    fn registrations(base_offset: i64, brokers: &[i32]) -> Bytes {
        let base_offset = Offset(base_offset);
        let mut batch = BatchBuilder::new(BatchParams { base_offset, ..Default::default() });
        for id in brokers {
            let record = encode_metadata_record(&registered(BrokerId(*id)), 1);
            batch.push(Timestamp(1), None, Some(&record), &[]);
        }
        batch.build().freeze()
    }

    #[test]
    fn a_full_disk_is_waited_with_and_other_failures_are_final() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let faults = Arc::clone(&disk.faults);
        let settings = settings(&[dir.path()]);
        let observer = Observer::open(ObserverParams {
            disk: Arc::new(disk),
            clock: Arc::new(SystemClock),
            dir: settings.metadata_log_dir.clone(),
            health: Arc::default(),
            node_id: settings.node_id,
            controller: settings.controller.clone(),
            log: Arc::clone(&settings.metadata_log),
            snapshot_bytes: settings.metadata_snapshot_bytes,
            controllers: settings.controllers.clone(),
            bootstrap: settings.bootstrap.clone(),
            listener: "CONTROLLER".to_owned(),
        })
        .unwrap();
        let known = || {
            let image = observer.inner.lock().machine.image().clone();
            (image.offset.0, image.cluster.brokers.len())
        };
        observer.append(registrations(0, &[1, 2])).unwrap();
        assert_eq!(known(), (1, 2));
        faults.fill(true);
        for _ in 0..2 {
            let full = observer.append(registrations(2, &[3]));
            assert!(matches!(full, Err(Trouble::NoSpace(_))), "{full:?}");
        }
        let id = SnapshotId { end_offset: Offset(9), epoch: LeaderEpoch(1) };
        let snapshot = snapshot(id);
        let full = observer.install(id, &snapshot);
        assert!(matches!(full, Err(Trouble::NoSpace(_))), "{full:?}");
        assert_eq!(known(), (1, 2));
        faults.fill(false);
        observer.append(registrations(2, &[3])).unwrap();
        assert_eq!(known(), (2, 3));
        observer.install(id, &snapshot).unwrap();
        assert_eq!(known(), (8, 0));
        observer.append(registrations(9, &[4])).unwrap();
        assert_eq!(known(), (9, 1));
        faults.fail_syncs(true);
        let failed = observer.close();
        assert!(matches!(failed, Err(QuorumError::Storage(_))), "{failed:?}");
        let offline = observer.append(registrations(10, &[5]));
        assert!(matches!(offline, Err(Trouble::Local(_))), "{offline:?}");
    }

    fn snapshot(id: SnapshotId) -> Bytes {
        let head = (SnapshotHeaderRecord::default(), id.epoch, Timestamp(1));
        Bytes::from(snapshots::encode(head, &VoterRecords::default(), &[], 1))
    }
}
