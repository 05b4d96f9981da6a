//! The stock tools: every transcript in `tools/`, run against a broker of one side.
//!
//! Each file gets a fresh broker. `UPDATE_EXPECT=1` (or `--update`) writes what Apache Kafka prints
//! into the file; without it both sides must print what the file says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::broker::{Broker, Side};
use crate::java::{Answer, KAFKA, Running, ToolRunner};
use crate::normalise::{self, Known};
use crate::paths::Paths;
use crate::report::Report;
use crate::transcript::{Marks, Step, Transcript, Verb, words};

/// How long one command line may take.
const LIMIT: Duration = Duration::from_secs(30);
/// After so many command lines without an end the rest of a file is not tried.
const HANGS_MAX: usize = 3;
/// How long a command is repeated until it prints what is expected.
const RETRY_LIMIT: Duration = Duration::from_secs(20);
/// The pause between two such attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// The names of Kafka's scripts and the classes that they run.
const TOOLS: &[(&str, &str)] = &[
    ("kafka-topics", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer"),
    ("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("kafka-consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("kafka-configs", "kafka.admin.ConfigCommand"),
    ("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
    ("kafka-delete-records", "org.apache.kafka.tools.DeleteRecordsCommand"),
    ("kafka-log-dirs", "org.apache.kafka.tools.LogDirsCommand"),
    ("kafka-broker-api-versions", "org.apache.kafka.tools.BrokerApiVersionsCommand"),
    ("kafka-cluster", "org.apache.kafka.tools.ClusterTool"),
    ("kafka-features", "org.apache.kafka.tools.FeatureCommand"),
    ("kafka-metadata-quorum", "org.apache.kafka.tools.MetadataQuorumCommand"),
    ("kafka-groups", "org.apache.kafka.tools.GroupsCommand"),
    ("kafka-verifiable-producer", "org.apache.kafka.tools.VerifiableProducer"),
    ("kafka-verifiable-consumer", "org.apache.kafka.tools.VerifiableConsumer"),
    ("kafka-leader-election", "org.apache.kafka.tools.LeaderElectionCommand"),
    ("kafka-reassign-partitions", "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"),
    ("kafka-producer-perf-test", "org.apache.kafka.tools.ProducerPerformance"),
    ("kafka-consumer-perf-test", "org.apache.kafka.tools.ConsumerPerformance"),
    ("kafka-transactions", "org.apache.kafka.tools.TransactionsCommand"),
    ("kafka-acls", "org.apache.kafka.tools.AclCommand"),
    ("kafka-client-metrics", "org.apache.kafka.tools.ClientMetricsCommand"),
    ("kafka-replica-verification", "org.apache.kafka.tools.ReplicaVerificationTool"),
    ("kafka-dump-log", "org.apache.kafka.tools.DumpLogSegments"),
];

/// Whether a run checks the expected lines or writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Check,
    Update,
}

/// The transcripts in the order of their names.
///
/// # Errors
/// If the directory cannot be read.
pub fn files(paths: &Paths) -> Result<Vec<PathBuf>, String> {
    let folder = paths.sources.join("tools");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| format!("{folder:?}: {e}"))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Runs transcripts whose names contain `filter` against one side.
///
/// # Errors
/// If a file is malformed or the tools cannot be started; differences go to the report.
pub fn run(
    paths: &Paths,
    side: Side,
    filter: &str,
    mode: Mode,
    report: &Report,
) -> Result<(), String> {
    let mut runner = ToolRunner::start(paths, KAFKA)?;
    for file in files(paths)? {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !name.contains(filter) {
            continue;
        }
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{file:?}: {e}"))?;
        let transcript = Transcript::parse(&text).map_err(|e| format!("{file:?}: {e}"))?;
        let broker = match Broker::start(paths, side, &[]) {
            Ok(broker) => broker,
            Err(e) => {
                report.failed(&format!("tools/{name} [{side}]"), &e);
                continue;
            }
        };
        let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut session = Session {
            name,
            mode,
            known: known(&broker, scratch.path()),
            broker,
            runner: &mut runner,
            scratch: scratch.path(),
            background: BTreeMap::new(),
            report,
        };
        let done = session.play(transcript);
        if mode == Mode::Update {
            std::fs::write(&file, done.render()).map_err(|e| format!("{file:?}: {e}"))?;
        }
    }
    Ok(())
}

fn known(broker: &Broker, scratch: &Path) -> Known {
    let words = vec![
        (broker.log_dir().to_string_lossy().into_owned(), "LOGDIR"),
        (scratch.to_string_lossy().into_owned(), "TMP"),
        (broker.address(), "BROKER"),
        (broker.port().to_string(), "PORT"),
    ];
    Known { words }
}

/// One transcript on one broker.
struct Session<'a> {
    name: String,
    mode: Mode,
    known: Known,
    broker: Broker,
    runner: &'a mut ToolRunner,
    scratch: &'a Path,
    background: BTreeMap<String, Running>,
    report: &'a Report,
}

impl Session<'_> {
    fn play(&mut self, mut transcript: Transcript) -> Transcript {
        let mut hangs = 0;
        for step in &mut transcript.steps {
            if hangs == HANGS_MAX {
                self.report.failed(&format!("tools/{}", self.name), "given up");
                break;
            }
            let begin = Instant::now();
            let title = format!("tools/{}:{} [{}]", self.name, step.line, self.broker.side());
            match self.step(step) {
                Err(e) => {
                    hangs += 1;
                    self.report.failed(&title, &format!("{}\n{e}", step.head.join("\n")));
                }
                Ok(None) => {}
                Ok(Some(actual)) if self.mode == Mode::Update => step.expected = actual,
                Ok(Some(actual)) => self.judge(&title, step, &actual, begin),
            }
        }
        transcript
    }

    fn judge(&self, title: &str, step: &Step, actual: &[String], begin: Instant) {
        let is_pending = self.broker.side() == Side::Ottla && step.marks.pending.is_some();
        match (actual == step.expected, is_pending) {
            (true, false) => self.report.passed(title, begin.elapsed()),
            (true, true) => self.report.failed(title, "passes: remove its % pending"),
            (false, true) => self.report.pending(title, step.marks.pending.as_deref()),
            (false, false) => {
                let head = step.head.join("\n");
                self.report.failed(title, &format!("{head}\n{}", diff(&step.expected, actual)));
            }
        }
    }

    /// Does one step; answers the lines to compare, if it has any.
    fn step(&mut self, step: &Step) -> Result<Option<Vec<String>>, String> {
        match &step.verb {
            Verb::File(name) => {
                let path = self.scratch.join(name);
                let text = self.fill(&step.input);
                std::fs::write(&path, text).map_err(|e| format!("{path:?}: {e}"))?;
                Ok(None)
            }
            Verb::Restart => {
                self.broker.stop()?;
                self.broker.launch()?;
                Ok(None)
            }
            Verb::Stop(name) => {
                let running = self.background.remove(name).ok_or("nothing runs by this name")?;
                self.runner.stop(&running)?;
                let answer = running.wait(LIMIT)?;
                Ok(Some(self.comparable(&answer, &step.marks)))
            }
            Verb::Wait(name) => {
                let running = self.background.remove(name).ok_or("nothing runs by this name")?;
                let answer = running.wait(LIMIT)?;
                Ok(Some(self.comparable(&answer, &step.marks)))
            }
            Verb::Run(line) => self.command(step, line),
        }
    }

    fn command(&mut self, step: &Step, line: &str) -> Result<Option<Vec<String>>, String> {
        let mut words = words(line).into_iter();
        let script = words.next().unwrap_or_default();
        let main = TOOLS.iter().find(|(name, _)| *name == script).map(|(_, main)| *main);
        let main = main.ok_or_else(|| format!("no tool {script}"))?;
        let args: Vec<String> = words.map(|word| self.fill(&word)).collect();
        let input = self.fill(&step.input);
        if let Some(name) = &step.marks.background {
            let running = self.runner.spawn(main, &args, &input)?;
            self.background.insert(name.clone(), running);
            return Ok(None);
        }
        let begin = Instant::now();
        let mut before: Vec<Vec<String>> = Vec::new();
        loop {
            let answer = self.runner.run(main, &args, &input, LIMIT)?;
            let actual = self.comparable(&answer, &step.marks);
            let is_settled = match self.mode {
                Mode::Check => actual == step.expected || begin.elapsed() > RETRY_LIMIT,
                Mode::Update => before.iter().rev().take_while(|b| **b == actual).count() >= 12,
            };
            // Apache Kafka publishes a change a moment after it has answered; Ottla does at once.
            let is_late = self.mode == Mode::Check
                && self.broker.side() == Side::Kafka
                && only_reads(&script, &args);
            if !(step.marks.retry || is_late) || is_settled {
                return Ok(Some(actual));
            }
            before.push(actual);
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (value, word) in &self.known.words {
            text = text.replace(word, value);
        }
        text
    }

    fn comparable(&self, answer: &Answer, marks: &Marks) -> Vec<String> {
        let mut all = Vec::new();
        for (sign, text) in [('>', &answer.out), ('!', &answer.err)] {
            let mut lines = normalise::lines(text, &self.known);
            if marks.numbers {
                lines = lines.iter().map(|line| normalise::without_numbers(line)).collect();
            }
            if marks.sort {
                lines.sort();
            }
            all.extend(lines.iter().map(|line| format!("{sign} {line}").trim_end().to_owned()));
        }
        all.push(format!("= {}", answer.status));
        all
    }
}

/// Whether the command changes nothing, so that it may be run again.
fn only_reads(script: &str, args: &[String]) -> bool {
    let is_read = |arg: &String| arg == "--list" || arg == "--describe" || arg == "describe";
    script == "kafka-get-offsets" || args.iter().any(is_read)
}

/// The lines that differ: `-` only expected, `+` only printed; equal ones at the ends are left out.
fn diff(expected: &[String], actual: &[String]) -> String {
    let common =
        |a: &mut dyn Iterator<Item = (&String, &String)>| a.take_while(|(a, b)| a == b).count();
    let front = common(&mut expected.iter().zip(actual));
    let (expected, actual) = (&expected[front..], &actual[front..]);
    let back = common(&mut expected.iter().rev().zip(actual.iter().rev()));
    let minus = expected[..expected.len() - back].iter().map(|line| format!("  - {line}"));
    let plus = actual[..actual.len() - back].iter().map(|line| format!("  + {line}"));
    minus.chain(plus).collect::<Vec<_>>().join("\n")
}
