//! Topics and partitions in the Image.

use super::super::shared_map::SharedMap;
use ottla_protocol::metadata::{PartitionChangeRecord, PartitionRecord, TopicRecord};
use ottla_protocol::{BrokerId, LeaderEpoch, MetadataRecord, TopicId};
use std::sync::Arc;
use uuid::Uuid;

/// A log directory that is not known: the broker picks one (KIP-858).
pub const DIRECTORY_UNASSIGNED: Uuid = Uuid::from_u128(0);
/// The directory of a replica from before directories had ids.
pub const DIRECTORY_MIGRATING: Uuid = Uuid::from_u128(2);
/// The replica's directory is lost.
pub const DIRECTORY_LOST: Uuid = Uuid::from_u128(1);

/// `leader` in a change record: the leader stays, and so does the leader epoch.
pub const NO_LEADER_CHANGE: i32 = -2;

/// Whether a leader that was elected uncleanly has recovered (KIP-704).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeaderRecoveryState {
    /// The usual state.
    #[default]
    Recovered,
    /// Elected uncleanly, and not done yet.
    Recovering,
}

impl LeaderRecoveryState {
    /// The number in records and requests.
    pub fn id(self) -> i8 {
        match self {
            LeaderRecoveryState::Recovered => 0,
            LeaderRecoveryState::Recovering => 1,
        }
    }

    /// The state of a number; `None` for "no change" and for what nobody knows.
    pub fn from_id(id: i8) -> Option<Self> {
        match id {
            0 => Some(LeaderRecoveryState::Recovered),
            1 => Some(LeaderRecoveryState::Recovering),
            _ => None,
        }
    }
}

/// What the cluster has decided about a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRegistration {
    /// All replicas, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// The log directory of each replica, in the same order.
    pub directories: Vec<Uuid>,
    /// In-sync replicas.
    pub isr: Vec<BrokerId>,
    /// Replicas that a reassignment takes away.
    pub removing_replicas: Vec<BrokerId>,
    /// Replicas that a reassignment adds.
    pub adding_replicas: Vec<BrokerId>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Vec<BrokerId>,
    /// The replicas that were eligible last (KIP-966).
    pub last_known_elr: Vec<BrokerId>,
    /// The leader; [`BrokerId::NONE`] while there is none.
    pub leader: BrokerId,
    /// Whether the leader still recovers from an unclean election.
    pub leader_recovery_state: LeaderRecoveryState,
    /// Counts the leaders.
    pub leader_epoch: LeaderEpoch,
    /// Counts the changes.
    pub partition_epoch: i32,
}

fn ids(list: &[i32]) -> Vec<BrokerId> {
    list.iter().copied().map(BrokerId).collect()
}

/// Bare numbers for records and responses.
pub fn numbers(list: &[BrokerId]) -> Vec<i32> {
    list.iter().map(|id| id.0).collect()
}

/// Records from before KIP-858 have no directories.
fn or_migrating(directories: &[Uuid], replicas: usize) -> Vec<Uuid> {
    if directories.len() != replicas || directories.iter().all(|id| *id == DIRECTORY_MIGRATING) {
        vec![DIRECTORY_MIGRATING; replicas]
    } else {
        directories.to_vec()
    }
}

impl PartitionRegistration {
    /// What the record of a new partition says.
    pub fn from_record(record: &PartitionRecord) -> Self {
        PartitionRegistration {
            replicas: ids(&record.replicas),
            directories: or_migrating(&record.directories, record.replicas.len()),
            isr: ids(&record.isr),
            removing_replicas: ids(&record.removing_replicas),
            adding_replicas: ids(&record.adding_replicas),
            elr: ids(record.eligible_leader_replicas.as_deref().unwrap_or_default()),
            last_known_elr: ids(record.last_known_elr.as_deref().unwrap_or_default()),
            leader: BrokerId(record.leader),
            leader_recovery_state: LeaderRecoveryState::from_id(record.leader_recovery_state)
                .unwrap_or_default(),
            leader_epoch: LeaderEpoch(record.leader_epoch),
            partition_epoch: record.partition_epoch,
        }
    }

    /// Applies a change.
    pub fn merge(&self, record: &PartitionChangeRecord) -> Self {
        let list = |new: &Option<Vec<i32>>, old: &Vec<BrokerId>| match new {
            Some(new) => ids(new),
            None => old.clone(),
        };
        let replicas = list(&record.replicas, &self.replicas);
        let directories = record.directories.as_ref().unwrap_or(&self.directories);
        let (leader, leader_epoch) = if record.leader == NO_LEADER_CHANGE {
            (self.leader, self.leader_epoch)
        } else {
            (BrokerId(record.leader), LeaderEpoch(self.leader_epoch.0.saturating_add(1)))
        };
        PartitionRegistration {
            directories: or_migrating(directories, replicas.len()),
            replicas,
            isr: list(&record.isr, &self.isr),
            removing_replicas: list(&record.removing_replicas, &self.removing_replicas),
            adding_replicas: list(&record.adding_replicas, &self.adding_replicas),
            elr: list(&record.eligible_leader_replicas, &self.elr),
            last_known_elr: list(&record.last_known_elr, &self.last_known_elr),
            leader,
            leader_recovery_state: LeaderRecoveryState::from_id(record.leader_recovery_state)
                .unwrap_or(self.leader_recovery_state),
            leader_epoch,
            partition_epoch: self.partition_epoch.saturating_add(1),
        }
    }

    /// The record that creates the partition in this state.
    pub fn to_record(&self, topic_id: TopicId, partition: i32) -> PartitionRecord {
        let tagged = |list: &[BrokerId]| (!list.is_empty()).then(|| numbers(list));
        PartitionRecord {
            partition_id: partition,
            topic_id,
            replicas: numbers(&self.replicas),
            isr: numbers(&self.isr),
            removing_replicas: numbers(&self.removing_replicas),
            adding_replicas: numbers(&self.adding_replicas),
            leader: self.leader.0,
            leader_recovery_state: self.leader_recovery_state.id(),
            leader_epoch: self.leader_epoch.0,
            partition_epoch: self.partition_epoch,
            directories: self.directories.clone(),
            eligible_leader_replicas: tagged(&self.elr),
            last_known_elr: tagged(&self.last_known_elr),
        }
    }

    /// Whether there is a leader.
    pub fn has_leader(&self) -> bool {
        self.leader != BrokerId::NONE
    }

    /// The replica that leads when it can.
    pub fn preferred_leader(&self) -> BrokerId {
        self.replicas.first().copied().unwrap_or(BrokerId::NONE)
    }

    /// Whether a reassignment is under way.
    pub fn is_reassigning(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }

    /// The log directory of a replica; unassigned where the broker has no replica.
    pub fn directory_of(&self, replica: BrokerId) -> Uuid {
        self.replicas
            .iter()
            .position(|id| *id == replica)
            .and_then(|at| self.directories.get(at).copied())
            .unwrap_or(DIRECTORY_UNASSIGNED)
    }
}

/// A topic with its partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicImage {
    /// Its name.
    pub name: Arc<str>,
    /// Its id, which differs from that of an earlier topic of the name.
    pub id: TopicId,
    /// Its partitions by index, without gaps.
    pub partitions: SharedMap<i32, Arc<PartitionRegistration>>,
}

impl TopicImage {
    /// One partition.
    pub fn partition(&self, index: i32) -> Option<&Arc<PartitionRegistration>> {
        self.partitions.get(&index)
    }

    /// How many partitions there are.
    pub fn partition_count(&self) -> i32 {
        self.partitions.len() as i32
    }

    /// The records that create the topic in this state.
    pub fn to_records(&self, records: &mut Vec<MetadataRecord>) {
        records.push(MetadataRecord::Topic(TopicRecord {
            name: self.name.to_string(),
            topic_id: self.id,
        }));
        for (index, partition) in self.partitions.iter() {
            records.push(MetadataRecord::Partition(partition.to_record(self.id, *index)));
        }
    }
}

/// All topics, by name and by id.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopicsImage {
    by_name: SharedMap<Arc<str>, Arc<TopicImage>>,
    names: SharedMap<TopicId, Arc<str>>,
    partition_count: usize,
}

impl TopicsImage {
    /// A topic by its name.
    pub fn get(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.by_name.get(name)
    }

    /// A topic by its id.
    pub fn get_by_id(&self, id: &TopicId) -> Option<&Arc<TopicImage>> {
        self.by_name.get(self.names.get(id)?)
    }

    /// A topic's name by its id.
    pub fn name_of(&self, id: &TopicId) -> Option<&Arc<str>> {
        self.names.get(id)
    }

    /// All topics in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_name.values()
    }

    /// All topics whose name is at least `name`, in order.
    pub fn iter_from<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<TopicImage>> {
        self.by_name.range_from(name).map(|(_, topic)| topic)
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no topic.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many partitions all topics have together.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// Whether nothing in here changed since `other`.
    pub fn is_same(&self, other: &Self) -> bool {
        self.by_name.is_same(&other.by_name)
    }

    pub(super) fn replay_topic(&mut self, record: &TopicRecord) {
        let name: Arc<str> = record.name.as_str().into();
        self.names.insert(record.topic_id, Arc::clone(&name));
        let topic = TopicImage {
            name: Arc::clone(&name),
            id: record.topic_id,
            partitions: SharedMap::default(),
        };
        self.by_name.insert(name, Arc::new(topic));
    }

    fn topic_mut(&mut self, id: &TopicId) -> Option<&mut TopicImage> {
        let name = self.names.get(id)?;
        self.by_name.get_mut(name).map(Arc::make_mut)
    }

    pub(super) fn replay_partition(&mut self, record: &PartitionRecord) {
        let partition = Arc::new(PartitionRegistration::from_record(record));
        if let Some(topic) = self.topic_mut(&record.topic_id)
            && topic.partitions.insert(record.partition_id, partition).is_none()
        {
            self.partition_count += 1;
        }
    }

    pub(super) fn replay_change(&mut self, record: &PartitionChangeRecord) {
        if let Some(topic) = self.topic_mut(&record.topic_id)
            && let Some(partition) = topic.partitions.get_mut(&record.partition_id)
        {
            *partition = Arc::new(partition.merge(record));
        }
    }

    /// Forgets the eligible leader replicas of one topic, or of all when the name is empty.
    pub(super) fn replay_clear_elr(&mut self, name: &str) {
        let ids: Vec<TopicId> = if name.is_empty() {
            self.names.keys().copied().collect()
        } else {
            self.get(name).map(|topic| topic.id).into_iter().collect()
        };
        for id in ids {
            let Some(topic) = self.topic_mut(&id) else { continue };
            let touched: Vec<i32> = topic
                .partitions
                .iter()
                .filter(|(_, p)| !p.elr.is_empty() || !p.last_known_elr.is_empty())
                .map(|(index, _)| *index)
                .collect();
            for index in touched {
                if let Some(partition) = topic.partitions.get_mut(&index) {
                    let partition = Arc::make_mut(partition);
                    partition.elr.clear();
                    partition.last_known_elr.clear();
                }
            }
        }
    }

    /// Takes the topic out; its name tells whose configuration goes with it.
    pub(super) fn replay_remove(&mut self, id: &TopicId) -> Option<Arc<str>> {
        let name = self.names.remove(id)?;
        if let Some(topic) = self.by_name.remove(&name) {
            self.partition_count -= topic.partitions.len();
        }
        Some(name)
    }
}
