//! Fetch (api key 1), versions 4-18: record batches as they lie on disk.
//!
//! - v4: isolation level, aborted transactions (KIP-98). - v5: log start offset.
//! - v6: KAFKA_STORAGE_ERROR, which v5 and before see as NOT_LEADER_OR_FOLLOWER.
//! - v7: incremental sessions (KIP-227). - v9: the client's leader epoch (KIP-320).
//! - v10: the client can read zstd (KIP-110); one that cannot is no longer refused, as in Kafka 4.
//! - v11: rack and preferred read replica (KIP-392). - v12: flexible, diverging epoch (KIP-595).
//! - v13: topic ids (KIP-516). - v15: replica state (KIP-903). - v16: leader and endpoints (KIP-951).
//! - v17: directory id (KIP-853). - v18: the follower's high watermark (KIP-1166).
//!
//! The answer is written by hand: its header, and regions of the segments' files that the kernel sends. A fetch that
//! finds fewer than `min_bytes` waits for its partitions' changes, not by polling.
//! Known differences from Kafka: none for consumers.

use super::fetch_answer::{Answer, PartitionAnswer, write};
use super::waiting::{Watch, any_changed};
use super::{Begun, Close, Leaders, RequestContext};
use crate::broker::{IsolationLevel, MinOne, Partition, PartitionRead, ReadParams};
use crate::env::cold;
use crate::env::net::SendQueue;
use crate::server::fetch_session::{FetchContext, Fetcher, Seen, SessionRequest, TopicKey, Wanted};
use ottla_protocol::messages::FetchRequest;
use ottla_protocol::{ErrorCode, LeaderEpoch, Message, Offset, Reader};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Looks at one request, and answers it unless there is too little to answer with yet.
///
/// # Errors
/// [`Close::Malformed`].
pub(crate) fn begin<'a>(
    ctx: &'a RequestContext,
    mut body: Reader,
    out: &mut SendQueue,
) -> Result<Begun<'a>, Close> {
    let request = FetchRequest::decode(&mut body, ctx.version)?;
    let fetch = Fetch::new(ctx, request);
    if let Some(found) = fetch.read_all_from_memory()
        && fetch.is_complete(&found)
    {
        fetch.answer(found, out);
        return Ok(Begun::Done);
    }
    Ok(Begun::Pending(Box::pin(async move {
        let found = fetch.wait().await;
        let mut answer = SendQueue::default();
        fetch.answer(found, &mut answer);
        Ok(answer)
    })))
}

/// One fetch request, with everything that its session adds.
struct Fetch<'a> {
    ctx: &'a RequestContext,
    context: FetchContext,
    wanted: Vec<Wanted>,
    fetcher: Fetcher,
    isolation: IsolationLevel,
    min_bytes: usize,
    max_bytes: usize,
    deadline: Option<Instant>,
}

/// What one partition gave.
struct Found {
    partition: Option<Arc<Partition>>,
    outcome: Outcome,
}

enum Outcome {
    Read(PartitionRead),
    /// The read failed: the answer goes out at once.
    Failed(ErrorCode),
    /// There is no such partition, which hurries nothing, as in Kafka.
    Unknown(ErrorCode),
}

impl Found {
    /// Bytes that count for `min_bytes`: a client whose limit lies within a batch does not wait for what it cannot get.
    fn available(&self) -> usize {
        match &self.outcome {
            Outcome::Read(read) => read.slice.as_ref().map_or(0, |slice| slice.available),
            Outcome::Failed(_) | Outcome::Unknown(_) => 0,
        }
    }

    fn bytes(&self) -> usize {
        match &self.outcome {
            Outcome::Read(read) => read.slice.as_ref().map_or(0, |slice| slice.len),
            Outcome::Failed(_) | Outcome::Unknown(_) => 0,
        }
    }
}

/// A partition and what to read of it.
struct Look {
    partition: Arc<Partition>,
    params: ReadParams,
}

/// What was found so far, and how much more may be.
struct Limit {
    all: Vec<Found>,
    left: usize,
    min_one: MinOne,
}

impl Limit {
    fn new(fetch: &Fetch<'_>) -> Self {
        let all = Vec::with_capacity(fetch.wanted.len());
        Limit { all, left: fetch.max_bytes, min_one: MinOne::Yes }
    }

    fn take(&mut self, found: Found) {
        let bytes = found.bytes();
        if bytes > 0 {
            // Only the first partition that has data may go over the limits (KIP-74).
            self.min_one = MinOne::No;
        }
        self.left = self.left.saturating_sub(bytes);
        self.all.push(found);
    }
}

impl<'a> Fetch<'a> {
    fn new(ctx: &'a RequestContext, request: FetchRequest) -> Fetch<'a> {
        let replica_id =
            if ctx.version >= 15 { request.replica_state.replica_id } else { request.replica_id };
        let fetcher = if replica_id >= 0 { Fetcher::Follower } else { Fetcher::Consumer };
        let session = SessionRequest {
            version: ctx.version,
            session_id: request.session_id,
            epoch: request.session_epoch,
            fetcher,
        };
        let max_bytes = positive(request.max_bytes).min(ctx.shared.settings.fetch_max_bytes);
        let min_bytes = positive(request.min_bytes).min(max_bytes);
        let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or_default();
        let isolation = match request.isolation_level {
            1 => IsolationLevel::ReadCommitted,
            _ => IsolationLevel::ReadUncommitted,
        };
        let (wanted, forgotten) = partitions(ctx.version, request);
        let (context, wanted) =
            ctx.shared.fetch_sessions.begin(ctx.broker.clock().now(), session, wanted, &forgotten);
        let deadline = (wait_ms > 0).then(|| Instant::now() + Duration::from_millis(wait_ms));
        Fetch { ctx, context, wanted, fetcher, isolation, min_bytes, max_bytes, deadline }
    }

    /// Reads every partition, within the limit on all of them; `None` where the device has to be waited for.
    fn read_all_from_memory(&self) -> Option<Vec<Found>> {
        let mut limit = Limit::new(self);
        for wanted in &self.wanted {
            if self.read_from_memory(wanted, &mut limit).is_some() {
                return None;
            }
        }
        Some(limit.all)
    }

    /// Reads every partition, those that are not in memory on a thread that may wait.
    async fn read_all(&self) -> Vec<Found> {
        let mut limit = Limit::new(self);
        for wanted in &self.wanted {
            let Some(Look { partition, params }) = self.read_from_memory(wanted, &mut limit) else {
                continue;
            };
            let reader = Arc::clone(&partition);
            let read = cold::run(move || reader.read_cold(params)).await;
            let read = read.unwrap_or(Err(ErrorCode::KafkaStorageError));
            limit.take(self.found(partition, read));
        }
        limit.all
    }

    /// Reads one partition; gives what is still to be read where the device has to be waited for.
    fn read_from_memory(&self, wanted: &Wanted, limit: &mut Limit) -> Option<Look> {
        let look = match self.look(wanted, limit) {
            Ok(look) => look,
            Err(found) => {
                limit.take(found);
                return None;
            }
        };
        match look.partition.read_from_memory(look.params).transpose() {
            Some(read) => limit.take(self.found(look.partition, read)),
            None => return Some(look),
        }
        None
    }

    /// What to read of a partition, or why nothing.
    fn look(&self, wanted: &Wanted, limit: &Limit) -> Result<Look, Found> {
        let partition =
            self.partition(wanted).map_err(|outcome| Found { partition: None, outcome })?;
        if self.fetcher == Fetcher::Follower {
            // No replica but the leader's own exists, so nobody may follow.
            let outcome = Outcome::Failed(ErrorCode::NotLeaderOrFollower);
            return Err(Found { partition: Some(partition), outcome });
        }
        let params = ReadParams {
            offset: Offset(wanted.fetch_offset),
            max_bytes: positive(wanted.max_bytes).min(limit.left),
            min_one: limit.min_one,
            isolation: self.isolation,
            current_leader_epoch: LeaderEpoch(wanted.current_leader_epoch),
        };
        Ok(Look { partition, params })
    }

    fn found(&self, partition: Arc<Partition>, read: Result<PartitionRead, ErrorCode>) -> Found {
        let outcome = match read {
            Ok(read) => Outcome::Read(read),
            Err(error) => Outcome::Failed(self.storage_error_for_old_clients(error)),
        };
        Found { partition: Some(partition), outcome }
    }

    fn partition(&self, wanted: &Wanted) -> Result<Arc<Partition>, Outcome> {
        let broker = &self.ctx.broker;
        let found = match &wanted.topic {
            TopicKey::Name(name) => broker.partition(name, wanted.partition),
            TopicKey::Id(id) => broker.partition_by_id(id, wanted.partition),
        };
        found.map_err(|error| match (error, &wanted.name) {
            (ErrorCode::UnknownTopicId, Some(name))
                if broker.image().topics.get(name).is_some() =>
            {
                // The name that the session knows is another topic's by now.
                Outcome::Failed(ErrorCode::InconsistentTopicId)
            }
            (ErrorCode::UnknownTopicId, Some(_)) => {
                Outcome::Unknown(ErrorCode::UnknownTopicOrPartition)
            }
            (ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition, _) => {
                Outcome::Unknown(error)
            }
            (error, _) => Outcome::Failed(self.storage_error_for_old_clients(error)),
        })
    }

    fn storage_error_for_old_clients(&self, error: ErrorCode) -> ErrorCode {
        match error {
            ErrorCode::KafkaStorageError if self.ctx.version <= 5 => ErrorCode::NotLeaderOrFollower,
            error => error,
        }
    }

    fn is_complete(&self, all: &[Found]) -> bool {
        self.deadline.is_none()
            || all.iter().all(|found| found.partition.is_none())
            || all.iter().any(|found| matches!(found.outcome, Outcome::Failed(_)))
            || all.iter().map(Found::available).sum::<usize>() >= self.min_bytes
    }

    /// Reads again whenever a partition changes, until there is enough, time is up or the server stops.
    async fn wait(&self) -> Vec<Found> {
        let expired = tokio::time::sleep_until(self.deadline.unwrap_or_else(Instant::now));
        let stopped = self.ctx.shared.stopped();
        tokio::pin!(expired, stopped);
        let watched: Vec<_> =
            self.wanted.iter().filter_map(|wanted| self.partition(wanted).ok()).collect();
        loop {
            let mut watches: Vec<Watch<'_>> =
                watched.iter().map(|partition| Box::pin(partition.changed())).collect();
            let found = self.read_all().await;
            if self.is_complete(&found) {
                return found;
            }
            tokio::select! {
                biased;
                () = any_changed(&mut watches) => {}
                () = &mut expired => return self.read_all().await,
                () = &mut stopped => return found,
            }
        }
    }

    fn answer(&self, found: Vec<Found>, out: &mut SendQueue) {
        let all: Vec<(Wanted, Seen)> =
            self.wanted.iter().zip(&found).map(|(wanted, found)| see(wanted, found)).collect();
        let sessions = &self.ctx.shared.fetch_sessions;
        let finished = self.context.finish(sessions, self.ctx.broker.clock().now(), &all);
        let mut answer = Answer {
            error: finished.error,
            session_id: finished.session_id,
            partitions: Vec::with_capacity(found.len()),
            endpoints: Vec::new(),
        };
        for (((wanted, _), found), answered) in all.into_iter().zip(found).zip(finished.answered) {
            if answered {
                answer.partitions.push(self.partition_answer(wanted, found));
            }
        }
        self.name_leaders(&mut answer);
        write(self.ctx.correlation_id, self.ctx.version, &answer, out);
    }

    fn partition_answer(&self, wanted: Wanted, found: Found) -> PartitionAnswer {
        let Wanted { topic, partition, .. } = wanted;
        match found.outcome {
            Outcome::Read(read) => {
                let aborted =
                    (self.isolation == IsolationLevel::ReadCommitted).then_some(read.aborted);
                PartitionAnswer {
                    topic,
                    partition,
                    error: ErrorCode::None,
                    high_watermark: read.high_watermark.0,
                    last_stable_offset: read.last_stable_offset.0,
                    log_start_offset: read.log_start_offset.0,
                    aborted,
                    current_leader: None,
                    records: read.slice,
                }
            }
            Outcome::Failed(error) => PartitionAnswer {
                aborted: None,
                ..PartitionAnswer::unknown(topic, partition, error)
            },
            Outcome::Unknown(error) => PartitionAnswer::unknown(topic, partition, error),
        }
    }

    fn name_leaders(&self, answer: &mut Answer) {
        let moved = |one: &PartitionAnswer| {
            matches!(one.error, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch)
        };
        if self.ctx.version < 16 || !answer.partitions.iter().any(moved) {
            return;
        }
        let image = self.ctx.broker.image();
        let mut leaders = Leaders::new(self.ctx, &image);
        for one in answer.partitions.iter_mut().filter(|one| moved(one)) {
            let topic = match &one.topic {
                TopicKey::Name(name) => image.topics.get(name),
                TopicKey::Id(id) => image.topics.get_by_id(id),
            };
            one.current_leader = Some(leaders.find(topic, one.partition));
        }
        answer.endpoints = leaders.endpoints;
    }
}

/// What the session must know of a read.
fn see(wanted: &Wanted, found: &Found) -> (Wanted, Seen) {
    let mut wanted = wanted.clone();
    if wanted.name.is_none() {
        wanted.name = found.partition.as_ref().map(|partition| partition.topic().clone());
    }
    let seen = match &found.outcome {
        Outcome::Read(read) => Seen {
            high_watermark: read.high_watermark.0,
            log_start_offset: read.log_start_offset.0,
            bytes: found.bytes(),
            error: ErrorCode::None,
            has_news: false,
        },
        Outcome::Failed(error) | Outcome::Unknown(error) => Seen {
            high_watermark: -1,
            log_start_offset: -1,
            bytes: 0,
            error: *error,
            has_news: false,
        },
    };
    (wanted, seen)
}

type Forgotten = Vec<(TopicKey, i32)>;

/// The partitions that the request adds or changes, and those that it forgets.
fn partitions(version: i16, request: FetchRequest) -> (Vec<Wanted>, Forgotten) {
    let key = |name: &str, id| match version {
        ..=12 => TopicKey::Name(name.into()),
        _ => TopicKey::Id(id),
    };
    let mut wanted = Vec::new();
    for topic in request.topics {
        let key = key(&topic.topic, topic.topic_id);
        let name = match &key {
            TopicKey::Name(name) => Some(name.clone()),
            TopicKey::Id(_) => None,
        };
        wanted.extend(topic.partitions.iter().map(|one| Wanted {
            topic: key.clone(),
            name: name.clone(),
            partition: one.partition,
            fetch_offset: one.fetch_offset,
            max_bytes: one.partition_max_bytes,
            current_leader_epoch: one.current_leader_epoch,
            last_fetched_epoch: one.last_fetched_epoch,
        }));
    }
    let mut forgotten = Vec::new();
    for topic in request.forgotten_topics_data {
        let key = key(&topic.topic, topic.topic_id);
        forgotten.extend(topic.partitions.iter().map(|index| (key.clone(), *index)));
    }
    (wanted, forgotten)
}

fn positive(number: i32) -> usize {
    usize::try_from(number).unwrap_or_default()
}
