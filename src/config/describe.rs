//! What DescribeConfigs answers: each value with its source and the synonyms that stand behind it.
//!
//! Source: KIP-226 (sources and synonyms), KIP-569 (types and documentation).

use super::key::{Key, Scope, Update};
use super::rules;
use super::topic::{self, Dynamic, Overrides};
use super::{Config, Source, table};

/// Where a described value comes from; the numbers are those of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum ConfigSource {
    /// An override of the topic.
    DynamicTopic = 1,
    /// Set for this broker while it ran.
    DynamicBroker = 2,
    /// Set for all brokers while they ran.
    DynamicDefaultBroker = 3,
    /// From the broker's file.
    StaticBroker = 4,
    /// Nobody set it.
    Default = 5,
    /// A value of a client metrics subscription.
    ClientMetrics = 7,
    /// An override of the group.
    Group = 8,
}

/// A name and value that stand behind a described value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synonym {
    /// The key.
    pub name: String,
    /// Its text; none where it is never shown.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
}

/// One described value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The key.
    pub name: String,
    /// Its text; none where it has none or is never shown.
    pub value: Option<String>,
    /// Whether it can change only by a restart.
    pub is_read_only: bool,
    /// Where it comes from.
    pub source: ConfigSource,
    /// Whether it is never shown.
    pub is_sensitive: bool,
    /// What stands behind it, the first being what applies.
    pub synonyms: Vec<Synonym>,
    /// The protocol's number for its type.
    pub kind: i8,
    /// What it is.
    pub documentation: &'static str,
}

/// Whether a describer that asks for everything sees the key: one that 4.3.1 does not know only where it is set.
fn is_listed(key: &Key, is_set: bool) -> bool {
    !key.is_internal && (key.since.is_empty() || is_set)
}

fn is_wanted(name: &str, wanted: Option<&[String]>) -> bool {
    wanted.is_none_or(|names| names.iter().any(|wanted| wanted == name))
}

/// The keys of a topic, of all names or of those that are wanted.
pub fn describe_topic(
    config: &Config,
    dynamic: Dynamic<'_>,
    overrides: &Overrides,
    wanted: Option<&[String]>,
) -> Vec<Described> {
    let shows = |key: &&Key| match wanted {
        Some(_) => is_wanted(key.name, wanted),
        None => is_listed(key, overrides.contains_key(key.name)),
    };
    let describe = |key: &'static Key| {
        let value = topic::effective(key, config, dynamic, overrides).ok().flatten();
        let value = value.map(|value| value.to_string());
        let mut synonyms = match key.synonyms.first() {
            Some(first) => broker_synonyms(config, dynamic, first, key),
            None => Vec::new(),
        };
        if overrides.contains_key(key.name) {
            let own = Synonym {
                name: key.name.to_owned(),
                value: value.clone(),
                source: ConfigSource::DynamicTopic,
            };
            synonyms.insert(0, own);
        }
        described(key, key.name, value, synonyms, false)
    };
    table::all(Scope::Topic).filter(shows).map(describe).collect()
}

/// The keys of a broker.
pub fn describe_broker(
    config: &Config,
    dynamic: Dynamic<'_>,
    wanted: Option<&[String]>,
) -> Vec<Described> {
    let is_set = |key: &Key| {
        config.values.given(key.name).is_some_and(|given| given.source != Source::Ottla)
            || dynamic.text(config, key.name) != config.values.text(key.name)
    };
    let shows = |key: &&Key| match wanted {
        Some(_) => is_wanted(key.name, wanted),
        None => is_listed(key, is_set(key)),
    };
    let describe = |key: &'static Key| {
        let value = dynamic.value(config, key.name).map(|value| value.to_string());
        let synonyms = broker_synonyms(config, dynamic, key.name, key);
        described(key, key.name, value, synonyms, key.update == Update::ReadOnly)
    };
    let mut all: Vec<Described> = table::all(Scope::Broker).filter(shows).map(describe).collect();
    all.extend(describe_others(config, dynamic, wanted));
    all
}

/// Names that the table does not have but somebody set: listener overrides and the unknown. Never shown, as nobody
/// knows whether they are secrets.
fn describe_others(
    config: &Config,
    dynamic: Dynamic<'_>,
    wanted: Option<&[String]>,
) -> Vec<Described> {
    let statics = config.values.iter().map(|(name, _)| (name, ConfigSource::StaticBroker));
    let clusters =
        dynamic.cluster.keys().map(|name| (name.as_str(), ConfigSource::DynamicDefaultBroker));
    let brokers = dynamic.broker.keys().map(|name| (name.as_str(), ConfigSource::DynamicBroker));
    let mut others = std::collections::BTreeMap::new();
    others.extend(statics.chain(clusters).chain(brokers));
    let known = |name: &str| table::find(Scope::Broker, name).is_some_and(|key| key.gone.is_none());
    let unknown = others.into_iter().filter(|(name, _)| !known(name) && is_wanted(name, wanted));
    unknown
        .map(|(name, source)| Described {
            name: name.to_owned(),
            value: None,
            is_read_only: rules::base_name(name) == name,
            source,
            is_sensitive: true,
            synonyms: vec![Synonym { name: name.to_owned(), value: None, source }],
            kind: 0,
            documentation: "",
        })
        .collect()
}

/// What was set for all brokers of the cluster, and nothing else.
pub fn describe_cluster_default(cluster: &Overrides, wanted: Option<&[String]>) -> Vec<Described> {
    let source = ConfigSource::DynamicDefaultBroker;
    let names = cluster.iter().filter(|(name, _)| is_wanted(name, wanted));
    let describe = |(name, text): (&String, &String)| {
        let key = table::find(Scope::Broker, rules::base_name(name));
        let is_sensitive = key.is_none_or(Key::is_sensitive);
        let value = (!is_sensitive).then(|| text.clone());
        Described {
            name: name.clone(),
            value: value.clone(),
            is_read_only: key.is_some_and(|key| key.update == Update::ReadOnly),
            source,
            is_sensitive,
            synonyms: vec![Synonym { name: name.clone(), value, source }],
            kind: key.map_or(0, |key| key.kind.wire_id()),
            documentation: key.map_or("", |key| key.documentation),
        }
    };
    names.map(describe).collect()
}

/// The keys of a group.
pub fn describe_group(
    config: &Config,
    dynamic: Dynamic<'_>,
    overrides: &Overrides,
    wanted: Option<&[String]>,
) -> Vec<Described> {
    let shows = |key: &&Key| match wanted {
        Some(_) => is_wanted(key.name, wanted),
        None => is_listed(key, overrides.contains_key(key.name)),
    };
    let describe = |key: &'static Key| {
        let value = rules::group_value(key.name, config, dynamic, overrides).ok().flatten();
        let value = value.map(|value| value.to_string());
        let synonyms = match overrides.contains_key(key.name) {
            true => vec![Synonym {
                name: key.name.to_owned(),
                value: value.clone(),
                source: ConfigSource::Group,
            }],
            false => Vec::new(),
        };
        described(key, key.name, value, synonyms, false)
    };
    table::all(Scope::Group).filter(shows).map(describe).collect()
}

/// The keys of a client metrics subscription.
pub fn describe_client_metrics(overrides: &Overrides, wanted: Option<&[String]>) -> Vec<Described> {
    let describe = |key: &'static Key| {
        let given = overrides.get(key.name).cloned();
        let synonyms = match &given {
            Some(_) => vec![Synonym {
                name: key.name.to_owned(),
                value: given.clone(),
                source: ConfigSource::ClientMetrics,
            }],
            None => Vec::new(),
        };
        let value = given.or_else(|| key.default.text().map(str::to_owned));
        described(key, key.name, value, synonyms, false)
    };
    let shows = |key: &&Key| is_wanted(key.name, wanted);
    table::all(Scope::ClientMetrics).filter(shows).map(describe).collect()
}

fn described(
    key: &'static Key,
    name: &str,
    value: Option<String>,
    synonyms: Vec<Synonym>,
    is_read_only: bool,
) -> Described {
    Described {
        name: name.to_owned(),
        value: value.filter(|_| !key.is_sensitive()),
        is_read_only,
        source: synonyms.first().map_or(ConfigSource::Default, |first| first.source),
        is_sensitive: key.is_sensitive(),
        synonyms,
        kind: key.kind.wire_id(),
        documentation: key.documentation,
    }
}

/// Broker keys that say the same in different units, the most specific first.
const FAMILIES: &[&[&str]] = &[
    &["log.roll.ms", "log.roll.hours"],
    &["log.roll.jitter.ms", "log.roll.jitter.hours"],
    &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
];

/// The names that stand behind a broker key, itself included.
fn family(name: &str) -> Vec<&str> {
    match FAMILIES.iter().find(|family| family.contains(&name)) {
        Some(family) => family.to_vec(),
        None if name == "log.flush.interval.ms" => {
            vec!["log.flush.interval.ms", "log.flush.scheduler.interval.ms"]
        }
        None => vec![name],
    }
}

/// What was set for a broker key or its family, level by level, from its own name's first place on.
fn broker_synonyms(config: &Config, dynamic: Dynamic<'_>, name: &str, shown: &Key) -> Vec<Synonym> {
    let names = family(name);
    let mut synonyms = Vec::new();
    let mut add = |name: &str, value: Option<&str>, source: ConfigSource| {
        if let Some(value) = value {
            let value = (!shown.is_sensitive()).then(|| value.to_owned());
            synonyms.push(Synonym { name: name.to_owned(), value, source });
        }
    };
    for name in &names {
        let value = dynamic.broker.get(*name).map(String::as_str);
        add(name, value, ConfigSource::DynamicBroker);
    }
    for name in &names {
        let value = dynamic.cluster.get(*name).map(String::as_str);
        add(name, value, ConfigSource::DynamicDefaultBroker);
    }
    for name in &names {
        let value = config.values.given(name).map(|given| given.value.as_str());
        add(name, value, ConfigSource::StaticBroker);
    }
    for name in &names {
        let default = table::find(Scope::Broker, name).and_then(|key| key.default.text());
        add(name, default, ConfigSource::Default);
    }
    synonyms.into_iter().skip_while(|synonym| synonym.name != name).collect()
}
