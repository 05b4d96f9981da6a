//! Error codes of the Kafka protocol, with the text that Kafka itself sends beside each.
//!
//! Source: Kafka documentation, "Protocol: Error Codes"; the texts are what
//! Kafka 4.4.0 puts into `ErrorMessage` fields.

/// One of the protocol's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(i16)]
#[allow(missing_docs)]
pub enum ErrorCode {
    UnknownServerError = -1,
    #[default]
    None = 0,
    OffsetOutOfRange = 1,
    CorruptMessage = 2,
    UnknownTopicOrPartition = 3,
    InvalidFetchSize = 4,
    LeaderNotAvailable = 5,
    NotLeaderOrFollower = 6,
    RequestTimedOut = 7,
    BrokerNotAvailable = 8,
    ReplicaNotAvailable = 9,
    MessageTooLarge = 10,
    StaleControllerEpoch = 11,
    OffsetMetadataTooLarge = 12,
    NetworkException = 13,
    CoordinatorLoadInProgress = 14,
    CoordinatorNotAvailable = 15,
    NotCoordinator = 16,
    InvalidTopicException = 17,
    RecordListTooLarge = 18,
    NotEnoughReplicas = 19,
    NotEnoughReplicasAfterAppend = 20,
    InvalidRequiredAcks = 21,
    IllegalGeneration = 22,
    InconsistentGroupProtocol = 23,
    InvalidGroupId = 24,
    UnknownMemberId = 25,
    InvalidSessionTimeout = 26,
    RebalanceInProgress = 27,
    InvalidCommitOffsetSize = 28,
    TopicAuthorizationFailed = 29,
    GroupAuthorizationFailed = 30,
    ClusterAuthorizationFailed = 31,
    InvalidTimestamp = 32,
    UnsupportedSaslMechanism = 33,
    IllegalSaslState = 34,
    UnsupportedVersion = 35,
    TopicAlreadyExists = 36,
    InvalidPartitions = 37,
    InvalidReplicationFactor = 38,
    InvalidReplicaAssignment = 39,
    InvalidConfig = 40,
    NotController = 41,
    InvalidRequest = 42,
    UnsupportedForMessageFormat = 43,
    PolicyViolation = 44,
    OutOfOrderSequenceNumber = 45,
    DuplicateSequenceNumber = 46,
    InvalidProducerEpoch = 47,
    InvalidTxnState = 48,
    InvalidProducerIdMapping = 49,
    InvalidTransactionTimeout = 50,
    ConcurrentTransactions = 51,
    TransactionCoordinatorFenced = 52,
    TransactionalIdAuthorizationFailed = 53,
    SecurityDisabled = 54,
    OperationNotAttempted = 55,
    KafkaStorageError = 56,
    LogDirNotFound = 57,
    SaslAuthenticationFailed = 58,
    UnknownProducerId = 59,
    ReassignmentInProgress = 60,
    DelegationTokenAuthDisabled = 61,
    DelegationTokenNotFound = 62,
    DelegationTokenOwnerMismatch = 63,
    DelegationTokenRequestNotAllowed = 64,
    DelegationTokenAuthorizationFailed = 65,
    DelegationTokenExpired = 66,
    InvalidPrincipalType = 67,
    NonEmptyGroup = 68,
    GroupIdNotFound = 69,
    FetchSessionIdNotFound = 70,
    InvalidFetchSessionEpoch = 71,
    ListenerNotFound = 72,
    TopicDeletionDisabled = 73,
    FencedLeaderEpoch = 74,
    UnknownLeaderEpoch = 75,
    UnsupportedCompressionType = 76,
    StaleBrokerEpoch = 77,
    OffsetNotAvailable = 78,
    MemberIdRequired = 79,
    PreferredLeaderNotAvailable = 80,
    GroupMaxSizeReached = 81,
    FencedInstanceId = 82,
    EligibleLeadersNotAvailable = 83,
    ElectionNotNeeded = 84,
    NoReassignmentInProgress = 85,
    GroupSubscribedToTopic = 86,
    InvalidRecord = 87,
    UnstableOffsetCommit = 88,
    ThrottlingQuotaExceeded = 89,
    ProducerFenced = 90,
    ResourceNotFound = 91,
    DuplicateResource = 92,
    UnacceptableCredential = 93,
    InconsistentVoterSet = 94,
    InvalidUpdateVersion = 95,
    FeatureUpdateFailed = 96,
    PrincipalDeserializationFailure = 97,
    SnapshotNotFound = 98,
    PositionOutOfRange = 99,
    UnknownTopicId = 100,
    DuplicateBrokerRegistration = 101,
    BrokerIdNotRegistered = 102,
    InconsistentTopicId = 103,
    InconsistentClusterId = 104,
    TransactionalIdNotFound = 105,
    FetchSessionTopicIdError = 106,
    IneligibleReplica = 107,
    NewLeaderElected = 108,
    OffsetMovedToTieredStorage = 109,
    FencedMemberEpoch = 110,
    UnreleasedInstanceId = 111,
    UnsupportedAssignor = 112,
    StaleMemberEpoch = 113,
    MismatchedEndpointType = 114,
    UnsupportedEndpointType = 115,
    UnknownControllerId = 116,
    UnknownSubscriptionId = 117,
    TelemetryTooLarge = 118,
    InvalidRegistration = 119,
    TransactionAbortable = 120,
    InvalidRecordState = 121,
    ShareSessionNotFound = 122,
    InvalidShareSessionEpoch = 123,
    FencedStateEpoch = 124,
    InvalidVoterKey = 125,
    DuplicateVoter = 126,
    VoterNotFound = 127,
    InvalidRegularExpression = 128,
    RebootstrapRequired = 129,
    StreamsInvalidTopology = 130,
    StreamsInvalidTopologyEpoch = 131,
    StreamsTopologyFenced = 132,
    ShareSessionLimitReached = 133,
    GroupDeletionFailed = 134,
    StreamsTopologyDescriptionUpdateFailed = 135,
    ControllerIdNotRegistered = 136,
}

/// (code, name, text, retriable)
const TABLE: &[(ErrorCode, &str, &str, bool)] = &[
    (
        ErrorCode::UnknownServerError,
        "UNKNOWN_SERVER_ERROR",
        "The server experienced an unexpected error when processing the request.",
        false,
    ),
    (ErrorCode::None, "NONE", "NONE", false),
    (
        ErrorCode::OffsetOutOfRange,
        "OFFSET_OUT_OF_RANGE",
        "The requested offset is not within the range of offsets maintained by the server.",
        false,
    ),
    (
        ErrorCode::CorruptMessage,
        "CORRUPT_MESSAGE",
        "This message has failed its CRC checksum, exceeds the valid size, has a null key for a compacted topic, or is otherwise corrupt.",
        true,
    ),
    (
        ErrorCode::UnknownTopicOrPartition,
        "UNKNOWN_TOPIC_OR_PARTITION",
        "This server does not host this topic-partition.",
        true,
    ),
    (
        ErrorCode::InvalidFetchSize,
        "INVALID_FETCH_SIZE",
        "The requested fetch size is invalid.",
        false,
    ),
    (
        ErrorCode::LeaderNotAvailable,
        "LEADER_NOT_AVAILABLE",
        "There is no leader for this topic-partition as we are in the middle of a leadership election.",
        true,
    ),
    (
        ErrorCode::NotLeaderOrFollower,
        "NOT_LEADER_OR_FOLLOWER",
        "For requests intended only for the leader, this error indicates that the broker is not the current leader. For requests intended for any replica, this error indicates that the broker is not a replica of the topic partition.",
        true,
    ),
    (ErrorCode::RequestTimedOut, "REQUEST_TIMED_OUT", "The request timed out.", true),
    (ErrorCode::BrokerNotAvailable, "BROKER_NOT_AVAILABLE", "The broker is not available.", false),
    (
        ErrorCode::ReplicaNotAvailable,
        "REPLICA_NOT_AVAILABLE",
        "The replica is not available for the requested topic-partition. Produce/Fetch requests and other requests intended only for the leader or follower return NOT_LEADER_OR_FOLLOWER if the broker is not a replica of the topic-partition.",
        true,
    ),
    (
        ErrorCode::MessageTooLarge,
        "MESSAGE_TOO_LARGE",
        "The request included a message larger than the max message size the server will accept.",
        false,
    ),
    (
        ErrorCode::StaleControllerEpoch,
        "STALE_CONTROLLER_EPOCH",
        "The controller moved to another broker.",
        false,
    ),
    (
        ErrorCode::OffsetMetadataTooLarge,
        "OFFSET_METADATA_TOO_LARGE",
        "The metadata field of the offset request was too large.",
        false,
    ),
    (
        ErrorCode::NetworkException,
        "NETWORK_EXCEPTION",
        "The server disconnected before a response was received.",
        true,
    ),
    (
        ErrorCode::CoordinatorLoadInProgress,
        "COORDINATOR_LOAD_IN_PROGRESS",
        "The coordinator is loading and hence can't process requests.",
        true,
    ),
    (
        ErrorCode::CoordinatorNotAvailable,
        "COORDINATOR_NOT_AVAILABLE",
        "The coordinator is not available.",
        true,
    ),
    (ErrorCode::NotCoordinator, "NOT_COORDINATOR", "This is not the correct coordinator.", true),
    (
        ErrorCode::InvalidTopicException,
        "INVALID_TOPIC_EXCEPTION",
        "The request attempted to perform an operation on an invalid topic.",
        false,
    ),
    (
        ErrorCode::RecordListTooLarge,
        "RECORD_LIST_TOO_LARGE",
        "The request included message batch larger than the configured segment size on the server.",
        false,
    ),
    (
        ErrorCode::NotEnoughReplicas,
        "NOT_ENOUGH_REPLICAS",
        "Messages are rejected since there are fewer in-sync replicas than required.",
        true,
    ),
    (
        ErrorCode::NotEnoughReplicasAfterAppend,
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        "Messages are written to the log, but to fewer in-sync replicas than required.",
        true,
    ),
    (
        ErrorCode::InvalidRequiredAcks,
        "INVALID_REQUIRED_ACKS",
        "Produce request specified an invalid value for required acks.",
        false,
    ),
    (
        ErrorCode::IllegalGeneration,
        "ILLEGAL_GENERATION",
        "Specified group generation id is not valid.",
        false,
    ),
    (
        ErrorCode::InconsistentGroupProtocol,
        "INCONSISTENT_GROUP_PROTOCOL",
        "The group member's supported protocols are incompatible with those of existing members or first group member tried to join with empty protocol type or empty protocol list.",
        false,
    ),
    (ErrorCode::InvalidGroupId, "INVALID_GROUP_ID", "The group id is invalid.", false),
    (
        ErrorCode::UnknownMemberId,
        "UNKNOWN_MEMBER_ID",
        "The coordinator is not aware of this member.",
        false,
    ),
    (
        ErrorCode::InvalidSessionTimeout,
        "INVALID_SESSION_TIMEOUT",
        "The session timeout is not within the range allowed by the broker (as configured by group.min.session.timeout.ms and group.max.session.timeout.ms).",
        false,
    ),
    (
        ErrorCode::RebalanceInProgress,
        "REBALANCE_IN_PROGRESS",
        "The group is rebalancing, so a rejoin is needed.",
        false,
    ),
    (
        ErrorCode::InvalidCommitOffsetSize,
        "INVALID_COMMIT_OFFSET_SIZE",
        "The committing offset data size is not valid.",
        false,
    ),
    (
        ErrorCode::TopicAuthorizationFailed,
        "TOPIC_AUTHORIZATION_FAILED",
        "Topic authorization failed.",
        false,
    ),
    (
        ErrorCode::GroupAuthorizationFailed,
        "GROUP_AUTHORIZATION_FAILED",
        "Group authorization failed.",
        false,
    ),
    (
        ErrorCode::ClusterAuthorizationFailed,
        "CLUSTER_AUTHORIZATION_FAILED",
        "Cluster authorization failed.",
        false,
    ),
    (
        ErrorCode::InvalidTimestamp,
        "INVALID_TIMESTAMP",
        "The timestamp of the message is out of acceptable range.",
        false,
    ),
    (
        ErrorCode::UnsupportedSaslMechanism,
        "UNSUPPORTED_SASL_MECHANISM",
        "The broker does not support the requested SASL mechanism.",
        false,
    ),
    (
        ErrorCode::IllegalSaslState,
        "ILLEGAL_SASL_STATE",
        "Request is not valid given the current SASL state.",
        false,
    ),
    (
        ErrorCode::UnsupportedVersion,
        "UNSUPPORTED_VERSION",
        "The version of API is not supported.",
        false,
    ),
    (
        ErrorCode::TopicAlreadyExists,
        "TOPIC_ALREADY_EXISTS",
        "Topic with this name already exists.",
        false,
    ),
    (ErrorCode::InvalidPartitions, "INVALID_PARTITIONS", "Number of partitions is below 1.", false),
    (
        ErrorCode::InvalidReplicationFactor,
        "INVALID_REPLICATION_FACTOR",
        "Replication factor is below 1 or larger than the number of available brokers.",
        false,
    ),
    (
        ErrorCode::InvalidReplicaAssignment,
        "INVALID_REPLICA_ASSIGNMENT",
        "Replica assignment is invalid.",
        false,
    ),
    (ErrorCode::InvalidConfig, "INVALID_CONFIG", "Configuration is invalid.", false),
    (
        ErrorCode::NotController,
        "NOT_CONTROLLER",
        "This is not the correct controller for this cluster.",
        true,
    ),
    (
        ErrorCode::InvalidRequest,
        "INVALID_REQUEST",
        "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible broker. See the broker logs for more details.",
        false,
    ),
    (
        ErrorCode::UnsupportedForMessageFormat,
        "UNSUPPORTED_FOR_MESSAGE_FORMAT",
        "The message format version on the broker does not support the request.",
        false,
    ),
    (
        ErrorCode::PolicyViolation,
        "POLICY_VIOLATION",
        "Request parameters do not satisfy the configured policy.",
        false,
    ),
    (
        ErrorCode::OutOfOrderSequenceNumber,
        "OUT_OF_ORDER_SEQUENCE_NUMBER",
        "The broker received an out of order sequence number.",
        false,
    ),
    (
        ErrorCode::DuplicateSequenceNumber,
        "DUPLICATE_SEQUENCE_NUMBER",
        "The broker received a duplicate sequence number.",
        false,
    ),
    (
        ErrorCode::InvalidProducerEpoch,
        "INVALID_PRODUCER_EPOCH",
        "Producer attempted to produce with an old epoch.",
        false,
    ),
    (
        ErrorCode::InvalidTxnState,
        "INVALID_TXN_STATE",
        "The producer attempted a transactional operation in an invalid state.",
        false,
    ),
    (
        ErrorCode::InvalidProducerIdMapping,
        "INVALID_PRODUCER_ID_MAPPING",
        "The producer attempted to use a producer id which is not currently assigned to its transactional id.",
        false,
    ),
    (
        ErrorCode::InvalidTransactionTimeout,
        "INVALID_TRANSACTION_TIMEOUT",
        "The transaction timeout is larger than the maximum value allowed by the broker (as configured by transaction.max.timeout.ms).",
        false,
    ),
    (
        ErrorCode::ConcurrentTransactions,
        "CONCURRENT_TRANSACTIONS",
        "The producer attempted to update a transaction while another concurrent operation on the same transaction was ongoing.",
        true,
    ),
    (
        ErrorCode::TransactionCoordinatorFenced,
        "TRANSACTION_COORDINATOR_FENCED",
        "Indicates that the transaction coordinator sending a WriteTxnMarker is no longer the current coordinator for a given producer.",
        false,
    ),
    (
        ErrorCode::TransactionalIdAuthorizationFailed,
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        "Transactional Id authorization failed.",
        false,
    ),
    (ErrorCode::SecurityDisabled, "SECURITY_DISABLED", "Security features are disabled.", false),
    (
        ErrorCode::OperationNotAttempted,
        "OPERATION_NOT_ATTEMPTED",
        "The broker did not attempt to execute this operation. This may happen for batched RPCs where some operations in the batch failed, causing the broker to respond without trying the rest.",
        false,
    ),
    (
        ErrorCode::KafkaStorageError,
        "KAFKA_STORAGE_ERROR",
        "Disk error when trying to access log file on the disk.",
        true,
    ),
    (
        ErrorCode::LogDirNotFound,
        "LOG_DIR_NOT_FOUND",
        "The user-specified log directory is not found in the broker config.",
        false,
    ),
    (
        ErrorCode::SaslAuthenticationFailed,
        "SASL_AUTHENTICATION_FAILED",
        "SASL Authentication failed.",
        false,
    ),
    (
        ErrorCode::UnknownProducerId,
        "UNKNOWN_PRODUCER_ID",
        "This exception is raised by the broker if it could not locate the producer metadata associated with the producerId in question. This could happen if, for instance, the producer's records were deleted because their retention time had elapsed. Once the last records of the producerId are removed, the producer's metadata is removed from the broker, and future appends by the producer will return this exception.",
        false,
    ),
    (
        ErrorCode::ReassignmentInProgress,
        "REASSIGNMENT_IN_PROGRESS",
        "A partition reassignment is in progress.",
        false,
    ),
    (
        ErrorCode::DelegationTokenAuthDisabled,
        "DELEGATION_TOKEN_AUTH_DISABLED",
        "Delegation Token feature is not enabled.",
        false,
    ),
    (
        ErrorCode::DelegationTokenNotFound,
        "DELEGATION_TOKEN_NOT_FOUND",
        "Delegation Token is not found on server.",
        false,
    ),
    (
        ErrorCode::DelegationTokenOwnerMismatch,
        "DELEGATION_TOKEN_OWNER_MISMATCH",
        "Specified Principal is not valid Owner/Renewer.",
        false,
    ),
    (
        ErrorCode::DelegationTokenRequestNotAllowed,
        "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED",
        "Delegation Token requests are not allowed on PLAINTEXT/1-way SSL channels and on delegation token authenticated channels.",
        false,
    ),
    (
        ErrorCode::DelegationTokenAuthorizationFailed,
        "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
        "Delegation Token authorization failed.",
        false,
    ),
    (
        ErrorCode::DelegationTokenExpired,
        "DELEGATION_TOKEN_EXPIRED",
        "Delegation Token is expired.",
        false,
    ),
    (
        ErrorCode::InvalidPrincipalType,
        "INVALID_PRINCIPAL_TYPE",
        "Supplied principalType is not supported.",
        false,
    ),
    (ErrorCode::NonEmptyGroup, "NON_EMPTY_GROUP", "The group is not empty.", false),
    (ErrorCode::GroupIdNotFound, "GROUP_ID_NOT_FOUND", "The group id does not exist.", false),
    (
        ErrorCode::FetchSessionIdNotFound,
        "FETCH_SESSION_ID_NOT_FOUND",
        "The fetch session ID was not found.",
        true,
    ),
    (
        ErrorCode::InvalidFetchSessionEpoch,
        "INVALID_FETCH_SESSION_EPOCH",
        "The fetch session epoch is invalid.",
        true,
    ),
    (
        ErrorCode::ListenerNotFound,
        "LISTENER_NOT_FOUND",
        "There is no listener on the leader broker that matches the listener on which metadata request was processed.",
        true,
    ),
    (
        ErrorCode::TopicDeletionDisabled,
        "TOPIC_DELETION_DISABLED",
        "Topic deletion is disabled.",
        false,
    ),
    (
        ErrorCode::FencedLeaderEpoch,
        "FENCED_LEADER_EPOCH",
        "The leader epoch in the request is older than the epoch on the broker.",
        true,
    ),
    (
        ErrorCode::UnknownLeaderEpoch,
        "UNKNOWN_LEADER_EPOCH",
        "The leader epoch in the request is newer than the epoch on the broker.",
        true,
    ),
    (
        ErrorCode::UnsupportedCompressionType,
        "UNSUPPORTED_COMPRESSION_TYPE",
        "The requesting client does not support the compression type of given partition.",
        false,
    ),
    (ErrorCode::StaleBrokerEpoch, "STALE_BROKER_EPOCH", "Broker epoch has changed.", false),
    (
        ErrorCode::OffsetNotAvailable,
        "OFFSET_NOT_AVAILABLE",
        "The leader high watermark has not caught up from a recent leader election so the offsets cannot be guaranteed to be monotonically increasing.",
        true,
    ),
    (
        ErrorCode::MemberIdRequired,
        "MEMBER_ID_REQUIRED",
        "The group member needs to have a valid member id before actually entering a consumer group.",
        false,
    ),
    (
        ErrorCode::PreferredLeaderNotAvailable,
        "PREFERRED_LEADER_NOT_AVAILABLE",
        "The preferred leader was not available.",
        true,
    ),
    (
        ErrorCode::GroupMaxSizeReached,
        "GROUP_MAX_SIZE_REACHED",
        "The group has reached its maximum size.",
        false,
    ),
    (
        ErrorCode::FencedInstanceId,
        "FENCED_INSTANCE_ID",
        "The broker rejected this static consumer since another consumer with the same group.instance.id has registered with a different member.id.",
        false,
    ),
    (
        ErrorCode::EligibleLeadersNotAvailable,
        "ELIGIBLE_LEADERS_NOT_AVAILABLE",
        "Eligible topic partition leaders are not available.",
        true,
    ),
    (
        ErrorCode::ElectionNotNeeded,
        "ELECTION_NOT_NEEDED",
        "Leader election not needed for topic partition.",
        true,
    ),
    (
        ErrorCode::NoReassignmentInProgress,
        "NO_REASSIGNMENT_IN_PROGRESS",
        "No partition reassignment is in progress.",
        false,
    ),
    (
        ErrorCode::GroupSubscribedToTopic,
        "GROUP_SUBSCRIBED_TO_TOPIC",
        "Deleting offsets of a topic is forbidden while the consumer group is actively subscribed to it.",
        false,
    ),
    (
        ErrorCode::InvalidRecord,
        "INVALID_RECORD",
        "This record has failed the validation on broker and hence will be rejected.",
        false,
    ),
    (
        ErrorCode::UnstableOffsetCommit,
        "UNSTABLE_OFFSET_COMMIT",
        "There are unstable offsets that need to be cleared.",
        true,
    ),
    (
        ErrorCode::ThrottlingQuotaExceeded,
        "THROTTLING_QUOTA_EXCEEDED",
        "The throttling quota has been exceeded.",
        true,
    ),
    (
        ErrorCode::ProducerFenced,
        "PRODUCER_FENCED",
        "There is a newer producer with the same transactionalId which fences the current one.",
        false,
    ),
    (
        ErrorCode::ResourceNotFound,
        "RESOURCE_NOT_FOUND",
        "A request illegally referred to a resource that does not exist.",
        false,
    ),
    (
        ErrorCode::DuplicateResource,
        "DUPLICATE_RESOURCE",
        "A request illegally referred to the same resource twice.",
        false,
    ),
    (
        ErrorCode::UnacceptableCredential,
        "UNACCEPTABLE_CREDENTIAL",
        "Requested credential would not meet criteria for acceptability.",
        false,
    ),
    (
        ErrorCode::InconsistentVoterSet,
        "INCONSISTENT_VOTER_SET",
        "Indicates that the either the sender or recipient of a voter-only request is not one of the expected voters.",
        false,
    ),
    (
        ErrorCode::InvalidUpdateVersion,
        "INVALID_UPDATE_VERSION",
        "The given update version was invalid.",
        false,
    ),
    (
        ErrorCode::FeatureUpdateFailed,
        "FEATURE_UPDATE_FAILED",
        "Unable to update finalized features due to an unexpected server error.",
        false,
    ),
    (
        ErrorCode::PrincipalDeserializationFailure,
        "PRINCIPAL_DESERIALIZATION_FAILURE",
        "Request principal deserialization failed during forwarding. This indicates an internal error on the broker cluster security setup.",
        false,
    ),
    (ErrorCode::SnapshotNotFound, "SNAPSHOT_NOT_FOUND", "Requested snapshot was not found.", false),
    (
        ErrorCode::PositionOutOfRange,
        "POSITION_OUT_OF_RANGE",
        "Requested position is not greater than or equal to zero, and less than the size of the snapshot.",
        false,
    ),
    (
        ErrorCode::UnknownTopicId,
        "UNKNOWN_TOPIC_ID",
        "This server does not host this topic ID.",
        true,
    ),
    (
        ErrorCode::DuplicateBrokerRegistration,
        "DUPLICATE_BROKER_REGISTRATION",
        "This broker ID is already in use.",
        false,
    ),
    (
        ErrorCode::BrokerIdNotRegistered,
        "BROKER_ID_NOT_REGISTERED",
        "The given broker ID was not registered.",
        false,
    ),
    (
        ErrorCode::InconsistentTopicId,
        "INCONSISTENT_TOPIC_ID",
        "The log's topic ID did not match the topic ID in the request.",
        true,
    ),
    (
        ErrorCode::InconsistentClusterId,
        "INCONSISTENT_CLUSTER_ID",
        "The clusterId in the request does not match that found on the server.",
        false,
    ),
    (
        ErrorCode::TransactionalIdNotFound,
        "TRANSACTIONAL_ID_NOT_FOUND",
        "The transactionalId could not be found.",
        false,
    ),
    (
        ErrorCode::FetchSessionTopicIdError,
        "FETCH_SESSION_TOPIC_ID_ERROR",
        "The fetch session encountered inconsistent topic ID usage.",
        true,
    ),
    (
        ErrorCode::IneligibleReplica,
        "INELIGIBLE_REPLICA",
        "The new ISR contains at least one ineligible replica.",
        false,
    ),
    (
        ErrorCode::NewLeaderElected,
        "NEW_LEADER_ELECTED",
        "The AlterPartition request successfully updated the partition state but the leader has changed.",
        false,
    ),
    (
        ErrorCode::OffsetMovedToTieredStorage,
        "OFFSET_MOVED_TO_TIERED_STORAGE",
        "The requested offset is moved to tiered storage.",
        false,
    ),
    (
        ErrorCode::FencedMemberEpoch,
        "FENCED_MEMBER_EPOCH",
        "The member epoch is fenced by the group coordinator. The member must abandon all its partitions and rejoin.",
        false,
    ),
    (
        ErrorCode::UnreleasedInstanceId,
        "UNRELEASED_INSTANCE_ID",
        "The instance ID is still used by another member in the consumer group. That member must leave first.",
        false,
    ),
    (
        ErrorCode::UnsupportedAssignor,
        "UNSUPPORTED_ASSIGNOR",
        "The assignor or its version range is not supported by the consumer group.",
        false,
    ),
    (
        ErrorCode::StaleMemberEpoch,
        "STALE_MEMBER_EPOCH",
        "The member epoch is stale. The member must retry after receiving its updated member epoch via the ConsumerGroupHeartbeat API.",
        false,
    ),
    (
        ErrorCode::MismatchedEndpointType,
        "MISMATCHED_ENDPOINT_TYPE",
        "The request was sent to an endpoint of the wrong type.",
        false,
    ),
    (
        ErrorCode::UnsupportedEndpointType,
        "UNSUPPORTED_ENDPOINT_TYPE",
        "This endpoint type is not supported yet.",
        false,
    ),
    (
        ErrorCode::UnknownControllerId,
        "UNKNOWN_CONTROLLER_ID",
        "This controller ID is not known.",
        false,
    ),
    (
        ErrorCode::UnknownSubscriptionId,
        "UNKNOWN_SUBSCRIPTION_ID",
        "Client sent a push telemetry request with an invalid or outdated subscription ID.",
        false,
    ),
    (
        ErrorCode::TelemetryTooLarge,
        "TELEMETRY_TOO_LARGE",
        "Client sent a push telemetry request larger than the maximum size the broker will accept.",
        false,
    ),
    (
        ErrorCode::InvalidRegistration,
        "INVALID_REGISTRATION",
        "The controller has considered the broker registration to be invalid.",
        false,
    ),
    (
        ErrorCode::TransactionAbortable,
        "TRANSACTION_ABORTABLE",
        "The server encountered an error with the transaction. The client can abort the transaction to continue using this transactional ID.",
        false,
    ),
    (
        ErrorCode::InvalidRecordState,
        "INVALID_RECORD_STATE",
        "The record state is invalid. The acknowledgement of delivery could not be completed.",
        false,
    ),
    (
        ErrorCode::ShareSessionNotFound,
        "SHARE_SESSION_NOT_FOUND",
        "The share session was not found.",
        true,
    ),
    (
        ErrorCode::InvalidShareSessionEpoch,
        "INVALID_SHARE_SESSION_EPOCH",
        "The share session epoch is invalid.",
        true,
    ),
    (
        ErrorCode::FencedStateEpoch,
        "FENCED_STATE_EPOCH",
        "The coordinator rejected the request because the state epoch did not match.",
        false,
    ),
    (
        ErrorCode::InvalidVoterKey,
        "INVALID_VOTER_KEY",
        "The voter key doesn't match the receiving replica's key.",
        false,
    ),
    (
        ErrorCode::DuplicateVoter,
        "DUPLICATE_VOTER",
        "The voter is already part of the set of voters.",
        false,
    ),
    (
        ErrorCode::VoterNotFound,
        "VOTER_NOT_FOUND",
        "The voter is not part of the set of voters.",
        false,
    ),
    (
        ErrorCode::InvalidRegularExpression,
        "INVALID_REGULAR_EXPRESSION",
        "The regular expression is not valid.",
        false,
    ),
    (
        ErrorCode::RebootstrapRequired,
        "REBOOTSTRAP_REQUIRED",
        "Client metadata is stale. The client should rebootstrap to obtain new metadata.",
        false,
    ),
    (
        ErrorCode::StreamsInvalidTopology,
        "STREAMS_INVALID_TOPOLOGY",
        "The supplied topology is invalid.",
        false,
    ),
    (
        ErrorCode::StreamsInvalidTopologyEpoch,
        "STREAMS_INVALID_TOPOLOGY_EPOCH",
        "The supplied topology epoch is invalid.",
        false,
    ),
    (
        ErrorCode::StreamsTopologyFenced,
        "STREAMS_TOPOLOGY_FENCED",
        "The supplied topology epoch is outdated.",
        false,
    ),
    (
        ErrorCode::ShareSessionLimitReached,
        "SHARE_SESSION_LIMIT_REACHED",
        "The limit of share sessions has been reached.",
        true,
    ),
    (
        ErrorCode::GroupDeletionFailed,
        "GROUP_DELETION_FAILED",
        "DeleteGroups could not complete; see the error message on the per-group result for details.",
        false,
    ),
    (
        ErrorCode::StreamsTopologyDescriptionUpdateFailed,
        "STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED",
        "The broker could not process the topology description update; see the error message for details.",
        false,
    ),
    (
        ErrorCode::ControllerIdNotRegistered,
        "CONTROLLER_ID_NOT_REGISTERED",
        "The given controller ID was not registered.",
        false,
    ),
];

impl ErrorCode {
    fn row(self) -> &'static (ErrorCode, &'static str, &'static str, bool) {
        // The table is in the order of the codes, which start at -1 and have no gap (see the test).
        &TABLE[(self as i16 + 1) as usize]
    }

    /// The code on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name, e.g. `UNKNOWN_TOPIC_OR_PARTITION`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Kafka's own text for this error; empty for `NONE`.
    pub fn message(self) -> &'static str {
        self.row().2
    }

    /// Whether clients retry it.
    pub fn is_retriable(self) -> bool {
        self.row().3
    }

    /// The error of a code on the wire; an unknown code is `UNKNOWN_SERVER_ERROR`.
    pub fn from_code(code: i16) -> ErrorCode {
        usize::try_from(i32::from(code) + 1)
            .ok()
            .and_then(|at| TABLE.get(at))
            .map_or(ErrorCode::UnknownServerError, |row| row.0)
    }

    /// Whether this is an error at all.
    pub fn is_err(self) -> bool {
        self != ErrorCode::None
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_codes_without_a_gap() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0.code(), at as i16 - 1, "{}", row.1);
            assert_eq!(ErrorCode::from_code(row.0.code()), row.0);
        }
        assert_eq!(ErrorCode::from_code(30_000), ErrorCode::UnknownServerError);
    }
}
