//! DescribeClientQuotas (api key 48), versions 0-1: quotas of the entities that a filter matches
//! (KIP-546).
//!
//! - v1: flexible.
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::ApiError;
use crate::broker::image::{QuotaEntity, QuotasImage};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::describe_client_quotas_request::ComponentData;
use ottla_protocol::messages::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use ottla_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use std::collections::BTreeMap;

const ENTITY_TYPES: [&str; 3] = ["user", "client-id", "ip"];
const MATCH_EXACT: i8 = 0;
const MATCH_DEFAULT: i8 = 1;
const MATCH_SPECIFIED: i8 = 2;

/// What an entity's part must be.
enum Wanted<'a> {
    /// This name; `None` is the default entity.
    Name(Option<&'a str>),
    /// Any name.
    Any,
}

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    describe(&ctx.broker.image().quotas, &request)
}

fn describe(
    quotas: &QuotasImage,
    request: &DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let filter = match filter(&request.components) {
        Ok(filter) => filter,
        Err(error) => {
            return DescribeClientQuotasResponse {
                error_code: error.code.code(),
                error_message: error.message,
                entries: None,
                ..Default::default()
            };
        }
    };
    let entries = quotas
        .entities
        .iter()
        .filter(|(entity, _)| matches(entity, &filter, request.strict))
        .map(|(entity, values)| EntryData {
            entity: entity
                .0
                .iter()
                .map(|(kind, name)| EntityData {
                    entity_type: kind.clone(),
                    entity_name: name.clone(),
                })
                .collect(),
            values: values
                .iter()
                .map(|(key, value)| ValueData { key: key.clone(), value: value.0 })
                .collect(),
        })
        .collect();
    DescribeClientQuotasResponse { entries: Some(entries), ..Default::default() }
}

fn matches(entity: &QuotaEntity, filter: &BTreeMap<&str, Wanted<'_>>, strict: bool) -> bool {
    let all = filter.iter().all(|(kind, wanted)| match (entity.0.get(*kind), wanted) {
        (None, _) => false,
        (Some(_), Wanted::Any) => true,
        (Some(name), Wanted::Name(wanted)) => name.as_deref() == *wanted,
    });
    all && (!strict || entity.0.len() == filter.len())
}

fn filter(components: &[ComponentData]) -> Result<BTreeMap<&str, Wanted<'_>>, ApiError> {
    let invalid = |text: String| Err(ApiError::new(ErrorCode::InvalidRequest, text));
    let mut filter = BTreeMap::new();
    for component in components {
        let kind = component.entity_type.as_str();
        if kind.is_empty() {
            return invalid("Invalid empty entity type.".into());
        }
        if filter.contains_key(kind) {
            return invalid(format!(
                "Entity type {kind} cannot appear more than once in the filter."
            ));
        }
        if !ENTITY_TYPES.contains(&kind) {
            let text = format!("Unsupported entity type {kind}");
            return Err(ApiError::new(ErrorCode::UnsupportedVersion, text));
        }
        let also =
            |kind: &str| format!("Request specified {kind}, but also specified a match string.");
        let wanted = match (component.match_type, component.match_.as_deref()) {
            (MATCH_EXACT, Some(name)) => Wanted::Name(Some(name)),
            (MATCH_EXACT, None) => {
                let text = "Request specified MATCH_TYPE_EXACT, but set match string to null.";
                return invalid(text.into());
            }
            (MATCH_DEFAULT, None) => Wanted::Name(None),
            (MATCH_DEFAULT, Some(_)) => return invalid(also("MATCH_TYPE_DEFAULT")),
            (MATCH_SPECIFIED, None) => Wanted::Any,
            (MATCH_SPECIFIED, Some(_)) => return invalid(also("MATCH_TYPE_SPECIFIED")),
            (other, _) => return invalid(format!("Unknown match type {other}")),
        };
        filter.insert(kind, wanted);
    }
    if filter.contains_key("ip") && filter.len() > 1 {
        return invalid(
            "Invalid entity filter component combination. IP filter component should not be used \
             with user or clientId filter component."
                .into(),
        );
    }
    Ok(filter)
}
