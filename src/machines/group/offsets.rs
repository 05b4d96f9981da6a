//! Committed offsets of all groups in one partition of `__consumer_offsets`: hard state, changed
//! only by replay.
//!
//! Source: KIP-211 (expiry), KIP-320 (leader epochs), KIP-848 (topic ids in fetches and commits).

use std::collections::BTreeMap;

use ottla_protocol::coordinator::{OffsetCommitKey, OffsetCommitValue};
use ottla_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use ottla_protocol::{LeaderEpoch, Offset, Timestamp, TopicId};

use super::classic::{ClassicGroup, State};
use ottla_protocol::records::group::GroupRecord;

/// What a group has committed for one partition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CommittedOffset {
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub metadata: String,
    pub commit_timestamp: Timestamp,
    /// Only of commits with a retention of their own, which clients of 2018 and before send.
    pub expire_timestamp: Option<Timestamp>,
    /// The topic's id at the commit; all zero if it was not known.
    pub topic_id: TopicId,
    /// Where the record stands; a transaction's offsets do not overwrite later ones.
    pub record_offset: Offset,
}

impl CommittedOffset {
    /// The record that commits `partition` of a topic.
    pub fn to_record(
        group: &str,
        topic: (&str, TopicId),
        partition: &OffsetCommitRequestPartition,
        now: Timestamp,
        retention_ms: Option<i64>,
    ) -> GroupRecord {
        let expire_timestamp = retention_ms.map_or(Timestamp::NONE, |ms| now.plus_ms(ms));
        let value = OffsetCommitValue {
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch.max(LeaderEpoch::UNKNOWN.0),
            metadata: partition.committed_metadata.clone().unwrap_or_default(),
            commit_timestamp: now.0,
            expire_timestamp: expire_timestamp.0,
            topic_id: topic.1,
        };
        GroupRecord::OffsetCommit {
            key: key(group, topic.0, partition.partition_index),
            value: Some(value),
        }
    }

    fn from_record(value: &OffsetCommitValue, record_offset: Offset) -> Self {
        CommittedOffset {
            offset: Offset(value.offset),
            leader_epoch: LeaderEpoch(value.leader_epoch),
            metadata: value.metadata.clone(),
            commit_timestamp: Timestamp(value.commit_timestamp),
            expire_timestamp: Some(Timestamp(value.expire_timestamp)).filter(|at| at.0 >= 0),
            topic_id: value.topic_id,
            record_offset,
        }
    }

    /// True if the offset was committed for this very topic, or if one of the two does not say.
    pub fn is_of_topic(&self, topic_id: TopicId) -> bool {
        topic_id.is_nil() || self.topic_id.is_nil() || self.topic_id == topic_id
    }
}

fn key(group: &str, topic: &str, partition: i32) -> OffsetCommitKey {
    OffsetCommitKey { group: group.to_owned(), topic: topic.to_owned(), partition }
}

/// The record that deletes a committed offset.
pub(super) fn tombstone(group: &str, topic: &str, partition: i32) -> GroupRecord {
    GroupRecord::OffsetCommit { key: key(group, topic, partition), value: None }
}

type Partitions = BTreeMap<i32, CommittedOffset>;
/// A group's committed offsets: topic, then partition.
pub(super) type Topics = BTreeMap<String, Partitions>;

/// Committed offsets by group, topic and partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CommittedOffsets {
    groups: BTreeMap<String, Topics>,
}

impl CommittedOffsets {
    /// Applies an offset record.
    pub fn replay(&mut self, key: &OffsetCommitKey, value: Option<&OffsetCommitValue>, at: Offset) {
        match value {
            Some(value) => {
                let topics = self.groups.entry(key.group.clone()).or_default();
                let partitions = topics.entry(key.topic.clone()).or_default();
                partitions.insert(key.partition, CommittedOffset::from_record(value, at));
            }
            None => self.remove(key),
        }
    }

    fn remove(&mut self, key: &OffsetCommitKey) {
        let Some(topics) = self.groups.get_mut(&key.group) else { return };
        if let Some(partitions) = topics.get_mut(&key.topic) {
            partitions.remove(&key.partition);
            if partitions.is_empty() {
                topics.remove(&key.topic);
            }
        }
        if topics.is_empty() {
            self.groups.remove(&key.group);
        }
    }

    /// What a group has committed.
    pub fn of_group(&self, group: &str) -> Option<&Topics> {
        self.groups.get(group)
    }

    /// What a group has committed for a partition.
    pub fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }

    /// The records that delete all offsets of a group.
    pub fn delete_group(&self, group: &str) -> Vec<GroupRecord> {
        let topics = self.groups.get(group).into_iter().flatten();
        topics
            .flat_map(|(topic, partitions)| {
                partitions.keys().map(move |partition| tombstone(group, topic, *partition))
            })
            .collect()
    }

    /// The records that delete what was committed for topics that are gone. A topic of the same
    /// name that was made anew keeps its offsets.
    pub fn delete_topics(&self, deleted: &[(String, TopicId)]) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for (group, topics) in &self.groups {
            for (topic, topic_id) in deleted {
                let partitions = topics.get(topic).into_iter().flatten();
                let of_topic = partitions.filter(|(_, offset)| offset.is_of_topic(*topic_id));
                records.extend(of_topic.map(|(partition, _)| tombstone(group, topic, *partition)));
            }
        }
        records
    }

    /// The records, at most `limit`, that delete a group's expired offsets; and whether they delete
    /// all that it has.
    pub fn expire(
        &self,
        group: &ClassicGroup,
        now: Timestamp,
        retention_ms: i64,
        limit: usize,
    ) -> Expired {
        let mut expired = Expired { records: Vec::new(), is_all: true };
        let Some(topics) = self.groups.get(&group.group_id) else { return expired };
        let Some(base) = Expiry::of(group) else {
            return Expired { is_all: false, ..expired };
        };
        for (topic, partitions) in topics {
            for (partition, offset) in partitions {
                let is_due = !group.is_subscribed_to(topic)
                    && expired.records.len() < limit
                    && base.is_expired(offset, now, retention_ms);
                match is_due {
                    true => {
                        expired.records.push(tombstone(&group.group_id, topic, *partition));
                    }
                    false => expired.is_all = false,
                }
            }
        }
        expired
    }
}

/// What [`CommittedOffsets::expire`] found.
pub(super) struct Expired {
    pub records: Vec<GroupRecord>,
    pub is_all: bool,
}

/// Since when an offset's retention counts (KIP-211).
enum Expiry {
    /// Since the group became empty; if an old record does not say when, since the commit.
    Emptied(Option<Timestamp>),
    /// Since the commit.
    Committed,
}

impl Expiry {
    /// `None` while nothing of the group expires.
    fn of(group: &ClassicGroup) -> Option<Expiry> {
        match (&group.protocol_type, group.state) {
            // A simple consumer, which uses Kafka only to keep its offsets.
            (None, _) => Some(Expiry::Committed),
            (Some(_), State::Empty) => Some(Expiry::Emptied(group.state_timestamp)),
            (Some(_), State::Stable)
                if group.uses_consumer_protocol() && group.subscribed_topics.is_some() =>
            {
                Some(Expiry::Committed)
            }
            _ => None,
        }
    }

    fn is_expired(&self, offset: &CommittedOffset, now: Timestamp, retention_ms: i64) -> bool {
        if let Some(at) = offset.expire_timestamp {
            return now >= at;
        }
        let since = match self {
            Expiry::Emptied(Some(at)) => *at,
            Expiry::Emptied(None) | Expiry::Committed => offset.commit_timestamp,
        };
        now.0.saturating_sub(since.0) >= retention_ms
    }
}
