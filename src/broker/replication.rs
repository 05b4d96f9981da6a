//! What keeps this broker's replicas in step with others: fetchers, changes of the ISR, and the look for followers
//! that lag. Made before the first partition is opened, started once other brokers can be reached.

use super::Image;
use super::assignments::{AssignmentParams, Assignments};
use super::controller_calls::ControllerCalls;
use super::detector::Detector;
use super::fetcher::{FetchSettings, Fetchers, PeerEndpoints, Surroundings};
use super::housekeeping::Housekeeping;
use super::isr::IsrChanges;
use super::partition::{Partition, Throttled};
use super::publisher::Publisher;
use super::quota::Quotas;
use super::settings::Settings;
use crate::machines::replica::ReplicaSettings;
use arc_swap::ArcSwap;
use ottla_protocol::BrokerId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Followers are looked at at least so seldom, whatever is configured.
const CHECK_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The parts of replication that all partitions share.
#[derive(Clone)]
pub(crate) struct Replication {
    /// Copies partitions that others lead.
    pub(crate) fetchers: Arc<Fetchers>,
    /// Takes the changes of the ISR that leaders want.
    pub(crate) isr_changes: Arc<IsrChanges>,
    /// Takes the replicas whose directory the controller may not know.
    pub(crate) assignments: Arc<Assignments>,
    /// How fast replicas may copy that are not in sync.
    pub(crate) quotas: Arc<Quotas>,
    node_id: BrokerId,
    lag_time_max_ms: i64,
}

impl Replication {
    /// Nothing runs yet.
    pub(crate) fn new(settings: &Settings) -> Self {
        let node_id = settings.node_id;
        Replication {
            fetchers: Fetchers::new(FetchSettings::new(node_id, &settings.config)),
            isr_changes: Arc::default(),
            assignments: Arc::default(),
            quotas: Arc::default(),
            node_id,
            lag_time_max_ms: settings.config.replication.lag_time_max_ms,
        }
    }

    /// For the replica machine of a topic with this `min.insync.replicas`.
    pub(crate) fn replica_settings(&self, min_insync_replicas: usize) -> ReplicaSettings {
        let (broker_id, lag_time_max_ms) = (self.node_id, self.lag_time_max_ms);
        ReplicaSettings { broker_id, lag_time_max_ms, min_insync_replicas }
    }

    /// Takes the rates that `image` has.
    pub(crate) fn reconfigure(&self, image: &Image) {
        self.quotas.leader.reconfigure(image, self.node_id);
        self.quotas.follower.reconfigure(image, self.node_id);
    }

    /// Tells a partition which of its copies the rates hold for.
    pub(crate) fn throttle(&self, image: &Image, partition: &Partition) {
        let (topic, index) = (partition.topic(), partition.index());
        partition.set_throttled(Throttled {
            leader: self.quotas.leader.holds_for(image, topic, index, self.node_id),
            follower: self.quotas.follower.holds_for(image, topic, index, self.node_id),
        });
    }

    /// Starts everything, within the runtime; the tasks end when `stop` says so, but for the fetchers, which
    /// [`Fetchers::stop`] ends.
    pub(crate) fn start(
        &self,
        settings: &Settings,
        image: &Arc<ArcSwap<Image>>,
        controller: Arc<dyn ControllerCalls>,
        (publisher, housekeeping): (&Arc<Publisher>, &Arc<Housekeeping>),
        detector: &Arc<Detector>,
        stop: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<()>> {
        // Housekeeping has the publisher, which has this.
        let housekeeping = Arc::downgrade(housekeeping);
        let write_checkpoints = move || {
            if let Some(housekeeping) = housekeeping.upgrade() {
                housekeeping.write_all();
            }
        };
        // And so has the detector, by way of the metadata.
        let detector = Arc::downgrade(detector);
        let leader_lost = move |leader| {
            if let Some(detector) = detector.upgrade() {
                detector.leader_lost(leader);
            }
        };
        self.fetchers.start(Surroundings {
            endpoints: Box::new(Arc::new(PeerEndpoints::new(settings, Arc::clone(image)))),
            image: Arc::clone(image),
            write_checkpoints: Box::new(write_checkpoints),
            leader_lost: Box::new(leader_lost),
            runtime: tokio::runtime::Handle::current(),
        });
        let assigning = Arc::clone(&self.assignments).run(
            AssignmentParams {
                broker: self.node_id,
                controller: Arc::clone(&controller),
                directories: Arc::clone(publisher.directories()),
                image: Arc::clone(image),
            },
            stop.clone(),
        );
        let identity = (self.node_id, Arc::clone(image));
        let asking = Arc::clone(&self.isr_changes).run(controller, identity, stop.clone());
        let interval = self.check_interval();
        let looking = look_for_laggards(Arc::clone(publisher), interval, stop.clone());
        let leaving = leave_failed_directories(Arc::clone(publisher), stop.clone());
        vec![
            tokio::spawn(asking),
            tokio::spawn(looking),
            tokio::spawn(assigning),
            tokio::spawn(leaving),
        ]
    }

    /// Half of the time that a follower may lag, as in Kafka.
    fn check_interval(&self) -> Duration {
        let half_ms = u64::try_from(self.lag_time_max_ms / 2).unwrap_or_default();
        Duration::from_millis(half_ms).max(CHECK_INTERVAL_MIN)
    }
}

async fn look_for_laggards(
    publisher: Arc<Publisher>,
    interval: Duration,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stopping| *stopping) => return,
            () = tokio::time::sleep(interval) => {}
        }
        for partition in publisher.all() {
            partition.check_isr();
        }
    }
}

/// Copies nothing more into log directories that fail.
async fn leave_failed_directories(publisher: Arc<Publisher>, mut stop: watch::Receiver<bool>) {
    let mut failures = publisher.directories().failures();
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stopping| *stopping) => return,
            // The sender is a part of the directories, which are the publisher's.
            failed = failures.changed() => if failed.is_err() { return },
        }
        for partition in publisher.all().iter().filter(|it| it.is_offline()) {
            publisher.replication().fetchers.unfollow(partition);
        }
    }
}
