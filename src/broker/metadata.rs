//! The metadata of this node: the quorum, the Image that it commits, and the controller machine while this node leads.
//!
//! Publication happens where committed entries are applied, on every voter, and before the replies that rest on it
//! leave: a client that was told of its new topic finds leaders and logs in place.

use super::controller_link::Active;
use super::host::{Host, HostError, Stage};
use super::observer::Observer;
use super::quorum::{Quorum, QuorumError, QuorumListener, RaftTransport};
use crate::env::{Clock, SteadyClock};
use crate::machines::metadata::features::{first_records, formatted_features};
use crate::machines::metadata::{
    Controller, ControllerEffect, ControllerReply, ControllerSettings, Image,
};
use crate::machines::{Entry, Machine, RequestId};
use arc_swap::ArcSwap;
use ottla_protocol::{BrokerId, LeaderEpoch, MetadataRecord, Offset, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use std::task::Poll;
use tokio::runtime::Handle;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
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
struct Leading {
    epoch: LeaderEpoch,
    host: Arc<Host<MetadataStage>>,
    /// Where its log ended when it began.
    begin: Offset,
}

/// Where a node has the metadata from.
#[derive(Clone)]
pub(super) enum Source {
    /// It has a vote.
    Quorum(Arc<Quorum>),
    /// It has none.
    Observer(Arc<Observer>),
}

/// Makes a node what the new Image, the second, says it is.
pub(super) type Publish = Box<dyn Fn(&Image, &Image) + Send + Sync>;

/// What the metadata of a node needs.
pub(super) struct MetadataParams {
    /// This node.
    pub node_id: BrokerId,
    /// Carries messages to the other voters.
    pub transport: Arc<dyn RaftTransport>,
    /// Called for every Image that is committed, before it is stored, from [`MetadataNode::begin`] on.
    pub publish: Publish,
    /// Follows the metadata.
    pub image: Arc<ArcSwap<Image>>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// For the first records of a new cluster.
    pub settings: ControllerSettings,
    /// Those that somebody has chosen who formatted the directory.
    pub formatted: Option<Vec<MetadataRecord>>,
}

/// The metadata of one node.
pub struct MetadataNode {
    source: Source,
    params: MetadataParams,
    leading: Mutex<Option<Leading>>,
    /// Who is the active controller.
    active: watch::Sender<Active>,
    /// What the publisher was last told; nothing before [`MetadataNode::begin`].
    published: Mutex<Option<Arc<Image>>>,
    /// Why the newest epoch of this node could not be begun.
    failure: Mutex<Option<HostError>>,
    /// The hosts' drivers, each of which ends with its host's machine, and those that follow the quorum.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    stopping: watch::Sender<bool>,
    /// There is a newer Image.
    image_moved: Notify,
    /// Leadership of this node has begun or ended.
    changed: Notify,
    runtime: Handle,
}

impl MetadataNode {
    /// Takes part in the quorum, or follows it: from now on the Image does.
    ///
    /// # Errors
    /// The log cannot be used.
    pub(super) async fn start(
        source: Source,
        params: MetadataParams,
    ) -> Result<Arc<MetadataNode>, QuorumError> {
        let transport = Arc::clone(&params.transport);
        let node = Arc::new(MetadataNode {
            source: source.clone(),
            params,
            leading: Mutex::new(None),
            active: watch::Sender::new(Active::Unknown),
            published: Mutex::new(None),
            failure: Mutex::new(None),
            tasks: Mutex::default(),
            stopping: watch::Sender::new(false),
            image_moved: Notify::new(),
            changed: Notify::new(),
            runtime: Handle::current(),
        });
        let listener = Arc::clone(&node) as Arc<dyn QuorumListener>;
        match source {
            Source::Quorum(quorum) => quorum.start(listener, transport).await?,
            Source::Observer(observer) => {
                let following = observer.run(listener, node.stopping.subscribe());
                node.tasks.lock().push(tokio::spawn(following));
            }
        }
        node.tasks.lock().push(tokio::spawn(Arc::clone(&node).tell_who_is_active()));
        Ok(node)
    }

    /// The quorum, where this node has a vote.
    pub(super) fn quorum(&self) -> Option<&Arc<Quorum>> {
        match &self.source {
            Source::Quorum(quorum) => Some(quorum),
            Source::Observer(_) => None,
        }
    }

    /// Completes when this node is not the only one that can be the active controller.
    pub(super) async fn until_others_vote(&self) {
        let Some(quorum) = self.quorum() else { return };
        let mut voters = quorum.voter_changes();
        let node_id = self.params.node_id;
        // Without a sender the quorum is gone, and with it whom to tell.
        let _ = voters.wait_for(|voters| !voters.is_only(node_id)).await;
    }

    /// The finalized `kraft.version`.
    pub(super) fn kraft_version(&self) -> i16 {
        match &self.source {
            Source::Quorum(quorum) => i16::from(quorum.voters().is_dynamic),
            Source::Observer(observer) => observer.kraft_version(),
        }
    }

    /// Follows who is the active controller.
    pub(super) fn active(&self) -> watch::Receiver<Active> {
        self.active.subscribe()
    }

    /// Below it everything is committed, applied and published here.
    pub(super) fn committed(&self) -> Offset {
        match &self.source {
            Source::Quorum(quorum) => quorum.committed(),
            Source::Observer(observer) => observer.committed(),
        }
    }

    /// Completes when there is a newer Image, counted from this call on.
    pub(super) fn image_moved(&self) -> Notified<'_> {
        self.image_moved.notified()
    }

    fn who_is_active(&self) -> Active {
        let (leader, failed) = match &self.source {
            Source::Quorum(quorum) => {
                (quorum.leader_changes().borrow().leader, quorum.failure().is_some())
            }
            Source::Observer(observer) => (observer.leader_changes().borrow().leader, false),
        };
        if failed || self.failure.lock().is_some() || *self.stopping.borrow() {
            return Active::Gone;
        }
        if let Some(leading) = &*self.leading.lock() {
            // Its machine has read what it has not committed: until then nobody is answered.
            let is_ready = leading.begin <= self.committed();
            return if is_ready {
                Active::Here(Arc::clone(&leading.host))
            } else {
                Active::Unknown
            };
        }
        match leader {
            Some(leader) if leader != self.params.node_id => Active::There(leader),
            _ => Active::Unknown,
        }
    }

    async fn tell_who_is_active(self: Arc<Self>) {
        let mut leaders = match &self.source {
            Source::Quorum(quorum) => quorum.leader_changes(),
            Source::Observer(observer) => observer.leader_changes(),
        };
        let mut stopping = self.stopping.subscribe();
        loop {
            let changed = self.changed.notified();
            let moved = async {
                match &self.source {
                    Source::Quorum(quorum) if self.is_beginning() => quorum.moved().await,
                    _ => std::future::pending().await,
                }
            };
            let mut moved = std::pin::pin!(moved);
            // It counts from its first poll on.
            let is_moved = std::future::poll_fn(|cx| Poll::Ready(moved.as_mut().poll(cx))).await;
            let now = self.who_is_active();
            self.active.send_if_modified(|known| {
                let is_new = !known.is_same(&now);
                *known = now;
                is_new
            });
            if is_moved.is_ready() {
                continue;
            }
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => break,
                () = changed => {}
                () = moved => {}
                // Without a sender nothing changes any more.
                Ok(()) = leaders.changed() => {}
            }
        }
        self.active.send_replace(Active::Gone);
    }

    fn is_beginning(&self) -> bool {
        let leading = self.leading.lock();
        leading.as_ref().is_some_and(|leading| leading.begin > self.committed())
    }

    /// Gives the publisher what the Image says now, and what it will say: before this the broker is not registered, and
    /// what the metadata says of it holds for an earlier process. Blocks for the disk.
    pub(super) fn begin(&self) {
        let mut published = self.published.lock();
        let image = self.params.image.load_full();
        (self.params.publish)(&Image::default(), &image);
        *published = Some(image);
    }

    /// Does something with the Image that the publisher was last told, while it is told no other.
    pub(super) fn with_published<T>(&self, act: impl FnOnce(&Image) -> T) -> T {
        let _published = self.published.lock();
        act(&self.params.image.load())
    }

    /// Completes when this node is the active controller, or cannot be.
    ///
    /// # Errors
    /// The quorum has stopped, or the first records of a new cluster could not be written.
    pub(super) async fn until_active(&self) -> Result<(), QuorumError> {
        let mut active = self.active();
        let found = active.wait_for(|now| matches!(now, Active::Here(_) | Active::Gone)).await;
        if found.is_ok_and(|now| matches!(*now, Active::Here(_))) {
            return Ok(());
        }
        let stopped = self.quorum().and_then(|quorum| quorum.failure());
        let failed = || self.failure.lock().map(|error| error.to_string());
        let cause = stopped.or_else(failed).unwrap_or_else(|| "it was stopped".to_owned());
        Err(QuorumError::Stopped(cause))
    }

    /// The controller here takes no more requests, and others are not looked for.
    pub(super) fn resign(&self) {
        self.stopping.send_replace(true);
        self.active.send_replace(Active::Gone);
        let leading = self.leading.lock().take();
        if let Some(leading) = leading {
            leading.host.resign();
        }
        self.changed.notify_one();
    }

    /// Resigns, takes part no more, and closes the log.
    ///
    /// # Errors
    /// The last bytes could not be made durable.
    pub(super) async fn close(&self) -> Result<(), QuorumError> {
        self.resign();
        let tasks: Vec<JoinHandle<()>> = self.tasks.lock().drain(..).collect();
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the metadata failed");
            }
        }
        match &self.source {
            Source::Quorum(quorum) => quorum.close().await,
            Source::Observer(observer) => observer.close(),
        }
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
        let Some(quorum) = self.quorum() else { return Ok(None) };
        let formatted = self.params.formatted.clone().unwrap_or_else(formatted_features);
        let records = first_records(formatted, self.params.settings.min_insync_replicas);
        let now = self.params.clock.now();
        let mut highest = Controller::new(self.params.settings.clone());
        for record in &records {
            let entry = Entry { offset: Offset(0), timestamp: now, record: record.clone() };
            highest.replay(&entry);
        }
        quorum.set_metadata_version(highest.image().features.metadata_version());
        let mut offset = quorum.append(epoch, now, &records)?;
        for record in records {
            controller.replay(&Entry { offset, timestamp: now, record });
            offset = offset.plus(1);
        }
        quorum.propose(epoch, controller.image().clone());
        Ok(Some(offset))
    }
}

impl QuorumListener for MetadataNode {
    fn publish(&self, image: Arc<Image>) {
        let mut published = self.published.lock();
        if let Some(old) = &*published {
            (self.params.publish)(old, &image);
            *published = Some(Arc::clone(&image));
        }
        self.params.image.store(image);
        self.image_moved.notify_waiters();
    }

    fn lead(&self, epoch: LeaderEpoch, mut controller: Controller, end: Offset) {
        let Some(quorum) = self.quorum() else { return };
        // A wall clock that is put forward must not end the brokers' sessions, nor one that is put back prolong them.
        let clock = Arc::new(SteadyClock::new(self.params.clock.as_ref()));
        controller.begin_sessions(clock.now());
        let end = match self.bootstrap(epoch, &mut controller) {
            Ok(written) => written.unwrap_or(end),
            Err(error) => {
                tracing::error!(%epoch, %error, "the first records of the cluster are not written");
                *self.failure.lock() = Some(error);
                self.changed.notify_one();
                return;
            }
        };
        let stage = MetadataStage { quorum: Arc::clone(quorum), epoch };
        let host = Host::new(stage, clock, controller, end);
        let leading = Leading { epoch, host: Arc::clone(&host), begin: end };
        if let Some(before) = self.leading.lock().replace(leading) {
            debug_assert!(before.epoch < epoch, "two controllers in one epoch");
            before.host.resign();
        }
        tracing::info!(%epoch, "active controller");
        let driver = self.runtime.spawn(host.run());
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(driver);
        drop(tasks);
        self.changed.notify_one();
    }

    fn resign(&self, epoch: LeaderEpoch) {
        let is_over =
            |leading: &mut Leading| leading.epoch <= epoch || epoch == LeaderEpoch::UNKNOWN;
        let over = self.leading.lock().take_if(is_over);
        if let Some(leading) = over {
            tracing::info!(epoch = %leading.epoch, "active controller no more");
            leading.host.resign();
        }
        self.changed.notify_one();
    }
}

impl Drop for MetadataNode {
    fn drop(&mut self) {
        MetadataNode::resign(self);
    }
}
