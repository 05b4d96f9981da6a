//! Three brokers' replicas of one partition over simulated disks, joined by messages that a seed delays, reorders
//! between connections and loses; a controller played by the rules that elects cleanly. What must hold is looked at
//! after every step. A [`Mutation`] breaks one rule, so that it is known that the look would see it.
//!
//! Deliberately not here: the fetchers' loops, which have tests of their own, and time-outs of the network.

#[cfg(test)]
mod tests;

use super::{
    Acks, Fetched, FollowerError, IsolationLevel, LogPosition, Partition, PartitionParams,
};
use super::{ReadParams, Truncation};
use crate::broker::fixture::{log_params, partition_params, read_params};
use crate::broker::isr::IsrChanges;
use crate::env::Clock;
use crate::env::rng::Rng;
use crate::env::sim_disk::{Crash, SimDisk};
use crate::log::{AppendOrigin, LogConfig, LogParams};
use crate::machines::replica::{
    Eligibility, FollowerFetch, IsrAnswer, IsrChange, Leadership, ReplicaSettings,
};
use bytes::Bytes;
use ottla_protocol::record::{BatchBuilder, BatchParams, decode_records};
use ottla_protocol::{BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, Offset, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const NODES: [i32; 3] = [1, 2, 3];
const LAG_MAX_MS: i64 = 1000;
const MIN_ISR: usize = 2;

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    /// The controller elects a replica that is not in the ISR.
    ElectsAnyReplica,
    /// Followers do not tell the epoch of their last record, so nobody notices that logs differ.
    HidesEpochs,
    /// A leader that starts anew keeps its epoch.
    KeepsEpochOfRestart,
    /// The controller names a new leader in the old epoch.
    KeepsEpochOfElection,
}

#[derive(Debug, Default)]
struct SimClock(AtomicI64);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// What the controller has decided.
#[derive(Debug, Clone)]
struct Metadata {
    leader: BrokerId,
    leader_epoch: LeaderEpoch,
    partition_epoch: i32,
    isr: Vec<BrokerId>,
    alive: BTreeMap<BrokerId, BrokerEpoch>,
}

struct Node {
    disk: SimDisk,
    partition: Option<Arc<Partition>>,
    isr_changes: Arc<IsrChanges>,
    metadata: Metadata,
    broker_epoch: BrokerEpoch,
    /// What its checkpoints say.
    recovery_point: Offset,
    high_watermark: Offset,
    log_start_offset: Offset,
    is_cut_off: bool,
}

#[derive(Debug, Clone)]
enum Message {
    Fetch {
        lane: u8,
        leader_epoch: LeaderEpoch,
        fetch: FollowerFetch,
        last_epoch: (LeaderEpoch, LeaderEpoch),
    },
    Fetched {
        lane: u8,
        fetched: Fetched,
        cut: Option<Truncation>,
    },
    Refused {
        lane: u8,
    },
    Isr(IsrChange),
    IsrAnswer(IsrChange, IsrAnswer),
    Image(Box<Metadata>),
}

const CONTROLLER: BrokerId = BrokerId(0);

struct Envelope {
    from: BrokerId,
    to: BrokerId,
    message: Message,
}

impl Envelope {
    /// Messages of one connection keep their order.
    fn connection(&self) -> (BrokerId, BrokerId, u8) {
        let lane = match &self.message {
            Message::Fetch { lane, .. }
            | Message::Fetched { lane, .. }
            | Message::Refused { lane } => *lane,
            Message::Isr(_) | Message::IsrAnswer(..) => 10,
            Message::Image(_) => 11,
        };
        (self.from, self.to, lane)
    }
}

/// A record that waits for its acknowledgement.
struct Waiting {
    node: BrokerId,
    offset: Offset,
    leader_epoch: LeaderEpoch,
    value: u64,
}

struct World {
    rng: Rng,
    mutation: Mutation,
    clock: Arc<SimClock>,
    config: LogConfig,
    metadata: Metadata,
    nodes: BTreeMap<BrokerId, Node>,
    network: Vec<Envelope>,
    /// Fetches under way, by follower and lane.
    fetching: BTreeSet<(BrokerId, u8)>,
    waiting: Vec<Waiting>,
    acknowledged: BTreeMap<Offset, u64>,
    /// Below it records were deleted on purpose.
    deleted_to: Offset,
    leaders: BTreeMap<LeaderEpoch, BrokerId>,
    high_watermarks: BTreeMap<(BrokerId, LeaderEpoch), Offset>,
    next_value: u64,
    next_broker_epoch: i64,
    /// What happened, for a seed that fails.
    trace: Vec<String>,
}

type Check = Result<(), String>;

impl World {
    fn new(seed: u64, mutation: Mutation) -> World {
        let mut rng = Rng::new(seed);
        let ids: Vec<BrokerId> = NODES.iter().copied().map(BrokerId).collect();
        let alive = ids.iter().map(|id| (*id, BrokerEpoch(i64::from(id.0)))).collect();
        let metadata = Metadata {
            leader: BrokerId(1),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            isr: ids.clone(),
            alive,
        };
        let config = LogConfig {
            segment_bytes: 600,
            index_interval_bytes: 100,
            sync_before_commit: rng.one_in(4),
            ..LogConfig::default()
        };
        let clock = Arc::new(SimClock(AtomicI64::new(1_000_000)));
        let mut world = World {
            mutation,
            clock,
            config,
            metadata,
            nodes: BTreeMap::new(),
            network: Vec::new(),
            fetching: BTreeSet::new(),
            waiting: Vec::new(),
            acknowledged: BTreeMap::new(),
            deleted_to: Offset(0),
            leaders: BTreeMap::new(),
            high_watermarks: BTreeMap::new(),
            next_value: 1,
            next_broker_epoch: 100,
            trace: Vec::new(),
            rng,
        };
        for id in ids {
            let node = Node {
                disk: SimDisk::new(world.rng.next()),
                partition: None,
                isr_changes: Arc::default(),
                metadata: world.metadata.clone(),
                broker_epoch: BrokerEpoch(i64::from(id.0)),
                recovery_point: Offset(0),
                high_watermark: Offset(0),
                log_start_offset: Offset(0),
                is_cut_off: false,
            };
            world.nodes.insert(id, node);
            world.open(id);
        }
        world
    }

    fn open(&mut self, id: BrokerId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let log = LogParams {
            disk: Arc::new(node.disk.clone()),
            config: Arc::new(self.config.clone()),
            log_start_offset: node.log_start_offset,
            recovery_point: node.recovery_point,
            now: self.clock.now(),
            ..log_params(Path::new("/data"), 0)
        };
        node.isr_changes = Arc::default();
        node.partition = Some(Partition::new(PartitionParams {
            replica: ReplicaSettings {
                broker_id: id,
                lag_time_max_ms: LAG_MAX_MS,
                min_insync_replicas: MIN_ISR,
            },
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            high_watermark: node.high_watermark,
            isr_changes: Arc::clone(&node.isr_changes),
            ..partition_params(id, log)
        }));
        self.apply(id).expect("the first image");
    }

    fn node(&mut self, id: BrokerId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node")
    }

    fn partition(&self, id: BrokerId) -> Option<Arc<Partition>> {
        self.nodes[&id].partition.clone()
    }

    /// Makes the replica what the node's metadata says, as the publisher does.
    fn apply(&mut self, id: BrokerId) -> Check {
        let Some(partition) = self.partition(id) else { return Ok(()) };
        let metadata = self.nodes[&id].metadata.clone();
        if metadata.leader != id {
            partition.follow(metadata.leader, metadata.leader_epoch, metadata.partition_epoch);
            return Ok(());
        }
        let led = partition.lead(Leadership {
            leader_epoch: metadata.leader_epoch,
            partition_epoch: metadata.partition_epoch,
            isr: metadata.isr.clone(),
            replicas: NODES.iter().copied().map(BrokerId).collect(),
            metadata_offset: Offset(0),
        });
        led.map_err(|error| format!("{id} cannot lead: {error}"))?;
        if metadata.leader_epoch == self.metadata.leader_epoch && self.metadata.leader == id {
            self.check_acknowledged(id)?;
        }
        Ok(())
    }

    /// Records by offset, with the epochs of their batches.
    fn records(&self, id: BrokerId) -> BTreeMap<Offset, (LeaderEpoch, Bytes)> {
        let mut records = BTreeMap::new();
        let Some(partition) = self.partition(id) else { return records };
        let replayed = partition.replay(|header, batch| {
            for record in decode_records(header, batch, 1 << 20).expect("records") {
                let value = record.value.clone().unwrap_or_default();
                records.insert(record.offset(header), (header.leader_epoch, value));
            }
            Ok(())
        });
        replayed.expect("a log that can be read");
        records
    }

    fn run(&mut self, steps: usize) -> Check {
        for n in 0..steps {
            self.step()?;
            self.note(n);
            self.look()?;
        }
        self.heal()
    }

    fn step(&mut self) -> Check {
        self.clock.0.fetch_add(self.rng.below(60) as i64, Ordering::Relaxed);
        let id = BrokerId(NODES[self.rng.below(NODES.len())]);
        match self.rng.below(100) {
            0..14 => self.produce(id),
            14..36 => self.fetch(id),
            36..80 => return self.deliver(),
            80..86 => self.ask_for_isr(id),
            86..89 => {
                if let Some(partition) = self.partition(id) {
                    partition.check_isr();
                }
            }
            89 => self.elect_any_of_isr(),
            90 => self.crash(id, Crash::PowerLoss),
            91 => self.crash(id, Crash::Kill),
            92..95 => return self.restart(id),
            95 => self.cut_off(id),
            96 => self.reconnect(id),
            97 => self.checkpoint(id),
            98 => self.flush(id),
            _ => self.delete_records(id),
        }
        Ok(())
    }

    /// Writes down where every replica stands.
    fn note(&mut self, step: usize) {
        let mut line = format!("step {step}:");
        for (id, node) in &self.nodes {
            let Some(it) = &node.partition else { continue };
            let role = if it.is_leader() { "leads" } else { "follows" };
            let (epoch, start) = (it.leader_epoch(), it.log_start_offset());
            let (high, end) = (it.high_watermark(), it.log_end_offset());
            line += &format!(" [{id} {role} in {epoch}: {start} {high} {end}]");
        }
        if self
            .trace
            .last()
            .is_none_or(|last| !last.ends_with(&line[line.find(':').unwrap_or(0)..]))
        {
            self.trace.push(line);
        }
    }

    fn produce(&mut self, id: BrokerId) {
        let Some(partition) = self.partition(id) else { return };
        let value = self.next_value;
        self.next_value += 1;
        let mut batch = BatchBuilder::new(BatchParams::default());
        batch.push(self.clock.now(), None, Some(&value.to_be_bytes()), &[]);
        if let Ok(info) = partition.append(batch.build().freeze(), -1, AppendOrigin::Client) {
            let (offset, leader_epoch) = (info.first_offset, info.leader_epoch);
            self.waiting.push(Waiting { node: id, offset, leader_epoch, value });
        }
    }

    fn fetch(&mut self, id: BrokerId) {
        let lane = u8::from(self.rng.one_in(4));
        let node = &self.nodes[&id];
        let metadata = node.metadata.clone();
        let Some(partition) = &node.partition else { return };
        let Some(state) = partition.fetch_state(metadata.leader_epoch) else { return };
        if metadata.leader == BrokerId::NONE || !self.fetching.insert((id, lane)) {
            return;
        }
        let last_epoch = match self.mutation {
            Mutation::HidesEpochs => LeaderEpoch::UNKNOWN,
            _ => state.position.last_epoch,
        };
        let fetch = FollowerFetch {
            replica: id,
            broker_epoch: node.broker_epoch,
            eligibility: Eligibility::Ineligible,
            metadata_offset: Offset(0),
            fetch_offset: state.position.end,
            log_start_offset: state.log_start_offset,
        };
        let leader_epoch = metadata.leader_epoch;
        let last_epoch = (last_epoch, state.position.last_epoch);
        let message = Message::Fetch { lane, leader_epoch, fetch, last_epoch };
        self.send(id, metadata.leader, message);
    }

    fn send(&mut self, from: BrokerId, to: BrokerId, message: Message) {
        self.network.push(Envelope { from, to, message });
    }

    fn is_reachable(&self, id: BrokerId) -> bool {
        id == CONTROLLER
            || self.nodes.get(&id).is_some_and(|node| !node.is_cut_off && node.partition.is_some())
    }

    /// Delivers any message that is the first of its connection.
    fn deliver(&mut self) -> Check {
        if self.network.is_empty() {
            return Ok(());
        }
        let picked = self.rng.below(self.network.len());
        let connection = self.network[picked].connection();
        let first = self.network.iter().position(|it| it.connection() == connection);
        let Envelope { from, to, message } = self.network.remove(first.unwrap_or(picked));
        if !self.is_reachable(from) || !self.is_reachable(to) {
            // The connection breaks; an Image is read again once the node is back.
            if let Message::Fetch { lane, .. } = message {
                self.fetching.remove(&(from, lane));
            }
            if let Message::Fetched { lane, .. } | Message::Refused { lane } = message {
                self.fetching.remove(&(to, lane));
            }
            return Ok(());
        }
        self.trace.push(format!("{from} -> {to}: {message:?}"));
        match message {
            Message::Fetch { lane, leader_epoch, fetch, last_epoch } => {
                let answer = self.serve(to, lane, leader_epoch, fetch, last_epoch);
                self.send(to, from, answer);
            }
            Message::Fetched { lane, fetched, cut } => {
                self.fetching.remove(&(to, lane));
                return self.take_fetched(to, fetched, cut);
            }
            Message::Refused { lane } => {
                self.fetching.remove(&(to, lane));
            }
            Message::Isr(change) => self.control(from, change),
            Message::IsrAnswer(change, answer) => {
                if let Some(partition) = self.partition(to) {
                    partition.isr_answered(change, answer);
                }
            }
            Message::Image(metadata) => {
                self.node(to).metadata = *metadata;
                return self.apply(to);
            }
        }
        Ok(())
    }

    /// Answers a fetch as the handler does.
    fn serve(
        &mut self,
        id: BrokerId,
        lane: u8,
        leader_epoch: LeaderEpoch,
        fetch: FollowerFetch,
        last_epoch: (LeaderEpoch, LeaderEpoch),
    ) -> Message {
        let known = self.nodes[&id].metadata.alive.get(&fetch.replica).copied();
        let eligibility = match known == Some(fetch.broker_epoch) {
            true => Eligibility::Eligible,
            false => Eligibility::Ineligible,
        };
        let Some(partition) = self.partition(id) else { return Message::Refused { lane } };
        let read = partition.read(ReadParams {
            max_bytes: 1 + self.rng.below(400),
            isolation: IsolationLevel::LogEnd,
            current_leader_epoch: leader_epoch,
            last_fetched_epoch: last_epoch.0,
            follower: Some(FollowerFetch { eligibility, ..fetch }),
            ..read_params(fetch.fetch_offset)
        });
        let position = LogPosition { end: fetch.fetch_offset, last_epoch: last_epoch.1 };
        let fetched = |records, high_watermark, log_start_offset| Fetched {
            leader_epoch,
            position,
            records,
            high_watermark,
            log_start_offset,
        };
        match read {
            Ok(read) => {
                let records = read.slice.map(|slice| slice.to_bytes().expect("a slice"));
                let cut = read
                    .diverging
                    .map(|(epoch, end_offset)| Truncation::Diverging { epoch, end_offset });
                let records = records.unwrap_or_default();
                let fetched = fetched(records, read.high_watermark, read.log_start_offset);
                Message::Fetched { lane, fetched, cut }
            }
            Err(ErrorCode::OffsetOutOfRange) => {
                let (start, end) = (partition.log_start_offset(), partition.log_end_offset());
                let cut = match (end < fetch.fetch_offset, start > fetch.fetch_offset) {
                    (true, _) => Truncation::To(end),
                    (_, true) => Truncation::StartAt(start),
                    _ => return Message::Refused { lane },
                };
                let fetched = fetched(Bytes::new(), Offset(0), Offset(0));
                Message::Fetched { lane, fetched, cut: Some(cut) }
            }
            Err(_) => Message::Refused { lane },
        }
    }

    fn take_fetched(&mut self, id: BrokerId, fetched: Fetched, cut: Option<Truncation>) -> Check {
        let Some(partition) = self.partition(id) else { return Ok(()) };
        let is_stale = partition
            .fetch_state(fetched.leader_epoch)
            .is_none_or(|state| state.position != fetched.position);
        if is_stale {
            return Ok(());
        }
        let position = fetched.position;
        let result = match cut {
            Some(cut) => partition.truncate(fetched.leader_epoch, position, cut).map(|guard| {
                self.checkpoint(id);
                drop(guard);
            }),
            None => match partition.take_fetched(fetched.clone()) {
                Err(FollowerError::StartsWithin(first)) => {
                    let cut = Truncation::StartAt(first);
                    let empty = LogPosition { end: first, last_epoch: LeaderEpoch::UNKNOWN };
                    let again = Fetched { position: empty, ..fetched.clone() };
                    let cut = partition.truncate(fetched.leader_epoch, position, cut);
                    let restarted = cut.map(|guard| {
                        self.checkpoint(id);
                        drop(guard);
                    });
                    restarted.and_then(|()| partition.take_fetched(again).map(drop))
                }
                taken => taken.map(drop),
            },
        };
        match result {
            Ok(()) | Err(FollowerError::Stale) => Ok(()),
            Err(error) => Err(format!("{id} cannot take what its leader sent: {error}")),
        }
    }

    fn ask_for_isr(&mut self, id: BrokerId) {
        for (_, change) in self.nodes[&id].isr_changes.take() {
            self.send(id, CONTROLLER, Message::Isr(change));
        }
    }

    /// Decides on a change as the controller does.
    fn control(&mut self, from: BrokerId, change: IsrChange) {
        let metadata = &mut self.metadata;
        if metadata.leader != from
            || metadata.leader_epoch != change.leader_epoch
            || metadata.partition_epoch != change.partition_epoch
        {
            return;
        }
        let is_eligible = change.isr.iter().all(|member| {
            let alive = metadata.alive.get(&member.id);
            alive.is_some_and(|alive| member.broker_epoch.0 == -1 || *alive == member.broker_epoch)
        });
        if !is_eligible {
            let answer = Message::IsrAnswer(change, IsrAnswer::Rejected);
            return self.send(CONTROLLER, from, answer);
        }
        metadata.isr = change.isr.iter().map(|member| member.id).collect();
        metadata.partition_epoch += 1;
        let answer = IsrAnswer::Committed {
            leader_epoch: metadata.leader_epoch,
            partition_epoch: metadata.partition_epoch,
            isr: metadata.isr.clone(),
        };
        self.send(CONTROLLER, from, Message::IsrAnswer(change, answer));
        self.publish();
    }

    fn publish(&mut self) {
        for id in NODES.map(BrokerId) {
            if self.is_reachable(id) {
                self.send(CONTROLLER, id, Message::Image(Box::new(self.metadata.clone())));
            }
        }
    }
}

mod nemesis;
