//! Fetchers against leaders in memory, which keep sessions and let fetches wait as a broker does.

use super::*;
use crate::broker::Image;
use crate::broker::fixture::{
    self, LONG, TOPIC_ID, batch, leadership, log_params, partition_params, read_params,
};
use crate::broker::partition::{IsolationLevel, ReadParams};
use crate::log::AppendOrigin;
use crate::machines::replica::{Eligibility, FollowerFetch, Leadership};
use bytes::Bytes;
use ottla_protocol::messages::fetch_request::FetchPartition;
use ottla_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use ottla_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use ottla_protocol::record::BatchParams;
use ottla_protocol::{BrokerEpoch, ErrorCode, Offset, Timestamp};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const LEADER: BrokerId = BrokerId(1);
const FOLLOWER: BrokerId = BrokerId(2);
/// The leader: its partitions, and what is to go wrong.
#[derive(Default)]
struct Leader {
    partitions: Mutex<BTreeMap<i32, Arc<Partition>>>,
    errors: Mutex<BTreeMap<i32, ErrorCode>>,
    is_down: AtomicBool,
    requests: Mutex<Vec<FetchRequest>>,
    /// Sessions are forgotten.
    forgets: AtomicBool,
    connections: AtomicUsize,
}

struct Connection {
    leader: Arc<Leader>,
    session: Mutex<BTreeMap<i32, FetchPartition>>,
}

impl LeaderEndpoints for Arc<Leader> {
    fn endpoint(&self, leader: BrokerId) -> Arc<dyn LeaderEndpoint> {
        assert_eq!(leader, LEADER);
        self.connections.fetch_add(1, Ordering::SeqCst);
        Arc::new(Connection { leader: Arc::clone(self), session: Mutex::default() })
    }
}

impl Leader {
    fn partition(&self, index: i32) -> Arc<Partition> {
        Arc::clone(&self.partitions.lock()[&index])
    }

    fn read(&self, asked: &FetchPartition, broker_epoch: i64) -> PartitionData {
        let mut data = PartitionData { partition_index: asked.partition, ..Default::default() };
        if let Some(error) = self.errors.lock().get(&asked.partition) {
            data.error_code = error.code();
            return data;
        }
        let follower = FollowerFetch {
            replica: FOLLOWER,
            broker_epoch: BrokerEpoch(broker_epoch),
            eligibility: Eligibility::Eligible,
            metadata_offset: Offset(0),
            fetch_offset: Offset(asked.fetch_offset),
            log_start_offset: Offset(asked.log_start_offset),
        };
        let read = self.partition(asked.partition).read(ReadParams {
            max_bytes: 200,
            isolation: IsolationLevel::LogEnd,
            current_leader_epoch: LeaderEpoch(asked.current_leader_epoch),
            last_fetched_epoch: LeaderEpoch(asked.last_fetched_epoch),
            follower: Some(follower),
            ..read_params(Offset(asked.fetch_offset))
        });
        match read {
            Ok(read) => {
                data.high_watermark = read.high_watermark.0;
                data.log_start_offset = read.log_start_offset.0;
                data.records = read.slice.map(|slice| slice.to_bytes().unwrap());
                if let Some((epoch, end_offset)) = read.diverging {
                    data.diverging_epoch =
                        EpochEndOffset { epoch: epoch.0, end_offset: end_offset.0 };
                }
            }
            Err(error) => data.error_code = error.code(),
        }
        data
    }
}

impl Connection {
    /// The partitions that the request is about.
    fn asked(&self, request: &FetchRequest) -> Option<Vec<FetchPartition>> {
        let given = || request.topics.iter().flat_map(|topic| topic.partitions.iter().cloned());
        if request.session_epoch == -1 {
            return Some(given().collect());
        }
        if request.session_epoch > 0 && self.leader.forgets.swap(false, Ordering::SeqCst) {
            return None;
        }
        let mut session = self.session.lock();
        if request.session_epoch == 0 {
            session.clear();
        }
        session.extend(given().map(|one| (one.partition, one)));
        for index in request.forgotten_topics_data.iter().flat_map(|topic| &topic.partitions) {
            session.remove(index);
        }
        Some(session.values().cloned().collect())
    }

    async fn answer(&self, request: FetchRequest) -> Result<FetchResponse, EndpointError> {
        if self.leader.is_down.load(Ordering::SeqCst) {
            return Err(EndpointError("down".to_owned()));
        }
        self.leader.requests.lock().push(request.clone());
        let Some(asked) = self.asked(&request) else {
            let error_code = ErrorCode::FetchSessionIdNotFound.code();
            return Ok(FetchResponse { error_code, ..Default::default() });
        };
        let expired = Instant::now() + Duration::from_millis(request.max_wait_ms as u64);
        let partitions = loop {
            let held: Vec<Arc<Partition>> =
                asked.iter().map(|one| self.leader.partition(one.partition)).collect();
            let mut grown: Vec<_> = held.iter().map(|it| Box::pin(it.grown())).collect();
            let epoch = request.replica_state.replica_epoch;
            let all: Vec<_> = asked.iter().map(|one| self.leader.read(one, epoch)).collect();
            let has_news = |data: &PartitionData| {
                let has_records = data.records.as_ref().is_some_and(|it| !it.is_empty());
                let session = self.session.lock();
                let given = asked.iter().find(|one| one.partition == data.partition_index);
                let known = session.get(&data.partition_index).or(given);
                let known = known.map(|one| one.high_watermark);
                has_records
                    || data.error_code != 0
                    || data.diverging_epoch.end_offset >= 0
                    || known.is_some_and(|known| known < data.high_watermark)
            };
            let news: Vec<_> = all.into_iter().filter(|data| has_news(data)).collect();
            if !news.is_empty() {
                break news;
            }
            let any = std::future::poll_fn(|cx| {
                let is_ready = grown.iter_mut().any(|it| it.as_mut().poll(cx).is_ready());
                if is_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            });
            if tokio::time::timeout_at(expired, any).await.is_err() {
                break Vec::new();
            }
        };
        for data in &partitions {
            if let Some(one) = self.session.lock().get_mut(&data.partition_index) {
                one.high_watermark = data.high_watermark;
            }
        }
        let topic = FetchableTopicResponse { topic_id: TOPIC_ID, partitions, ..Default::default() };
        let session_id = if request.session_epoch == -1 { 0 } else { 5 };
        Ok(FetchResponse { session_id, responses: vec![topic], ..Default::default() })
    }
}

impl LeaderEndpoint for Connection {
    fn fetch(
        &self,
        version: i16,
        request: FetchRequest,
    ) -> BoxFuture<'_, Result<FetchResponse, EndpointError>> {
        assert!(version >= 13, "topics go by id");
        Box::pin(self.answer(request))
    }

    fn list_offsets(
        &self,
        _version: i16,
        request: ListOffsetsRequest,
    ) -> BoxFuture<'_, Result<ListOffsetsResponse, EndpointError>> {
        let topics = request.topics.into_iter().map(|topic| ListOffsetsTopicResponse {
            name: topic.name,
            partitions: topic
                .partitions
                .iter()
                .map(|asked| {
                    let partition = self.leader.partition(asked.partition_index);
                    let offset = match asked.timestamp {
                        -1 => partition.log_end_offset(),
                        _ => partition.log_start_offset(),
                    };
                    ListOffsetsPartitionResponse {
                        partition_index: asked.partition_index,
                        offset: offset.0,
                        ..Default::default()
                    }
                })
                .collect(),
        });
        let response = ListOffsetsResponse { topics: topics.collect(), ..Default::default() };
        Box::pin(async move { Ok(response) })
    }
}

struct World {
    dir: tempfile::TempDir,
    leader: Arc<Leader>,
    followers: BTreeMap<i32, Arc<Partition>>,
    fetchers: Arc<Fetchers>,
    checkpoints: Arc<AtomicUsize>,
}

fn partition(dir: &std::path::Path, broker_id: BrokerId, index: i32) -> Arc<Partition> {
    let log = log_params(&dir.join(broker_id.to_string()), index);
    Partition::new(partition_params(broker_id, log))
}

fn lead(partition: &Partition, epoch: i32) {
    partition.lead(leadership(epoch, &[LEADER, FOLLOWER])).unwrap();
}

/// The other one is not in sync.
fn lead_alone(partition: &Partition, epoch: i32, leader: BrokerId) {
    let isr = vec![leader];
    let leadership = Leadership { isr, ..leadership(epoch, &[LEADER, FOLLOWER]) };
    partition.lead(leadership).unwrap();
}

fn append(partition: &Arc<Partition>, value: &[u8]) {
    let batch = batch(BatchParams::default(), Timestamp(1), &[value]);
    partition.append(batch, 1, AppendOrigin::Client).unwrap();
}

fn contents(partition: &Partition) -> Bytes {
    let mut bytes = Vec::new();
    let replayed = partition.replay(|_, batch| {
        bytes.extend_from_slice(batch);
        Ok(())
    });
    replayed.unwrap();
    bytes.into()
}

impl World {
    fn new(partitions: i32, wait_max_ms: i32) -> World {
        let dir = tempfile::tempdir().unwrap();
        let leader = Arc::new(Leader::default());
        let mut followers = BTreeMap::new();
        for index in 0..partitions {
            let led = partition(dir.path(), LEADER, index);
            lead(&led, 0);
            leader.partitions.lock().insert(index, led);
            followers.insert(index, partition(dir.path(), FOLLOWER, index));
        }
        let fetchers = Fetchers::new(FetchSettings {
            node_id: FOLLOWER,
            fetchers: 1,
            partition_max_bytes: 1 << 20,
            response_max_bytes: 10 << 20,
            min_bytes: 1,
            wait_max_ms,
            backoff: Duration::from_millis(50),
            request_timeout: LONG,
        });
        let checkpoints = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&checkpoints);
        fetchers.start(Surroundings {
            endpoints: Box::new(Arc::clone(&leader)),
            image: Arc::new(ArcSwap::from_pointee(Image::default())),
            write_checkpoints: Box::new(move || {
                counted.fetch_add(1, Ordering::SeqCst);
            }),
            leader_lost: Box::new(|_| {}),
            runtime: Handle::current(),
        });
        World { dir, leader, followers, fetchers, checkpoints }
    }

    fn led(&self, index: i32) -> Arc<Partition> {
        self.leader.partition(index)
    }

    fn follow(&self, index: i32, epoch: i32) {
        let partition = &self.followers[&index];
        partition.follow(LEADER, LeaderEpoch(epoch), epoch);
        self.fetchers.follow(Arc::clone(partition), LEADER, LeaderEpoch(epoch));
    }

    fn follow_all(&self) {
        for index in self.followers.keys() {
            self.follow(*index, 0);
        }
        self.fetchers.wake();
    }

    /// Waits until the follower has everything, and knows that it is committed.
    async fn copied(&self, index: i32) {
        let (led, own) = (self.led(index), Arc::clone(&self.followers[&index]));
        fixture::until("the copy", || {
            own.log_end_offset() == led.log_end_offset()
                && own.high_watermark() == led.log_end_offset()
        })
        .await;
        assert_eq!(contents(&led), contents(&own));
    }
}

#[tokio::test]
async fn records_and_high_watermark_are_copied() {
    let world = World::new(1, 500);
    for n in 0..50u8 {
        append(&world.led(0), &[n; 60]);
    }
    world.follow_all();
    world.copied(0).await;
    append(&world.led(0), b"more");
    world.copied(0).await;
    assert_eq!(world.led(0).high_watermark(), Offset(51));
    world.fetchers.stop().await;
    append(&world.led(0), b"nobody fetches this");
    assert_eq!(world.followers[&0].log_end_offset(), Offset(51));
}

/// The leader keeps the first partition's fetch for a minute.
#[tokio::test]
async fn a_partition_that_comes_while_a_fetch_waits_is_fetched_at_once() {
    let world = World::new(3, 60_000);
    world.follow(0, 0);
    world.fetchers.wake();
    fixture::until("a fetch", || !world.leader.requests.lock().is_empty()).await;
    append(&world.led(1), b"one");
    world.follow(1, 0);
    world.fetchers.wake();
    world.copied(1).await;
    append(&world.led(2), b"two");
    world.follow(2, 0);
    world.fetchers.wake();
    world.copied(2).await;
    // The fetch that waits takes all over.
    append(&world.led(0), b"zero");
    world.copied(0).await;
    for index in 0..3 {
        append(&world.led(index), b"again");
        world.copied(index).await;
    }
    world.fetchers.stop().await;
}

#[tokio::test]
async fn an_error_holds_up_its_own_partition_only() {
    let world = World::new(2, 60_000);
    world.leader.errors.lock().insert(1, ErrorCode::UnknownLeaderEpoch);
    append(&world.led(0), b"a");
    append(&world.led(1), b"b");
    world.follow_all();
    world.copied(0).await;
    append(&world.led(0), b"c");
    world.copied(0).await;
    assert_eq!(world.followers[&1].log_end_offset(), Offset(0));
    world.leader.errors.lock().clear();
    world.copied(1).await;
    world.fetchers.stop().await;
}

#[tokio::test]
async fn partitions_without_news_are_in_no_request() {
    let world = World::new(20, 60_000);
    world.follow_all();
    fixture::until("a fetch", || !world.leader.requests.lock().is_empty()).await;
    for _ in 0..5 {
        append(&world.led(7), b"x");
        world.copied(7).await;
    }
    let requests = std::mem::take(&mut *world.leader.requests.lock());
    let sizes: Vec<usize> = requests
        .iter()
        .map(|request| request.topics.iter().map(|topic| topic.partitions.len()).sum())
        .collect();
    assert_eq!(sizes[0], 20);
    assert!(sizes[1..].iter().all(|size| *size <= 1), "{sizes:?}");
    assert!(requests[1..].iter().all(|it| it.session_id == 5), "{requests:?}");
    world.fetchers.stop().await;
}

#[tokio::test]
async fn a_session_that_the_leader_forgot_is_begun_anew() {
    let world = World::new(2, 60_000);
    world.follow_all();
    append(&world.led(0), b"a");
    world.copied(0).await;
    world.leader.forgets.store(true, Ordering::SeqCst);
    append(&world.led(1), b"b");
    world.copied(1).await;
    append(&world.led(0), b"c");
    world.copied(0).await;
    world.fetchers.stop().await;
}

#[tokio::test]
async fn what_the_leader_does_not_have_is_cut_and_the_checkpoints_are_written() {
    let world = World::new(1, 60_000);
    let own = Arc::clone(&world.followers[&0]);
    append(&world.led(0), b"same");
    world.follow_all();
    world.copied(0).await;
    // Both go on by themselves: the follower as a leader of epoch 1, whom nobody followed.
    lead_alone(&own, 1, FOLLOWER);
    append(&own, b"lost 1");
    append(&own, b"lost 2");
    lead(&world.led(0), 2);
    append(&world.led(0), b"kept");
    world.follow(0, 2);
    world.fetchers.wake();
    world.copied(0).await;
    assert_eq!(own.log_end_offset(), Offset(2));
    assert!(world.checkpoints.load(Ordering::SeqCst) >= 1);
    world.fetchers.stop().await;
}

#[tokio::test]
async fn a_log_that_ends_before_the_leaders_starts_goes_on_there() {
    let world = World::new(1, 60_000);
    let led = world.led(0);
    lead_alone(&led, 1, LEADER);
    for n in 0..10u8 {
        append(&led, &[n]);
    }
    led.delete_records(Offset(6)).unwrap();
    world.follow(0, 1);
    world.fetchers.wake();
    let own = Arc::clone(&world.followers[&0]);
    fixture::until("the copy", || own.log_end_offset() == Offset(10)).await;
    assert_eq!(own.log_start_offset(), Offset(6));
    assert_eq!(contents(&led), contents(&own));
    world.fetchers.stop().await;
}

/// The leader's log starts within a batch.
#[tokio::test]
async fn a_start_within_a_batch_is_copied_with_the_whole_batch() {
    let world = World::new(1, 60_000);
    let led = world.led(0);
    lead(&led, 1);
    let batch = batch(BatchParams::default(), Timestamp(1), &[b"a", b"b", b"c"]);
    led.append(batch, 1, AppendOrigin::Client).unwrap();
    lead_alone(&led, 2, LEADER);
    led.delete_records(Offset(1)).unwrap();
    world.follow(0, 2);
    world.fetchers.wake();
    let own = Arc::clone(&world.followers[&0]);
    fixture::until("the copy", || {
        own.log_end_offset() == Offset(3) && own.log_start_offset() == Offset(1)
    })
    .await;
    world.fetchers.stop().await;
}

#[tokio::test]
async fn a_leader_that_was_down_is_found_again() {
    let world = World::new(1, 60_000);
    world.leader.is_down.store(true, Ordering::SeqCst);
    append(&world.led(0), b"a");
    world.follow_all();
    tokio::time::sleep(Duration::from_millis(60)).await;
    world.leader.is_down.store(false, Ordering::SeqCst);
    world.copied(0).await;
    world.fetchers.stop().await;
}

#[tokio::test]
async fn what_is_no_longer_followed_is_not_fetched_and_others_are() {
    let world = World::new(2, 60_000);
    world.follow_all();
    append(&world.led(0), b"a");
    append(&world.led(1), b"a");
    world.copied(0).await;
    world.copied(1).await;
    world.fetchers.unfollow(&world.followers[&0]);
    append(&world.led(0), b"b");
    append(&world.led(1), b"b");
    world.copied(1).await;
    // The next request forgets it.
    append(&world.led(1), b"c");
    world.copied(1).await;
    let forgotten = || {
        let requests = world.leader.requests.lock();
        requests.iter().any(|request| !request.forgotten_topics_data.is_empty())
    };
    assert!(forgotten());
    // A fetcher with nothing left ends, and a new one begins.
    world.fetchers.unfollow(&world.followers[&1]);
    world.follow(0, 0);
    world.fetchers.wake();
    world.copied(0).await;
    world.fetchers.stop().await;
    drop(world.dir);
}
