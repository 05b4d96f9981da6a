//! How voters of the quorum reach each other: a connection to each one's controller listener.

use super::controller_link::ControllerAddresses;
use super::peers::{PeerClient, PeerParams};
use super::quorum::{BoxFuture, RaftTransport, TransportError};
use bytes::Bytes;
use ottla_protocol::BrokerId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take; the quorum itself gives most messages up sooner.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer of a voter: answers carry no records.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Connections to the other voters.
pub(super) struct VoterConnections {
    node_id: BrokerId,
    cluster_id: Arc<str>,
    clients: BTreeMap<BrokerId, PeerClient>,
}

impl VoterConnections {
    pub(super) fn new(
        node_id: BrokerId,
        cluster_id: &str,
        voters: &ControllerAddresses,
    ) -> VoterConnections {
        let client = |(host, port): &(String, u16)| {
            PeerClient::new(PeerParams {
                host: host.clone(),
                port: *port,
                client_id: format!("voter-{node_id}"),
                patience: PATIENCE,
                answer_bytes_max: ANSWER_BYTES_MAX,
            })
        };
        let others = voters.iter().filter(|(id, _)| **id != node_id);
        let clients = others.map(|(id, address)| (*id, client(address))).collect();
        VoterConnections { node_id, cluster_id: cluster_id.into(), clients }
    }
}

impl RaftTransport for VoterConnections {
    fn send(&self, to: BrokerId, message: Bytes) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        Box::pin(async move {
            let Some(client) = self.clients.get(&to) else {
                return Err(TransportError { to, cause: "it is no voter".to_owned() });
            };
            let sender = (self.node_id, Arc::clone(&self.cluster_id));
            let answer = client.quorum_message(sender, message).await;
            answer.map_err(|error| TransportError { to, cause: error.to_string() })
        })
    }
}
