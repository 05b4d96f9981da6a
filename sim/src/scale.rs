//! One large cluster and the death of one broker, measured: what `docs/scale.md` says was seen.
//!
//! Simulated time is that of the network and the disk, and of the brokers' own timers; what the brokers compute takes
//! none of it. What they compute is measured apart, as the CPU time that their machines' turns took.

mod clients;
mod report;

use crate::node::{self, CONTROLLER_PORT, Role};
use crate::world::World;
use clients::{Errand, Place};
use ottla::broker::Image;
use ottla::env::Disk;
use ottla::env::sim_disk::Crash;
use ottla::env::sim_traffic::{RequestKind, Traffic};
use ottla_protocol::BrokerId;
use report::Report;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Voters, on machines of their own, which come first.
const CONTROLLERS: usize = 3;
/// Partitions of a topic, which is created by one request.
const TOPIC_PARTITIONS: usize = 1000;
/// Whatever is waited for is there within so many milliseconds of simulated time.
const PATIENCE_MS: u64 = 120_000;
/// So long nothing is asked of the cluster before its idle traffic is measured,
const SETTLE_MS: u64 = 3000;
/// which takes so long.
const IDLE_MS: u64 = 10_000;
/// Partitions that are written before the death as well, and read at the end.
const READ_MAX: usize = 100;
/// Where a node has the metadata log.
const METADATA_DIR: &str = "/data/__cluster_metadata-0";

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cluster {
    /// Brokers, the last of which dies.
    pub(crate) brokers: usize,
    /// Partitions of three replicas.
    pub(crate) partitions: usize,
    /// How many of them the broker leads that dies.
    pub(crate) leaders: usize,
}

impl Cluster {
    /// The broker that dies.
    fn victim(&self) -> BrokerId {
        BrokerId(self.brokers as i32)
    }

    /// Its machine.
    fn victim_machine(&self) -> usize {
        CONTROLLERS + self.brokers - 1
    }

    /// The replicas of each partition, its leader first. Those of one broker's partitions are spread over all others.
    fn assignments(&self) -> Vec<[i32; 3]> {
        let (brokers, mut others) = (self.brokers, 0);
        let of = |number: usize| {
            // The victim's partitions lie evenly among the others.
            let before = |number: usize| number * self.leaders / self.partitions;
            let leader = if before(number) < before(number + 1) {
                brokers - 1
            } else {
                others += 1;
                (others - 1) % (brokers - 1)
            };
            let second = (leader + 1 + number / brokers % (brokers - 1)) % brokers;
            let next = (second + 1) % brokers;
            let third = if next == leader { (next + 1) % brokers } else { next };
            [leader, second, third].map(|broker| broker as i32 + 1)
        };
        (0..self.partitions).map(of).collect()
    }

    fn roles(&self) -> Vec<(Role, Vec<(String, String)>)> {
        let controller = |n: usize| Role {
            id: 1000 + n as i32,
            host: format!("ctrl{n}"),
            is_broker: false,
            is_controller: true,
        };
        let broker = |n: usize| Role {
            id: n as i32,
            host: format!("node{n}"),
            is_broker: true,
            is_controller: false,
        };
        let controllers: Vec<Role> = (1..=CONTROLLERS).map(controller).collect();
        let voters = controllers.iter();
        let voters = voters.map(|role| format!("{}@{}:{CONTROLLER_PORT}", role.id, role.host));
        let voters = voters.collect::<Vec<_>>().join(",");
        // About two snapshots until all partitions are there: else there would be none to measure.
        let snapshot_bytes = (self.partitions * 60).max(10_000).to_string();
        let with = |role: Role| {
            let mut properties = node::properties(&role, &voters);
            let more = [
                ("log.cleaner.enable", "false"),
                ("metadata.log.max.record.bytes.between.snapshots", &snapshot_bytes),
            ];
            properties.extend(more.map(|(key, value)| (key.to_owned(), value.to_owned())));
            (role, properties)
        };
        controllers.into_iter().chain((1..=self.brokers).map(broker)).map(with).collect()
    }
}

/// What had been used at one moment.
#[derive(Debug, Clone)]
struct Reading {
    at_ms: u64,
    cpu: Vec<Duration>,
    requests: BTreeMap<RequestKind, Traffic>,
}

struct Run {
    cluster: Cluster,
    world: World,
    report: Report,
}

/// Measures the cluster, and prints what was seen; of each machine's beginnings and ends only where that is wanted.
///
/// # Errors
/// What did not come about.
pub(crate) fn run(cluster: Cluster, is_shown: bool) -> Result<(), String> {
    let mut world = World::new(1, cluster.roles());
    world.measures_cpu = true;
    world.trace.is_shown = is_shown;
    world.net.count_requests();
    let mut run = Run { cluster, world, report: Report::new(cluster) };
    run.go()
}

impl Run {
    fn go(&mut self) -> Result<(), String> {
        self.until("all brokers have joined", |run| {
            (0..run.world.machines.len()).all(|machine| run.world.has_joined(machine))
        })?;
        self.report.begin();
        let before = self.reading();
        self.create()?;
        self.report.created(&before, &self.reading());
        let snapshot = self.snapshot();
        self.report.metadata(self.metadata_log_bytes(), snapshot, self.disk_bytes());
        self.pass(SETTLE_MS);
        let before = self.reading();
        self.pass(IDLE_MS);
        self.report.idle(&before, &self.reading());
        let affected = self.affected();
        let read: Vec<Place> = affected.iter().take(READ_MAX).cloned().collect();
        self.errand("the first records are written", &read, Errand::Write("before"))?;
        self.pass(SETTLE_MS);
        self.die(&affected)?;
        self.come_back()?;
        self.errand("the records are read", &read, Errand::Read(&["before", "after"]))?;
        self.report.end();
        Ok(())
    }

    fn create(&mut self) -> Result<(), String> {
        let assignments = self.cluster.assignments();
        let topics = assignments.chunks(TOPIC_PARTITIONS).enumerate();
        let topics = topics.map(|(number, replicas)| (format!("t{number}"), replicas.to_vec()));
        let created = clients::create(&self.world, self.bootstrap(), topics.collect());
        let count = self.cluster.partitions;
        self.until("all partitions are everywhere", |run| {
            let is_there = |image: &Arc<Image>| image.topics.partition_count() == count;
            created.result().is_err() || (created.is_done() && run.images().iter().all(is_there))
        })?;
        created.result()
    }

    /// The broker dies, and what it led is led and written elsewhere.
    fn die(&mut self, affected: &[Place]) -> Result<(), String> {
        let victim = self.cluster.victim();
        let before = self.reading();
        self.world.end(self.cluster.victim_machine(), Crash::Kill);
        let mut seen = None;
        self.until_each_step("each partition has a leader", |run| {
            let image = run.newest();
            // Looking at all partitions takes long; what has not changed needs no second look.
            let is_new = seen.replace(image.offset) != Some(image.offset);
            is_new
                && affected.iter().all(|place| leader(&image, place).is_some_and(|it| it != victim))
        })?;
        let (elected, offset) = (self.reading(), self.newest().offset);
        let written = self.start_errand(affected, Errand::Write("after"));
        let mut published = None;
        self.until_each_step("each partition is written", |run| {
            if published.is_none() && run.images().iter().all(|image| image.offset >= offset) {
                published = Some(run.reading());
            }
            published.is_some() && written.is_done()
        })?;
        written.result()?;
        let published = published.ok_or("an image that was not seen")?;
        self.report.death(affected.len(), [&before, &elected, &published, &self.reading()]);
        Ok(())
    }

    /// The broker starts again, and is in sync with all that it replicates.
    fn come_back(&mut self) -> Result<(), String> {
        let before = self.reading();
        self.world.start_in(self.cluster.victim_machine(), 0);
        let mut seen = None;
        self.until("all replicas are in sync, and each partition has a leader", |run| {
            let image = run.newest();
            let is_new = seen.replace(image.offset) != Some(image.offset);
            let is_whole = |run: &Run| {
                let mut topics = image.topics.iter();
                let count = image.topics.partition_count();
                count == run.cluster.partitions
                    && topics.all(|topic| {
                        let mut all = topic.partitions.values();
                        all.all(|it| it.has_leader() && it.isr.len() == it.replicas.len())
                    })
            };
            is_new && is_whole(run)
        })?;
        self.report.back(&before, &self.reading());
        let offset = self.newest().offset;
        self.until("all images are the same", |run| {
            run.images().iter().all(|image| image.offset >= offset)
        })
    }

    /// Does it for these partitions, at their leaders.
    fn errand(&mut self, what: &str, places: &[Place], errand: Errand) -> Result<(), String> {
        let done = self.start_errand(places, errand);
        self.until(what, |_| done.is_done())?;
        done.result()
    }

    fn start_errand(&self, places: &[Place], errand: Errand) -> clients::Done {
        let image = self.newest();
        let mut by_leader: BTreeMap<BrokerId, Vec<Place>> = BTreeMap::new();
        for place in places {
            let leader = leader(&image, place).unwrap_or(BrokerId::NONE);
            by_leader.entry(leader).or_default().push(place.clone());
        }
        clients::start(&self.world, by_leader, errand)
    }

    /// The partitions that the broker leads which is to die.
    fn affected(&self) -> Vec<Place> {
        let (image, victim) = (self.newest(), self.cluster.victim());
        let of = |topic: &Arc<ottla::broker::image::TopicImage>| {
            let led = topic.partitions.iter().filter(|(_, it)| it.leader == victim);
            led.map(|(index, _)| (Arc::clone(&topic.name), *index)).collect::<Vec<_>>()
        };
        image.topics.iter().flat_map(of).collect()
    }

    fn bootstrap(&self) -> Vec<(String, u16)> {
        vec![("node1".to_owned(), node::CLIENT_PORT)]
    }

    /// The images of all nodes that run.
    fn images(&self) -> Vec<Arc<Image>> {
        let nodes = 0..self.world.machines.len();
        nodes.filter_map(|at| self.world.broker(at)).map(|broker| broker.image()).collect()
    }

    /// The newest image, which is a controller's.
    fn newest(&self) -> Arc<Image> {
        let controllers = (0..CONTROLLERS).filter_map(|at| self.world.broker(at));
        let images = controllers.map(|broker| broker.image());
        images.max_by_key(|image| image.offset).unwrap_or_default()
    }

    fn reading(&self) -> Reading {
        Reading {
            at_ms: self.world.now_ms(),
            cpu: self.world.machines.iter().map(|machine| machine.cpu).collect(),
            requests: self.world.net.requests(),
        }
    }

    /// Bytes of the first controller's metadata log.
    fn metadata_log_bytes(&self) -> u64 {
        let disk = &self.world.machines[0].disk;
        let files = disk.list(Path::new(METADATA_DIR)).unwrap_or_default();
        files.iter().filter(|file| file.name.ends_with(".log")).map(|file| file.len).sum()
    }

    /// The newest snapshot there: how many records it stands for, and its bytes.
    fn snapshot(&self) -> Option<(u64, u64)> {
        let disk = &self.world.machines[0].disk;
        let files = disk.list(Path::new(METADATA_DIR)).unwrap_or_default();
        let snapshots = files.into_iter().filter_map(|file| {
            let (offset, _) = file.name.strip_suffix(".checkpoint")?.split_once('-')?;
            Some((offset.parse().ok()?, file.len))
        });
        snapshots.max()
    }

    /// Bytes of all files, which lie in the memory of the process twice.
    fn disk_bytes(&self) -> u64 {
        let disks = self.world.machines.iter().map(|machine| &machine.disk);
        disks.map(|disk| bytes_below(disk, Path::new("/"))).sum()
    }

    fn pass(&mut self, ms: u64) {
        let end = self.world.now_ms() + ms;
        while self.world.now_ms() < end {
            self.world.step();
        }
    }

    /// Lets time pass until it holds, which is looked at now and then.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Run) -> bool) -> Result<(), String> {
        const LOOK_MS: u64 = 20;
        let mut looked_at = 0;
        self.until_each_step(what, |run| {
            let is_due = run.world.now_ms() >= looked_at + LOOK_MS;
            if is_due {
                looked_at = run.world.now_ms();
            }
            is_due && holds(run)
        })
    }

    fn until_each_step(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&Run) -> bool,
    ) -> Result<(), String> {
        let deadline = self.world.now_ms() + PATIENCE_MS;
        while !holds(self) {
            if self.world.now_ms() > deadline {
                return Err(format!("not within {PATIENCE_MS} ms: {what}"));
            }
            self.world.step();
            if crate::run::PANICS.load(std::sync::atomic::Ordering::Relaxed) > 0 {
                return Err("a task of a broker panicked".to_owned());
            }
        }
        Ok(())
    }
}

/// The leader of a partition, if it has one.
fn leader(image: &Image, place: &Place) -> Option<BrokerId> {
    let partition = image.topics.get(&place.0)?.partition(place.1)?;
    partition.has_leader().then_some(partition.leader)
}

fn bytes_below(disk: &impl Disk, dir: &Path) -> u64 {
    let entries = disk.list(dir).unwrap_or_default();
    let bytes = entries.iter().map(|entry| match entry.is_dir {
        true => bytes_below(disk, &dir.join(&entry.name)),
        false => entry.len,
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(cluster: Cluster) -> (Vec<usize>, Vec<usize>) {
        let (mut led, mut held) = (vec![0; cluster.brokers], vec![0; cluster.brokers]);
        for replicas in cluster.assignments() {
            led[replicas[0] as usize - 1] += 1;
            for (at, broker) in replicas.iter().enumerate() {
                assert!(!replicas[..at].contains(broker), "{replicas:?}");
                held[*broker as usize - 1] += 1;
            }
        }
        (led, held)
    }

    #[test]
    fn partitions_are_spread_evenly_except_those_of_the_victim() {
        let (led, held) = count(Cluster { brokers: 5, partitions: 1000, leaders: 200 });
        assert_eq!(led, [200; 5]);
        assert!(held.iter().all(|held| (590..=610).contains(held)), "{held:?}");
        let (led, held) = count(Cluster { brokers: 5, partitions: 1000, leaders: 600 });
        assert_eq!(led, [100, 100, 100, 100, 600]);
        assert!(held[..4].iter().all(|held| (450..=650).contains(held)), "{held:?}");
    }
}
