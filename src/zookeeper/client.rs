//! Copies Kafka's nodes from a server; reads only.
//!
//! The session is one of its own and ends with the call. Everything has a bound in time.

use super::{Tree, ZooKeeperError};
use std::time::Duration;
use zookeeper_client::{Client, Error};

/// Kafka's roots, those that say something of a cluster that has stopped.
const ROOTS: [&str; 9] = [
    "/admin",
    "/brokers",
    "/cluster",
    "/config",
    "/controller_epoch",
    "/delegation_token",
    "/kafka-acl",
    "/kafka-acl-extended",
    "/latest_producer_id_block",
];
/// Notices among them, which brokers read once.
const NOTICES: [&str; 2] = ["/config/changes", "/brokers/seqid"];
const BROKER_IDS: &str = "/brokers/ids";

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const READ_LIMIT: Duration = Duration::from_secs(300);
/// A broker that was killed stays registered until its session ends: Kafka's `zookeeper.session.timeout.ms` is 18 s,
/// which a server rounds up to its next tick, and 40 s is the most that a server grants with its default tick.
const REGISTERED_LIMIT: Duration = Duration::from_secs(45);
const REGISTERED_PAUSE: Duration = Duration::from_millis(500);
/// A cluster of one broker has no more; what has is not Kafka's.
const NODES_MAX: usize = 2_000_000;

/// Copies Kafka's nodes from `HOST:PORT[,HOST:PORT]...[/chroot]`. Where brokers are registered it waits until they are
/// gone, as far as a session can last.
///
/// # Errors
/// [`ZooKeeperError::Server`], [`ZooKeeperError::NoKafka`], [`ZooKeeperError::Running`].
pub async fn read(address: &str) -> Result<Tree, ZooKeeperError> {
    let failed = |cause: String| ZooKeeperError::Server { address: address.to_owned(), cause };
    let connector = Client::connector()
        .with_connection_timeout(CONNECT_LIMIT)
        .with_session_timeout(CONNECT_LIMIT)
        .with_fail_eagerly();
    let connected = tokio::time::timeout(CONNECT_LIMIT, connector.connect(address)).await;
    let client = match connected {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("no answer within {CONNECT_LIMIT:?}"))),
    };
    let copied = tokio::time::timeout(READ_LIMIT, async {
        wait_until_stopped(&client, address).await?;
        copy(&client).await.map_err(|error| failed(error.to_string()))
    });
    copied.await.unwrap_or_else(|_| Err(failed(format!("not done within {READ_LIMIT:?}"))))
}

async fn wait_until_stopped(client: &Client, address: &str) -> Result<(), ZooKeeperError> {
    let wait = async {
        let mut ids = String::new();
        for pause in 0.. {
            let children = client.list_children(BROKER_IDS).await?;
            if children.is_empty() {
                return Ok(None);
            }
            ids = children.join(", ");
            if pause == 0 {
                tracing::info!(%address, %ids, "waiting until the brokers' sessions have ended");
            }
            if REGISTERED_PAUSE * pause >= REGISTERED_LIMIT {
                break;
            }
            tokio::time::sleep(REGISTERED_PAUSE).await;
        }
        Ok(Some(ids))
    };
    let address = address.to_owned();
    match wait.await {
        Ok(None) => Ok(()),
        Ok(Some(ids)) => Err(ZooKeeperError::Running { address, ids }),
        Err(Error::NoNode) => Err(ZooKeeperError::NoKafka { address, path: BROKER_IDS }),
        Err(error) => Err(ZooKeeperError::Server { address, cause: error.to_string() }),
    }
}

async fn copy(client: &Client) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    let mut open: Vec<String> = ROOTS.iter().map(|root| (*root).to_owned()).collect();
    while let Some(path) = open.pop() {
        let (data, stat) = match client.get_data(&path).await {
            Ok(found) => found,
            // A root that this Kafka does not have.
            Err(Error::NoNode) => continue,
            Err(error) => return Err(error),
        };
        if stat.num_children > 0 && !NOTICES.contains(&path.as_str()) {
            let children = client.list_children(&path).await?;
            open.extend(children.into_iter().map(|child| format!("{path}/{child}")));
        }
        let data = (!data.is_empty()).then(|| String::from_utf8_lossy(&data).into_owned());
        tree.insert(path, data);
        if tree.len() + open.len() > NODES_MAX {
            return Err(Error::UnexpectedError(format!("more than {NODES_MAX} nodes")));
        }
    }
    Ok(tree)
}
