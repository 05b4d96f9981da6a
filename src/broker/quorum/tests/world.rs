//! Voters in one process: simulated disks, links that can be cut, and what must hold among them.

use super::super::codec::Message;
use super::super::*;
use crate::broker::Address;
use crate::broker::controller_link::Active;
use crate::broker::founding::write_first_voters;
use crate::broker::host::HostError;
use crate::broker::metadata::{MetadataNode, MetadataParams, Source};
use crate::broker::tests::{quorum_params, settings};
use crate::env::rng::Rng;
use crate::env::sim_disk::{Crash, SimDisk};
use crate::machines::metadata::{ControllerReply, ControllerRequest};
use arc_swap::ArcSwap;
use ottla_protocol::messages::AlterClientQuotasRequest;
use ottla_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Weak;
use std::time::{Duration, Instant};

/// What the links know.
#[derive(Default)]
pub(super) struct Links {
    voters: RwLock<BTreeMap<BrokerId, Weak<Quorum>>>,
    cut: RwLock<BTreeSet<(BrokerId, BrokerId)>>,
    /// How long a vote is on its way back.
    pub vote_delay: RwLock<Duration>,
}

struct Link {
    from: BrokerId,
    links: Arc<Links>,
}

impl RaftTransport for Link {
    fn send(&self, to: BrokerId, message: Bytes) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        Box::pin(async move {
            let failed =
                |cause: &str| TransportError { to: to.to_string(), cause: cause.to_owned() };
            let is_cut = |from, to| self.links.cut.read().contains(&(from, to));
            if is_cut(self.from, to) {
                return Err(failed("cut"));
            }
            let voter = self.links.voters.read().get(&to).and_then(Weak::upgrade);
            let Some(voter) = voter else { return Err(failed("refused")) };
            let is_vote = matches!(Message::decode(message.clone()), Ok((_, Message::Vote(_))));
            let answer = voter.receive(message).await;
            if is_vote {
                let delay = *self.links.vote_delay.read();
                tokio::time::sleep(delay).await;
            }
            if is_cut(to, self.from) { Err(failed("cut")) } else { Ok(answer) }
        })
    }

    /// The port is the voter's id.
    fn send_to(
        &self,
        address: Address,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        self.send(BrokerId(i32::from(address.1)), message)
    }
}

/// What is published and who led, over all voters and their lives.
#[derive(Default)]
pub(super) struct History {
    images: Mutex<BTreeMap<Offset, String>>,
    leaders: Mutex<BTreeMap<LeaderEpoch, BrokerId>>,
}

impl History {
    fn publish(&self, image: &Image) {
        let text = format!("{:?}", image.to_records());
        let mut images = self.images.lock();
        let before = images.entry(image.offset).or_insert_with(|| text.clone());
        assert_eq!(*before, text, "Images differ at offset {}", image.offset);
    }

    fn lead(&self, epoch: LeaderEpoch, voter: BrokerId) {
        let before = *self.leaders.lock().entry(epoch).or_insert(voter);
        assert_eq!(before, voter, "two leaders in epoch {epoch}");
    }
}

/// One voter's process.
pub(super) struct Voter {
    pub node: Arc<MetadataNode>,
    pub image: Arc<ArcSwap<Image>>,
}

/// All voters.
pub(super) struct World {
    pub links: Arc<Links>,
    pub history: Arc<History>,
    pub disks: BTreeMap<BrokerId, SimDisk>,
    pub voters: BTreeMap<BrokerId, Voter>,
    /// Users whose quota was acknowledged.
    pub acknowledged: BTreeSet<String>,
    pub rng: Rng,
    pub snapshot_bytes: u64,
    /// The shortest silence of a leader that voters wait for.
    pub election_timeout: Duration,
    /// How long voters keep to a leader.
    pub lease: Duration,
    /// Nothing may take longer.
    pub patience: Duration,
    /// How long a message may take.
    pub request_timeout: Duration,
    /// With whom the quorum begins whose voters can be changed; all by configuration otherwise.
    pub first: Option<BrokerId>,
    /// Directories of nodes that have another disk than they began with.
    pub directories: BTreeMap<BrokerId, u128>,
    written: u64,
}

impl World {
    /// Voters 1 to `count`, which have not started.
    pub fn new(count: i32, seed: u64) -> World {
        let ids = (1..=count).map(BrokerId);
        World {
            links: Arc::default(),
            history: Arc::default(),
            disks: ids.map(|id| (id, SimDisk::new(seed * 100 + id.0 as u64))).collect(),
            voters: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            rng: Rng::new(seed),
            snapshot_bytes: u64::MAX,
            election_timeout: Duration::from_millis(200),
            lease: Duration::from_millis(100),
            patience: Duration::from_secs(60),
            request_timeout: Duration::from_millis(300),
            first: None,
            directories: BTreeMap::new(),
            written: 0,
        }
    }

    pub async fn start_all(&mut self) {
        for id in self.ids() {
            self.start(id).await;
        }
    }

    pub fn ids(&self) -> Vec<BrokerId> {
        self.disks.keys().copied().collect()
    }

    fn params(&self, id: BrokerId) -> QuorumParams {
        QuorumParams {
            disk: Arc::new(self.disks[&id].clone()),
            dir: Path::new("/metadata").to_owned(),
            own: if self.first.is_some() { self.voter(id) } else { voter_set::Voter::fixed(id) },
            voters: match self.first {
                Some(_) => VoterSet::default(),
                None => VoterSet::fixed(self.ids()),
            },
            bootstrap: Bootstrap::fixed(self.ids().into_iter().map(address).collect()),
            addresses: ControllerAddresses::default(),
            snapshot_bytes: self.snapshot_bytes,
            timing: QuorumTiming {
                heartbeat: Duration::from_millis(20),
                lease: self.lease,
                election_timeout_min: self.election_timeout,
                election_timeout_max: self.election_timeout * 2,
                request_timeout: self.request_timeout,
            },
            ..quorum_params(&settings(&[]))
        }
    }

    /// Starts a voter's process.
    pub async fn start(&mut self, id: BrokerId) {
        self.disks[&id].create_dir_durably(Path::new("/metadata")).unwrap();
        let params = self.params(id);
        if self.first == Some(id) {
            let (disk, dir) = (params.disk.as_ref(), &params.dir);
            write_first_voters(disk, dir, [voter(id)], Timestamp(1)).unwrap();
        }
        let (clock, settings) = (Arc::clone(&params.clock), params.controller.clone());
        let quorum = Arc::new(Quorum::open(params).unwrap());
        let image = Arc::new(ArcSwap::from_pointee(Image::default()));
        self.links.voters.write().insert(id, Arc::downgrade(&quorum));
        let history = Arc::clone(&self.history);
        let metadata = MetadataParams {
            node_id: id,
            transport: Arc::new(Link { from: id, links: Arc::clone(&self.links) }),
            publish: Box::new(move |_, new| history.publish(new)),
            image: Arc::clone(&image),
            clock,
            settings,
            formatted: None,
        };
        let node = MetadataNode::start(Source::Quorum(quorum), metadata).await.unwrap();
        node.begin();
        self.voters.insert(id, Voter { node, image });
    }

    /// A node as it says itself, with the disk that it has now.
    pub fn voter(&self, id: BrokerId) -> voter_set::Voter {
        let voter = voter(id);
        let other = self.directories.get(&id).map(|id| Uuid::from_u128(*id));
        voter_set::Voter { directory_id: other.unwrap_or(voter.directory_id), ..voter }
    }

    /// Tries to give a node a vote, or to take it, at whoever leads; answers whether it was done.
    pub async fn change(&self, id: BrokerId) -> bool {
        for node in self.voters.values() {
            let quorum = node.node.quorum().unwrap();
            if quorum.leading().is_none() {
                continue;
            }
            let limit = Duration::from_secs(1);
            let done = match quorum.voters().get(id) {
                Some(voter) => quorum.remove_voter(id, voter.directory_id).await,
                None => quorum.add_voter(self.voter(id), Answered::Committed, limit).await,
            };
            if done.is_ok() {
                return true;
            }
        }
        false
    }

    /// Gives a node a vote.
    pub async fn add(&self, id: BrokerId) {
        let begin = Instant::now();
        while !self.change(id).await {
            assert!(begin.elapsed() < self.patience, "{id} gets no vote");
        }
    }

    /// Ends a voter's process at whatever it does just now; the disk is ready for the next one.
    pub async fn crash(&mut self, id: BrokerId, crash: Crash) {
        let disk = self.disks[&id].clone();
        disk.end_after(0);
        if let Some(voter) = self.voters.remove(&id) {
            self.links.voters.write().remove(&id);
            // Nothing goes to the disk any more, which closing tells.
            let _ = voter.node.close().await;
        }
        disk.crash(crash);
    }

    /// Cuts a voter off from all others, in both directions, or joins it again.
    pub fn isolate(&self, id: BrokerId, is_cut: bool) {
        let mut cut = self.links.cut.write();
        for other in self.ids() {
            for way in [(id, other), (other, id)] {
                if is_cut {
                    cut.insert(way)
                } else {
                    cut.remove(&way)
                };
            }
        }
    }

    /// Whether a voter is the active controller.
    pub fn is_active(&self, id: BrokerId) -> bool {
        matches!(&*self.voters[&id].node.active().borrow(), Active::Here(_))
    }

    /// Waits until something holds.
    pub async fn until(&self, holds: impl Fn(&World) -> bool) {
        let begin = Instant::now();
        while !holds(self) {
            assert!(begin.elapsed() < self.patience, "it never held");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The voter that is the active controller of the newest epoch, once there is one.
    pub async fn leader(&self) -> BrokerId {
        let begin = Instant::now();
        loop {
            let mut best = None;
            for (id, voter) in &self.voters {
                if let Active::Here(active) = &*voter.node.active().borrow() {
                    self.history.lead(active.stage().epoch(), *id);
                    best = best.max(Some((active.stage().epoch(), *id)));
                }
            }
            if let Some((_, id)) = best {
                return id;
            }
            assert!(begin.elapsed() < self.patience, "nobody was elected");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Tries to write one quota at the leader; notes it where it is acknowledged.
    pub async fn write_at(&mut self, id: BrokerId) -> Result<(), HostError> {
        self.written += 1;
        let user = format!("u{}", self.written);
        let entity = EntityData { entity_type: "user".to_owned(), entity_name: Some(user.clone()) };
        let op = OpData { key: "consumer_byte_rate".to_owned(), value: 1.0, remove: false };
        let entries = vec![EntryData { entity: vec![entity], ops: vec![op] }];
        let request = AlterClientQuotasRequest { entries, validate_only: false };
        let request = ControllerRequest::AlterClientQuotas(request);
        let node = Arc::clone(&self.voters[&id].node);
        let call = tokio::time::timeout(Duration::from_secs(2), call_at(&node, request)).await;
        let reply = call.unwrap_or(Err(HostError::NotActive))?;
        let ControllerReply::AlterClientQuotas(reply) = reply else { panic!("{reply:?}") };
        assert!(reply.entries.iter().all(|entry| entry.error_code == 0), "{reply:?}");
        self.acknowledged.insert(user);
        Ok(())
    }

    /// Writes `count` quotas that are acknowledged, at whoever leads.
    pub async fn write(&mut self, count: usize) {
        let begin = Instant::now();
        let mut done = 0;
        while done < count {
            let leader = self.leader().await;
            done += usize::from(self.write_at(leader).await.is_ok());
            assert!(begin.elapsed() < self.patience, "no quorum takes records");
        }
    }

    /// Waits until all voters stand where the leader does, then checks what must hold.
    pub async fn settle(&mut self) {
        self.write(1).await;
        let begin = Instant::now();
        loop {
            let ends: BTreeSet<(Offset, Offset)> = self
                .voters
                .values()
                .map(|voter| (voter.node.quorum().unwrap().committed(), voter.image.load().offset))
                .collect();
            if ends.len() == 1 && self.voters.len() == self.disks.len() {
                break;
            }
            let status: Vec<_> =
                self.voters.values().map(|voter| voter.node.quorum().unwrap().status()).collect();
            assert!(begin.elapsed() < self.patience, "voters do not catch up: {ends:?} {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.check();
    }

    fn check(&self) {
        let mut logs = BTreeMap::new();
        for (id, voter) in &self.voters {
            let image = voter.image.load();
            let records = format!("{:?}", image.to_records());
            for user in &self.acknowledged {
                assert!(records.contains(&format!("\"{user}\"")), "{user} is lost at voter {id}");
            }
            for (offset, batch) in batches_of(voter.node.quorum().unwrap()) {
                let before = logs.entry(offset).or_insert_with(|| batch.clone());
                assert_eq!(*before, batch, "voter {id} at offset {offset}");
            }
        }
    }

    /// Ends all voters in order.
    pub async fn stop(&mut self) {
        for (id, voter) in std::mem::take(&mut self.voters) {
            assert_eq!(voter.node.quorum().unwrap().failure(), None, "voter {id}");
            voter.node.close().await.unwrap();
        }
    }
}

/// Where a voter is.
fn address(id: BrokerId) -> Address {
    ("sim".to_owned(), u16::try_from(id.0).unwrap())
}

fn voter(id: BrokerId) -> voter_set::Voter {
    let endpoint = VoterEndpoint { name: "CONTROLLER".to_owned(), address: address(id) };
    voter_set::Voter {
        id,
        directory_id: Uuid::from_u128(u128::from(id.0.unsigned_abs())),
        endpoints: vec![endpoint],
        kraft_versions: (0, 1),
    }
}

/// The committed batches that are in the log, by base offset.
fn batches_of(quorum: &Quorum) -> BTreeMap<Offset, Bytes> {
    let mut found = BTreeMap::new();
    let (_, last) = quorum.shared.log.log_ids();
    let (purged, _) = quorum.shared.log.log_ids();
    let first = purged.map_or(0, |purged| purged.index + 1);
    let end = last.map_or(0, |last| last.index + 1);
    for entry in quorum.shared.log.entries(first, end, usize::MAX).unwrap() {
        let types::Payload::Batch(batch) = entry.payload else { panic!("no batch") };
        if batch.header.next_offset() <= quorum.committed() {
            found.insert(batch.header.base_offset, batch.bytes);
        }
    }
    found
}

/// Puts a request to the controller of one node.
async fn call_at(
    node: &MetadataNode,
    request: ControllerRequest,
) -> Result<ControllerReply, HostError> {
    let active = node.active().borrow().clone();
    match active {
        Active::Here(host) => host.call(request).await,
        _ => Err(HostError::NotActive),
    }
}
