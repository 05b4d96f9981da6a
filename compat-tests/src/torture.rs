//! Three nodes under load while they are killed, halted, restarted and cut off from each other; afterwards everything
//! that both clients did and saw is judged.
//!
//! librdkafka and the Java client write one topic each, with keys and sequence numbers, and read it as a group;
//! what is done to the cluster is drawn from a seed ([`crate::nemesis`]), and each node has a wall clock of its own
//! ([`crate::clocks`]). As root each node is in a network namespace of its own ([`crate::network`]) with a disk of its
//! own ([`crate::volume`]), and networks and disks fail too; others are told that this was left out.
//!
//! `COMPAT_SEED` is the seed (1), `COMPAT_DURATION_S` how long faults go on (60). The history with the faults among its
//! lines is kept below `target/compat/histories`.

use std::time::{Duration, Instant};

use crate::broker::Side;
use crate::clocks::Clocks;
use crate::cluster::{self, Cluster, Place};
use crate::disk::judge;
use crate::nemesis::{Fault, Schedule, Step};
use crate::network::Network;
use crate::paths::Paths;
use crate::report::Report;
use crate::volume::{self, Namespace, Volume};
use crate::writer::{self, Job, PAUSE_US, Tape, Work, Writer};

/// The nodes' ids.
const NODES: [i32; 3] = [1, 2, 3];
/// Partitions of each client's topic.
const PARTITIONS: usize = 3;
/// Bytes of a node's disk, in memory: more than five minutes fill.
const DISK_BYTES: u64 = 1 << 30;
/// Bytes that are left when it is full to its reserve, which is a twentieth by default (`ottla.log.dir.reserve.bytes`).
const RESERVE_LEFT: u64 = DISK_BYTES / 40;
/// Apache Kafka has ended so long after its disk was full, if it does.
const KAFKAS_END: Duration = Duration::from_secs(5);

/// Runs it, in namespaces of its own where that is possible.
///
/// # Errors
/// If the clients cannot be built.
pub fn run(paths: &Paths, side: Side, report: &Report) -> Result<(), String> {
    // The network that Maven needs is not there later.
    let commands = writer::commands(paths)?;
    let begin = Instant::now();
    let title = format!("torture in namespaces of its own [{side}]");
    let has_own = match volume::namespace() {
        Namespace::Inside => true,
        Namespace::Enter(mut words) => {
            words.push("-n");
            match volume::enter(&words, &["--side", &side.to_string(), "torture"]) {
                Ok(true) => report.passed(&title, begin.elapsed()),
                Ok(false) => report.failed(&title, "see above"),
                Err(e) => report.failed(&title, &e),
            }
            return Ok(());
        }
        // Who is root can: something is wrong with the machine, and must not go unnoticed.
        Namespace::Impossible(why) if volume::is_root() => return Err(why),
        Namespace::Impossible(why) => {
            report.pending(&title, Some(&format!("networks and disks do not fail: {why}")));
            false
        }
    };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("COMPAT_SEED").unwrap_or(1);
    let duration = Duration::from_secs(number("COMPAT_DURATION_S").unwrap_or(60));
    judge(&format!("torture/seed-{seed} [{side}]"), report, || {
        let network = if has_own { Some(Network::new(NODES.to_vec())?) } else { None };
        let clocks = Clocks::new(&paths.sources, &NODES)?;
        let mut places = network.as_ref().map_or(vec![Place::loopback(); 3], Network::places);
        let mut disks = Vec::new();
        for (id, place) in NODES.into_iter().zip(&mut places) {
            place.prefix.extend(clocks.prefix(id));
            if has_own {
                let disk = Volume::tmpfs(DISK_BYTES)?;
                place.log_dir = Some(disk.path());
                disks.push(disk);
            }
        }
        let mut cluster = Cluster::seat(paths, side, &places, &[])?;
        cluster.launch_all()?;
        let name = format!("torture-{side}-{seed}");
        let tape = Tape::create(&paths.work.join(format!("histories/{name}.txt")))?;
        cluster::keeping(paths, &mut cluster, &name, |cluster| {
            let (disks, writers) = (&disks[..], Vec::new());
            let mut run = Run { cluster, network, disks, clocks, writers, tape: tape.clone() };
            let done = run.all(&commands, seed, duration);
            tape.flush()?;
            done.map_err(|e| format!("{e}\nhistory: {}", tape.path().display()))
        })
    });
    Ok(())
}

struct Run<'a> {
    cluster: &'a mut Cluster,
    network: Option<Network>,
    /// None, or one for each node.
    disks: &'a [Volume],
    clocks: Clocks,
    writers: Vec<Writer>,
    tape: Tape,
}

impl Run<'_> {
    fn all(
        &mut self,
        commands: &[(&'static str, Vec<String>)],
        seed: u64,
        duration: Duration,
    ) -> Result<String, String> {
        for command in commands {
            let topic = format!("torture-{}", command.0);
            let assignments = [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]];
            self.cluster.create(&topic, &assignments, &[("min.insync.replicas", "2")])?;
            let group = format!("group-{}", command.0);
            let work = Work::On { pause_us: PAUSE_US, group: Some(&group) };
            let job = Job { topic: &topic, partitions: PARTITIONS, work };
            let writer = Writer::start(command, &self.cluster.servers(), &job, &self.tape)?;
            self.writers.push(writer);
        }
        writer::go_on(&mut self.writers)?;
        let begin = Instant::now();
        let mut steps = 0;
        for step in Schedule::new(seed, self.network.is_some()) {
            if begin.elapsed() > duration {
                break;
            }
            self.step(step).map_err(|e| format!("step {steps}, {step:?}: {e}"))?;
            steps += 1;
        }
        self.settle().map_err(|e| format!("after {steps} steps, when all is healed: {e}"))?;
        let mut lines = vec![format!("{steps} steps")];
        let mut faults = Vec::new();
        for writer in std::mem::take(&mut self.writers) {
            let name = writer.name().to_owned();
            match writer::expect_clean(&name, &writer.finish(&self.cluster.servers())?) {
                Ok(text) => lines.push(text),
                Err(e) => faults.push(e),
            }
        }
        if faults.is_empty() { Ok(lines.join("\n  ")) } else { Err(faults.join("\n")) }
    }

    /// Does one fault and takes it back.
    fn step(&mut self, step: Step) -> Result<(), String> {
        if step.from_sync {
            self.await_in_sync()?;
        } else {
            self.cluster.await_members()?;
        }
        self.tape.note(&format!("{:?} for {} ms", step.fault, step.hold.as_millis()));
        self.begin(step.fault)?;
        std::thread::sleep(step.hold);
        self.end(step.fault)?;
        self.tape.note("healed");
        std::thread::sleep(step.calm);
        Ok(())
    }

    fn begin(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Kill(id) => self.cluster.kill(id),
            Fault::KillTwo(first, second) => {
                self.cluster.kill(first);
                self.cluster.kill(second);
            }
            Fault::Restart(id) => match self.cluster.stop(id) {
                // Apache Kafka waits for minutes if it cannot tell the controller; it was killed then.
                Err(_) if self.cluster.side().is_kafka() => {}
                done => return done,
            },
            Fault::Pause(id) => return self.cluster.pause(id),
            Fault::PauseTwo(first, second) => {
                self.cluster.pause(first)?;
                return self.cluster.pause(second);
            }
            Fault::Clock(id, ahead_ms) => return self.clocks.set(id, ahead_ms),
            Fault::FullToReserve(id) => return self.disk(id)?.fill_but(RESERVE_LEFT),
            Fault::Full(id) => return self.disk(id)?.fill_but(0),
            _ => return self.begin_in_network(fault),
        }
        Ok(())
    }

    fn disk(&self, id: i32) -> Result<&Volume, String> {
        let of = |(node, _): &(i32, &Volume)| *node == id;
        let found = NODES.into_iter().zip(self.disks).find(of);
        found.map(|(_, disk)| disk).ok_or_else(|| format!("node {id} has no disk of its own"))
    }

    fn begin_in_network(&self, fault: Fault) -> Result<(), String> {
        let network = self.network.as_ref().ok_or("no network of its own")?;
        let others = |id: i32| self.cluster.ids().into_iter().filter(move |other| *other != id);
        let isolate = |id: i32| {
            others(id).try_for_each(|other| {
                network.cut(id, other)?;
                network.cut(other, id)
            })
        };
        match fault {
            Fault::CutOneWay(from, to) => network.cut(from, to),
            Fault::Cut(first, second) => {
                network.cut(first, second)?;
                network.cut(second, first)
            }
            Fault::Isolate(id) => isolate(id),
            Fault::IsolateFromAll(id) => {
                isolate(id)?;
                network.cut_from_clients(id)
            }
            Fault::Slow(id) => network.slow(id),
            _ => Err(format!("{fault:?} is none of the network's")),
        }
    }

    fn end(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Kill(id) | Fault::Restart(id) => self.cluster.spawn(id),
            Fault::KillTwo(first, second) => {
                self.cluster.spawn(second)?;
                self.cluster.spawn(first)
            }
            Fault::Pause(id) => self.cluster.resume(id),
            Fault::PauseTwo(first, second) => {
                self.cluster.resume(first)?;
                self.cluster.resume(second)
            }
            Fault::Clock(id, _) => self.clocks.set(id, 0),
            Fault::FullToReserve(id) | Fault::Full(id) => {
                self.disk(id)?.empty()?;
                if !self.cluster.side().is_kafka() {
                    return self.cluster.expect_running(id);
                }
                // Apache Kafka ends when its only log directory is full, by and by.
                std::thread::sleep(KAFKAS_END);
                self.cluster.expect_running(id).or_else(|_| self.cluster.spawn(id))
            }
            _ => self.network.as_ref().ok_or("no network of its own")?.heal(),
        }
    }

    fn await_in_sync(&mut self) -> Result<(), String> {
        let mut topics: Vec<&str> = self.writers.iter().map(Writer::topic).collect();
        topics.push("__consumer_offsets");
        self.cluster.await_in_sync(&topics)
    }

    /// All is whole: replicas come in sync, and both clients write, read and commit again.
    fn settle(&mut self) -> Result<(), String> {
        self.await_in_sync()?;
        writer::go_on(&mut self.writers)
    }
}
