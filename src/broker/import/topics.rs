//! Topics, their partitions and their own settings.
//!
//! The leader epoch goes on where it stood and is not raised: ZooKeeper's controller would not raise it either when
//! the only replica's broker comes back, and clients do not follow an epoch that goes back (KIP-320), as it would for
//! them when Kafka gets its directory again.

use super::inventory::{Found, Inventory};
use super::{ImportError, Plan, refuse};
use crate::broker::settings::Settings;
use crate::config::{Scope, internal, table, value};
use crate::machines::metadata::Image;
use crate::machines::metadata::image::{DIRECTORY_UNASSIGNED, ResourceType};
use crate::zookeeper::{Cluster, Topic};
use ottla_protocol::metadata::{ConfigRecord, PartitionRecord, TopicRecord};
use ottla_protocol::{BrokerId, LeaderEpoch, MetadataRecord, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// In topics' settings until Kafka 3.9, and the two that took its place (KIP-937).
const DIFFERENCE_MAX: &str = "message.timestamp.difference.max.ms";
const BEFORE_AND_AFTER_MAX: [&str; 2] =
    ["message.timestamp.before.max.ms", "message.timestamp.after.max.ms"];

const FORMAT_VERSION: &str = "message.format.version";
const OLD_FORMATS: [&str; 3] = ["0.8", "0.9", "0.10"];

/// Without compaction these keep every record.
const KEEP_EVERYTHING: [&str; 2] = ["retention.bytes", "retention.ms"];

type Configs = BTreeMap<String, String>;

/// Plans the topics that ZooKeeper has, and those of `before` that it never had.
pub(super) fn from_cluster(
    plan: &mut Plan,
    settings: &Settings,
    inventory: &Inventory,
    cluster: &Cluster,
    before: &Image,
) -> Result<(), ImportError> {
    for (name, topic) in &cluster.topics {
        if cluster.deletions.contains(name) && settings.config.topics.delete_topic_enable {
            plan.deleted.extend(inventory.of_topic(name).map(|(_, found)| found.path.clone()));
            continue;
        }
        check_topic(settings.node_id, name, topic)?;
        let id = agreed_id(inventory, name, topic.id)?;
        // Partitions that were added here stay, although Kafka does not see them.
        let kept = before.topics.get(name).filter(|kept| kept.id == id);
        let count = (topic.partitions.len() as i32).max(kept.map_or(0, |it| it.partition_count()));
        if let Some((_, found)) = inventory.of_topic(name).find(|(index, _)| *index >= count) {
            return unknown(found);
        }
        let mut partitions = Vec::new();
        for index in 0..count {
            let found = inventory.partitions.get(&(name.clone(), index));
            let state = topic.states.get(&index);
            if let (None, Some(state)) = (found, state) {
                plan.warnings.push(format!(
                    "{name}-{index} is in no log directory, although broker {} has led it: it begins empty",
                    state.leader
                ));
            }
            let logged = found.map_or(LeaderEpoch(0), |found| found.leader_epoch);
            partitions.push(logged.max(LeaderEpoch(state.map_or(0, |state| state.leader_epoch))));
        }
        let configs = translated(plan, name, cluster.topic_configs(name))?;
        let configs = with_internal(settings, name, configs);
        add_topic(plan, settings.node_id, (name, id), &partitions, configs);
    }
    let names: BTreeSet<&str> =
        inventory.partitions.keys().map(|(topic, _)| topic.as_str()).collect();
    for name in names.into_iter().filter(|name| !cluster.topics.contains_key(*name)) {
        keep_or_refuse(plan, inventory, before, name)?;
    }
    Ok(())
}

/// A topic that ZooKeeper does not have was made here, after an earlier import, or is unknown.
fn keep_or_refuse(
    plan: &mut Plan,
    inventory: &Inventory,
    before: &Image,
    name: &str,
) -> Result<(), ImportError> {
    let kept = before.topics.get(name);
    for (index, found) in inventory.of_topic(name) {
        let is_known = kept.is_some_and(|kept| {
            kept.partition(index).is_some() && found.topic_id.is_none_or(|id| id == kept.id)
        });
        if !is_known {
            return unknown(found);
        }
    }
    let Some(kept) = kept else { return Ok(()) };
    kept.to_records(&mut plan.records);
    plan.topics += 1;
    let resource = crate::machines::metadata::image::ConfigResource::new(ResourceType::Topic, name);
    for (key, value) in before.config(&resource).iter() {
        plan.records.push(config(ResourceType::Topic, name, key, value));
    }
    plan.warnings
        .push(format!("topic {name} was made here: Kafka with ZooKeeper does not know it"));
    Ok(())
}

fn unknown(found: &Found) -> Result<(), ImportError> {
    refuse(format!(
        "{} holds a partition that ZooKeeper does not know: delete the directory or move it out of log.dirs, if it is \
         of no more use",
        found.path.display()
    ))
}

/// What must hold for one broker to take the topic over alone.
fn check_topic(node_id: BrokerId, name: &str, topic: &Topic) -> Result<(), ImportError> {
    for (index, replicas) in &topic.partitions {
        if replicas[..] != [node_id.0] {
            return refuse(format!(
                "{name}-{index} has its replicas on brokers {replicas:?}: only a cluster of one broker, this one \
                 ({node_id}), can be taken over"
            ));
        }
    }
    if topic.is_reassigning {
        return refuse(format!("replicas of topic {name} are being added or removed"));
    }
    let gap = topic.partitions.keys().zip(0..).find(|(index, expected)| *index != expected);
    if let Some((_, missing)) = gap {
        return refuse(format!("ZooKeeper has no partition {missing} of topic {name}"));
    }
    Ok(())
}

/// The id that ZooKeeper and all directories agree on; a new one where nobody has any.
fn agreed_id(
    inventory: &Inventory,
    name: &str,
    given: Option<TopicId>,
) -> Result<TopicId, ImportError> {
    let mut agreed = given;
    for (_, found) in inventory.of_topic(name) {
        match (agreed, found.topic_id) {
            (Some(agreed), Some(id)) if agreed != id => {
                return refuse(format!(
                    "{} is of another topic of the name {name}: its topic id is {id}, not {agreed}. Delete the \
                     directory or move it out of log.dirs, if it is of no more use",
                    found.path.display(),
                    id = ottla_protocol::uuid_to_text(id),
                    agreed = ottla_protocol::uuid_to_text(agreed),
                ));
            }
            (None, id) => agreed = id,
            _ => {}
        }
    }
    Ok(agreed.unwrap_or_else(uuid::Uuid::new_v4))
}

/// Plans the topics that the directories show, with the broker's defaults for their settings.
pub(super) fn from_directories(
    plan: &mut Plan,
    settings: &Settings,
    inventory: &Inventory,
) -> Result<(), ImportError> {
    let names: BTreeSet<&str> =
        inventory.partitions.keys().map(|(topic, _)| topic.as_str()).collect();
    for name in names {
        let mut epochs = Vec::new();
        for (index, found) in inventory.of_topic(name) {
            if index != epochs.len() as i32 {
                return refuse(format!(
                    "topic {name} has a partition {index}, but no partition {} lies in a log directory: is a \
                     directory missing in log.dirs?",
                    epochs.len()
                ));
            }
            epochs.push(found.leader_epoch);
        }
        let id = agreed_id(inventory, name, None)?;
        let mut configs = with_internal(settings, name, Configs::new());
        if configs.is_empty() && inventory.cleaned.contains(name) {
            // Whether it still is to be compacted, nobody knows; deleting from it could lose the last value of a key.
            for key in KEEP_EVERYTHING {
                configs.insert(key.to_owned(), "-1".to_owned());
            }
            plan.warnings.push(format!(
                "topic {name} was compacted: it keeps all its records (retention.ms=-1, retention.bytes=-1) until its \
                 cleanup.policy is set again"
            ));
        }
        add_topic(plan, settings.node_id, (name, id), &epochs, configs);
    }
    plan.warnings.push(
        "nothing is known of the settings of topics: all but the internal ones have the broker's defaults".to_owned(),
    );
    Ok(())
}

/// An internal topic without settings gets those that it is made with.
fn with_internal(settings: &Settings, name: &str, mut configs: Configs) -> Configs {
    let topics = internal::topics(&settings.config);
    if let Some(topic) = topics.into_iter().find(|topic| topic.name == name)
        && !configs.contains_key("cleanup.policy")
    {
        for (key, value) in topic.configs {
            configs.entry(key.to_owned()).or_insert(value);
        }
    }
    configs
}

/// A topic's settings as today's Kafka names them.
fn translated(plan: &mut Plan, name: &str, given: Configs) -> Result<Configs, ImportError> {
    let mut configs = Configs::new();
    for (key, text) in given {
        if key == DIFFERENCE_MAX {
            for newer in BEFORE_AND_AFTER_MAX {
                configs.insert(newer.to_owned(), text.clone());
            }
            continue;
        }
        let is_old = |version: &&str| text == **version || text.starts_with(&format!("{version}."));
        if key == FORMAT_VERSION && OLD_FORMATS.iter().any(is_old) {
            return refuse(format!(
                "topic {name} has {key}={text}: records in the format of Kafka before 0.11 are not read here"
            ));
        }
        match table::find(Scope::Topic, &key) {
            Some(known) if known.gone.is_some() => {
                plan.warnings
                    .push(format!("{key}={text} of topic {name} is left out: it is no more"));
            }
            Some(known) => {
                if let Err(why) = value::parse(known, &text) {
                    return refuse(format!("/config/topics/{name}: {why}"));
                }
                configs.insert(key, text);
            }
            None => {
                return refuse(format!("/config/topics/{name} has {key}, which no topic has"));
            }
        }
    }
    Ok(configs)
}

fn add_topic(
    plan: &mut Plan,
    node_id: BrokerId,
    (name, topic_id): (&str, TopicId),
    leader_epochs: &[LeaderEpoch],
    configs: Configs,
) {
    plan.topics += 1;
    let record = TopicRecord { name: name.to_owned(), topic_id };
    plan.records.push(MetadataRecord::Topic(record));
    for (partition_id, leader_epoch) in (0..).zip(leader_epochs) {
        plan.records.push(MetadataRecord::Partition(PartitionRecord {
            partition_id,
            topic_id,
            replicas: vec![node_id.0],
            isr: vec![node_id.0],
            leader: node_id.0,
            leader_epoch: leader_epoch.0,
            directories: vec![DIRECTORY_UNASSIGNED],
            ..PartitionRecord::default()
        }));
    }
    for (key, value) in configs {
        plan.records.push(config(ResourceType::Topic, name, &key, &value));
    }
}

/// The record of one setting.
pub(super) fn config(kind: ResourceType, name: &str, key: &str, value: &str) -> MetadataRecord {
    MetadataRecord::Config(ConfigRecord {
        resource_type: kind.id(),
        resource_name: name.to_owned(),
        name: key.to_owned(),
        value: Some(value.to_owned()),
    })
}
