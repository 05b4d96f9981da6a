//! What may change while brokers run: the checks of dynamic broker, group and client metrics configuration.
//!
//! Source: KIP-226 (brokers), KIP-848 and KIP-932 (groups), KIP-714 (client metrics); the messages are Kafka's.

use super::key::{Scope, Update};
use super::topic::{Dynamic, Overrides};
use super::value::{self, Value};
use super::{Config, table};

/// Whose values a change of broker configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerLevel {
    /// One broker.
    One,
    /// All brokers of the cluster.
    Cluster,
}

/// The key behind `listener.name.NAME.key`, or the name itself.
pub fn base_name(name: &str) -> &str {
    let inside = name.strip_prefix("listener.name.").and_then(|rest| rest.split_once('.'));
    inside.map_or(name, |(_, base)| base)
}

const CLUSTER_LEVEL_OF_LISTENERS: &[&str] =
    &["max.connections", "max.connection.creation.rate", "num.network.threads"];

fn is_of_one_broker(name: &str) -> bool {
    match base_name(name) {
        base if base != name => !CLUSTER_LEVEL_OF_LISTENERS.contains(&base),
        _ => table::find(Scope::Broker, name).is_some_and(|key| key.update == Update::PerBroker),
    }
}

fn is_read_only(name: &str) -> bool {
    table::find(Scope::Broker, name)
        .is_some_and(|key| key.gone.is_none() && key.update == Update::ReadOnly)
}

/// Keys of certificates can change for a listener only.
fn needs_listener(name: &str) -> bool {
    let is_store = name.starts_with("ssl.keystore.") || name.starts_with("ssl.truststore.");
    is_store || name == "ssl.key.password"
}

fn refuse<'a>(names: impl Iterator<Item = &'a String>, why: &str) -> Result<(), String> {
    let names: Vec<&str> = names.map(String::as_str).collect();
    match names.len() {
        0 => Ok(()),
        // Scala prints small sets by this name and large ones by the other.
        1..=4 => Err(format!("{why}: Set({})", names.join(", "))),
        _ => Err(format!("{why}: HashSet({})", names.join(", "))),
    }
}

/// Checks dynamic broker values as they would be after a change.
///
/// # Errors
/// Kafka's message for INVALID_REQUEST or INVALID_CONFIG.
pub fn validate_broker(level: BrokerLevel, overrides: &Overrides) -> Result<(), String> {
    let names = || overrides.keys();
    refuse(names().filter(|name| is_read_only(name)), "Cannot update these configs dynamically")?;
    refuse(
        names().filter(|name| needs_listener(name)),
        "These security configs can be dynamically updated only per-listener using the listener \
         prefix",
    )?;
    for (name, text) in overrides {
        if let Some(key) = table::find(Scope::Broker, base_name(name)) {
            value::parse(key, text)?;
        }
    }
    match level {
        BrokerLevel::One => Ok(()),
        BrokerLevel::Cluster => refuse(
            names().filter(|name| is_of_one_broker(name)),
            "Cannot update these configs at default cluster level, broker id must be specified",
        ),
    }
}

/// Group keys that the broker bounds with `group.KIND.min.REST` and `group.KIND.max.REST`.
const BOUNDED: &[&str] = &[
    "consumer.heartbeat.interval.ms",
    "consumer.session.timeout.ms",
    "consumer.assignment.interval.ms",
    "share.heartbeat.interval.ms",
    "share.session.timeout.ms",
    "share.record.lock.duration.ms",
    "share.delivery.count.limit",
    "share.partition.max.record.locks",
    "share.assignment.interval.ms",
    "streams.heartbeat.interval.ms",
    "streams.session.timeout.ms",
    "streams.assignment.interval.ms",
];

/// The value that applies for a group's key: its override, the broker's value, the default.
///
/// # Errors
/// The override is not valid; the message is Kafka's.
pub fn group_value(
    name: &str,
    config: &Config,
    dynamic: Dynamic<'_>,
    overrides: &Overrides,
) -> Result<Option<Value>, String> {
    let Some(key) = table::find(Scope::Group, name) else {
        return Err(format!("Unknown group config name: {name}"));
    };
    if let Some(text) = overrides.get(name) {
        return value::parse(key, text).map(Some);
    }
    if let Some(value) = dynamic.value(config, &format!("group.{name}")) {
        return Ok(Some(value));
    }
    match key.default.text() {
        Some(text) => value::parse_type(name, key.kind, text).map(Some),
        None => Ok(None),
    }
}

/// Checks a group's overrides as they would be after a change.
///
/// # Errors
/// Kafka's message for INVALID_CONFIG.
pub fn validate_group(
    config: &Config,
    dynamic: Dynamic<'_>,
    overrides: &Overrides,
) -> Result<(), String> {
    for name in overrides.keys() {
        if table::find(Scope::Group, name).is_none() {
            return Err(format!("Unknown group config name: {name}"));
        }
    }
    let number = |name: &str| group_value(name, config, dynamic, overrides).map(as_number);
    for name in overrides.keys() {
        number(name)?;
    }
    let bound = |name: &str| as_number(dynamic.value(config, name));
    for name in BOUNDED {
        let Some((kind, rest)) = name.split_once('.') else { continue };
        let value = number(name)?;
        let min = format!("group.{kind}.min.{rest}");
        if value < bound(&min) {
            return Err(format!("{name} must be greater than or equal to {min}"));
        }
        let max = format!("group.{kind}.max.{rest}");
        if value > bound(&max) {
            return Err(format!("{name} must be less than or equal to {max}"));
        }
    }
    const STANDBYS: &str = "streams.num.standby.replicas";
    const STANDBYS_MAX: &str = "group.streams.max.standby.replicas";
    if number(STANDBYS)? > bound(STANDBYS_MAX) {
        return Err(format!("{STANDBYS} must be less than or equal to {STANDBYS_MAX}"));
    }
    for kind in ["consumer", "share", "streams"] {
        let session = format!("{kind}.session.timeout.ms");
        let heartbeat = format!("{kind}.heartbeat.interval.ms");
        if number(&session)? <= number(&heartbeat)? {
            return Err(format!("{session} must be greater than {heartbeat}"));
        }
    }
    Ok(())
}

fn as_number(value: Option<Value>) -> i64 {
    value.and_then(|value| value.integer()).unwrap_or_default()
}

/// Checks a client metrics subscription's values.
///
/// # Errors
/// Kafka's message for INVALID_CONFIG or INVALID_REQUEST.
pub fn validate_client_metrics(overrides: &Overrides) -> Result<(), String> {
    const INTERVAL_MS: std::ops::RangeInclusive<i64> = 100..=3_600_000;
    for (name, text) in overrides {
        let Some(key) = table::find(Scope::ClientMetrics, name) else {
            return Err(format!("Unknown client metrics configuration: {name}"));
        };
        let value = value::parse(key, text)?;
        if name == "interval.ms" && !INTERVAL_MS.contains(&value.integer().unwrap_or_default()) {
            return Err(format!(
                "Invalid value {text} for interval.ms, interval must be between 100 and 3600000 \
                 (1 hour)"
            ));
        }
    }
    Ok(())
}
