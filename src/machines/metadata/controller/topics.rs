//! Creating and deleting topics, adding partitions.

use super::{ApiError, Controller, ControllerReply, Decision};
use crate::machines::metadata::image::{
    LeaderRecoveryState, PartitionRegistration, ResourceType, TopicImage,
};
use crate::machines::metadata::placement::place;
use crate::machines::metadata::random::Random;
use ottla_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use ottla_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use ottla_protocol::messages::create_topics_request::CreatableTopic;
use ottla_protocol::messages::create_topics_response::CreatableTopicResult;
use ottla_protocol::messages::delete_topics_response::DeletableTopicResult;
use ottla_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse,
};
use ottla_protocol::metadata::{ConfigRecord, RemoveTopicRecord, TopicRecord};
use ottla_protocol::{
    BrokerId, CLUSTER_METADATA_TOPIC, ErrorCode, LeaderEpoch, MetadataRecord, TopicId,
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The longest topic name: a directory name of 255 bytes less a partition's number.
const TOPIC_NAME_LENGTH_MAX: usize = 249;
/// Records that one request may cause, so that a batch and the time for it stay bounded.
const RECORDS_MAX: usize = 10_000;

/// Whether the name could collide with another in metric names.
pub(super) fn has_collision_chars(name: &str) -> bool {
    name.contains(['.', '_'])
}

/// The name that colliding names share.
pub(super) fn unify(name: &str) -> String {
    name.replace('.', "_")
}

/// Whether a topic may have this name.
///
/// # Errors
/// Kafka's text that says why not.
pub fn validate_topic_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.encode_utf16().count() > TOPIC_NAME_LENGTH_MAX {
        format!(
            "the length of '{name}' is longer than the max allowed length {TOPIC_NAME_LENGTH_MAX}"
        )
    } else if !name.chars().all(legal) {
        format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        )
    } else {
        return Ok(());
    };
    Err(format!("Topic name is invalid: {reason}"))
}

/// A topic that will be created.
struct NewTopic {
    records: Vec<MetadataRecord>,
    result: CreatableTopicResult,
}

impl Controller {
    pub(super) fn create_topics(&self, request: CreateTopicsRequest, seed: Uuid) -> Decision {
        let mut random = Random::new(seed);
        let mut records = Vec::new();
        let mut topics = Vec::new();
        let duplicates = duplicates(request.topics.iter().map(|topic| topic.name.as_str()));
        for topic in &request.topics {
            if duplicates.contains(topic.name.as_str()) || topic.name == CLUSTER_METADATA_TOPIC {
                continue;
            }
            let created = match self.create_topic(topic, &mut random) {
                Ok(new) if records.len() + new.records.len() > RECORDS_MAX => Err(ApiError::new(
                    ErrorCode::PolicyViolation,
                    "Excessively large number of partitions per request.",
                )),
                other => other,
            };
            topics.push(match created {
                Ok(new) => {
                    records.extend(new.records);
                    new.result
                }
                Err(error) => failed(&topic.name, error),
            });
        }
        for name in &duplicates {
            let error = ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name.");
            topics.push(failed(name, error));
        }
        let names: Vec<&str> = request.topics.iter().map(|topic| topic.name.as_str()).collect();
        if names.contains(&CLUSTER_METADATA_TOPIC) && !duplicates.contains(CLUSTER_METADATA_TOPIC) {
            let text =
                format!("Creation of internal topic {CLUSTER_METADATA_TOPIC} is prohibited.");
            let error = ApiError::new(ErrorCode::InvalidRequest, text);
            topics.push(failed(CLUSTER_METADATA_TOPIC, error));
        }
        if request.validate_only {
            records.clear();
        }
        let response = CreateTopicsResponse { topics, ..Default::default() };
        (records, ControllerReply::CreateTopics(response))
    }

    fn create_topic(
        &self,
        topic: &CreatableTopic,
        random: &mut Random,
    ) -> Result<NewTopic, ApiError> {
        self.check_new_name(&topic.name)?;
        let configs = creation_configs(topic)?;
        self.check_new_topic_configs(&topic.name, &configs)?;
        let partitions = if topic.assignments.is_empty() {
            self.placed_partitions(topic, random)?
        } else {
            self.assigned_partitions(topic)?
        };
        let topic_id = random.topic_id();
        let mut records =
            vec![MetadataRecord::Topic(TopicRecord { name: topic.name.clone(), topic_id })];
        records.extend(configs.iter().map(|(name, value)| {
            MetadataRecord::Config(ConfigRecord {
                resource_type: ResourceType::Topic.id(),
                resource_name: topic.name.clone(),
                name: name.clone(),
                value: Some(value.clone()),
            })
        }));
        let replication_factor = partitions.first().map_or(0, |p| p.replicas.len());
        let result = CreatableTopicResult {
            name: topic.name.clone(),
            topic_id,
            error_message: None,
            num_partitions: partitions.len() as i32,
            replication_factor: replication_factor as i16,
            configs: Some(self.new_topic_configs(&configs)),
            ..Default::default()
        };
        records.extend(partition_records(topic_id, 0, &partitions));
        Ok(NewTopic { records, result })
    }

    fn check_new_name(&self, name: &str) -> Result<(), ApiError> {
        let invalid = |text: String| ApiError::new(ErrorCode::InvalidTopicException, text);
        validate_topic_name(name).map_err(invalid)?;
        if self.image.topics.get(name).is_some() {
            let text = format!("Topic '{name}' already exists.");
            return Err(ApiError::new(ErrorCode::TopicAlreadyExists, text));
        }
        match self.collisions.get(&unify(name)).and_then(|names| names.first()) {
            Some(other) if has_collision_chars(name) => {
                Err(invalid(format!("Topic '{name}' collides with existing topic: {other}")))
            }
            _ => Ok(()),
        }
    }

    fn placed_partitions(
        &self,
        topic: &CreatableTopic,
        random: &mut Random,
    ) -> Result<Vec<PartitionRegistration>, ApiError> {
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            return Err(ApiError::new(
                ErrorCode::InvalidReplicationFactor,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            ));
        }
        if topic.num_partitions < -1 || topic.num_partitions == 0 {
            return Err(ApiError::new(
                ErrorCode::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.",
            ));
        }
        let or_default = |given: i32, default: i32| if given == -1 { default } else { given };
        let count = or_default(topic.num_partitions, self.settings.default_partitions);
        let factor = or_default(
            i32::from(topic.replication_factor),
            i32::from(self.settings.default_replication_factor),
        ) as i16;
        if count as usize > RECORDS_MAX {
            return Err(ApiError::new(
                ErrorCode::PolicyViolation,
                "Excessively large number of partitions per request.",
            ));
        }
        self.place_replicas(count, factor)(random)
    }

    /// Places new partitions; curried so that callers keep their random numbers.
    fn place_replicas(
        &self,
        count: i32,
        factor: i16,
    ) -> impl Fn(&mut Random) -> Result<Vec<PartitionRegistration>, ApiError> {
        move |random| {
            let unable = |reason: &str| {
                ApiError::new(
                    ErrorCode::InvalidReplicationFactor,
                    format!("Unable to replicate the partition {factor} time(s): {reason}"),
                )
            };
            let placed =
                place(&self.image.cluster, count, factor, random).map_err(|e| unable(&e))?;
            placed
                .into_iter()
                .map(|replicas| {
                    self.new_partition(replicas).ok_or_else(|| {
                        unable("All brokers are currently fenced or in controlled shutdown.")
                    })
                })
                .collect()
        }
    }

    fn assigned_partitions(
        &self,
        topic: &CreatableTopic,
    ) -> Result<Vec<PartitionRegistration>, ApiError> {
        let invalid = |what: &str| {
            let text = format!(
                "A manual partition assignment was specified, but {what} was not set to -1."
            );
            Err(ApiError::new(ErrorCode::InvalidRequest, text))
        };
        if topic.replication_factor != -1 {
            return invalid("replication factor");
        }
        if topic.num_partitions != -1 {
            return invalid("numPartitions");
        }
        let mut partitions = BTreeMap::new();
        let mut factor = None;
        for assignment in &topic.assignments {
            let index = assignment.partition_index;
            if partitions.contains_key(&index) {
                return Err(bad_assignment(format!(
                    "Found multiple manual partition assignments for partition {index}"
                )));
            }
            self.check_assignment(&assignment.broker_ids, factor)?;
            factor = Some(assignment.broker_ids.len());
            partitions.insert(index, self.assigned_partition(index, &assignment.broker_ids)?);
        }
        if partitions.keys().copied().ne(0..partitions.len() as i32) {
            return Err(bad_assignment(
                "partitions should be a consecutive 0-based integer sequence".into(),
            ));
        }
        Ok(partitions.into_values().collect())
    }

    fn assigned_partition(
        &self,
        index: i32,
        brokers: &[i32],
    ) -> Result<PartitionRegistration, ApiError> {
        let replicas = brokers.iter().copied().map(BrokerId).collect();
        self.new_partition(replicas).ok_or_else(|| {
            bad_assignment(format!(
                "All brokers specified in the manual partition assignment for partition {index} \
                 are fenced or in controlled shutdown."
            ))
        })
    }

    /// Whether brokers can be told to hold a partition's replicas.
    pub(super) fn check_assignment(
        &self,
        brokers: &[i32],
        replication_factor: Option<usize>,
    ) -> Result<(), ApiError> {
        if brokers.is_empty() {
            return Err(bad_assignment(
                "The manual partition assignment includes an empty replica list.".into(),
            ));
        }
        let mut sorted = brokers.to_vec();
        sorted.sort_unstable();
        let mut previous = None;
        for broker in sorted {
            if !self.image.cluster.brokers.contains_key(&BrokerId(broker)) {
                return Err(bad_assignment(format!(
                    "The manual partition assignment includes broker {broker}, but no such broker \
                     is registered."
                )));
            }
            if previous == Some(broker) {
                return Err(bad_assignment(format!(
                    "The manual partition assignment includes the broker {broker} more than once."
                )));
            }
            previous = Some(broker);
        }
        match replication_factor {
            Some(factor) if factor != brokers.len() => Err(bad_assignment(format!(
                "The manual partition assignment includes a partition with {} replica(s), but this \
                 is not consistent with previous partitions, which have {factor} replica(s).",
                brokers.len()
            ))),
            _ => Ok(()),
        }
    }

    /// A partition that nobody has written to; `None` when none of its brokers may lead.
    fn new_partition(&self, replicas: Vec<BrokerId>) -> Option<PartitionRegistration> {
        let isr: Vec<BrokerId> =
            replicas.iter().copied().filter(|id| self.image.cluster.is_active(*id)).collect();
        Some(PartitionRegistration {
            directories: replicas.iter().map(|id| self.default_directory(*id)).collect(),
            removing_replicas: Vec::new(),
            adding_replicas: Vec::new(),
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            leader: *isr.first()?,
            leader_recovery_state: LeaderRecoveryState::Recovered,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            isr,
            replicas,
        })
    }

    pub(super) fn create_partitions(
        &self,
        request: CreatePartitionsRequest,
        seed: Uuid,
    ) -> Decision {
        let mut random = Random::new(seed);
        let mut records = Vec::new();
        let duplicates = duplicates(request.topics.iter().map(|topic| topic.name.as_str()));
        let result = |name: &str, error: ApiError| CreatePartitionsTopicResult {
            name: name.to_owned(),
            error_code: error.code.code(),
            error_message: error.message,
        };
        let mut results: Vec<CreatePartitionsTopicResult> = duplicates
            .iter()
            .map(|name| {
                result(name, ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
            })
            .collect();
        for topic in &request.topics {
            if duplicates.contains(topic.name.as_str()) {
                continue;
            }
            let error = match self.add_partitions(topic, &mut random) {
                Ok(new) => {
                    records.extend(new);
                    ApiError::from(ErrorCode::None)
                }
                Err(error) => error,
            };
            results.push(result(&topic.name, error));
        }
        if request.validate_only {
            records.clear();
        }
        let response = CreatePartitionsResponse { results, ..Default::default() };
        (records, ControllerReply::CreatePartitions(response))
    }

    fn add_partitions(
        &self,
        request: &CreatePartitionsTopic,
        random: &mut Random,
    ) -> Result<Vec<MetadataRecord>, ApiError> {
        let topic = self.image.topics.get(&request.name);
        let topic = topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let present = topic.partition_count();
        let additional = checked_increase(topic, request)?;
        let factor = topic.partitions.values().next().map_or(0, |p| p.replicas.len());
        let partitions = match &request.assignments {
            Some(assignments) => {
                let mut partitions = Vec::new();
                for (index, assignment) in (present..).zip(assignments) {
                    self.check_assignment(&assignment.broker_ids, Some(factor))?;
                    partitions.push(self.assigned_partition(index, &assignment.broker_ids)?);
                }
                partitions
            }
            None => self.place_replicas(additional, factor as i16)(random)?,
        };
        Ok(partition_records(topic.id, present, &partitions).collect())
    }

    pub(super) fn delete_topics(&self, request: &DeleteTopicsRequest) -> Decision {
        let mut responses = Vec::new();
        let mut names: Vec<&str> = request.topic_names.iter().map(String::as_str).collect();
        let mut ids = Vec::new();
        for topic in &request.topics {
            match (&topic.name, topic.topic_id.is_nil()) {
                (None, true) => responses.push(deleted(
                    None,
                    Uuid::nil(),
                    invalid_request("Neither topic name nor id were specified."),
                )),
                (None, false) => ids.push(topic.topic_id),
                (Some(name), true) => names.push(name),
                (Some(name), false) => responses.push(deleted(
                    Some(name),
                    topic.topic_id,
                    invalid_request("You may not specify both topic name and topic id."),
                )),
            }
        }
        let duplicate_names = duplicates(names.iter().copied());
        let duplicate_ids = duplicates(ids.iter().copied());
        responses.extend(duplicate_names.iter().map(|name| {
            deleted(Some(name), Uuid::nil(), invalid_request("Duplicate topic name."))
        }));
        responses.extend(
            duplicate_ids
                .iter()
                .map(|id| deleted(None, *id, invalid_request("Duplicate topic id."))),
        );
        names.retain(|name| !duplicate_names.contains(name));
        ids.retain(|id| !duplicate_ids.contains(id));
        let records = self.delete_resolved(&names, &ids, &duplicate_ids, &mut responses);
        let response = DeleteTopicsResponse { responses, ..Default::default() };
        (records, ControllerReply::DeleteTopics(response))
    }

    fn delete_resolved(
        &self,
        names: &[&str],
        ids: &[TopicId],
        duplicate_ids: &BTreeSet<TopicId>,
        responses: &mut Vec<DeletableTopicResult>,
    ) -> Vec<MetadataRecord> {
        let mut doomed: BTreeMap<TopicId, &str> = BTreeMap::new();
        for id in ids {
            match self.image.topics.name_of(id) {
                Some(name) => drop(doomed.insert(*id, name)),
                None => responses.push(deleted(None, *id, ErrorCode::UnknownTopicId.into())),
            }
        }
        let mut named_twice = BTreeSet::new();
        for name in names {
            let Some(topic) = self.image.topics.get(name) else {
                let error = ErrorCode::UnknownTopicOrPartition.into();
                responses.push(deleted(Some(name), Uuid::nil(), error));
                continue;
            };
            if duplicate_ids.contains(&topic.id) || doomed.insert(topic.id, name).is_some() {
                named_twice.insert(topic.id);
                let text = "The provided topic name maps to an ID that was already supplied.";
                responses.push(deleted(Some(name), topic.id, invalid_request(text)));
            }
        }
        doomed.retain(|id, _| !named_twice.contains(id));
        let mut records = Vec::new();
        for (topic_id, name) in doomed {
            records.push(MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id }));
            responses.push(deleted(Some(name), topic_id, ErrorCode::None.into()));
        }
        records
    }
}

fn invalid_request(text: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

fn bad_assignment(text: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidReplicaAssignment, text)
}

fn deleted(name: Option<&str>, id: TopicId, error: ApiError) -> DeletableTopicResult {
    DeletableTopicResult {
        name: name.map(str::to_owned),
        topic_id: id,
        error_code: error.code.code(),
        error_message: error.message,
    }
}

fn failed(name: &str, error: ApiError) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.to_owned(),
        error_code: error.code.code(),
        error_message: error.message,
        ..Default::default()
    }
}

/// What stands more than once in a list.
pub(super) fn duplicates<T: Ord + Copy>(items: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    items.filter(|item| !seen.insert(*item)).collect()
}

fn creation_configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, ApiError> {
    let nulls: Vec<&str> =
        topic.configs.iter().filter(|c| c.value.is_none()).map(|c| c.name.as_str()).collect();
    if !nulls.is_empty() {
        let text = format!("Null value not supported for topic configs: {}", nulls.join(","));
        return Err(ApiError::new(ErrorCode::InvalidConfig, text));
    }
    Ok(topic
        .configs
        .iter()
        .filter_map(|config| Some((config.name.clone(), config.value.clone()?)))
        .collect())
}

fn checked_increase(topic: &TopicImage, request: &CreatePartitionsTopic) -> Result<i32, ApiError> {
    let present = topic.partition_count();
    if request.count == present {
        let text = format!("Topic already has {present} partition(s).");
        return Err(ApiError::new(ErrorCode::InvalidPartitions, text));
    }
    if request.count < present {
        let text = format!(
            "The topic {} currently has {present} partition(s); {} would not be an increase.",
            topic.name, request.count
        );
        return Err(ApiError::new(ErrorCode::InvalidPartitions, text));
    }
    let additional = request.count - present;
    match &request.assignments {
        Some(assignments) if assignments.len() != additional as usize => {
            Err(bad_assignment(format!(
                "Attempted to add {additional} additional partition(s), but only {} \
                 assignment(s) were specified.",
                assignments.len()
            )))
        }
        _ if additional as usize > RECORDS_MAX => Err(ApiError::new(
            ErrorCode::PolicyViolation,
            "Excessively large number of partitions per request.",
        )),
        _ => Ok(additional),
    }
}

fn partition_records(
    topic_id: TopicId,
    first: i32,
    partitions: &[PartitionRegistration],
) -> impl Iterator<Item = MetadataRecord> {
    (first..).zip(partitions).map(move |(index, partition)| {
        MetadataRecord::Partition(partition.to_record(topic_id, index))
    })
}
