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
//! finds fewer than `min_bytes` waits for its partitions' changes, not by polling. Within a session only those
//! partitions are looked at that may have something to tell.
//!
//! A follower's fetch says first how far it is, which moves the high watermark, and reads up to the log's end. When
//! only the high watermark has moved since it was last told, a fetch that waits is answered soon, so that the follower
//! knows it before it is needed: when it is elected, or read from. Known differences from Kafka: there it learns with
//! the next record, or at the end of its wait.

mod waiting;

use super::fetch_answer::{Answer, PartitionAnswer, write};
use super::{Begun, Close, Leaders, RequestContext, read_replica};
use crate::broker::{
    Eligibility, FollowerFetch, IsolationLevel, MinOne, Partition, PartitionRead, ReadFrom,
    ReadParams,
};
use crate::env::cold;
use crate::env::net::SendQueue;
use crate::server::fetch_session::{FetchContext, Fetcher, Seen, SessionRequest, TopicKey, Wanted};
use ottla_protocol::messages::FetchRequest;
use ottla_protocol::{BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, Message, Offset, Reader};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    let mut fetch = Fetch::new(ctx, request);
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
    /// Those of `wanted` that are here, as they were when the request came.
    partitions: Vec<Option<Arc<Partition>>>,
    fetcher: Fetcher,
    /// The follower that asks, and its broker's registration.
    replica: Option<(BrokerId, BrokerEpoch)>,
    /// How many of `wanted` have told their leaders how far the follower is.
    noted: AtomicUsize,
    rack: String,
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
    /// The consumer should read from another replica.
    Elsewhere(PartitionRead, BrokerId),
    /// The read failed: the answer goes out at once.
    Failed(ErrorCode),
    /// There is no such partition, which hurries nothing, as in Kafka.
    Unknown(ErrorCode),
}

/// Why a partition cannot be read here.
enum Missing {
    Failed(ErrorCode),
    Unknown(ErrorCode),
}

impl From<Missing> for Found {
    fn from(missing: Missing) -> Self {
        let outcome = match missing {
            Missing::Failed(error) => Outcome::Failed(error),
            Missing::Unknown(error) => Outcome::Unknown(error),
        };
        Found { partition: None, outcome }
    }
}

impl Found {
    /// Bytes that count for `min_bytes`: a client whose limit lies within a batch does not wait for what it cannot get.
    fn available(&self) -> usize {
        match &self.outcome {
            Outcome::Read(read) => read.slice.as_ref().map_or(0, |slice| slice.available),
            Outcome::Elsewhere(..) | Outcome::Failed(_) | Outcome::Unknown(_) => 0,
        }
    }

    fn bytes(&self) -> usize {
        match &self.outcome {
            Outcome::Read(read) => read.slice.as_ref().map_or(0, |slice| slice.len),
            Outcome::Elsewhere(..) | Outcome::Failed(_) | Outcome::Unknown(_) => 0,
        }
    }

    /// Whether the client must hear of it now, however few bytes there are.
    fn is_urgent(&self) -> bool {
        match &self.outcome {
            Outcome::Read(read) => read.diverging.is_some(),
            Outcome::Elsewhere(..) | Outcome::Failed(_) => true,
            Outcome::Unknown(_) => false,
        }
    }

    /// Whether the follower does not know yet of what is committed, or was deleted.
    fn has_news_for(&self, wanted: &Wanted) -> bool {
        let Outcome::Read(read) = &self.outcome else { return false };
        let (told_high_watermark, told_start) = wanted.told;
        let known = |told: i64, own: i64| if told >= 0 { told } else { own };
        read.high_watermark.0 > known(told_high_watermark, wanted.high_watermark)
            || read.log_start_offset.0 > known(told_start, wanted.log_start_offset)
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
    fn new(ctx: &'a RequestContext, mut request: FetchRequest) -> Fetch<'a> {
        let replica = replica(ctx.version, &request);
        if let Some(replica) = replica {
            ctx.peer_broker.get_or_init(|| replica);
        }
        let fetcher = if replica.is_some() { Fetcher::Follower } else { Fetcher::Consumer };
        let session = SessionRequest {
            version: ctx.version,
            session_id: request.session_id,
            epoch: request.session_epoch,
            fetcher,
        };
        let max_bytes = positive(request.max_bytes).min(ctx.shared.settings.fetch_max_bytes);
        let min_bytes = positive(request.min_bytes).min(max_bytes);
        let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or_default();
        let isolation = match (fetcher, request.isolation_level) {
            (Fetcher::Follower, _) => IsolationLevel::LogEnd,
            (Fetcher::Consumer, 1) => IsolationLevel::ReadCommitted,
            (Fetcher::Consumer, _) => IsolationLevel::ReadUncommitted,
        };
        let rack = std::mem::take(&mut request.rack_id);
        let (wanted, forgotten) = partitions(ctx.version, request);
        let (context, wanted) = ctx.shared.fetch_sessions.begin(
            ctx.broker.clock().steady(),
            session,
            wanted,
            &forgotten,
        );
        let deadline = (wait_ms > 0).then(|| Instant::now() + Duration::from_millis(wait_ms));
        let mut fetch = Fetch {
            ctx,
            context,
            partitions: Vec::new(),
            wanted,
            fetcher,
            replica,
            noted: AtomicUsize::new(0),
            rack,
            isolation,
            min_bytes,
            max_bytes,
            deadline,
        };
        let here = fetch.wanted.iter().map(|wanted| fetch.find_partition(wanted).ok());
        fetch.partitions = here.collect();
        fetch.subscribe(0);
        fetch
    }

    /// Reads every partition, within the limit on all of them; `None` where the device has to be waited for.
    fn read_all_from_memory(&self) -> Option<Vec<Found>> {
        let mut limit = Limit::new(self);
        for at in 0..self.wanted.len() {
            if self.read_from_memory(at, &mut limit).is_some() {
                return None;
            }
        }
        Some(limit.all)
    }

    /// Reads every partition, those that are not in memory on a thread that may wait.
    async fn read_all(&self) -> Vec<Found> {
        let all: Vec<usize> = (0..self.wanted.len()).collect();
        self.read_some(&all).await
    }

    /// Reads these partitions, as [`Fetch::read_all`] does all.
    async fn read_some(&self, places: &[usize]) -> Vec<Found> {
        let mut limit = Limit::new(self);
        for at in places.iter().copied() {
            let Some(Look { partition, params }) = self.read_from_memory(at, &mut limit) else {
                continue;
            };
            let reader = Arc::clone(&partition);
            let read = cold::run(move || reader.read_cold(params)).await;
            let read = read.unwrap_or(Err(ErrorCode::KafkaStorageError));
            limit.take(self.found(at, partition, read));
        }
        limit.all
    }

    /// Reads one partition; gives what is still to be read where the device has to be waited for.
    fn read_from_memory(&self, at: usize, limit: &mut Limit) -> Option<Look> {
        let look = match self.look(at, limit) {
            Ok(look) => look,
            Err(missing) => {
                limit.take(missing.into());
                return None;
            }
        };
        match look.partition.read_from_memory(look.params).transpose() {
            Some(read) => limit.take(self.found(at, look.partition, read)),
            None => return Some(look),
        }
        None
    }

    /// What to read of a partition, or why nothing.
    fn look(&self, at: usize, limit: &Limit) -> Result<Look, Missing> {
        let wanted = &self.wanted[at];
        let partition = self.partition(at)?;
        // Consumers name their rack, and so may be sent to other replicas, from version 11 on (KIP-392).
        let from = match self.fetcher {
            Fetcher::Consumer if self.ctx.version >= 11 => ReadFrom::AnyReplica,
            Fetcher::Consumer | Fetcher::Follower => ReadFrom::Leader,
        };
        let params = ReadParams {
            offset: Offset(wanted.fetch_offset),
            max_bytes: positive(wanted.max_bytes).min(limit.left),
            min_one: limit.min_one,
            isolation: self.isolation,
            from,
            current_leader_epoch: LeaderEpoch(wanted.current_leader_epoch),
            last_fetched_epoch: LeaderEpoch(wanted.last_fetched_epoch),
            follower: self.follower_fetch(wanted, &partition),
            is_noted: self.noted.fetch_max(at + 1, Ordering::Relaxed) > at,
        };
        Ok(Look { partition, params })
    }

    /// What the leader is to note of the follower.
    fn follower_fetch(&self, wanted: &Wanted, partition: &Partition) -> Option<FollowerFetch> {
        let (replica, broker_epoch) = self.replica?;
        let image = self.ctx.broker.image();
        let broker = image.cluster.brokers.get(&replica).filter(|broker| broker.is_active());
        let topic = image.topics.get_by_id(&partition.topic_id());
        let registration = topic.and_then(|topic| topic.partition(partition.index()));
        // Its broker may have sent the fetch before the log directory failed.
        let is_online = registration.is_none_or(|it| image.cluster.has_directory_of(it, replica));
        let is_eligible = is_online
            && broker.is_some_and(|broker| broker_epoch.0 == -1 || broker.epoch == broker_epoch);
        Some(FollowerFetch {
            replica,
            broker_epoch,
            eligibility: match is_eligible {
                true => Eligibility::Eligible,
                false => Eligibility::Ineligible,
            },
            metadata_offset: image.offset,
            fetch_offset: Offset(wanted.fetch_offset),
            log_start_offset: Offset(wanted.log_start_offset),
        })
    }

    fn found(
        &self,
        at: usize,
        partition: Arc<Partition>,
        read: Result<PartitionRead, ErrorCode>,
    ) -> Found {
        let outcome = match read {
            Ok(read) => match self.preferred_replica(at, &partition) {
                Some(replica) => Outcome::Elsewhere(PartitionRead { slice: None, ..read }, replica),
                None => Outcome::Read(read),
            },
            Err(error) => Outcome::Failed(self.storage_error_for_old_clients(error)),
        };
        Found { partition: Some(partition), outcome }
    }

    fn preferred_replica(&self, at: usize, partition: &Partition) -> Option<BrokerId> {
        let is_asked = self.ctx.shared.settings.is_rack_aware
            && self.fetcher == Fetcher::Consumer
            && !self.rack.is_empty();
        if !is_asked {
            return None;
        }
        let offset = Offset(self.wanted[at].fetch_offset);
        read_replica::preferred(&self.ctx.broker, partition, &self.rack, offset)
    }

    fn partition(&self, at: usize) -> Result<Arc<Partition>, Missing> {
        match self.partitions.get(at) {
            Some(Some(partition)) if !partition.is_gone() => Ok(Arc::clone(partition)),
            _ => self.find_partition(&self.wanted[at]),
        }
    }

    fn find_partition(&self, wanted: &Wanted) -> Result<Arc<Partition>, Missing> {
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
                Missing::Failed(ErrorCode::InconsistentTopicId)
            }
            (ErrorCode::UnknownTopicId, Some(_)) => {
                Missing::Unknown(ErrorCode::UnknownTopicOrPartition)
            }
            (ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition, _) => {
                Missing::Unknown(error)
            }
            (error, _) => Missing::Failed(self.storage_error_for_old_clients(error)),
        })
    }

    fn storage_error_for_old_clients(&self, error: ErrorCode) -> ErrorCode {
        match error {
            ErrorCode::KafkaStorageError if self.ctx.version <= 5 => ErrorCode::NotLeaderOrFollower,
            error => error,
        }
    }

    /// Lets the session hear of the partitions from `from` on.
    fn subscribe(&self, from: usize) {
        if let FetchContext::Incremental(session) = &self.context {
            let all = self.wanted.iter().zip(&self.partitions).skip(from);
            session.subscribe(all.filter_map(|(wanted, it)| Some((wanted.member, it.as_ref()?))));
        }
    }

    fn has_quiet(&self) -> bool {
        matches!(&self.context, FetchContext::Incremental(session) if session.has_quiet())
    }

    fn is_complete(&self, all: &[Found]) -> bool {
        self.deadline.is_none()
            || (!self.has_quiet() && all.iter().all(|found| found.partition.is_none()))
            || all.iter().any(Found::is_urgent)
            || all.iter().map(Found::available).sum::<usize>() >= self.min_bytes
    }

    fn answer(&self, found: Vec<Found>, out: &mut SendQueue) {
        let all = self.wanted.iter().zip(&self.partitions).zip(&found);
        let all: Vec<(Wanted, Seen)> =
            all.map(|((wanted, watched), found)| see(wanted, watched.as_ref(), found)).collect();
        let sessions = &self.ctx.shared.fetch_sessions;
        let finished = self.context.finish(sessions, self.ctx.broker.clock().steady(), &all);
        let mut answer = Answer {
            error: finished.error,
            session_id: finished.session_id,
            partitions: Vec::with_capacity(found.len()),
            endpoints: Vec::new(),
        };
        for (((wanted, _), found), answered) in all.into_iter().zip(found).zip(finished.answered) {
            if answered {
                if let (Some((replica, _)), Some(partition)) = (self.replica, &found.partition) {
                    partition.note_sent(replica, found.bytes());
                }
                answer.partitions.push(self.partition_answer(wanted, found));
            }
        }
        self.name_leaders(&mut answer);
        write(self.ctx.correlation_id, self.ctx.version, &answer, out);
    }

    fn partition_answer(&self, wanted: Wanted, found: Found) -> PartitionAnswer {
        let Wanted { topic, partition, .. } = wanted;
        match found.outcome {
            Outcome::Read(read) => self.read_answer(topic, partition, read),
            Outcome::Elsewhere(read, replica) => PartitionAnswer {
                preferred_read_replica: Some(replica),
                ..self.read_answer(topic, partition, read)
            },
            Outcome::Failed(error) => PartitionAnswer {
                aborted: None,
                ..PartitionAnswer::unknown(topic, partition, error)
            },
            Outcome::Unknown(error) => PartitionAnswer::unknown(topic, partition, error),
        }
    }

    fn read_answer(&self, topic: TopicKey, partition: i32, read: PartitionRead) -> PartitionAnswer {
        PartitionAnswer {
            high_watermark: read.high_watermark.0,
            last_stable_offset: read.last_stable_offset.0,
            log_start_offset: read.log_start_offset.0,
            aborted: (self.isolation == IsolationLevel::ReadCommitted).then_some(read.aborted),
            diverging: read.diverging.filter(|_| self.ctx.version >= 12),
            records: read.slice,
            ..PartitionAnswer::unknown(topic, partition, ErrorCode::None)
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

/// What the session must know of a read of the partition that it is told of.
fn see(wanted: &Wanted, watched: Option<&Arc<Partition>>, found: &Found) -> (Wanted, Seen) {
    let mut wanted = wanted.clone();
    if wanted.name.is_none() {
        wanted.name = found.partition.as_ref().map(|partition| partition.topic().clone());
    }
    let seen = match &found.outcome {
        Outcome::Read(read) | Outcome::Elsewhere(read, _) => Seen {
            high_watermark: read.high_watermark.0,
            log_start_offset: read.log_start_offset.0,
            bytes: found.bytes(),
            error: ErrorCode::None,
            has_news: found.is_urgent(),
            is_quiet: matches!(&found.outcome, Outcome::Read(read) if read.is_quiet)
                && watched.zip(found.partition.as_ref()).is_some_and(|(a, b)| Arc::ptr_eq(a, b)),
        },
        Outcome::Failed(error) | Outcome::Unknown(error) => Seen {
            high_watermark: -1,
            log_start_offset: -1,
            bytes: 0,
            error: *error,
            has_news: false,
            is_quiet: false,
        },
    };
    (wanted, seen)
}

/// The follower that asks; none for a consumer.
fn replica(version: i16, request: &FetchRequest) -> Option<(BrokerId, BrokerEpoch)> {
    let (id, epoch) = match version {
        ..15 => (request.replica_id, -1),
        _ => (request.replica_state.replica_id, request.replica_state.replica_epoch),
    };
    (id >= 0).then_some((BrokerId(id), BrokerEpoch(epoch)))
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
            last_fetched_epoch: if version >= 12 { one.last_fetched_epoch } else { -1 },
            log_start_offset: one.log_start_offset,
            high_watermark: one.high_watermark,
            told: (-1, -1),
            member: 0,
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
