//! How the death of a node is noticed at once.
//!
//! A process that dies has its connections reset by its machine, in a millisecond. That alone proves nothing: so
//! the controller dials the broker's listener, and fences it if its machine answers that nobody listens there. What a
//! process has open is closed one after the other, and a listener may be the last: only an answer shows life. A
//! broker that is only slow, stopped, or cut off answers otherwise, or not at all, and has until its session ends.
//! The voters do the same with the quorum's leader. Kafka waits for the session, or the fetch time-out, in all cases.

use super::controller_link::{Active, ControllerLink};
use super::metadata::MetadataNode;
use super::peers::{PeerClient, PeerError, PeerParams};
use super::{ControllerReply, ControllerRequest, Image, Settings};
use crate::env::Clock;
use crate::machines::metadata::image::BrokerRegistration;
use arc_swap::ArcSwap;
use ottla_protocol::apis::ListenerType;
use ottla_protocol::{BrokerEpoch, BrokerId, Timestamp};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

/// How long dialling may take, and an answer. A machine that is there accepts or refuses at once, whatever its
/// processes do.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Pause before a node that hung up is dialled again, doubled each time: one may turn away everybody.
const REDIAL_PAUSE: Duration = Duration::from_millis(1);
/// Longest answer to a dial.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How long a broker that nobody fences is taken for gone, in milliseconds.
const GONE_MS: i64 = 3000;
/// How long a broker whose connection has ended is taken for gone before it has answered, in milliseconds: a client
/// that is sent to it again may not ask again for a second.
const SUSPECT_MS: i64 = 250;

/// The same where a client asks where to go, in milliseconds: an answer takes less.
const GLANCE_MS: i64 = 20;
/// How long a broker that answered a dial is sent clients without another, in milliseconds: many ask often.
const ANSWERED_MS: i64 = 200;

/// Brokers that are gone, as this node has seen.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Under which epoch they were registered, and until when that is believed.
    seen: Mutex<BTreeMap<BrokerId, (BrokerEpoch, Timestamp)>>,
    /// Those that are being dialled.
    dialled: Mutex<BTreeSet<BrokerId>>,
    /// When brokers answered a dial last.
    alive: Mutex<BTreeMap<BrokerId, Timestamp>>,
    /// One of them has answered.
    answered: Notify,
}

/// Watches over the other nodes.
pub(super) struct Detector {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) gone: Gone,
    pub(super) settings: Arc<Settings>,
    pub(super) image: Arc<ArcSwap<Image>>,
    pub(super) link: Arc<ControllerLink>,
    pub(super) metadata: Arc<MetadataNode>,
}

impl Detector {
    /// A connection by which this broker's heartbeats or fetches came has ended.
    pub(super) fn broker_disconnected(self: &Arc<Self>, id: BrokerId, epoch: BrokerEpoch) {
        if let Some(controller) = self.link.here() {
            // One that is not the active controller any more has nothing to note.
            let _ = controller.with(|machine| machine.note_disconnect(id, epoch));
        }
        self.look_at_broker(id, epoch);
    }

    /// A fetch of this broker's was not answered.
    pub(super) fn leader_lost(self: &Arc<Self>, id: BrokerId) {
        let epoch = self.image.load().cluster.brokers.get(&id).map(|broker| broker.epoch);
        if let Some(epoch) = epoch {
            self.look_at_broker(id, epoch);
        }
    }

    /// Whether the broker was seen to be gone, and is not fenced yet nor registered anew.
    pub(super) fn is_gone(&self, broker: &BrokerRegistration) -> bool {
        !broker.fenced && self.has_gone_lately(broker)
    }

    /// Whether the broker was seen to be gone in the last seconds, and has not registered anew.
    pub(super) fn has_gone_lately(&self, broker: &BrokerRegistration) -> bool {
        let gone = self.gone.seen.lock();
        let seen = gone.get(&broker.id);
        seen.is_some_and(|(epoch, until)| *epoch == broker.epoch && self.clock.now() < *until)
    }

    /// Whether any broker was seen to be gone lately.
    pub(super) fn misses_any(&self) -> bool {
        let now = self.clock.now();
        let mut gone = self.gone.seen.lock();
        gone.retain(|_, (_, until)| now < *until);
        !gone.is_empty()
    }

    fn believe_gone(&self, id: BrokerId, epoch: BrokerEpoch, ms: i64) {
        let now = self.clock.now();
        let mut gone = self.gone.seen.lock();
        gone.retain(|_, (_, until)| now < *until);
        let until = gone.get(&id).filter(|(known, _)| *known == epoch).map_or(now, |it| it.1);
        gone.insert(id, (epoch, until.max(now.plus_ms(ms))));
    }

    fn believe_alive(&self, id: BrokerId) {
        self.gone.seen.lock().remove(&id);
        self.gone.alive.lock().insert(id, self.clock.now());
        self.gone.answered.notify_waiters();
    }

    /// Completes when a broker that was taken for gone has answered, counted from this call on.
    pub(super) fn answered(&self) -> Notified<'_> {
        self.gone.answered.notified()
    }

    /// Looks at a broker to which a client is about to be sent, perhaps again. That its connection there has just ended
    /// may be why it asks, and those between here and there end in the same millisecond, but not before.
    pub(super) fn glance(self: &Arc<Self>, id: BrokerId) {
        let image = self.image.load();
        let broker = image.cluster.brokers.get(&id).filter(|it| !it.fenced);
        let Some(broker) = broker.filter(|it| it.id != self.settings.node_id) else { return };
        let now = self.clock.now();
        let answered = self.gone.alive.lock().get(&id).copied();
        // A clock that was put back must not keep it from being dialled.
        let is_fresh = answered.is_some_and(|at| at <= now && now < at.plus_ms(ANSWERED_MS));
        if !is_fresh && !self.has_gone_lately(broker) && !self.gone.dialled.lock().contains(&id) {
            self.look(id, broker.epoch, GLANCE_MS);
        }
    }

    /// Looks at all brokers whenever this node becomes the active controller: those that died meanwhile reset no
    /// connection to it. Runs until the broker stops.
    pub(super) async fn run(self: Arc<Self>, mut active: watch::Receiver<Active>) {
        loop {
            match &*active.borrow_and_update() {
                Active::Here(_) => self.look_around(),
                Active::Gone => return,
                Active::There(_) | Active::Unknown => {}
            }
            if active.changed().await.is_err() {
                return;
            }
        }
    }

    fn look_around(self: &Arc<Self>) {
        for broker in self.image.load().cluster.unfenced() {
            if broker.id != self.settings.node_id {
                self.look_at_broker(broker.id, broker.epoch);
            }
        }
    }

    fn look_at_broker(self: &Arc<Self>, id: BrokerId, epoch: BrokerEpoch) {
        self.look(id, epoch, SUSPECT_MS);
    }

    /// Dials a broker, which is taken for gone until it answers, for so many milliseconds at most.
    fn look(self: &Arc<Self>, id: BrokerId, epoch: BrokerEpoch, suspect_ms: i64) {
        let image = self.image.load();
        let Some(broker) = image.cluster.brokers.get(&id).filter(|it| it.epoch == epoch) else {
            return;
        };
        let inter_broker = broker.listeners.get(&self.settings.inter_broker_listener);
        let Some(endpoint) = inter_broker.or_else(|| broker.listeners.values().next()) else {
            return;
        };
        let (host, port) = (endpoint.host.clone(), endpoint.port);
        self.believe_gone(id, epoch, suspect_ms);
        self.gone.dialled.lock().insert(id);
        let detector = Arc::clone(self);
        tokio::spawn(async move {
            let is_gone = is_refused(host.clone(), port).await;
            detector.gone.dialled.lock().remove(&id);
            if !is_gone {
                detector.believe_alive(id);
                return;
            }
            detector.believe_gone(id, epoch, GONE_MS);
            let request = ControllerRequest::FenceBroker { broker_id: id, broker_epoch: epoch };
            // Otherwise it was fenced before, has registered anew, or another node is the controller.
            let answer = detector.link.call_here(request).await;
            if let Ok(ControllerReply::FenceBroker(Ok(true))) = answer {
                tracing::warn!(broker = %id, "fenced: nobody listens on {host}:{port} any more");
            }
        });
    }

    /// The connection by which this voter's messages came has ended.
    pub(super) fn voter_disconnected(self: &Arc<Self>, id: BrokerId) {
        if self.link.elsewhere() != Some(id) {
            return;
        }
        let Some((host, port)) = self.settings.controllers.get(id) else {
            return;
        };
        let detector = Arc::clone(self);
        tokio::spawn(async move {
            if is_refused(host.clone(), port).await && detector.link.elsewhere() == Some(id) {
                tracing::warn!(leader = %id, "the quorum's leader is gone: nobody listens on {host}:{port}");
                if let Some(quorum) = detector.metadata.quorum() {
                    quorum.leader_is_dead();
                }
            }
        });
    }
}

/// Whether the machine answers that nobody listens there. Whoever hangs up instead of answering may be a process that
/// ends, and is dialled again.
async fn is_refused(host: String, port: u16) -> bool {
    let client = PeerClient::new(PeerParams {
        host,
        port,
        client_id: String::new(),
        patience: PROBE_PATIENCE,
        answer_bytes_max: ANSWER_BYTES_MAX,
        wanted: ListenerType::Broker,
    });
    let mut pause = REDIAL_PAUSE;
    while pause < PROBE_PATIENCE {
        match client.probe().await {
            Err(PeerError::Broken { .. }) => tokio::time::sleep(pause).await,
            probed => return probed.is_err_and(|error| error.is_refused()),
        }
        pause *= 2;
    }
    false
}
