//! What Kafka's nodes mean.
//!
//! Nothing is judged here: what an import cannot take is told of, and `broker/import` refuses it. Source: Kafka's
//! `ZkData` for the nodes' content, KIP-455 (reassignments), KIP-516 (topic ids), KIP-257 (extended ACLs).

use super::{Tree, ZooKeeperError};
use ottla_protocol::{TopicId, uuid_from_text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How Kafka names the entity that stands for all others of its kind.
const DEFAULT: &str = "<default>";

/// What the leader's node of a partition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionState {
    /// The leader; -1 for none.
    pub leader: i32,
    /// Its epoch.
    pub leader_epoch: i32,
    /// The in-sync replicas.
    pub isr: Vec<i32>,
}

/// A topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topic {
    /// Its id; none while `inter.broker.protocol.version` is below 2.8.
    pub id: Option<TopicId>,
    /// The replicas of each partition.
    pub partitions: BTreeMap<i32, Vec<i32>>,
    /// Whether replicas are being added or removed.
    pub is_reassigning: bool,
    /// The partitions that have had a leader.
    pub states: BTreeMap<i32, PartitionState>,
}

/// Who has dynamic configurations: kind (`topics`, `brokers`, `users`, `clients`, `ips`) and name, where `None` stands
/// for all others; a user and a client together are two parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entity(pub Vec<(String, Option<String>)>);

/// Everything that ZooKeeper keeps of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Its id.
    pub id: Option<String>,
    /// Counts the controllers.
    pub controller_epoch: i32,
    /// Brokers that are running.
    pub brokers: Vec<String>,
    /// All topics, by name.
    pub topics: BTreeMap<String, Topic>,
    /// Topics whose deletion was asked for.
    pub deletions: BTreeSet<String>,
    /// Whether a reassignment was asked for in the way before Kafka 2.4.
    pub is_reassigning: bool,
    /// Dynamic configurations that are not empty.
    pub configs: BTreeMap<Entity, BTreeMap<String, String>>,
    /// The first producer id that no broker was given.
    pub next_producer_id: i64,
    /// Nodes with access control entries.
    pub acls: Vec<String>,
    /// Delegation tokens.
    pub tokens: Vec<String>,
}

impl Cluster {
    /// Reads the nodes.
    ///
    /// # Errors
    /// [`ZooKeeperError::Node`].
    pub fn read(tree: &Tree) -> Result<Cluster, ZooKeeperError> {
        let mut cluster = Cluster {
            id: json(tree, "/cluster/id")?.and_then(|id| text(&id, "id")),
            brokers: tree.children("/brokers/ids").map(str::to_owned).collect(),
            deletions: tree.children("/admin/delete_topics").map(str::to_owned).collect(),
            tokens: tree.children("/delegation_token/tokens").map(str::to_owned).collect(),
            ..Cluster::default()
        };
        if let Some(epoch) = tree.data("/controller_epoch") {
            let wrong = || node("/controller_epoch", "is no number");
            cluster.controller_epoch = epoch.trim().parse().map_err(|_| wrong())?;
        }
        if let Some(block) = json(tree, "/latest_producer_id_block")? {
            let end = text(&block, "block_end").and_then(|end| end.parse::<i64>().ok());
            let end = end.ok_or_else(|| node("/latest_producer_id_block", "has no block_end"))?;
            cluster.next_producer_id = end.saturating_add(1);
        }
        let reassigned = json(tree, "/admin/reassign_partitions")?;
        let partitions = reassigned.as_ref().and_then(|it| it.get("partitions")?.as_array());
        cluster.is_reassigning = partitions.is_some_and(|partitions| !partitions.is_empty());
        cluster.read_topics(tree)?;
        cluster.read_configs(tree)?;
        for root in ["/kafka-acl", "/kafka-acl-extended"] {
            for (below, data) in tree.below(root) {
                let acls: Option<Value> = data.and_then(|data| serde_json::from_str(data).ok());
                let acls = acls.as_ref().and_then(|acls| acls.get("acls")?.as_array());
                if acls.is_some_and(|acls| !acls.is_empty()) {
                    cluster.acls.push(format!("{root}/{below}"));
                }
            }
        }
        Ok(cluster)
    }

    fn read_topics(&mut self, tree: &Tree) -> Result<(), ZooKeeperError> {
        const TOPICS: &str = "/brokers/topics";
        for (below, data) in tree.below(TOPICS) {
            let path = format!("{TOPICS}/{below}");
            let parts: Vec<&str> = below.split('/').collect();
            match parts[..] {
                [name] => {
                    let value = parse(&path, data.unwrap_or("{}"))?;
                    self.topics.insert(name.to_owned(), topic(&path, &value)?);
                }
                [name, "partitions", partition, "state"] => {
                    let index = partition.parse().map_err(|_| node(&path, "has no number"))?;
                    let value = parse(&path, data.unwrap_or("{}"))?;
                    let state = state(&value).ok_or_else(|| node(&path, "lacks a field"))?;
                    if let Some(topic) = self.topics.get_mut(name) {
                        topic.states.insert(index, state);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_configs(&mut self, tree: &Tree) -> Result<(), ZooKeeperError> {
        for (below, data) in tree.below("/config") {
            let path = format!("/config/{below}");
            let parts: Vec<&str> = below.split('/').collect();
            let named: Vec<(&str, &str)> = match parts[..] {
                ["changes", ..] => continue,
                [kind, name] => vec![(kind, name)],
                [kind, name, more, other] => vec![(kind, name), (more, other)],
                _ => continue,
            };
            let Some(data) = data else { continue };
            let value = parse(&path, data)?;
            let Some(config) = value.get("config").and_then(Value::as_object) else { continue };
            let mut map = BTreeMap::new();
            for (name, value) in config {
                let value = match value {
                    Value::String(text) => text.clone(),
                    // 0.8 took numbers too.
                    Value::Number(_) | Value::Bool(_) => value.to_string(),
                    _ => return Err(node(&path, format!("the value of {name} is no text"))),
                };
                map.insert(name.clone(), value);
            }
            if map.is_empty() {
                continue;
            }
            let part = |(kind, name): (&str, &str)| {
                let name = if kind == "topics" { Some(name.to_owned()) } else { entity_name(name) };
                (kind.to_owned(), name)
            };
            self.configs.insert(Entity(named.into_iter().map(part).collect()), map);
        }
        Ok(())
    }

    /// The dynamic configurations of a topic.
    pub fn topic_configs(&self, topic: &str) -> BTreeMap<String, String> {
        let entity = Entity(vec![("topics".to_owned(), Some(topic.to_owned()))]);
        self.configs.get(&entity).cloned().unwrap_or_default()
    }
}

fn node(path: &str, cause: impl Into<String>) -> ZooKeeperError {
    ZooKeeperError::Node { path: path.to_owned(), cause: cause.into() }
}

fn parse(path: &str, data: &str) -> Result<Value, ZooKeeperError> {
    serde_json::from_str(data).map_err(|error| node(path, error.to_string()))
}

fn json(tree: &Tree, path: &str) -> Result<Option<Value>, ZooKeeperError> {
    tree.data(path).map(|data| parse(path, data)).transpose()
}

fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name)?.as_str().map(str::to_owned)
}

fn numbers(value: &Value) -> Option<Vec<i32>> {
    let number = |value: &Value| i32::try_from(value.as_i64()?).ok();
    value.as_array()?.iter().map(number).collect()
}

fn topic(path: &str, value: &Value) -> Result<Topic, ZooKeeperError> {
    let mut topic = Topic::default();
    if let Some(id) = text(value, "topic_id") {
        let id = uuid_from_text(&id).ok_or_else(|| node(path, "topic_id is no id"))?;
        topic.id = Some(id);
    }
    let partitions = value.get("partitions").and_then(Value::as_object);
    for (partition, replicas) in partitions.into_iter().flatten() {
        let index = partition.parse().map_err(|_| node(path, "a partition has no number"))?;
        let replicas = numbers(replicas).ok_or_else(|| node(path, "a replica has no number"))?;
        topic.partitions.insert(index, replicas);
    }
    topic.is_reassigning = ["adding_replicas", "removing_replicas"].iter().any(|name| {
        let changing = value.get(name).and_then(Value::as_object);
        changing.is_some_and(|partitions| !partitions.is_empty())
    });
    Ok(topic)
}

fn state(value: &Value) -> Option<PartitionState> {
    let number = |name: &str| i32::try_from(value.get(name)?.as_i64()?).ok();
    Some(PartitionState {
        leader: number("leader")?,
        leader_epoch: number("leader_epoch")?,
        isr: numbers(value.get("isr")?)?,
    })
}

/// The name behind Kafka's `Sanitizer`, which writes it as part of a URL.
fn entity_name(sanitized: &str) -> Option<String> {
    if sanitized == DEFAULT {
        return None;
    }
    let bytes = sanitized.as_bytes();
    let mut name = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%').then(|| sanitized.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(escaped) => {
                name.push(escaped);
                at += 3;
            }
            None => {
                name.push(*byte);
                at += 1;
            }
        }
    }
    Some(String::from_utf8_lossy(&name).into_owned())
}
