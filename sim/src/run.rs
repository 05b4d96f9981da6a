//! One seed: a cluster begins, clients work while things go wrong, all is mended, and everything is looked at.

use crate::checks::{Check, Checker, Checks, Violation, check_positions, replicas};
use crate::history::{History, Place};
use crate::mutation::Mutation;
use crate::nemesis::Nemesis;
use crate::node::{self, CLIENT_PORT, CONTROLLER_PORT, Role};
use crate::plan::{Durability, Layout, Plan};
use crate::workload::{Consumer, Producer, Shared, churn_topics, create_topics};
use crate::world::World;
use ottla::broker::Image;
use ottla::broker::image::numbers;
use ottla::env::sim_disk::SimDisk;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The cluster must be there within so many milliseconds,
const BEGIN_MS_MAX: u64 = 30_000;
/// and be whole again so long after the last fault.
const HEAL_MS_MAX: u64 = 60_000;
/// How often the cheap checks look, in milliseconds.
const LOOK_MS: u64 = 10;
/// How often the logs are looked at.
const LOOK_AT_LOGS_MS: u64 = 250;

/// Panics in tasks of the brokers, which the runtime catches.
pub(crate) static PANICS: AtomicUsize = AtomicUsize::new(0);

/// What a seed came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Check,
    /// The same for the same seed.
    pub(crate) hash: u64,
    pub(crate) summary: String,
}

struct Run {
    plan: Plan,
    world: World,
    checks: Checks,
    history: Arc<Mutex<History>>,
    shared: Shared,
    looked_at: u64,
    logs_looked_at: u64,
    /// The metadata that the trace has shown.
    shown: Arc<Image>,
}

/// Runs one seed.
pub(crate) fn run(plan: &Plan, only: Option<Checker>, is_shown: bool) -> Outcome {
    let mut run = Run::new(plan, is_shown);
    run.checks.only = only;
    let result = run.go();
    if let Err(cause) = &result {
        run.world.note(|| format!("VIOLATION {cause}"));
        if is_shown {
            show_logs(&run.world);
        }
    }
    run.outcome(result)
}

impl Run {
    fn new(plan: &Plan, is_shown: bool) -> Run {
        let mut world = World::new(plan.seed, roles(plan));
        world.trace.is_shown = is_shown;
        world.note(|| format!("{plan:?}"));
        let brokers = world.machines.iter().filter(|machine| machine.role.is_broker);
        let bootstrap = brokers.map(|machine| (machine.role.host.clone(), CLIENT_PORT)).collect();
        let history = Arc::<Mutex<History>>::default();
        let shared = Shared {
            history: Arc::clone(&history),
            bootstrap,
            seed: plan.seed,
            clock: world.clock(),
        };
        Run {
            plan: plan.clone(),
            world,
            checks: Checks::default(),
            history,
            shared,
            looked_at: 0,
            logs_looked_at: 0,
            shown: Arc::default(),
        }
    }

    fn go(&mut self) -> Check {
        let created = Arc::new(Mutex::new(false));
        let creating = create_topics(self.shared.clone(), self.plan.clone(), Arc::clone(&created));
        self.world.spawn_client(creating);
        for machine in &self.world.machines {
            break_disk(self.plan.mutation, &machine.disk);
            let goes_back = self.plan.mutation == Some(Mutation::HighWatermarkGoesBack);
            machine.host.set_high_watermark_goes_back(goes_back);
        }
        self.until("the topics are there", BEGIN_MS_MAX, |run| {
            *created.lock() && is_whole(&run.world, &run.plan)
        })?;
        self.start_clients();
        let begin = self.world.now_ms();
        let mut nemesis = Nemesis::new(&self.plan, begin);
        while self.world.now_ms() < begin + self.plan.chaos_ms {
            nemesis.act(&mut self.world);
            self.step()?;
        }
        nemesis.heal(&mut self.world);
        self.heal()?;
        let history = Arc::clone(&self.history);
        self.world.note(|| "all is whole".to_owned());
        history.lock().is_over = true;
        self.until("the fate of all records is known", HEAL_MS_MAX, |run| {
            run.history.lock().unresolved == 0
        })?;
        self.until("all replicas have caught up", HEAL_MS_MAX, |run| has_caught_up(&run.world))?;
        self.world.spawn_client(check_positions(self.shared.clone()));
        self.until("all positions are known", HEAL_MS_MAX, |run| {
            run.history.lock().are_positions_checked
        })?;
        history.lock().is_done = true;
        self.checks.finish(&self.world, &history.lock())
    }

    fn start_clients(&self) {
        if self.plan.churns {
            self.world.spawn_client(churn_topics(self.shared.clone()));
        }
        let mut number = 0;
        for place in self.plan.places() {
            for _ in 0..self.plan.producers {
                number += 1;
                let shared = self.shared.clone();
                let (place, pause_ms) = (place.clone(), self.plan.pause_ms);
                let producer = Producer { shared, place, number, pause_ms };
                self.world.spawn_client(producer.run());
            }
            number += 1;
            let (shared, group) = (self.shared.clone(), format!("g{}", place.1 % 2));
            let consumer = Consumer { shared, place, group, number };
            self.world.spawn_client(consumer.run());
        }
    }

    /// Waits until all replicas are in sync and every partition has taken records again.
    fn heal(&mut self) -> Check {
        self.until("all in-sync replicas are whole again", HEAL_MS_MAX, |run| {
            is_whole(&run.world, &run.plan)
        })?;
        let before: BTreeMap<Place, usize> = {
            let history = self.history.lock();
            let places = self.plan.places().into_iter();
            places.map(|it| (it.clone(), history.acknowledged_in(&it))).collect()
        };
        self.until("every partition takes records again", HEAL_MS_MAX, |run| {
            let history = run.history.lock();
            before.iter().all(|(place, before)| history.acknowledged_in(place) > *before)
        })
    }

    fn until(&mut self, what: &str, ms_max: u64, holds: impl Fn(&Run) -> bool) -> Check {
        let deadline = self.world.now_ms() + ms_max;
        let mut looked_at = 0;
        loop {
            if self.world.now_ms() >= looked_at + LOOK_MS {
                looked_at = self.world.now_ms();
                if holds(self) {
                    return Ok(());
                }
            }
            if self.world.now_ms() > deadline {
                let what = format!("not within {ms_max} ms: {what}; {}", state(&self.world));
                return self.health(what);
            }
            self.step()?;
        }
    }

    fn health(&self, what: String) -> Check {
        match self.checks.is_wanted(Checker::Health) {
            true => Err(Violation { checker: Checker::Health, what }),
            false => Ok(()),
        }
    }

    fn step(&mut self) -> Check {
        self.world.step();
        if PANICS.load(Ordering::Relaxed) > 0 {
            self.health("a task of a broker panicked".to_owned())?;
        }
        let now = self.world.now_ms();
        if now >= self.looked_at + LOOK_MS {
            self.looked_at = now;
            if self.world.trace.is_shown {
                self.show_metadata();
            }
            self.checks.look(&self.world)?;
            self.checks.look_at_clients(&self.history.lock())?;
        }
        if now >= self.logs_looked_at + LOOK_AT_LOGS_MS {
            self.logs_looked_at = now;
            self.checks.look_at_logs(&self.world)?;
        }
        Ok(())
    }

    /// Shows how the newest metadata differs from what was shown before.
    fn show_metadata(&mut self) {
        let brokers = (0..self.world.machines.len()).filter_map(|at| self.world.broker(at));
        let newest = brokers.map(|broker| broker.image()).max_by_key(|image| image.offset);
        let Some(image) = newest.filter(|image| image.offset > self.shown.offset) else { return };
        let (now, before) = (self.world.now_ms(), &self.shown);
        for topic in image.topics.iter() {
            let known = before.topics.get(&topic.name);
            for (index, it) in topic.partitions.iter() {
                if known.and_then(|topic| topic.partition(*index)) != Some(it) {
                    println!(
                        "{now:>7} metadata {}: {}-{index} leader {} epoch {} isr {:?} elr {:?} last known {:?}",
                        image.offset.0,
                        topic.name,
                        it.leader.0,
                        it.leader_epoch.0,
                        numbers(&it.isr),
                        numbers(&it.elr),
                        numbers(&it.last_known_elr)
                    );
                }
            }
        }
        for (id, broker) in &image.cluster.brokers {
            let known = before.cluster.brokers.get(id);
            if known.is_none_or(|it| (it.epoch, it.fenced) != (broker.epoch, broker.fenced)) {
                let (epoch, is_fenced) = (broker.epoch.0, broker.fenced);
                let offset = image.offset.0;
                println!(
                    "{now:>7} metadata {offset}: broker {id} epoch {epoch} fenced {is_fenced}"
                );
            }
        }
        self.shown = image;
    }

    fn outcome(self, result: Check) -> Outcome {
        let mut hasher = DefaultHasher::new();
        let (packets, hash) = self.world.net.history();
        (packets, hash, &self.world.trace.lines).hash(&mut hasher);
        let history = self.history.lock();
        let summary = format!(
            "{} ms, {packets} packets, {} acknowledged, {} read, {} positions, {}",
            self.world.now_ms(),
            history.acknowledged_count(),
            history.records_read,
            history.positions_read,
            self.checks.seen()
        );
        Outcome { result, hash: hasher.finish(), summary }
    }
}

fn break_disk(mutation: Option<Mutation>, disk: &SimDisk) {
    if mutation == Some(Mutation::DisksClaimSyncs) {
        for suffix in [".log", "quorum-state", ".tmp", "/"] {
            disk.ignore_syncs(suffix);
        }
    }
}

/// The nodes of a plan, with their properties.
fn roles(plan: &Plan) -> Vec<(Role, Vec<(String, String)>)> {
    let role = |id: i32, host: String, is_broker, is_controller| Role {
        id,
        host,
        is_broker,
        is_controller,
    };
    let roles: Vec<Role> = match plan.layout {
        Layout::Combined => (1..=3).map(|id| role(id, format!("node{id}"), true, true)).collect(),
        Layout::Separate => {
            let controllers = (1..=3).map(|n| role(100 + n, format!("ctrl{n}"), false, true));
            controllers
                .chain((1..=3).map(|id| role(id, format!("node{id}"), true, false)))
                .collect()
        }
    };
    let controllers = roles.iter().filter(|role| role.is_controller);
    let voters = controllers.map(|role| format!("{}@{}:{CONTROLLER_PORT}", role.id, role.host));
    let voters = voters.collect::<Vec<_>>().join(",");
    let durability = match plan.durability {
        Durability::Fsync => "fsync",
        Durability::PageCache => "page-cache",
    };
    let more = [
        ("ottla.ack.durability", durability.to_owned()),
        ("log.cleaner.enable", "false".to_owned()),
        ("log.preallocate", plan.preallocates.to_string()),
        ("min.insync.replicas", "2".to_owned()),
        ("offsets.topic.num.partitions", "2".to_owned()),
        ("offsets.topic.replication.factor", "3".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("broker.session.timeout.ms", "3000".to_owned()),
        ("broker.heartbeat.interval.ms", "500".to_owned()),
        ("replica.lag.time.max.ms", "2000".to_owned()),
        ("log.flush.offset.checkpoint.interval.ms", "1500".to_owned()),
        ("replica.high.watermark.checkpoint.interval.ms", "700".to_owned()),
        ("metadata.log.max.record.bytes.between.snapshots", plan.snapshot_bytes.to_string()),
    ];
    let forgets = plan.mutation == Some(Mutation::ForgetsProducers);
    let forgetting = [
        ("producer.id.expiration.ms", "1".to_owned()),
        ("producer.id.expiration.check.interval.ms", "1".to_owned()),
    ];
    let more = more.into_iter().chain(forgetting.into_iter().filter(|_| forgets));
    let more: Vec<(&str, String)> = more.collect();
    let with = |role: Role| {
        let mut properties = node::properties(&role, &voters);
        let more = more.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        properties.extend(more);
        (role, properties)
    };
    roles.into_iter().map(with).collect()
}

/// Whether every node has joined and every replica is in sync.
pub(crate) fn is_whole(world: &World, plan: &Plan) -> bool {
    (0..world.machines.len()).all(|machine| {
        let Some(broker) = world.broker(machine) else { return false };
        let image = broker.image();
        let topics = plan.topics.iter();
        world.has_joined(machine)
            && topics.clone().all(|topic| image.topics.get(&topic.name).is_some())
            && image.topics.iter().all(|topic| {
                topic.partitions.values().all(|it| it.isr.len() == 3 && it.has_leader())
            })
    })
}

fn has_caught_up(world: &World) -> bool {
    let replicas = replicas(world);
    let mut ends = BTreeMap::new();
    replicas.iter().all(|it| {
        let (end, committed) = (it.partition.log_end_offset(), it.partition.high_watermark());
        end == committed && *ends.entry(it.place()).or_insert(end) == end
    })
}

/// Shows the end of each replica's log, and what it knows of producers.
fn show_logs(world: &World) {
    const BATCHES_SHOWN: usize = 12;
    for it in replicas(world) {
        let mut lines = Vec::new();
        let replayed = it.partition.replay(|header, _| {
            lines.push(format!(
                "    {}..{} epoch {} producer {} sequence {}",
                header.base_offset.0,
                header.next_offset().0,
                header.leader_epoch.0,
                header.producer_id.0,
                header.base_sequence
            ));
            Ok(())
        });
        let (partition, machine) = (&it.partition, it.machine);
        let (committed, end) = (partition.high_watermark().0, partition.log_end_offset().0);
        println!(
            "{partition:?} on machine {machine}: high watermark {committed}, end {end}, {replayed:?}"
        );
        let first = lines.len().saturating_sub(BATCHES_SHOWN);
        lines.iter().skip(first).for_each(|line| println!("{line}"));
        for known in partition.active_producers().unwrap_or_default() {
            println!("    knows {known:?}");
        }
    }
}

/// What the newest image says of the partitions, for a cluster that does not heal.
fn state(world: &World) -> String {
    let brokers = (0..world.machines.len()).filter_map(|machine| world.broker(machine));
    let newest = brokers.map(|broker| broker.image()).max_by_key(|image| image.offset);
    let Some(image) = newest else { return "no broker has an image".to_owned() };
    let mut lines = vec![format!("metadata offset {}", image.offset.0)];
    for machine in 0..world.machines.len() {
        let id = world.machines[machine].role.id;
        let at = world.broker(machine).map_or(-1, |broker| broker.image().offset.0);
        lines.push(format!("{id}: joined {}, image {at}", world.has_joined(machine)));
    }
    for topic in image.topics.iter() {
        for (index, it) in topic.partitions.iter() {
            if it.isr.len() < 3 || !it.has_leader() {
                let name = &topic.name;
                lines.push(format!("{name}-{index}: leader {:?} isr {:?}", it.leader, it.isr));
            }
        }
    }
    lines.join("; ")
}
