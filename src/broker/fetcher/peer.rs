//! Leaders over the network: the listener for brokers of whatever address the metadata has for them now.

use super::{EndpointError, LeaderEndpoint, LeaderEndpoints};
use crate::broker::controller_calls::BoxFuture;
use crate::broker::peers::{PeerClient, PeerParams};
use crate::broker::{Image, Settings};
use arc_swap::ArcSwap;
use ottla_protocol::apis::ListenerType;
use ottla_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};
use ottla_protocol::{BrokerId, Request};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// What an answer may have beside its records.
const ANSWER_MARGIN_BYTES: usize = 64 << 20;

/// Connections to the brokers that the metadata names.
pub(crate) struct PeerEndpoints {
    image: Arc<ArcSwap<Image>>,
    listener: String,
    client_id: String,
    patience: Duration,
    answer_bytes_max: usize,
}

impl PeerEndpoints {
    /// Connections from this broker, as configured.
    pub(crate) fn new(settings: &Settings, image: Arc<ArcSwap<Image>>) -> Self {
        let replication = &settings.config.replication;
        let bytes = |bytes: i32| usize::try_from(bytes).unwrap_or_default();
        // One batch may be larger than the limits, which are about all of them.
        let records =
            bytes(replication.fetch_response_max_bytes).max(bytes(replication.fetch_max_bytes));
        let patience_ms = u64::try_from(replication.socket_timeout_ms).unwrap_or_default();
        PeerEndpoints {
            image,
            listener: settings.config.listeners.inter_broker.clone(),
            client_id: format!("broker-{}-fetcher", settings.node_id),
            patience: Duration::from_millis(patience_ms),
            answer_bytes_max: records.saturating_add(ANSWER_MARGIN_BYTES),
        }
    }
}

impl LeaderEndpoints for Arc<PeerEndpoints> {
    fn endpoint(&self, leader: BrokerId) -> Arc<dyn LeaderEndpoint> {
        let (all, client) = (Arc::clone(self), Mutex::default());
        Arc::new(PeerEndpoint { all, leader, client })
    }
}

struct PeerEndpoint {
    all: Arc<PeerEndpoints>,
    leader: BrokerId,
    /// The connection to where the leader was last.
    client: Mutex<Option<PeerClient>>,
}

impl PeerEndpoint {
    fn client(&self) -> Result<PeerClient, EndpointError> {
        let image = self.all.image.load();
        let registration = image.cluster.brokers.get(&self.leader);
        let endpoint = registration.and_then(|it| it.listeners.get(&self.all.listener));
        let Some(endpoint) = endpoint else {
            let text = format!("broker {} has no listener {}", self.leader, self.all.listener);
            return Err(EndpointError(text));
        };
        let mut client = self.client.lock();
        match &*client {
            Some(it) if it.params().host == endpoint.host && it.params().port == endpoint.port => {
                Ok(it.clone())
            }
            _ => {
                let new = PeerClient::new(PeerParams {
                    host: endpoint.host.clone(),
                    port: endpoint.port,
                    client_id: self.all.client_id.clone(),
                    patience: self.all.patience,
                    answer_bytes_max: self.all.answer_bytes_max,
                    wanted: ListenerType::Broker,
                });
                Ok(client.insert(new).clone())
            }
        }
    }

    fn call<R>(&self, version: i16, request: R) -> BoxFuture<'_, Result<R::Response, EndpointError>>
    where
        R: Request + Send + 'static,
        R::Response: Send,
    {
        Box::pin(async move {
            let answered = self.client()?.call(version, request).await;
            answered.map_err(|error| EndpointError(error.to_string()))
        })
    }
}

impl LeaderEndpoint for PeerEndpoint {
    fn fetch(
        &self,
        version: i16,
        request: FetchRequest,
    ) -> BoxFuture<'_, Result<FetchResponse, EndpointError>> {
        self.call(version, request)
    }

    fn list_offsets(
        &self,
        version: i16,
        request: ListOffsetsRequest,
    ) -> BoxFuture<'_, Result<ListOffsetsResponse, EndpointError>> {
        self.call(version, request)
    }
}
