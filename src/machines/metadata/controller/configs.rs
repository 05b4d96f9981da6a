//! Changes of dynamic configurations, incremental (KIP-339) and whole (the older API).

use super::topics::validate_topic_name;
use super::{ApiError, Controller, ControllerReply, Decision};
use crate::config::cordon::CORDONED_LOG_DIRS;
use crate::config::{Scope, table};
use crate::machines::metadata::config_rules::{
    check_client_metrics, check_group, check_topic, is_list,
};
use crate::machines::metadata::effective::BrokerSources;
use crate::machines::metadata::features;
use crate::machines::metadata::image::{ConfigMap, ConfigResource, ResourceType};
use ottla_protocol::messages::create_topics_response::CreatableTopicConfigs;
use ottla_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use ottla_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_response,
};
use ottla_protocol::metadata::ConfigRecord;
use ottla_protocol::{BrokerId, ErrorCode, MetadataRecord};
use std::collections::{BTreeMap, BTreeSet};

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Longest value that a record can hold.
const VALUE_LENGTH_MAX: usize = i16::MAX as usize;

/// New values by name; `None` takes the configuration away.
pub(super) type Changes = BTreeMap<String, Option<String>>;

impl Controller {
    pub(super) fn incremental_alter_configs(
        &self,
        request: &IncrementalAlterConfigsRequest,
    ) -> Decision {
        let mut records = Vec::new();
        let mut responses = Vec::new();
        for resource in &request.resources {
            let outcome = resource_of(resource.resource_type, &resource.resource_name).and_then(
                |resource_id| {
                    let changes = self.incremental_changes(&resource_id, &resource.configs)?;
                    self.config_records(&resource_id, changes)
                },
            );
            let error = keep(outcome, &mut records);
            responses.push(incremental_alter_configs_response::AlterConfigsResourceResponse {
                error_code: error.code.code(),
                error_message: error.message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
            });
        }
        if request.validate_only {
            records.clear();
        }
        let response = IncrementalAlterConfigsResponse { responses, ..Default::default() };
        (records, ControllerReply::IncrementalAlterConfigs(response))
    }

    pub(super) fn alter_configs(&self, request: &AlterConfigsRequest) -> Decision {
        let mut records = Vec::new();
        let mut responses = Vec::new();
        for resource in &request.resources {
            let outcome = resource_of(resource.resource_type, &resource.resource_name).and_then(
                |resource_id| {
                    // What the request does not name goes back to its default.
                    let before = self.image.config(&resource_id);
                    let mut changes: Changes =
                        before.keys().map(|name| (name.clone(), None)).collect();
                    for config in &resource.configs {
                        changes.insert(config.name.clone(), config.value.clone());
                    }
                    self.config_records(&resource_id, changes)
                },
            );
            let error = keep(outcome, &mut records);
            responses.push(alter_configs_response::AlterConfigsResourceResponse {
                error_code: error.code.code(),
                error_message: error.message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
            });
        }
        if request.validate_only {
            records.clear();
        }
        let response = AlterConfigsResponse { responses, ..Default::default() };
        (records, ControllerReply::AlterConfigs(response))
    }

    fn incremental_changes(
        &self,
        resource: &ConfigResource,
        configs: &[AlterableConfig],
    ) -> Result<Changes, ApiError> {
        let before = self.image.config(resource);
        let mut changes = Changes::new();
        for config in configs {
            let current = before.get(&config.name).map(String::as_str);
            let value = alter(scope_of(resource.kind), config, current)?;
            changes.insert(config.name.clone(), value);
        }
        Ok(changes)
    }

    fn config_records(
        &self,
        resource: &ConfigResource,
        changes: Changes,
    ) -> Result<Vec<MetadataRecord>, ApiError> {
        let before = self.image.config(resource);
        let mut after = ConfigMap::clone(&before);
        for (name, value) in &changes {
            match value {
                Some(value) => after.insert(name.clone(), value.clone()),
                None => after.remove(name),
            };
        }
        self.check_configs(resource, &after)?;
        self.check_exists(resource)?;
        if resource.kind == ResourceType::Broker && self.elr_enabled() {
            self.check_min_isr(resource, &changes)?;
        }
        let can_cordon = features::can_cordon(self.image.features.metadata_version());
        if resource.kind == ResourceType::Broker
            && changes.contains_key(CORDONED_LOG_DIRS)
            && !can_cordon
        {
            let text = "The cordoned.log.dirs configuration value cannot be set because it \
                        requires metadata.version >= 4.3-IV0";
            return Err(ApiError::new(ErrorCode::InvalidConfig, text));
        }
        // Brokers read a value again when it is written again (a renewed key store, say).
        let always = resource.kind == ResourceType::Broker;
        Ok(changes
            .into_iter()
            .filter(|(name, value)| always || before.get(name) != value.as_ref())
            .map(|(name, value)| {
                MetadataRecord::Config(ConfigRecord {
                    resource_type: resource.kind.id(),
                    resource_name: resource.name.clone(),
                    name,
                    value,
                })
            })
            .collect())
    }

    /// With eligible leader replicas `min.insync.replicas` is one value of the whole cluster.
    fn check_min_isr(&self, resource: &ConfigResource, changes: &Changes) -> Result<(), ApiError> {
        let text = match changes.get(MIN_INSYNC_REPLICAS) {
            Some(_) if !resource.name.is_empty() => {
                "Broker-level min.insync.replicas cannot be altered while ELR is enabled."
            }
            Some(None) => {
                "Cluster-level min.insync.replicas cannot be removed while ELR is enabled."
            }
            _ => return Ok(()),
        };
        Err(ApiError::new(ErrorCode::InvalidConfig, text))
    }

    fn broker_sources(&self) -> BrokerSources<'_> {
        BrokerSources::new(&self.image, self.settings.node_id, &self.settings.values)
    }

    fn check_configs(
        &self,
        resource: &ConfigResource,
        configs: &ConfigMap,
    ) -> Result<(), ApiError> {
        if configs.values().any(|value| value.len() > VALUE_LENGTH_MAX) {
            return Err(ApiError::new(
                ErrorCode::InvalidConfig,
                "The configuration value cannot be added because it exceeds the maximum value \
                 size of 32767 bytes.",
            ));
        }
        let invalid_request = |text: &str| Err(ApiError::new(ErrorCode::InvalidRequest, text));
        match resource.kind {
            ResourceType::Topic if resource.name.is_empty() => {
                invalid_request("Default topic resources are not allowed.")
            }
            ResourceType::Topic => {
                validate_topic_name(&resource.name)
                    .map_err(|text| ApiError::new(ErrorCode::InvalidTopicException, text))?;
                check_topic(configs, &self.broker_sources())
            }
            ResourceType::Broker if resource.name.is_empty() => Ok(()),
            ResourceType::Broker => match resource.name.parse::<i32>() {
                Err(_) => invalid_request("Unable to parse broker name as a base 10 number."),
                Ok(id) if id < 0 => invalid_request("Invalid negative broker ID."),
                Ok(_) => Ok(()),
            },
            ResourceType::ClientMetrics => check_client_metrics(&resource.name, configs),
            ResourceType::Group if resource.name.is_empty() => {
                invalid_request("Default group resources are not allowed.")
            }
            ResourceType::Group => check_group(configs, &self.broker_sources()),
            ResourceType::BrokerLogger => invalid_request("Unknown resource type BROKER_LOGGER"),
        }
    }

    fn check_exists(&self, resource: &ConfigResource) -> Result<(), ApiError> {
        let name = &resource.name;
        match resource.kind {
            ResourceType::Topic if self.image.topics.get(name).is_none() => {
                let text = format!("The topic '{name}' does not exist.");
                Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, text))
            }
            ResourceType::Broker if !name.is_empty() => {
                let id = BrokerId(name.parse().unwrap_or(-1));
                let cluster = &self.image.cluster;
                if cluster.brokers.contains_key(&id) || cluster.controllers.contains_key(&id) {
                    return Ok(());
                }
                let text = format!("No broker with id {id} found.");
                Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, text))
            }
            _ => Ok(()),
        }
    }

    /// Whether a new topic may have these configurations.
    pub(super) fn check_new_topic_configs(
        &self,
        topic: &str,
        configs: &ConfigMap,
    ) -> Result<(), ApiError> {
        self.check_configs(&ConfigResource::new(ResourceType::Topic, topic), configs)
    }

    /// What a new topic with these configurations will go by.
    pub(super) fn new_topic_configs(&self, configs: &ConfigMap) -> Vec<CreatableTopicConfigs> {
        let sources = self.broker_sources();
        let mut described: Vec<CreatableTopicConfigs> = table::all(Scope::Topic)
            .filter(|key| {
                !key.is_internal && key.since.is_empty() || configs.contains_key(key.name)
            })
            .map(|key| {
                let effective = sources.topic_key(key, configs);
                CreatableTopicConfigs {
                    name: effective.name,
                    value: effective.value,
                    read_only: false,
                    config_source: effective.origin.id(),
                    is_sensitive: key.is_sensitive(),
                }
            })
            .collect();
        described.sort_by(|a, b| a.name.cmp(&b.name));
        described
    }
}

fn keep(
    outcome: Result<Vec<MetadataRecord>, ApiError>,
    records: &mut Vec<MetadataRecord>,
) -> ApiError {
    match outcome {
        Ok(more) => {
            records.extend(more);
            ErrorCode::None.into()
        }
        Err(error) => error,
    }
}

fn resource_of(kind: i8, name: &str) -> Result<ConfigResource, ApiError> {
    match ResourceType::from_id(kind) {
        Some(kind) => Ok(ConfigResource::new(kind, name)),
        None => {
            let text = format!("Unknown resource type {kind}.");
            Err(ApiError::new(ErrorCode::UnsupportedVersion, text))
        }
    }
}

fn scope_of(kind: ResourceType) -> Scope {
    match kind {
        ResourceType::Topic => Scope::Topic,
        ResourceType::Broker | ResourceType::BrokerLogger => Scope::Broker,
        ResourceType::ClientMetrics => Scope::ClientMetrics,
        ResourceType::Group => Scope::Group,
    }
}

/// The value after an operation: 0 sets, 1 deletes, 2 appends, 3 subtracts.
///
/// INVALID_CONFIG when something is appended to what is no list, INVALID_REQUEST for an unknown
/// operation.
pub fn alter(
    scope: Scope,
    config: &AlterableConfig,
    current: Option<&str>,
) -> Result<Option<String>, ApiError> {
    let operation = match config.config_operation {
        0 => return Ok(config.value.clone()),
        1 => return Ok(None),
        2 => "APPEND",
        3 => "SUBTRACT",
        other => {
            let text = format!("Unknown operation type {other}.");
            return Err(ApiError::new(ErrorCode::InvalidRequest, text));
        }
    };
    if !is_list(scope, &config.name) {
        let text =
            format!("Can't {operation} to key {} because its type is not LIST.", config.name);
        return Err(ApiError::new(ErrorCode::InvalidConfig, text));
    }
    let default = table::find(scope, &config.name).and_then(|key| key.default.text());
    let mut items: Vec<&str> =
        current.or(default).unwrap_or("").split(',').filter(|item| !item.is_empty()).collect();
    let operands: Vec<&str> = config.value.as_deref().unwrap_or("").split(',').collect();
    if operation == "APPEND" {
        let present: BTreeSet<&str> = items.iter().copied().collect();
        items.extend(operands.into_iter().filter(|item| !present.contains(item)));
    } else {
        items.retain(|item| !operands.contains(item));
    }
    Ok(Some(items.join(",")))
}
