//! Client quotas, SCRAM credentials, access control entries and delegation tokens in the Image.

use ottla_protocol::MetadataRecord;
use ottla_protocol::metadata::{
    AccessControlEntryRecord, ClientQuotaRecord, DelegationTokenRecord, UserScramCredentialRecord,
    client_quota_record::EntityData,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Who a quota is for: entity type (`user`, `client-id`, `ip`) to name; `None` names the default.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct QuotaEntity(pub BTreeMap<String, Option<String>>);

/// A quota's value, comparable to the bit.
#[derive(Debug, Clone, Copy, Default)]
pub struct QuotaValue(pub f64);

impl PartialEq for QuotaValue {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

/// Quotas of all entities.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QuotasImage {
    /// Entity to quota key to value; no entity without values.
    pub entities: BTreeMap<QuotaEntity, BTreeMap<String, QuotaValue>>,
}

impl QuotasImage {
    pub(super) fn replay(&mut self, record: &ClientQuotaRecord) {
        let entity = QuotaEntity(
            record
                .entity
                .iter()
                .map(|part| (part.entity_type.clone(), part.entity_name.clone()))
                .collect(),
        );
        if !record.remove {
            let values = self.entities.entry(entity).or_default();
            values.insert(record.key.clone(), QuotaValue(record.value));
            return;
        }
        if let Some(values) = self.entities.get_mut(&entity) {
            values.remove(&record.key);
            if values.is_empty() {
                self.entities.remove(&entity);
            }
        }
    }

    pub(super) fn to_records(&self, records: &mut Vec<MetadataRecord>) {
        for (entity, values) in &self.entities {
            for (key, value) in values {
                records.push(MetadataRecord::ClientQuota(quota_record(entity, key, Some(*value))));
            }
        }
    }
}

/// The record that sets a quota, or takes it away when there is no value.
pub fn quota_record(
    entity: &QuotaEntity,
    key: &str,
    value: Option<QuotaValue>,
) -> ClientQuotaRecord {
    ClientQuotaRecord {
        entity: entity
            .0
            .iter()
            .map(|(kind, name)| EntityData { entity_type: kind.clone(), entity_name: name.clone() })
            .collect(),
        key: key.to_owned(),
        value: value.unwrap_or_default().0,
        remove: value.is_none(),
    }
}

/// SCRAM credentials by mechanism (1 SHA-256, 2 SHA-512) and user (KIP-554).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScramImage {
    /// The credentials as their records.
    pub credentials: BTreeMap<(i8, String), UserScramCredentialRecord>,
}

/// Access control entries by id; kept for an authorizer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AclsImage {
    /// The entries as their records.
    pub entries: BTreeMap<Uuid, AccessControlEntryRecord>,
}

/// Delegation tokens by token id (KIP-48).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokensImage {
    /// The tokens as their records.
    pub tokens: BTreeMap<String, DelegationTokenRecord>,
}
