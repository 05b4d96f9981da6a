//! What clients do: create topics, produce idempotently with acks=all, consume, and commit positions of a group.

use crate::checks::Checker;
use crate::client::{Address, Client};
use crate::history::{History, Place};
use crate::plan::Plan;
use bytes::Bytes;
use ottla::env::Clock;
use ottla::env::rng::Rng;
use ottla_protocol::batch::{BatchHeader, batches};
use ottla_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ottla_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use ottla_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ottla_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use ottla_protocol::record::{BatchBuilder, BatchParams, decode_records};
use ottla_protocol::{ErrorCode, ProducerEpoch, ProducerId, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Bytes that a record may have, decompressed.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// What all clients share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) history: Arc<Mutex<History>>,
    pub(crate) bootstrap: Vec<Address>,
    pub(crate) seed: u64,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Shared {
    fn client(&self, number: u64) -> (Client, Rng) {
        let rng = Rng::new(self.seed.wrapping_mul(1009).wrapping_add(number));
        (Client::new(self.bootstrap.clone(), number as usize), rng)
    }

    fn is_done(&self) -> bool {
        self.history.lock().is_done
    }
}

async fn pause(rng: &mut Rng, max_ms: usize) {
    sleep(Duration::from_millis(1 + rng.below(max_ms) as u64)).await;
}

/// Creates the topics, and tells when all are there.
pub(crate) async fn create_topics(shared: Shared, plan: Plan, created: Arc<Mutex<bool>>) {
    let (mut client, mut rng) = shared.client(1);
    let mut configs = vec![("min.insync.replicas", "2".to_owned())];
    if let Some(ms) = plan.segment_ms {
        configs.push(("segment.ms", ms.to_string()));
    }
    let config = |(name, value): &(&str, String)| CreatableTopicConfig {
        name: (*name).to_owned(),
        value: Some(value.clone()),
    };
    let topics = plan.topics.iter().map(|topic| CreatableTopic {
        name: topic.name.clone(),
        num_partitions: topic.partitions,
        replication_factor: 3,
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    });
    let request =
        CreateTopicsRequest { topics: topics.collect(), timeout_ms: 1000, ..Default::default() };
    while !shared.is_done() {
        if let Ok(answer) = client.call_any(7, &request).await {
            let is_there = |code: i16| {
                let code = ErrorCode::from_code(code);
                code == ErrorCode::None || code == ErrorCode::TopicAlreadyExists
            };
            if answer.topics.iter().all(|topic| is_there(topic.error_code)) {
                *created.lock() = true;
                return;
            }
        }
        pause(&mut rng, 50).await;
    }
}

/// Creates topics of its own and deletes them again, until the history is over; whatever is answered.
pub(crate) async fn churn_topics(shared: Shared) {
    let (mut client, mut rng) = shared.client(2);
    let mut next = 0;
    while !shared.history.lock().is_over {
        pause(&mut rng, 1500).await;
        let topic = CreatableTopic {
            name: format!("x{next}"),
            num_partitions: 1 + rng.below(3) as i32,
            replication_factor: 3,
            ..Default::default()
        };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: 1000, ..Default::default() };
        // Nobody waits for it: another one comes soon.
        let _ = client.call_any(7, &request).await;
        if next >= 2 && rng.one_in(2) {
            let topic_names = vec![format!("x{}", rng.below(next))];
            let request =
                DeleteTopicsRequest { topic_names, timeout_ms: 1000, ..Default::default() };
            let _ = client.call_any(5, &request).await;
        }
        next += 1;
    }
}

/// What came of a produce request.
enum Produced {
    /// It counts, at this offset if it is known.
    At(Option<i64>),
    /// Nobody knows, or it surely does not count yet: to be sent again as it is.
    Again,
    /// The broker says that it will never count.
    Refused(ErrorCode),
}

/// An idempotent producer of one partition.
pub(crate) struct Producer {
    pub(crate) shared: Shared,
    pub(crate) place: Place,
    pub(crate) number: u64,
    /// Between two batches, at the most.
    pub(crate) pause_ms: usize,
}

impl Producer {
    /// Produces until the history is over, each record until its fate is known.
    pub(crate) async fn run(self) {
        let (mut client, mut rng) = self.shared.client(100 + self.number);
        let name = format!("p{}", self.number);
        let Some(id) = self.producer_id(&mut client, &mut rng).await else { return };
        let mut sequence = 0;
        loop {
            if self.shared.history.lock().is_over {
                return;
            }
            let count = 1 + rng.below(3);
            let values: Vec<String> =
                (0..count).map(|n| format!("{name}/{}", sequence + n)).collect();
            {
                let mut history = self.shared.history.lock();
                let sent = history.sent.entry(self.place.clone()).or_default();
                sent.entry(name.clone()).or_default().extend(values.iter().cloned());
                history.unresolved += 1;
            }
            let now = self.shared.clock.now();
            let records = batch(id, sequence as i32, &values, now);
            let fate = self.resolve(&mut client, &mut rng, &records).await;
            if !self.note(fate, sequence, values) {
                return;
            }
            sequence += count;
            pause(&mut rng, self.pause_ms).await;
        }
    }

    /// Writes down what became of some records; whether more may follow.
    fn note(
        &self,
        fate: Option<Result<Option<i64>, ErrorCode>>,
        sequence: usize,
        values: Vec<String>,
    ) -> bool {
        let mut history = self.shared.history.lock();
        match fate {
            None => false,
            Some(Ok(offset)) => {
                history.unresolved -= 1;
                let acknowledged = history.acknowledged.entry(self.place.clone()).or_default();
                for (n, value) in values.into_iter().enumerate() {
                    acknowledged.push((value, offset.map(|offset| offset + n as i64)));
                }
                true
            }
            Some(Err(code)) => {
                let (place, number) = (&self.place, self.number);
                let what = format!("{place:?} p{number} at {sequence}: {code:?}");
                history.violate(Checker::ExactlyOnce, what);
                false
            }
        }
    }

    async fn producer_id(&self, client: &mut Client, rng: &mut Rng) -> Option<ProducerId> {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..Default::default()
        };
        while !self.shared.is_done() {
            if let Ok(answer) = client.call_any(4, &request).await
                && answer.error_code == ErrorCode::None.code()
            {
                return Some(ProducerId(answer.producer_id));
            }
            pause(rng, 50).await;
        }
        None
    }

    /// Sends the batch until it is known what has become of it; `None` when the simulation ends before.
    async fn resolve(
        &self,
        client: &mut Client,
        rng: &mut Rng,
        records: &Bytes,
    ) -> Option<Result<Option<i64>, ErrorCode>> {
        while !self.shared.is_done() {
            match self.produce(client, records).await {
                Produced::At(offset) => return Some(Ok(offset)),
                Produced::Refused(code) => return Some(Err(code)),
                Produced::Again => {
                    client.doubt_leaders(&self.place.0);
                    pause(rng, 60).await;
                }
            }
        }
        None
    }

    async fn produce(&self, client: &mut Client, records: &Bytes) -> Produced {
        let (topic, index) = &self.place;
        let Some(leader) = client.leader(topic, *index).await else { return Produced::Again };
        let data = PartitionProduceData { index: *index, records: Some(records.clone()) };
        let topic_data = vec![TopicProduceData {
            name: topic.clone(),
            partition_data: vec![data],
            ..Default::default()
        }];
        let request =
            ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 1000, topic_data };
        let Ok(answer) = client.call(&leader.address, 9, &request).await else {
            return Produced::Again;
        };
        let found = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        let Some(found) = found else { return Produced::Refused(ErrorCode::UnknownServerError) };
        match ErrorCode::from_code(found.error_code) {
            ErrorCode::None => Produced::At((found.base_offset >= 0).then_some(found.base_offset)),
            ErrorCode::DuplicateSequenceNumber => Produced::At(None),
            // A leader that was cut off does not know that it leads no more, and its log ends before the last records:
            // asked again, its successor takes them. If records were lost, the history never comes to its end.
            ErrorCode::OutOfOrderSequenceNumber => Produced::Again,
            code if is_retriable(code) => Produced::Again,
            code => Produced::Refused(code),
        }
    }
}

/// Whether Kafka's clients send the batch again after it (`RetriableException`).
fn is_retriable(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::RequestTimedOut
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::KafkaStorageError
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::ReplicaNotAvailable
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::OffsetNotAvailable
    )
}

fn batch(id: ProducerId, sequence: i32, values: &[String], now: Timestamp) -> Bytes {
    let mut batch = BatchBuilder::new(BatchParams {
        producer_id: id,
        producer_epoch: ProducerEpoch(0),
        base_sequence: sequence,
        ..BatchParams::default()
    });
    for value in values {
        batch.push(now, None, Some(value.as_bytes()), &[]);
    }
    batch.build().freeze()
}

/// The values of a batch's records, with their offsets.
pub(crate) fn values(header: &BatchHeader, bytes: &Bytes) -> Result<Vec<(i64, String)>, String> {
    let records = decode_records(header, bytes, RECORD_BYTES_MAX);
    let records = records.map_err(|error| error.to_string())?;
    let value = |record: ottla_protocol::record::Record| {
        let offset = header.base_offset.0 + i64::from(record.offset_delta);
        (offset, String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned())
    };
    Ok(records.into_iter().map(value).collect())
}

/// A consumer of one partition, alone in its group, whose position is committed as it goes.
pub(crate) struct Consumer {
    pub(crate) shared: Shared,
    pub(crate) place: Place,
    pub(crate) group: String,
    pub(crate) number: u64,
}

impl Consumer {
    /// Reads from the beginning on, and from there again whenever it begins anew from the group's position.
    pub(crate) async fn run(self) {
        let (mut client, mut rng) = self.shared.client(500 + self.number);
        let mut position = 0;
        while !self.shared.is_done() {
            match self.fetch(&mut client, &mut position).await {
                true if rng.one_in(4) => self.commit(&mut client, position).await,
                true if rng.one_in(12) => {
                    if let Some(committed) = self.committed(&mut client).await {
                        position = committed;
                    }
                }
                true => {}
                false => {
                    client.doubt_leaders(&self.place.0);
                    pause(&mut rng, 50).await;
                }
            }
            pause(&mut rng, 150).await;
        }
    }

    /// Reads on from a position; whether the leader answered.
    async fn fetch(&self, client: &mut Client, position: &mut i64) -> bool {
        let (topic, index) = &self.place;
        let Some(leader) = client.leader(topic, *index).await else { return false };
        let partition = FetchPartition {
            partition: *index,
            current_leader_epoch: leader.epoch,
            fetch_offset: *position,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        };
        let topics = vec![FetchTopic {
            topic: topic.clone(),
            partitions: vec![partition],
            ..Default::default()
        }];
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: 100,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics,
            ..Default::default()
        };
        let Ok(answer) = client.call(&leader.address, 12, &request).await else { return false };
        let found = answer.responses.first().and_then(|topic| topic.partitions.first());
        let Some(found) = found else { return false };
        match ErrorCode::from_code(found.error_code) {
            ErrorCode::None => {
                let records = found.records.clone().unwrap_or_default();
                let taken = self.take(&records, found.high_watermark, position);
                if let Err(cause) = taken {
                    let what = format!("{:?}: {cause}", self.place);
                    self.shared.history.lock().violate(Checker::Reads, what);
                }
                true
            }
            ErrorCode::OffsetOutOfRange => {
                let what = format!("{:?}: position {position} is gone", self.place);
                self.shared.history.lock().violate(Checker::Reads, what);
                true
            }
            _ => false,
        }
    }

    fn take(&self, records: &Bytes, end: i64, position: &mut i64) -> Result<(), String> {
        let mut history = self.shared.history.lock();
        for batch in batches(records) {
            // The last one may be cut.
            let Ok((header, batch)) = batch else { break };
            for (offset, value) in values(&header, &records.slice_ref(batch))? {
                if offset < *position {
                    continue;
                }
                if offset != *position || offset >= end {
                    return Err(format!("read offset {offset} at {position}, below {end}"));
                }
                history.records_read += 1;
                let read = history.read.entry(self.place.clone()).or_default();
                let known = read.entry(offset).or_insert_with(|| value.clone());
                if *known != value {
                    return Err(format!("offset {offset} was {known}, and is {value}"));
                }
                *position = offset + 1;
            }
        }
        Ok(())
    }

    async fn commit(&self, client: &mut Client, position: i64) {
        let Some(coordinator) = client.coordinator(&self.group).await else { return };
        let (topic, index) = &self.place;
        let key = (self.group.clone(), self.place.clone());
        let partition = OffsetCommitRequestPartition {
            partition_index: *index,
            committed_offset: position,
            committed_leader_epoch: -1,
            ..Default::default()
        };
        let topics = vec![OffsetCommitRequestTopic {
            name: topic.clone(),
            partitions: vec![partition],
            ..Default::default()
        }];
        let request = OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: -1,
            topics,
            ..Default::default()
        };
        // From here on it may count, whatever is heard of it.
        let was_unknown = {
            let mut history = self.shared.history.lock();
            !history.commits.entry(key.clone()).or_default().unknown.insert(position)
        };
        let answer = client.call(&coordinator, 8, &request).await;
        let Ok(answer) = answer else { return client.forget_coordinator(&self.group) };
        let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
        let code = partition.map(|partition| ErrorCode::from_code(partition.error_code));
        if code != Some(ErrorCode::None) {
            return client.forget_coordinator(&self.group);
        }
        let mut history = self.shared.history.lock();
        let commits = history.commits.entry(key).or_default();
        commits.acknowledged = Some(position);
        if !was_unknown {
            commits.unknown.remove(&position);
        }
    }

    /// The group's position, as the coordinator says; it is looked at by the way.
    async fn committed(&self, client: &mut Client) -> Option<i64> {
        let position = ask_position(client, &self.group, &self.place).await?;
        let mut history = self.shared.history.lock();
        history.positions_read += 1;
        let key = (self.group.clone(), self.place.clone());
        let commits = history.commits.get(&key).cloned().unwrap_or_default();
        if let Some(cause) = commits.misfit(position) {
            history.violate(Checker::Positions, format!("{key:?}: {cause}"));
        }
        (position >= 0).then_some(position)
    }
}

impl crate::history::Commits {
    /// Why a group cannot have this position, if it cannot.
    pub(crate) fn misfit(&self, position: i64) -> Option<String> {
        let acknowledged = self.acknowledged.unwrap_or(-1);
        let is_known = position == acknowledged || self.unknown.contains(&position);
        // Without an acknowledged commit there may be none at all.
        let is_none = position < 0 && self.acknowledged.is_none();
        (!is_known && !is_none).then(|| {
            let unknown = &self.unknown;
            format!("the position is {position}; acknowledged {acknowledged}, unknown {unknown:?}")
        })
    }
}

/// Asks the coordinator for a group's position; `None` when it did not tell.
pub(crate) async fn ask_position(client: &mut Client, group: &str, place: &Place) -> Option<i64> {
    let coordinator = client.coordinator(group).await?;
    let topics = vec![OffsetFetchRequestTopics {
        name: place.0.clone(),
        partition_indexes: vec![place.1],
        ..Default::default()
    }];
    let groups = vec![OffsetFetchRequestGroup {
        group_id: group.to_owned(),
        member_epoch: -1,
        topics: Some(topics),
        ..Default::default()
    }];
    let request = OffsetFetchRequest { groups, ..Default::default() };
    let answer = client.call(&coordinator, 8, &request).await.ok();
    let answered = answer.as_ref().and_then(|answer| answer.groups.first());
    let answered = answered.filter(|group| group.error_code == ErrorCode::None.code());
    let found = answered.and_then(|group| group.topics.first()?.partitions.first());
    let found = found.filter(|partition| partition.error_code == ErrorCode::None.code());
    let position = found.map(|partition| partition.committed_offset);
    if position.is_none() {
        client.forget_coordinator(group);
    }
    position
}
