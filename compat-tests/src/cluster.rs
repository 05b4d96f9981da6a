//! Several broker processes that form one cluster: combined nodes, all of them voters, on loopback or each in a
//! network namespace of its own.
//!
//! Node ids are 1, 2 and so on. What a scenario asks while it runs (leaders, ISR, controller) it asks with requests of
//! our own ([`crate::wire`]); the directories outlive the processes, not this value.

mod kept;
mod mode;
mod newcomers;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ottla_protocol::messages::{self as m, create_topics_request as create};
use ottla_protocol::{ErrorCode, Request};
use rustix::process::Signal;

pub use self::kept::keeping;
use self::mode::mode;
use crate::broker::{Broker, Seat, Side, free_port};
use crate::paths::Paths;
use crate::wire;

/// How long a node may take to answer a request of ours.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a cluster may take until all of its nodes know each other, or every replica is in sync again.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Partitions of `__consumer_offsets`: a scenario's groups meet more than one coordinator.
const COMMON: [&str; 8] = [
    "offsets.topic.replication.factor=3",
    "transaction.state.log.replication.factor=3",
    "transaction.state.log.min.isr=2",
    "share.coordinator.state.topic.replication.factor=3",
    "share.coordinator.state.topic.min.isr=2",
    "default.replication.factor=3",
    "min.insync.replicas=2",
    "auto.create.topics.enable=false",
];

/// Where one node runs.
#[derive(Debug, Clone)]
pub struct Place {
    pub host: Ipv4Addr,
    /// What stands before its command line.
    pub prefix: Vec<String>,
    /// Where its log directory is, if that is not in the node's own directory.
    pub log_dir: Option<PathBuf>,
}

impl Place {
    /// This machine's loopback interface.
    pub fn loopback() -> Place {
        Place { host: Ipv4Addr::LOCALHOST, prefix: Vec::new(), log_dir: None }
    }
}

/// One partition as the cluster's metadata describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    pub leader: i32,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    /// In ascending order.
    pub isr: Vec<i32>,
}

/// Broker processes; dropped, they are killed and their directories removed.
pub struct Cluster {
    side: Side,
    nodes: Vec<Broker>,
    /// `controller.quorum.voters`.
    voters: String,
    /// Ids of nodes that SIGSTOP has stopped.
    paused: Vec<i32>,
}

impl Cluster {
    /// Starts so many nodes on loopback and waits until all know each other. `DIR` in an override stands for the
    /// node's directory.
    ///
    /// # Errors
    /// If a node does not start, or they do not find each other in time.
    pub fn start(
        paths: &Paths,
        side: Side,
        nodes: usize,
        overrides: &[&str],
    ) -> Result<Cluster, String> {
        let places = vec![Place::loopback(); nodes];
        let mut cluster = Cluster::seat(paths, side, &places, overrides)?;
        cluster.launch_all()?;
        Ok(cluster)
    }

    /// Formats the nodes' directories and starts nothing yet.
    ///
    /// # Errors
    /// If a directory cannot be formatted.
    pub fn seat(
        paths: &Paths,
        side: Side,
        places: &[Place],
        overrides: &[&str],
    ) -> Result<Cluster, String> {
        let mut ports = Vec::new();
        for _ in places {
            ports.push((free_port()?, free_port()?));
        }
        let voters: Vec<String> = (1..)
            .zip(places.iter().zip(&ports))
            .map(|(id, (place, (_, controller)))| format!("{id}@{}:{controller}", place.host))
            .collect();
        let voters = voters.join(",");
        let overrides: Vec<&str> = COMMON.iter().chain(overrides).copied().collect();
        let seats = (1..).zip(places.iter().zip(&ports)).map(|(id, (place, ports))| Seat {
            host: place.host,
            port: ports.0,
            mode: mode(id, &voters, place.host, *ports),
            prefix: place.prefix.clone(),
            cluster_id: None,
            format: &[],
        });
        // Kafka's tool takes a second each: side by side.
        let nodes = std::thread::scope(|scope| {
            let overrides = &overrides;
            let seated: Vec<_> = seats
                .zip(places)
                .map(|(seat, place)| {
                    let log_dir =
                        place.log_dir.as_ref().map(|dir| format!("log.dirs={}", dir.display()));
                    scope.spawn(move || {
                        let own = log_dir.as_deref();
                        let overrides: Vec<&str> = overrides.iter().copied().chain(own).collect();
                        Broker::seat(paths, side, seat, &overrides)
                    })
                })
                .collect();
            let done = seated.into_iter().map(|seated| {
                seated.join().map_err(|_| "a thread that formats panicked".to_owned())?
            });
            done.collect::<Result<Vec<Broker>, String>>()
        })?;
        Ok(Cluster { side, nodes, voters, paused: Vec::new() })
    }

    /// Brokers of Ottla that were seated one by one, none of them started; their ids are 1, 2 and so on.
    pub fn of(nodes: Vec<Broker>) -> Cluster {
        Cluster { side: Side::Ottla, nodes, voters: String::new(), paused: Vec::new() }
    }

    /// Makes a broker one of the nodes; its id is the next one.
    pub fn join(&mut self, broker: Broker) {
        self.nodes.push(broker);
    }

    pub fn side(&self) -> Side {
        self.side
    }

    /// Ids of all nodes, those that are down among them.
    pub fn ids(&self) -> Vec<i32> {
        (1..).take(self.nodes.len()).collect()
    }

    /// Ids of the nodes whose processes run and are not paused.
    pub fn live(&self) -> Vec<i32> {
        let is_live = |id: &i32| self.node(*id).is_launched() && !self.paused.contains(id);
        self.ids().into_iter().filter(is_live).collect()
    }

    pub fn node(&self, id: i32) -> &Broker {
        &self.nodes[index(id)]
    }

    /// The addresses of all nodes, as clients take them.
    pub fn servers(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(Broker::address).collect();
        addresses.join(",")
    }

    /// Starts all nodes that are down, at once, and waits until all know each other.
    ///
    /// # Errors
    /// If a node does not start, or they do not find each other in time.
    pub fn launch_all(&mut self) -> Result<Duration, String> {
        let begin = Instant::now();
        for node in self.nodes.iter_mut().filter(|node| !node.is_launched()) {
            node.spawn()?;
        }
        for node in &mut self.nodes {
            node.wait_until_it_listens(begin)?;
        }
        self.await_members()?;
        Ok(begin.elapsed())
    }

    /// Starts one node and does not wait for it: without a majority it may not listen.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&mut self, id: i32) -> Result<(), String> {
        self.nodes[index(id)].spawn()
    }

    /// Starts one node and waits until it listens.
    ///
    /// # Errors
    /// As [`Broker::launch`].
    pub fn launch(&mut self, id: i32) -> Result<Duration, String> {
        self.nodes[index(id)].launch()
    }

    /// Fails if a node, which should run, has ended by itself.
    ///
    /// # Errors
    /// As [`Broker::expect_running`].
    pub fn expect_running(&mut self, id: i32) -> Result<(), String> {
        self.nodes[index(id)].expect_running()
    }

    /// Ends one node with SIGKILL.
    pub fn kill(&mut self, id: i32) {
        self.paused.retain(|paused| *paused != id);
        self.nodes[index(id)].kill();
    }

    /// Stops one node in order.
    ///
    /// # Errors
    /// As [`Broker::stop`].
    pub fn stop(&mut self, id: i32) -> Result<(), String> {
        self.resume(id)?;
        self.nodes[index(id)].stop()
    }

    /// Halts one node with SIGSTOP.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&mut self, id: i32) -> Result<(), String> {
        self.node(id).signal(Signal::STOP)?;
        self.paused.push(id);
        Ok(())
    }

    /// Lets a halted node go on; one that is not halted is left alone.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&mut self, id: i32) -> Result<(), String> {
        if self.paused.contains(&id) {
            self.node(id).signal(Signal::CONT)?;
            self.paused.retain(|paused| *paused != id);
        }
        Ok(())
    }

    /// Waits until every node that was started says that all nodes are there, and the quorum has a leader.
    ///
    /// # Errors
    /// If that is not so in time, or a process has ended.
    pub fn await_members(&mut self) -> Result<(), String> {
        let ids = self.ids();
        self.wait("every node knows all nodes", SETTLE_LIMIT, |cluster| {
            for id in cluster.live() {
                let known = cluster.brokers_of(id)?;
                if known != ids {
                    return Err(format!("node {id} knows {known:?}"));
                }
            }
            cluster.controller().map(drop)
        })
    }

    /// Waits until every node says that all replicas of these topics are in sync and led.
    ///
    /// # Errors
    /// If that is not so in time, or a process has ended.
    pub fn await_in_sync(&mut self, topics: &[&str]) -> Result<(), String> {
        self.await_members()?;
        self.wait("every replica is in sync", SETTLE_LIMIT, |cluster| {
            for id in cluster.live() {
                for (topic, partitions) in cluster.partitions_of(id, topics)? {
                    let is_good = |p: &&Partition| p.isr.len() == p.replicas.len() && p.leader > 0;
                    if let Some(bad) = partitions.iter().find(|p| !is_good(p)) {
                        return Err(format!("node {id} says {topic} {bad:?}"));
                    }
                }
            }
            Ok(())
        })
    }

    /// Repeats a look until it succeeds.
    ///
    /// # Errors
    /// What the look said last if it does not within `limit`, or that a process has ended by itself.
    pub fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        look: impl Fn(&Cluster) -> Result<T, String>,
    ) -> Result<T, String> {
        let begin = Instant::now();
        loop {
            for (node, id) in self.nodes.iter_mut().zip(1..) {
                node.expect_running().map_err(|e| format!("node {id}: {e}"))?;
            }
            match look(self) {
                Ok(found) => return Ok(found),
                Err(e) if begin.elapsed() > limit => {
                    return Err(format!("not within {} s: {what}: {e}", limit.as_secs()));
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// The partitions of a topic as the first live node that answers describes them.
    ///
    /// # Errors
    /// If none answers.
    pub fn partitions(&self, topic: &str) -> Result<Vec<Partition>, String> {
        let found = self.any(|id| self.partitions_of(id, &[topic]))?;
        found.into_iter().next().map(|(_, partitions)| partitions).ok_or("no topic".to_owned())
    }

    /// The same as one node describes them, of several topics.
    ///
    /// # Errors
    /// If it does not answer, or a topic or partition has an error.
    pub fn partitions_of(
        &self,
        id: i32,
        topics: &[&str],
    ) -> Result<BTreeMap<String, Vec<Partition>>, String> {
        let mut found = BTreeMap::new();
        for topic in self.metadata_of(id, topics)?.topics {
            let name = topic.name.unwrap_or_default();
            ok(topic.error_code).map_err(|e| format!("node {id}: {name}: {e}"))?;
            let mut partitions: Vec<Partition> =
                topic.partitions.into_iter().map(partition).collect();
            partitions.sort_by_key(|partition| partition.index);
            found.insert(name, partitions);
        }
        Ok(found)
    }

    /// The brokers that a node knows, in ascending order.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn brokers_of(&self, id: i32) -> Result<Vec<i32>, String> {
        let metadata = self.metadata_of(id, &[])?;
        let mut known: Vec<i32> = metadata.brokers.iter().map(|broker| broker.node_id).collect();
        known.sort_unstable();
        Ok(known)
    }

    fn metadata_of(&self, id: i32, topics: &[&str]) -> Result<m::MetadataResponse, String> {
        let wanted = topics.iter().map(|topic| m::metadata_request::MetadataRequestTopic {
            name: Some((*topic).to_owned()),
            ..Default::default()
        });
        let request = m::MetadataRequest {
            topics: Some(wanted.collect()),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        self.call(id, 12, &request).map_err(|e| format!("node {id}: {e}"))
    }

    /// The active controller: the leader of the metadata quorum, as the first live node says that knows.
    ///
    /// # Errors
    /// If none does.
    pub fn controller(&self) -> Result<i32, String> {
        self.any(|id| self.controller_says(id))
    }

    /// The same as one node says.
    ///
    /// # Errors
    /// If it does not know.
    pub fn controller_says(&self, id: i32) -> Result<i32, String> {
        let partitions = vec![m::describe_quorum_request::PartitionData { partition_index: 0 }];
        let topic_name = "__cluster_metadata".to_owned();
        let topics = vec![m::describe_quorum_request::TopicData { topic_name, partitions }];
        let request = m::DescribeQuorumRequest { topics };
        let answer = self.call(id, 1, &request)?;
        ok(answer.error_code)?;
        let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
        let partition = partition.ok_or("no partition described")?;
        ok(partition.error_code)?;
        match partition.leader_id {
            leader if leader > 0 => Ok(leader),
            leader => Err(format!("the quorum's leader is {leader}")),
        }
    }

    /// Creates a topic with these replicas of each partition and waits until all are in sync.
    ///
    /// # Errors
    /// If it is refused or not in sync in time.
    pub fn create(
        &mut self,
        topic: &str,
        assignments: &[Vec<i32>],
        configs: &[(&str, &str)],
    ) -> Result<(), String> {
        let replicas = (0..).zip(assignments).map(|(partition_index, broker_ids)| {
            let broker_ids = broker_ids.clone();
            create::CreatableReplicaAssignment { partition_index, broker_ids }
        });
        let configs = configs.iter().map(|(name, value)| create::CreatableTopicConfig {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
        });
        let topics = vec![create::CreatableTopic {
            name: topic.to_owned(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: replicas.collect(),
            configs: configs.collect(),
        }];
        let request = m::CreateTopicsRequest { topics, timeout_ms: 60_000, validate_only: false };
        // A topic of thousands of partitions takes its time.
        let create = |id| wire::call(&self.node(id).address(), 5, &request, SETTLE_LIMIT);
        let answer = self.any(create)?;
        let result = answer.topics.first().ok_or("no answer for the topic")?;
        ok(result.error_code)
            .map_err(|e| format!("create {topic}: {e} {:?}", result.error_message))?;
        self.await_in_sync(&[topic])
    }

    /// Gives partitions of a topic these replicas and, once they have them, their first replica as the leader.
    ///
    /// # Errors
    /// If it is refused or not so in time.
    pub fn lead(&mut self, topic: &str, assignments: &[Vec<i32>]) -> Result<(), String> {
        use m::alter_partition_reassignments_request as alter;
        let now = self.partitions(topic)?;
        let is_new = |(at, replicas): &(i32, &Vec<i32>)| {
            now.get(*at as usize).is_none_or(|now| now.replicas != **replicas)
        };
        let partitions: Vec<_> = (0..)
            .zip(assignments)
            .filter(is_new)
            .map(|(partition_index, replicas)| alter::ReassignablePartition {
                partition_index,
                replicas: Some(replicas.clone()),
            })
            .collect();
        if !partitions.is_empty() {
            let topics = vec![alter::ReassignableTopic { name: topic.to_owned(), partitions }];
            let request = m::AlterPartitionReassignmentsRequest {
                timeout_ms: 30_000,
                topics,
                ..Default::default()
            };
            let answer = self.any(|id| self.call(id, 0, &request))?;
            ok(answer.error_code)?;
            let mut codes = answer.responses.iter().flat_map(|topic| &topic.partitions);
            codes.try_for_each(|partition| ok(partition.error_code))?;
        }
        self.wait(&format!("{topic} has the replicas {assignments:?}"), SETTLE_LIMIT, |cluster| {
            let now = cluster.partitions(topic)?;
            let is_so = now
                .iter()
                .zip(assignments)
                .all(|(now, wanted)| now.replicas == *wanted && now.isr.len() == wanted.len());
            if is_so { Ok(()) } else { Err(format!("{now:?}")) }
        })?;
        self.elect_preferred(topic)
    }

    /// Has the preferred replica of every partition of a topic elected.
    ///
    /// # Errors
    /// If it is refused, or every node does not say so in time.
    pub fn elect_preferred(&mut self, topic: &str) -> Result<(), String> {
        use m::elect_leaders_request::TopicPartitions;
        let all = (0..).take(self.partitions(topic)?.len()).collect();
        self.wait(&format!("{topic} is led by its preferred replicas"), SETTLE_LIMIT, |cluster| {
            let wanted = TopicPartitions { topic: topic.to_owned(), partitions: Vec::clone(&all) };
            let request = m::ElectLeadersRequest {
                election_type: 0,
                topic_partitions: Some(vec![wanted]),
                timeout_ms: 10_000,
            };
            ok(cluster.any(|id| cluster.call(id, 1, &request))?.error_code)?;
            for id in cluster.live() {
                let now = cluster.partitions_of(id, &[topic])?;
                let all = now.values().flatten();
                for partition in all {
                    if partition.replicas.first() != Some(&partition.leader) {
                        return Err(format!("node {id} says {partition:?}"));
                    }
                }
            }
            Ok(())
        })
    }

    /// Sends a request to one node.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn call<R: Request>(&self, id: i32, version: i16, body: &R) -> Result<R::Response, String> {
        wire::call(&self.node(id).address(), version, body, ANSWER_LIMIT)
    }

    /// What the first live node answers that answers.
    ///
    /// # Errors
    /// What the last one said if none does.
    pub fn any<T>(&self, ask: impl Fn(i32) -> Result<T, String>) -> Result<T, String> {
        let mut last = "no node is live".to_owned();
        for id in self.live() {
            match ask(id) {
                Ok(answer) => return Ok(answer),
                Err(e) => last = format!("node {id}: {e}"),
            }
        }
        Err(last)
    }

    /// Fails if the log of a node holds what must never be there.
    ///
    /// # Errors
    /// Holds the first such line.
    pub fn expect_no_panic(&self) -> Result<(), String> {
        for id in self.ids() {
            let log = self.node(id).log();
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                return Err(format!("node {id}: {line}"));
            }
        }
        Ok(())
    }
}

/// The error of an error code, if it is one.
pub fn ok(code: i16) -> Result<(), String> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        found => Err(format!("{} ({code})", found.name())),
    }
}

fn index(id: i32) -> usize {
    usize::try_from(id - 1).unwrap_or_default()
}

fn partition(described: m::metadata_response::MetadataResponsePartition) -> Partition {
    let mut isr = described.isr_nodes;
    isr.sort_unstable();
    let (index, leader) = (described.partition_index, described.leader_id);
    let (leader_epoch, replicas) = (described.leader_epoch, described.replica_nodes);
    Partition { index, leader, leader_epoch, replicas, isr }
}
