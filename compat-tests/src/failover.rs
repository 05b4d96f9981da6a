//! How long a producer waits when the leader of its partition goes, and that nothing is lost, doubled or fails then.
//!
//! librdkafka with short back-offs and the Java client at its defaults write one partition each, of three replicas
//! with `min.insync.replicas=2`, while the same node leads both. In each round one node goes:
//!
//! | Variant | The node that goes |
//! | --- | --- |
//! | `kill-leader` | leads the partitions and is not the active controller; SIGKILL |
//! | `kill-controller` | is the active controller and follows; SIGKILL |
//! | `kill-both` | leads and is the active controller; SIGKILL |
//! | `stop-leader`, `stop-both` | as above; SIGTERM |
//! | `pause-leader`, `pause-follower` | SIGSTOP for three seconds, after which it goes on |
//! | `hog` | none: for twenty seconds twice as many threads as there are processors want all of them |
//!
//! The next round begins when all replicas are in sync again. Printed is the longest time without an acknowledgement of
//! each client's, and how many leader epochs the partitions went through: a healthy node that is fenced shows there.
//! Asserted is only what does not depend on the machine: 0 lost, 0 duplicated, 0 failed.
//!
//! `failover:kill-both` runs the variants whose names hold the filter. `COMPAT_ROUNDS` is the number of rounds of each
//! variant: three, and one with Apache Kafka, which takes a quarter of a minute for some. `COMPAT_PAUSE_US` are the
//! microseconds between two records of a client: with few, requests are on their way when the leader dies, and with
//! none on its way librdkafka does not know for up to a second that it has to look for another leader.

use std::time::{Duration, Instant};

use crate::broker::Side;
use crate::cluster::Cluster;
use crate::paths::Paths;
use crate::report::Report;
use crate::writer::{self, Job, Tape, Work, Writer, now_us};

/// Microseconds between two records of a client.
const PAUSE_US: u64 = 500;
/// Acknowledged records before a round's fault, and after it.
const RECORDS: usize = 300;
/// How long a client may go without an acknowledgement before that is a failure.
const GAP_LIMIT: Duration = Duration::from_secs(90);
/// How long SIGSTOP lasts.
const STILL: Duration = Duration::from_secs(3);
/// How long other threads want the processors.
const HOG: Duration = Duration::from_secs(20);
/// A gap that begins so long after the fault is not due to it.
const WINDOW_US: u64 = 20_000_000;

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    Pause,
    Hog,
}

/// Which node it happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Leader,
    Controller,
    Both,
    Follower,
}

const VARIANTS: [(&str, Fault, Victim); 8] = [
    ("kill-leader", Fault::Kill, Victim::Leader),
    ("kill-controller", Fault::Kill, Victim::Controller),
    ("kill-both", Fault::Kill, Victim::Both),
    ("stop-leader", Fault::Stop, Victim::Leader),
    ("stop-both", Fault::Stop, Victim::Both),
    ("pause-leader", Fault::Pause, Victim::Leader),
    ("pause-follower", Fault::Pause, Victim::Follower),
    ("hog", Fault::Hog, Victim::Leader),
];

/// Runs the variants whose names contain `filter`.
///
/// # Errors
/// If the clients cannot be built or the cluster does not start.
pub fn run(paths: &Paths, side: Side, filter: &str, report: &Report) -> Result<(), String> {
    let rounds = std::env::var("COMPAT_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds = rounds.unwrap_or(if side.is_kafka() { 1 } else { 3 });
    let commands = writer::commands(paths)?;
    let mut cluster = Cluster::start(paths, side, 3, &[])?;
    let wanted = VARIANTS.iter().filter(|(name, ..)| name.contains(filter));
    for (name, fault, victim) in wanted {
        let title = format!("failover/{name} [{side}]");
        let begin = Instant::now();
        let kept = format!("failover-{name}");
        let done = writer::taped(paths, &mut cluster, &kept, |cluster, tape| {
            scenario(cluster, &commands, (name, *fault, *victim), rounds, tape)
        });
        match done {
            Ok(text) => {
                println!("{title}:\n{text}");
                report.passed(&title, begin.elapsed());
            }
            Err(e) => {
                report.failed(&title, &e);
                cluster = Cluster::start(paths, side, 3, &[])?;
            }
        }
    }
    Ok(())
}

fn scenario(
    cluster: &mut Cluster,
    commands: &[(&'static str, Vec<String>)],
    (name, fault, victim): (&str, Fault, Victim),
    rounds: usize,
    tape: &Tape,
) -> Result<String, String> {
    let pause_us = std::env::var("COMPAT_PAUSE_US").ok().and_then(|text| text.parse().ok());
    let pause_us = pause_us.unwrap_or(PAUSE_US);
    let mut writers = Vec::new();
    for command in commands {
        let topic = format!("{name}-{}", command.0);
        cluster.create(&topic, &[cluster.ids()], &[("min.insync.replicas", "2")])?;
        let work = Work::On { pause_us, group: None };
        let job = Job { topic: &topic, partitions: 1, work };
        writers.push(Writer::start(command, &cluster.servers(), &job, tape)?);
    }
    let mut gaps: Vec<Vec<u64>> = vec![Vec::new(); writers.len()];
    let mut epochs = Vec::new();
    // A hog tells in twenty seconds what it has to tell.
    let rounds = if fault == Fault::Hog { 1 } else { rounds };
    for round in 0..rounds {
        let id = choose(cluster, &writers, victim)?;
        let before = leader_epochs(cluster, &writers)?;
        for writer in &mut writers {
            writer.wait_for_more(RECORDS, GAP_LIMIT)?;
        }
        tape.note(&format!("round {round}: {fault:?} of node {id}, {victim:?}"));
        let from = now_us();
        match fault {
            Fault::Kill => cluster.kill(id),
            Fault::Stop => cluster.stop(id)?,
            Fault::Pause => {
                cluster.pause(id)?;
                std::thread::sleep(STILL);
                cluster.resume(id)?;
            }
            Fault::Hog => hog(HOG)?,
        }
        for (writer, gaps) in writers.iter_mut().zip(&mut gaps) {
            writer.wait_for_more(RECORDS, GAP_LIMIT)?;
            let gap = writer.look(|history| history.longest_gap_us(from, from + WINDOW_US));
            gaps.push(gap.ok_or("no acknowledgement after the fault")?);
        }
        if !cluster.node(id).is_launched() {
            cluster.launch(id)?;
        }
        tape.note(&format!("node {id} is back"));
        let topics: Vec<&str> = writers.iter().map(Writer::topic).collect();
        cluster.await_in_sync(&topics)?;
        epochs.push(leader_epochs(cluster, &writers)? - before);
    }
    let mut lines = vec![format!("  leader epochs of both partitions, by round: {epochs:?}")];
    let mut faults = Vec::new();
    for (writer, gaps) in writers.into_iter().zip(gaps) {
        let client = writer.name().to_owned();
        let history = writer.finish(&cluster.servers())?;
        match writer::expect_clean(&client, &history) {
            Ok(text) => lines.push(format!("  {text}; {}", figures(gaps))),
            Err(e) => faults.push(format!("{e}\n  {}", figures(gaps))),
        }
    }
    if faults.is_empty() { Ok(lines.join("\n")) } else { Err(faults.join("\n")) }
}

/// Puts leaders where the variant wants them; answers the node that the fault meets.
fn choose(cluster: &mut Cluster, writers: &[Writer], victim: Victim) -> Result<i32, String> {
    let controller = cluster.controller()?;
    let leader = match victim {
        Victim::Both => controller,
        Victim::Leader | Victim::Controller | Victim::Follower => {
            let others = cluster.ids().into_iter().filter(|id| *id != controller);
            others.min().ok_or("one node is no cluster")?
        }
    };
    let mut replicas = vec![leader];
    replicas.extend(cluster.ids().into_iter().filter(|id| *id != leader));
    for writer in writers {
        cluster.lead(writer.topic(), std::slice::from_ref(&replicas))?;
    }
    match (cluster.controller()?, victim) {
        (now, _) if now != controller => Err(format!("the controller changed to {now}")),
        (_, Victim::Controller) => Ok(controller),
        (_, Victim::Follower) => {
            let mut followers = replicas.into_iter().filter(|id| *id != leader);
            followers.find(|id| *id != controller).ok_or("no follower".to_owned())
        }
        (_, Victim::Leader | Victim::Both) => Ok(leader),
    }
}

/// The sum of the partitions' leader epochs.
fn leader_epochs(cluster: &Cluster, writers: &[Writer]) -> Result<i32, String> {
    let mut sum = 0;
    for writer in writers {
        let partitions = cluster.partitions(writer.topic())?;
        sum += partitions.iter().map(|partition| partition.leader_epoch).sum::<i32>();
    }
    Ok(sum)
}

/// Has more threads than processors want them for a while.
fn hog(time: Duration) -> Result<(), String> {
    let processors = std::thread::available_parallelism().map_err(|e| e.to_string())?.get();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 * processors {
            scope.spawn(|| {
                while begin.elapsed() < time {
                    std::hint::spin_loop();
                }
            });
        }
    });
    Ok(())
}

/// Longest gaps without an acknowledgement: median, worst and all.
fn figures(mut gaps: Vec<u64>) -> String {
    let all: Vec<u64> = gaps.iter().map(|us| us / 1000).collect();
    gaps.sort_unstable();
    let median = gaps.get(gaps.len() / 2).copied().unwrap_or_default() / 1000;
    let worst = gaps.last().copied().unwrap_or_default() / 1000;
    format!("gap median {median} ms, worst {worst} ms, of {all:?}")
}
