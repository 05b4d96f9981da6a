//! What partitions do when brokers come and go, and what holds for a partition's topic.

use super::partition_change::{Circumstances, Election, PartitionChange};
use super::{Controller, LoneReplicas};
use crate::machines::metadata::features::ELR_VERSION;
use crate::machines::metadata::image::{
    ConfigResource, DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED, PartitionRegistration, ResourceType,
    TopicImage,
};
use ottla_protocol::{BrokerId, MetadataRecord};
use uuid::Uuid;

/// What happens to a broker, of which its partitions must hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BrokerEvent {
    /// It may not lead and is out of every ISR.
    Leaves(BrokerId),
    /// It may lead again.
    Returns(BrokerId),
    /// It is back without what it had not synced.
    LostTail(BrokerId),
}

impl BrokerEvent {
    /// Whether a partition takes note.
    fn concerns(self, partition: &PartitionRegistration) -> bool {
        match self {
            BrokerEvent::Leaves(id) => partition.isr.contains(&id),
            BrokerEvent::LostTail(id) => partition.isr.contains(&id) || partition.elr.contains(&id),
            BrokerEvent::Returns(_) => !partition.has_leader(),
        }
    }
}

impl Controller {
    /// The records by which partitions follow what happens to a broker.
    pub(super) fn partition_changes(&self, event: BrokerEvent, records: &mut Vec<MetadataRecord>) {
        // The image still shows the broker as it was before the event.
        let alive = |id: BrokerId| match event {
            BrokerEvent::Leaves(gone) | BrokerEvent::LostTail(gone) if gone == id => false,
            BrokerEvent::Returns(back) if back == id => true,
            _ => self.image.cluster.is_active(id),
        };
        for topic in self.image.topics.iter() {
            for (index, partition) in topic.partitions.iter() {
                if !event.concerns(partition) || self.stays(event, partition) {
                    continue;
                }
                records.extend(self.change_partition(topic, *index, &alive, |change| {
                    if let BrokerEvent::Leaves(gone) | BrokerEvent::LostTail(gone) = event {
                        change.isr.retain(|id| *id != gone);
                    }
                    if let BrokerEvent::LostTail(id) = event {
                        change.unclean_shutdown = Some(id);
                    }
                }));
            }
        }
    }

    /// Whether the partition keeps its leader although that leader's broker goes.
    pub(super) fn stays(&self, event: BrokerEvent, partition: &PartitionRegistration) -> bool {
        match event {
            BrokerEvent::Leaves(id) | BrokerEvent::LostTail(id) => {
                self.settings.lone_replicas == LoneReplicas::Stay && partition.replicas == [id]
            }
            BrokerEvent::Returns(_) => false,
        }
    }

    /// The record for a change of one partition, which `edit` describes; none when nothing changes.
    pub(super) fn change_partition(
        &self,
        topic: &TopicImage,
        index: i32,
        alive: &dyn Fn(BrokerId) -> bool,
        edit: impl FnOnce(&mut PartitionChange<'_>),
    ) -> Option<MetadataRecord> {
        let partition = topic.partition(index)?;
        let may_lead = |id| alive(id) && self.image.cluster.has_directory_of(partition, id);
        let default_directory = |id| self.default_directory(id);
        let mut change = PartitionChange::new(
            partition,
            Circumstances {
                may_lead: &may_lead,
                default_directory: &default_directory,
                min_isr: self.min_isr(&topic.name).min(partition.replicas.len()),
                elr_enabled: self.elr_enabled(),
            },
        );
        if self.unclean_allowed(&topic.name) {
            change.election = Election::Unclean;
        }
        edit(&mut change);
        change.build(topic.id, index)
    }

    /// The same with the brokers as they are in the image.
    pub(super) fn change_partition_now(
        &self,
        topic: &TopicImage,
        index: i32,
        edit: impl FnOnce(&mut PartitionChange<'_>),
    ) -> Option<MetadataRecord> {
        self.change_partition(topic, index, &|id| self.image.cluster.is_active(id), edit)
    }

    pub(super) fn elr_enabled(&self) -> bool {
        self.image.features.level(ELR_VERSION) >= 1
    }

    /// The directory of a new replica: the broker's only one, else unassigned until the broker
    /// says.
    pub(super) fn default_directory(&self, id: BrokerId) -> Uuid {
        match self.image.cluster.brokers.get(&id).map(|broker| &broker.log_dirs[..]) {
            Some([only]) => *only,
            Some([]) => DIRECTORY_MIGRATING,
            _ => DIRECTORY_UNASSIGNED,
        }
    }

    /// A dynamic configuration of a topic, or the one that all brokers give it.
    fn topic_setting(&self, topic: &str, name: &str) -> Option<String> {
        if let Some(value) = self.image.topic_config(topic, name) {
            return Some(value.to_owned());
        }
        let all_brokers = ConfigResource::new(ResourceType::Broker, "");
        self.image.configs.get(&all_brokers)?.get(name).cloned()
    }

    fn min_isr(&self, topic: &str) -> usize {
        let value = self.topic_setting(topic, "min.insync.replicas");
        let value = value.and_then(|text| text.trim().parse().ok());
        usize::try_from(value.unwrap_or(self.settings.min_insync_replicas)).unwrap_or(1)
    }

    pub(super) fn unclean_allowed(&self, topic: &str) -> bool {
        match self.topic_setting(topic, "unclean.leader.election.enable") {
            Some(value) => value.trim().eq_ignore_ascii_case("true"),
            None => self.settings.unclean_leader_election,
        }
    }
}
