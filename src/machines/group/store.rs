//! The groups and offsets of one coordinator, and the requests that are about more than one group's
//! membership: commits, fetches, deletions, descriptions.
//!
//! Hard state: the last record of each group, the committed offsets, and the names of foreign
//! groups. The live groups beside them are soft.

use std::collections::{BTreeMap, BTreeSet};

use ottla_protocol::coordinator::{GroupMetadataKey, GroupMetadataValue};
use ottla_protocol::messages::delete_groups_response::DeletableGroupResult;
use ottla_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use ottla_protocol::messages::list_groups_response::ListedGroup;
use ottla_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use ottla_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ottla_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use ottla_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
};
use ottla_protocol::{ErrorCode, Offset, Timestamp};

use super::classic::{ClassicGroup, Member, State};
use super::offsets::{CommittedOffset, CommittedOffsets, tombstone};
use super::rebalance::Turn;
use ottla_protocol::records::group::GroupRecord;

/// The name of the only group type there is yet.
const CLASSIC: &str = "classic";
/// The state in which a group is described that does not exist.
const DEAD: &str = "Dead";
/// From this version on a commit to a group that does not exist is told so.
const COMMIT_GROUP_NOT_FOUND_SINCE: i16 = 9;
/// From this version on a description of a group that does not exist is told so.
const DESCRIBE_GROUP_NOT_FOUND_SINCE: i16 = 6;
/// Tombstones that one look for expired offsets writes at most, so that its batch stays small; it
/// goes on at once.
const EXPIRED_RECORDS_MAX: usize = 1_000;

/// Groups and offsets.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// The live groups: soft.
    pub groups: BTreeMap<String, ClassicGroup>,
    /// The last record of every group that has one.
    pub recorded: BTreeMap<String, GroupMetadataValue>,
    /// The committed offsets.
    pub offsets: CommittedOffsets,
    /// Groups of types that this coordinator does not serve yet, as Kafka's own directory may hold
    /// them. A classic group must not be written over them.
    pub foreign: BTreeSet<String>,
}

impl Store {
    /// Commits offsets.
    ///
    /// # Errors
    /// Those of [`Store::validate_commit`]; they refuse the request as a whole.
    pub fn commit(
        &mut self,
        turn: &mut Turn<'_>,
        version: i16,
        request: OffsetCommitRequest,
    ) -> Result<OffsetCommitResponse, ErrorCode> {
        self.validate_commit(version, &request)?;
        if let Some(group) = self.groups.get(&request.group_id)
            && matches!(group.state, State::Stable | State::PreparingRebalance)
        {
            // A commit shows that the member lives.
            group.restart_session(turn, &request.member_id);
        }
        let retention_ms = Some(request.retention_time_ms).filter(|ms| *ms != -1);
        let metadata_max = usize::try_from(turn.config.offset_metadata_max).unwrap_or(0);
        let mut response = OffsetCommitResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
                let error = match metadata.encode_utf16().count() > metadata_max {
                    true => ErrorCode::OffsetMetadataTooLarge,
                    false => ErrorCode::None,
                };
                if error == ErrorCode::None {
                    let named = (topic.name.as_str(), topic.topic_id);
                    let (group, now) = (&request.group_id, turn.wall);
                    let record =
                        CommittedOffset::to_record(group, named, partition, now, retention_ms);
                    turn.records.push(record);
                }
                partitions.push(OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: error.code(),
                });
            }
            let (name, topic_id) = (topic.name, topic.topic_id);
            response.topics.push(OffsetCommitResponseTopic { name, topic_id, partitions });
        }
        Ok(response)
    }

    /// Checks that the group lets this member, or a client that is no member, commit.
    fn validate_commit(
        &self,
        version: i16,
        request: &OffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        let Some(group) = self.groups.get(&request.group_id) else {
            return match generation {
                // A simple consumer or an administrator: the record makes the group.
                ..0 => Ok(()),
                _ if version >= COMMIT_GROUP_NOT_FOUND_SINCE => Err(ErrorCode::GroupIdNotFound),
                _ => Err(ErrorCode::IllegalGeneration),
            };
        };
        if generation < 0 && group.state == State::Empty {
            return Ok(());
        }
        let instance = request.group_instance_id.as_deref();
        if generation >= 0 || !request.member_id.is_empty() || instance.is_some() {
            group.validate_member(&request.member_id, instance)?;
            if generation != group.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        } else if group.state != State::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        match group.state {
            State::CompletingRebalance => Err(ErrorCode::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Reads a group's committed offsets; a group that does not exist has none.
    pub fn fetch(&self, request: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
        let topics = match request.topics {
            None => self.fetch_all(&request.group_id),
            Some(topics) => topics
                .into_iter()
                .map(|topic| OffsetFetchResponseTopics {
                    partitions: topic
                        .partition_indexes
                        .iter()
                        .map(|index| {
                            let found = self.offsets.get(&request.group_id, &topic.name, *index);
                            fetched(*index, found.filter(|o| o.is_of_topic(topic.topic_id)))
                        })
                        .collect(),
                    name: topic.name,
                    topic_id: topic.topic_id,
                })
                .collect(),
        };
        OffsetFetchResponseGroup { group_id: request.group_id, topics, ..Default::default() }
    }

    fn fetch_all(&self, group_id: &str) -> Vec<OffsetFetchResponseTopics> {
        let topics = self.offsets.of_group(group_id).into_iter().flatten();
        topics
            .map(|(topic, partitions)| OffsetFetchResponseTopics {
                name: topic.clone(),
                partitions: partitions
                    .iter()
                    .map(|(index, committed)| fetched(*index, Some(committed)))
                    .collect(),
                ..Default::default()
            })
            .collect()
    }

    /// Deletes committed offsets of topics that no member subscribes to.
    ///
    /// # Errors
    /// INVALID_GROUP_ID, GROUP_ID_NOT_FOUND, or NON_EMPTY_GROUP when the members are not consumers.
    pub fn delete_offsets(
        &self,
        turn: &mut Turn<'_>,
        request: OffsetDeleteRequest,
    ) -> Result<OffsetDeleteResponse, ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let group = self.groups.get(&request.group_id).ok_or(ErrorCode::GroupIdNotFound)?;
        if group.state != State::Empty && !group.uses_consumer_protocol() {
            return Err(ErrorCode::NonEmptyGroup);
        }
        let mut response = OffsetDeleteResponse::default();
        for topic in request.topics {
            let error = match group.is_subscribed_to(&topic.name) {
                true => ErrorCode::GroupSubscribedToTopic,
                false => ErrorCode::None,
            };
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let index = partition.partition_index;
                let found = self.offsets.get(&request.group_id, &topic.name, index);
                if error == ErrorCode::None && found.is_some() {
                    turn.records.push(tombstone(&request.group_id, &topic.name, index));
                }
                partitions.push(OffsetDeleteResponsePartition {
                    partition_index: index,
                    error_code: error.code(),
                });
            }
            response.topics.push(OffsetDeleteResponseTopic { name: topic.name, partitions });
        }
        Ok(response)
    }

    /// Deletes groups without members, with their offsets.
    pub fn delete_groups(
        &self,
        turn: &mut Turn<'_>,
        groups: Vec<String>,
    ) -> Vec<DeletableGroupResult> {
        let mut results = Vec::with_capacity(groups.len());
        for group_id in groups {
            let error = match self.groups.get(&group_id).map(|group| group.state) {
                None => ErrorCode::GroupIdNotFound,
                Some(State::Empty) => ErrorCode::None,
                Some(_) => ErrorCode::NonEmptyGroup,
            };
            if error == ErrorCode::None {
                turn.records.extend(self.offsets.delete_group(&group_id));
                turn.records.push(group_tombstone(&group_id));
            }
            let error_code = error.code();
            results.push(DeletableGroupResult { group_id, error_code, ..Default::default() });
        }
        results
    }

    /// Describes groups; one that does not exist is dead.
    pub fn describe(&self, version: i16, groups: Vec<String>) -> Vec<DescribedGroup> {
        let mut described = Vec::with_capacity(groups.len());
        for group_id in groups {
            described.push(match self.groups.get(&group_id) {
                Some(group) => describe(group),
                None if version >= DESCRIBE_GROUP_NOT_FOUND_SINCE => DescribedGroup {
                    error_code: ErrorCode::GroupIdNotFound.code(),
                    error_message: Some(format!("Group {group_id} not found.")),
                    group_id,
                    group_state: DEAD.to_owned(),
                    ..Default::default()
                },
                None => {
                    DescribedGroup { group_id, group_state: DEAD.to_owned(), ..Default::default() }
                }
            });
        }
        described
    }

    /// Lists the groups in one of the states and of one of the types; an empty filter lets all
    /// through.
    pub fn list(&self, states: &[String], types: &[String]) -> Vec<ListedGroup> {
        let states: Vec<String> = states.iter().map(|state| state.trim().to_lowercase()).collect();
        if !types.is_empty() && !types.iter().any(|name| name.to_lowercase() == CLASSIC) {
            return Vec::new();
        }
        let is_asked = |group: &&ClassicGroup| {
            states.is_empty() || states.contains(&group.state.to_string().to_lowercase())
        };
        let list = |group: &ClassicGroup| ListedGroup {
            group_id: group.group_id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            group_state: group.state.to_string(),
            group_type: CLASSIC.to_owned(),
        };
        self.groups.values().filter(is_asked).map(list).collect()
    }

    /// Looks from group `from` on for expired offsets, and for groups without members and offsets.
    /// Answers where to go on if that is not all.
    pub fn expire(&self, turn: &mut Turn<'_>, from: &str) -> Option<String> {
        for (group_id, group) in self.groups.range(from.to_owned()..) {
            let left = EXPIRED_RECORDS_MAX.saturating_sub(turn.records.len());
            if left == 0 {
                return Some(group_id.clone());
            }
            let retention_ms = turn.config.offsets_retention_ms;
            let expired = self.offsets.expire(group, turn.wall, retention_ms, left);
            turn.records.extend(expired.records);
            if expired.is_all && group.state == State::Empty {
                turn.records.push(group_tombstone(group_id));
            } else if turn.records.len() >= EXPIRED_RECORDS_MAX {
                return Some(group_id.clone());
            }
        }
        None
    }

    /// Applies a group's record. `is_live` says that the record is this coordinator's own, whose
    /// group is already as the record says.
    pub fn replay_group(
        &mut self,
        key: &GroupMetadataKey,
        value: Option<&GroupMetadataValue>,
        is_live: bool,
    ) -> Option<ClassicGroup> {
        match value {
            None => {
                self.recorded.remove(&key.group);
                self.groups.remove(&key.group)
            }
            Some(value) => {
                if !is_live {
                    let group = ClassicGroup::from_record(&key.group, value);
                    self.groups.insert(key.group.clone(), group);
                }
                self.recorded.insert(key.group.clone(), value.clone());
                None
            }
        }
    }

    /// A simple consumer's group is there because its offsets are.
    pub fn ensure_simple_group(&mut self, group_id: &str, now: Timestamp) {
        if !self.groups.contains_key(group_id) && !self.foreign.contains(group_id) {
            self.groups.insert(group_id.to_owned(), ClassicGroup::new(group_id, now));
        }
    }

    /// A group of another type exists, or does not any more.
    pub fn note_foreign(&mut self, group_id: &str, exists: bool) {
        if exists {
            self.foreign.insert(group_id.to_owned());
            self.groups.remove(group_id);
        } else {
            self.foreign.remove(group_id);
        }
    }
}

fn group_tombstone(group_id: &str) -> GroupRecord {
    let key = GroupMetadataKey { group: group_id.to_owned() };
    GroupRecord::GroupMetadata { key, value: None }
}

fn fetched(index: i32, committed: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    match committed {
        Some(committed) => OffsetFetchResponsePartitions {
            partition_index: index,
            committed_offset: committed.offset.0,
            committed_leader_epoch: committed.leader_epoch.0,
            metadata: Some(committed.metadata.clone()),
            ..Default::default()
        },
        None => OffsetFetchResponsePartitions {
            partition_index: index,
            committed_offset: Offset::UNKNOWN.0,
            metadata: Some(String::new()),
            ..Default::default()
        },
    }
}

fn describe(group: &ClassicGroup) -> DescribedGroup {
    let protocol = group.protocol_name.as_ref().filter(|_| group.state == State::Stable);
    let member = |member: &Member| DescribedGroupMember {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        member_metadata: protocol.map(|name| member.metadata(name)).unwrap_or_default(),
        member_assignment: member.assignment.clone(),
    };
    DescribedGroup {
        group_id: group.group_id.clone(),
        group_state: group.state.to_string(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        protocol_data: protocol.cloned().unwrap_or_default(),
        members: group.members.values().map(member).collect(),
        ..Default::default()
    }
}
