//! Who may join a cluster of three voters, who is refused, and what is left of it without a majority.
//!
//! | Scenario | What happens |
//! | --- | --- |
//! | `cluster:observer` | a broker that is no voter joins, gets replicas and leads them, dies and comes back |
//! | `cluster:twins` | a second broker with the id of one that is there is refused and ends |
//! | `cluster:foreign` | a broker whose directory belongs to another cluster is refused and ends |
//! | `cluster:minority` | two voters die: what the third leads is read, nothing is created; they come back |

use std::time::{Duration, Instant};

use crate::broker::{Broker, Side};
use crate::cluster::{self, Cluster, SETTLE_LIMIT};
use crate::disk::{Tools, judge};
use crate::paths::Paths;
use crate::report::Report;

/// The id of the broker that comes.
const NEW: i32 = 4;
/// A cluster that is not this one.
const OTHER_CLUSTER_ID: &str = "another-cluster-of-000";
/// How long a broker that is refused may take to end.
const REFUSAL_LIMIT: Duration = Duration::from_secs(60);

type Scenario = fn(&Paths, &mut Cluster, Tools) -> Result<String, String>;

const SCENARIOS: [(&str, Scenario); 4] =
    [("observer", observer), ("twins", twins), ("foreign", foreign), ("minority", minority)];

/// Runs the scenarios whose names contain `filter`.
///
/// # Errors
/// If a cluster does not start.
pub fn run(paths: &Paths, side: Side, filter: &str, report: &Report) -> Result<(), String> {
    for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| name.contains(filter)) {
        let mut cluster = Cluster::start(paths, side, 3, &[])?;
        judge(&format!("cluster/{name} [{side}]"), report, || {
            let tools = Tools::start_at(paths, &cluster.servers())?;
            let name = format!("cluster-{name}");
            cluster::keeping(paths, &mut cluster, &name, |cluster| scenario(paths, cluster, tools))
        });
    }
    Ok(())
}

fn produce(tools: &mut Tools, topic: &str, lines: &str) -> Result<(), String> {
    let line = format!("kafka-console-producer --topic {topic}");
    let answer = tools.run_with(&line, lines)?;
    match answer.status == 0 && !answer.err.contains("ERROR") {
        true => Ok(()),
        false => Err(format!("{line}: {}\n{}{}", answer.status, answer.out, answer.err)),
    }
}

/// What one partition holds.
fn read(tools: &mut Tools, topic: &str, count: usize) -> Result<String, String> {
    tools.expect(&format!(
        "kafka-console-consumer --topic {topic} --partition 0 --offset earliest --max-messages {count} \
         --timeout-ms 20000"
    ))
}

fn expect_lines(text: &str, wanted: &str) -> Result<(), String> {
    if text == wanted { Ok(()) } else { Err(format!("read {text:?}, not {wanted:?}")) }
}

fn observer(paths: &Paths, cluster: &mut Cluster, mut tools: Tools) -> Result<String, String> {
    let broker = cluster.seat_broker(paths, NEW, None)?;
    cluster.join(broker);
    cluster.launch(NEW)?;
    cluster.await_members()?;
    tools.until("kafka-metadata-quorum describe --replication", SETTLE_LIMIT, |text| {
        let is_it = |line: &str| line.starts_with("4\t") || line.starts_with("4 ");
        match text.lines().any(|line| is_it(line) && line.contains("Observer")) {
            true => Ok(()),
            false => Err("node 4 is no observer".to_owned()),
        }
    })?;
    cluster.create("watched", &[vec![1, 2, 3]], &[])?;
    produce(&mut tools, "watched", "one\ntwo\n")?;
    cluster.lead("watched", &[vec![NEW, 1, 2]])?;
    produce(&mut tools, "watched", "three\n")?;
    expect_lines(&read(&mut tools, "watched", 3)?, "one\ntwo\nthree\n")?;
    cluster.kill(NEW);
    cluster.wait("another node leads", SETTLE_LIMIT, |cluster| {
        match cluster.partitions("watched")?.first() {
            Some(one) if [1, 2].contains(&one.leader) && one.isr == [1, 2] => Ok(()),
            one => Err(format!("{one:?}")),
        }
    })?;
    produce(&mut tools, "watched", "four\n")?;
    cluster.launch(NEW)?;
    cluster.await_in_sync(&["watched"])?;
    cluster.elect_preferred("watched")?;
    expect_lines(&read(&mut tools, "watched", 4)?, "one\ntwo\nthree\nfour\n")?;
    Ok("an observer led, died and led again".to_owned())
}

/// A broker that is refused says so and ends, and the others go on as before.
fn refused(cluster: &mut Cluster, mut broker: Broker, words: &[&str]) -> Result<String, String> {
    let before = cluster.ids();
    let begin = Instant::now();
    broker.spawn()?;
    let status = broker.wait_for_end(REFUSAL_LIMIT)?;
    let (took, log) = (begin.elapsed().as_millis(), broker.log());
    if status.success() {
        return Err(format!("it ended as if all were well: {log}"));
    }
    let Some(said) = words.iter().find_map(|word| log.lines().find(|line| line.contains(word)))
    else {
        return Err(format!("it does not say why it ended, no {words:?}: {log}"));
    };
    cluster.await_members()?;
    if cluster.ids() != before {
        return Err("the cluster has other nodes than before".to_owned());
    }
    Ok(format!("ended after {took} ms: {}", said.trim()))
}

fn twins(paths: &Paths, cluster: &mut Cluster, _: Tools) -> Result<String, String> {
    let broker = cluster.seat_broker(paths, NEW, None)?;
    let first = broker.address();
    cluster.join(broker);
    cluster.launch(NEW)?;
    cluster.await_members()?;
    let twin = cluster.seat_broker(paths, NEW, None)?;
    let words: &[&str] = match cluster.side() {
        Side::Ottla => &[&first],
        _ => &["unable to register"],
    };
    refused(cluster, twin, words)
}

fn foreign(paths: &Paths, cluster: &mut Cluster, _: Tools) -> Result<String, String> {
    let stranger = cluster.seat_broker(paths, NEW, Some(OTHER_CLUSTER_ID))?;
    let words: &[&str] = match cluster.side() {
        Side::Ottla => &[OTHER_CLUSTER_ID],
        _ => &["INCONSISTENT_CLUSTER_ID", "Unable to register"],
    };
    refused(cluster, stranger, words)
}

fn minority(_: &Paths, cluster: &mut Cluster, mut tools: Tools) -> Result<String, String> {
    let left = 2;
    cluster.create("kept", &[vec![left, 1, 3]], &[("min.insync.replicas", "1")])?;
    produce(&mut tools, "kept", "one\ntwo\n")?;
    cluster.kill(1);
    cluster.kill(3);
    // Nobody can take the lead away from the node that has it, and what is committed is read.
    expect_lines(&read(&mut tools, "kept", 2)?, "one\ntwo\n")?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let file = folder.path().join("patience");
    std::fs::write(&file, "default.api.timeout.ms=6000\nrequest.timeout.ms=5000\n")
        .map_err(|e| format!("{file:?}: {e}"))?;
    let create = format!(
        "kafka-topics --create --topic never --partitions 1 --replication-factor 1 --command-config {}",
        file.display()
    );
    tools.refused(&create, "", "TimeoutException")?;
    cluster.launch_all()?;
    cluster.await_in_sync(&["kept"])?;
    produce(&mut tools, "kept", "three\n")?;
    expect_lines(&read(&mut tools, "kept", 3)?, "one\ntwo\nthree\n")?;
    Ok("one of three served what it led".to_owned())
}
