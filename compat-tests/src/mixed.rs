//! Clusters of both: brokers of Ottla's and Apache Kafka's side by side, behind a controller of either.
//!
//! | Scenario | Controller | What happens |
//! | --- | --- | --- |
//! | `cluster:mixed` | Ottla | a broker of Kafka's joins two of Ottla's, leads, is asked, stops, dies and comes back |
//! | `cluster:mixed-kafka` | Kafka | the same with a broker of Ottla's among two of Kafka's |
//!
//! All the while two clients write topics that every broker has a replica of, and read them as groups; their histories
//! must be clean. In the end each replica leads in turn, and all hold the same records.

use std::time::Duration;

use ottla_protocol::Request;
use ottla_protocol::messages as m;
use ottla_protocol::messages::{
    alter_partition_reassignments_request as reassign, create_partitions_request as grow,
    create_topics_request as create, incremental_alter_configs_request as alter,
};

use crate::broker::Side;
use crate::cluster::{self, Cluster, SETTLE_LIMIT, ok};
use crate::disk::{Tools, judge};
use crate::paths::Paths;
use crate::report::Report;
use crate::wire;
use crate::writer::{self, Job, Tape, Work, Writer};

/// The combined node, a broker of its kind, and the broker of the other kind.
const CONTROLLER: i32 = 1;
const SECOND: i32 = 2;
const STRANGER: i32 = 3;
/// Replicas of the topics' partitions: each node is the preferred leader of one at least.
const REPLICAS: [[i32; 3]; 4] = [[1, 2, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
/// Microseconds between two records of a client.
const PAUSE_US: u64 = 2000;
/// Records that show that a client goes on.
const MORE: usize = 200;
/// How long that may take.
const LIMIT: Duration = Duration::from_secs(90);
/// Metadata of so many bytes make a snapshot, which is what the broker that joins gets first.
const SNAPSHOTS: &str = "metadata.log.max.record.bytes.between.snapshots=4096";

/// Runs the scenarios whose names contain `filter`.
///
/// # Errors
/// If the clients cannot be built or a node cannot be formatted.
pub fn run(paths: &Paths, filter: &str, report: &Report) -> Result<(), String> {
    let commands = writer::commands(paths)?;
    for (name, own, other) in
        [("mixed", Side::Ottla, Side::Kafka), ("mixed-kafka", Side::Kafka, Side::Ottla)]
    {
        if !name.contains(filter) {
            continue;
        }
        let mut cluster = Cluster::seat_mixed(paths, &[own, own, other], &[SNAPSHOTS])?;
        judge(&format!("cluster/{name} [{own}, {own}, {other}]"), report, || {
            let tape = Tape::create(&paths.work.join(format!("histories/cluster-{name}.txt")))?;
            cluster::keeping(paths, &mut cluster, &format!("cluster-{name}"), |cluster| {
                for id in [CONTROLLER, SECOND] {
                    cluster.launch(id)?;
                }
                let servers = cluster.servers();
                let tools = Tools::start_at(paths, &servers)?;
                let scene = Scene { cluster, tools, servers, writers: Vec::new(), tape: &tape };
                scene
                    .play(&commands)
                    .map_err(|e| format!("{e}\nhistory: {}", tape.path().display()))
            })
        });
    }
    Ok(())
}

struct Scene<'a> {
    cluster: &'a mut Cluster,
    tools: Tools,
    servers: String,
    writers: Vec<Writer>,
    tape: &'a Tape,
}

impl Scene<'_> {
    fn play(mut self, commands: &[(&'static str, Vec<String>)]) -> Result<String, String> {
        self.join()?;
        self.ask_the_stranger()?;
        self.ask_the_stranger_for_more()?;
        for command in commands {
            self.write(command)?;
        }
        self.goes_on("at first")?;
        self.leaders_move()?;
        self.one_stops_and_dies(STRANGER)?;
        self.one_stops_and_dies(SECOND)?;
        self.one_stops_and_dies(CONTROLLER)?;
        let mut lines = vec!["each led, stopped, died and came back".to_owned()];
        for writer in std::mem::take(&mut self.writers) {
            let (name, topic) = (writer.name().to_owned(), writer.topic().to_owned());
            let history = writer.finish(&self.servers)?;
            lines.push(writer::expect_clean(&name, &history)?);
            self.replicas_are_equal(&topic)?;
        }
        Ok(lines.join("\n  "))
    }

    /// The stranger comes to a cluster whose metadata have been put into a snapshot.
    fn join(&mut self) -> Result<(), String> {
        self.cluster.wait("two brokers are there", SETTLE_LIMIT, |cluster| {
            match cluster.brokers_of(SECOND)?.len() {
                2 => Ok(()),
                count => Err(format!("{count} brokers")),
            }
        })?;
        let topic = topic("early", 100, 2);
        let request = m::CreateTopicsRequest { topics: vec![topic], ..create_request() };
        ok(only(&ask(self.cluster, CONTROLLER, 5, &request)?.topics)?.error_code)?;
        self.cluster.launch(STRANGER)?;
        self.cluster.await_members()?;
        let nodes = self.cluster.ids();
        self.tools.until("kafka-broker-api-versions", SETTLE_LIMIT, |text| {
            let has = |id: &i32| text.contains(&format!("(id: {id} "));
            if nodes.iter().all(has) { Ok(()) } else { Err("not all nodes".to_owned()) }
        })?;
        let is_it = |line: &str| line.split_whitespace().next() == Some("3");
        self.tools.until("kafka-metadata-quorum describe --replication", SETTLE_LIMIT, |text| {
            match text.lines().any(|line| is_it(line) && line.contains("Observer")) {
                true => Ok(()),
                false => Err("node 3 is no observer".to_owned()),
            }
        })
    }

    /// What only the controller decides, asked of the stranger, which passes it on.
    fn ask_the_stranger(&mut self) -> Result<(), String> {
        let cluster = &mut *self.cluster;
        let fail = |what: &'static str| move |e: String| format!("{what} at node {STRANGER}: {e}");
        let request = m::CreateTopicsRequest {
            topics: vec![topic("passed-on", 3, 3), topic("early", 1, 1)],
            ..create_request()
        };
        let codes = ask(cluster, STRANGER, 7, &request)?.topics;
        let codes: Vec<i16> = codes.iter().map(|topic| topic.error_code).collect();
        if codes != [0, ALREADY_EXISTS] {
            return Err(format!("create topics at node {STRANGER}: {codes:?}"));
        }
        let more = grow::CreatePartitionsTopic {
            name: "passed-on".to_owned(),
            count: 4,
            assignments: None,
        };
        let request = m::CreatePartitionsRequest {
            topics: vec![more],
            timeout_ms: 10_000,
            ..Default::default()
        };
        let answer = ask(cluster, STRANGER, 3, &request)?;
        ok(only(&answer.results)?.error_code).map_err(fail("create partitions"))?;
        let resource = alter::AlterConfigsResource {
            resource_type: 2,
            resource_name: "passed-on".to_owned(),
            configs: vec![alter::AlterableConfig {
                name: "segment.bytes".to_owned(),
                config_operation: 0,
                value: Some("1048576".to_owned()),
            }],
        };
        let request =
            m::IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        let answer = ask(cluster, STRANGER, 1, &request)?;
        ok(only(&answer.responses)?.error_code).map_err(fail("alter configs"))?;
        cluster.await_in_sync(&["passed-on"])
    }

    /// The rest of what was made so: it is moved and goes, and the quorum is described.
    fn ask_the_stranger_for_more(&mut self) -> Result<(), String> {
        let cluster = &mut *self.cluster;
        let fail = |what: &'static str| move |e: String| format!("{what} at node {STRANGER}: {e}");
        let moved = reassign::ReassignablePartition {
            partition_index: 0,
            replicas: Some(vec![STRANGER, SECOND]),
        };
        let request = m::AlterPartitionReassignmentsRequest {
            timeout_ms: 10_000,
            topics: vec![reassign::ReassignableTopic {
                name: "passed-on".to_owned(),
                partitions: vec![moved],
            }],
            ..Default::default()
        };
        ok(ask(cluster, STRANGER, 0, &request)?.error_code).map_err(fail("reassign"))?;
        cluster.wait("two replicas are left", SETTLE_LIMIT, |cluster| {
            let all = cluster.partitions_of(STRANGER, &["passed-on"])?;
            let now = all.values().flatten().next().ok_or("no partition")?;
            match now.replicas == [STRANGER, SECOND] && now.isr.len() == 2 {
                true => Ok(()),
                false => Err(format!("{now:?}")),
            }
        })?;
        if cluster.controller_says(STRANGER)? != CONTROLLER {
            return Err(format!("node {STRANGER} describes another quorum"));
        }
        let request = m::DeleteTopicsRequest {
            topics: vec![m::delete_topics_request::DeleteTopicState {
                name: Some("passed-on".to_owned()),
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        };
        let answer = ask(cluster, STRANGER, 6, &request)?;
        ok(only(&answer.responses)?.error_code).map_err(fail("delete topics"))
    }

    /// Starts a client on a topic of its own.
    fn write(&mut self, command: &(&'static str, Vec<String>)) -> Result<(), String> {
        let topic = format!("written-{}", command.0);
        let replicas = REPLICAS.map(Vec::from);
        self.cluster.create(&topic, &replicas, &[("min.insync.replicas", "2")])?;
        let group = format!("group-{}", command.0);
        let job = Job {
            topic: &topic,
            partitions: REPLICAS.len(),
            work: Work::On { pause_us: PAUSE_US, group: Some(&group) },
        };
        self.writers.push(Writer::start(command, &self.servers, &job, self.tape)?);
        Ok(())
    }

    /// The clients go on.
    fn goes_on(&mut self, when: &str) -> Result<(), String> {
        self.tape.note(when);
        for writer in &mut self.writers {
            writer.wait_for_more(MORE, LIMIT).map_err(|e| format!("{when}: {e}"))?;
            writer.wait_for_group(MORE, LIMIT).map_err(|e| format!("{when}: {e}"))?;
        }
        Ok(())
    }

    fn topics(&self) -> Vec<String> {
        self.writers.iter().map(|writer| writer.topic().to_owned()).collect()
    }

    /// Each node leads all partitions in turn, the groups' among them.
    fn leaders_move(&mut self) -> Result<(), String> {
        let mut topics = self.topics();
        topics.push("__consumer_offsets".to_owned());
        for leader in [STRANGER, SECOND, CONTROLLER, STRANGER] {
            for topic in &topics {
                let count = self.cluster.partitions(topic)?.len();
                self.cluster.lead(topic, &vec![first(leader); count])?;
            }
            self.goes_on(&format!("node {leader} leads"))?;
        }
        for topic in &topics {
            let count = self.cluster.partitions(topic)?.len();
            let spread = REPLICAS.iter().cycle().map(|replicas| Vec::from(*replicas));
            self.cluster.lead(topic, &spread.take(count).collect::<Vec<_>>())?;
        }
        self.goes_on("all lead")
    }

    /// A node is stopped in order, and killed; each time it comes back, is in sync, and leads again.
    fn one_stops_and_dies(&mut self, id: i32) -> Result<(), String> {
        for way in ["stop", "kill"] {
            self.tape.note(&format!("{way} {id}"));
            match way {
                "stop" => self.cluster.stop(id)?,
                _ => self.cluster.kill(id),
            }
            // Without the only voter nothing gets another leader.
            if id != CONTROLLER {
                self.goes_on(&format!("after {way} of node {id}"))?;
            }
            self.cluster.launch(id)?;
            let topics = self.topics();
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            self.cluster.await_in_sync(&names)?;
            for topic in names {
                self.cluster.elect_preferred(topic)?;
            }
            self.goes_on(&format!("with node {id} again, after {way}"))?;
        }
        Ok(())
    }

    /// Whoever leads, the records are the same.
    fn replicas_are_equal(&mut self, topic: &str) -> Result<(), String> {
        let offsets = format!("kafka-get-offsets --topic {topic}");
        let mut seen: Option<(String, Vec<String>)> = None;
        for leader in [CONTROLLER, SECOND, STRANGER] {
            self.cluster.lead(topic, &vec![first(leader); REPLICAS.len()])?;
            let ends = self.tools.expect(&offsets)?;
            let mut records = Vec::new();
            for end in ends.lines() {
                let mut words = end.trim().rsplit(':');
                let (count, partition) = (words.next(), words.next());
                let (Some(count), Some(partition)) = (count, partition) else {
                    return Err(format!("{offsets}: {ends}"));
                };
                records.push(self.tools.expect(&format!(
                    "kafka-console-consumer --topic {topic} --partition {partition} --offset earliest \
                     --max-messages {count} --timeout-ms 30000"
                ))?);
            }
            let now = (ends, records);
            match &seen {
                Some(before) if *before != now => {
                    return Err(format!("node {leader} holds other records of {topic}"));
                }
                Some(_) => {}
                None => seen = Some(now),
            }
        }
        Ok(())
    }
}

/// Sends a request to one node, which may take its time.
fn ask<R: Request>(
    cluster: &Cluster,
    id: i32,
    version: i16,
    body: &R,
) -> Result<R::Response, String> {
    wire::call(&cluster.node(id).address(), version, body, SETTLE_LIMIT)
}

/// The answer for the one thing that was asked for.
fn only<T>(answers: &[T]) -> Result<&T, String> {
    answers.first().ok_or_else(|| "an empty answer".to_owned())
}

/// The code of TOPIC_ALREADY_EXISTS.
const ALREADY_EXISTS: i16 = 36;

fn create_request() -> m::CreateTopicsRequest {
    m::CreateTopicsRequest { timeout_ms: 60_000, ..Default::default() }
}

fn topic(name: &str, partitions: i32, replicas: i16) -> create::CreatableTopic {
    create::CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: replicas,
        ..Default::default()
    }
}

/// The three nodes, this one first.
fn first(leader: i32) -> Vec<i32> {
    let others = [CONTROLLER, SECOND, STRANGER].into_iter().filter(|id| *id != leader);
    std::iter::once(leader).chain(others).collect()
}
