//! Whether dynamic configurations may stand: names, types, ranges, and values against each other.
//!
//! Source: Kafka's LogConfig, GroupConfig, ClientMetricsConfigs and DynamicBrokerConfig.

use super::controller::ApiError;
use super::effective::BrokerSources;
use super::image::ConfigMap;
use crate::config::key::base_name;
use crate::config::{Kind, Scope, Update, Value, table, value};
use ottla_protocol::ErrorCode;

fn invalid_config(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidConfig, text)
}

fn invalid_request(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

/// Whether a key's value is a list, so that it can be appended to.
pub fn is_list(scope: Scope, name: &str) -> bool {
    table::find(scope, name).is_some_and(|key| key.kind == Kind::List)
}

fn check_values(scope: Scope, kind: &str, configs: &ConfigMap) -> Result<(), ApiError> {
    let is_unknown = |name: &&String| {
        let key = table::find(scope, name);
        key.is_none_or(|key| key.gone.is_some())
    };
    if let Some(name) = configs.keys().find(is_unknown) {
        return Err(invalid_config(format!("Unknown {kind} config name: {name}")));
    }
    for (name, text) in configs {
        if let Some(key) = table::find(scope, name) {
            value::parse(key, text).map_err(invalid_config)?;
        }
    }
    Ok(())
}

/// Whether a topic may have all these configurations.
///
/// INVALID_CONFIG with Kafka's text.
pub fn check_topic(configs: &ConfigMap, broker: &BrokerSources<'_>) -> Result<(), ApiError> {
    check_values(Scope::Topic, "topic", configs)?;
    let number = |name: &str| -> Option<i64> {
        let key = table::find(Scope::Topic, name)?;
        broker.topic_key(key, configs).value?.parse().ok()
    };
    let lags = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
    if let (Some(min), Some(max)) = lags
        && min > max
    {
        return Err(invalid_config(format!(
            "conflict topic config setting min.compaction.lag.ms ({min}) > \
             max.compaction.lag.ms ({max})"
        )));
    }
    let remote = configs.get("remote.storage.enable").map(|value| value.trim());
    if remote.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(invalid_config(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
             with remote log storage.",
        ));
    }
    Ok(())
}

/// A group's keys that brokers bound, in the order in which Kafka checks them; the bool: only when
/// set.
const GROUP_BOUNDS: [(&str, bool); 13] = [
    ("consumer.heartbeat.interval.ms", false),
    ("consumer.session.timeout.ms", false),
    ("consumer.assignment.interval.ms", true),
    ("share.heartbeat.interval.ms", false),
    ("share.session.timeout.ms", false),
    ("share.record.lock.duration.ms", false),
    ("share.delivery.count.limit", false),
    ("share.partition.max.record.locks", false),
    ("share.assignment.interval.ms", true),
    ("streams.heartbeat.interval.ms", false),
    ("streams.session.timeout.ms", false),
    ("streams.num.standby.replicas", false),
    ("streams.assignment.interval.ms", true),
];

/// Whether a group may have all these configurations.
///
/// INVALID_CONFIG with Kafka's text.
pub fn check_group(configs: &ConfigMap, broker: &BrokerSources<'_>) -> Result<(), ApiError> {
    check_values(Scope::Group, "group", configs)?;
    let own = |name: &str| -> Option<i64> {
        let key = table::find(Scope::Group, name)?;
        broker.group_key(key, configs).value?.parse().ok()
    };
    let bound = |name: &str| -> Option<i64> { broker.broker_key(name).value?.parse().ok() };
    for (name, only_when_set) in GROUP_BOUNDS {
        let (Some((kind, rest)), Some(value)) = (name.split_once('.'), own(name)) else { continue };
        if only_when_set && !configs.contains_key(name) {
            continue;
        }
        let min_name = format!("group.{kind}.min.{rest}");
        if bound(&min_name).is_some_and(|min| value < min) {
            let text = format!("{name} must be greater than or equal to {min_name}");
            return Err(invalid_config(text));
        }
        let max_name = format!("group.{kind}.max.{}", rest.strip_prefix("num.").unwrap_or(rest));
        if bound(&max_name).is_some_and(|max| value > max) {
            let text = format!("{name} must be less than or equal to {max_name}");
            return Err(invalid_config(text));
        }
    }
    for kind in ["consumer", "share", "streams"] {
        let session = format!("{kind}.session.timeout.ms");
        let heartbeat = format!("{kind}.heartbeat.interval.ms");
        if let (Some(timeout_ms), Some(interval_ms)) = (own(&session), own(&heartbeat))
            && timeout_ms <= interval_ms
        {
            return Err(invalid_config(format!("{session} must be greater than {heartbeat}")));
        }
    }
    Ok(())
}

const MATCH_PARAMETERS: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// Whether a client metrics subscription may have all these configurations.
///
/// INVALID_REQUEST or INVALID_CONFIG with Kafka's text.
pub fn check_client_metrics(name: &str, configs: &ConfigMap) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(invalid_request("Subscription name can't be empty"));
    }
    let scope = Scope::ClientMetrics;
    for (name, text) in configs {
        let Some(key) = table::find(scope, name) else {
            return Err(invalid_request(format!("Unknown client metrics configuration: {name}")));
        };
        let parsed = value::parse_type(key.name, key.kind, text).map_err(invalid_config)?;
        match (key.name, &parsed) {
            ("interval.ms", Value::Integer(interval_ms))
                if !(100..=3_600_000).contains(interval_ms) =>
            {
                return Err(invalid_request(format!(
                    "Invalid value {interval_ms} for interval.ms, interval must be between 100 \
                     and 3600000 (1 hour)"
                )));
            }
            ("match", Value::List(patterns)) => {
                for pattern in patterns {
                    check_match_pattern(pattern)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_match_pattern(pattern: &str) -> Result<(), ApiError> {
    let parts: Vec<&str> = pattern.split('=').collect();
    match parts[..] {
        [name, value] if MATCH_PARAMETERS.contains(&name.trim()) && !value.is_empty() => Ok(()),
        _ => Err(invalid_config(format!("Illegal client matching pattern: {pattern}"))),
    }
}

/// Whose dynamic broker configuration is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerScope {
    /// One broker's.
    One,
    /// That of all brokers.
    All,
}

/// Listeners' keys that all brokers may share.
const CLUSTER_KEYS_OF_LISTENERS: [&str; 3] =
    ["max.connections", "max.connection.creation.rate", "num.network.threads"];

fn is_read_only(name: &str) -> bool {
    table::find(Scope::Broker, name)
        .is_some_and(|key| key.gone.is_none() && key.update == Update::ReadOnly)
}

/// Keys of certificates change for one listener only.
fn needs_listener(name: &str) -> bool {
    let is_store = name.starts_with("ssl.keystore.") || name.starts_with("ssl.truststore.");
    is_store || name == "ssl.key.password"
}

fn is_of_one_broker(name: &str) -> bool {
    match base_name(name) {
        base if base != name => !CLUSTER_KEYS_OF_LISTENERS.contains(&base),
        _ => table::find(Scope::Broker, name).is_some_and(|key| key.update == Update::PerBroker),
    }
}

/// Whether a broker, or all of them, may have all these dynamic configurations.
///
/// INVALID_REQUEST with Kafka's text.
pub fn check_broker(configs: &ConfigMap, scope: BrokerScope) -> Result<(), ApiError> {
    let refuse = |why: &str, is_wrong: fn(&str) -> bool| {
        let wrong: Vec<&str> =
            configs.keys().map(String::as_str).filter(|name| is_wrong(name)).collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(invalid_request(format!("{why}: [{}]", wrong.join(", ")))),
        }
    };
    refuse("Cannot update these configs dynamically", is_read_only)?;
    refuse(
        "These security configs can be dynamically updated only per-listener using the listener \
         prefix",
        needs_listener,
    )?;
    for (name, text) in configs {
        let name = base_name(name);
        if let Some(key) = table::find(Scope::Broker, name).or_else(|| table::throttle(name)) {
            value::parse(key, text).map_err(invalid_request)?;
        }
    }
    match scope {
        BrokerScope::One => Ok(()),
        BrokerScope::All => refuse(
            "Cannot update these configs at default cluster level, broker id must be specified",
            is_of_one_broker,
        ),
    }
}

#[cfg(test)]
mod tests;
