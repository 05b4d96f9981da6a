//! Configuration: one typed struct, a table of every key, and two readers (`server.properties` and toml).
//!
//! [`Config`] is what the broker was started with. What changes while it runs (dynamic broker, topic and group
//! configuration) lives in the metadata log; its rules are here, in [`table`], [`value`] and [`topic`], so that the
//! controller and the describers use the same ones. A leaf: every room may use it.
//!
//! Invariant: a [`Config`] that exists is valid; every value in it has passed its key's check.
//!
//! Source: Kafka's documentation, "Broker Configs"; KIP-226 (dynamic broker configuration).

mod check;
mod cleaner;
pub mod cordon;
mod error;
pub mod internal;
pub mod key;
pub mod listeners;
pub mod properties;
pub mod read;
pub mod shown;
pub mod table;
pub mod topic;
pub mod typed;
pub mod value;
pub mod values;

pub use error::ConfigError;
pub use key::{Key, Kind, Scope, Support, Update};
pub use listeners::{Listener, Listeners, SecurityProtocol};
pub use read::{Loaded, load};
pub use table::{all, find};
pub use topic::{Dynamic, Overrides, TopicConfig};
pub use typed::{
    CleanerConfig, GroupDefaults, LogHousekeeping, MetadataLogConfig, OffsetsConfig,
    ReplicationConfig, ShareStateConfig, SocketConfig, TopicDefaults, TransactionConfig,
};
pub use value::Value;
pub use values::{Given, Source, Values};

use std::path::PathBuf;
use values::typed;

/// A voter of `controller.quorum.voters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// Its node id.
    pub id: i32,
    /// Where it listens.
    pub host: String,
    /// Where it listens.
    pub port: u16,
}

/// What the broker was started with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `node.id`, or `broker.id`; 1 where neither is given.
    pub node_id: i32,
    /// Whether somebody chose the id; otherwise a formatted directory's own goes before it.
    pub is_node_id_given: bool,
    /// Whether this process has a broker.
    pub is_broker: bool,
    /// Whether this process has a controller.
    pub is_controller: bool,
    /// `ottla.cluster.id`: the cluster id to format an empty directory with.
    pub cluster_id: Option<String>,
    /// `broker.rack`
    pub rack: Option<String>,
    /// Where connections are taken and what clients are told.
    pub listeners: Listeners,
    /// `controller.quorum.voters`
    pub quorum_voters: Vec<Voter>,
    /// `controller.quorum.bootstrap.servers`
    pub quorum_bootstrap_servers: Vec<(String, u16)>,
    /// Whether those are the controller's listeners of this node, or nobody.
    pub is_own_bootstrap: bool,
    /// `controller.quorum.auto.join.enable`
    pub quorum_auto_join: bool,
    /// `zookeeper.connect`: where brokers of old files find each other.
    pub zookeeper_connect: Option<String>,
    /// Whether it alone says what the cluster is: there are neither roles nor voters nor servers to ask.
    pub is_meeting: bool,
    /// `log.dirs`, or `log.dir`; at least one.
    pub log_dirs: Vec<PathBuf>,
    /// `metadata.log.dir`, or the first of the log directories.
    pub metadata_log_dir: PathBuf,
    /// `ottla.log.level`
    pub log_level: String,
    /// Sockets, connections and threads.
    pub socket: SocketConfig,
    /// How topics come to be, and what requests may ask of them.
    pub topics: TopicDefaults,
    /// What the log room does on its own account.
    pub logs: LogHousekeeping,
    /// The log cleaner.
    pub cleaner: CleanerConfig,
    /// Committed offsets.
    pub offsets: OffsetsConfig,
    /// The group coordinator.
    pub groups: GroupDefaults,
    /// Transactions.
    pub transactions: TransactionConfig,
    /// The topic of share groups.
    pub share_state: ShareStateConfig,
    /// The metadata log.
    pub metadata_log: MetadataLogConfig,
    /// Copying between brokers.
    pub replication: ReplicationConfig,
    /// The same as it was given, key by key, for those who describe it.
    pub values: Values,
}

impl Config {
    /// The configuration of a start without a file: port 9092, `./ottla-data`.
    ///
    /// # Errors
    /// None unless the table is wrong.
    pub fn without_file() -> Result<Self, ConfigError> {
        let mut values = Values::default();
        add_own_choices(&mut values);
        Self::from_values(values)
    }

    /// Reads all fields out of the values and checks them against each other.
    ///
    /// # Errors
    /// The first value that is wrong, in one line.
    pub fn from_values(mut values: Values) -> Result<Self, ConfigError> {
        let quorum_voters = quorum_voters(&values)?;
        let quorum_bootstrap_servers = bootstrap_servers(&values)?;
        let listeners = Listeners::read(&values)?;
        let is_own_bootstrap = names_only(&listeners, &quorum_bootstrap_servers);
        let zookeeper_connect = typed::<Option<String>>(&values, "zookeeper.connect")?;
        let zookeeper_connect = zookeeper_connect.filter(|text| !text.trim().is_empty());
        let is_meeting = is_meeting(&values, &zookeeper_connect);
        if quorum_voters.len() <= 1 && is_own_bootstrap && !is_meeting {
            limit_replication_of_internal_topics(&mut values);
        }
        let (node_id, is_node_id_given) = node_id(&values)?;
        let roles: Vec<String> = typed(&values, "process.roles")?;
        let has_role = |role: &str| roles.is_empty() || roles.iter().any(|name| name == role);
        let log_dirs = log_dirs(&values)?;
        let metadata_log_dir = match typed::<Option<String>>(&values, "metadata.log.dir")? {
            Some(dir) => PathBuf::from(dir),
            None => log_dirs.first().cloned().unwrap_or_default(),
        };
        let config = Self {
            node_id,
            is_node_id_given,
            is_broker: has_role("broker"),
            is_controller: has_role("controller"),
            cluster_id: typed(&values, "ottla.cluster.id")?,
            rack: typed(&values, "broker.rack")?,
            listeners,
            quorum_voters,
            quorum_bootstrap_servers,
            is_own_bootstrap,
            quorum_auto_join: typed(&values, "controller.quorum.auto.join.enable")?,
            is_meeting,
            zookeeper_connect,
            log_dirs,
            metadata_log_dir,
            log_level: typed(&values, "ottla.log.level")?,
            socket: SocketConfig::read(&values)?,
            topics: TopicDefaults::read(&values)?,
            logs: LogHousekeeping::read(&values)?,
            cleaner: CleanerConfig::read(&values)?,
            offsets: OffsetsConfig::read(&values)?,
            groups: GroupDefaults::read(&values)?,
            transactions: TransactionConfig::read(&values)?,
            share_state: ShareStateConfig::read(&values)?,
            metadata_log: MetadataLogConfig::read(&values)?,
            replication: ReplicationConfig::read(&values)?,
            values,
        };
        topic::check_defaults(&config)?;
        check::all(&config)?;
        Ok(config)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::without_file().expect("the table's own defaults are valid, as a test shows")
    }
}

/// What a start without Kafka's own file differs in from Kafka's defaults.
fn add_own_choices(values: &mut Values) {
    if values.given("log.dir").is_none() {
        values.set_if_absent("log.dirs", "ottla-data", Source::Ottla);
    }
}

/// Keys that say what a cluster is, as Kafka has known them since KRaft.
const QUORUM: &[&str] =
    &["process.roles", "controller.quorum.voters", "controller.quorum.bootstrap.servers"];

fn is_meeting(values: &Values, zookeeper_connect: &Option<String>) -> bool {
    zookeeper_connect.is_some() && QUORUM.iter().all(|name| values.given(name).is_none())
}

/// Keys of internal topics that say how many brokers they need, which a lone broker does not have.
const INTERNAL_REPLICATION: &[&str] = &[
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "transaction.state.log.min.isr",
    "share.coordinator.state.topic.replication.factor",
    "share.coordinator.state.topic.min.isr",
];

/// The tutorials' files say nothing of internal topics: one broker must be enough for them.
fn limit_replication_of_internal_topics(values: &mut Values) {
    for name in INTERNAL_REPLICATION {
        values.set_if_absent(name, "1", Source::Ottla);
    }
}

fn node_id(values: &Values) -> Result<(i32, bool), ConfigError> {
    let node: Option<i32> = typed(values, "node.id")?;
    let broker: i32 = typed(values, "broker.id")?;
    match (node, broker) {
        (Some(node), -1) => Ok((node, true)),
        (Some(node), broker) if broker == node => Ok((node, true)),
        (Some(_), _) => Err(values
            .complaint("broker.id", "You must set `node.id` to the same value as `broker.id`.")),
        (None, broker) if broker >= 0 => Ok((broker, true)),
        (None, _) => Ok((1, false)),
    }
}

fn log_dirs(values: &Values) -> Result<Vec<PathBuf>, ConfigError> {
    let many: Vec<String> = typed(values, "log.dirs")?;
    let dirs = match many.is_empty() {
        true => typed(values, "log.dir")?,
        false => many,
    };
    if dirs.is_empty() {
        let why = "Configuration 'log.dirs' must not be empty. Valid values include: any \
                   non-empty value";
        return Err(values.complaint("log.dirs", why));
    }
    Ok(dirs.into_iter().map(PathBuf::from).collect())
}

fn bootstrap_servers(values: &Values) -> Result<Vec<(String, u16)>, ConfigError> {
    const NAME: &str = "controller.quorum.bootstrap.servers";
    let texts: Vec<String> = typed(values, NAME)?;
    let parse = |text: &String| {
        host_and_port(text).ok_or_else(|| {
            values.complaint(NAME, &format!("{text} is no address (valid: HOST:PORT,...)"))
        })
    };
    texts.iter().map(parse).collect()
}

/// Whether the servers are the controller's listeners of this node alone.
fn names_only(listeners: &Listeners, servers: &[(String, u16)]) -> bool {
    let is_here = |listener: &Listener, (host, port): &(String, u16)| {
        let hosts = [listener.host.as_str(), "localhost", "127.0.0.1", "::1"];
        listener.port == *port && hosts.contains(&host.as_str())
    };
    let is_own = |server| listeners.controller.iter().any(|listener| is_here(listener, server));
    servers.iter().all(is_own)
}

/// `host:port`, the host perhaps in brackets.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), port.parse().ok()?))
}

fn quorum_voters(values: &Values) -> Result<Vec<Voter>, ConfigError> {
    const NAME: &str = "controller.quorum.voters";
    let parse = |text: &str| {
        let (id, address) = text.split_once('@')?;
        let (host, port) = host_and_port(address)?;
        Some(Voter { id: id.parse().ok()?, host, port })
    };
    let texts: Vec<String> = typed(values, NAME)?;
    texts
        .iter()
        .map(|text| {
            parse(text).ok_or_else(|| {
                let why = format!(
                    "Invalid configuration value for {NAME}. Each entry should be in the form \
                     `{{id}}@{{host}}:{{port}}`."
                );
                values.complaint(NAME, &why)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
