//! The stock tools: every transcript in `tools/`, run against a broker of one side.
//!
//! Each file gets a fresh broker. `UPDATE_EXPECT=1` (or `--update`) writes what Apache Kafka prints
//! into the file; without it both sides must print what the file says. With the tools of 3.9.1 that
//! is the file and its [overlay](crate::overlay).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::broker::{Broker, Side};
use crate::commands::{class_of, spelled};
use crate::java::{Answer, KAFKA, KAFKA_OLDER, Running, ToolRunner};
use crate::normalise::{self, Known};
use crate::overlay::Overlay;
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

/// Whether a run checks the expected lines or writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Check,
    Update,
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
    let mut player = Player::start(paths, KAFKA, mode, report)?;
    for (name, file) in files(paths, filter)? {
        let transcript = Transcript::parse(&read(&file)?).map_err(|e| format!("{file:?}: {e}"))?;
        let done = player.play(&name, side, transcript)?;
        if let (Mode::Update, Some(done)) = (mode, done) {
            std::fs::write(&file, done.render()).map_err(|e| format!("{file:?}: {e}"))?;
        }
    }
    Ok(())
}

/// The same with the tools of 3.9.1, against Ottla or against Apache Kafka 3.9.1 and 4.3.1.
///
/// # Errors
/// As [`run`].
pub fn run_older(
    paths: &Paths,
    side: Side,
    filter: &str,
    mode: Mode,
    report: &Report,
) -> Result<(), String> {
    let mut player = Player::start(paths, KAFKA_OLDER, mode, report)?;
    let sides: &[Side] =
        if side.is_kafka() { &[Side::KafkaOlder, Side::Kafka] } else { &[Side::Ottla] };
    for (name, base) in files(paths, filter)? {
        let file = base.with_file_name(KAFKA_OLDER).join(format!("{name}.txt"));
        let mut base = Transcript::parse(&read(&base)?).map_err(|e| format!("{base:?}: {e}"))?;
        base.steps.retain(|step| is_known(step, KAFKA_OLDER));
        let text = if file.exists() { read(&file)? } else { String::new() };
        let overlay = Overlay::parse(&text).map_err(|e| format!("{file:?}: {e}"))?;
        let mut played = Vec::new();
        for side in sides {
            let transcript = overlay.apply(&base, *side).map_err(|e| format!("{file:?}: {e}"))?;
            played.extend(player.play(&name, *side, transcript)?);
        }
        if let (Mode::Update, [older, newer]) = (mode, played.as_slice()) {
            let text = overlay.record(&base, older, newer).render();
            std::fs::write(&file, text).map_err(|e| format!("{file:?}: {e}"))?;
        }
        for step in overlay.unexplained().filter(|_| mode == Mode::Check) {
            let title = format!("tools-{KAFKA_OLDER}/{name}");
            report.failed(&title, &format!("{}\n  no reason after % broker", step.head.join("\n")));
        }
    }
    Ok(())
}

/// Plays the transcript `live/NAME.txt` on a broker that a load writes to, and gives that back.
///
/// # Errors
/// As [`run`].
pub fn play_live(
    paths: &Paths,
    name: &str,
    runner: ToolRunner,
    broker: Broker,
    mode: Mode,
    report: &Report,
) -> Result<Broker, String> {
    let file = paths.sources.join(format!("tools/live/{name}.txt"));
    let transcript = Transcript::parse(&read(&file)?).map_err(|e| format!("{file:?}: {e}"))?;
    let mut player = Player { paths, version: KAFKA, mode, runner, report };
    let (broker, done) = player.play_on(name.to_owned(), broker, transcript)?;
    if mode == Mode::Update {
        std::fs::write(&file, done.render()).map_err(|e| format!("{file:?}: {e}"))?;
    }
    Ok(broker)
}

/// The transcripts whose names contain `filter`, in the order of their names.
fn files(paths: &Paths, filter: &str) -> Result<Vec<(String, PathBuf)>, String> {
    let folder = paths.sources.join("tools");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| format!("{folder:?}: {e}"))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "txt") && name.contains(filter) {
            files.push((name, path));
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|e| format!("{file:?}: {e}"))
}

/// Whether a version has the script that a step runs.
fn is_known(step: &Step, version: &str) -> bool {
    match &step.verb {
        Verb::Run(line) => {
            let script = words(line).into_iter().next().unwrap_or_default();
            class_of(&script, version).is_some()
        }
        _ => true,
    }
}

/// Plays transcripts with the tools of one version.
struct Player<'a> {
    paths: &'a Paths,
    version: &'static str,
    mode: Mode,
    runner: ToolRunner,
    report: &'a Report,
}

impl<'a> Player<'a> {
    fn start(
        paths: &'a Paths,
        version: &'static str,
        mode: Mode,
        report: &'a Report,
    ) -> Result<Player<'a>, String> {
        let runner = ToolRunner::start(paths, version)?;
        Ok(Player { paths, version, mode, runner, report })
    }

    /// Plays one transcript on a fresh broker; answers it with what was printed if it updates.
    fn play(
        &mut self,
        name: &str,
        side: Side,
        transcript: Transcript,
    ) -> Result<Option<Transcript>, String> {
        let name = match self.version {
            KAFKA => format!("tools/{name}"),
            version => format!("tools-{version}/{name}"),
        };
        let broker = match Broker::start(self.paths, side, &[]) {
            Ok(broker) => broker,
            Err(e) => {
                self.report.failed(&format!("{name} [{side}]"), &e);
                return Ok(None);
            }
        };
        self.play_on(name, broker, transcript).map(|(_, done)| Some(done))
    }

    /// Plays one transcript on this broker; answers both, the transcript with what was printed if it updates.
    fn play_on(
        &mut self,
        name: String,
        broker: Broker,
        transcript: Transcript,
    ) -> Result<(Broker, Transcript), String> {
        let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut session = Session {
            name,
            version: self.version,
            mode: self.mode,
            known: known(&broker, scratch.path()),
            broker,
            runner: &mut self.runner,
            scratch: scratch.path(),
            background: BTreeMap::new(),
            report: self.report,
        };
        let done = session.play(transcript);
        Ok((session.broker, done))
    }
}

fn known(broker: &Broker, scratch: &Path) -> Known {
    let words = vec![
        (broker.log_dir().with_file_name("log2").to_string_lossy().into_owned(), "LOGDIR2"),
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
    version: &'static str,
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
                self.report.failed(&self.name, "given up");
                break;
            }
            let begin = Instant::now();
            let title = format!("{}:{} [{}]", self.name, step.line, self.broker.side());
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
            Verb::Broker(_) => Err("% broker belongs to the files of an older version".to_owned()),
        }
    }

    fn command(&mut self, step: &Step, line: &str) -> Result<Option<Vec<String>>, String> {
        let mut words = words(line).into_iter();
        let script = words.next().unwrap_or_default();
        let main = class_of(&script, self.version).ok_or_else(|| format!("no tool {script}"))?;
        let args = words.map(|word| self.fill(&word)).collect();
        let args = spelled(&script, args, self.version);
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
            let same = before.iter().rev().take_while(|before| **before == actual).count();
            let is_expected = actual == step.expected;
            let is_settled = match (self.mode, step.marks.retry) {
                (Mode::Check, _) => is_expected || begin.elapsed() > RETRY_LIMIT,
                (Mode::Update, true) => same >= 12,
                (Mode::Update, false) => is_expected || same >= 4,
            };
            // Apache Kafka publishes a change a moment after it has answered; Ottla does at once.
            let is_late = self.broker.side().is_kafka() && only_reads(&script, &args);
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
