//! `kafka-dump-log` over a used data directory: it must read every file without complaint.
//!
//! The group scenario of librdkafka uses the directory first: topics of every codec, a group's
//! offsets, the metadata log. Then the broker is killed and started again, used once more, stopped
//! in order, and Apache Kafka's tool reads segments, indexes, producer states and snapshots.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::{Broker, Side};
use crate::clients;
use crate::java::{KAFKA, ToolRunner, checked};
use crate::paths::Paths;
use crate::report::Report;

const MAIN: &str = "org.apache.kafka.tools.DumpLogSegments";
const LIMIT: Duration = Duration::from_secs(60);
/// What the tool prints when something is wrong; it ends with status 0 all the same.
const COMPLAINTS: [&str; 6] =
    ["mismatch", "Non-consecutive", "isvalid: false", "Exception", "rror", "bytes left"];

/// Uses a directory and reads it.
///
/// # Errors
/// If the broker, the load or the tools cannot be run.
pub fn run(paths: &Paths, side: Side, filter: &str, report: &Report) -> Result<(), String> {
    let mut broker = Broker::start(paths, side, &["log.index.interval.bytes=256"])?;
    use_it(&broker, "before")?;
    broker.kill();
    broker.launch()?;
    use_it(&broker, "after")?;
    broker.stop()?;
    let mut runner = ToolRunner::start(paths, KAFKA)?;
    for dir in listed(&broker.log_dir())? {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !dir.is_dir() || !name.contains(filter) {
            continue;
        }
        let title = format!("dump/{name} [{side}]");
        let begin = Instant::now();
        match dump(&mut runner, &dir, &name) {
            Ok(()) => report.passed(&title, begin.elapsed()),
            Err(e) => report.failed(&title, &e),
        }
    }
    Ok(())
}

fn use_it(broker: &Broker, prefix: &str) -> Result<(), String> {
    let program = clients::librdkafka()?;
    let mut command = Command::new(&program[0]);
    command.args([&broker.address(), prefix, "500"]).stdin(Stdio::null());
    checked(&mut command, "librdkafka").map(|_| ())
}

fn dump(runner: &mut ToolRunner, dir: &Path, name: &str) -> Result<(), String> {
    let decoder = match name {
        "__cluster_metadata-0" => "--cluster-metadata-decoder",
        name if name.starts_with("__consumer_offsets-") => "--offsets-decoder",
        _ => "--print-data-log",
    };
    let files = listed(dir)?;
    let with = |endings: &[&str]| {
        let is_one = |path: &&PathBuf| {
            let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            endings.contains(&ending.as_str())
        };
        let chosen: Vec<_> =
            files.iter().filter(is_one).map(|path| path.to_string_lossy()).collect();
        chosen.join(",")
    };
    let segments = with(&["log"]);
    if segments.is_empty() {
        // A partition that was never written to may have no file yet.
        return Ok(());
    }
    look(runner, &["--deep-iteration", decoder, "--files", &segments])?;
    for flags in [&["--index-sanity-check"][..], &["--verify-index-only"], &[]] {
        let indexes = with(&["index", "timeindex"]);
        if !indexes.is_empty() {
            look(runner, &[flags, &["--files", &indexes]].concat())?;
        }
    }
    let snapshots = with(&["snapshot", "checkpoint", "txnindex"]);
    if snapshots.is_empty() {
        return Ok(());
    }
    match name {
        "__cluster_metadata-0" => look(runner, &[decoder, "--files", &snapshots]),
        _ => look(runner, &["--files", &snapshots]),
    }
    .map(drop)
}

/// Runs the tool; answers what it printed.
///
/// # Errors
/// What it complains of, and if it fails.
pub fn look(runner: &mut ToolRunner, args: &[&str]) -> Result<String, String> {
    let words: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
    let answer = runner.run(MAIN, &words, "", LIMIT)?;
    let complaint = answer
        .out
        .lines()
        .chain(answer.err.lines())
        .find(|line| COMPLAINTS.iter().any(|word| line.contains(word)) && !is_topic_data(line));
    match complaint {
        Some(line) => Err(format!("{args:?}: {line}")),
        None if answer.status != 0 => Err(format!("{args:?}: {}\n{}", answer.status, answer.err)),
        None => Ok(answer.out),
    }
}

/// Metadata records have fields whose names are words of complaint; what cannot be decoded stands in their place.
fn is_topic_data(line: &str) -> bool {
    line.contains("payload:") && !line.contains("Exception") && !line.contains("skipping.")
}

/// The paths in a directory, in order.
///
/// # Errors
/// If it cannot be listed.
pub fn listed(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{dir:?}: {e}"))?;
    let mut paths: Vec<PathBuf> =
        entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}
