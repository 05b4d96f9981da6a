//! Two Flume agents move events through the broker, both killed and started again midway.
//!
//! The first reads a topic with `KafkaSource` into a `KafkaChannel`, the second takes them out of
//! that channel with `KafkaSink` into another topic. Flume delivers at least once: every event must
//! arrive, some may arrive twice.
//!
//! `COMPAT_EVENTS` is their number.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::{Broker, Side};
use crate::clients;
use crate::java::{self, KAFKA, ToolRunner, checked};
use crate::paths::Paths;
use crate::report::Report;

const FLUME: &str = "1.11.0";
const EVENTS_DEFAULT: u32 = 2000;
const LIMIT: Duration = Duration::from_secs(120);
/// The events go in within some seconds, so that the kills meet them.
const EVENTS_PER_SECOND: u32 = 500;

const SOURCE: &str = "
a.sources = s
a.channels = c
a.sources.s.type = org.apache.flume.source.kafka.KafkaSource
a.sources.s.kafka.bootstrap.servers = BROKER
a.sources.s.kafka.topics = in
a.sources.s.kafka.consumer.group.id = source
a.sources.s.kafka.consumer.auto.offset.reset = earliest
a.sources.s.kafka.consumer.session.timeout.ms = 6000
a.sources.s.channels = c
a.channels.c.type = org.apache.flume.channel.kafka.KafkaChannel
a.channels.c.kafka.bootstrap.servers = BROKER
a.channels.c.kafka.topic = channel
";
const SINK: &str = "
a.sinks = k
a.channels = c
a.sinks.k.type = org.apache.flume.sink.kafka.KafkaSink
a.sinks.k.kafka.bootstrap.servers = BROKER
a.sinks.k.kafka.topic = out
a.sinks.k.allowTopicOverride = false
a.sinks.k.channel = c
a.channels.c.type = org.apache.flume.channel.kafka.KafkaChannel
a.channels.c.kafka.bootstrap.servers = BROKER
a.channels.c.kafka.topic = channel
a.channels.c.kafka.consumer.group.id = sink
a.channels.c.kafka.consumer.auto.offset.reset = earliest
a.channels.c.kafka.consumer.session.timeout.ms = 6000
";

/// Fetches Flume.
///
/// # Errors
/// If Maven is missing or fails.
pub fn fetch(paths: &Paths) -> Result<(), String> {
    java::jars(paths, "flume", FLUME).map(|_| ())
}

/// Runs it against one side.
///
/// # Errors
/// If broker, tools or Flume cannot be started.
pub fn run(paths: &Paths, side: Side, report: &Report) -> Result<(), String> {
    let libs = java::jars(paths, "flume", FLUME)?;
    let broker = Broker::start(paths, side, &[])?;
    let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
    let title = format!("flume/{FLUME} [{side}]");
    let begin = Instant::now();
    match scenario(paths, &broker, &libs, scratch.path()) {
        Ok(text) => {
            println!("{title}: {text}");
            report.passed(&title, begin.elapsed());
        }
        Err(e) => {
            let log = std::fs::read_to_string(scratch.path().join("agents.log"));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(20)..].join("\n");
            report.failed(&title, &format!("{e}\n{end}"));
        }
    }
    Ok(())
}

fn scenario(paths: &Paths, broker: &Broker, libs: &Path, scratch: &Path) -> Result<String, String> {
    let events = std::env::var("COMPAT_EVENTS").ok().and_then(|text| text.parse().ok());
    let events: u32 = events.unwrap_or(EVENTS_DEFAULT);
    let mut runner = ToolRunner::start(paths, KAFKA)?;
    for topic in ["in", "channel", "out"] {
        let args = ["--bootstrap-server", &broker.address(), "--create", "--topic", topic];
        let args: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
        let main = "org.apache.kafka.tools.TopicCommand";
        runner.run(main, &args, "", Duration::from_secs(30))?;
    }
    let address = broker.address();
    let [count, rate] = [events, EVENTS_PER_SECOND].map(|number| number.to_string());
    let args = ["--bootstrap-server", &address, "--topic", "in", "--max-messages", &count];
    let args = args.into_iter().chain(["--throughput", &rate]).map(str::to_owned);
    let args: Vec<String> = args.collect();
    let agents = [("source", SOURCE), ("sink", SINK)];
    let start = |(name, text)| Agent::start(libs, scratch, broker, name, text);
    let mut running = [start(agents[0])?, start(agents[1])?];
    let producing = runner.spawn("org.apache.kafka.tools.VerifiableProducer", &args, "")?;
    wait_for(broker, "out", 1)?;
    for (agent, running) in agents.into_iter().zip(&mut running) {
        running.0.kill().map_err(|e| e.to_string())?;
        *running = start(agent)?;
    }
    let produced = producing.wait(LIMIT)?;
    if produced.status != 0 {
        return Err(format!("the producer failed: {}{}", produced.out, produced.err));
    }
    let arrived = wait_for(broker, "out", events)?;
    Ok(format!("{events} events, {arrived} arrivals"))
}

/// Waits until so many different values are in the topic; answers how many records that took.
fn wait_for(broker: &Broker, topic: &str, events: u32) -> Result<usize, String> {
    let begin = Instant::now();
    loop {
        let program = clients::librdkafka()?;
        let mut read = Command::new(&program[0]);
        read.args(["read", &broker.address(), topic, "1"]).stdin(Stdio::null());
        let text = checked(&mut read, "reader")?;
        let values: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("r 0 ")).collect();
        let different: BTreeSet<&str> = values.iter().copied().collect();
        if different.len() >= events as usize {
            return Ok(values.len());
        }
        if begin.elapsed() > LIMIT {
            return Err(format!("{} of {events} events arrived", different.len()));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// A Flume process; dropped, it is killed.
struct Agent(Child);

impl Agent {
    fn start(
        libs: &Path,
        scratch: &Path,
        broker: &Broker,
        name: &str,
        text: &str,
    ) -> Result<Agent, String> {
        let file = scratch.join(format!("{name}.properties"));
        let text = text.replace("BROKER", &broker.address());
        std::fs::write(&file, text).map_err(|e| format!("{file:?}: {e}"))?;
        let mut options = std::fs::File::options();
        let log = options.create(true).append(true).open(scratch.join("agents.log"));
        let log = log.map_err(|e| format!("agents.log: {e}"))?;
        let log_of_errors = log.try_clone().map_err(|e| e.to_string())?;
        let mut command = Command::new("java");
        command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        command.arg(format!("{}/*", libs.display())).arg("org.apache.flume.node.Application");
        command.args(["--no-reload-conf", "-n", "a", "-f"]).arg(&file).current_dir(scratch);
        command.stdin(Stdio::null()).stdout(log).stderr(log_of_errors);
        command.spawn().map(Agent).map_err(|e| format!("java does not start: {e}"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
