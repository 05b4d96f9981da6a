//! DescribeConfigs (api key 32), versions 1-4: configurations with where they come from (KIP-133).
//!
//! - v1: sources and synonyms (KIP-226). - v3: types and documentation (KIP-569). - v4: flexible.
//!
//! Known differences from Kafka: a broker has one logger, `root`; keys that only Kafka 4.4.0 knows
//! are described only where they are set.

use super::RequestContext;
use super::admin::broker_sources;
use crate::broker::effective::{
    BrokerSources, ConfigSource, Effective, Synonym, overridden_by_listener,
};
use crate::broker::image::ConfigMap;
use crate::broker::{ApiError, ConfigResource, Image, ResourceType, validate_topic_name};
use crate::config::{Key, Scope, Update, table};
use crate::server::RootLogger;
use ottla_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ottla_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use ottla_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use ottla_protocol::{BrokerId, ErrorCode};
use std::collections::BTreeSet;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let image = ctx.broker.image();
    let describer = Describer {
        image: &image,
        sources: broker_sources(ctx, &image),
        node_id: ctx.broker.node_id(),
        root_logger: &ctx.shared.settings.root_logger,
        include_synonyms: request.include_synonyms,
        include_documentation: request.include_documentation,
    };
    let results = request.resources.iter().map(|resource| describer.describe(resource)).collect();
    DescribeConfigsResponse { results, ..Default::default() }
}

struct Describer<'a> {
    image: &'a Image,
    sources: BrokerSources<'a>,
    node_id: BrokerId,
    root_logger: &'a RootLogger,
    include_synonyms: bool,
    include_documentation: bool,
}

type Entries = Vec<DescribeConfigsResourceResult>;

impl Describer<'_> {
    fn describe(&self, resource: &DescribeConfigsResource) -> DescribeConfigsResult {
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        };
        match self.entries(resource) {
            Ok(mut entries) => {
                if let Some(keys) = &resource.configuration_keys
                    && !keys.is_empty()
                    // Subscriptions are described whole, whatever is asked for.
                    && resource.resource_type != ResourceType::ClientMetrics.id()
                {
                    entries.retain(|entry| keys.contains(&entry.name));
                }
                result.configs = entries;
            }
            Err(error) => {
                result.error_code = error.code.code();
                result.error_message = error.message;
            }
        }
        result
    }

    fn entries(&self, resource: &DescribeConfigsResource) -> Result<Entries, ApiError> {
        let name = resource.resource_name.as_str();
        let Some(kind) = ResourceType::from_id(resource.resource_type) else {
            let text =
                format!("Unexpected resource type {} for resource {name}", resource.resource_type);
            return Err(ApiError::new(ErrorCode::InvalidRequest, text));
        };
        match kind {
            ResourceType::Topic => self.topic(name),
            ResourceType::Broker if name.is_empty() => Ok(self.all_brokers()),
            ResourceType::Broker => {
                self.check_broker_id(name, " or empty string,")?;
                Ok(self.broker())
            }
            ResourceType::BrokerLogger if name.is_empty() => {
                Err(invalid("Broker id must not be empty"))
            }
            ResourceType::BrokerLogger => {
                self.check_broker_id(name, "")?;
                Ok(vec![root_logger(self.root_logger)])
            }
            ResourceType::ClientMetrics if name.is_empty() => {
                Err(invalid("Client metrics subscription name must not be empty"))
            }
            ResourceType::ClientMetrics => Ok(self.client_metrics(name)),
            ResourceType::Group if name.is_empty() => Err(invalid("Group name must not be empty")),
            ResourceType::Group => Ok(self.group(name)),
        }
    }

    fn check_broker_id(&self, name: &str, or: &str) -> Result<(), ApiError> {
        let id: i32 = name
            .parse()
            .map_err(|_| invalid(format!("Broker id must be an integer, but it is: {name}")))?;
        if id == self.node_id.0 {
            return Ok(());
        }
        let id = self.node_id;
        Err(invalid(format!("Unexpected broker id, expected {id}{or} but received {name}")))
    }

    fn topic(&self, name: &str) -> Result<Entries, ApiError> {
        validate_topic_name(name)
            .map_err(|text| ApiError::new(ErrorCode::InvalidTopicException, text))?;
        if self.image.topics.get(name).is_none() {
            // Kafka sends an empty text here.
            return Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, ""));
        }
        let own = self.image.config(&ConfigResource::new(ResourceType::Topic, name));
        let keys = described_keys(Scope::Topic, |key| own.contains_key(key));
        Ok(keys.map(|key| self.entry(Some(key), self.sources.topic_key(key, &own))).collect())
    }

    fn group(&self, name: &str) -> Entries {
        let own = self.image.config(&ConfigResource::new(ResourceType::Group, name));
        let keys = described_keys(Scope::Group, |key| own.contains_key(key));
        keys.map(|key| self.entry(Some(key), self.sources.group_key(key, &own))).collect()
    }

    fn broker(&self) -> Entries {
        let set = self.sources.set_names();
        let known = described_keys(Scope::Broker, |key| set.contains(key)).map(|key| key.name);
        let names: BTreeSet<&str> = known.chain(set.iter().copied()).collect();
        names
            .into_iter()
            .map(|name| {
                let key = broker_key(name);
                let mut entry = self.entry(key, self.sources.broker_key(name));
                // A listener's override is none of the keys that Kafka lists as dynamic.
                entry.read_only |= key.is_some_and(|key| key.name != name);
                entry
            })
            .collect()
    }

    fn all_brokers(&self) -> Entries {
        self.sources
            .all_brokers()
            .iter()
            .map(|(name, value)| {
                let mut effective = self.sources.broker_key(name);
                effective.synonyms.retain(|set| set.source == ConfigSource::DefaultBroker);
                effective.value = Some(value.clone());
                effective.source = ConfigSource::DefaultBroker;
                self.entry(broker_key(name), effective)
            })
            .collect()
    }

    fn client_metrics(&self, name: &str) -> Entries {
        let own = self.image.config(&ConfigResource::new(ResourceType::ClientMetrics, name));
        let keys = described_keys(Scope::ClientMetrics, |key| own.contains_key(key));
        keys.map(|key| self.entry(Some(key), subscription_key(key, &own))).collect()
    }

    /// What nobody knows may be a secret.
    fn entry(&self, key: Option<&Key>, effective: Effective) -> DescribeConfigsResourceResult {
        let is_sensitive = key.is_none_or(Key::is_sensitive);
        let shown = |value: Option<String>| value.filter(|_| !is_sensitive);
        let synonyms = match self.include_synonyms {
            true => effective.synonyms,
            false => Vec::new(),
        };
        let of_broker = |key: &Key| key.scope == Scope::Broker && key.update == Update::ReadOnly;
        DescribeConfigsResourceResult {
            name: effective.name,
            value: shown(effective.value),
            read_only: key.is_none_or(of_broker),
            config_source: effective.source.id(),
            is_sensitive,
            synonyms: synonyms
                .into_iter()
                .map(|synonym| DescribeConfigsSynonym {
                    name: synonym.name,
                    value: shown(synonym.value),
                    source: synonym.source.id(),
                })
                .collect(),
            config_type: key.map_or(0, |key| key.kind.wire_id()),
            documentation: key
                .filter(|_| self.include_documentation)
                .map(|key| key.documentation.to_owned()),
        }
    }
}

/// The keys that Kafka 4.3.1 describes, and those that are set.
fn described_keys(
    scope: Scope,
    is_set: impl Fn(&str) -> bool,
) -> impl Iterator<Item = &'static Key> {
    table::all(scope)
        .filter(move |key| !key.is_internal && key.since.is_empty() || is_set(key.name))
}

/// The key that says what a broker's configuration is: its own, or the general one that a listener overrides.
fn broker_key(name: &str) -> Option<&'static Key> {
    let general = || table::find(Scope::Broker, overridden_by_listener(name)?);
    table::find(Scope::Broker, name).or_else(|| table::throttle(name)).or_else(general)
}

/// A key of a client metrics subscription as it applies.
fn subscription_key(key: &Key, own: &ConfigMap) -> Effective {
    let set = own.get(key.name).cloned();
    let source = match set {
        Some(_) => ConfigSource::ClientMetrics,
        None => ConfigSource::Default,
    };
    let synonym = |value| Synonym { name: key.name.to_owned(), value: Some(value), source };
    Effective {
        name: key.name.to_owned(),
        value: set.clone().or_else(|| key.default.text().map(str::to_owned)),
        source,
        origin: source,
        synonyms: set.map(synonym).into_iter().collect(),
    }
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, text)
}

/// The one logger that can be set.
fn root_logger(logger: &RootLogger) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name: RootLogger::NAME.to_owned(),
        value: Some(logger.level()),
        config_source: ConfigSource::BrokerLogger.id(),
        ..Default::default()
    }
}
