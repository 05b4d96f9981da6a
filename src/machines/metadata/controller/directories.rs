//! Which log directory a replica lies in, as its broker says.
//!
//! Source: KIP-858 (AssignReplicasToDirs).

use super::{Controller, ControllerReply, Decision};
use ottla_protocol::messages::{
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, assign_replicas_to_dirs_response,
};
use ottla_protocol::{BrokerEpoch, BrokerId, ErrorCode, MetadataRecord, TopicId};
use uuid::Uuid;

impl Controller {
    pub(super) fn assign_to_dirs(&self, request: &AssignReplicasToDirsRequest) -> Decision {
        use assign_replicas_to_dirs_response::{DirectoryData, PartitionData, TopicData};
        let broker = BrokerId(request.broker_id);
        if let Err(error) = self.broker_in_epoch(broker, BrokerEpoch(request.broker_epoch)) {
            let error_code = error.code.code();
            let response = AssignReplicasToDirsResponse { error_code, ..Default::default() };
            return (Vec::new(), ControllerReply::AssignReplicasToDirs(response));
        }
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

    /// The record, unless the replica is known to be there.
    fn assign_to_dir(
        &self,
        broker: BrokerId,
        topic_id: TopicId,
        index: i32,
        directory: Uuid,
    ) -> Result<Option<MetadataRecord>, ErrorCode> {
        let topic = self.image.topics.get_by_id(&topic_id).ok_or(ErrorCode::UnknownTopicId)?;
        let partition = topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        if !partition.replicas.contains(&broker) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(self.change_partition_now(topic, index, |change| {
            change.assigned = Some((broker, directory));
        }))
    }
}
