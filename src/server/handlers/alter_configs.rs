//! AlterConfigs (api key 33), versions 0-2: replaces all configurations of a resource (KIP-133).
//!
//! - v2: flexible.
//!
//! Known differences from Kafka: but for the cleaner's, values are not tried out on the running broker first.

use super::RequestContext;
use super::admin::{check_cleaner, check_cordoned_dirs};
use super::incremental_alter_configs::is_this_broker;
use crate::broker::config_rules::{BrokerScope, check_broker};
use crate::broker::{ApiError, ControllerReply, ControllerRequest, ResourceType};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::alter_configs_request::AlterConfigsResource;
use ottla_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use ottla_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use std::collections::BTreeMap;

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
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
            if ctx.is_forwarded() { Ok(()) } else { check(ctx, resource) }
        })
        .collect();
    let passed = request.resources.iter().zip(&checked).filter(|(_, outcome)| outcome.is_ok());
    let forwarded = AlterConfigsRequest {
        resources: passed.map(|(resource, _)| resource.clone()).collect(),
        validate_only: request.validate_only,
    };
    let reply = ctx.controller(ControllerRequest::AlterConfigs(forwarded)).await;
    let mut decided = match reply {
        Ok(ControllerReply::AlterConfigs(response)) => Ok(response.responses.into_iter()),
        other => Err(super::admin::controller_error(other)),
    };
    let responses = request
        .resources
        .into_iter()
        .zip(checked)
        .map(|(resource, outcome)| match (outcome, &mut decided) {
            (Err(error), _) => failed(resource, error),
            (Ok(()), Err(error)) => failed(resource, (*error).into()),
            (Ok(()), Ok(decided)) => decided
                .next()
                .unwrap_or_else(|| failed(resource, ErrorCode::UnknownServerError.into())),
        })
        .collect();
    AlterConfigsResponse { responses, ..Default::default() }
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

fn failed(resource: AlterConfigsResource, error: ApiError) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse {
        error_code: error.code.code(),
        error_message: error.message,
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
    }
}

fn check(ctx: &RequestContext, resource: &AlterConfigsResource) -> Result<(), ApiError> {
    let mut configs = BTreeMap::new();
    let mut nulls = Vec::new();
    for config in &resource.configs {
        match &config.value {
            Some(value) => drop(configs.insert(config.name.clone(), value.clone())),
            None => nulls.push(config.name.as_str()),
        }
    }
    if configs.len() + nulls.len() < resource.configs.len() {
        return Err(invalid("Error due to duplicate config keys"));
    }
    if !nulls.is_empty() {
        return Err(invalid(format!("Null value not supported for : {}", nulls.join(", "))));
    }
    match ResourceType::from_id(resource.resource_type) {
        Some(ResourceType::Broker) if resource.resource_name.is_empty() => {
            check_broker(&configs, BrokerScope::All)?;
            check_cleaner(ctx, "", &configs)
        }
        Some(ResourceType::Broker) => {
            let is_here = is_this_broker(ctx, &resource.resource_name)?;
            if is_here {
                check_cordoned_dirs(ctx, &configs)?;
            }
            check_broker(&configs, BrokerScope::One)?;
            if is_here { check_cleaner(ctx, &resource.resource_name, &configs) } else { Ok(()) }
        }
        Some(ResourceType::BrokerLogger) | None => {
            Err(invalid(format!("Unknown resource type {}", resource.resource_type)))
        }
        Some(_) => Ok(()),
    }
}
