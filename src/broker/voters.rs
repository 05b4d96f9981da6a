//! How voters of the quorum reach each other: a connection to each one's controller listener.

use super::peers::{PeerClient, PeerParams};
use super::quorum::{BoxFuture, RaftTransport, TransportError};
use super::{Address, ControllerAddresses};
use bytes::Bytes;
use ottla_protocol::BrokerId;
use ottla_protocol::apis::ListenerType;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take; the quorum itself gives most messages up sooner.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer of a voter: answers carry no records.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Connections that are kept; past it the ones to addresses that are not the voters' are closed.
const CLIENTS_MAX: usize = 64;

/// Connections to the other voters, each where it listens now.
pub(super) struct VoterConnections {
    node_id: BrokerId,
    cluster_id: Arc<str>,
    addresses: ControllerAddresses,
    clients: Mutex<BTreeMap<Address, PeerClient>>,
}

impl VoterConnections {
    pub(super) fn new(
        node_id: BrokerId,
        cluster_id: &str,
        addresses: &ControllerAddresses,
    ) -> VoterConnections {
        let (cluster_id, addresses) = (cluster_id.into(), addresses.clone());
        VoterConnections { node_id, cluster_id, addresses, clients: Mutex::default() }
    }

    fn client(&self, address: Address) -> PeerClient {
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS_MAX {
            let known = self.addresses.all();
            clients.retain(|address, _| known.values().any(|other| other == address));
        }
        let client = |(host, port): &Address| {
            PeerClient::new(PeerParams {
                host: host.clone(),
                port: *port,
                client_id: format!("voter-{}", self.node_id),
                patience: PATIENCE,
                answer_bytes_max: ANSWER_BYTES_MAX,
                wanted: ListenerType::Controller,
            })
        };
        clients.entry(address).or_insert_with_key(client).clone()
    }
}

impl RaftTransport for VoterConnections {
    fn send(&self, to: BrokerId, message: Bytes) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let Some(address) = self.addresses.get(to) else {
            let error =
                TransportError { to: to.to_string(), cause: "no address is known".to_owned() };
            return Box::pin(std::future::ready(Err(error)));
        };
        self.send_to(address, message)
    }

    fn send_to(
        &self,
        address: Address,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        Box::pin(async move {
            let to = format!("at {}:{}", address.0, address.1);
            let sender = (self.node_id, Arc::clone(&self.cluster_id));
            let answer = self.client(address).quorum_message(sender, message).await;
            answer.map_err(|error| TransportError { to, cause: error.to_string() })
        })
    }
}
