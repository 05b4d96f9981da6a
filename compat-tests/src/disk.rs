//! Log directories on file systems of their own, which run full or fail under load.
//!
//! `disk:full`, with Ottla alone, since Apache Kafka ends with a log directory that is full: two clients fill it.
//! Producers wait, all else goes on, and once there is space they go on by themselves; not even a metadata log without
//! a byte left needs a restart. For `disk:failing` see [`crate::failing`].

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::broker::{Broker, Side};
use crate::clients;
use crate::commands::class_of;
use crate::failing;
use crate::java::{Answer, KAFKA, ToolRunner};
use crate::load::Load;
use crate::paths::Paths;
use crate::report::Report;
use crate::volume::{self, Namespace, Volume};

/// Bytes of the file system, of which the records of a topic that goes in the end are the larger part.
const BYTES: u64 = 64 << 20;
const BALLAST_RECORDS: &str = "5000";
const BALLAST_RECORD_BYTES: &str = "10000";
/// Bytes of a record beside its number.
const PADDING: usize = 1000;
/// Nothing is acknowledged for so long, and producers wait; librdkafka tries again after a second at the latest.
const STILL: Duration = Duration::from_millis(1500);
/// How long a change of the broker's may take to be seen by a client.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The pause between two looks of a tool's.
const LOOK_PAUSE: Duration = Duration::from_millis(300);
/// Records that show that a client goes on; few, for the file system is small.
const MORE: usize = 600;

/// Runs the scenarios whose names contain `filter`, in a mount namespace of their own.
///
/// # Errors
/// If a client cannot be built.
pub fn run(paths: &Paths, side: Side, filter: &str, report: &Report) -> Result<(), String> {
    let begin = Instant::now();
    let title = format!("disk in a namespace of its own [{side}]");
    match volume::namespace() {
        Namespace::Inside => {}
        Namespace::Enter(words) => {
            let suite = format!("disk:{filter}");
            match volume::enter(&words, &["--side", &side.to_string(), &suite]) {
                Ok(true) => report.passed(&title, begin.elapsed()),
                Ok(false) => report.failed(&title, "see above"),
                Err(e) => report.failed(&title, &e),
            }
            return Ok(());
        }
        // Who is root can: something is wrong with the machine, and must not go unnoticed.
        Namespace::Impossible(why) if volume::is_root() => {
            report.failed(&title, &why);
            return Ok(());
        }
        Namespace::Impossible(why) => {
            report.pending(&title, Some(&format!("skipped, nothing can be mounted: {why}")));
            return Ok(());
        }
    }
    if "full".contains(filter) && !side.is_kafka() {
        judge(&format!("disk/full [{side}]"), report, || full(paths, side));
    }
    failing::run(paths, side, filter, report)
}

/// Runs one scenario and reports what came of it.
pub fn judge(title: &str, report: &Report, scenario: impl FnOnce() -> Result<String, String>) {
    let begin = Instant::now();
    match scenario() {
        Ok(text) => {
            println!("{title}: {text}");
            report.passed(title, begin.elapsed());
        }
        Err(e) => report.failed(title, &e),
    }
}

/// The loads of both clients.
pub fn loads(paths: &Paths) -> Result<[Vec<String>; 2], String> {
    Ok([clients::librdkafka()?, clients::java_client(paths, KAFKA, "Load")?])
}

/// The stock tools, pointed at one broker.
pub struct Tools {
    runner: ToolRunner,
    address: String,
}

impl Tools {
    /// Starts the JVM.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(paths: &Paths, broker: &Broker) -> Result<Tools, String> {
        Tools::start_at(paths, &broker.address())
    }

    /// The same for several brokers, whose addresses are joined with commas.
    ///
    /// # Errors
    /// As [`Tools::start`].
    pub fn start_at(paths: &Paths, servers: &str) -> Result<Tools, String> {
        Ok(Tools { runner: ToolRunner::start(paths, KAFKA)?, address: servers.to_owned() })
    }

    /// The JVM, for other uses.
    pub fn into_runner(self) -> ToolRunner {
        self.runner
    }

    /// Runs a command line, of which the bootstrap server is missing.
    ///
    /// # Errors
    /// If it does not end.
    pub fn run(&mut self, line: &str) -> Result<Answer, String> {
        self.run_with(line, "")
    }

    /// The same with a standard input.
    ///
    /// # Errors
    /// If it does not end.
    pub fn run_with(&mut self, line: &str, input: &str) -> Result<Answer, String> {
        let mut words = line.split(' ').map(str::to_owned);
        let script = words.next().unwrap_or_default();
        let main = class_of(&script, KAFKA).ok_or_else(|| format!("no tool {script}"))?;
        let mut args = vec!["--bootstrap-server".to_owned(), self.address.clone()];
        args.extend(words);
        self.runner.run(main, &args, input, LIMIT).map_err(|e| format!("{line}: {e}"))
    }

    /// Runs a command line that must succeed; answers its standard output.
    ///
    /// # Errors
    /// If it does not.
    pub fn expect(&mut self, line: &str) -> Result<String, String> {
        let Answer { status, out, err } = self.run(line)?;
        if status == 0 { Ok(out) } else { Err(format!("{line}: {status}\n{out}{err}")) }
    }

    /// Repeats a command line until it succeeds and what it prints is right; answers that.
    ///
    /// # Errors
    /// What was wrong last if it is not within `limit`.
    pub fn until<T>(
        &mut self,
        line: &str,
        limit: Duration,
        look: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, String> {
        let begin = Instant::now();
        loop {
            let tried = self.expect(line);
            match tried.and_then(|text| look(&text).map_err(|e| format!("{line}: {e}\n{text}"))) {
                Ok(found) => return Ok(found),
                Err(e) if begin.elapsed() > limit => return Err(e),
                Err(_) => std::thread::sleep(LOOK_PAUSE),
            }
        }
    }

    /// Runs a command line that must fail with these words.
    ///
    /// # Errors
    /// If it does not.
    pub fn refused(&mut self, line: &str, input: &str, words: &str) -> Result<(), String> {
        let Answer { status, out, err } = self.run_with(line, input)?;
        if out.contains(words) || err.contains(words) {
            return Ok(());
        }
        Err(format!("{line}: no {words}, but {status}\n{out}{err}"))
    }
}

fn full(paths: &Paths, side: Side) -> Result<String, String> {
    let volume = Volume::tmpfs(BYTES)?;
    let log_dirs = format!("log.dirs={}", volume.path().join("log").display());
    let more = ["log.segment.bytes=1048576", "log.segment.delete.delay.ms=500"];
    let mut broker = Broker::start(paths, side, &[&log_dirs, more[0], more[1]])?;
    let mut tools = Tools::start(paths, &broker)?;
    tools.expect("kafka-topics --create --topic ballast")?;
    tools.expect(&format!(
        "kafka-producer-perf-test --topic ballast --throughput -1 \
         --num-records {BALLAST_RECORDS} --record-size {BALLAST_RECORD_BYTES}"
    ))?;
    let mut loads = Vec::new();
    for (command, topic) in loads_of(paths)? {
        let mut load = Load::start(&command, &broker, topic, PADDING)?;
        // Before the next one takes what there is.
        load.wait_for_more(MORE, LIMIT)?;
        loads.push(load);
    }
    for load in &mut loads {
        load.wait_until_it_stands(STILL, LIMIT)?;
    }
    producers_wait(&mut tools, &broker, &mut loads)?;
    broker.kill();
    let restart = broker.launch()?.as_millis();
    producers_wait(&mut tools, &broker, &mut loads)?;
    without_a_byte(&mut tools, &volume)?;
    let before: Vec<usize> = loads.iter().map(|load| load.progress().acknowledged()).collect();
    tools.expect("kafka-topics --delete --topic ballast")?;
    let begin = Instant::now();
    for load in &mut loads {
        load.wait_for_more(MORE, LIMIT)?;
    }
    let resumed = begin.elapsed().as_millis();
    for load in &mut loads {
        load.wait_until_committed(LIMIT)?;
    }
    let mut count = 0;
    for load in loads {
        count += load.finish(&broker)?;
    }
    only_expected_errors(&broker)?;
    Ok(format!(
        "{count} records, {before:?} acknowledged when full; listening again after {restart} ms, \
         producers go on {resumed} ms after the deletion"
    ))
}

fn loads_of(paths: &Paths) -> Result<Vec<(Vec<String>, &'static str)>, String> {
    let commands = loads(paths)?;
    // The JVM's comes first, since the other has filled the disk before it is there.
    Ok(commands.into_iter().zip(["librdkafka", "java"]).rev().collect())
}

/// The directory is full to its reserve: producers are refused with an error that they retry; groups read all that was
/// acknowledged, and commit; topics come and go.
fn producers_wait(tools: &mut Tools, broker: &Broker, loads: &mut [Load]) -> Result<(), String> {
    let once = "--command-property retries=0 --command-property enable.idempotence=false";
    let produce = format!("kafka-console-producer --topic ballast {once}");
    tools.refused(&produce, "one\n", "NotEnoughReplicasException")?;
    if !broker.log().contains("disk full") {
        return Err("the broker does not say that its disk is full".to_owned());
    }
    for load in loads.iter_mut() {
        load.wait_until_committed(LIMIT)?;
        let commits = load.progress().commits();
        load.wait("it goes on committing", LIMIT, |now| now.commits() > commits)?;
    }
    tools.expect("kafka-topics --create --topic while-full --partitions 2")?;
    tools.expect("kafka-topics --delete --topic while-full").map(drop)
}

/// Nothing at all can be written. What the controller is asked for is refused, and done once there is space.
fn without_a_byte(tools: &mut Tools, volume: &Volume) -> Result<(), String> {
    let ballast = volume.fill()?;
    // More records than a page of the file system has room for.
    let create = "kafka-topics --create --topic without-a-byte --partitions 200";
    for _ in 0..2 {
        tools.refused(create, "", "Disk error when trying to access log file on the disk")?;
    }
    tools.refused("kafka-topics --describe --topic without-a-byte", "", "does not exist")?;
    remove(&ballast)?;
    tools.expect(create)?;
    tools.expect("kafka-topics --delete --topic without-a-byte").map(drop)
}

fn remove(path: &Path) -> Result<(), String> {
    std::fs::remove_file(path).map_err(|e| format!("{}: {e}", PathBuf::from(path).display()))
}

/// A broker says that its disk is full; nothing else is wrong with it.
fn only_expected_errors(broker: &Broker) -> Result<(), String> {
    let log = broker.log();
    let is_unexpected =
        |line: &&str| line.contains("ERROR") && !line.contains("full") && !line.contains("space");
    match log.lines().find(is_unexpected) {
        Some(line) => Err(format!("unexpected in the broker's log: {line}")),
        None => Ok(()),
    }
}
