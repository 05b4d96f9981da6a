//! Topics of one replica grow to three and shrink back to another one, under load and with a throttle.
//!
//! Two hundred partitions that both clients write, and some that hold more bytes than the throttle lets through in
//! a moment, lie on one node. `kafka-reassign-partitions` gives them three replicas and takes them away again; the
//! throttle is seen in the configuration and in the time that it takes, and is gone afterwards. No record fails.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::broker::Side;
use crate::cluster::{self, Cluster, SETTLE_LIMIT};
use crate::disk::{Tools, judge};
use crate::paths::Paths;
use crate::report::Report;
use crate::writer::{self, Job, PAUSE_US, Tape, Work, Writer};

/// Partitions of each client's topic.
const PARTITIONS: usize = 100;
/// How long the throttle may take to be there, or gone.
const LIMIT: Duration = Duration::from_secs(60);
/// The topic with the bytes, its partitions and records.
const BALLAST: &str = "ballast";
const BALLAST_PARTITIONS: usize = 8;
const BALLAST_RECORDS: usize = 2000;
const BALLAST_RECORD_BYTES: usize = 10_000;
/// Bytes that a node may send and take in a second for the move.
const THROTTLE: usize = 5_000_000;
/// All replicas must have the ballast from the one node that has it: no faster than that, whatever bursts are let
/// through at the beginning.
const LEAST: Duration = Duration::from_secs(2);

/// The replicas of a topic's partition.
type Placement = fn(usize) -> Vec<i32>;

/// Runs it.
///
/// # Errors
/// If the clients cannot be built or the cluster does not start.
pub fn run(paths: &Paths, side: Side, report: &Report) -> Result<(), String> {
    let commands = writer::commands(paths)?;
    let mut cluster = Cluster::start(paths, side, 3, &[])?;
    judge(&format!("grow-reassign [{side}]"), report, || {
        let tools = Tools::start_at(paths, &cluster.servers())?;
        writer::taped(paths, &mut cluster, "grow-reassign", |cluster, tape| {
            scenario(cluster, tools, &commands, tape)
        })
    });
    Ok(())
}

fn scenario(
    cluster: &mut Cluster,
    mut tools: Tools,
    commands: &[(&'static str, Vec<String>)],
    tape: &Tape,
) -> Result<String, String> {
    cluster.create(BALLAST, &vec![vec![1]; BALLAST_PARTITIONS], &[("min.insync.replicas", "1")])?;
    tools.expect(&format!(
        "kafka-producer-perf-test --topic {BALLAST} --throughput -1 \
         --num-records {BALLAST_RECORDS} --record-size {BALLAST_RECORD_BYTES}"
    ))?;
    let mut writers = Vec::new();
    for command in commands {
        let topic = format!("grown-{}", command.0);
        cluster.create(&topic, &vec![vec![1]; PARTITIONS], &[("min.insync.replicas", "1")])?;
        let group = format!("group-{}", command.0);
        let work = Work::On { pause_us: PAUSE_US, group: Some(&group) };
        let job = Job { topic: &topic, partitions: PARTITIONS, work };
        writers.push(Writer::start(command, &cluster.servers(), &job, tape)?);
    }
    writer::go_on(&mut writers)?;
    let mut topics: Vec<(String, usize)> = vec![(BALLAST.to_owned(), BALLAST_PARTITIONS)];
    topics.extend(writers.iter().map(|writer| (writer.topic().to_owned(), PARTITIONS)));
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut times = Vec::new();
    let moves: [(&str, Placement); 2] = [("grow", grown), ("shrink", shrunk)];
    for (name, replicas) in moves {
        tape.note(name);
        let file = folder.path().join(format!("{name}.json"));
        std::fs::write(&file, json(&topics, replicas)).map_err(|e| format!("{file:?}: {e}"))?;
        let took = reassign(&mut tools, &topics, &file, name == "grow")?;
        times.push(format!("{name} in {} ms", took.as_millis()));
        are_there(cluster, &topics, replicas)?;
        writer::go_on(&mut writers)?;
    }
    let mut lines = times;
    lines.extend(writer::finish_clean(writers, &cluster.servers())?);
    Ok(lines.join("\n  "))
}

fn grown(at: usize) -> Vec<i32> {
    [[1, 2, 3], [2, 3, 1], [3, 1, 2]][at % 3].to_vec()
}

fn shrunk(at: usize) -> Vec<i32> {
    vec![[2, 3][at % 2]]
}

/// The file that the tool takes.
fn json(topics: &[(String, usize)], replicas: Placement) -> String {
    let mut text = String::new();
    for (topic, partitions) in topics {
        for at in 0..*partitions {
            let comma = if text.is_empty() { "" } else { "," };
            let replicas = replicas(at);
            let _ = write!(
                text,
                "{comma}{{\"topic\":\"{topic}\",\"partition\":{at},\"replicas\":{replicas:?}}}"
            );
        }
    }
    format!("{{\"version\":1,\"partitions\":[{text}]}}")
}

/// Lets the tool do it; answers how long it took.
fn reassign(
    tools: &mut Tools,
    topics: &[(String, usize)],
    file: &Path,
    copies: bool,
) -> Result<Duration, String> {
    let line = format!("kafka-reassign-partitions --reassignment-json-file {}", file.display());
    let begin = Instant::now();
    let text = tools.expect(&format!("{line} --execute --throttle {THROTTLE}"))?;
    for words in ["Successfully started partition reassignments", "throttle limit was set to"] {
        if !text.contains(words) {
            return Err(format!("{line} --execute: no {words}\n{text}"));
        }
    }
    let throttles = "kafka-configs --describe --entity-type brokers --entity-name 1";
    let rate = format!("leader.replication.throttled.rate={THROTTLE}");
    tools.until(throttles, LIMIT, |text| {
        if text.contains(&rate) { Ok(()) } else { Err(format!("no {rate}")) }
    })?;
    tools.until("kafka-reassign-partitions --list", SETTLE_LIMIT, |text| {
        match text.contains("No partition reassignments found") {
            true => Ok(()),
            false => Err("not all are completed".to_owned()),
        }
    })?;
    let took = begin.elapsed();
    if copies && took < LEAST {
        return Err(format!("{} ms is faster than the throttle", took.as_millis()));
    }
    let count: usize = topics.iter().map(|(_, partitions)| partitions).sum();
    tools.until(&format!("{line} --verify"), LIMIT, |text| {
        let done = text.lines().filter(|line| line.ends_with("is completed.")).count();
        if done == count { Ok(()) } else { Err(format!("{done} of {count} are completed")) }
    })?;
    tools.until(throttles, LIMIT, |text| match text.contains("replication.throttled.rate") {
        true => Err("the throttle is still there".to_owned()),
        false => Ok(()),
    })?;
    Ok(took)
}

/// Every node says that the partitions have these replicas, all in sync.
fn are_there(
    cluster: &mut Cluster,
    topics: &[(String, usize)],
    replicas: Placement,
) -> Result<(), String> {
    let names: Vec<&str> = topics.iter().map(|(name, _)| name.as_str()).collect();
    cluster.await_in_sync(&names)?;
    cluster.wait("the partitions have their replicas", SETTLE_LIMIT, |cluster| {
        for id in cluster.live() {
            for (topic, partitions) in cluster.partitions_of(id, &names)? {
                let is_wrong =
                    |(at, one): &(usize, &cluster::Partition)| one.replicas != replicas(*at);
                if let Some((_, bad)) = partitions.iter().enumerate().find(is_wrong) {
                    return Err(format!("node {id} says {topic} {bad:?}"));
                }
            }
        }
        Ok(())
    })
}
