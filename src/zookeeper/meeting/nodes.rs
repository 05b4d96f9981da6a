//! What brokers write where they meet, as Kafka with ZooKeeper wrote it.
//!
//! Source: Kafka's `ZkData`, whose names and versions these are.

use serde_json::{Value, json};

/// Registered brokers, below the chroot.
pub(super) const IDS: &str = "/brokers/ids";
/// The cluster's id.
pub(super) const CLUSTER_ID: &str = "/cluster/id";
/// The active controller.
pub(super) const CONTROLLER: &str = "/controller";
/// Nodes that are always there.
pub(super) const ROOTS: [&str; 4] = ["/brokers", IDS, "/brokers/topics", "/cluster"];
/// The version of a broker's node: that of Kafka 2.7 to 3.9.
const BROKER_VERSION: i32 = 5;

/// Host and port.
pub type Address = (String, u16);

/// `zookeeper.connect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectString {
    /// Where brokers meet, the first before the others.
    pub servers: Vec<Address>,
    /// Below which node the cluster's are; empty for the root.
    pub chroot: String,
}

/// ZooKeeper's port, where none is said.
const PORT: u16 = 2181;

impl ConnectString {
    /// `HOST[:PORT][,HOST[:PORT]]...[/chroot]`.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn parse(text: &str) -> Result<ConnectString, String> {
        let (servers, chroot) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let server = |text: &str| {
            let text = text.trim();
            let (host, port) = match text.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                    (host, port.parse().map_err(|_| format!("{port} is no port"))?)
                }
                _ => (text, PORT),
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            if host.is_empty() {
                return Err("a host is missing".to_owned());
            }
            Ok((host.to_owned(), port))
        };
        let servers = servers.split(',').map(server).collect::<Result<_, _>>()?;
        Ok(ConnectString { servers, chroot: chroot.trim().trim_end_matches('/').to_owned() })
    }
}

/// A listener in a broker's node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub listener: String,
    /// Its security protocol's name.
    pub protocol: &'static str,
    /// Where others reach it.
    pub host: String,
    /// Where others reach it.
    pub port: u16,
}

/// The content of a broker's node, of `timestamp_ms` since 1970.
pub(super) fn broker(endpoints: &[Endpoint], rack: Option<&str>, timestamp_ms: i64) -> Vec<u8> {
    let text = |it: &Endpoint| match it.host.contains(':') {
        true => format!("{}://[{}]:{}", it.listener, it.host, it.port),
        false => format!("{}://{}:{}", it.listener, it.host, it.port),
    };
    let protocols = endpoints.iter().map(|it| (it.listener.clone(), Value::from(it.protocol)));
    // Clients of before 0.9 know no other listener than this one.
    let plain = endpoints.iter().find(|it| it.protocol == "PLAINTEXT");
    let mut node = json!({
        "version": BROKER_VERSION,
        "host": plain.map(|it| it.host.as_str()),
        "port": plain.map_or(-1, |it| i32::from(it.port)),
        "jmx_port": -1,
        "timestamp": timestamp_ms.to_string(),
        "endpoints": endpoints.iter().map(text).collect::<Vec<_>>(),
        "listener_security_protocol_map": protocols.collect::<serde_json::Map<_, _>>(),
        "features": {},
    });
    if let (Some(rack), Some(fields)) = (rack, node.as_object_mut()) {
        fields.insert("rack".to_owned(), Value::from(rack));
    }
    node.to_string().into_bytes()
}

/// Where the broker listens that wrote this: at its first endpoint.
pub(super) fn broker_address(node: &[u8]) -> Option<Address> {
    let node: Value = serde_json::from_slice(node).ok()?;
    let endpoints = node.get("endpoints").and_then(Value::as_array);
    if let Some(first) = endpoints.and_then(|all| all.first()?.as_str()) {
        let (host, port) = first.split_once("://")?.1.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        return Some((host.to_owned(), port.parse().ok()?));
    }
    let port = u16::try_from(node.get("port")?.as_i64()?).ok()?;
    Some((node.get("host")?.as_str()?.to_owned(), port))
}

/// The content of the cluster's node.
pub(super) fn cluster(id: &str) -> Vec<u8> {
    json!({"version": "1", "id": id}).to_string().into_bytes()
}

/// The id in it.
pub(super) fn cluster_id(node: &[u8]) -> Option<String> {
    let node: Value = serde_json::from_slice(node).ok()?;
    node.get("id")?.as_str().map(str::to_owned)
}

/// The content of the controller's node.
pub(super) fn controller(node_id: i32, timestamp_ms: i64) -> Vec<u8> {
    let timestamp = timestamp_ms.to_string();
    json!({"version": 1, "brokerid": node_id, "timestamp": timestamp}).to_string().into_bytes()
}

/// The id in it.
pub(super) fn controller_id(node: &[u8]) -> Option<i32> {
    let node: Value = serde_json::from_slice(node).ok()?;
    i32::try_from(node.get("brokerid")?.as_i64()?).ok()
}

#[cfg(test)]
mod tests;
