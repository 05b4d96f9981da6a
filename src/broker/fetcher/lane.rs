//! The loops of a fetcher: the main lane, which keeps a session and a fetch at the leader, and starters, which fetch
//! what comes while that fetch waits.

use super::session::{FETCH_VERSION, FetchSession, SessionUse};
use super::{EndpointError, Fetcher, Key, LaneId, LeaderEndpoint, MAIN, STARTERS_MAX};
use crate::broker::partition::{FetchState, LogPosition, Partition, Truncation};
use ottla_protocol::messages::{FetchRequest, FetchResponse};
use ottla_protocol::{BrokerEpoch, ErrorCode, LeaderEpoch};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// First pause after a leader could not be reached; each further one is twice as long, up to
/// `replica.fetch.backoff.ms`.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// What a lane is to ask for.
struct Ask {
    changed: Vec<(Key, LeaderEpoch, FetchState)>,
    forgotten: Vec<Key>,
}

/// Copies until nothing is left to copy, or `stop` says so.
pub(super) async fn run(fetcher: Arc<Fetcher>, mut stop: watch::Receiver<bool>) {
    let mut starters = JoinSet::new();
    let copying = async {
        // All that is added at once goes into the first request.
        fetcher.changed.notified().await;
        let endpoint = fetcher.surroundings.endpoints.endpoint(fetcher.leader);
        let mut lane = Lane::new(&fetcher, MAIN, endpoint, SessionUse::Incremental);
        while let Some(ask) = lane.next_ask().await {
            let ask = lane.cut_without_epochs(ask).await;
            let request = lane.request(&ask);
            let answered = lane.send(request);
            match lane.start_others_until(answered, &mut starters).await {
                Some(answered) => lane.take(answered).await,
                // What comes after that answer would wait for it.
                None => lane.begin_anew(),
            }
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stopping| *stopping) => {}
        () = copying => {}
    }
    // What they are about to append would be stale, or nobody is there to append it for.
    starters.shutdown().await;
}

/// Fetches a few partitions until the main lane has them.
async fn start(fetcher: Arc<Fetcher>, id: LaneId) {
    let spare = fetcher.spare.lock().pop();
    let endpoint = spare.unwrap_or_else(|| fetcher.surroundings.endpoints.endpoint(fetcher.leader));
    let mut lane = Lane::new(&fetcher, id, endpoint, SessionUse::None);
    loop {
        let changed = lane.all();
        if changed.is_empty() {
            break;
        }
        let ask = lane.cut_without_epochs(Ask { changed, forgotten: Vec::new() }).await;
        let request = lane.request(&ask);
        let answered = lane.send(request).await;
        lane.take(answered).await;
    }
    fetcher.spare.lock().push(Arc::clone(&lane.endpoint));
    {
        let mut state = fetcher.state.lock();
        state.starters -= 1;
        let super::State { partitions, waiting, .. } = &mut *state;
        for (key, copied) in partitions.iter_mut().filter(|(_, it)| it.lane == Some(id)) {
            // The partition has an epoch that the publisher is about to tell of.
            copied.lane = None;
            copied.not_before = Some(Instant::now() + fetcher.settings.backoff);
            waiting.insert(*key);
        }
    }
    fetcher.changed.notify_one();
}

/// A log to cut.
pub(super) struct Cut {
    pub(super) partition: Arc<Partition>,
    pub(super) leader_epoch: LeaderEpoch,
    /// Where the log ended when the leader was asked.
    pub(super) position: LogPosition,
    pub(super) truncation: Truncation,
}

pub(super) struct Lane<'a> {
    pub(super) fetcher: &'a Arc<Fetcher>,
    pub(super) id: LaneId,
    pub(super) endpoint: Arc<dyn LeaderEndpoint>,
    pub(super) session: FetchSession,
    failures: u32,
}

impl<'a> Lane<'a> {
    fn new(
        fetcher: &'a Arc<Fetcher>,
        id: LaneId,
        endpoint: Arc<dyn LeaderEndpoint>,
        session: SessionUse,
    ) -> Self {
        Lane { fetcher, id, endpoint, session: FetchSession::new(session), failures: 0 }
    }

    /// What the main lane is to ask for, once there is anything; `None` when nothing is left to copy.
    async fn next_ask(&self) -> Option<Ask> {
        loop {
            let changed = self.fetcher.changed.notified();
            let next_time = {
                let mut state = self.fetcher.state.lock();
                if state.partitions.is_empty() {
                    state.has_ended = true;
                    return None;
                }
                self.take_over(&mut state);
                let ask = self.build(&mut state);
                let has_any = !ask.changed.is_empty()
                    || state.partitions.values().any(|copied| copied.lane == Some(MAIN));
                if has_any {
                    return Some(ask);
                }
                next_time(&state)
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = until(next_time) => {}
            }
        }
    }

    /// Takes over what waits and may be fetched, and what starters have.
    fn take_over(&self, state: &mut super::State) {
        let now = Instant::now();
        let super::State { partitions, waiting, dirty, .. } = state;
        waiting.retain(|key| {
            let Some(copied) = partitions.get_mut(key) else { return false };
            if copied.not_before.is_some_and(|time| time > now) {
                return true;
            }
            copied.not_before = None;
            copied.lane = Some(MAIN);
            dirty.insert(*key);
            false
        });
        if state.starters == 0 {
            return;
        }
        for (key, copied) in partitions.iter_mut() {
            if copied.lane.is_some_and(|lane| lane != MAIN) {
                copied.lane = Some(MAIN);
                dirty.insert(*key);
            }
        }
    }

    fn build(&self, state: &mut super::State) -> Ask {
        let mut ask = Ask { changed: Vec::new(), forgotten: Vec::new() };
        let dirty = std::mem::take(&mut state.dirty);
        let keys: Vec<Key> = match self.session.is_full() {
            true => state.partitions.keys().copied().collect(),
            false => dirty.into_iter().collect(),
        };
        for key in keys {
            let copied = state.partitions.get(&key).filter(|it| it.lane == Some(MAIN));
            let found = copied.and_then(|copied| {
                let state = copied.partition.fetch_state(copied.leader_epoch)?;
                Some((key, copied.leader_epoch, state))
            });
            match found {
                Some(found) => ask.changed.push(found),
                None => ask.forgotten.push(key),
            }
        }
        ask
    }

    /// Everything that a starter still has.
    fn all(&self) -> Vec<(Key, LeaderEpoch, FetchState)> {
        let state = self.fetcher.state.lock();
        let own = state.partitions.iter().filter(|(_, copied)| copied.lane == Some(self.id));
        own.filter_map(|(key, copied)| {
            let state = copied.partition.fetch_state(copied.leader_epoch)?;
            Some((*key, copied.leader_epoch, state))
        })
        .collect()
    }

    /// Cuts logs that do not know their last record's epoch down to what is surely committed: where they differ from
    /// the leader's cannot be told by epochs (KIP-101).
    async fn cut_without_epochs(&self, mut ask: Ask) -> Ask {
        let mut cuts = Vec::new();
        {
            let state = self.fetcher.state.lock();
            for (key, leader_epoch, found) in &mut ask.changed {
                let position = found.position;
                let is_cut = position.last_epoch == LeaderEpoch::UNKNOWN
                    && position.end > found.high_watermark;
                let copied = state.partitions.get(key).filter(|_| is_cut);
                if let Some(copied) = copied {
                    let partition = Arc::clone(&copied.partition);
                    let truncation = Truncation::To(found.high_watermark);
                    let leader_epoch = *leader_epoch;
                    cuts.push(Cut { partition, leader_epoch, position, truncation });
                }
            }
        }
        if cuts.is_empty() {
            return ask;
        }
        self.truncate(cuts).await;
        let state = self.fetcher.state.lock();
        for (key, leader_epoch, found) in &mut ask.changed {
            let copied = state.partitions.get(key);
            if let Some(now) = copied.and_then(|it| it.partition.fetch_state(*leader_epoch)) {
                *found = now;
            }
        }
        drop(state);
        ask
    }

    fn request(&mut self, ask: &Ask) -> FetchRequest {
        let image = self.fetcher.surroundings.image.load();
        let own = image.cluster.brokers.get(&self.fetcher.settings.node_id);
        let broker_epoch = own.map_or(BrokerEpoch(-1), |own| own.epoch);
        self.session.request(&self.fetcher.settings, broker_epoch, &ask.changed, &ask.forgotten)
    }

    /// Sends the request; it has all that it needs of the lane.
    fn send(
        &self,
        request: FetchRequest,
    ) -> impl Future<Output = Result<FetchResponse, EndpointError>> + use<> {
        let endpoint = Arc::clone(&self.endpoint);
        let limit = self.fetcher.settings.request_timeout;
        async move {
            let answered = timeout(limit, endpoint.fetch(FETCH_VERSION, request)).await;
            answered.unwrap_or_else(|_| Err(EndpointError("the leader is silent".to_owned())))
        }
    }

    /// Waits for the leader, and has what comes meanwhile fetched by others; `None` when nothing is left to copy.
    async fn start_others_until<T>(
        &self,
        answered: impl Future<Output = T>,
        starters: &mut JoinSet<()>,
    ) -> Option<T> {
        tokio::pin!(answered);
        loop {
            let changed = self.fetcher.changed.notified();
            if self.fetcher.state.lock().partitions.is_empty() {
                return None;
            }
            let next_time = self.start_others(starters);
            tokio::select! {
                biased;
                answered = &mut answered => return Some(answered),
                () = changed => {}
                () = until(next_time) => {}
            }
        }
    }

    /// Gives what waits to a starter; when there is next something to do.
    fn start_others(&self, starters: &mut JoinSet<()>) -> Option<Instant> {
        while starters.try_join_next().is_some() {}
        let mut state = self.fetcher.state.lock();
        if state.waiting.is_empty() || state.starters >= STARTERS_MAX {
            return None;
        }
        let now = Instant::now();
        let is_due = |time: Option<Instant>| time.is_none_or(|time| time <= now);
        let due: Vec<Key> = {
            let times = state.waiting.iter().map(|key| (key, state.partitions.get(key)));
            times
                .filter(|(_, copied)| copied.is_none_or(|copied| is_due(copied.not_before)))
                .map(|(key, _)| *key)
                .collect()
        };
        if due.is_empty() {
            return next_time(&state);
        }
        state.last_lane += 1;
        let id = LaneId(state.last_lane);
        for key in due {
            state.waiting.remove(&key);
            if let Some(copied) = state.partitions.get_mut(&key) {
                copied.not_before = None;
                copied.lane = Some(id);
            }
        }
        state.starters += 1;
        starters.spawn(start(Arc::clone(self.fetcher), id));
        next_time(&state)
    }

    /// Takes what the leader has answered.
    async fn take(&mut self, answered: Result<FetchResponse, EndpointError>) {
        let leader = self.fetcher.leader;
        let response = match answered {
            Ok(response) => response,
            Err(error) => {
                // One line for each time that a leader goes; it is tried again until the metadata names another.
                match self.failures {
                    0 => tracing::info!(%leader, %error, "fetch failed"),
                    _ => tracing::debug!(%leader, %error, "fetch failed again"),
                }
                (self.fetcher.surroundings.leader_lost)(leader);
                return self.pause().await;
            }
        };
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {}
            ErrorCode::FetchSessionIdNotFound
            | ErrorCode::InvalidFetchSessionEpoch
            | ErrorCode::FetchSessionTopicIdError => {
                self.session.reset();
                return;
            }
            error => {
                tracing::warn!(%leader, %error, "fetch refused");
                return self.pause().await;
            }
        }
        self.failures = 0;
        self.session.answered(response.session_id);
        self.take_response(response).await;
    }

    /// Leaves the connection, and what the leader knows of it.
    fn begin_anew(&mut self) {
        self.session.reset();
        self.endpoint = self.fetcher.surroundings.endpoints.endpoint(self.fetcher.leader);
    }

    async fn pause(&mut self) {
        self.session.reset();
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        // What is added meanwhile may be because the leader is back.
        let changed = self.fetcher.changed.notified();
        let _ = timeout(pause.min(self.fetcher.settings.backoff), changed).await;
    }

    /// Cuts logs, all of them before the checkpoints are written once; on a thread that may wait for the disk.
    pub(super) async fn truncate(&self, mut cuts: Vec<Cut>) {
        if cuts.is_empty() {
            return;
        }
        // Each is held until the checkpoints are written: once, and in the same order by all who do so.
        cuts.sort_by_key(|cut| (cut.partition.topic_id(), cut.partition.index()));
        cuts.dedup_by(|one, other| Arc::ptr_eq(&one.partition, &other.partition));
        let surroundings = Arc::clone(&self.fetcher.surroundings);
        let cutting = crate::env::blocking(move || {
            let mut guards = Vec::new();
            for Cut { partition, leader_epoch, position, truncation } in &cuts {
                match partition.truncate(*leader_epoch, *position, *truncation) {
                    Ok(guard) => guards.push(guard),
                    Err(error) => tracing::debug!(?partition, %error, "not truncated"),
                }
            }
            if !guards.is_empty() {
                (surroundings.write_checkpoints)();
            }
        });
        if let Err(error) = cutting.await {
            tracing::error!(%error, "truncation failed");
        }
    }
}

/// When the next partition may be fetched again.
fn next_time(state: &super::State) -> Option<Instant> {
    let waiting = state.waiting.iter().filter_map(|key| state.partitions.get(key)?.not_before);
    waiting.min()
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
