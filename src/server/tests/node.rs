//! Whole nodes of one process, over loopback.

use super::*;
use crate::broker::{AdvertisedListener, StartError};
use crate::config::{Source, Values};
use crate::env::Disk;
use std::path::PathBuf;
use std::time::Duration;

/// No wait of these tests may take longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Node {
    pub(super) broker: Arc<Broker>,
    pub(super) server: Server,
}

impl Node {
    /// Opens a node, which has yet to join its cluster; clients are not let in.
    pub(super) async fn open(
        settings: broker::Settings,
        disk: Arc<dyn Disk>,
        controller: Option<BoundListener>,
    ) -> Result<Node, StartError> {
        let broker = Broker::open(settings, disk, Arc::new(SystemClock)).await?;
        let config = Config::without_file().unwrap();
        let (limits, settings) =
            (Limits::from_config(&config), Settings::from_config(&config, root_logger()));
        let first = controller.into_iter().collect();
        let server = Server::start(Arc::clone(&broker), limits, settings, first);
        Ok(Node { broker, server })
    }

    pub(super) async fn join(&self) -> Result<(), StartError> {
        tokio::time::timeout(PATIENCE, self.broker.join()).await.unwrap()
    }
}

/// Of a node that listens on these ports: for clients and, if it is a controller too, for nodes.
pub(super) fn node_settings(
    id: i32,
    dirs: &[PathBuf],
    (client, controller): (u16, Option<u16>),
    more: &[(&str, &str)],
) -> broker::Settings {
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{client}");
    let mut bound = vec![("PLAINTEXT", client)];
    if let Some(port) = controller {
        listeners.push_str(&format!(",CONTROLLER://127.0.0.1:{port}"));
        bound.push(("CONTROLLER", port));
    }
    let mut values = Values::default();
    let dirs: Vec<&str> = dirs.iter().filter_map(|dir| dir.to_str()).collect();
    for (key, value) in [
        ("log.dirs", dirs.join(",").as_str()),
        ("process.roles", if controller.is_some() { "broker,controller" } else { "broker" }),
        ("node.id", &id.to_string()),
        ("listeners", &listeners),
        ("controller.listener.names", "CONTROLLER"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"),
        // A few topics are enough for a snapshot.
        ("metadata.log.max.record.bytes.between.snapshots", "2000"),
    ]
    .iter()
    .chain(more)
    {
        values.set(key, value, Source::Override);
    }
    let bound = bound.into_iter().map(|(name, port)| AdvertisedListener {
        name: name.to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
        security_protocol: 0,
    });
    let config = Config::from_values(values).unwrap();
    broker::Settings::new(Arc::new(config), &bound.collect::<Vec<_>>())
}
