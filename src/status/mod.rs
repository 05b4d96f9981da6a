//! `ottla status`: a cluster at a glance, as any broker of it tells it by Kafka's own requests.
//!
//! Deliberately not here: who is asked next when the first broker is down (the caller names several), and anything that
//! only Ottla knows: it works with an Apache Kafka too.
//!
//! Source: KIP-595 (DescribeQuorum), KIP-700 (DescribeCluster), KIP-836 (times of voters).

mod shown;

use crate::client::{ClientError, Connection};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ottla_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use ottla_protocol::messages::{
    DescribeClusterRequest, DescribeConfigsRequest, DescribeQuorumRequest, MetadataRequest,
    MetadataResponse,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const CLIENT_ID: &str = "ottla-status";
/// A broker without an active controller holds some answers back for a while.
const PATIENCE: Duration = Duration::from_secs(15);
/// The lowest versions that say enough, for brokers of many years.
const METADATA_VERSION: i16 = 8;
const DESCRIBE_CLUSTER_VERSION: i16 = 0;
const DESCRIBE_CONFIGS_VERSION: i16 = 1;
const DESCRIBE_QUORUM_VERSION: i16 = 1;
const TOPIC_RESOURCE: i8 = 2;
const METADATA_TOPIC: &str = "__cluster_metadata";

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No broker answered; what the last one said.
    #[error("no broker can be asked: {0}")]
    Client(#[from] ClientError),
    /// A broker refused.
    #[error("{0} was answered with {1}")]
    Refused(&'static str, ErrorCode),
    /// There is no address.
    #[error("--bootstrap-server is empty")]
    NoAddress,
}

/// A broker that takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: i32,
    /// `host:port`.
    pub address: String,
    /// `broker.rack`; empty without one.
    pub rack: String,
    /// Partitions that it leads.
    pub leads: usize,
    /// Partitions of which it has a replica.
    pub replicas: usize,
    /// Those in whose ISR it is not.
    pub out_of_sync: usize,
}

/// A node that follows the metadata log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumMember {
    /// Its id.
    pub id: i32,
    /// Whether it has a vote.
    pub is_voter: bool,
    /// Whether it is the active controller.
    pub is_leader: bool,
    /// Where its log ends; -1 where it is not known.
    pub log_end_offset: i64,
    /// How many records it lacks; `None` where it is not known.
    pub lag: Option<i64>,
    /// Milliseconds since it had everything; `None` where it never had, or it is not known.
    pub behind_ms: Option<i64>,
}

/// The metadata quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// Its epoch.
    pub leader_epoch: i32,
    /// Voters and observers.
    pub members: Vec<QuorumMember>,
}

/// What is wrong with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It has no leader: nothing can be read or written.
    Offline,
    /// Fewer are in sync than `min.insync.replicas`: writes with acks=all are refused.
    UnderMinIsr,
    /// One replica of several is in sync: with it the newest records would go.
    LastReplica,
    /// Some replicas are not in sync.
    UnderReplicated,
}

/// A partition that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Topic and number, as `topic-0`.
    pub name: String,
    /// What is wrong.
    pub trouble: Trouble,
    /// Its leader; -1 for none.
    pub leader: i32,
    /// All replicas.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
}

/// A cluster at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its id.
    pub cluster_id: String,
    /// The brokers that take part.
    pub brokers: Vec<Broker>,
    /// The quorum; why it cannot be seen where it cannot, which is when it has no leader.
    pub quorum: Result<Quorum, String>,
    /// How many topics there are.
    pub topics: usize,
    /// And partitions.
    pub partitions: usize,
    /// Those that are not as they should be, the worst first.
    pub troubled: Vec<Partition>,
    /// Brokers that have replicas and do not take part.
    pub missing_brokers: BTreeSet<i32>,
}

impl Status {
    /// Why data is at risk; nothing where it is not.
    pub fn risks(&self) -> Vec<String> {
        let mut risks = Vec::new();
        let mut count = |trouble: Trouble, text: &str| {
            let number = self.troubled.iter().filter(|one| one.trouble == trouble).count();
            if number > 0 {
                let noun = if number == 1 { "partition" } else { "partitions" };
                risks.push(format!("{number} {noun} {text}"));
            }
        };
        count(Trouble::Offline, "without a leader");
        count(Trouble::UnderMinIsr, "below min.insync.replicas");
        count(Trouble::LastReplica, "with one replica in sync");
        match &self.quorum {
            Err(cause) => {
                risks.push(format!("no active controller, the metadata is read-only: {cause}"));
            }
            Ok(quorum) => {
                let voters = quorum.members.iter().filter(|member| member.is_voter);
                let (all, current) = voters.fold((0, 0), |(all, current), voter| {
                    (all + 1, current + usize::from(voter.is_current()))
                });
                match current {
                    _ if current * 2 <= all => risks.push(format!(
                        "{current} of {all} voters keep up: without a majority the metadata is read-only"
                    )),
                    _ if current < all && (current - 1) * 2 <= all => risks.push(format!(
                        "{current} of {all} voters keep up: one less would stop the metadata quorum"
                    )),
                    _ => (),
                }
            }
        }
        risks
    }
}

impl QuorumMember {
    /// Whether it keeps up with the leader.
    fn is_current(&self) -> bool {
        /// Longer than a voter that works is ever silent: it answers several times a second.
        const SILENCE_MS: i64 = 3_000;
        self.is_leader || self.behind_ms.is_some_and(|ms| ms <= SILENCE_MS)
    }
}

/// Asks a cluster through the first of `addresses` (`host:port`, between commas) that answers.
///
/// # Errors
/// Every [`StatusError`].
pub fn status(addresses: &str) -> Result<Status, StatusError> {
    let mut failure = StatusError::NoAddress;
    for address in addresses.split(',').map(str::trim).filter(|address| !address.is_empty()) {
        match Connection::open(address, CLIENT_ID, PATIENCE) {
            Ok(mut connection) => return ask(&mut connection),
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}

fn ask(connection: &mut Connection) -> Result<Status, StatusError> {
    let request = DescribeClusterRequest::default();
    let cluster = connection.call(DESCRIBE_CLUSTER_VERSION, &request)?;
    check("DescribeCluster", cluster.error_code)?;
    let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
    let metadata = connection.call(METADATA_VERSION, &request)?;
    let brokers = cluster.brokers.iter().map(|broker| Broker {
        id: broker.broker_id,
        address: format!("{}:{}", broker.host, broker.port),
        rack: broker.rack.clone().unwrap_or_default(),
        leads: 0,
        replicas: 0,
        out_of_sync: 0,
    });
    let mut status = Status {
        cluster_id: cluster.cluster_id,
        brokers: brokers.collect(),
        quorum: Err(String::new()),
        topics: metadata.topics.len(),
        partitions: 0,
        troubled: Vec::new(),
        missing_brokers: BTreeSet::new(),
    };
    status.brokers.sort_by_key(|broker| broker.id);
    let minimums = ask_minimums(connection, &metadata)?;
    status.take_partitions(&metadata, &minimums);
    // The last, since there is no answer in time where no controller can be found.
    status.quorum = ask_quorum(connection).or_else(|error| match error {
        StatusError::Client(ClientError::Io(..)) => Ok(Err(error.to_string())),
        error => Err(error),
    })?;
    Ok(status)
}

fn check(api: &'static str, code: i16) -> Result<(), StatusError> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        error => Err(StatusError::Refused(api, error)),
    }
}

fn ask_quorum(connection: &mut Connection) -> Result<Result<Quorum, String>, StatusError> {
    let partition = PartitionData { partition_index: 0 };
    let topic = TopicData { topic_name: METADATA_TOPIC.to_owned(), partitions: vec![partition] };
    let request = DescribeQuorumRequest { topics: vec![topic] };
    let answer = connection.call(DESCRIBE_QUORUM_VERSION, &request)?;
    if let error @ 1.. = answer.error_code {
        return Ok(Err(ErrorCode::from_code(error).to_string()));
    }
    let mut partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
    let Some(partition) = partitions.next() else {
        return Ok(Err("the answer names no quorum".to_owned()));
    };
    if partition.error_code != 0 {
        return Ok(Err(ErrorCode::from_code(partition.error_code).to_string()));
    }
    let leader_id = partition.leader_id;
    let voters = partition.current_voters.iter().map(|it| (it, true));
    let all: Vec<_> = voters.chain(partition.observers.iter().map(|it| (it, false))).collect();
    let leader = all.iter().find(|(it, _)| it.replica_id == leader_id);
    // The leader's own time is the present one on its clock.
    let (end, now) =
        leader.map_or((-1, -1), |(it, _)| (it.log_end_offset, it.last_caught_up_timestamp));
    let members = all.iter().map(|(it, is_voter)| QuorumMember {
        id: it.replica_id,
        is_voter: *is_voter,
        is_leader: it.replica_id == leader_id,
        log_end_offset: it.log_end_offset,
        lag: (end >= 0 && it.log_end_offset >= 0).then(|| (end - it.log_end_offset).max(0)),
        behind_ms: (now >= 0 && it.last_caught_up_timestamp >= 0)
            .then(|| (now - it.last_caught_up_timestamp).max(0)),
    });
    let members = members.collect();
    Ok(Ok(Quorum { leader_epoch: partition.leader_epoch, members }))
}

/// `min.insync.replicas` of the topics that have a partition with replicas out of sync.
fn ask_minimums(
    connection: &mut Connection,
    metadata: &MetadataResponse,
) -> Result<BTreeMap<String, usize>, StatusError> {
    const KEY: &str = "min.insync.replicas";
    let troubled = metadata.topics.iter().filter(|topic| {
        topic.partitions.iter().any(|it| it.isr_nodes.len() < it.replica_nodes.len())
    });
    let resources =
        troubled.filter_map(|topic| topic.name.clone()).map(|name| DescribeConfigsResource {
            resource_type: TOPIC_RESOURCE,
            resource_name: name,
            configuration_keys: Some(vec![KEY.to_owned()]),
        });
    let resources: Vec<_> = resources.collect();
    if resources.is_empty() {
        return Ok(BTreeMap::new());
    }
    let request = DescribeConfigsRequest { resources, ..DescribeConfigsRequest::default() };
    let answer = connection.call(DESCRIBE_CONFIGS_VERSION, &request)?;
    let mut minimums = BTreeMap::new();
    for result in answer.results {
        check("DescribeConfigs", result.error_code)?;
        let value = result.configs.into_iter().find(|config| config.name == KEY);
        if let Some(minimum) = value.and_then(|config| config.value?.parse().ok()) {
            minimums.insert(result.resource_name, minimum);
        }
    }
    Ok(minimums)
}

impl Status {
    fn take_partitions(&mut self, metadata: &MetadataResponse, minimums: &BTreeMap<String, usize>) {
        for topic in &metadata.topics {
            let name = topic.name.as_deref().unwrap_or_default();
            let minimum = minimums.get(name).copied().unwrap_or(1);
            for partition in &topic.partitions {
                self.partitions += 1;
                let (replicas, isr) = (&partition.replica_nodes, &partition.isr_nodes);
                for id in replicas {
                    let Some(broker) = self.brokers.iter_mut().find(|broker| broker.id == *id)
                    else {
                        self.missing_brokers.insert(*id);
                        continue;
                    };
                    broker.replicas += 1;
                    broker.leads += usize::from(partition.leader_id == *id);
                    broker.out_of_sync += usize::from(!isr.contains(id));
                }
                let trouble = judge(partition.leader_id, replicas.len(), isr.len(), minimum);
                self.troubled.extend(trouble.map(|trouble| Partition {
                    name: format!("{name}-{}", partition.partition_index),
                    trouble,
                    leader: partition.leader_id,
                    replicas: replicas.clone(),
                    isr: isr.clone(),
                }));
            }
        }
        self.troubled.sort_by(|a, b| (a.trouble, &a.name).cmp(&(b.trouble, &b.name)));
    }
}

/// What is wrong with a partition of so many replicas of which so many are in sync.
fn judge(leader: i32, replicas: usize, isr: usize, minimum: usize) -> Option<Trouble> {
    match () {
        () if leader < 0 => Some(Trouble::Offline),
        () if isr < minimum.min(replicas) => Some(Trouble::UnderMinIsr),
        () if isr == 1 && replicas > 1 => Some(Trouble::LastReplica),
        () if isr < replicas => Some(Trouble::UnderReplicated),
        () => None,
    }
}

#[cfg(test)]
mod tests;
