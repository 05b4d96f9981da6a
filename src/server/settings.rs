//! What this room takes from the configuration.

use super::RootLogger;
use super::listener::{Advertised, ListenerParams};
use crate::config::{Config, Listener, internal};
use crate::env::net::ListenOptions;
use ottla_protocol::apis::ListenerType;
use ottla_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What bounds connections and their requests.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`; `None` never closes.
    pub idle_max: Option<Duration>,
    /// `max.connections` of the broker.
    pub connections_max: usize,
    /// `max.connections.per.ip`.
    pub connections_per_ip_max: usize,
    /// `max.connections.per.ip.overrides`: (host, connections).
    pub connections_per_ip_overrides: Vec<(IpAddr, usize)>,
}

impl Limits {
    /// As configured.
    pub fn from_config(config: &Config) -> Limits {
        let socket = &config.socket;
        let count = |number: i32| usize::try_from(number).unwrap_or_default();
        Limits {
            request_bytes_max: socket.request_max_bytes,
            idle_max: u64::try_from(socket.connections_max_idle_ms).ok().map(Duration::from_millis),
            connections_max: count(socket.max_connections),
            connections_per_ip_max: count(socket.max_connections_per_ip),
            connections_per_ip_overrides: overrides(&socket.max_connections_per_ip_overrides),
        }
    }
}

/// `host:connections` pairs between commas. An entry whose host is no address is left out: names are not resolved here.
fn overrides(text: &str) -> Vec<(IpAddr, usize)> {
    let pairs = text.split(',').filter_map(|pair| pair.trim().rsplit_once(':'));
    pairs.filter_map(|(host, count)| Some((host.parse().ok()?, count.parse().ok()?))).collect()
}

/// What handlers take from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `fetch.max.bytes`.
    pub fetch_max_bytes: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_session_slots: usize,
    /// `replica.selector.class` chooses by rack (KIP-392).
    pub is_rack_aware: bool,
    /// `auto.create.topics.enable`.
    pub auto_create_topics_enable: bool,
    /// Internal topics get no more replicas than there are brokers: in a cluster whose brokers come one by one the
    /// first client must not have to wait for the third, as in Kafka before 0.11 (KIP-115).
    pub is_replication_capped: bool,
    /// How internal topics are created: partitions, replication factor, configuration.
    pub internal_topics: Vec<CreatableTopic>,
    /// Sets the level that the process logs at.
    pub root_logger: Arc<RootLogger>,
}

impl Settings {
    /// As configured.
    pub fn from_config(config: &Config, root_logger: Arc<RootLogger>) -> Settings {
        let topics = &config.topics;
        Settings {
            fetch_max_bytes: usize::try_from(topics.fetch_max_bytes).unwrap_or_default(),
            fetch_session_slots: topics.fetch_session_cache_slots,
            is_rack_aware: is_rack_aware(config),
            auto_create_topics_enable: topics.auto_create_topics_enable,
            is_replication_capped: config.is_meeting,
            internal_topics: internal_topics(config),
            root_logger,
        }
    }
}

/// Kafka's own selector alone can be had: classes of others cannot be loaded.
fn is_rack_aware(config: &Config) -> bool {
    let class = config.values.get("replica.selector.class").ok().flatten();
    class.is_some_and(|class| {
        class.to_string() == "org.apache.kafka.common.replica.RackAwareReplicaSelector"
    })
}

fn internal_topics(from: &Config) -> Vec<CreatableTopic> {
    let config = |(name, value): (&'static str, String)| CreatableTopicConfig {
        name: name.to_owned(),
        value: Some(value),
    };
    let topics = internal::topics(from).into_iter();
    topics
        .map(|topic| CreatableTopic {
            name: topic.name.to_owned(),
            num_partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            configs: topic.configs.into_iter().map(config).collect(),
            ..Default::default()
        })
        .collect()
}

/// Every listener of the configuration, the broker's before the controller's.
pub fn listeners(config: &Config) -> Vec<ListenerParams> {
    let listeners = &config.listeners;
    let broker = listeners.broker.iter().map(|one| (one, ListenerType::Broker));
    let controller = listeners.controller.iter().map(|one| (one, ListenerType::Controller));
    broker.chain(controller).map(|(one, kind)| listener(config, one, kind)).collect()
}

fn listener(config: &Config, listener: &Listener, listener_type: ListenerType) -> ListenerParams {
    let socket = &config.socket;
    // -1 leaves the size to the system, and so does saying nothing. With Kafka's default the window is so small that
    // producers stall on it, and a fetch of 1 MB waits four times: the broker pays for both (0002-hot-path).
    let bytes = |name: &str, bytes: i32| {
        let given = config.values.given(name).map(|_| bytes);
        given.and_then(|bytes| u32::try_from(bytes).ok()).filter(|bytes| *bytes > 0)
    };
    let is_named = config.listeners.advertised.iter().any(|one| one.name == listener.name);
    ListenerParams {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: listener.port,
        listener_type,
        is_shared: config.is_meeting && config.listeners.controller.is_empty(),
        advertised: if is_named { Advertised::AsRegistered } else { Advertised::AsDialled },
        options: ListenOptions {
            backlog: socket.listen_backlog_size,
            receive_buffer_bytes: bytes("socket.receive.buffer.bytes", socket.receive_buffer_bytes),
            send_buffer_bytes: bytes("socket.send.buffer.bytes", socket.send_buffer_bytes),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Values;
    use crate::config::values::Source;

    #[test]
    fn buffers_are_the_systems_unless_somebody_sets_them() {
        let check = |given: Option<&str>, expected: Option<u32>| {
            let mut values = Values::default();
            if let Some(bytes) = given {
                values.set("socket.receive.buffer.bytes", bytes, Source::Override);
                values.set("socket.send.buffer.bytes", bytes, Source::Override);
            }
            let config = Config::from_values(values).unwrap();
            let options = listeners(&config)[0].options;
            assert_eq!(
                (options.receive_buffer_bytes, options.send_buffer_bytes),
                (expected, expected)
            );
        };
        check(None, None);
        check(Some("102400"), Some(102_400));
        check(Some("-1"), None);
    }
}
