//! How a start comes to its cluster where the file says no more than `zookeeper.connect` (decision 8).

use ottla::broker::{AdvertisedListener, Broker, Founding, LogDirContents, Settings};
use ottla::config::Config;
use ottla::env::{RealDisk, SystemClock, net};
use ottla::zookeeper::meeting::{ConnectString, Endpoint, Meeting, MeetingParams, Outcome, Part};
use ottla_protocol::uuid_to_text;
use std::net::IpAddr;
use std::sync::Arc;
use uuid::Uuid;

/// The name of every machine for itself.
const LOCALHOST: &str = "localhost";

/// Under which name other brokers and clients reach this machine, where the file names no host.
///
/// # Errors
/// `zookeeper.connect` cannot be understood.
pub async fn own_host(config: &Config) -> Result<String, String> {
    let Some((host, port)) =
        connect(config)?.and_then(|connect| connect.servers.into_iter().next())
    else {
        return Ok(LOCALHOST.to_owned());
    };
    let is_loopback = |ip: IpAddr| ip.is_loopback();
    if host == LOCALHOST || host.parse().is_ok_and(is_loopback) {
        return Ok(LOCALHOST.to_owned());
    }
    Ok(match net::own_address_towards(&host, port).await {
        // The name is this machine's own: others know it by that too.
        Ok(own) if own.is_loopback() => host,
        Ok(own) => own.to_string(),
        Err(error) => {
            tracing::warn!(
                "no way to {host} (zookeeper.connect): {error}. This broker tells others that it is at {LOCALHOST}: \
                 set advertised.listeners where they are on other machines"
            );
            LOCALHOST.to_owned()
        }
    })
}

fn connect(config: &Config) -> Result<Option<ConnectString>, String> {
    let text = config.zookeeper_connect.as_deref().filter(|_| config.is_meeting);
    let connect = text.map(ConnectString::parse).transpose();
    connect
        .map_err(|cause| format!("zookeeper.connect: {cause} (valid: HOST[:PORT][,...][/chroot])"))
}

/// Meets the other brokers, where nothing else says what the cluster is; a broker that has a cluster needs not wait for
/// them. What comes of it is in the settings.
///
/// # Errors
/// Why this broker cannot be part of the cluster; log directories that cannot be read.
pub async fn meet(settings: &mut Settings) -> Result<Option<Meeting>, String> {
    let config = Arc::clone(&settings.config);
    let Some(connect) = connect(&config)? else { return Ok(None) };
    let contents = LogDirContents::look(settings, &RealDisk).map_err(|error| error.to_string())?;
    // The file may still name the ZooKeeper that these directories were imported from.
    if contents.is_zookeepers || settings.zookeeper.is_some() {
        return Ok(None);
    }
    let endpoint = |listener: &AdvertisedListener| {
        let of_config = config.listeners.advertised.iter().chain(&config.listeners.broker);
        let same = of_config.filter(|it| it.name == listener.name);
        Endpoint {
            listener: listener.name.clone(),
            protocol: same.map(|it| it.protocol.name()).next().unwrap_or_default(),
            host: listener.host.clone(),
            port: listener.port,
        }
    };
    // The one where the quorum is served comes first.
    let is_other = |it: &&AdvertisedListener| it.name != settings.inter_broker_listener;
    let others = settings.advertised.iter().filter(is_other);
    let meeting = Meeting::begin(MeetingParams {
        connect,
        node_id: contents.node_id.filter(|_| !config.is_node_id_given).unwrap_or(config.node_id),
        endpoints: settings.quorum_listeners().iter().chain(others).map(endpoint).collect(),
        rack: settings.rack.clone(),
        cluster_id: contents.cluster_id.or(settings.cluster_id.clone()),
        new_cluster_id: uuid_to_text(Uuid::new_v4()),
        part: if contents.has_metadata { Part::Member } else { Part::Newcomer },
        clock: Arc::new(SystemClock),
    });
    let (founding, cluster_id) = if contents.has_metadata {
        // Its voters are in its metadata log; where that is of before they could change, it is its only one.
        (Founding::Static, None)
    } else {
        match meeting.outcome().await.map_err(|error| error.to_string())? {
            Outcome::Found(id) => {
                tracing::info!(cluster = id, "this broker founds the cluster");
                (Founding::Standalone, Some(id))
            }
            Outcome::Join(id) => {
                tracing::info!(cluster = id, "this broker joins the cluster");
                (Founding::Join, Some(id))
            }
        }
    };
    settings.meet(founding, cluster_id, meeting.peers());
    Ok(Some(meeting))
}

/// Tells the meeting who is the active controller; completes with the reason where this broker may not be part of the
/// cluster that is there.
pub async fn attend(meeting: Option<&Meeting>, broker: &Broker) -> String {
    let Some(meeting) = meeting else { return std::future::pending().await };
    tokio::select! {
        biased;
        error = meeting.refused() => error.to_string(),
        () = broker.follow_leadership(|leads| meeting.lead(leads)) => std::future::pending().await,
    }
}
