//! How a node without a vote, whose directories nobody has formatted, learns which cluster it belongs to.

use super::directories::DirectoryError;
use super::peers::{PeerClient, PeerParams};
use super::start::StartError;
use super::{Address, Settings};
use crate::env::Disk;
use crate::log::checkpoint::read_meta_properties;
use ottla_protocol::apis::ListenerType;
use ottla_protocol::messages::DescribeClusterRequest;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// Wait before the controllers are asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How often a broker that waits says so.
const SAY_SO: Duration = Duration::from_secs(3);
/// How long one controller may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// No answer is longer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// DescribeCluster's kind of endpoint that stands for controllers (KIP-919).
const CONTROLLERS: i8 = 2;

/// The cluster's id as its controllers say; nothing where a formatted directory has it.
///
/// # Errors
/// `NoController` when none answers within `initial.broker.registration.timeout.ms`, which is waited for where nobody
/// else says the id; `OtherCluster`; a directory that cannot be read.
pub(super) async fn find(
    settings: &Settings,
    disk: &dyn Disk,
) -> Result<Option<String>, StartError> {
    let known = settings.cluster_id.clone().or(formatted(settings, disk)?);
    let begun = Instant::now();
    let mut said = begun;
    loop {
        match (ask(&settings.known_controllers()).await, &known) {
            (Some(found), Some(own)) if found != *own => {
                return Err(StartError::OtherCluster { own: own.clone(), found });
            }
            (_, Some(_)) => return Ok(None),
            (Some(id), None) => return Ok(Some(id)),
            (None, None) => {}
        }
        if begun.elapsed() >= settings.initial_registration_timeout {
            return Err(StartError::NoController { waited: begun.elapsed() });
        }
        if said.elapsed() >= SAY_SO {
            said = Instant::now();
            tracing::warn!("still waiting for a controller that says which cluster this is");
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// The cluster that the directories were formatted for.
fn formatted(settings: &Settings, disk: &dyn Disk) -> Result<Option<String>, DirectoryError> {
    for log_dir in &settings.log_dirs {
        let meta = read_meta_properties(disk, log_dir)?;
        if let Some(id) = meta.and_then(|meta| meta.cluster_id) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

async fn ask(controllers: &BTreeSet<Address>) -> Option<String> {
    for (host, port) in controllers {
        let client = PeerClient::new(PeerParams {
            host: host.clone(),
            port: *port,
            client_id: "ottla-start".to_owned(),
            patience: PATIENCE,
            answer_bytes_max: ANSWER_BYTES_MAX,
            wanted: ListenerType::Controller,
        });
        let request = DescribeClusterRequest {
            endpoint_type: CONTROLLERS,
            ..DescribeClusterRequest::default()
        };
        match client.call(1, request).await {
            Ok(answer) if answer.error_code == 0 => return Some(answer.cluster_id),
            Ok(answer) => {
                let why = answer.error_message.unwrap_or_default();
                tracing::debug!(host, port, why, "a controller does not say which cluster this is");
            }
            Err(error) => tracing::debug!(%error, "a controller does not answer"),
        }
    }
    None
}
