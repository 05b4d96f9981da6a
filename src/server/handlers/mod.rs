//! Which function answers which API, and what a request's surroundings are.
//!
//! One file per API: `pub async fn handle(ctx: &RequestContext, request: XRequest) -> XResponse`. To add one, write
//! the file, which begins with its api key and versions, and a line in `route`. Produce and Fetch have entries of
//! their own: they answer without a task switch where they can, and Fetch sends file regions.

mod add_raft_voter;
mod admin;
mod allocate_producer_ids;
mod alter_client_quotas;
mod alter_configs;
mod alter_partition;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod alter_user_scram_credentials;
mod api_versions;
mod assign_replicas_to_dirs;
pub(crate) mod auto_create;
mod broker_heartbeat;
mod broker_registration;
mod controller_registration;
mod create_acls;
mod create_partitions;
mod create_topics;
mod delete_acls;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_user_scram_credentials;
mod elect_leaders;
mod envelope;
mod fetch;
mod fetch_answer;
mod fetch_metadata;
mod fetch_snapshot;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod nodes;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod quorum_message;
mod read_replica;
mod remove_raft_voter;
mod sync_group;
mod unregister_broker;
mod update_features;
mod update_raft_voter;
mod waiting;

pub(crate) use envelope::Enveloped;
pub(crate) use nodes::Leaders;
pub use nodes::Node;

use super::Shared;
use crate::broker::{Broker, ControllerReply, ControllerRequest, FORWARDING_CLIENT};
use crate::env::net::SendQueue;
use ottla_protocol::apis::{self, ListenerType};
use ottla_protocol::frame::FrameError;
use ottla_protocol::messages::ApiVersionsRequest;
use ottla_protocol::request::{self, CONTROLLER_PEER, QUORUM_MESSAGE_KEY, RequestHeader};
use ottla_protocol::{
    ApiKey, BrokerEpoch, BrokerId, ErrorCode, Message, Reader, Request, WireError, Writer,
};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

/// What a handler may know about the request beside its body.
#[derive(Debug)]
pub struct RequestContext {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The request's version.
    pub version: i16,
    /// The request's number on its connection.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<String>,
    /// Who asks.
    pub peer: SocketAddr,
    /// The address that the client dialled.
    pub local: SocketAddr,
    /// The listener's name.
    pub listener: Arc<str>,
    /// Whom the listener serves.
    pub listener_type: ListenerType,
    /// Whether nothing has come yet by a listener that nodes and clients share.
    pub(crate) is_undecided: bool,
    /// Whether this broker is advertised at `local`, because the listener has no advertised address.
    pub(crate) is_dialled_address_advertised: bool,
    pub(crate) shared: Arc<Shared>,
    /// The broker whose heartbeats come by this connection.
    pub(crate) peer_broker: OnceLock<(BrokerId, BrokerEpoch)>,
    /// The voter whose messages come by this connection.
    pub(crate) peer_voter: OnceLock<BrokerId>,
    /// Whether the client has asked for metadata by this connection.
    pub(crate) has_asked: AtomicBool,
    /// That the request came in an envelope, when it did.
    pub(crate) enveloped: Option<Enveloped>,
}

impl RequestContext {
    /// Tells by the first request on a shared listener who is there: a node says so in ApiVersions, and its connection
    /// is as one of a controller's listener. Clients wait until the broker has joined.
    pub(crate) async fn decide(&mut self, header: &RequestHeader, body: &Reader) {
        self.is_undecided = false;
        if is_controller_peer(header, body) {
            self.listener_type = ListenerType::Controller;
        } else {
            self.shared.opened().await;
        }
    }

    /// Puts a request to the active controller: on a broker's listener wherever that is, on a controller's listener
    /// only to the one of this process.
    ///
    /// # Errors
    /// Those of [`Broker::controller`].
    pub(crate) async fn controller(
        &self,
        request: ControllerRequest,
    ) -> Result<ControllerReply, ErrorCode> {
        match self.listener_type {
            ListenerType::Broker => self.broker.controller(request).await,
            ListenerType::Controller => {
                let reply = self.broker.controller_here(request).await;
                if matches!(reply, Err(ErrorCode::NotController)) {
                    self.note_misdirected();
                }
                reply
            }
        }
    }

    /// Whether a broker has passed this request on to the controller, after it checked what concerns the broker alone.
    pub(crate) fn is_forwarded(&self) -> bool {
        self.enveloped.is_some()
            || self.listener_type == ListenerType::Controller
                && self.client_id.as_deref().is_some_and(|id| id.ends_with(FORWARDING_CLIENT))
    }

    /// The connection has ended: those who watch over the node at its other end are told.
    pub(crate) fn peer_gone(&self) {
        if let Some((id, epoch)) = self.peer_broker.get() {
            self.broker.broker_disconnected(*id, *epoch);
        }
        if let Some(id) = self.peer_voter.get() {
            self.broker.voter_disconnected(*id);
        }
    }
}

/// READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS of a topic, as bits: what a broker
/// without an authorizer lets everybody do.
pub(crate) const ALL_TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS and IDEMPOTENT_WRITE of the cluster.
pub(crate) const ALL_CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Close {
    /// The peer closed it, or the server stops.
    #[error("closed by the peer")]
    ByPeer,
    /// The socket failed.
    #[error("connection broken: {0}")]
    Broken(std::io::Error),
    /// Nothing came for `connections.max.idle.ms`.
    #[error("idle for too long")]
    Idle,
    /// Bytes that are no frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A frame that is no request.
    #[error("malformed request: {0}")]
    Malformed(#[from] WireError),
    /// An API or version that this listener does not serve.
    #[error("API key {key} version {version} is not served on this listener")]
    NotServed {
        /// The request's API key.
        key: i16,
        /// The request's version.
        version: i16,
    },
    /// A voter of the same addresses and of another cluster.
    #[error("voter {id} belongs to another cluster: its directories are of {cluster_id}")]
    OtherCluster {
        /// Who it says it is.
        id: BrokerId,
        /// Its cluster.
        cluster_id: String,
    },
    /// A produce request that wants no answer failed: closing is how the producer learns (as Kafka does).
    #[error("error in a produce request with acks=0: {0}")]
    UnansweredProduce(String),
}

impl Close {
    /// Whether an operator should see who it was.
    pub(crate) fn is_peers_fault(&self) -> bool {
        match self {
            Close::ByPeer | Close::Broken(_) | Close::Idle => false,
            Close::Frame(_)
            | Close::Malformed(_)
            | Close::NotServed { .. }
            | Close::OtherCluster { .. }
            | Close::UnansweredProduce(_) => true,
        }
    }
}

/// Whether a node asks for the controller.
fn is_controller_peer(header: &RequestHeader, body: &Reader) -> bool {
    header.api() == Some(ApiKey::ApiVersions)
        && ApiVersionsRequest::decode(&mut body.clone(), header.api_version)
            .is_ok_and(|request| request.client_software_name == CONTROLLER_PEER)
}

/// An answer on its way: what is to be sent, or why the connection ends.
pub(crate) type Pending<'a> = Pin<Box<dyn Future<Output = Result<SendQueue, Close>> + Send + 'a>>;

/// A request that was looked at.
pub(crate) enum Begun<'a> {
    /// The answer, where there is one, is in the queue.
    Done,
    /// The answer needs to be waited for.
    Pending(Pending<'a>),
}

/// Looks at one request. Nothing is written to `out` unless the answer is complete.
///
/// # Errors
/// [`Close`] when the connection must end.
pub(crate) fn begin<'a>(
    ctx: &'a mut RequestContext,
    header: RequestHeader,
    body: Reader,
    out: &mut SendQueue,
) -> Result<Begun<'a>, Close> {
    let (key, version) = (header.api_key, header.api_version);
    ctx.version = version;
    ctx.correlation_id = header.correlation_id;
    ctx.client_id = header.client_id;
    if key == QUORUM_MESSAGE_KEY && ctx.listener_type == ListenerType::Controller {
        return Ok(Begun::Pending(Box::pin(quorum_message::handle(ctx, body))));
    }
    let not_served = Close::NotServed { key, version };
    let Some(api) = apis::check(key, version, ctx.listener_type) else { return Err(not_served) };
    if !api.serves(version) {
        // Only ApiVersions comes here: the client learns the range and asks again.
        write_answer(ctx, &apis::unsupported_api_versions(), 0, out);
        return Ok(Begun::Done);
    }
    match api.key {
        ApiKey::Produce => return produce::begin(ctx, body, out),
        ApiKey::Fetch if ctx.listener_type == ListenerType::Broker => {
            return fetch::begin(ctx, body, out);
        }
        _ => {}
    }
    match route(ctx, api.key, body) {
        Some(pending) => Ok(Begun::Pending(pending)),
        None => Err(not_served),
    }
}

/// The handler of each API.
fn route(ctx: &RequestContext, api: ApiKey, body: Reader) -> Option<Pending<'_>> {
    Some(match api {
        ApiKey::ListOffsets => call(ctx, body, list_offsets::handle),
        ApiKey::Metadata => call(ctx, body, metadata::handle),
        ApiKey::ApiVersions => call(ctx, body, api_versions::handle),
        ApiKey::FindCoordinator => call(ctx, body, find_coordinator::handle),
        ApiKey::OffsetCommit => call(ctx, body, offset_commit::handle),
        ApiKey::OffsetFetch => call(ctx, body, offset_fetch::handle),
        ApiKey::JoinGroup => call(ctx, body, join_group::handle),
        ApiKey::Heartbeat => call(ctx, body, heartbeat::handle),
        ApiKey::LeaveGroup => call(ctx, body, leave_group::handle),
        ApiKey::SyncGroup => call(ctx, body, sync_group::handle),
        ApiKey::DescribeGroups => call(ctx, body, describe_groups::handle),
        ApiKey::ListGroups => call(ctx, body, list_groups::handle),
        ApiKey::DeleteGroups => call(ctx, body, delete_groups::handle),
        ApiKey::OffsetDelete => call(ctx, body, offset_delete::handle),
        ApiKey::DeleteRecords => call(ctx, body, delete_records::handle),
        ApiKey::InitProducerId => call(ctx, body, init_producer_id::handle),
        ApiKey::OffsetForLeaderEpoch => call(ctx, body, offset_for_leader_epoch::handle),
        ApiKey::DescribeLogDirs => call(ctx, body, describe_log_dirs::handle),
        ApiKey::DescribeProducers => call(ctx, body, describe_producers::handle),
        ApiKey::DescribeQuorum => call(ctx, body, describe_quorum::handle),
        ApiKey::AlterClientQuotas => call(ctx, body, alter_client_quotas::handle),
        ApiKey::AlterConfigs => call(ctx, body, alter_configs::handle),
        ApiKey::AlterPartitionReassignments => {
            call(ctx, body, alter_partition_reassignments::handle)
        }
        ApiKey::AlterReplicaLogDirs => call(ctx, body, alter_replica_log_dirs::handle),
        ApiKey::AlterUserScramCredentials => call(ctx, body, alter_user_scram_credentials::handle),
        ApiKey::CreateAcls => call(ctx, body, create_acls::handle),
        ApiKey::CreatePartitions => call(ctx, body, create_partitions::handle),
        ApiKey::CreateTopics => call(ctx, body, create_topics::handle),
        ApiKey::DeleteAcls => call(ctx, body, delete_acls::handle),
        ApiKey::DeleteTopics => call(ctx, body, delete_topics::handle),
        ApiKey::DescribeAcls => call(ctx, body, describe_acls::handle),
        ApiKey::DescribeClientQuotas => call(ctx, body, describe_client_quotas::handle),
        ApiKey::DescribeCluster => call(ctx, body, describe_cluster::handle),
        ApiKey::DescribeConfigs => call(ctx, body, describe_configs::handle),
        ApiKey::DescribeTopicPartitions => call(ctx, body, describe_topic_partitions::handle),
        ApiKey::DescribeUserScramCredentials => {
            call(ctx, body, describe_user_scram_credentials::handle)
        }
        ApiKey::ElectLeaders => call(ctx, body, elect_leaders::handle),
        ApiKey::Envelope => call(ctx, body, envelope::handle),
        ApiKey::IncrementalAlterConfigs => call(ctx, body, incremental_alter_configs::handle),
        ApiKey::ListConfigResources => call(ctx, body, list_config_resources::handle),
        ApiKey::ListPartitionReassignments => call(ctx, body, list_partition_reassignments::handle),
        ApiKey::UnregisterBroker => call(ctx, body, unregister_broker::handle),
        ApiKey::UpdateFeatures => call(ctx, body, update_features::handle),
        ApiKey::AddRaftVoter => call(ctx, body, add_raft_voter::handle),
        ApiKey::RemoveRaftVoter => call(ctx, body, remove_raft_voter::handle),
        ApiKey::UpdateRaftVoter => call(ctx, body, update_raft_voter::handle),
        // That of the brokers has an entry of its own.
        ApiKey::Fetch => call(ctx, body, fetch_metadata::handle),
        ApiKey::FetchSnapshot => call(ctx, body, fetch_snapshot::handle),
        ApiKey::AllocateProducerIds => call(ctx, body, allocate_producer_ids::handle),
        ApiKey::AlterPartition => call(ctx, body, alter_partition::handle),
        ApiKey::AssignReplicasToDirs => call(ctx, body, assign_replicas_to_dirs::handle),
        ApiKey::BrokerRegistration => call(ctx, body, broker_registration::handle),
        ApiKey::BrokerHeartbeat => call(ctx, body, broker_heartbeat::handle),
        ApiKey::ControllerRegistration => call(ctx, body, controller_registration::handle),
        _ => return None,
    })
}

/// Decodes the request, has it handled and encodes the answer.
fn call<'a, Q, H, F>(ctx: &'a RequestContext, mut body: Reader, handle: H) -> Pending<'a>
where
    Q: Request<Response: Send> + Send + 'a,
    H: FnOnce(&'a RequestContext, Q) -> F + Send + 'a,
    F: Future<Output = Q::Response> + Send + 'a,
{
    Box::pin(async move {
        let request = Q::decode(&mut body, ctx.version)?;
        let response = handle(ctx, request).await;
        let mut answer = SendQueue::default();
        write_answer(ctx, &response, ctx.version, &mut answer);
        Ok(answer)
    })
}

/// Queues one whole answer: length, response header, body.
pub(crate) fn write_answer<M: Message>(
    ctx: &RequestContext,
    response: &M,
    version: i16,
    out: &mut SendQueue,
) {
    let bytes = out.bytes_mut();
    let start = bytes.len();
    let mut w = Writer::append_to(std::mem::take(bytes));
    w.i32(0);
    w.i32(ctx.correlation_id);
    if ApiKey::from_code(M::KEY).is_some_and(|api| request::has_flexible_header(api, version)) {
        w.no_tags();
    }
    response.encode(&mut w, version);
    let length = w.len() - start - 4;
    w.set_i32(start, length as i32);
    *bytes = w.into_inner();
}
