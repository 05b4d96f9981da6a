//! Makes the metadata log of log directories that a Kafka with ZooKeeper left: it has none.
//!
//! [`plan`] reads everything and decides: it refuses, or it answers the records. [`Plan::carry_out`] writes them,
//! once the directories are locked. The log is built in a directory of its own beside the place where it belongs,
//! synced, and renamed as the last step: a crash leaves directories that can be imported again, or whole ones.
//! ZooKeeper is read only, and what Kafka 2.8 reads of the directories stays as it was: it can start on them again.
//!
//! Not here: reading ZooKeeper (room `zookeeper`). Source: KIP-866, whose migration writes the same records; KIP-631.

mod configs;
mod inventory;
mod topics;

use super::quorum::METADATA_DIR;
use super::settings::Settings;
use crate::env::Disk;
use crate::log::RecoveryError;
use crate::log::checkpoint::deleted_partition_dir;
use crate::machines::metadata::features::formatted_features;
use crate::machines::metadata::{Image, bootstrap_records, record_version};
use crate::zookeeper::{Cluster, Source, ZooKeeperError};
use inventory::Inventory;
use ottla_protocol::messages::LeaderChangeMessage;
use ottla_protocol::messages::leader_change_message::Voter;
use ottla_protocol::metadata::ProducerIdsRecord;
use ottla_protocol::record::{BatchBuilder, BatchParams};
use ottla_protocol::records::control::ControlRecord;
use ottla_protocol::records::metadata::encode_metadata_record;
use ottla_protocol::{
    BrokerId, CLUSTER_METADATA_TOPIC, LeaderEpoch, MetadataRecord, Offset, Timestamp,
};
use std::io;
use std::path::{Path, PathBuf};

/// How far the producer ids given here are from ZooKeeper's next one. Kafka goes on from that one when it gets its
/// directory back, and no id may ever be given twice: a producer that meets the sequence numbers of another is refused.
const PRODUCER_ID_GAP: i64 = 1 << 40;
/// Records in one batch.
const BATCH_RECORDS: usize = 1000;
/// The epoch of the metadata log that is built; the broker's first election begins the next.
const EPOCH: LeaderEpoch = LeaderEpoch(1);
const SEGMENT: &str = "00000000000000000000.log";

/// Why log directories cannot be imported; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is damaged.
    #[error(transparent)]
    Damaged(#[from] RecoveryError),
    /// A node is not what Kafka writes.
    #[error(transparent)]
    Node(#[from] ZooKeeperError),
    /// Something cannot be taken over as it is.
    #[error("{0}")]
    Refused(String),
}

fn refuse<T>(why: impl Into<String>) -> Result<T, ImportError> {
    Err(ImportError::Refused(why.into()))
}

/// What an import will write.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The metadata.
    pub(super) records: Vec<MetadataRecord>,
    /// Partitions' directories whose topics were to be deleted.
    pub(super) deleted: Vec<PathBuf>,
    /// What is left out, and what else the operator should know.
    pub(super) warnings: Vec<String>,
    /// Topics that are taken over.
    pub(super) topics: usize,
    /// What the metadata comes from.
    pub(super) origin: String,
}

/// Decides what the metadata will be. `before` is what an earlier import and the time after it left, where Kafka has
/// run since.
///
/// # Errors
/// Every [`ImportError`].
pub(super) fn plan(
    disk: &dyn Disk,
    settings: &Settings,
    source: &Source,
    before: &Image,
) -> Result<Plan, ImportError> {
    let inventory = Inventory::read(disk, &settings.log_dirs)?;
    if inventory.cluster_id.is_none() {
        return refuse(
            "meta.properties has no cluster.id, as Kafka before 2.4 writes it: start Kafka 2.8 on it once",
        );
    }
    let mut plan = Plan {
        records: bootstrap_records(settings.controller.min_insync_replicas),
        ..Plan::default()
    };
    let mut next_producer_id = inventory.producer_id.0.saturating_add(1);
    match source {
        Source::Nothing => {
            plan.origin = "the log directories alone".to_owned();
            topics::from_directories(&mut plan, settings, &inventory)?;
        }
        Source::Tree(tree) => {
            let cluster = Cluster::read(tree)?;
            check_cluster(settings, &inventory, &cluster)?;
            next_producer_id = next_producer_id.max(cluster.next_producer_id);
            plan.origin = format!("ZooKeeper, controller epoch {}", cluster.controller_epoch);
            topics::from_cluster(&mut plan, settings, &inventory, &cluster, before)?;
            configs::add(&mut plan, settings.node_id, &cluster)?;
        }
    }
    let next_producer_id =
        next_producer_id.saturating_add(PRODUCER_ID_GAP).max(before.next_producer_id.0);
    plan.records.push(MetadataRecord::ProducerIds(ProducerIdsRecord {
        broker_id: settings.node_id.0,
        broker_epoch: -1,
        next_producer_id,
    }));
    Ok(plan)
}

/// What holds for the cluster as a whole.
fn check_cluster(
    settings: &Settings,
    inventory: &Inventory,
    cluster: &Cluster,
) -> Result<(), ImportError> {
    let node_id = settings.node_id;
    if !cluster.brokers.is_empty() {
        return refuse(format!(
            "brokers {} were registered in ZooKeeper when it was exported: stop Kafka, and export it again",
            cluster.brokers.join(", ")
        ));
    }
    if let Some(found) = inventory.node_ids.iter().find(|id| **id != node_id.0) {
        return refuse(format!(
            "the log directories belong to broker {found}, but node.id (or broker.id) is {node_id}"
        ));
    }
    if let (Some(id), Some(found)) = (&cluster.id, &inventory.cluster_id)
        && id != found
    {
        return refuse(format!(
            "the log directories belong to cluster {found}, but ZooKeeper's /cluster/id is {id}: it is another \
             ZooKeeper or chroot"
        ));
    }
    if cluster.is_reassigning {
        return refuse("a reassignment of partitions is under way (/admin/reassign_partitions)");
    }
    if let Some(first) = cluster.acls.first() {
        return refuse(format!(
            "ZooKeeper has access control entries ({} nodes, the first is {first}), and this broker does not enforce \
             them: remove them with kafka-acls, or from an exported file (ottla export-zookeeper), if the topics \
             may be open to everyone",
            cluster.acls.len()
        ));
    }
    if inventory.partitions.is_empty() && !cluster.topics.is_empty() {
        return refuse(format!(
            "ZooKeeper has {} topics, but the log directories have no partition: is log.dirs right?",
            cluster.topics.len()
        ));
    }
    Ok(())
}

impl Plan {
    /// Writes the metadata log below `metadata_log_dir`; one that is there already makes way.
    ///
    /// # Errors
    /// [`ImportError::Unreadable`]; the import can be done again.
    pub(super) fn carry_out(
        &self,
        disk: &dyn Disk,
        metadata_log_dir: &Path,
        node_id: BrokerId,
        now: Timestamp,
    ) -> Result<(), ImportError> {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        let write = || {
            for dir in &self.deleted {
                self.set_deleted(disk, dir)?;
            }
            // Kafka 2.8 starts on no directory whose name it cannot read; one of this form it removes, as we do.
            let unique = || uuid::Uuid::new_v4();
            let building =
                deleted_partition_dir(metadata_log_dir, CLUSTER_METADATA_TOPIC, 0, unique());
            let place = metadata_log_dir.join(METADATA_DIR);
            disk.create_dir_durably(&building)?;
            disk.write_atomic(&building.join(SEGMENT), &segment(&self.records, node_id, now))?;
            let old = deleted_partition_dir(metadata_log_dir, CLUSTER_METADATA_TOPIC, 0, unique());
            let is_there = disk.exists(&place);
            if is_there {
                disk.rename(&place, &old)?;
            }
            disk.rename(&building, &place)?;
            disk.sync_dir(metadata_log_dir)?;
            if is_there { disk.remove_dir_all(&old) } else { Ok(()) }
        };
        let path = metadata_log_dir.to_owned();
        write().map_err(|source| ImportError::Unreadable { path, source })?;
        tracing::info!(topics = self.topics, "taken over from {}", self.origin);
        Ok(())
    }

    fn set_deleted(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let key = crate::log::checkpoint::parse_partition_dir(name);
        let (Some((topic, index)), Some(log_dir)) = (key, dir.parent()) else { return Ok(()) };
        let to = deleted_partition_dir(log_dir, &topic, index, uuid::Uuid::new_v4());
        disk.rename(dir, &to)?;
        disk.sync_dir(log_dir)?;
        tracing::warn!(from = %dir.display(), to = %to.display(), "the topic was to be deleted");
        Ok(())
    }
}

/// The first segment of the metadata log.
fn segment(records: &[MetadataRecord], node_id: BrokerId, now: Timestamp) -> Vec<u8> {
    let mut image = Image::default();
    for record in formatted_features() {
        image.replay(Offset(0), &record);
    }
    let metadata_version = image.features.metadata_version();
    let params = |base_offset, is_control| BatchParams {
        base_offset,
        leader_epoch: EPOCH,
        is_control,
        ..BatchParams::default()
    };
    let voter = Voter { voter_id: node_id.0, ..Voter::default() };
    let leader = ControlRecord::LeaderChange(LeaderChangeMessage {
        version: 0,
        leader_id: node_id.0,
        voters: vec![voter.clone()],
        granting_voters: vec![voter],
    });
    let mut batch = BatchBuilder::new(params(Offset(0), true));
    batch.push(now, Some(&leader.key()), Some(&leader.value()), &[]);
    let mut bytes = batch.build().to_vec();
    let mut next = Offset(1);
    for records in records.chunks(BATCH_RECORDS) {
        let mut batch = BatchBuilder::new(params(next, false));
        for record in records {
            let version = record_version(record, metadata_version);
            batch.push(now, None, Some(&encode_metadata_record(record, version)), &[]);
        }
        next = batch.next_offset();
        bytes.extend_from_slice(&batch.build());
    }
    bytes
}

#[cfg(test)]
mod tests;
