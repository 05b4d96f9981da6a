//! Room 4: the shell that runs machines over logs.
//!
//! A [`Broker`] owns the log directories, the partitions, the metadata quorum with its controller, the group
//! coordinators and the chores. It starts, serves callers and stops without any listener; room 5 brings the
//! network.
//!
//! | Who | owns |
//! | --- | --- |
//! | `directories.rs` | locks and checkpoints of the log directories |
//! | `quorum.rs`, `snapshots.rs` | the log `__cluster_metadata` |
//! | `metadata.rs` | the controller machine over it, and publication of the Image |
//! | `controller_link.rs`, `peers.rs` | the way to the active controller, and connections to other nodes |
//! | `membership.rs` | this broker's registration and heartbeats |
//! | `detector.rs` | what is done when a connection to another node ends |
//! | `publisher.rs` | all partitions: it alone opens and deletes them |
//! | `takeover.rs`, `import.rs` | whether and how log directories of others are taken over |
//! | `partition.rs` | one Log and its replica machine |
//! | `fetcher.rs` | copying from other brokers' leaders |
//! | `isr.rs` | changes of the ISR, asked of the controller |
//! | `assignments.rs` | in which log directories replicas lie, told to the controller |
//! | `groups.rs` | one group machine for each led partition of `__consumer_offsets` |
//! | `housekeeping.rs` | retention, flushes, checkpoints |
//! | `cleaner.rs` | compaction |
//! | `mover.rs` | moves between log directories |

mod assignments;
mod cleaner;
mod cluster_id;
mod controller_addresses;
mod controller_calls;
mod controller_link;
mod cordon;
mod detector;
mod dir_health;
mod directories;
mod fetcher;
mod formatting;
mod founding;
mod groups;
mod host;
mod housekeeping;
mod import;
mod isr;
mod log_dir_contents;
mod membership;
mod metadata;
mod metadata_reads;
mod mover;
mod observer;
mod partition;
mod peers;
mod publisher;
mod quorum;
mod quota;
mod replay;
mod replication;
mod settings;
mod snapshots;
mod start;
mod stop;
mod takeover;
mod throttle;
mod voter_changes;
mod voters;

pub use crate::log::{
    AbortedTransaction, ActiveProducer, AppendError, AppendInfo, AppendOrigin, FlushOwed, LogSlice,
    MinOne, RecordError, TimeQuery, TimestampOffset,
};
pub use crate::machines::group::{GroupRequest, GroupResponse, Join, partition_for};
pub use crate::machines::metadata::image::{
    BrokerRegistration, ConfigResource, ResourceType, TopicImage,
};
pub use crate::machines::metadata::{
    ApiError, ControllerReply, ControllerRequest, ControllerSettings, Image, alter_config,
    config_rules, effective, features, image, validate_topic_name,
};
pub use crate::machines::replica::{Eligibility, FollowerFetch};
pub use controller_addresses::{Address, ControllerAddresses};
pub use controller_link::FORWARDING_CLIENT;
pub use formatting::{FormatError, FormatRequest, InitialVoters, format};
pub use founding::{Bootstrap, Founding};
pub use log_dir_contents::LogDirContents;
pub use metadata_reads::MetadataRead;
pub use partition::{
    Acks, Interest, IsolationLevel, News, Partition, PartitionRead, ProduceError, ReadFrom,
    ReadParams, ReplicaView, Subscription,
};
pub use quorum::{Answered, QuorumStatus, Voter, VoterEndpoint, VoterSet, VoterStatus};
pub use settings::{AdvertisedListener, Settings, TopicSettings};
pub use start::StartError;

use crate::env::Clock;
use arc_swap::ArcSwap;
use bytes::Bytes;
use cleaner::Cleaner;
use controller_link::{Active, ControllerLink};
use detector::Detector;
use directories::Directories;
use groups::Groups;
use housekeeping::Housekeeping;
use membership::Membership;
use metadata::MetadataNode;
use metadata_reads::Observers;
use mover::Mover;
use ottla_protocol::messages::AllocateProducerIdsRequest;
use ottla_protocol::{
    BrokerEpoch, BrokerId, ErrorCode, GROUP_METADATA_TOPIC, ProducerId, Request, TopicId,
};
use parking_lot::Mutex;
use publisher::Publisher;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use stop::LogsStage;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a client that would be sent to a broker that is gone waits for the name of another.
const SUCCESSION_MAX: Duration = Duration::from_millis(500);
/// How often such a client's broker looks whether it still believes so.
const SUSPICION_LOOK: Duration = Duration::from_millis(20);

/// Producer ids that this broker may still give out: `next..end`.
#[derive(Debug, Clone, Copy, Default)]
struct ProducerIds {
    next: i64,
    end: i64,
}

/// One broker of the cluster.
pub struct Broker {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    directories: Arc<Directories>,
    metadata: Arc<MetadataNode>,
    observers: Observers,
    link: Arc<ControllerLink>,
    membership: Arc<Membership>,
    detector: Arc<Detector>,
    /// The broker epoch at the last orderly stop; -1 after a crash.
    previous_epoch: i64,
    publisher: Arc<Publisher>,
    groups: Arc<Groups>,
    housekeeping: Arc<Housekeeping>,
    cleaner: Arc<Cleaner>,
    mover: Arc<Mover>,
    image: Arc<ArcSwap<Image>>,
    producer_ids: Mutex<ProducerIds>,
    logs_stage: Arc<Mutex<LogsStage>>,
    stopping: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Broker({})", self.settings.node_id)
    }
}

/// One log directory, as DescribeLogDirs tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirStatus {
    /// Where it is.
    pub path: PathBuf,
    /// A write or sync failed in it; nothing more is known of it.
    pub is_offline: bool,
    /// Whether it gets no new partitions.
    pub is_cordoned: bool,
    /// Bytes of its file system.
    pub total_bytes: i64,
    /// Bytes free there.
    pub usable_bytes: i64,
    /// What lies in it.
    pub partitions: Vec<LogDirReplica>,
}

/// A replica in a log directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirReplica {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub index: i32,
    /// Bytes of the log.
    pub size: u64,
    /// How far the log's end is behind the high watermark, or behind the end of the log that it is to replace.
    pub offset_lag: i64,
    /// Whether it is a copy on its way into this directory.
    pub is_future: bool,
}

/// Whether the request may change what this broker goes by.
fn may_configure(request: &ControllerRequest) -> bool {
    matches!(
        request,
        ControllerRequest::IncrementalAlterConfigs(_)
            | ControllerRequest::AlterConfigs(_)
            | ControllerRequest::UpdateFeatures { .. }
    )
}

impl Broker {
    /// The broker's own id.
    pub fn node_id(&self) -> BrokerId {
        self.settings.node_id
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> &str {
        &self.directories.cluster_id
    }

    /// Its epoch: the metadata offset of its registration.
    pub fn broker_epoch(&self) -> BrokerEpoch {
        self.membership.epoch()
    }

    /// The broker room's view of the configuration.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The newest committed metadata.
    pub fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// A partition by its topic's name.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION; NOT_LEADER_OR_FOLLOWER when it is on other brokers; KAFKA_STORAGE_ERROR when
    /// it is here but could not be opened.
    pub fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>, ErrorCode> {
        if let Some(partition) = self.publisher.partition(topic, index) {
            return Ok(partition);
        }
        let image = self.image.load();
        let registration = image.topics.get(topic).and_then(|topic| topic.partition(index));
        match registration {
            None => Err(ErrorCode::UnknownTopicOrPartition),
            Some(it) if it.replicas.contains(&self.node_id()) => Err(ErrorCode::KafkaStorageError),
            Some(_) => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// A partition by its topic's id.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_ID, and those of [`Broker::partition`].
    pub fn partition_by_id(&self, id: &TopicId, index: i32) -> Result<Arc<Partition>, ErrorCode> {
        let image = self.image.load();
        let name = image.topics.name_of(id).ok_or(ErrorCode::UnknownTopicId)?;
        self.partition(name, index)
    }

    /// All partitions of this broker.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.publisher.all()
    }

    /// Puts a request to the active controller, wherever that is.
    ///
    /// # Errors
    /// NOT_CONTROLLER when this process takes no more part: its metadata log failed, or it stops. REQUEST_TIMED_OUT
    /// when none was found. KAFKA_STORAGE_ERROR when its log has no space for what it decided; later it may.
    pub async fn controller(
        &self,
        request: ControllerRequest,
    ) -> Result<ControllerReply, ErrorCode> {
        let may_configure = may_configure(&request);
        let reply = self.link.call(request).await?;
        self.after_request(may_configure).await;
        Ok(reply)
    }

    /// Puts a request to the controller of this process alone.
    ///
    /// # Errors
    /// NOT_CONTROLLER when it is not the active one; KAFKA_STORAGE_ERROR as in [`Broker::controller`].
    pub async fn controller_here(
        &self,
        request: ControllerRequest,
    ) -> Result<ControllerReply, ErrorCode> {
        let may_configure = may_configure(&request);
        let reply = self.link.call_here(request).await?;
        self.after_request(may_configure).await;
        Ok(reply)
    }

    async fn after_request(&self, may_configure: bool) {
        if may_configure {
            self.cleaner.reconfigure(&self.image.load());
            self.report_cordoned_dirs().await;
        }
    }

    /// Waits, for half a second at most, while the metadata name a leader that this broker has seen to be gone:
    /// `is_concerned` tells of an Image whether somebody who asks now would be sent there. A client that hears of no
    /// better leader looks again after a second only (librdkafka).
    pub async fn await_successors(&self, is_concerned: impl Fn(&Image) -> bool) {
        let is_settled = |image: &Image| !self.detector.misses_any() || !is_concerned(image);
        self.await_image(SUCCESSION_MAX, is_settled).await;
    }

    /// Waits, for `limit` at most, until the metadata are as `is_awaited` wants them.
    pub async fn await_image(&self, limit: Duration, is_awaited: impl Fn(&Image) -> bool) {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let (moved, answered) = (self.metadata.image_moved(), self.detector.answered());
            if is_awaited(&self.image.load()) {
                return;
            }
            tokio::select! {
                biased;
                () = moved => {}
                () = answered => {}
                // What is suspected is not for long.
                () = tokio::time::sleep(SUSPICION_LOOK) => {}
            }
            if tokio::time::Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Looks whether brokers are there to which a client is about to be sent; [`Broker::await_successors`] waits until
    /// that is known.
    pub fn glance_at(&self, leaders: impl IntoIterator<Item = BrokerId>) {
        for leader in leaders {
            self.detector.glance(leader);
        }
    }

    /// Whether this broker has seen that the other one is gone, of which the controller has not told yet.
    pub fn is_gone(&self, image: &Image, id: BrokerId) -> bool {
        image.cluster.brokers.get(&id).is_some_and(|broker| self.detector.is_gone(broker))
    }

    /// Whether a broker, fenced by now or not, was seen to be gone in the last seconds.
    pub fn has_gone_lately(&self, broker: &BrokerRegistration) -> bool {
        self.detector.has_gone_lately(broker)
    }

    /// The connection by which a broker's heartbeats or fetches came has ended.
    pub fn broker_disconnected(&self, id: BrokerId, epoch: BrokerEpoch) {
        self.detector.broker_disconnected(id, epoch);
    }

    /// The connection by which a voter's messages came has ended.
    pub fn voter_disconnected(&self, id: BrokerId) {
        self.detector.voter_disconnected(id);
    }

    /// Hands a message of another voter to the quorum; the answer to it.
    pub async fn quorum_message(&self, message: Bytes) -> Bytes {
        match self.metadata.quorum() {
            Some(quorum) => quorum.receive(message).await,
            // A node without a vote says nothing, which is no answer.
            None => Bytes::new(),
        }
    }

    /// The partition of `__consumer_offsets` that a group lives in; `None` before the topic exists.
    pub fn group_partition(&self, group_id: &str) -> Option<i32> {
        let image = self.image.load();
        let topic = image.topics.get(GROUP_METADATA_TOPIC)?;
        Some(partition_for(group_id, topic.partition_count()))
    }

    /// Puts a request to the coordinator of one group.
    ///
    /// # Errors
    /// NOT_COORDINATOR, also before `__consumer_offsets` exists; COORDINATOR_LOAD_IN_PROGRESS.
    pub async fn group(
        &self,
        group_id: &str,
        request: GroupRequest,
    ) -> Result<GroupResponse, ErrorCode> {
        let index = self.group_partition(group_id).ok_or(ErrorCode::NotCoordinator)?;
        self.groups.call(index, request).await
    }

    /// Puts a request to the coordinator of one partition of `__consumer_offsets`.
    ///
    /// # Errors
    /// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS.
    pub async fn group_coordinator(
        &self,
        index: i32,
        request: GroupRequest,
    ) -> Result<GroupResponse, ErrorCode> {
        self.groups.call(index, request).await
    }

    /// The partitions of `__consumer_offsets` whose coordinator is here, loading ones too.
    pub fn group_coordinators(&self) -> Vec<i32> {
        self.groups.indexes()
    }

    /// A producer id that nobody has had.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS, as in Kafka, when a new block cannot be had; others of the controller.
    pub async fn next_producer_id(&self) -> Result<ProducerId, ErrorCode> {
        loop {
            {
                let mut ids = self.producer_ids.lock();
                if ids.next < ids.end {
                    ids.next += 1;
                    return Ok(ProducerId(ids.next - 1));
                }
            }
            let request = ControllerRequest::AllocateProducerIds(AllocateProducerIdsRequest {
                broker_id: self.node_id().0,
                broker_epoch: self.broker_epoch().0,
            });
            let reply = self.controller(request).await;
            let reply = reply.map_err(|_| ErrorCode::CoordinatorLoadInProgress)?;
            let ControllerReply::AllocateProducerIds(block) = reply else {
                return Err(ErrorCode::UnknownServerError);
            };
            let error = ErrorCode::from_code(block.error_code);
            if error.is_err() {
                return Err(error);
            }
            let mut ids = self.producer_ids.lock();
            // Another caller may have fetched a block meanwhile; ids of ours are then left unused.
            if ids.next >= ids.end {
                ids.next = block.producer_id_start;
                ids.end = block.producer_id_start + i64::from(block.producer_id_len);
            }
        }
    }

    /// Sends a request of a client as it is to the node that leads the quorum.
    ///
    /// # Errors
    /// NOT_CONTROLLER when no other node leads; REQUEST_TIMED_OUT when it does not answer.
    pub async fn forward<R>(&self, version: i16, request: R) -> Result<R::Response, ErrorCode>
    where
        R: Request + Send + 'static,
    {
        self.link.forward(version, request).await
    }

    /// Whether another node leads the quorum.
    pub fn is_led_elsewhere(&self) -> bool {
        self.link.elsewhere().is_some()
    }

    /// Tells whether this node is the active controller, now and whenever that changes. Ends with the metadata log.
    pub async fn follow_leadership(&self, tell: impl Fn(bool)) {
        let mut active = self.metadata.active();
        loop {
            tell(matches!(*active.borrow_and_update(), Active::Here(_)));
            if active.changed().await.is_err() {
                return;
            }
        }
    }

    /// What `DescribeQuorum` tells; `None` for a node without a vote.
    pub fn quorum_status(&self) -> Option<QuorumStatus> {
        self.metadata.quorum().map(|quorum| quorum.status())
    }

    /// The quorum's voters; nobody for a node without a vote.
    pub fn voters(&self) -> Arc<VoterSet> {
        self.metadata.quorum().map(|quorum| quorum.voters()).unwrap_or_default()
    }

    /// The log directories and what lies in them.
    pub fn log_dirs(&self) -> Vec<LogDirStatus> {
        let mut all: Vec<LogDirStatus> = Vec::new();
        let image = self.image.load();
        let own = image.cluster.brokers.get(&self.node_id());
        let cordoned = own.and_then(|own| own.cordoned_log_dirs.as_deref()).unwrap_or_default();
        for log_dir in &self.directories.all {
            let space = self.directories.disk().space(&log_dir.path);
            let (total, usable) = space.map_or((-1, -1), |space| {
                (space.total.min(i64::MAX as u64) as i64, space.available as i64)
            });
            all.push(LogDirStatus {
                path: log_dir.path.clone(),
                is_offline: log_dir.health.is_offline(),
                is_cordoned: cordoned.contains(&log_dir.id),
                total_bytes: total,
                usable_bytes: usable,
                partitions: Vec::new(),
            });
        }
        for partition in self.publisher.all() {
            let mut put = |log_dir: &Path, size, offset_lag, is_future| {
                let (topic, index) = (Arc::clone(partition.topic()), partition.index());
                let replica = LogDirReplica { topic, index, size, offset_lag, is_future };
                if let Some(status) = all.iter_mut().find(|status| status.path == log_dir) {
                    status.partitions.push(replica);
                }
            };
            if let Some(checkpoint) = partition.checkpoint() {
                // As in Kafka: a leader never is behind.
                let lag = partition.high_watermark().0 - partition.log_end_offset().0;
                put(&checkpoint.directory, partition.size(), lag.max(0), false);
            }
            if let Some(future) = partition.future_replica() {
                put(&future.log_dir, future.size, future.offset_lag, true);
            }
        }
        all
    }

    /// Moves a partition to the log directory at `path` while it works; the answer comes before the move ends.
    ///
    /// # Errors
    /// INVALID_TOPIC_EXCEPTION, LOG_DIR_NOT_FOUND, INVALID_REPLICA_ASSIGNMENT, KAFKA_STORAGE_ERROR,
    /// UNKNOWN_TOPIC_OR_PARTITION, REPLICA_NOT_AVAILABLE.
    pub fn alter_log_dir(&self, topic: &str, index: i32, path: &str) -> Result<(), ErrorCode> {
        self.mover.alter(topic, index, path)
    }

    /// Completes when the broker is of no more use, since the log directory of the metadata has failed, or all have;
    /// says which. The process is to be halted then, as in Kafka (KIP-112): nothing can be stopped in order.
    pub async fn failed(&self) -> String {
        self.directories.all_failed().await
    }

    /// Completes when the controller was not told in time of a log directory that failed, and says so. The process is
    /// to stop in order then, as in Kafka (KIP-858).
    pub async fn untold_failure(&self) -> String {
        self.membership.untold().await
    }
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
