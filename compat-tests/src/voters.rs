//! A quorum of one voter grows to three and shrinks to another one, with the tools of 4.3.1, while clients write.
//!
//! The first node is formatted as a quorum of its own, the others as nodes that are to be added; each is, and then the
//! first, which leads, and one more are taken out again. The clients' topic stays on the first node, whose records must
//! all be there, in order and once.

use std::collections::BTreeSet;

use crate::broker::Side;
use crate::cluster::{Cluster, SETTLE_LIMIT};
use crate::disk::{Tools, judge};
use crate::paths::Paths;
use crate::report::Report;
use crate::writer::{self, Job, PAUSE_US, Tape, Work, Writer};

/// One node must do for the topics of a cluster that begins with one.
const ALONE: [&str; 5] = [
    "offsets.topic.replication.factor=1",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
];
/// What tells how the quorum is.
const STATUS: &str = "kafka-metadata-quorum describe --status";

/// Runs it.
///
/// # Errors
/// If the clients cannot be built or a node cannot be formatted.
pub fn run(paths: &Paths, side: Side, report: &Report) -> Result<(), String> {
    let commands = writer::commands(paths)?;
    let mut cluster = Cluster::seat_growing(paths, side, 3, &ALONE)?;
    judge(&format!("cluster/grow [{side}]"), report, || {
        writer::taped(paths, &mut cluster, "cluster-grow", |cluster, tape| {
            cluster.launch(1)?;
            let tools = Tools::start_at(paths, &cluster.node(1).address())?;
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
    let mut writers = Vec::new();
    for command in commands {
        let topic = format!("written-{}", command.0);
        let create =
            format!("kafka-topics --create --topic {topic} --partitions 4 --replication-factor 1");
        tools.expect(&create)?;
        let group = format!("group-{}", command.0);
        let job = Job {
            topic: &topic,
            partitions: 4,
            work: Work::On { pause_us: PAUSE_US, group: Some(&group) },
        };
        writers.push(Writer::start(command, &cluster.node(1).address(), &job, tape)?);
    }
    writer::go_on(&mut writers)?;
    for id in [2, 3] {
        cluster.launch(id)?;
        until(&mut tools, |quorum| quorum.observers.contains(&id))?;
        tape.note(&format!("add {id}"));
        let config = cluster.node(id).config();
        let add =
            format!("kafka-metadata-quorum --command-config {} add-controller", config.display());
        tools.until(&add, SETTLE_LIMIT, |_| Ok(()))?;
        until(&mut tools, |quorum| quorum.voters.contains(&id) && !quorum.observers.contains(&id))?;
        writer::go_on(&mut writers)?;
    }
    cluster.await_members()?;
    let replicas = tools.expect("kafka-metadata-quorum describe --replication")?;
    for id in cluster.ids() {
        let (id, directory) = (id.to_string(), directory(cluster, id)?);
        let is_it = |line: &str| {
            let mut words = line.split_whitespace();
            words.next() == Some(&id) && words.next() == Some(&directory)
        };
        if !replicas.lines().any(is_it) {
            return Err(format!("{id} with {directory} is not there:\n{replicas}"));
        }
    }
    let leader = until(&mut tools, |_| true)?.leader;
    // The leader first: it has another one elected.
    let other = if leader == 3 { 2 } else { 3 };
    for id in [leader, other] {
        tape.note(&format!("remove {id}"));
        let remove = format!(
            "kafka-metadata-quorum remove-controller --controller-id {id} --controller-directory-id {}",
            directory(cluster, id)?
        );
        tools.expect(&remove)?;
        until(&mut tools, |quorum| !quorum.voters.contains(&id))?;
        writer::go_on(&mut writers)?;
    }
    let left = until(&mut tools, |quorum| quorum.voters.len() == 1)?;
    let create = "kafka-topics --create --topic after --partitions 3 --replication-factor 3";
    tools.expect(create)?;
    let mut lines = vec![format!("grown to 1, 2, 3 and shrunk to {:?}", left.voters)];
    lines.extend(writer::finish_clean(writers, &cluster.node(1).address())?);
    Ok(lines.join("\n  "))
}

/// The id of the directory in which a node has the metadata log.
fn directory(cluster: &Cluster, id: i32) -> Result<String, String> {
    let file = cluster.node(id).log_dir().join("meta.properties");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{file:?}: {e}"))?;
    let found = text.lines().find_map(|line| line.strip_prefix("directory.id="));
    found.map(str::to_owned).ok_or_else(|| format!("{file:?} has no directory.id"))
}

/// What `describe --status` says.
#[derive(Debug, Default)]
struct Quorum {
    leader: i32,
    voters: BTreeSet<i32>,
    observers: BTreeSet<i32>,
}

fn until(tools: &mut Tools, holds: impl Fn(&Quorum) -> bool) -> Result<Quorum, String> {
    tools.until(STATUS, SETTLE_LIMIT, |text| {
        let quorum = described(text);
        if holds(&quorum) { Ok(quorum) } else { Err(format!("{quorum:?}")) }
    })
}

fn described(text: &str) -> Quorum {
    let mut quorum = Quorum::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let ids = || {
            let ids = value.split("\"id\":").skip(1).filter_map(|rest| {
                let end = rest.find(|c: char| !(c.is_ascii_digit() || c == ' '));
                rest[..end.unwrap_or(rest.len())].trim().parse().ok()
            });
            ids.collect::<BTreeSet<i32>>()
        };
        match name {
            "LeaderId" => quorum.leader = value.trim().parse().unwrap_or(-1),
            "CurrentVoters" => quorum.voters = ids(),
            "CurrentObservers" => quorum.observers = ids(),
            _ => {}
        }
    }
    quorum
}
