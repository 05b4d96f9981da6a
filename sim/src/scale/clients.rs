//! What clients do with a large cluster: create its topics, and write to and read from many partitions at once.

use crate::client::{Address, Client};
use crate::node::CLIENT_PORT;
use crate::workload::values;
use crate::world::World;
use bytes::Bytes;
use ottla_protocol::batch::batches;
use ottla_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use ottla_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use ottla_protocol::record::{BatchBuilder, BatchParams};
use ottla_protocol::{BrokerId, ErrorCode, Timestamp};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A partition.
pub(super) type Place = (Arc<str>, i32);

/// Before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// How long a broker waits for the others before it answers.
const TIMEOUT_MS: i32 = 1000;
/// How often each is tried.
const TRIES_MAX: usize = 1000;

/// What is done for each of many partitions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Errand {
    /// A record with this value is written, and acknowledged by all that are in sync.
    Write(&'static str),
    /// The records are read, and have these values.
    Read(&'static [&'static str]),
}

#[derive(Debug, Default)]
struct State {
    /// Tasks that are not done.
    open: usize,
    failure: Option<String>,
}

/// Whether some tasks are done, and how they went.
#[derive(Debug, Clone, Default)]
pub(super) struct Done(Arc<Mutex<State>>);

impl Done {
    /// Whether all are, or one has failed.
    pub(super) fn is_done(&self) -> bool {
        let state = self.0.lock();
        state.open == 0 || state.failure.is_some()
    }

    /// What went wrong, if something did.
    ///
    /// # Errors
    /// That.
    pub(super) fn result(&self) -> Result<(), String> {
        self.0.lock().failure.clone().map_or(Ok(()), Err)
    }

    fn spawn(
        &self,
        world: &World,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.0.lock().open += 1;
        let state = Arc::clone(&self.0);
        world.spawn_client(async move {
            let result = task.await;
            let mut state = state.lock();
            state.open -= 1;
            state.failure = state.failure.take().or(result.err());
        });
    }
}

/// Creates topics with these replicas, one request after the other.
pub(super) fn create(
    world: &World,
    bootstrap: Vec<Address>,
    topics: Vec<(String, Vec<[i32; 3]>)>,
) -> Done {
    let done = Done::default();
    done.spawn(world, async move {
        let mut client = Client::new(bootstrap, 0);
        for (name, replicas) in topics {
            create_one(&mut client, name, &replicas).await?;
        }
        Ok(())
    });
    done
}

async fn create_one(
    client: &mut Client,
    name: String,
    replicas: &[[i32; 3]],
) -> Result<(), String> {
    let assignment = |(index, replicas): (usize, &[i32; 3])| CreatableReplicaAssignment {
        partition_index: index as i32,
        broker_ids: replicas.to_vec(),
    };
    let topic = CreatableTopic {
        name,
        num_partitions: -1,
        replication_factor: -1,
        assignments: replicas.iter().enumerate().map(assignment).collect(),
        ..Default::default()
    };
    let (topics, timeout_ms) = (vec![topic], TIMEOUT_MS);
    let request = CreateTopicsRequest { topics, timeout_ms, ..Default::default() };
    let answer = client.call_any(7, &request).await.map_err(|error| error.to_string())?;
    match answer.topics.first() {
        Some(topic) if topic.error_code == ErrorCode::None.code() => Ok(()),
        refused => Err(format!("no topic is created: {refused:?}")),
    }
}

/// Does it for all partitions, each at the broker that it is listed with, one client a broker.
pub(super) fn start(
    world: &World,
    by_leader: BTreeMap<BrokerId, Vec<Place>>,
    errand: Errand,
) -> Done {
    let done = Done::default();
    for (leader, places) in by_leader {
        done.spawn(world, run(leader, places.into_iter().collect(), errand));
    }
    done
}

async fn run(leader: BrokerId, mut open: BTreeSet<Place>, errand: Errand) -> Result<(), String> {
    let address = (format!("node{}", leader.0), CLIENT_PORT);
    let mut client = Client::new(vec![address.clone()], 0);
    let mut last = String::new();
    for _ in 0..TRIES_MAX {
        let outcomes = match errand {
            Errand::Write(value) => write(&mut client, &address, &open, value).await,
            Errand::Read(values) => read(&mut client, &address, &open, values).await,
        };
        match outcomes {
            Err(error) => last = error.to_string(),
            Ok(outcomes) => {
                for (place, outcome) in outcomes {
                    match outcome {
                        Ok(()) => drop(open.remove(&place)),
                        Err(cause) => last = format!("{place:?}: {cause}"),
                    }
                }
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Err(format!("{errand:?} at {leader:?}, {} partitions: {last}", open.len()))
}

type Outcomes = Vec<(Place, Result<(), String>)>;

/// The partitions by topic, as requests have them.
fn by_topic(open: &BTreeSet<Place>) -> BTreeMap<Arc<str>, Vec<i32>> {
    let mut topics: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
    for (topic, index) in open {
        topics.entry(Arc::clone(topic)).or_default().push(*index);
    }
    topics
}

fn outcome(code: i16) -> Result<(), String> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(format!("{code:?}")),
    }
}

async fn write(
    client: &mut Client,
    to: &Address,
    open: &BTreeSet<Place>,
    value: &str,
) -> std::io::Result<Outcomes> {
    let mut batch = BatchBuilder::new(BatchParams::default());
    batch.push(Timestamp(0), None, Some(value.as_bytes()), &[]);
    let records = batch.build().freeze();
    let data = |index| PartitionProduceData { index, records: Some(records.clone()) };
    let topic = |(name, indexes): (Arc<str>, Vec<i32>)| TopicProduceData {
        name: name.to_string(),
        partition_data: indexes.into_iter().map(data).collect(),
        ..Default::default()
    };
    let topic_data = by_topic(open).into_iter().map(topic).collect();
    let (acks, timeout_ms) = (-1, TIMEOUT_MS);
    let request = ProduceRequest { transactional_id: None, acks, timeout_ms, topic_data };
    let answer = client.call(to, 9, &request).await?;
    let of_topic = answer.responses.into_iter().flat_map(|topic| {
        let name: Arc<str> = topic.name.into();
        let partitions = topic.partition_responses.into_iter();
        partitions.map(move |it| ((Arc::clone(&name), it.index), outcome(it.error_code)))
    });
    Ok(of_topic.collect())
}

async fn read(
    client: &mut Client,
    from: &Address,
    open: &BTreeSet<Place>,
    expected: &[&str],
) -> std::io::Result<Outcomes> {
    let partition = |partition| FetchPartition {
        partition,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = |(name, indexes): (Arc<str>, Vec<i32>)| FetchTopic {
        topic: name.to_string(),
        partitions: indexes.into_iter().map(partition).collect(),
        ..Default::default()
    };
    let request = FetchRequest {
        replica_id: -1,
        max_bytes: 8 << 20,
        session_epoch: -1,
        topics: by_topic(open).into_iter().map(topic).collect(),
        ..Default::default()
    };
    let answer = client.call(from, 12, &request).await?;
    let of_topic = answer.responses.into_iter().flat_map(|topic| {
        let name: Arc<str> = topic.topic.into();
        topic.partitions.into_iter().map(move |it| {
            let records = it.records.unwrap_or_default();
            let read = outcome(it.error_code).and_then(|()| check(&records, expected));
            ((Arc::clone(&name), it.partition_index), read)
        })
    });
    Ok(of_topic.collect())
}

/// Whether the records have these values, in this order.
fn check(records: &Bytes, expected: &[&str]) -> Result<(), String> {
    let mut found = Vec::new();
    for batch in batches(records) {
        let (header, batch) = batch.map_err(|error| format!("{error:?}"))?;
        found.extend(
            values(&header, &records.slice_ref(batch))?.into_iter().map(|(_, value)| value),
        );
    }
    if found == expected { Ok(()) } else { Err(format!("{found:?} was read")) }
}
