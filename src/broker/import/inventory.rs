//! What lies in the log directories.

use super::ImportError;
use crate::env::Disk;
use crate::log::checkpoint::{
    CLEANER_OFFSETS, PartitionKey, parse_partition_dir, read_meta_properties, read_offsets,
};
use crate::log::scan_partition;
use ottla_protocol::{CLUSTER_METADATA_TOPIC, LeaderEpoch, ProducerId, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

/// The one format of records that is read here.
const MAGIC: u8 = 2;

/// A partition's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it is.
    pub(super) path: PathBuf,
    /// The topic's id in it.
    pub(super) topic_id: Option<TopicId>,
    /// The last leader epoch in it.
    pub(super) leader_epoch: LeaderEpoch,
}

/// Everything that the log directories say.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// The partitions; of two directories of one partition the first.
    pub(super) partitions: BTreeMap<PartitionKey, Found>,
    /// Topics that a cleaner has compacted at some time.
    pub(super) cleaned: BTreeSet<String>,
    /// The highest producer id in producer snapshots.
    pub(super) producer_id: ProducerId,
    /// The cluster's id in the first `meta.properties` that has one.
    pub(super) cluster_id: Option<String>,
    /// The brokers that the directories belong to.
    pub(super) node_ids: Vec<i32>,
}

impl Inventory {
    /// Looks at every directory.
    ///
    /// # Errors
    /// A file cannot be read, is damaged, or a partition is there twice.
    pub(super) fn read(disk: &dyn Disk, log_dirs: &[PathBuf]) -> Result<Inventory, ImportError> {
        let mut inventory = Inventory { producer_id: ProducerId::NONE, ..Inventory::default() };
        for log_dir in log_dirs {
            if let Some(meta) = read_meta_properties(disk, log_dir)? {
                inventory.cluster_id = inventory.cluster_id.or(meta.cluster_id);
                inventory.node_ids.extend(meta.node_id);
            }
            // One that is damaged is made anew by whoever starts here.
            let cleaned = read_offsets(disk, log_dir, CLEANER_OFFSETS).unwrap_or_default();
            inventory.cleaned.extend(cleaned.into_keys().map(|(topic, _)| topic));
            let entries = match disk.list(log_dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => {
                    return Err(ImportError::Unreadable { path: log_dir.clone(), source });
                }
            };
            for entry in entries.into_iter().filter(|entry| entry.is_dir) {
                let key = parse_partition_dir(&entry.name);
                let Some(key) = key.filter(|(topic, _)| topic != CLUSTER_METADATA_TOPIC) else {
                    continue;
                };
                let path = log_dir.join(&entry.name);
                let files = scan_partition(disk, &path)?;
                if let Some(magic) = files.magic.filter(|magic| *magic < MAGIC) {
                    return super::refuse(format!(
                        "{} has records in the format of Kafka before 0.11 (magic {magic}), which is not read here",
                        path.display()
                    ));
                }
                inventory.producer_id = inventory.producer_id.max(files.producer_id);
                let found = Found {
                    path: path.clone(),
                    topic_id: files.topic_id,
                    leader_epoch: files.leader_epoch,
                };
                if let Some(other) = inventory.partitions.insert(key, found) {
                    return super::refuse(format!(
                        "{} and {} hold the same partition: Kafka would not start either. Set the one aside that is \
                         stale",
                        other.path.display(),
                        path.display()
                    ));
                }
            }
        }
        Ok(inventory)
    }

    /// The partitions of a topic, by index.
    pub(super) fn of_topic<'a>(
        &'a self,
        topic: &'a str,
    ) -> impl Iterator<Item = (i32, &'a Found)> + 'a {
        let from = (topic.to_owned(), i32::MIN)..=(topic.to_owned(), i32::MAX);
        self.partitions.range(from).map(|((_, index), found)| (*index, found))
    }
}
