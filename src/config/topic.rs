//! What a topic's configuration comes to: its overrides over the broker's dynamic and static values over the defaults.
//!
//! Source: Kafka's documentation, "Topic Configs" (server default property) and KIP-226; the order of units of
//! `log.retention.*` and `log.roll.*` in "Broker Configs".

use super::key::{Key, Scope};
use super::value::{self, Value};
use super::{Config, ConfigError, table};
use std::collections::BTreeMap;

/// Overrides as the metadata log keeps them: names and texts.
pub type Overrides = BTreeMap<String, String>;

/// The broker's values that were set while it ran.
#[derive(Debug, Clone, Copy)]
pub struct Dynamic<'a> {
    /// Of this broker.
    pub broker: &'a Overrides,
    /// Of every broker of the cluster.
    pub cluster: &'a Overrides,
}

/// No dynamic values.
pub const NOTHING: &Overrides = &Overrides::new();

impl Dynamic<'static> {
    /// Nothing was set.
    pub const NONE: Self = Self { broker: NOTHING, cluster: NOTHING };
}

impl Dynamic<'_> {
    /// The text that applies for a broker key now.
    pub fn text<'b>(&'b self, config: &'b Config, name: &str) -> Option<&'b str> {
        let of = |overrides: &'b Overrides| overrides.get(name).map(String::as_str);
        of(self.broker).or_else(|| of(self.cluster)).or_else(|| config.values.text(name))
    }

    /// The value that applies for a broker key now; a dynamic value that is not valid does not count.
    pub fn value(&self, config: &Config, name: &str) -> Option<Value> {
        let key = table::find(Scope::Broker, name)?;
        let overridden = self.broker.get(name).or_else(|| self.cluster.get(name));
        match overridden.and_then(|text| value::parse(key, text).ok()) {
            Some(value) => Some(value),
            None => config.values.get(name).ok().flatten(),
        }
    }
}

macro_rules! topic_config {
    ($($field:ident: $kind:ty = $key:literal,)*) => {
        /// Every value that applies to a topic, in the units of the topic's keys.
        #[derive(Debug, Clone, PartialEq)]
        pub struct TopicConfig {
            $(#[doc = concat!("`", $key, "`")] pub $field: $kind,)*
        }

        impl TopicConfig {
            /// The values for a topic with these overrides.
            ///
            /// # Errors
            /// An override is not valid; the message is Kafka's.
            pub fn new(
                config: &Config,
                dynamic: Dynamic<'_>,
                overrides: &Overrides,
            ) -> Result<Self, String> {
                Ok(Self { $($field: read($key, config, dynamic, overrides)?,)* })
            }
        }
    };
}

topic_config! {
    cleanup_policy: Vec<String> = "cleanup.policy",
    compression_gzip_level: i32 = "compression.gzip.level",
    compression_lz4_level: i32 = "compression.lz4.level",
    compression_type: String = "compression.type",
    compression_zstd_level: i32 = "compression.zstd.level",
    delete_retention_ms: i64 = "delete.retention.ms",
    file_delete_delay_ms: i64 = "file.delete.delay.ms",
    flush_messages: i64 = "flush.messages",
    flush_ms: i64 = "flush.ms",
    index_interval_bytes: i32 = "index.interval.bytes",
    internal_segment_bytes: Option<i32> = "internal.segment.bytes",
    max_compaction_lag_ms: i64 = "max.compaction.lag.ms",
    max_decompressed_message_bytes: i32 = "max.decompressed.message.bytes",
    max_message_bytes: i32 = "max.message.bytes",
    message_timestamp_after_max_ms: i64 = "message.timestamp.after.max.ms",
    message_timestamp_before_max_ms: i64 = "message.timestamp.before.max.ms",
    message_timestamp_type: String = "message.timestamp.type",
    min_cleanable_dirty_ratio: f64 = "min.cleanable.dirty.ratio",
    min_compaction_lag_ms: i64 = "min.compaction.lag.ms",
    min_insync_replicas: i32 = "min.insync.replicas",
    preallocate: bool = "preallocate",
    retention_bytes: i64 = "retention.bytes",
    retention_ms: i64 = "retention.ms",
    segment_bytes: i32 = "segment.bytes",
    segment_index_bytes: i32 = "segment.index.bytes",
    segment_jitter_ms: i64 = "segment.jitter.ms",
    segment_ms: i64 = "segment.ms",
    unclean_leader_election_enable: bool = "unclean.leader.election.enable",
}

fn read<T: super::values::FromValue>(
    name: &str,
    config: &Config,
    dynamic: Dynamic<'_>,
    overrides: &Overrides,
) -> Result<T, String> {
    let key = table::find(Scope::Topic, name)
        .ok_or_else(|| format!("Unknown topic config name: {name}"))?;
    let value = effective(key, config, dynamic, overrides)?;
    T::from_value(value).ok_or_else(|| format!("Invalid value for configuration {name}"))
}

/// The value that applies for a topic's key.
///
/// # Errors
/// The override is not valid; the message is Kafka's.
pub fn effective(
    key: &Key,
    config: &Config,
    dynamic: Dynamic<'_>,
    overrides: &Overrides,
) -> Result<Option<Value>, String> {
    match overrides.get(key.name) {
        Some(text) => value::parse(key, text).map(Some),
        None => inherited(key, config, dynamic),
    }
}

/// The value that a topic without an override has.
fn inherited(key: &Key, config: &Config, dynamic: Dynamic<'_>) -> Result<Option<Value>, String> {
    for synonym in key.synonyms {
        if let Some(value) = dynamic.value(config, synonym) {
            return Ok(Some(in_units_of(key, synonym, value)));
        }
    }
    match key.default.text() {
        Some(text) => value::parse_type(key.name, key.kind, text).map(Some),
        None => Ok(None),
    }
}

/// The broker's value in the topic's unit, milliseconds for times.
fn in_units_of(key: &Key, synonym: &str, value: Value) -> Value {
    let factor = match () {
        () if synonym.ends_with(".hours") => 60 * 60 * 1000,
        () if synonym.ends_with(".minutes") => 60 * 1000,
        () => 1,
    };
    match value {
        // Any negative retention time is no limit.
        Value::Integer(number) if key.name == "retention.ms" && number < 0 => Value::Integer(-1),
        Value::Integer(number) => Value::Integer(number.saturating_mul(factor)),
        other => other,
    }
}

/// Checks the broker's own defaults for topics, which a file can get wrong in the same ways.
pub(super) fn check_defaults(config: &Config) -> Result<(), ConfigError> {
    let topic = TopicConfig::new(config, Dynamic::NONE, NOTHING).map_err(ConfigError::new)?;
    if topic.retention_ms == 0 {
        let names = ["log.retention.ms", "log.retention.minutes", "log.retention.hours"];
        let name = names.iter().find(|name| config.values.given(name).is_some());
        return Err(config.values.complaint(
            name.unwrap_or(&"log.retention.ms"),
            "log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
        ));
    }
    Ok(())
}
