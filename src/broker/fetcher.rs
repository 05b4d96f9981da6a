//! Copies partitions from their leaders: for each leader a few fetchers, each with a fetch session of its own.
//!
//! The publisher says which partitions follow whom ([`Fetchers::follow`], [`Fetchers::unfollow`]); a partition is with
//! one fetcher at a time. A fetcher's main lane keeps one fetch at the leader, which waits there for data. A partition
//! that comes meanwhile, or comes back after an error, is not to wait for that: it is fetched on a lane and a
//! connection of its own until the main lane takes it over with its next request. Both may ask for it for a moment;
//! what comes second is at an offset that the log has passed, and is dropped.
//!
//! Invariants: a partition without news is in no request (KIP-227); an error of one partition holds up that one only;
//! what a leader sends is taken by [`super::partition`], under the epoch under which it was asked for.
//!
//! Source: Kafka's `AbstractFetcherManager` and `AbstractFetcherThread`; KIP-227, KIP-595.

mod lane;
mod peer;
mod response;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use peer::PeerEndpoints;

use super::Image;
use super::controller_calls::BoxFuture;
use super::partition::Partition;
use crate::config::Config;
use arc_swap::ArcSwap;
use ottla_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};
use ottla_protocol::{BrokerId, LeaderEpoch, TopicId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Lanes of a fetcher beside the main one; partitions that come while all are at work wait for one of them.
const STARTERS_MAX: usize = 4;

/// Why a leader did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EndpointError(pub(crate) String);

/// A connection to one leader. Requests are answered in order, so that a fetch that waits holds up what comes after it.
pub(crate) trait LeaderEndpoint: Send + Sync {
    /// Fetches.
    fn fetch(
        &self,
        version: i16,
        request: FetchRequest,
    ) -> BoxFuture<'_, Result<FetchResponse, EndpointError>>;

    /// Looks offsets up.
    fn list_offsets(
        &self,
        version: i16,
        request: ListOffsetsRequest,
    ) -> BoxFuture<'_, Result<ListOffsetsResponse, EndpointError>>;
}

/// Makes connections to leaders.
pub(crate) trait LeaderEndpoints: Send + Sync + 'static {
    /// A connection of its own to a broker; it connects with its first request, and anew after a failure.
    fn endpoint(&self, leader: BrokerId) -> Arc<dyn LeaderEndpoint>;
}

/// What fetchers take from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct FetchSettings {
    /// This broker.
    pub(crate) node_id: BrokerId,
    /// `num.replica.fetchers`.
    pub(crate) fetchers: usize,
    /// `replica.fetch.max.bytes`.
    pub(crate) partition_max_bytes: i32,
    /// `replica.fetch.response.max.bytes`.
    pub(crate) response_max_bytes: i32,
    /// `replica.fetch.min.bytes`.
    pub(crate) min_bytes: i32,
    /// `replica.fetch.wait.max.ms`.
    pub(crate) wait_max_ms: i32,
    /// `replica.fetch.backoff.ms`.
    pub(crate) backoff: Duration,
    /// `replica.socket.timeout.ms`.
    pub(crate) request_timeout: Duration,
}

impl FetchSettings {
    /// As configured.
    pub(crate) fn new(node_id: BrokerId, config: &Config) -> Self {
        let from = &config.replication;
        let ms = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
        FetchSettings {
            node_id,
            fetchers: usize::try_from(from.num_fetchers).unwrap_or(1).max(1),
            partition_max_bytes: from.fetch_max_bytes,
            response_max_bytes: from.fetch_response_max_bytes,
            min_bytes: from.fetch_min_bytes,
            wait_max_ms: from.fetch_wait_max_ms,
            backoff: ms(from.fetch_backoff_ms),
            request_timeout: ms(from.socket_timeout_ms),
        }
    }
}

/// What fetchers need of the rest of the broker.
pub(crate) struct Surroundings {
    /// Connections to leaders.
    pub(crate) endpoints: Box<dyn LeaderEndpoints>,
    /// The newest committed metadata, for this broker's epoch.
    pub(crate) image: Arc<ArcSwap<Image>>,
    /// Writes the checkpoints of the log directories, after a truncation. Blocks for the disk.
    pub(crate) write_checkpoints: Box<dyn Fn() + Send + Sync>,
    /// Told of every fetch that was not answered.
    pub(crate) leader_lost: Box<dyn Fn(BrokerId) + Send + Sync>,
    /// Where the fetchers' tasks run.
    pub(crate) runtime: Handle,
}

type Key = (TopicId, i32);
type FetcherKey = (BrokerId, usize);

/// A lane of a fetcher; the main one is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct LaneId(u64);

const MAIN: LaneId = LaneId(0);

/// A partition that is copied.
#[derive(Debug, Clone)]
struct Copied {
    partition: Arc<Partition>,
    leader_epoch: LeaderEpoch,
    /// The lane that fetches it; `None` while it waits for one.
    lane: Option<LaneId>,
    /// It is left out until then, after an error.
    not_before: Option<Instant>,
    /// How often in a row it has failed.
    failures: u32,
}

#[derive(Debug, Default)]
struct State {
    partitions: BTreeMap<Key, Copied>,
    /// Partitions of the main lane whose part of the session is no longer right.
    dirty: BTreeSet<Key>,
    /// Partitions that wait for a lane, or for their time.
    waiting: BTreeSet<Key>,
    starters: usize,
    last_lane: u64,
    /// Nothing is left to copy: no partition is added any more.
    has_ended: bool,
}

/// Copies some of the partitions of one leader.
struct Fetcher {
    leader: BrokerId,
    settings: FetchSettings,
    surroundings: Arc<Surroundings>,
    state: Mutex<State>,
    /// There is something for the main lane to look at.
    changed: Notify,
    /// Connections that starters left.
    spare: Mutex<Vec<Arc<dyn LeaderEndpoint>>>,
}

#[derive(Default)]
struct All {
    fetchers: HashMap<FetcherKey, Arc<Fetcher>>,
    /// The fetcher that each partition is with.
    places: HashMap<Key, FetcherKey>,
    /// Partitions that came before [`Fetchers::start`].
    early: BTreeMap<Key, (Arc<Partition>, BrokerId, LeaderEpoch)>,
    touched: BTreeSet<FetcherKey>,
    tasks: JoinSet<()>,
}

/// The fetchers of this broker.
pub(crate) struct Fetchers {
    settings: FetchSettings,
    surroundings: OnceLock<Arc<Surroundings>>,
    all: Mutex<All>,
    stopping: watch::Sender<bool>,
}

impl Fetchers {
    /// No fetcher yet; partitions may be added, and are fetched from [`Fetchers::start`] on.
    pub(crate) fn new(settings: FetchSettings) -> Arc<Self> {
        let stopping = watch::Sender::new(false);
        let (surroundings, all) = (OnceLock::new(), Mutex::default());
        Arc::new(Fetchers { settings, surroundings, all, stopping })
    }

    /// Begins to fetch.
    pub(crate) fn start(&self, surroundings: Surroundings) {
        let early = {
            let mut all = self.all.lock();
            // A second start changes nothing.
            let _ = self.surroundings.set(Arc::new(surroundings));
            std::mem::take(&mut all.early)
        };
        for (partition, leader, leader_epoch) in early.into_values() {
            self.follow(partition, leader, leader_epoch);
        }
        self.wake();
    }

    /// Copies the partition from `leader` in this epoch; [`Fetchers::wake`] is to be called once all are added.
    pub(crate) fn follow(
        &self,
        partition: Arc<Partition>,
        leader: BrokerId,
        leader_epoch: LeaderEpoch,
    ) {
        let key = (partition.topic_id(), partition.index());
        let mut all = self.all.lock();
        let Some(surroundings) = self.surroundings.get() else {
            all.early.insert(key, (partition, leader, leader_epoch));
            return;
        };
        let place = (leader, self.fetcher_of(&key));
        if let Some(before) = all.places.insert(key, place)
            && before != place
            && let Some(fetcher) = all.fetchers.get(&before)
        {
            fetcher.remove(&key);
        }
        if *self.stopping.borrow() {
            return;
        }
        let fetcher = all.fetchers.get(&place);
        if !fetcher.is_some_and(|fetcher| fetcher.add(key, &partition, leader_epoch)) {
            let fetcher = Arc::new(Fetcher {
                leader,
                settings: self.settings.clone(),
                surroundings: Arc::clone(surroundings),
                state: Mutex::default(),
                changed: Notify::new(),
                spare: Mutex::default(),
            });
            fetcher.add(key, &partition, leader_epoch);
            let stop = self.stopping.subscribe();
            let running = lane::run(Arc::clone(&fetcher), stop);
            all.tasks.spawn_on(running, &surroundings.runtime);
            while all.tasks.try_join_next().is_some() {}
            all.fetchers.insert(place, fetcher);
        }
        all.touched.insert(place);
    }

    /// Copies the partition no longer.
    pub(crate) fn unfollow(&self, partition: &Partition) {
        let key = (partition.topic_id(), partition.index());
        let mut all = self.all.lock();
        all.early.remove(&key);
        let place = all.places.remove(&key);
        if let Some(fetcher) = place.and_then(|place| all.fetchers.get(&place)) {
            fetcher.remove(&key);
        }
    }

    /// Lets the fetchers look at what was added.
    pub(crate) fn wake(&self) {
        let mut all = self.all.lock();
        for place in std::mem::take(&mut all.touched) {
            if let Some(fetcher) = all.fetchers.get(&place) {
                fetcher.changed.notify_one();
            }
        }
        all.fetchers.retain(|_, fetcher| !fetcher.state.lock().has_ended);
    }

    /// Stops all and waits until nothing more is appended.
    pub(crate) async fn stop(&self) {
        self.stopping.send_replace(true);
        let mut tasks = {
            let mut all = self.all.lock();
            all.fetchers.clear();
            std::mem::take(&mut all.tasks)
        };
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a fetcher failed");
            }
        }
    }

    fn fetcher_of(&self, key: &Key) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        (hasher.finish() % self.settings.fetchers as u64) as usize
    }
}

impl Fetcher {
    /// Takes a partition in, or its new epoch; `false` once the fetcher has ended.
    fn add(&self, key: Key, partition: &Arc<Partition>, leader_epoch: LeaderEpoch) -> bool {
        let mut state = self.state.lock();
        if state.has_ended {
            return false;
        }
        let known = state.partitions.get(&key);
        let is_same = |known: &Copied| {
            known.leader_epoch == leader_epoch && Arc::ptr_eq(&known.partition, partition)
        };
        if known.is_some_and(is_same) {
            return true;
        }
        let partition = Arc::clone(partition);
        let copied = Copied { partition, leader_epoch, lane: None, not_before: None, failures: 0 };
        state.partitions.insert(key, copied);
        state.waiting.insert(key);
        // The session may have it under an older epoch.
        state.dirty.insert(key);
        true
    }

    fn remove(&self, key: &Key) {
        let mut state = self.state.lock();
        state.waiting.remove(key);
        if state.partitions.remove(key).is_some() {
            state.dirty.insert(*key);
        }
        if state.partitions.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Leaves the partition out for a while; errors that come of one broker hearing of a change before another pass
    /// soon, so the first pause is short.
    fn delay(&self, key: &Key, leader_epoch: LeaderEpoch) {
        const FIRST: Duration = Duration::from_millis(10);
        let pause = {
            let mut state = self.state.lock();
            let Some(copied) = state.partitions.get_mut(key) else { return };
            copied.failures += 1;
            FIRST.saturating_mul(1 << (copied.failures - 1).min(16)).min(self.settings.backoff)
        };
        self.hold_up(key, leader_epoch, pause);
    }

    /// Leaves the partition out for so long.
    fn hold_up(&self, key: &Key, leader_epoch: LeaderEpoch, pause: Duration) {
        let mut state = self.state.lock();
        let Some(copied) = state.partitions.get_mut(key) else { return };
        if copied.leader_epoch != leader_epoch {
            return;
        }
        copied.not_before = Some(Instant::now() + pause);
        copied.lane = None;
        state.waiting.insert(*key);
        state.dirty.insert(*key);
    }

    /// Copies the partition no longer in this epoch: it waits for another.
    fn give_up(&self, key: &Key, leader_epoch: LeaderEpoch) {
        let mut state = self.state.lock();
        if state.partitions.get(key).is_some_and(|copied| copied.leader_epoch == leader_epoch) {
            state.partitions.remove(key);
            state.waiting.remove(key);
            state.dirty.insert(*key);
        }
    }
}
