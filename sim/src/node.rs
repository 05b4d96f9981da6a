//! One process of a node: the broker and its server, as `ottla start` puts them together.

use ottla::broker::{AdvertisedListener, Broker, Settings};
use ottla::config::{Config, Source, Values};
use ottla::env::sim_disk::SimDisk;
use ottla::env::{Clock, net::ListenOptions};
use ottla::server::{self, Advertised, BoundListener, Limits, ListenerParams, RootLogger, Server};
use ottla_protocol::apis::ListenerType;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// The port for clients, on every broker.
pub(crate) const CLIENT_PORT: u16 = 9092;
/// The port for the quorum, on every controller.
pub(crate) const CONTROLLER_PORT: u16 = 9093;

/// What a node is, whatever process it has.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) is_broker: bool,
    pub(crate) is_controller: bool,
}

impl Role {
    fn listeners(&self) -> Vec<(&'static str, u16, ListenerType)> {
        let mut all = Vec::new();
        if self.is_broker {
            all.push(("PLAINTEXT", CLIENT_PORT, ListenerType::Broker));
        }
        if self.is_controller {
            all.push(("CONTROLLER", CONTROLLER_PORT, ListenerType::Controller));
        }
        all
    }
}

/// How far a process has come, as the driver sees it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Since it was opened.
    pub(crate) broker: Option<Arc<Broker>>,
    /// It has joined the cluster.
    pub(crate) has_joined: bool,
    /// It has ended by itself, and why.
    pub(crate) ended: Option<String>,
}

/// What a process is made of.
pub(crate) struct Start {
    pub(crate) role: Role,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) progress: Arc<Mutex<Progress>>,
    /// Turns true when the process is to stop in order.
    pub(crate) stop: watch::Receiver<bool>,
}

/// The properties of a node with these voters.
pub(crate) fn properties(role: &Role, voters: &str) -> Vec<(String, String)> {
    let roles = match (role.is_broker, role.is_controller) {
        (true, true) => "broker,controller",
        (true, false) => "broker",
        _ => "controller",
    };
    let listeners = role.listeners();
    let named = listeners.iter().map(|(name, port, _)| format!("{name}://{}:{port}", role.host));
    let pairs = [
        ("log.dirs", "/data".to_owned()),
        ("process.roles", roles.to_owned()),
        ("node.id", role.id.to_string()),
        ("listeners", named.collect::<Vec<_>>().join(",")),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned()),
        ("controller.quorum.voters", voters.to_owned()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Runs the process until it is to stop or fails; `progress` tells of it.
pub(crate) async fn run(start: Start) {
    let progress = Arc::clone(&start.progress);
    let ended = match serve(start).await {
        Ok(()) => "stopped in order".to_owned(),
        Err(cause) => cause,
    };
    let mut progress = progress.lock();
    progress.broker = None;
    progress.ended = Some(ended);
}

async fn serve(start: Start) -> Result<(), String> {
    let Start { role, properties, disk, clock, progress, mut stop } = start;
    let mut values = Values::default();
    for (key, value) in &properties {
        values.set(key, value, Source::Override);
    }
    let config = Arc::new(Config::from_values(values).map_err(|error| error.to_string())?);
    let (bound, advertised) = bind(&role).await?;
    let settings = Settings::new(Arc::clone(&config), &advertised);
    let opened = Broker::open(settings, Arc::new(disk), clock).await;
    let broker = opened.map_err(|error| error.to_string())?;
    progress.lock().broker = Some(Arc::clone(&broker));
    let limits = Limits::from_config(&config);
    let root_logger = Arc::new(RootLogger::new("info", |_| Ok(())));
    let of_server = server::Settings::from_config(&config, root_logger);
    let (nodes, clients): (Vec<_>, Vec<_>) =
        bound.into_iter().partition(BoundListener::is_for_nodes);
    let mut server = Server::start(Arc::clone(&broker), limits, of_server, nodes);
    let joined = tokio::select! {
        biased;
        joined = broker.join() => joined.map_err(|error| error.to_string()),
        failure = broker.failed() => Err(failure),
        _ = stop.wait_for(|stop| *stop) => Err("stopped before it had joined".to_owned()),
    };
    if let Err(cause) = joined {
        server.stop().await;
        broker.stop().await;
        return Err(cause);
    }
    server.let_clients_in();
    server.open(clients);
    progress.lock().has_joined = true;
    tokio::select! {
        biased;
        failure = broker.failed() => return Err(failure),
        _ = stop.wait_for(|stop| *stop) => {}
    }
    broker.leave().await;
    server.stop().await;
    broker.stop().await;
    Ok(())
}

async fn bind(role: &Role) -> Result<(Vec<BoundListener>, Vec<AdvertisedListener>), String> {
    let (mut bound, mut advertised) = (Vec::new(), Vec::new());
    for (name, port, listener_type) in role.listeners() {
        let params = ListenerParams {
            name: name.to_owned(),
            host: role.host.clone(),
            port,
            listener_type,
            is_shared: false,
            advertised: Advertised::AsRegistered,
            options: ListenOptions {
                backlog: 50,
                receive_buffer_bytes: None,
                send_buffer_bytes: None,
            },
        };
        bound.push(BoundListener::bind(&params).await.map_err(|error| error.to_string())?);
        advertised.push(AdvertisedListener {
            name: name.to_owned(),
            host: role.host.clone(),
            port,
            security_protocol: 0,
        });
    }
    Ok((bound, advertised))
}
