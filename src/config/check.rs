//! Values of a file against each other, and what a file asks for that this release does not have.

use super::key::{self, Scope, Support};
use super::listeners::SecurityProtocol;
use super::{Config, ConfigError, Source, Voter, cordon, table, value};

/// Checks everything that one key alone does not show.
pub(super) fn all(config: &Config) -> Result<(), ConfigError> {
    every_value(config)?;
    listeners(config)?;
    quorum(config)?;
    sockets(config)?;
    other_limits(config)
}

/// Values of keys without a field are checked here, and keys that are refused found.
fn every_value(config: &Config) -> Result<(), ConfigError> {
    for (name, given) in config.values.iter() {
        let Some(key) = table::find(Scope::Broker, key::base_name(name)) else { continue };
        if let Support::Refused(reason) = key.support
            && given.source != Source::Ottla
            && Some(given.value.trim()) != key.default.text()
        {
            return Err(config.values.complaint(name, &format!("refused: {reason}")));
        }
        if !given.value.trim().is_empty() {
            value::parse(key, &given.value)
                .map_err(|message| ConfigError::of(key, given, &message))?;
        }
    }
    Ok(())
}

fn listeners(config: &Config) -> Result<(), ConfigError> {
    let listeners = &config.listeners;
    for listener in listeners.broker.iter().chain(&listeners.controller) {
        if listener.protocol != SecurityProtocol::Plaintext {
            let why = format!(
                "listener {} asks for {}, which this release does not speak (valid: PLAINTEXT)",
                listener.name,
                listener.protocol.name()
            );
            return Err(config.values.complaint("listeners", &why));
        }
    }
    if config.is_broker && listeners.broker.is_empty() {
        let why = "no listener for clients: all of them are in controller.listener.names";
        return Err(config.values.complaint("listeners", why));
    }
    Ok(())
}

/// A controller has a vote, another node has none and must be able to find those that have.
fn quorum(config: &Config) -> Result<(), ConfigError> {
    const VOTERS: &str = "controller.quorum.voters";
    let voters = &config.quorum_voters;
    let complain = |why: &str| Err(config.values.complaint(VOTERS, why));
    let has_vote = voters.iter().any(|voter| voter.id == config.node_id);
    if !config.is_controller {
        if voters.is_empty() && config.quorum_bootstrap_servers.is_empty() {
            return complain("a node without the 'controller' role needs it to find the quorum");
        }
        if has_vote {
            return complain(&format!(
                "If process.roles contains just the 'broker' role, the node id {} must not be included \
                 in the set of voters {VOTERS}=Set({})",
                config.node_id,
                ids(voters)
            ));
        }
        return Ok(());
    }
    let has_twin = |at: usize| voters[..at].iter().any(|other| other.id == voters[at].id);
    if let Some(twice) = (0..voters.len()).find(|at| has_twin(*at)) {
        return complain(&format!("voter {} is named twice", voters[twice].id));
    }
    if !voters.is_empty() && !has_vote {
        return complain(&format!(
            "If process.roles contains the 'controller' role, the node id {} must be included in the set \
             of voters {VOTERS}=Set({})",
            config.node_id,
            ids(voters)
        ));
    }
    let is_found_by_others =
        voters.len() > 1 || !config.is_broker || !config.quorum_bootstrap_servers.is_empty();
    if is_found_by_others && config.listeners.controller.is_empty() {
        let why = "no listener for the other nodes of the cluster: name one of the listeners here";
        return Err(config.values.complaint("controller.listener.names", why));
    }
    Ok(())
}

fn ids(voters: &[Voter]) -> String {
    voters.iter().map(|voter| voter.id.to_string()).collect::<Vec<_>>().join(", ")
}

fn sockets(config: &Config) -> Result<(), ConfigError> {
    let socket = &config.socket;
    let overrides = socket.max_connections_per_ip_overrides.trim();
    const OVERRIDES: &str = "max.connections.per.ip.overrides";
    for pair in overrides.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let count = pair.rsplit_once(':').and_then(|(_, count)| count.trim().parse::<i32>().ok());
        if count.is_none_or(|count| count < 0) {
            let why = format!("{pair} is not a pair of host and number (valid: HOST:COUNT,...)");
            return Err(config.values.complaint(OVERRIDES, &why));
        }
    }
    if socket.max_connections_per_ip == 0 && overrides.is_empty() {
        let why = format!(
            "max.connections.per.ip can be set to zero only if {OVERRIDES} property is set."
        );
        return Err(config.values.complaint("max.connections.per.ip", &why));
    }
    let queued = socket.queued_max_request_bytes;
    if queued > 0 && queued < i64::try_from(socket.request_max_bytes).unwrap_or(i64::MAX) {
        let why = "queued.max.request.bytes must be larger or equal to socket.request.max.bytes";
        return Err(config.values.complaint("queued.max.request.bytes", why));
    }
    Ok(())
}

fn other_limits(config: &Config) -> Result<(), ConfigError> {
    const CODEC: &str = "offsets.topic.compression.codec";
    if !(0..=4).contains(&config.offsets.topic_compression_codec) {
        let why = format!(
            "Unknown compression type id: {} (valid: [0,...,4])",
            config.offsets.topic_compression_codec
        );
        return Err(config.values.complaint(CODEC, &why));
    }
    if let Err((key, why)) = config.cleaner.check() {
        return Err(config.values.complaint(key, why));
    }
    let cordoned = config.logs.cordoned_dirs.join(",");
    if let Err(why) = cordon::cordoned(&cordoned, &config.log_dirs) {
        return Err(config.values.complaint(cordon::CORDONED_LOG_DIRS, &why));
    }
    let replication = &config.replication;
    if replication.fetch_wait_max_ms > replication.socket_timeout_ms {
        let why = "replica.socket.timeout.ms should always be at least replica.fetch.wait.max.ms \
                   to prevent unnecessary socket timeouts";
        return Err(config.values.complaint("replica.fetch.wait.max.ms", why));
    }
    Ok(())
}
