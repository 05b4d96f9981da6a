//! IncrementalAlterConfigs (api key 44), versions 0-1: sets, deletes, appends to and subtracts from
//! configurations (KIP-339).
//!
//! - v1: flexible.
//!
//! Changes of brokers are checked here, by the broker that they are for, and decided by the
//! controller like all others; the level of the root logger (KIP-412) is set here alone. Known
//! differences from Kafka: there is no other logger; but for the cleaner's, values are not tried
//! out on the running broker first.

use super::RequestContext;
use super::admin::{check_cleaner, check_cordoned_dirs};
use crate::broker::config_rules::{BrokerScope, check_broker};
use crate::broker::{
    ApiError, ConfigResource, ControllerReply, ControllerRequest, Image, ResourceType, alter_config,
};
use crate::config::Scope;
use crate::config::cordon::{self, CORDONED_LOG_DIRS};
use crate::server::RootLogger;
use ottla_protocol::apis::ListenerType;
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use ottla_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use ottla_protocol::{BrokerId, ErrorCode};
use std::collections::{BTreeMap, BTreeSet};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let image = ctx.broker.image();
    let checked: Vec<Result<(), ApiError>> = request
        .resources
        .iter()
        .map(|resource| {
            let same = |other: &&AlterConfigsResource| {
                other.resource_type == resource.resource_type
                    && other.resource_name == resource.resource_name
            };
            if request.resources.iter().filter(same).count() > 1 {
                return Err(invalid("Each resource must appear at most once."));
            }
            if ctx.is_forwarded() { Ok(()) } else { check(ctx, &image, resource) }
        })
        .collect();
    let passed = request.resources.iter().zip(&checked).filter(|(_, outcome)| outcome.is_ok());
    let for_controller = passed.filter(|(resource, _)| !is_logger(resource));
    let forwarded = IncrementalAlterConfigsRequest {
        resources: for_controller.map(|(resource, _)| resource.clone()).collect(),
        validate_only: request.validate_only,
    };
    let reply = ctx.controller(ControllerRequest::IncrementalAlterConfigs(forwarded)).await;
    let mut decided = match reply {
        Ok(ControllerReply::IncrementalAlterConfigs(response)) => {
            Ok(response.responses.into_iter())
        }
        other => Err(super::admin::controller_error(other)),
    };
    let responses = request
        .resources
        .into_iter()
        .zip(checked)
        .map(|(resource, outcome)| match (outcome, &mut decided) {
            (Err(error), _) => answered(resource, error),
            (Ok(()), _) if is_logger(&resource) => {
                let outcome = set_log_level(ctx, &resource, request.validate_only);
                answered(resource, outcome.err().unwrap_or(ErrorCode::None.into()))
            }
            (Ok(()), Err(error)) => answered(resource, (*error).into()),
            (Ok(()), Ok(decided)) => decided
                .next()
                .unwrap_or_else(|| answered(resource, ErrorCode::UnknownServerError.into())),
        })
        .collect();
    IncrementalAlterConfigsResponse { responses, ..Default::default() }
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

fn answered(resource: AlterConfigsResource, error: ApiError) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse {
        error_code: error.code.code(),
        error_message: error.message,
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
    }
}

/// What the broker itself finds wrong.
fn check(
    ctx: &RequestContext,
    image: &Image,
    resource: &AlterConfigsResource,
) -> Result<(), ApiError> {
    let node_id = ctx.broker.node_id();
    let names: BTreeSet<&str> = resource.configs.iter().map(|c| c.name.as_str()).collect();
    if names.len() < resource.configs.len() {
        return Err(invalid("Error due to duplicate config keys"));
    }
    let nulls: Vec<&str> = resource
        .configs
        .iter()
        .filter(|config| config.config_operation != DELETE && config.value.is_none())
        .map(|config| config.name.as_str())
        .collect();
    if !nulls.is_empty() {
        return Err(invalid(format!("Null value not supported for : {}", nulls.join(", "))));
    }
    match ResourceType::from_id(resource.resource_type) {
        Some(ResourceType::Broker) => check_broker_change(ctx, image, resource),
        Some(ResourceType::BrokerLogger) => {
            check_node_id(node_id, &resource.resource_name)?;
            check_loggers(&resource.configs)
        }
        Some(_) => Ok(()),
        None => Err(invalid(format!("Unknown resource type {}", resource.resource_type))),
    }
}

fn is_logger(resource: &AlterConfigsResource) -> bool {
    ResourceType::from_id(resource.resource_type) == Some(ResourceType::BrokerLogger)
}

fn check_loggers(changes: &[AlterableConfig]) -> Result<(), ApiError> {
    if let Some(change) = changes.iter().find(|it| !matches!(it.config_operation, SET | DELETE)) {
        let operation = if change.config_operation == APPEND { "APPEND" } else { "SUBTRACT" };
        let text = format!("{operation} operation is not allowed for the BROKER_LOGGER resource");
        return Err(invalid(text));
    }
    let bad = |text: String| Err(ApiError::new(ErrorCode::InvalidConfig, text));
    for change in changes {
        let (name, level) = (&change.name, change.value.as_deref().unwrap_or_default());
        if name != RootLogger::NAME {
            return bad(format!("Logger {name} does not exist!"));
        }
        if change.config_operation == DELETE {
            let text = format!("Removing the log level of the {name} logger is not allowed");
            return Err(invalid(text));
        }
        if !RootLogger::LEVELS.contains(&level) {
            return bad(format!(
                "Cannot set the log level of {name} to {level} as it is not a supported log level. Valid log levels are {}",
                RootLogger::LEVELS.join(", ")
            ));
        }
    }
    Ok(())
}

fn set_log_level(
    ctx: &RequestContext,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), ApiError> {
    let levels = resource.configs.iter().filter_map(|config| config.value.as_deref());
    for level in levels.filter(|_| !validate_only) {
        let set = ctx.shared.settings.root_logger.set(level);
        set.map_err(|error| ApiError::new(ErrorCode::UnknownServerError, error))?;
    }
    Ok(())
}

fn check_broker_change(
    ctx: &RequestContext,
    image: &Image,
    resource: &AlterConfigsResource,
) -> Result<(), ApiError> {
    let name = &resource.resource_name;
    let is_here = name.is_empty() || is_this_broker(ctx, name)?;
    let before = image.config(&ConfigResource::new(ResourceType::Broker, name));
    let mut after = (*before).clone();
    for config in &resource.configs {
        let current = before.get(&config.name).map(String::as_str);
        match alter_config(Scope::Broker, config, current)? {
            Some(value) => after.insert(config.name.clone(), value),
            None => after.remove(&config.name),
        };
    }
    if ctx.listener_type == ListenerType::Controller && !uncordons_only(&before, &after) {
        let text = "When updating cordoned.log.dirs via controllers,  the new value must be a \
                    subset of the current configuration value.";
        return Err(ApiError::new(ErrorCode::InvalidConfig, text));
    }
    if is_here {
        check_cordoned_dirs(ctx, &after)?;
    }
    check_broker(&after, if name.is_empty() { BrokerScope::All } else { BrokerScope::One })?;
    if is_here { check_cleaner(ctx, name, &after) } else { Ok(()) }
}

/// Whether no more directories are cordoned: a controller does not know which ones a broker has.
fn uncordons_only(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> bool {
    let dirs = |configs: &'_ BTreeMap<String, String>| -> BTreeSet<String> {
        let value = configs.get(CORDONED_LOG_DIRS).map_or("", String::as_str);
        cordon::entries(value).map(str::to_owned).collect()
    };
    dirs(after).is_subset(&dirs(before))
}

/// Whether a change is for this broker. A broker takes none for others; a controller does, and what only that broker
/// could find wrong with it is not looked for, as in Kafka's `ControllerApis`.
pub(super) fn is_this_broker(ctx: &RequestContext, name: &str) -> Result<bool, ApiError> {
    match check_node_id(ctx.broker.node_id(), name) {
        Err(_) if ctx.listener_type == ListenerType::Controller && name.parse::<i32>().is_ok() => {
            Ok(false)
        }
        checked => checked.map(|()| true),
    }
}

fn check_node_id(node_id: BrokerId, name: &str) -> Result<(), ApiError> {
    match name.parse::<i32>() {
        Err(_) => Err(invalid(format!("Node id must be an integer, but it is: {name}"))),
        Ok(id) if id != node_id.0 => {
            Err(invalid(format!("Unexpected broker id, expected {node_id}, but received {name}")))
        }
        Ok(_) => Ok(()),
    }
}
