//! The way to the active controller, wherever it is.
//!
//! A request goes to the controller machine of this process while it is the active one, and else in Kafka's own form to
//! the controller's listener of the node that leads the quorum. As Kafka's channel to the controller does, a request
//! whose answer got lost is put again: the operations say themselves when they were done before.
//! Source: KIP-590 (requests of clients are forwarded), KIP-631 (those of brokers).

mod wire;

use super::controller_calls::{BoxFuture, ControllerCalls};
use super::host::{Host, HostError};
use super::metadata::MetadataStage;
use super::peers::{PeerClient, PeerError, PeerParams};
use super::{ControllerAddresses, ControllerReply, ControllerRequest, Settings};
use ottla_protocol::apis::ListenerType;
use ottla_protocol::{BrokerId, ErrorCode, Request};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Wait before a request is put again, as long as nothing is heard of another controller.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Longest answer of a controller.
const ANSWER_BYTES_MAX: usize = 100 << 20;

/// The active controller, as far as this node knows.
#[derive(Clone, Default)]
pub enum Active {
    /// Nobody, or nobody is known.
    #[default]
    Unknown,
    /// This process.
    Here(Arc<Host<MetadataStage>>),
    /// Another node, which leads the quorum.
    There(BrokerId),
    /// Nobody, and this process takes no more part: its log has failed, or it stops.
    Gone,
}

impl Active {
    /// Whether both are the same controller.
    pub fn is_same(&self, other: &Active) -> bool {
        match (self, other) {
            (Active::Unknown, Active::Unknown) | (Active::Gone, Active::Gone) => true,
            (Active::Here(one), Active::Here(other)) => Arc::ptr_eq(one, other),
            (Active::There(one), Active::There(other)) => one == other,
            _ => false,
        }
    }
}

/// How the `client.id` ends with which brokers pass requests of clients on; what such a request changes of the broker
/// itself has been checked there.
pub const FORWARDING_CLIENT: &str = "-controller-link";

/// The way to the active controller.
pub struct ControllerLink {
    active: watch::Receiver<Active>,
    addresses: ControllerAddresses,
    client_id: String,
    is_sole_voter: bool,
    /// `controller.socket.timeout.ms`: how long a request may look for its controller.
    patience: Duration,
    clients: Mutex<BTreeMap<BrokerId, PeerClient>>,
}

impl ControllerLink {
    /// A link that follows `active`.
    pub fn new(active: watch::Receiver<Active>, settings: &Settings) -> ControllerLink {
        ControllerLink {
            active,
            addresses: settings.controllers.clone(),
            client_id: format!("broker-{}{FORWARDING_CLIENT}", settings.node_id),
            is_sole_voter: settings.is_sole_voter,
            patience: settings.controller_patience,
            clients: Mutex::default(),
        }
    }

    /// Puts a request to the active controller and waits for its answer, looking for it as long as patience lasts.
    ///
    /// # Errors
    /// NOT_CONTROLLER when this process takes no more part; REQUEST_TIMED_OUT when no active controller was found or
    /// none answered; KAFKA_STORAGE_ERROR when the controller's log has no space for what it decided.
    pub async fn call(&self, request: ControllerRequest) -> Result<ControllerReply, ErrorCode> {
        let deadline = Instant::now() + self.patience;
        let mut active = self.active.clone();
        loop {
            let now = active.borrow_and_update().clone();
            let attempt = tokio::select! {
                biased;
                attempt = self.call_at(&now, &request) => attempt,
                // A machine without power says nothing: its successor need not be kept waiting for its answer.
                () = succeeded(&mut active, &now) => Attempt::Again,
            };
            match attempt {
                Attempt::Done(reply) => return Ok(reply),
                Attempt::Refused(error) => return Err(error),
                Attempt::Again => {}
            }
            if active.borrow().is_same(&now) {
                let retry = matches!(now, Active::There(_)).then(|| Instant::now() + RETRY_PAUSE);
                let until = retry.map_or(deadline, |retry| retry.min(deadline));
                // That nothing changes while it waits is no error; a sender that is gone changes nothing any more.
                let changed = tokio::time::timeout_at(until, active.changed()).await;
                if matches!(changed, Ok(Err(_))) {
                    return Err(ErrorCode::RequestTimedOut);
                }
            }
            if Instant::now() >= deadline {
                return Err(ErrorCode::RequestTimedOut);
            }
        }
    }

    /// Puts a request to the controller of this process alone, as those who came to its listener want.
    ///
    /// # Errors
    /// NOT_CONTROLLER when it is not the active one; KAFKA_STORAGE_ERROR as in [`ControllerLink::call`].
    pub async fn call_here(
        &self,
        request: ControllerRequest,
    ) -> Result<ControllerReply, ErrorCode> {
        let active = self.active.borrow().clone();
        let Active::Here(host) = active else { return Err(ErrorCode::NotController) };
        host.call(request).await.map_err(|error| match error {
            HostError::NotActive => ErrorCode::NotController,
            HostError::NoSpace => ErrorCode::KafkaStorageError,
        })
    }

    /// The machine of this process, while it is the active controller.
    pub fn here(&self) -> Option<Arc<Host<MetadataStage>>> {
        match &*self.active.borrow() {
            Active::Here(host) => Some(Arc::clone(host)),
            _ => None,
        }
    }

    /// The node that leads the quorum, when it is another.
    pub fn elsewhere(&self) -> Option<BrokerId> {
        match &*self.active.borrow() {
            Active::There(id) => Some(*id),
            _ => None,
        }
    }

    /// Sends a request as it is to the node that leads the quorum, when it is another.
    ///
    /// # Errors
    /// NOT_CONTROLLER when nobody else leads; REQUEST_TIMED_OUT when it does not answer.
    pub async fn forward<R>(&self, version: i16, request: R) -> Result<R::Response, ErrorCode>
    where
        R: Request + Send + 'static,
    {
        let client = self.elsewhere().and_then(|id| self.client(id));
        let client = client.ok_or(ErrorCode::NotController)?;
        client.call(version, request).await.map_err(|error| {
            tracing::info!(%error, "a request to the controller was not answered");
            ErrorCode::RequestTimedOut
        })
    }

    async fn call_at(&self, active: &Active, request: &ControllerRequest) -> Attempt {
        match active {
            Active::Unknown => Attempt::Again,
            Active::Gone => Attempt::Refused(ErrorCode::NotController),
            Active::Here(host) => match host.call(request.clone()).await {
                Ok(reply) => Attempt::Done(reply),
                Err(HostError::NoSpace) => Attempt::Refused(ErrorCode::KafkaStorageError),
                // Another voter takes over, or, where there is none, nobody does.
                Err(HostError::NotActive) if self.is_sole_voter => {
                    Attempt::Refused(ErrorCode::NotController)
                }
                Err(HostError::NotActive) => Attempt::Again,
            },
            Active::There(id) => {
                let Some(client) = self.client(*id) else {
                    tracing::error!(leader = %id, "no address is known of the quorum's leader");
                    return Attempt::Again;
                };
                match wire::call(&client, request.clone()).await {
                    Ok(reply) if wire::is_not_controller(&reply) => Attempt::Again,
                    Ok(reply) => Attempt::Done(reply),
                    Err(error @ (PeerError::NotServed { .. } | PeerError::Malformed { .. })) => {
                        tracing::error!(%error, "the controller does not speak as this broker does");
                        Attempt::Refused(ErrorCode::UnsupportedVersion)
                    }
                    Err(error) => {
                        tracing::info!(%error, "a request to the controller is put again");
                        Attempt::Again
                    }
                }
            }
        }
    }

    fn client(&self, id: BrokerId) -> Option<PeerClient> {
        let (host, port) = self.addresses.get(id)?;
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&id)
            && client.params().is_for(&host, port)
        {
            return Some(client.clone());
        }
        let client = PeerClient::new(PeerParams {
            host,
            port,
            client_id: self.client_id.clone(),
            patience: self.patience,
            answer_bytes_max: ANSWER_BYTES_MAX,
            wanted: ListenerType::Controller,
        });
        clients.insert(id, client.clone());
        Some(client)
    }
}

impl ControllerCalls for ControllerLink {
    fn call(
        &self,
        request: ControllerRequest,
    ) -> BoxFuture<'_, Result<ControllerReply, ErrorCode>> {
        Box::pin(ControllerLink::call(self, request))
    }
}

/// Waits until another controller than this one, on another node, is known.
async fn succeeded(active: &mut watch::Receiver<Active>, before: &Active) {
    let is_successor = |now: &Active| match now {
        Active::Here(_) | Active::There(_) => !now.is_same(before),
        Active::Unknown | Active::Gone => false,
    };
    match before {
        // A sender that is gone names no successor.
        Active::There(_) if active.wait_for(is_successor).await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// What came of one attempt.
enum Attempt {
    Done(ControllerReply),
    Refused(ErrorCode),
    Again,
}
