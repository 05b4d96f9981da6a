//! Client quotas.
//!
//! Source: KIP-546, KIP-612 (connection rate by address), KIP-599 (controller mutations).

use super::{ApiError, Controller, ControllerReply, Decision};
use crate::machines::metadata::image::{QuotaEntity, QuotaValue, quota_record};
use ottla_protocol::messages::alter_client_quotas_request::EntryData;
use ottla_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, alter_client_quotas_response,
};
use ottla_protocol::{ErrorCode, MetadataRecord};
use std::collections::{BTreeMap, BTreeSet};

const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";

/// The quota keys of users and clients; true where the value is a whole number.
const USER_AND_CLIENT_KEYS: [(&str, bool); 4] = [
    ("producer_byte_rate", true),
    ("consumer_byte_rate", true),
    ("request_percentage", false),
    ("controller_mutation_rate", false),
];
/// The quota keys of addresses.
const IP_KEYS: [(&str, i32); 1] = [("connection_creation_rate", i32::MAX)];

impl Controller {
    pub(super) fn alter_client_quotas(&self, request: &AlterClientQuotasRequest) -> Decision {
        let mut records = Vec::new();
        let mut seen = BTreeSet::new();
        let mut entries = Vec::new();
        for entry in &request.entries {
            let error = match self.alter_quota(entry, &mut seen) {
                Ok(more) => {
                    records.extend(more);
                    ErrorCode::None.into()
                }
                Err(error) => error,
            };
            entries.push(alter_client_quotas_response::EntryData {
                error_code: error.code.code(),
                error_message: error.message,
                entity: entry
                    .entity
                    .iter()
                    .map(|part| alter_client_quotas_response::EntityData {
                        entity_type: part.entity_type.clone(),
                        entity_name: part.entity_name.clone(),
                    })
                    .collect(),
            });
        }
        if request.validate_only {
            records.clear();
        }
        let response = AlterClientQuotasResponse { entries, ..Default::default() };
        (records, ControllerReply::AlterClientQuotas(response))
    }

    fn alter_quota(
        &self,
        entry: &EntryData,
        seen: &mut BTreeSet<QuotaEntity>,
    ) -> Result<Vec<MetadataRecord>, ApiError> {
        let entity = entity_of(entry)?;
        if !seen.insert(entity.clone()) {
            return Err(invalid(format!("Ignoring duplicate entity {}", shown(&entity))));
        }
        let mut wanted: BTreeMap<&str, Option<f64>> = BTreeMap::new();
        for op in &entry.ops {
            let value = (!op.remove).then_some(op.value);
            if wanted.insert(&op.key, value).is_some() {
                return Err(invalid(format!(
                    "Duplicate quota key {} not updating quota for this entity {}",
                    op.key,
                    shown(&entity)
                )));
            }
        }
        let current = self.image.quotas.entities.get(&entity);
        let mut records = Vec::new();
        for (key, value) in wanted {
            if let Some(value) = value {
                check_value(&entity, key, value)?;
            }
            let before = current.and_then(|values| values.get(key)).copied();
            let after = value.map(QuotaValue);
            if before != after {
                records.push(MetadataRecord::ClientQuota(quota_record(&entity, key, after)));
            }
        }
        Ok(records)
    }
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

/// As Kafka prints an entity.
fn shown(entity: &QuotaEntity) -> String {
    let parts: Vec<String> = entity
        .0
        .iter()
        .map(|(kind, name)| format!("{kind}={}", name.as_deref().unwrap_or("null")))
        .collect();
    format!("ClientQuotaEntity(entries={{{}}})", parts.join(", "))
}

fn entity_of(entry: &EntryData) -> Result<QuotaEntity, ApiError> {
    let mut entity = QuotaEntity::default();
    for part in &entry.entity {
        let kind = part.entity_type.as_str();
        if ![USER, CLIENT_ID, IP].contains(&kind) {
            return Err(invalid(format!("Unhandled client quota entity type: {kind}")));
        }
        if part.entity_name.as_deref() == Some("") {
            return Err(invalid(format!("Empty {kind} not supported")));
        }
        if entity.0.insert(kind.to_owned(), part.entity_name.clone()).is_some() {
            return Err(invalid(format!(
                "Invalid client quota entity, duplicate entity entry {kind}"
            )));
        }
    }
    if entity.0.is_empty() {
        return Err(invalid("Invalid empty client quota entity"));
    }
    let Some(address) = entity.0.get(IP) else { return Ok(entity) };
    if entity.0.len() > 1 {
        return Err(invalid(
            "Invalid quota entity combination, IP entity shouldnot be combined with User or \
             ClientId",
        ));
    }
    match address {
        // Host names would have to be resolved, which the controller does not do.
        Some(text) if text.parse::<std::net::IpAddr>().is_err() => {
            Err(invalid(format!("{text} is not a valid IP or resolvable host.")))
        }
        _ => Ok(entity),
    }
}

fn check_value(entity: &QuotaEntity, key: &str, value: f64) -> Result<(), ApiError> {
    let whole_number_max = if entity.0.contains_key(IP) {
        IP_KEYS
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, max)| Some((f64::from(*max), "an INT")))
    } else {
        USER_AND_CLIENT_KEYS
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, whole)| whole.then_some((i64::MAX as f64, "a LONG")))
    };
    let Some(whole_number_max) = whole_number_max else {
        return Err(invalid(format!("Invalid configuration key {key}")));
    };
    if value <= 0.0 {
        return Err(invalid(format!("Quota {key} must be greater than 0")));
    }
    match whole_number_max {
        Some((max, kind)) if value > max => {
            Err(invalid(format!("Proposed value for {key} is too large for {kind}.")))
        }
        Some(_) if value.fract().abs() > 1e-6 => {
            Err(invalid(format!("{key} cannot be a fractional value.")))
        }
        _ => Ok(()),
    }
}
