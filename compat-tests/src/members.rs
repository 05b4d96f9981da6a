//! Stock tools of 4.3.1 on a cluster of three: what an operator of several brokers does and sees.
//!
//! | Scenario | What happens |
//! | --- | --- |
//! | `cluster:life` | topics, groups, a broker killed, a topic deleted meanwhile, the broker back, replicas moved |
//! | `cluster:orders` | the nodes are started one after another in each order, on what the round before left |
//! | `cluster:2016` | brokers whose files know only `zookeeper.connect` ([`crate::meeting`]) |
//! | `cluster:metadata` | every node's metadata log and snapshots, read with stock tools ([`crate::metadata`]) |
//! | `cluster:grow` | a quorum of one grows to three and shrinks to another one ([`crate::voters`]) |
//! | `cluster:mixed` | brokers of Ottla's and Apache Kafka's side by side ([`crate::mixed`]) |
//! | others | who may join and who may not, and what is left without a majority ([`crate::strangers`]) |
//!
//! Compared is what the tools say, not how long it takes: a command that asks is repeated until it says so, for a
//! minute at most.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::broker::Side;
use crate::cluster::{self, Cluster, Place, SETTLE_LIMIT};
use crate::disk::{Tools, judge};
use crate::meeting;
use crate::metadata;
use crate::mixed;
use crate::paths::Paths;
use crate::report::Report;
use crate::strangers;
use crate::voters;

/// Records of each step.
const RECORDS: usize = 60;
/// The pause between the starts of two nodes.
pub const PAUSE: Duration = Duration::from_millis(300);
/// All orders of three nodes.
pub const ORDERS: [[i32; 3]; 6] =
    [[1, 2, 3], [3, 2, 1], [2, 3, 1], [1, 3, 2], [3, 1, 2], [2, 1, 3]];
/// Apache Kafka takes some seconds for each node.
const ORDERS_OF_KAFKA: usize = 2;

/// Runs the scenarios whose names contain `filter`.
///
/// # Errors
/// If a cluster cannot be prepared.
pub fn run(paths: &Paths, side: Side, filter: &str, report: &Report) -> Result<(), String> {
    if "life".contains(filter) {
        let mut cluster = Cluster::start(paths, side, 3, &[])?;
        judge(&format!("cluster/life [{side}]"), report, || {
            let tools = Tools::start_at(paths, &cluster.servers())?;
            cluster::keeping(paths, &mut cluster, "cluster-life", |cluster| life(cluster, tools))
        });
    }
    if "orders".contains(filter) {
        let mut cluster = Cluster::seat(paths, side, &vec![Place::loopback(); 3], &[])?;
        judge(&format!("cluster/orders [{side}]"), report, || {
            let tools = Tools::start_at(paths, &cluster.servers())?;
            cluster::keeping(paths, &mut cluster, "cluster-orders", |c| orders(c, tools))
        });
    }
    if "metadata".contains(filter) {
        metadata::run(paths, side, report)?;
    }
    if side == Side::Ottla {
        meeting::run(paths, filter, report)?;
        mixed::run(paths, filter, report)?;
    }
    if "grow".contains(filter) {
        voters::run(paths, side, report)?;
    }
    strangers::run(paths, side, filter, report)
}

/// What `kafka-topics --describe` says of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    topic: String,
    leader: i32,
    replicas: Vec<i32>,
    isr: BTreeSet<i32>,
}

/// The partitions in the output of `kafka-topics --describe`.
fn described(text: &str) -> Vec<Described> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut found = Described::default();
        let mut is_partition = false;
        for (name, value) in line.trim().split('\t').filter_map(|field| field.split_once(':')) {
            let value = value.trim();
            let ids = || value.split(',').filter_map(|id| id.parse::<i32>().ok());
            match name {
                "Topic" => found.topic = value.to_owned(),
                "Partition" => is_partition = true,
                "Leader" => found.leader = value.parse().unwrap_or(-1),
                "Replicas" => found.replicas = ids().collect(),
                "Isr" => found.isr = ids().collect(),
                _ => {}
            }
        }
        if is_partition {
            all.push(found);
        }
    }
    all
}

/// The tools on one cluster, and what was produced so far.
pub struct Scene<'a> {
    pub cluster: &'a mut Cluster,
    pub tools: Tools,
    pub produced: usize,
}

impl Scene<'_> {
    pub fn until<T>(
        &mut self,
        line: &str,
        look: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, String> {
        self.tools.until(line, SETTLE_LIMIT, look)
    }

    /// Waits until a topic's partitions are described with this many in sync each.
    pub fn until_in_sync(&mut self, topic: &str, isr: usize) -> Result<Vec<Described>, String> {
        let line = format!("kafka-topics --describe --topic {topic}");
        self.until(&line, |text| {
            let all = described(text);
            let is_so = |one: &Described| one.isr.len() == isr && one.isr.contains(&one.leader);
            match all.is_empty() || !all.iter().all(is_so) {
                true => Err(format!("not {isr} in sync each")),
                false => Ok(all),
            }
        })
    }

    /// Produces so many more records.
    pub fn produce(&mut self, topic: &str) -> Result<(), String> {
        let numbers = self.produced..self.produced + RECORDS;
        let input: String = numbers.map(|number| format!("{}:{number}\n", number % 7)).collect();
        let line = format!(
            "kafka-console-producer --topic {topic} --reader-property parse.key=true \
             --reader-property key.separator=:"
        );
        let answer = self.tools.run_with(&line, &input)?;
        if answer.status != 0 || answer.err.contains("ERROR") {
            return Err(format!("{line}: {}\n{}{}", answer.status, answer.out, answer.err));
        }
        self.produced += RECORDS;
        Ok(())
    }

    /// A group reads what it has not read yet: the records from `first` on, once each.
    pub fn consume(&mut self, topic: &str, group: &str, first: usize) -> Result<(), String> {
        let wanted: BTreeSet<String> = (first..self.produced).map(|n| n.to_string()).collect();
        let line = format!(
            "kafka-console-consumer --topic {topic} --group {group} --from-beginning \
             --max-messages {} --timeout-ms 25000",
            wanted.len()
        );
        let text = self.tools.expect(&line)?;
        let read: Vec<String> = text.lines().map(str::to_owned).collect();
        let unique: BTreeSet<String> = read.iter().cloned().collect();
        match unique == wanted && read.len() == wanted.len() {
            true => Ok(()),
            false => Err(format!("{line}: records {first}..{} are not\n{text}", self.produced)),
        }
    }
}

fn life(cluster: &mut Cluster, tools: Tools) -> Result<String, String> {
    live(&mut Scene { cluster, tools, produced: 0 })
}

/// A cluster of three from its first topic to its last.
///
/// # Errors
/// What is not as it should be.
pub fn live(scene: &mut Scene<'_>) -> Result<String, String> {
    let three = "--partitions 3 --replication-factor 3";
    for topic in ["orders", "doomed"] {
        scene.tools.expect(&format!("kafka-topics --create --topic {topic} {three}"))?;
    }
    let first = scene.until_in_sync("orders", 3)?;
    quorum(scene)?;
    glance(scene, 0, "all is well")?;
    scene.tools.refused(
        "kafka-topics --create --topic too-many --partitions 1 --replication-factor 4",
        "",
        "InvalidReplicationFactorException",
    )?;
    scene.produce("doomed")?;
    scene.produced = 0;
    scene.produce("orders")?;
    scene.consume("orders", "first", 0)?;
    scene.consume("orders", "second", 0)?;

    let away = first.first().map(|partition| partition.leader).ok_or("no partition")?;
    scene.cluster.kill(away);
    without_one(scene, away)?;
    scene.cluster.launch(away)?;
    back_again(scene, away)?;
    move_replicas(scene)?;
    scene.consume("orders", "third", 0)?;
    let produced = scene.produced;
    for topic in ["orders", "doomed"] {
        scene.tools.expect(&format!("kafka-topics --delete --topic {topic}"))?;
    }
    scene.until("kafka-topics --list --exclude-internal", |text| match text.trim() {
        "" => Ok(()),
        _ => Err("topics are left".to_owned()),
    })?;
    Ok(format!("{produced} records, node {away} was away"))
}

/// The metadata quorum: three voters, one of them its leader, the others caught up.
fn quorum(scene: &mut Scene<'_>) -> Result<(), String> {
    scene.until("kafka-metadata-quorum describe --status", |text| {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let leader = field("LeaderId:").and_then(|id| id.trim().parse::<i32>().ok());
        let voters = field("CurrentVoters:").unwrap_or_default();
        let has = |id: i32| voters.contains(&format!("\"id\": {id},"));
        match leader.is_some_and(|id| (1..=3).contains(&id)) && (1..=3).all(has) {
            true => Ok(()),
            false => Err("not three voters and a leader".to_owned()),
        }
    })?;
    scene.until("kafka-metadata-quorum describe --replication", |text| {
        let rows: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        let count = |status: &str| rows.iter().filter(|row| row.contains(&status)).count();
        // Columns: node, directory, log end offset, lag.
        let lags: Vec<&str> = rows.iter().filter_map(|row| row.get(3).copied()).collect();
        let is_near = |lag: &&str| lag.parse::<i64>().is_ok_and(|lag| (0..50).contains(&lag));
        match (count("Leader"), count("Follower"), lags.iter().all(is_near)) {
            (1, 2, true) => Ok(()),
            _ => Err("not one leader and two followers that follow".to_owned()),
        }
    })
}

/// Waits until `ottla status`, whoever's the cluster is, exits so and says so.
fn glance(scene: &Scene<'_>, status: i32, saying: &str) -> Result<(), String> {
    let begin = Instant::now();
    loop {
        let mut command = Command::new(&Paths::new()?.ottla);
        command.args(["status", "--bootstrap-server", &scene.cluster.servers()]);
        let output = command.output().map_err(|error| format!("ottla status: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() == Some(status) && text.contains(saying) {
            return Ok(());
        }
        if begin.elapsed() > SETTLE_LIMIT {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("ottla status: {}, not {saying:?}\n{text}{errors}", output.status));
        }
        std::thread::sleep(PAUSE);
    }
}

/// While one node is away: the ISR shrinks, records come and go, and a topic is deleted and made again.
fn without_one(scene: &mut Scene<'_>, away: i32) -> Result<(), String> {
    let now = scene.until_in_sync("orders", 2)?;
    if let Some(bad) = now.iter().find(|one| one.isr.contains(&away) || one.replicas.len() != 3) {
        return Err(format!("node {away} is away, and {bad:?}"));
    }
    scene.until("kafka-topics --describe --under-replicated-partitions", |text| {
        let of = |name: &str| described(text).iter().filter(|one| one.topic == name).count();
        match of("orders") == 3 && of("doomed") == 3 {
            true => Ok(()),
            false => Err("not all partitions".to_owned()),
        }
    })?;
    let line = "kafka-topics --describe --unavailable-partitions --exclude-internal";
    scene.until(line, |text| match described(text).is_empty() {
        true => Ok(()),
        false => Err("something is unavailable".to_owned()),
    })?;
    // Two voters of three are left: one less would be no majority.
    glance(scene, 1, "2 of 3 voters keep up")?;
    let before = scene.produced;
    scene.produce("orders")?;
    scene.consume("orders", "first", before)?;
    scene.consume("orders", "second", before)?;
    scene.tools.expect("kafka-topics --delete --topic doomed")?;
    scene.until("kafka-topics --list", |text| match text.lines().any(|line| line == "doomed") {
        true => Err("it is still there".to_owned()),
        false => Ok(()),
    })?;
    let held = scene.cluster.node(away).log_dir().join("doomed-0");
    if !held.exists() {
        return Err(format!("the killed node has not held {held:?}"));
    }
    // The same name is another topic: the node that was away must not take its old records for this one's.
    scene
        .tools
        .expect("kafka-topics --create --topic doomed --partitions 1 --replication-factor 3")?;
    scene.until_in_sync("doomed", 2).map(drop)
}

/// The node is back: everything is in sync again, and what was deleted meanwhile is gone from it.
fn back_again(scene: &mut Scene<'_>, away: i32) -> Result<(), String> {
    scene.until_in_sync("orders", 3)?;
    scene.until_in_sync("doomed", 3)?;
    scene.until(
        "kafka-topics --describe --under-replicated-partitions",
        |text| match described(text).is_empty() {
            true => Ok(()),
            false => Err("something is under-replicated".to_owned()),
        },
    )?;
    quorum(scene)?;
    scene.until("kafka-get-offsets --topic doomed", |text| match text.trim() {
        "doomed:0:0" => Ok(()),
        _ => Err("the new topic is not empty".to_owned()),
    })?;
    let log_dir = scene.cluster.node(away).log_dir();
    scene.cluster.wait("partitions deleted meanwhile are gone", SETTLE_LIMIT, |_| {
        let is_there = |name: &&str| log_dir.join(name).exists();
        match ["doomed-1", "doomed-2"].iter().find(|name| is_there(name)) {
            Some(name) => Err(format!("node {away} still has {name}")),
            None => Ok(()),
        }
    })?;
    let before = scene.produced;
    scene.produce("orders")?;
    scene.consume("orders", "first", before)?;
    scene.consume("orders", "second", before)
}

/// The preferred leaders take over again; then replicas go, and come back in another order.
fn move_replicas(scene: &mut Scene<'_>) -> Result<(), String> {
    let elect = "kafka-leader-election --election-type preferred --all-topic-partitions";
    let answer = scene.tools.run(elect)?;
    let is_done = |text: &str| {
        text.is_empty()
            || text.contains("Successfully completed")
            || text.contains("Valid replica already elected")
    };
    if answer.status != 0 || !is_done(answer.out.trim()) {
        return Err(format!("{elect}: {}\n{}{}", answer.status, answer.out, answer.err));
    }
    scene.until("kafka-topics --describe --topic orders", led_by_their_first)?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    for wanted in [[vec![1], vec![2, 3], vec![3, 1]], [vec![3, 2, 1], vec![1, 3, 2], vec![2, 1, 3]]]
    {
        let partitions: Vec<String> = wanted
            .iter()
            .enumerate()
            .map(|(at, replicas)| {
                format!("{{\"topic\":\"orders\",\"partition\":{at},\"replicas\":{replicas:?}}}")
            })
            .collect();
        let file = folder.path().join("wanted.json");
        let json = format!("{{\"version\":1,\"partitions\":[{}]}}", partitions.join(","));
        std::fs::write(&file, json).map_err(|e| format!("{file:?}: {e}"))?;
        let line = format!("kafka-reassign-partitions --reassignment-json-file {}", file.display());
        let text = scene.tools.expect(&format!("{line} --execute"))?;
        if !text.contains("Successfully started partition reassignments") {
            return Err(format!("{line} --execute\n{text}"));
        }
        scene.until(&format!("{line} --verify"), |text| {
            let done = |at| text.contains(&format!("partition orders-{at} is completed."));
            if (0..3).all(done) { Ok(()) } else { Err("not completed".to_owned()) }
        })?;
        scene.until("kafka-topics --describe --topic orders", |text| {
            let all = described(text);
            let is_so = |(one, wanted): (&Described, &Vec<i32>)| {
                one.replicas == *wanted && one.isr.len() == wanted.len()
            };
            match all.len() == 3 && all.iter().zip(&wanted).all(is_so) {
                true => Ok(()),
                false => Err(format!("not {wanted:?}")),
            }
        })?;
    }
    scene.tools.expect(elect)?;
    scene.until("kafka-topics --describe --topic orders", led_by_their_first)
}

fn led_by_their_first(text: &str) -> Result<(), String> {
    let all = described(text);
    match all.iter().find(|one| one.replicas.first() != Some(&one.leader)) {
        Some(bad) => Err(format!("{bad:?} is not led by its preferred replica")),
        None if all.is_empty() => Err("no partition".to_owned()),
        None => Ok(()),
    }
}

/// Starts the nodes in one order after another, and all that was there is there.
fn orders(cluster: &mut Cluster, tools: Tools) -> Result<String, String> {
    let count = if cluster.side().is_kafka() { ORDERS_OF_KAFKA } else { ORDERS.len() };
    let mut scene = Scene { cluster, tools, produced: 0 };
    let mut times = Vec::new();
    for (round, order) in ORDERS[..count].iter().enumerate() {
        let begin = Instant::now();
        for id in order {
            scene.cluster.spawn(*id)?;
            std::thread::sleep(PAUSE);
        }
        let fail = |e| format!("started in the order {order:?}: {e}");
        scene.cluster.await_members().map_err(fail)?;
        times.push(begin.elapsed().as_millis());
        if round == 0 {
            let create = "kafka-topics --create --topic kept --partitions 3 --replication-factor 3";
            scene.tools.expect(create)?;
        }
        scene.until_in_sync("kept", 3).map_err(fail)?;
        let before = scene.produced;
        scene.produce("kept").map_err(fail)?;
        scene.consume("kept", "reader", before).map_err(fail)?;
        for (at, id) in order.iter().enumerate() {
            // Without a majority that it could tell, Apache Kafka waits for five minutes.
            if at > 0 && scene.cluster.side().is_kafka() {
                scene.cluster.kill(*id);
            } else {
                scene.cluster.stop(*id).map_err(fail)?;
            }
        }
    }
    Ok(format!("{count} orders, all know each other after {times:?} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_read_out_of_what_the_tool_prints() {
        let text = "Topic: t\tTopicId: x\tPartitionCount: 1\tReplicationFactor: 3\tConfigs: a=b\n\
            \tTopic: t\tPartition: 0\tLeader: 2\tReplicas: 2,3,1\tIsr: 2,1\tElr: 3\tLastKnownElr: \n\
            \tTopic: t\tPartition: 1\tLeader: none\tReplicas: 1\tIsr: \tElr: \tLastKnownElr: \n";
        let first = Described {
            topic: "t".to_owned(),
            leader: 2,
            replicas: vec![2, 3, 1],
            isr: BTreeSet::from([1, 2]),
        };
        let second = Described {
            topic: "t".to_owned(),
            leader: -1,
            replicas: vec![1],
            isr: BTreeSet::new(),
        };
        assert_eq!(described(text), [first, second]);
    }
}
