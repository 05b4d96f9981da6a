//! `disk:failing`: one of two log directories fails under load.
//!
//! Its partitions are answered KAFKA_STORAGE_ERROR, those of the other go on, and `kafka-log-dirs` names it; after a
//! restart with the directory back everything acknowledged is there. A broker that loses the directory of its
//! metadata, or its last one, ends with exit status 1 and a line that names it.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::broker::{Broker, Side};
use crate::disk::{LIMIT, Tools, judge, loads};
use crate::load::{Load, PARTITIONS};
use crate::paths::Paths;
use crate::report::Report;
use crate::volume::{self, Fault, Volume};

/// Records that show that a client goes on.
const MORE: usize = 600;
/// Nothing is acknowledged for so long, and a partition is not written.
const STILL: Duration = Duration::from_millis(1500);
/// The broker has answered what a client had sent before it was stopped.
const CALM: Duration = Duration::from_millis(500);
/// A failure is noticed with the record that meets it.
const SYNC: &str = "log.flush.interval.messages=1";

/// Runs the scenarios whose names contain `filter`.
///
/// # Errors
/// None: what is not possible here is reported.
pub fn run(paths: &Paths, side: Side, filter: &str, report: &Report) -> Result<(), String> {
    type Scenario = fn(&Paths, Side, Fault) -> Result<String, String>;
    let kinds: [(&str, Scenario); 3] =
        [("failing", one_of_two), ("failing-metadata", metadata), ("failing-last", last)];
    for (kind, scenario) in kinds {
        for fault in Fault::ALL {
            let name = format!("{kind}-{}", fault.name());
            // Where and how it fails are two questions: all faults are met by the first kind alone.
            if !name.contains(filter) || (kind != "failing" && fault != Fault::ReadOnly) {
                continue;
            }
            let title = format!("disk/{name} [{side}]");
            if volume::may_mount_devices() {
                judge(&title, report, || scenario(paths, side, fault));
            } else {
                let why = "skipped: a device that fails can be mounted by root alone";
                report.pending(&title, Some(why));
            }
        }
    }
    Ok(())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A broker over two directories, the metadata in the first, and a load on each: the topic `stays` in the first with
/// the groups' offsets, and `fails` in the second.
struct Pair {
    loads: [Load; 2],
    tools: Tools,
    broker: Broker,
    /// Last: they are unmounted when nobody has a file of them open.
    volumes: [Volume; 2],
}

impl Pair {
    fn start(paths: &Paths, side: Side) -> Result<Pair, String> {
        let volumes = [Volume::ext4()?, Volume::ext4()?];
        let dirs = volumes.each_ref().map(|volume| text(&volume.path().join("log")));
        let log_dirs = format!("log.dirs={}", dirs.join(","));
        let metadata = format!("metadata.log.dir={}", dirs[0]);
        let more = [&log_dirs, &metadata, SYNC, "offsets.topic.num.partitions=1"];
        let broker = Broker::start(paths, side, &more)?;
        let mut tools = Tools::start(paths, &broker)?;
        let [librdkafka, java] = loads(paths)?;
        let mut loads = [
            Load::start(&librdkafka, &broker, "stays", 0)?,
            Load::start(&java, &broker, "fails", 0)?,
        ];
        for load in &mut loads {
            load.wait_for_more(MORE, LIMIT)?;
            load.wait_until_committed(LIMIT)?;
        }
        let [first, second] = dirs.each_ref().map(String::as_str);
        let places = [
            ("stays", PARTITIONS, first),
            ("fails", PARTITIONS, second),
            ("__consumer_offsets", 1, first),
        ];
        place(&mut tools, &volumes[0].path(), &places)?;
        Ok(Pair { volumes, broker, tools, loads })
    }

    /// Both directories and what the tool says of them.
    fn described(&mut self) -> Result<serde_json::Value, String> {
        let out = self.tools.expect("kafka-log-dirs --describe --broker-list 1")?;
        let line = out.lines().find(|line| line.starts_with('{')).ok_or("no JSON")?;
        serde_json::from_str(line).map_err(|e| format!("{line}: {e}"))
    }
}

/// Moves whole topics into one directory each: (topic, partitions, directory).
pub fn place(
    tools: &mut Tools,
    scratch: &Path,
    places: &[(&str, usize, &str)],
) -> Result<(), String> {
    let all = places.iter().flat_map(|(topic, partitions, dir)| {
        (0..*partitions).map(move |partition| (*topic, partition, *dir))
    });
    let partitions: Vec<_> = all
        .map(|(topic, partition, dir)| {
            serde_json::json!({
                "topic": topic, "partition": partition, "replicas": [1], "log_dirs": [dir],
            })
        })
        .collect();
    let plan = serde_json::json!({"version": 1, "partitions": partitions});
    let file = scratch.join("plan.json");
    std::fs::write(&file, plan.to_string()).map_err(|e| format!("{file:?}: {e}"))?;
    let reassign = format!("kafka-reassign-partitions --reassignment-json-file {}", text(&file));
    tools.expect(&format!("{reassign} --execute"))?;
    let begin = std::time::Instant::now();
    loop {
        let out = tools.expect(&format!("{reassign} --verify"))?;
        if !out.contains("still in progress") {
            return Ok(());
        }
        if begin.elapsed() > LIMIT {
            return Err(format!("partitions do not move: {out}"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn one_of_two(paths: &Paths, side: Side, fault: Fault) -> Result<String, String> {
    let mut pair = Pair::start(paths, side)?;
    let [stays, fails] = &mut pair.loads;
    // ext4 says of many a sync that meets the abort of its journal that it succeeded, and has nothing of it later; a
    // plain program sees the same. So none is under way.
    fails.signal(Signal::STOP)?;
    std::thread::sleep(CALM);
    pair.volumes[1].fail(fault)?;
    fails.signal(Signal::CONT)?;
    fails.wait_until_it_stands(STILL, LIMIT)?;
    let at_failure = fails.progress().acknowledged();
    stays.wait_for_more(MORE, LIMIT)?;
    stays.wait_until_committed(LIMIT)?;
    names_the_failed(&mut pair)?;
    pair.broker.stop()?;
    pair.volumes[1].repair()?;
    pair.broker.launch()?;
    let [stays, fails] = &mut pair.loads;
    for load in [stays, fails] {
        load.wait_for_more(MORE, LIMIT)?;
        load.wait_until_committed(LIMIT)?;
    }
    if side == Side::Ottla {
        only_expected_errors(&pair.broker, &pair.volumes[1].path())?;
    }
    let mut counts = Vec::new();
    for load in pair.loads {
        counts.push(load.finish(&pair.broker)?);
    }
    Ok(format!("{counts:?} records, {at_failure} of the second topic acknowledged at the failure"))
}

/// Every error is one of the failed directory, and there are not many: one says it all.
fn only_expected_errors(broker: &Broker, failed: &Path) -> Result<(), String> {
    let (log, failed) = (broker.log(), text(failed));
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    let is_named = errors.iter().all(|line| line.contains(&failed));
    if is_named && (1..=PARTITIONS).contains(&errors.len()) {
        return Ok(());
    }
    Err(format!("unexpected in the broker's log:\n{}", errors.join("\n")))
}

/// `kafka-log-dirs` says of the failed directory that it has failed, and nothing ill of the other.
fn names_the_failed(pair: &mut Pair) -> Result<(), String> {
    let described = pair.described()?;
    let dirs = described["brokers"][0]["logDirs"].as_array().cloned().unwrap_or_default();
    let at = |index: usize| {
        let path = text(&pair.volumes[index].path());
        dirs.iter().find(|dir| dir["logDir"].as_str().is_some_and(|dir| dir.starts_with(&path)))
    };
    let partitions =
        |index: usize| at(index).and_then(|dir| dir["partitions"].as_array()).map_or(0, Vec::len);
    let error = |index: usize| at(index).map(|dir| dir["error"].to_string()).unwrap_or_default();
    let is_named = error(1).contains("KafkaStorageException") && partitions(1) == 0;
    if is_named && error(0) == "null" && partitions(0) > PARTITIONS {
        return Ok(());
    }
    Err(format!("kafka-log-dirs: {described}"))
}

fn metadata(paths: &Paths, side: Side, fault: Fault) -> Result<String, String> {
    let mut pair = Pair::start(paths, side)?;
    pair.volumes[0].fail(fault)?;
    // It is met by the first record of the controller; a load is enough of it where offsets lie there too.
    let path = pair.volumes[0].path();
    ends_with(&mut pair.broker, &path)
}

fn last(paths: &Paths, side: Side, fault: Fault) -> Result<String, String> {
    let volume = Volume::ext4()?;
    let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
    let log_dirs = format!("log.dirs={}", text(&volume.path().join("log")));
    let metadata = format!("metadata.log.dir={}", text(&scratch.path().join("metadata")));
    let mut broker = Broker::start(paths, side, &[&log_dirs, &metadata, SYNC])?;
    let [librdkafka, _] = loads(paths)?;
    let mut load = Load::start(&librdkafka, &broker, "all", 0)?;
    load.wait_for_more(MORE, LIMIT)?;
    volume.fail(fault)?;
    ends_with(&mut broker, &volume.path())
}

/// The process ends by itself, with exit status 1 and a line that names the directory.
fn ends_with(broker: &mut Broker, path: &Path) -> Result<String, String> {
    let status = broker.wait_for_end(LIMIT)?;
    let log = broker.log();
    let path = text(path);
    let named = log.lines().rev().find(|line| line.contains("fail") && line.contains(&path));
    match (status.code(), named) {
        (Some(1), Some(line)) => Ok(line.replace(&path, "DIR")),
        _ => Err(format!("{status}, its last lines:\n{}", last_lines(&log))),
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
