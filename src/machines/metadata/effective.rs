//! Effective configurations: what a topic, group or broker goes by, and where each value comes
//! from.
//!
//! A value is looked for in the resource's own dynamic configuration, the broker's, that of all
//! brokers, the properties file, and the defaults, in this order; the broker's keys that stand in
//! for a topic's or group's key are its synonyms. Source: KIP-133, KIP-226 and Kafka's ConfigHelper
//! and KafkaConfigSchema.

use super::image::{ConfigMap, ConfigResource, Image, ResourceType};
use crate::config::{Key, Scope, Values, table, value};
use ottla_protocol::BrokerId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum ConfigSource {
    /// The topic's dynamic configuration.
    Topic = 1,
    /// One broker's dynamic configuration.
    Broker = 2,
    /// The dynamic configuration of all brokers.
    DefaultBroker = 3,
    /// The properties file.
    StaticBroker = 4,
    /// Nobody set it.
    Default = 5,
    /// A broker's log levels.
    BrokerLogger = 6,
    /// A client metrics subscription.
    ClientMetrics = 7,
    /// The group's dynamic configuration.
    Group = 8,
}

impl ConfigSource {
    /// The number on the wire.
    pub fn id(self) -> i8 {
        self as i8
    }
}

/// A value under one of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synonym {
    /// The name under which it was set.
    pub name: String,
    /// The value as it was set.
    pub value: Option<String>,
    /// Where.
    pub source: ConfigSource,
}

/// One configuration as it applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// Its name.
    pub name: String,
    /// Its value, in Kafka's canonical writing.
    pub value: Option<String>,
    /// Where the value comes from, as Kafka describes it.
    pub source: ConfigSource,
    /// Where the value really comes from. Kafka describes a value in hours or minutes as the
    /// default of its key in milliseconds.
    pub origin: ConfigSource,
    /// All values that were set for it, the one that applies first.
    pub synonyms: Vec<Synonym>,
}

/// The sources of a broker's configuration.
#[derive(Debug, Clone)]
pub struct BrokerSources<'a> {
    own: Arc<ConfigMap>,
    all: Arc<ConfigMap>,
    file: &'a Values,
}

impl<'a> BrokerSources<'a> {
    /// The sources of the broker `id`, whose properties file says `file`.
    pub fn new(image: &Image, id: BrokerId, file: &'a Values) -> Self {
        let config = |name: String| image.config(&ConfigResource::new(ResourceType::Broker, name));
        BrokerSources { own: config(id.to_string()), all: config(String::new()), file }
    }

    /// The dynamic configuration of all brokers.
    pub fn all_brokers(&self) -> &ConfigMap {
        &self.all
    }

    /// The dynamic configuration of this broker.
    pub fn this_broker(&self) -> &ConfigMap {
        &self.own
    }

    /// The names of all keys that somebody set for this broker.
    pub fn set_names(&self) -> BTreeSet<&str> {
        let dynamic = self.own.keys().chain(self.all.keys()).map(String::as_str);
        dynamic.chain(self.file.iter().map(|(name, _)| name)).collect()
    }

    /// What was set for `names`, by source and then in their order; defaults last.
    fn set_values(&self, names: &[&str]) -> Vec<Synonym> {
        let mut found = Vec::new();
        let mut add = |name: &str, value: Option<String>, source| {
            if value.is_some() {
                found.push(Synonym { name: name.to_owned(), value, source });
            }
        };
        for name in names {
            add(name, self.own.get(*name).cloned(), ConfigSource::Broker);
        }
        for name in names {
            add(name, self.all.get(*name).cloned(), ConfigSource::DefaultBroker);
        }
        for name in names {
            let given = self.file.given(name).map(|given| given.value.clone());
            add(name, given, ConfigSource::StaticBroker);
        }
        for name in names {
            let default = table::find(Scope::Broker, name).and_then(|key| key.default.text());
            add(name, default.map(str::to_owned), ConfigSource::Default);
        }
        found
    }

    /// A broker key as it applies. A key that the table does not know has a value only if the file
    /// or a dynamic configuration sets it.
    pub fn broker_key(&self, name: &str) -> Effective {
        let names = broker_synonyms(name);
        let synonyms = from_name(self.set_values(&names), name);
        let key = table::find(Scope::Broker, name);
        let set = synonyms.first();
        Effective {
            name: name.to_owned(),
            value: set.and_then(|set| canonical(key, set.value.as_deref()?)),
            source: set.map_or(ConfigSource::Default, |set| set.source),
            origin: set.map_or(ConfigSource::Default, |set| set.source),
            synonyms,
        }
    }

    /// A topic's key as it applies to a topic with these dynamic configurations.
    pub fn topic_key(&self, key: &Key, topic: &ConfigMap) -> Effective {
        let set = self.set_values(key.synonyms);
        let described = match key.synonyms.first() {
            Some(first) => from_name(set.clone(), first),
            None => Vec::new(),
        };
        self.own_or_broker(key, topic, ConfigSource::Topic, &set, described)
    }

    /// A group's key as it applies to a group with these dynamic configurations.
    pub fn group_key(&self, key: &Key, group: &ConfigMap) -> Effective {
        let broker_name = format!("group.{}", key.name);
        let mut set = self.set_values(&[&broker_name]);
        if set.is_empty() {
            set.push(Synonym {
                name: key.name.to_owned(),
                value: key.default.text().map(str::to_owned),
                source: ConfigSource::Default,
            });
        }
        self.own_or_broker(key, group, ConfigSource::Group, &set, set.clone())
    }

    fn own_or_broker(
        &self,
        key: &Key,
        own: &ConfigMap,
        own_source: ConfigSource,
        set: &[Synonym],
        mut synonyms: Vec<Synonym>,
    ) -> Effective {
        // Defaults of brokers are already the topic's and group's own.
        let broker = set.iter().find(|synonym| synonym.source < ConfigSource::Default);
        let value = match (own.get(key.name), broker) {
            (Some(value), _) => canonical(Some(key), value),
            (None, Some(synonym)) => synonym
                .value
                .as_deref()
                .and_then(|value| canonical(Some(key), &in_milliseconds(&synonym.name, value))),
            (None, None) => key.default.text().and_then(|text| canonical(Some(key), text)),
        };
        let mut origin = broker.map_or(ConfigSource::Default, |synonym| synonym.source);
        if own.contains_key(key.name) {
            origin = own_source;
            let own =
                Synonym { name: key.name.to_owned(), value: value.clone(), source: own_source };
            synonyms.insert(0, own);
        }
        let source = synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source);
        Effective { name: key.name.to_owned(), value, source, origin, synonyms }
    }
}

/// Names that stand in for another are described only from the one that was asked for on.
fn from_name(mut synonyms: Vec<Synonym>, name: &str) -> Vec<Synonym> {
    let start = synonyms.iter().position(|s| s.name == name).unwrap_or(synonyms.len());
    synonyms.drain(..start);
    synonyms
}

/// Broker keys that say the same in other units, and listeners' keys that override general ones.
fn broker_synonyms(name: &str) -> Vec<&str> {
    match name {
        "log.roll.ms" | "log.roll.hours" => vec!["log.roll.ms", "log.roll.hours"],
        "log.roll.jitter.ms" | "log.roll.jitter.hours" => {
            vec!["log.roll.jitter.ms", "log.roll.jitter.hours"]
        }
        "log.flush.interval.ms" => vec!["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        "log.retention.ms" | "log.retention.minutes" | "log.retention.hours" => {
            vec!["log.retention.ms", "log.retention.minutes", "log.retention.hours"]
        }
        _ => match overridden_by_listener(name) {
            Some(general) => vec![name, general],
            None => vec![name],
        },
    }
}

/// Keys that a listener overrides for each of its SASL mechanisms.
const MECHANISM_KEYS: [&str; 5] = [
    "sasl.jaas.config",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
    "sasl.server.callback.handler.class",
    "connections.max.reauth.ms",
];

/// The general key that `listener.name.<listener>.<key>` overrides, with the SASL mechanism before the key where
/// there is one.
pub fn overridden_by_listener(name: &str) -> Option<&str> {
    let (_, general) = name.strip_prefix("listener.name.")?.split_once('.')?;
    let of_mechanism = MECHANISM_KEYS.into_iter().find(|key| general.ends_with(key));
    Some(of_mechanism.unwrap_or(general))
}

/// A broker's hours or minutes as the topic's milliseconds; a negative number is no limit.
fn in_milliseconds(broker_key: &str, value: &str) -> String {
    let unit_ms = if broker_key.ends_with(".hours") {
        3_600_000
    } else if broker_key.ends_with(".minutes") {
        60_000
    } else {
        return value.to_owned();
    };
    match value.trim().parse::<i64>() {
        Ok(number) if number < 0 => "-1".to_owned(),
        Ok(number) => number.saturating_mul(unit_ms).to_string(),
        Err(_) => value.to_owned(),
    }
}

/// A value as Kafka writes it; what cannot be read stays as it is.
fn canonical(key: Option<&Key>, text: &str) -> Option<String> {
    let parsed = key.and_then(|key| value::parse_type(key.name, key.kind, text).ok());
    Some(parsed.map_or_else(|| text.to_owned(), |value| value.to_string()))
}
