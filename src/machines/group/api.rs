//! What a group coordinator is asked and what it answers.
//!
//! Requests carry Kafka's own messages; what a machine may not know by itself (the API version that
//! shapes an answer, the client's name and address, a random id) stands beside them. Topic names
//! and ids have been resolved before.

use ottla_protocol::messages::delete_groups_response::DeletableGroupResult;
use ottla_protocol::messages::describe_groups_response::DescribedGroup;
use ottla_protocol::messages::list_groups_response::ListedGroup;
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ottla_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use ottla_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, SyncGroupRequest, SyncGroupResponse,
};
use ottla_protocol::{ErrorCode, TopicId};
use uuid::Uuid;

use crate::machines::RequestId;

/// A JoinGroup with what the coordinator needs beside the message.
#[derive(Debug, Clone)]
pub struct Join {
    /// The message; `rebalance_timeout_ms` is set, of version 0 too.
    pub request: JoinGroupRequest,
    /// Its API version: 4 and later need a known member id, 9 and later can skip the assignment.
    pub version: i16,
    /// The client's id; empty when it has none.
    pub client_id: String,
    /// The client's address as Kafka writes it, `/127.0.0.1`.
    pub client_host: String,
    /// Random: becomes part of the member id if one is to be made.
    pub uuid: Uuid,
}

/// What a group coordinator is asked.
#[derive(Debug, Clone)]
pub enum GroupRequest {
    /// A member wants to join. Answered when the join phase ends.
    Join(Box<Join>),
    /// A member wants its assignment. Answered when the leader has sent the assignments.
    Sync(SyncGroupRequest),
    /// A member lives.
    Heartbeat(HeartbeatRequest),
    /// Members go; versions before 3 come as one entry of `members`.
    Leave(LeaveGroupRequest),
    /// Commits offsets of partitions that exist.
    CommitOffsets {
        /// Its API version.
        version: i16,
        /// The message; every topic has its name, and its id if known.
        request: OffsetCommitRequest,
    },
    /// Reads the committed offsets of one group.
    FetchOffsets(OffsetFetchRequestGroup),
    /// Deletes committed offsets.
    DeleteOffsets(OffsetDeleteRequest),
    /// Describes classic groups.
    Describe {
        /// Its API version: 6 and later learn that a group does not exist.
        version: i16,
        /// The groups, all of this coordinator's partition.
        groups: Vec<String>,
    },
    /// Lists groups.
    List {
        /// States to list, any case; empty means all.
        states: Vec<String>,
        /// Group types to list, any case; empty means all.
        types: Vec<String>,
    },
    /// Deletes groups.
    DeleteGroups(Vec<String>),
    /// Topics are gone: so are the offsets committed for them.
    TopicsDeleted(Vec<(String, TopicId)>),
}

/// What a group coordinator answers.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupResponse {
    /// To [`GroupRequest::Join`].
    Join(JoinGroupResponse),
    /// To [`GroupRequest::Sync`].
    Sync(SyncGroupResponse),
    /// To [`GroupRequest::Heartbeat`].
    Heartbeat(HeartbeatResponse),
    /// To [`GroupRequest::Leave`].
    Leave(LeaveGroupResponse),
    /// To [`GroupRequest::CommitOffsets`].
    CommitOffsets(OffsetCommitResponse),
    /// To [`GroupRequest::FetchOffsets`].
    FetchOffsets(OffsetFetchResponseGroup),
    /// To [`GroupRequest::DeleteOffsets`].
    DeleteOffsets(OffsetDeleteResponse),
    /// To [`GroupRequest::Describe`].
    Describe(Vec<DescribedGroup>),
    /// To [`GroupRequest::List`].
    List(Vec<ListedGroup>),
    /// To [`GroupRequest::DeleteGroups`].
    DeleteGroups(Vec<DeletableGroupResult>),
    /// To [`GroupRequest::TopicsDeleted`].
    TopicsDeleted,
    /// The whole request is refused; the handler gives the error the API's shape.
    Refused(ErrorCode),
}

macro_rules! typed_response {
    ($($(#[$doc:meta])* $name:ident -> $variant:ident($inner:ty);)*) => {
        impl GroupResponse {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// The code that the whole request was refused with.
                pub fn $name(self) -> Result<$inner, ErrorCode> {
                    match self {
                        GroupResponse::$variant(response) => Ok(response),
                        GroupResponse::Refused(error) => Err(error),
                        _ => Err(ErrorCode::UnknownServerError),
                    }
                }
            )*
        }
    };
}

typed_response! {
    /// The answer to a Join.
    join -> Join(JoinGroupResponse);
    /// The answer to a Sync.
    sync -> Sync(SyncGroupResponse);
    /// The answer to a Heartbeat.
    heartbeat -> Heartbeat(HeartbeatResponse);
    /// The answer to a Leave.
    leave -> Leave(LeaveGroupResponse);
    /// The answer to CommitOffsets.
    commit_offsets -> CommitOffsets(OffsetCommitResponse);
    /// The answer to FetchOffsets.
    fetch_offsets -> FetchOffsets(OffsetFetchResponseGroup);
    /// The answer to DeleteOffsets.
    delete_offsets -> DeleteOffsets(OffsetDeleteResponse);
    /// The answer to Describe.
    describe -> Describe(Vec<DescribedGroup>);
    /// The answer to List.
    list -> List(Vec<ListedGroup>);
    /// The answer to DeleteGroups.
    delete_groups -> DeleteGroups(Vec<DeletableGroupResult>);
}

/// What a group coordinator has done outside.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupEffect {
    /// Answers a request.
    Reply(RequestId, GroupResponse),
}

/// The coordinator's settings. Kafka's key of each stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_ms_max: i32,
    /// `group.max.size`
    pub group_size_max: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// `offset.metadata.max.bytes`; Kafka counts UTF-16 units.
    pub offset_metadata_max: i32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            group_size_max: i32::MAX,
            initial_rebalance_delay_ms: 3_000,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
        }
    }
}

/// The partition of `__consumer_offsets` (or of another coordinator's topic) that holds `key`.
///
/// Kafka's `Utils.abs(key.hashCode()) % partitions`, where the absolute value of the smallest
/// number is 0.
pub fn partition_for(key: &str, partitions: i32) -> i32 {
    let hash = key
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}
