//! Dynamic configurations of brokers, client quotas and SCRAM credentials.

use super::topics::config;
use super::{ImportError, Plan, refuse};
use crate::config::key::base_name;
use crate::config::{Scope, table, value};
use crate::machines::metadata::image::{QuotaEntity, QuotaValue, ResourceType, quota_record};
use crate::zookeeper::{Cluster, Entity};
use bytes::Bytes;
use ottla_protocol::metadata::UserScramCredentialRecord;
use ottla_protocol::{BrokerId, MetadataRecord};
use std::collections::BTreeMap;

const SCRAM: [(&str, i8); 2] = [("SCRAM-SHA-256", 1), ("SCRAM-SHA-512", 2)];
const QUOTAS: [&str; 5] = [
    "connection_creation_rate",
    "consumer_byte_rate",
    "controller_mutation_rate",
    "producer_byte_rate",
    "request_percentage",
];

/// With eligible leader replicas (KIP-966) it is one value of the whole cluster.
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// Plans everything below `/config` but the topics'.
pub(super) fn add(
    plan: &mut Plan,
    node_id: BrokerId,
    cluster: &Cluster,
) -> Result<(), ImportError> {
    if !cluster.tokens.is_empty() {
        plan.warnings.push(format!(
            "{} delegation tokens are left out: clients need new ones",
            cluster.tokens.len()
        ));
    }
    for (entity, configs) in &cluster.configs {
        match &entity.0[..] {
            [(kind, _)] if kind == "topics" => {}
            [(kind, name)] if kind == "brokers" => {
                add_broker(plan, node_id, name.as_deref(), configs)?;
            }
            _ => add_client(plan, entity, configs)?,
        }
    }
    Ok(())
}

fn add_broker(
    plan: &mut Plan,
    node_id: BrokerId,
    name: Option<&str>,
    configs: &BTreeMap<String, String>,
) -> Result<(), ImportError> {
    let shown = name.unwrap_or("<default>");
    if name.is_some_and(|name| name != node_id.to_string()) {
        plan.warnings.push(format!("/config/brokers/{shown} is left out: it is of another broker"));
        return Ok(());
    }
    for (key, text) in configs {
        let base = base_name(key);
        let known = table::find(Scope::Broker, base).or_else(|| table::throttle(base));
        match known.filter(|known| known.gone.is_none()) {
            Some(known) if known.is_sensitive() => {
                return refuse(format!(
                    "/config/brokers/{shown} has {key}, encoded with password.encoder.secret: set it in the \
                     properties file, and remove it there with kafka-configs"
                ));
            }
            Some(known) => {
                if let Err(why) = value::parse(known, text) {
                    return refuse(format!("/config/brokers/{shown}: {why}"));
                }
                let resource = name.filter(|_| key != MIN_INSYNC_REPLICAS).unwrap_or_default();
                plan.records.push(config(ResourceType::Broker, resource, key, text));
            }
            None => plan.warnings.push(format!(
                "{key}={text} of /config/brokers/{shown} is left out: it is no more"
            )),
        }
    }
    Ok(())
}

fn add_client(
    plan: &mut Plan,
    entity: &Entity,
    configs: &BTreeMap<String, String>,
) -> Result<(), ImportError> {
    let mut quotas = QuotaEntity::default();
    let mut shown = String::from("/config");
    for (kind, name) in &entity.0 {
        shown.push_str(&format!("/{kind}/{}", name.as_deref().unwrap_or("<default>")));
        let kind = match kind.as_str() {
            "users" => "user",
            "clients" => "client-id",
            "ips" => "ip",
            _ => {
                plan.warnings.push(format!("{shown} is left out: it is not known"));
                return Ok(());
            }
        };
        quotas.0.insert(kind.to_owned(), name.clone());
    }
    for (key, text) in configs {
        let mechanism = SCRAM.iter().find(|(name, _)| name == key).map(|(_, id)| *id);
        if let (Some(mechanism), [(_, Some(user))]) = (mechanism, &entity.0[..]) {
            let Some(record) = credential(user, mechanism, text) else {
                return refuse(format!("{shown} has a credential for {key} that cannot be read"));
            };
            plan.records.push(MetadataRecord::UserScramCredential(record));
        } else if QUOTAS.contains(&key.as_str()) {
            let Ok(value) = text.trim().parse::<f64>() else {
                return refuse(format!("{shown} has {key}={text}, which is no number"));
            };
            let record = quota_record(&quotas, key, Some(QuotaValue(value)));
            plan.records.push(MetadataRecord::ClientQuota(record));
        } else {
            plan.warnings.push(format!("{key} of {shown} is left out: it is not known"));
        }
    }
    Ok(())
}

/// `salt=...,stored_key=...,server_key=...,iterations=...`, the first three in base 64.
fn credential(user: &str, mechanism: i8, text: &str) -> Option<UserScramCredentialRecord> {
    let field = |name: &str| {
        text.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
    };
    Some(UserScramCredentialRecord {
        name: user.to_owned(),
        mechanism,
        salt: from_base_64(field("salt")?)?,
        stored_key: from_base_64(field("stored_key")?)?,
        server_key: from_base_64(field("server_key")?)?,
        iterations: field("iterations")?.parse().ok()?,
    })
}

/// RFC 4648, section 4.
fn from_base_64(text: &str) -> Option<Bytes> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    Some(Bytes::from(bytes))
}
