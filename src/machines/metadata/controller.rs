//! Controller: the recorded machine that decides on every change of cluster metadata.
//!
//! Its state is an [`Image`] that changes only in `replay`; an operation reads it and returns
//! records. Soft state is the brokers' sessions alone. Authorisation is the handlers'; consensus
//! and the log are the broker room's. Source: Kafka's QuorumController and its control managers;
//! error texts are those of Kafka 4.3.1.

mod brokers;
pub mod configs;
mod directories;
mod elections;
mod feature_updates;
mod partition_change;
mod partitions;
mod quotas;
mod scram;
pub mod topics;

pub use topics::validate_topic_name;

use super::image::Image;
use crate::config::Values;
use crate::machines::{Entry, Machine, Output, RequestId};
use ottla_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterClientQuotasRequest,
    AlterClientQuotasResponse, AlterConfigsRequest, AlterConfigsResponse,
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterPartitionRequest,
    AlterPartitionResponse, AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, BrokerHeartbeatRequest,
    BrokerHeartbeatResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
    ControllerRegistrationRequest, ControllerRegistrationResponse, CreatePartitionsRequest,
    CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, ElectLeadersRequest, ElectLeadersResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, UnregisterBrokerRequest,
    UnregisterBrokerResponse, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use ottla_protocol::metadata::NoOpRecord;
use ottla_protocol::{BrokerEpoch, BrokerId, ErrorCode, MetadataRecord, Timestamp};
use std::collections::BTreeMap;
use uuid::Uuid;

/// An error code with the text that goes beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The code; `ErrorCode::None` when all went well.
    pub code: ErrorCode,
    /// The text, if there is one.
    pub message: Option<String>,
}

impl ApiError {
    /// An error with a text of its own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError { code, message: Some(message.into()) }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        let message = code.is_err().then(|| code.message().to_owned());
        ApiError { code, message }
    }
}

/// What does not come from the metadata log.
#[derive(Debug, Clone)]
pub struct ControllerSettings {
    /// This controller's `node.id`.
    pub node_id: BrokerId,
    /// The cluster's id, which registrations must name.
    pub cluster_id: String,
    /// `num.partitions`.
    pub default_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
    /// `min.insync.replicas` of the properties file.
    pub min_insync_replicas: i32,
    /// `unclean.leader.election.enable` of the properties file.
    pub unclean_leader_election: bool,
    /// The properties file, for the values that topics and groups inherit.
    pub values: Values,
    /// `broker.session.timeout.ms`.
    pub session_timeout_ms: i64,
    /// Whether the session of this node's own broker does not end: it lives as long as its controller does, and sends
    /// no heartbeats where that is the only one.
    pub trusts_own_broker: bool,
    /// `leader.imbalance.check.interval.seconds` in milliseconds; `None` leaves leaders where they are.
    pub rebalance_interval_ms: Option<i64>,
    /// `unclean.leader.election.interval.ms`.
    pub unclean_interval_ms: i64,
    /// What a broker's going and coming does to the partitions that are on no other.
    pub lone_replicas: LoneReplicas,
}

/// What becomes of a partition whose only replica's broker goes and comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoneReplicas {
    /// It loses its leader and gets it again, and each raises the leader epoch, as in KRaft.
    #[default]
    Follow,
    /// It keeps its leader and with it the leader epoch, as under a controller that works with ZooKeeper: there the
    /// epoch would stand still, and clients do not follow one that goes back.
    Stay,
}

/// What the controller is asked.
#[derive(Debug, Clone)]
pub enum ControllerRequest {
    /// Creates topics. `seed` is random: topic ids and placement are drawn from it.
    CreateTopics { request: CreateTopicsRequest, seed: Uuid },
    /// Deletes topics; that `delete.topic.enable` allows it has been checked.
    DeleteTopics(DeleteTopicsRequest),
    /// Adds partitions. `seed` is random.
    CreatePartitions { request: CreatePartitionsRequest, seed: Uuid },
    /// A broker has started.
    RegisterBroker(BrokerRegistrationRequest),
    /// A controller has started.
    RegisterController(ControllerRegistrationRequest),
    /// A broker is alive, and where it stands.
    BrokerHeartbeat(BrokerHeartbeatRequest),
    /// A broker of this epoch is known to be gone: its connection was reset, and nobody listens where it did.
    FenceBroker { broker_id: BrokerId, broker_epoch: BrokerEpoch },
    /// Takes a broker out of the cluster.
    UnregisterBroker(UnregisterBrokerRequest),
    /// A block of producer ids for a broker.
    AllocateProducerIds(AllocateProducerIdsRequest),
    /// Changes configurations one by one; changes of brokers have been checked against the broker's
    /// rules.
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest),
    /// Replaces configurations; the same.
    AlterConfigs(AlterConfigsRequest),
    /// Elects leaders.
    ElectLeaders(ElectLeadersRequest),
    /// Moves replicas, or stops moving them.
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest),
    /// A leader wants another ISR.
    AlterPartition(AlterPartitionRequest),
    /// A broker has put replicas into other log directories.
    AssignReplicasToDirs(AssignReplicasToDirsRequest),
    /// Changes finalized features; `version` is the request's.
    UpdateFeatures { request: UpdateFeaturesRequest, version: i16 },
    /// Changes client quotas.
    AlterClientQuotas(AlterClientQuotasRequest),
    /// Changes SCRAM credentials.
    AlterUserScramCredentials(AlterUserScramCredentialsRequest),
    /// Writes a record without meaning, so that the log moves.
    NoOp,
}

/// What the controller answers, in the order of [`ControllerRequest`].
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum ControllerReply {
    CreateTopics(CreateTopicsResponse),
    DeleteTopics(DeleteTopicsResponse),
    CreatePartitions(CreatePartitionsResponse),
    RegisterBroker(BrokerRegistrationResponse),
    RegisterController(ControllerRegistrationResponse),
    BrokerHeartbeat(BrokerHeartbeatResponse),
    /// Whether it was not fenced before.
    FenceBroker(Result<bool, ErrorCode>),
    UnregisterBroker(UnregisterBrokerResponse),
    AllocateProducerIds(AllocateProducerIdsResponse),
    IncrementalAlterConfigs(IncrementalAlterConfigsResponse),
    AlterConfigs(AlterConfigsResponse),
    ElectLeaders(ElectLeadersResponse),
    AlterPartitionReassignments(AlterPartitionReassignmentsResponse),
    AlterPartition(AlterPartitionResponse),
    AssignReplicasToDirs(AssignReplicasToDirsResponse),
    UpdateFeatures(UpdateFeaturesResponse),
    AlterClientQuotas(AlterClientQuotasResponse),
    AlterUserScramCredentials(AlterUserScramCredentialsResponse),
    NoOp,
}

/// What the controller has done outside.
#[derive(Debug, Clone, PartialEq)]
pub enum ControllerEffect {
    /// Answers a request.
    Reply(RequestId, ControllerReply),
}

/// A broker's session.
#[derive(Debug, Clone, Copy)]
struct Session {
    expires: Timestamp,
    /// Metadata offset that the broker has reached.
    metadata_offset: i64,
    /// The connection that its heartbeats came by has not ended.
    is_connected: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Controller {
    settings: ControllerSettings,
    image: Image,
    /// Topic names by the name in which dots are underscores: those that would collide in metric
    /// names.
    collisions: BTreeMap<String, Vec<String>>,
    sessions: BTreeMap<BrokerId, Session>,
    /// When leaders go back to the first replicas next; `None` while this is not the active controller.
    next_rebalance: Option<Timestamp>,
    /// When partitions without a leader are looked at next whose topics take one that is not in sync; the same.
    next_unclean: Option<Timestamp>,
}

/// Records and the reply that rests on them.
type Decision = (Vec<MetadataRecord>, ControllerReply);

impl Controller {
    /// A controller that knows nothing yet: replay the log first.
    pub fn new(settings: ControllerSettings) -> Self {
        Controller {
            settings,
            image: Image::default(),
            collisions: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_rebalance: None,
            next_unclean: None,
        }
    }

    /// A controller whose log made `image`. It has no sessions yet.
    pub fn of_image(settings: ControllerSettings, image: Image) -> Self {
        let mut collisions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for topic in image.topics.iter().filter(|topic| topics::has_collision_chars(&topic.name)) {
            collisions.entry(topics::unify(&topic.name)).or_default().push(topic.name.to_string());
        }
        let sessions = BTreeMap::new();
        let (next_rebalance, next_unclean) = (None, None);
        Controller { settings, image, collisions, sessions, next_rebalance, next_unclean }
    }

    /// The state.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The log holds control records up to `offset`.
    pub fn advance_to(&mut self, offset: ottla_protocol::Offset) {
        self.image.advance_to(offset);
    }

    /// A snapshot has been replayed whole: the state is that of the log up to `offset`.
    pub fn stand_at(&mut self, offset: ottla_protocol::Offset) {
        self.image.offset = offset;
    }

    fn decide(&mut self, now: Timestamp, request: ControllerRequest) -> Decision {
        match request {
            ControllerRequest::CreateTopics { request, seed } => self.create_topics(request, seed),
            ControllerRequest::DeleteTopics(request) => self.delete_topics(&request),
            ControllerRequest::CreatePartitions { request, seed } => {
                self.create_partitions(request, seed)
            }
            ControllerRequest::RegisterBroker(request) => self.register_broker(now, request),
            ControllerRequest::RegisterController(request) => self.register_controller(&request),
            ControllerRequest::BrokerHeartbeat(request) => self.broker_heartbeat(now, &request),
            ControllerRequest::FenceBroker { broker_id, broker_epoch } => {
                self.fence_broker(broker_id, broker_epoch)
            }
            ControllerRequest::UnregisterBroker(request) => self.unregister_broker(&request),
            ControllerRequest::AllocateProducerIds(request) => self.allocate_producer_ids(&request),
            ControllerRequest::IncrementalAlterConfigs(request) => {
                self.incremental_alter_configs(&request)
            }
            ControllerRequest::AlterConfigs(request) => self.alter_configs(&request),
            ControllerRequest::ElectLeaders(request) => self.elect_leaders(&request),
            ControllerRequest::AlterPartitionReassignments(request) => {
                self.alter_partition_reassignments(&request)
            }
            ControllerRequest::AlterPartition(request) => self.alter_partition(&request),
            ControllerRequest::AssignReplicasToDirs(request) => self.assign_to_dirs(&request),
            ControllerRequest::UpdateFeatures { request, version } => {
                self.update_features(&request, version)
            }
            ControllerRequest::AlterClientQuotas(request) => self.alter_client_quotas(&request),
            ControllerRequest::AlterUserScramCredentials(request) => self.alter_scram(&request),
            ControllerRequest::NoOp => {
                (vec![MetadataRecord::NoOp(NoOpRecord {})], ControllerReply::NoOp)
            }
        }
    }

    /// The index of colliding names follows the topics.
    fn replay_collisions(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::Topic(topic) if topics::has_collision_chars(&topic.name) => {
                let names = self.collisions.entry(topics::unify(&topic.name)).or_default();
                names.push(topic.name.clone());
            }
            MetadataRecord::RemoveTopic(topic) => {
                let Some(name) = self.image.topics.name_of(&topic.topic_id) else { return };
                let unified = topics::unify(name);
                if let Some(names) = self.collisions.get_mut(&unified) {
                    names.retain(|other| **other != **name);
                    if names.is_empty() {
                        self.collisions.remove(&unified);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Machine for Controller {
    type Request = ControllerRequest;
    type Record = MetadataRecord;
    type Effect = ControllerEffect;

    fn handle(
        &mut self,
        now: Timestamp,
        id: RequestId,
        request: ControllerRequest,
    ) -> Output<Self> {
        let (records, reply) = self.decide(now, request);
        Output { records, effects: vec![ControllerEffect::Reply(id, reply)] }
    }

    fn tick(&mut self, now: Timestamp) -> Output<Self> {
        let mut records = self.fence_one_silent_broker(now);
        if records.is_empty() {
            records = self.rebalance_leaders(now);
        }
        if records.is_empty() {
            records = self.elect_unclean_leaders(now);
        }
        Output { records, effects: Vec::new() }
    }

    fn deadline(&self) -> Option<Timestamp> {
        let elections = self.next_rebalance.into_iter().chain(self.next_unclean);
        self.next_session_end().into_iter().chain(elections).min()
    }

    fn replay(&mut self, entry: &Entry<MetadataRecord>) {
        self.replay_collisions(&entry.record);
        self.image.replay(entry.offset, &entry.record);
    }
}

#[cfg(test)]
mod tests;
