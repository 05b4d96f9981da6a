//! What unit tests of this room's parts share: a partition over a log of its own, and a controller that a test plays.

use super::controller_calls::{BoxFuture, ControllerCalls};
use super::partition::{IsolationLevel, PartitionParams, ReadFrom, ReadParams};
use super::{ControllerReply, ControllerRequest, Image};
use crate::env::{RealDisk, SystemClock};
use crate::log::{Log, LogConfig, LogParams, MinOne};
use crate::machines::replica::{Leadership, ReplicaSettings};
use bytes::Bytes;
use ottla_protocol::metadata::RegisterBrokerRecord;
use ottla_protocol::record::{BatchBuilder, BatchParams};
use ottla_protocol::{
    BrokerId, ErrorCode, LeaderEpoch, MetadataRecord, Offset, Timestamp, TopicId,
};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Of the topic `t`.
pub(super) const TOPIC_ID: TopicId = TopicId::from_u128(7);
/// Nobody waits so long for anything in these tests.
pub(super) const LONG: Duration = Duration::from_secs(30);

/// An empty log of `t` below `dir`.
pub(super) fn log_params(dir: &Path, index: i32) -> LogParams {
    LogParams {
        disk: Arc::new(RealDisk),
        dir: dir.join(format!("t-{index}")),
        topic: "t".into(),
        partition: index,
        topic_id: TOPIC_ID,
        config: Arc::new(LogConfig::default()),
        log_start_offset: Offset(0),
        recovery_point: Offset(0),
        clean_shutdown: false,
        earlier_writes_synced: false,
        now: Timestamp(0),
    }
}

/// A partition over that log, whose high watermark nobody has noted.
pub(super) fn partition_params(broker_id: BrokerId, log: LogParams) -> PartitionParams {
    PartitionParams {
        name: (Arc::clone(&log.topic), log.topic_id, log.partition),
        replica: ReplicaSettings { broker_id, lag_time_max_ms: 30_000, min_insync_replicas: 1 },
        clock: Arc::new(SystemClock),
        log: Log::open(log).unwrap(),
        high_watermark: Offset(0),
        health: Arc::default(),
        isr_changes: Arc::default(),
        quotas: Arc::default(),
    }
}

/// Leadership over replicas that are all in sync.
pub(super) fn leadership(epoch: i32, replicas: &[BrokerId]) -> Leadership {
    Leadership {
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: epoch,
        isr: replicas.to_vec(),
        replicas: replicas.to_vec(),
        metadata_offset: Offset(0),
    }
}

/// A consumer's fetch.
pub(super) fn read_params(offset: Offset) -> ReadParams {
    ReadParams {
        offset,
        max_bytes: 1000,
        min_one: MinOne::Yes,
        isolation: IsolationLevel::ReadUncommitted,
        from: ReadFrom::Leader,
        current_leader_epoch: LeaderEpoch::UNKNOWN,
        last_fetched_epoch: LeaderEpoch::UNKNOWN,
        follower: None,
        is_noted: false,
    }
}

/// A batch of these values, all of this time.
pub(super) fn batch(params: BatchParams, at: Timestamp, values: &[&[u8]]) -> Bytes {
    let mut batch = BatchBuilder::new(params);
    for value in values {
        batch.push(at, None, Some(value), &[]);
    }
    batch.build().freeze()
}

/// That a broker is registered, with epoch 77.
pub(super) fn registered(broker_id: BrokerId) -> MetadataRecord {
    let (broker_id, broker_epoch) = (broker_id.0, 77);
    MetadataRecord::RegisterBroker(RegisterBrokerRecord {
        broker_id,
        broker_epoch,
        ..Default::default()
    })
}

/// What these records come to, of which the first has offset 0.
pub(super) fn image(records: &[MetadataRecord]) -> Image {
    let mut image = Image::default();
    for (offset, record) in (0..).map(Offset).zip(records) {
        image.replay(offset, record);
    }
    image
}

/// A controller that answers as the test says, in turn: the whole request, and each partition; and then without error.
pub(super) struct ScriptedController<R> {
    pub(super) answers: Mutex<VecDeque<Result<ErrorCode, ErrorCode>>>,
    /// What it was asked.
    pub(super) requests: Mutex<Vec<R>>,
    /// The request, and the reply that gives each partition this error.
    play: fn(ControllerRequest, ErrorCode) -> (R, ControllerReply),
}

impl<R> ScriptedController<R> {
    pub(super) fn new(
        answers: &[Result<ErrorCode, ErrorCode>],
        play: fn(ControllerRequest, ErrorCode) -> (R, ControllerReply),
    ) -> Arc<Self> {
        let answers = Mutex::new(answers.iter().copied().collect());
        Arc::new(ScriptedController { answers, requests: Mutex::default(), play })
    }
}

impl<R: Send + 'static> ControllerCalls for ScriptedController<R> {
    fn call(
        &self,
        request: ControllerRequest,
    ) -> BoxFuture<'_, Result<ControllerReply, ErrorCode>> {
        let answer = self.answers.lock().pop_front().unwrap_or(Ok(ErrorCode::None));
        let (request, reply) = (self.play)(request, answer.unwrap_or(ErrorCode::None));
        self.requests.lock().push(request);
        Box::pin(async move { answer.map(|_| reply) })
    }
}

/// Waits until it is so.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect(what);
}

/// Runs a task of the broker until it is so, and stops it then.
pub(super) async fn run_until(
    running: impl Future<Output = ()>,
    stop: &watch::Sender<bool>,
    is_so: impl Fn() -> bool,
) {
    let stopping = async {
        until("what the task is to do", is_so).await;
        stop.send_replace(true);
    };
    tokio::join!(running, stopping);
}
