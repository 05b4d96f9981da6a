//! Which log directory a replica lies in, as its broker says, and what becomes of the replicas in one that fails.
//!
//! Invariant: a replica in a log directory that its broker has told to be offline is in no ISR that has another member,
//! and leads nothing. Source: KIP-858 (AssignReplicasToDirs, `OfflineLogDirs` of BrokerHeartbeat).

use super::brokers::registration_change;
use super::partitions::BrokerEvent;
use super::{ApiError, Controller, ControllerReply, Decision};
use crate::machines::metadata::features::can_assign_directories;
use crate::machines::metadata::image::{
    BrokerRegistration, DIRECTORY_LOST, DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED,
};
use ottla_protocol::messages::{
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, BrokerHeartbeatRequest,
    assign_replicas_to_dirs_response,
};
use ottla_protocol::{BrokerEpoch, BrokerId, ErrorCode, MetadataRecord, TopicId};
use uuid::Uuid;

impl Controller {
    pub(super) fn assign_to_dirs(&self, request: &AssignReplicasToDirsRequest) -> Decision {
        use assign_replicas_to_dirs_response::{DirectoryData, PartitionData, TopicData};
        let broker = match self.assigning_broker(request) {
            Ok(broker) => broker,
            Err(error) => {
                let error_code = error.code.code();
                let response = AssignReplicasToDirsResponse { error_code, ..Default::default() };
                return (Vec::new(), ControllerReply::AssignReplicasToDirs(response));
            }
        };
        let mut records = Vec::new();
        let mut directories = Vec::new();
        for directory in &request.directories {
            let mut topics = Vec::new();
            for topic in &directory.topics {
                let partitions = topic.partitions.iter().map(|partition| {
                    let index = partition.partition_index;
                    let changed = self.assign_to_dir(broker, topic.topic_id, index, directory.id);
                    let error_code = match changed {
                        Ok(record) => {
                            records.extend(record);
                            ErrorCode::None.code()
                        }
                        Err(error) => error.code(),
                    };
                    PartitionData { partition_index: index, error_code }
                });
                let partitions = partitions.collect();
                topics.push(TopicData { topic_id: topic.topic_id, partitions });
            }
            directories.push(DirectoryData { id: directory.id, topics });
        }
        let response = AssignReplicasToDirsResponse { directories, ..Default::default() };
        (records, ControllerReply::AssignReplicasToDirs(response))
    }

    /// The broker that asks.
    fn assigning_broker(
        &self,
        request: &AssignReplicasToDirsRequest,
    ) -> Result<&BrokerRegistration, ApiError> {
        let epoch = BrokerEpoch(request.broker_epoch);
        let broker = self.broker_in_epoch(BrokerId(request.broker_id), epoch)?;
        if !can_assign_directories(self.image.features.metadata_version()) {
            return Err(ErrorCode::UnsupportedVersion.into());
        }
        Ok(broker)
    }

    /// The record, unless the replica is known to be there. In a directory that is offline it leads nothing.
    fn assign_to_dir(
        &self,
        broker: &BrokerRegistration,
        topic_id: TopicId,
        index: i32,
        directory: Uuid,
    ) -> Result<Option<MetadataRecord>, ErrorCode> {
        let id = broker.id;
        let topic = self.image.topics.get_by_id(&topic_id).ok_or(ErrorCode::UnknownTopicId)?;
        let partition = topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if !partition.replicas.contains(&id) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let reserved = [DIRECTORY_UNASSIGNED, DIRECTORY_LOST, DIRECTORY_MIGRATING];
        let is_online = broker.log_dirs.contains(&directory) || reserved.contains(&directory);
        let stays = self.stays(BrokerEvent::Leaves(id), partition);
        let leaves = !is_online && !stays;
        let alive = |other| match other == id {
            // It may be fenced still, and tell what it has opened.
            true => !leaves && (stays || self.image.cluster.is_active(id)),
            false => self.image.cluster.is_active(other),
        };
        Ok(self.change_partition(topic, index, &alive, |change| {
            change.assigned = Some((id, directory));
            if leaves {
                change.isr.retain(|member| *member != id);
            }
        }))
    }

    /// What follows from the log directories that a heartbeat says to be offline, or not to get new partitions.
    pub(super) fn log_dir_changes(
        &self,
        broker: &BrokerRegistration,
        request: &BrokerHeartbeatRequest,
    ) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        let is_offline = |dir: &Uuid| request.offline_log_dirs.contains(dir);
        let (gone, online): (Vec<Uuid>, Vec<Uuid>) =
            broker.log_dirs.iter().copied().partition(is_offline);
        if !gone.is_empty() && can_assign_directories(self.image.features.metadata_version()) {
            self.leave_directories(broker.id, &gone, &mut records);
            // A broker without any is about to end; the record cannot say so.
            if !online.is_empty() {
                records.push(registration_change(broker, |change| change.log_dirs = online));
            }
        }
        if let Some(cordoned) = &request.cordoned_log_dirs
            && broker.cordoned_log_dirs.as_deref().unwrap_or_default() != cordoned
        {
            let cordoned = cordoned.clone();
            records.push(registration_change(broker, |change| {
                change.cordoned_log_dirs = Some(cordoned);
            }));
        }
        records
    }

    /// The replicas in these directories are in no ISR any more, and others lead where they did.
    fn leave_directories(&self, id: BrokerId, gone: &[Uuid], records: &mut Vec<MetadataRecord>) {
        // The image still has the directories online.
        let alive = |other| other != id && self.image.cluster.is_active(other);
        for topic in self.image.topics.iter() {
            for (index, partition) in topic.partitions.iter() {
                let is_concerned = partition.leader == id || partition.isr.contains(&id);
                if !is_concerned
                    || !gone.contains(&partition.directory_of(id))
                    || self.stays(BrokerEvent::Leaves(id), partition)
                {
                    continue;
                }
                records.extend(self.change_partition(topic, *index, &alive, |change| {
                    change.isr.retain(|member| *member != id);
                }));
            }
        }
    }
}
