//! The metadata of this node: the quorum, the Image that it commits, and the controller machine while this node leads.
//!
//! Publication happens where committed entries are applied, on every voter, and before the replies that rest on it
//! leave: a client that was told of its new topic finds leaders and logs in place.

use super::host::{Host, HostError, Stage};
use super::quorum::{
    BoxFuture, Quorum, QuorumError, QuorumListener, RaftTransport, TransportError,
};
use crate::env::Clock;
use crate::machines::metadata::{
    Controller, ControllerEffect, ControllerReply, ControllerRequest, ControllerSettings, Image,
    bootstrap_records,
};
use crate::machines::{Entry, Machine, RequestId};
use arc_swap::ArcSwap;
use bytes::Bytes;
use ottla_protocol::{BrokerId, LeaderEpoch, MetadataRecord, Offset, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The controller's surroundings in one epoch.
pub struct MetadataStage {
    quorum: Arc<Quorum>,
    epoch: LeaderEpoch,
}

impl MetadataStage {
    /// The epoch that it works in.
    #[cfg(test)]
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }
}

impl Stage for MetadataStage {
    type Machine = Controller;
    type Reply = ControllerReply;

    fn append(&self, now: Timestamp, records: &[MetadataRecord]) -> Result<Offset, HostError> {
        self.quorum.append(self.epoch, now, records)
    }

    fn replayed(&self, machine: &mut Controller) {
        self.quorum.propose(self.epoch, machine.image().clone());
    }

    fn committed(&self) -> Offset {
        self.quorum.committed()
    }

    fn commit_moved(&self) -> impl Future<Output = ()> + Send {
        self.quorum.moved()
    }

    fn is_lost(&self) -> bool {
        self.quorum.leading() != Some(self.epoch)
    }

    fn publish(&self, _machine: &mut Controller) {
        // The quorum has published what it applied.
    }

    fn perform(&self, effect: ControllerEffect) -> Option<(RequestId, ControllerReply)> {
        let ControllerEffect::Reply(id, reply) = effect;
        Some((id, reply))
    }
}

/// The controller at work here.
struct Active {
    epoch: LeaderEpoch,
    host: Arc<Host<MetadataStage>>,
    /// Where its log ended when it began.
    begin: Offset,
}

/// Makes a node what the new Image, the second, says it is.
pub type Publish = Box<dyn Fn(&Image, &Image) + Send + Sync>;

/// What a node's metadata needs beside its quorum.
pub struct MetadataParams {
    /// Carries messages to the other voters.
    pub transport: Arc<dyn RaftTransport>,
    /// Called for every Image that is committed, before it is stored.
    pub publish: Publish,
    /// Where the newest Image stands.
    pub image: Arc<ArcSwap<Image>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What the controller machine is made with.
    pub settings: ControllerSettings,
}

/// The metadata of one node.
pub struct MetadataNode {
    quorum: Arc<Quorum>,
    publish: Publish,
    image: Arc<ArcSwap<Image>>,
    clock: Arc<dyn Clock>,
    settings: ControllerSettings,
    active: Mutex<Option<Active>>,
    /// Why the newest epoch of this node could not be begun.
    failure: Mutex<Option<HostError>>,
    /// The hosts' drivers; each ends with its host's machine.
    drivers: Mutex<Vec<JoinHandle<()>>>,
    /// Leadership of this node has begun or ended.
    changed: Notify,
    runtime: Handle,
}

impl MetadataNode {
    /// Takes part in the quorum: from now on `image` follows it.
    ///
    /// # Errors
    /// The log cannot be used.
    pub async fn start(
        quorum: Arc<Quorum>,
        params: MetadataParams,
    ) -> Result<Arc<MetadataNode>, QuorumError> {
        let MetadataParams { transport, publish, image, clock, settings } = params;
        let node = Arc::new(MetadataNode {
            quorum: Arc::clone(&quorum),
            publish,
            image,
            clock,
            settings,
            active: Mutex::new(None),
            failure: Mutex::new(None),
            drivers: Mutex::default(),
            changed: Notify::new(),
            runtime: Handle::current(),
        });
        let listener = Arc::clone(&node) as Arc<dyn QuorumListener>;
        quorum.start(listener, transport).await?;
        Ok(node)
    }

    /// The quorum.
    pub fn quorum(&self) -> &Arc<Quorum> {
        &self.quorum
    }

    /// The controller, while this node is the active one.
    pub fn active(&self) -> Option<Arc<Host<MetadataStage>>> {
        self.active.lock().as_ref().map(|active| Arc::clone(&active.host))
    }

    /// Completes once this node is the active controller, and the Image is there with which it began.
    ///
    /// # Errors
    /// The quorum has stopped, or the first records of a new cluster could not be written.
    pub async fn until_active(&self) -> Result<(), QuorumError> {
        loop {
            let (changed, moved) = (self.changed.notified(), self.quorum.moved());
            let begin = self.active.lock().as_ref().map(|active| active.begin);
            if begin.is_some_and(|begin| begin <= self.quorum.committed()) {
                return Ok(());
            }
            if let Some(cause) = self.quorum.failure() {
                return Err(QuorumError::Stopped(cause));
            }
            if let Some(error) = *self.failure.lock() {
                return Err(QuorumError::Stopped(error.to_string()));
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = moved => {}
            }
        }
    }

    /// Puts a request to the controller here.
    ///
    /// # Errors
    /// `NotActive` where this node is not the active one; `NoSpace`.
    pub async fn call(&self, request: ControllerRequest) -> Result<ControllerReply, HostError> {
        match self.active() {
            Some(host) => host.call(request).await,
            None => Err(HostError::NotActive),
        }
    }

    /// The controller here takes no more requests.
    pub fn resign(&self) {
        let active = self.active.lock().take();
        if let Some(active) = active {
            active.host.resign();
        }
        self.changed.notify_waiters();
    }

    /// Resigns, takes part no more, and closes the log.
    ///
    /// # Errors
    /// The last bytes could not be made durable.
    pub async fn close(&self) -> Result<(), QuorumError> {
        self.resign();
        let drivers: Vec<JoinHandle<()>> = self.drivers.lock().drain(..).collect();
        for driver in drivers {
            if let Err(error) = driver.await {
                tracing::error!(%error, "the controller's task failed");
            }
        }
        self.quorum.close().await
    }

    /// Writes the first records of a new cluster. Not the log's end tells that it is new: a first start that was cut
    /// short may have left an epoch without any record.
    fn bootstrap(
        &self,
        epoch: LeaderEpoch,
        controller: &mut Controller,
    ) -> Result<Option<Offset>, HostError> {
        if controller.image().features.metadata_version() != 0 {
            return Ok(None);
        }
        let records = bootstrap_records(self.settings.min_insync_replicas);
        let now = self.clock.now();
        let mut highest = Controller::new(self.settings.clone());
        for record in &records {
            let entry = Entry { offset: Offset(0), timestamp: now, record: record.clone() };
            highest.replay(&entry);
        }
        self.quorum.set_metadata_version(highest.image().features.metadata_version());
        let mut offset = self.quorum.append(epoch, now, &records)?;
        for record in records {
            controller.replay(&Entry { offset, timestamp: now, record });
            offset = offset.plus(1);
        }
        self.quorum.propose(epoch, controller.image().clone());
        Ok(Some(offset))
    }
}

impl QuorumListener for MetadataNode {
    fn publish(&self, image: Arc<Image>) {
        let old = self.image.load_full();
        (self.publish)(&old, &image);
        self.image.store(image);
    }

    fn lead(&self, epoch: LeaderEpoch, mut controller: Controller, end: Offset) {
        let end = match self.bootstrap(epoch, &mut controller) {
            Ok(written) => written.unwrap_or(end),
            Err(error) => {
                tracing::error!(%epoch, %error, "the first records of the cluster are not written");
                *self.failure.lock() = Some(error);
                self.changed.notify_waiters();
                return;
            }
        };
        let stage = MetadataStage { quorum: Arc::clone(&self.quorum), epoch };
        let host = Host::new(stage, Arc::clone(&self.clock), controller, end);
        *self.active.lock() = Some(Active { epoch, host: Arc::clone(&host), begin: end });
        tracing::info!(%epoch, "active controller");
        let driver = self.runtime.spawn(host.run());
        let mut drivers = self.drivers.lock();
        drivers.retain(|driver| !driver.is_finished());
        drivers.push(driver);
        drop(drivers);
        self.changed.notify_waiters();
    }

    fn resign(&self, epoch: LeaderEpoch) {
        let is_over = |active: &mut Active| active.epoch <= epoch || epoch == LeaderEpoch::UNKNOWN;
        let over = self.active.lock().take_if(is_over);
        if let Some(active) = over {
            tracing::info!(epoch = %active.epoch, "active controller no more");
            active.host.resign();
        }
        self.changed.notify_waiters();
    }
}

impl Drop for MetadataNode {
    fn drop(&mut self) {
        MetadataNode::resign(self);
    }
}

/// The way of a voter that is alone: there is nobody to send anything to.
#[derive(Debug, Clone, Copy)]
pub struct NoTransport;

impl RaftTransport for NoTransport {
    fn send(&self, to: BrokerId, _message: Bytes) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let cause = "there are no other voters".to_owned();
        Box::pin(std::future::ready(Err(TransportError { to, cause })))
    }
}
