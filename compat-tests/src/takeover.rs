//! Apache Kafka stops or is killed, Ottla starts on its directory, and Kafka starts again on Ottla's.
//!
//! What the Java client reads of the cluster, records, topics' settings, groups' offsets, must be the same before and
//! after each change of brokers; after each the cluster is written to, topics created and deleted; `ottla check` finds
//! nothing wrong, and the topic ids on disk stay.
//!
//! Of Kafka 2.8.2 the topics' settings are in a ZooKeeper, which Ottla reads and leaves as it is: Kafka knows nothing
//! of topics that were created or deleted under Ottla, so those of the rounds are left out of what is compared then.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::{Broker, Side};
use crate::clients;
use crate::java::{KAFKA, KAFKA_ZOOKEEPER, checked};
use crate::paths::Paths;
use crate::report::Report;

const SIDES: [Side; 4] = [Side::Kafka, Side::KafkaOlder, Side::KafkaNewer, Side::KafkaZooKeeper];

/// How long a broker may take from listening to knowing its topics: with ZooKeeper the controller tells it.
const KNOWN_LIMIT: Duration = Duration::from_secs(30);

/// What the scenario with ZooKeeper makes brokers say: of a first start, of a topic that Ottla made, and of indexes
/// that a broker had not written when it was killed.
const EXPECTED: [&str; 3] = [
    "No meta.properties file under dir",
    "was made here: Kafka with ZooKeeper does not know it",
    "recovering segment and rebuilding index files",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
}

/// Runs the cases whose names, such as `kafka-3.9.1-kill`, contain `filter`.
///
/// # Errors
/// If the client cannot be built.
pub fn run(paths: &Paths, filter: &str, report: &Report) -> Result<(), String> {
    let client = clients::java_client(paths, KAFKA, "Takeover")?;
    let old_client = clients::java_client(paths, KAFKA_ZOOKEEPER, "Takeover")?;
    for (side, end) in SIDES.into_iter().flat_map(|side| [(side, End::Stop), (side, End::Kill)]) {
        let name = format!("{side}-{}", if end == End::Stop { "stop" } else { "kill" });
        if !name.contains(filter) {
            continue;
        }
        let title = format!("takeover/{name}");
        let begin = Instant::now();
        let result = match side {
            Side::KafkaZooKeeper => zookeeper_scenario(paths, end, &old_client),
            _ => scenario(paths, side, end, &client),
        };
        match result {
            Ok(()) => report.passed(&title, begin.elapsed()),
            Err(e) => report.failed(&title, &e),
        }
    }
    Ok(())
}

fn scenario(paths: &Paths, side: Side, end: End, client: &[String]) -> Result<(), String> {
    let mut broker = Broker::start(paths, side, &[])?;
    call(client, &["write", &broker.address(), "0", "transactions"])?;
    let of_kafka = digest(client, &broker)?;
    change(&mut broker, Side::Ottla, end)?;
    let ids = topic_ids(&broker)?;
    same(&of_kafka, &digest(client, &broker)?, "Ottla on Kafka's directory")?;
    call(client, &["write", &broker.address(), "1"])?;
    let of_ottla = digest(client, &broker)?;
    change(&mut broker, side, end)?;
    same(&of_ottla, &digest(client, &broker)?, "Kafka on Ottla's directory")?;
    let ids_after = topic_ids(&broker)?;
    for (partition, id) in ids.iter().filter(|(name, _)| !name.starts_with("round-0")) {
        if ids_after.get(partition) != Some(id) {
            return Err(format!("{partition} has another topic id, or none"));
        }
    }
    call(client, &["write", &broker.address(), "2", "transactions"])?;
    if end == End::Stop { broker.stop() } else { Ok(()) }
}

fn zookeeper_scenario(paths: &Paths, end: End, client: &[String]) -> Result<(), String> {
    let side = Side::KafkaZooKeeper;
    let mut broker = Broker::start(paths, side, &[])?;
    let address = broker.address();
    call(client, &["write", &address, "0", "transactions"])?;
    let of_kafka = digest(client, &broker)?;
    let ids = topic_ids(&broker)?;
    change(&mut broker, Side::Ottla, end)?;
    same(&of_kafka, &digest(client, &broker)?, "Ottla on Kafka's directory")?;
    // A start on its own metadata log would raise leader epochs, if they did not have to stand still.
    change(&mut broker, Side::Ottla, end)?;
    call(client, &["write", &address, "1"])?;
    let of_ottla = digest(client, &broker)?;
    change(&mut broker, side, end)?;
    let before = lasting(&of_ottla);
    same(&before, &lasting(&digest(client, &broker)?), "Kafka on Ottla's directory")?;
    call(client, &["write", &address, "2", "keep", "transactions"])?;
    let of_kafka = digest(client, &broker)?;
    change(&mut broker, Side::Ottla, end)?;
    let before = lasting(&of_kafka);
    let after = digest(client, &broker)?;
    same(&before, &lasting(&after), "Ottla on Kafka's directory again")?;
    let of_round_1 = |line: &&String| line.starts_with("d round-1");
    let made: Vec<String> = of_ottla.iter().filter(of_round_1).cloned().collect();
    let kept: Vec<String> = after.iter().filter(of_round_1).cloned().collect();
    same(&made, &kept, "Ottla's own topic")?;
    let ids_after = topic_ids(&broker)?;
    for (partition, id) in ids.iter().filter(|(name, _)| !name.starts_with("round-0")) {
        if ids_after.get(partition) != Some(id) {
            return Err(format!("{partition} has another topic id, or none"));
        }
    }
    quiet(&broker)
}

/// The lines of topics that are not of one round alone.
fn lasting(lines: &[String]) -> Vec<String> {
    lines.iter().filter(|line| !line.starts_with("d round-")).cloned().collect()
}

/// Neither broker has anything to complain of but what the scenario makes.
fn quiet(broker: &Broker) -> Result<(), String> {
    let log = broker.log();
    let loud = |line: &&str| {
        let is_loud = line.contains("WARN") || line.contains("ERROR");
        is_loud && !EXPECTED.iter().any(|expected| line.contains(expected))
    };
    match log.lines().find(loud) {
        Some(line) => Err(format!("the brokers' log has: {line}")),
        None => Ok(()),
    }
}

/// Ends the process, has the directory checked and starts the next one on it.
fn change(broker: &mut Broker, next: Side, end: End) -> Result<(), String> {
    match end {
        End::Stop => broker.stop()?,
        End::Kill => broker.kill(),
    }
    check(broker)?;
    broker.hand_over(next);
    broker.launch().map(|_| ())
}

fn check(broker: &Broker) -> Result<(), String> {
    let mut command = Command::new(broker.ottla());
    command.arg("check").arg(broker.log_dir()).stdin(Stdio::null());
    checked(&mut command, "ottla check").map(|_| ())
}

fn call(client: &[String], args: &[&str]) -> Result<String, String> {
    let (program, first) = client.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command.args(first).args(args).stdin(Stdio::null());
    checked(&mut command, &format!("Takeover {}", args.join(" ")))
}

fn digest(client: &[String], broker: &Broker) -> Result<Vec<String>, String> {
    let begin = Instant::now();
    while begin.elapsed() < KNOWN_LIMIT {
        let text = call(client, &["digest", &broker.address()])?;
        let lines: Vec<String> =
            text.lines().filter(|line| line.starts_with("d ")).map(str::to_owned).collect();
        if !lines.is_empty() {
            return Ok(lines);
        }
    }
    Err("the digest is empty".to_owned())
}

fn same(before: &[String], after: &[String], who: &str) -> Result<(), String> {
    if before == after {
        return Ok(());
    }
    let pairs = before.iter().zip(after).find(|(before, after)| before != after);
    Err(format!("{who}: {} lines, then {}; first difference {pairs:?}", before.len(), after.len()))
}

/// What each partition's directory says of its topic.
fn topic_ids(broker: &Broker) -> Result<BTreeMap<String, String>, String> {
    let dir = broker.log_dir();
    let entries = std::fs::read_dir(&dir).map_err(|e| format!("{dir:?}: {e}"))?;
    let mut ids = BTreeMap::new();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains('.') {
            continue;
        }
        if let Ok(text) = std::fs::read_to_string(entry.path().join("partition.metadata")) {
            ids.insert(name, text);
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_line_and_a_missing_line_are_differences() {
        let lines =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(same(&lines(&["d a 1"]), &lines(&["d a 1"]), "x"), Ok(()));
        assert!(
            same(&lines(&["d a 1"]), &lines(&["d a 2"]), "x").is_err_and(|e| e.contains("a 2"))
        );
        assert!(same(&lines(&["d a 1", "d b"]), &lines(&["d a 1"]), "x").is_err());
    }
}
