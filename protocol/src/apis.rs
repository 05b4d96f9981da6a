//! THE table of the APIs that this broker serves: key, versions, listeners, and what the versions
//! brought. ApiVersions is answered from it, and a request outside of it is refused.
//!
//! An API stands here when it has a handler, never before: to switch one on or off, add or remove
//! its line. Not here: what is in a request (generated), and what is done with it (handlers).
//! Source: the listeners and ranges of Apache Kafka 4.4.0's message schemas; KIP-896 says why the
//! low versions are gone.

use crate::error::ErrorCode;
use crate::generated::ApiKey;
use crate::messages::ApiVersionsResponse;
use crate::messages::api_versions_response::ApiVersion;

/// Where an API is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listeners {
    /// On the broker's listeners.
    Broker,
    /// On the controller's.
    Controller,
    /// On both.
    Both,
}

/// Which side of a node a listener belongs to (`controller.listener.names` are the controller's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerType {
    /// For clients and other brokers.
    Broker,
    /// For the quorum, and tools that ask the controller itself (KIP-919).
    Controller,
}

impl Listeners {
    /// Whether a listener of this type is among them.
    pub fn include(self, listener: ListenerType) -> bool {
        match self {
            Listeners::Both => true,
            Listeners::Broker => listener == ListenerType::Broker,
            Listeners::Controller => listener == ListenerType::Controller,
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// Which one.
    pub key: ApiKey,
    /// Lowest version served.
    pub min: i16,
    /// Highest version served.
    pub max: i16,
    /// Where it is served.
    pub listeners: Listeners,
    /// What the versions brought.
    pub notes: &'static str,
}

impl Api {
    /// Whether this version is served.
    pub fn serves(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// The lowest version that ApiVersions names. librdkafka up to 2.8 takes a broker whose Produce
    /// does not begin at 0 for one without any codec (KIP-896), so that Produce says 0, though
    /// versions 0 to 2 are refused.
    pub fn advertised_min(&self) -> i16 {
        if self.key == ApiKey::Produce { 0 } else { self.min }
    }
}

const fn api(key: ApiKey, min: i16, max: i16, on: Listeners, notes: &'static str) -> Api {
    Api { key, min, max, listeners: on, notes }
}

use Listeners::{Both, Broker, Controller};

/// What is served, in the order of the keys.
#[rustfmt::skip]
pub const APIS: &[Api] = &[
    api(ApiKey::Produce, 3, 13, Broker,
        "3 transactional id, 7 zstd (KIP-110), 8 record errors (KIP-467), 9 flexible, 10 leader \
         and endpoints (KIP-951), 11-12 transactions without AddPartitionsToTxn (KIP-890), 13 \
         topic ids (KIP-516)"),
    api(ApiKey::Fetch, 4, 18, Both,
        "4 isolation level, 5 log start offset, 7 sessions (KIP-227), 9 leader epoch (KIP-320), \
         10 zstd, 11 rack (KIP-392), 12 flexible, last fetched epoch (KIP-595), 13 topic ids, 14 \
         tiered (KIP-405), 15 replica state (KIP-903), 16 leader and endpoints (KIP-951), 17 \
         directory id (KIP-853), 18 high watermark (KIP-1166)"),
    api(ApiKey::ListOffsets, 1, 11, Broker,
        "2 isolation level, 4 leader epoch, 6 flexible, 7 max timestamp (KIP-734), 8 earliest \
         local (KIP-405), 9 latest tiered (KIP-1005), 10 remote with a time-out (KIP-1075), 11 \
         earliest pending upload (KIP-1023)"),
    api(ApiKey::Metadata, 0, 13, Broker,
        "1 null is all, controller, rack, 2 cluster id, 4 auto-creation, 5 offline replicas, 7 \
         leader epoch, 8 authorized operations (KIP-430), 9 flexible, 10 topic ids (KIP-516), 12 \
         by topic id, 13 error code (KIP-1102)"),
    api(ApiKey::OffsetCommit, 2, 10, Broker,
        "2 retention, 5 no retention, 6 leader epoch, 7 static members (KIP-345), 8 flexible, 9 \
         consumer groups (KIP-848), 10 topic ids"),
    api(ApiKey::OffsetFetch, 1, 10, Broker,
        "2 all topics, top-level error, 5 leader epoch, 6 flexible, 7 require stable (KIP-447), 8 \
         many groups (KIP-709), 9 member id and epoch (KIP-848), 10 topic ids"),
    api(ApiKey::FindCoordinator, 0, 6, Broker,
        "1 key type, 3 flexible, 4 many keys (KIP-699), 5 TRANSACTION_ABORTABLE (KIP-890), 6 \
         share groups (KIP-932)"),
    api(ApiKey::JoinGroup, 0, 9, Broker,
        "1 rebalance time-out, 4 member id required (KIP-394), 5 static members (KIP-345), 6 \
         flexible, 7 protocol type (KIP-559), 8 reason (KIP-800), 9 skip assignment (KIP-814)"),
    api(ApiKey::Heartbeat, 0, 4, Broker, "3 static members (KIP-345), 4 flexible"),
    api(ApiKey::LeaveGroup, 0, 5, Broker,
        "3 many members (KIP-345), 4 flexible, 5 reason (KIP-800)"),
    api(ApiKey::SyncGroup, 0, 5, Broker,
        "3 static members (KIP-345), 4 flexible, 5 protocol type and name (KIP-559)"),
    api(ApiKey::DescribeGroups, 0, 6, Broker,
        "3 authorized operations (KIP-430), 4 static members, 5 flexible, 6 GROUP_ID_NOT_FOUND \
         (KIP-1043)"),
    api(ApiKey::ListGroups, 0, 5, Broker, "3 flexible, 4 states (KIP-518), 5 types (KIP-848)"),
    api(ApiKey::ApiVersions, 0, 5, Both,
        "3 flexible, client software (KIP-511), features (KIP-584), 4 features from 0, 5 cluster \
         and node id (KIP-1242)"),
    api(ApiKey::CreateTopics, 2, 7, Both,
        "4 defaults of -1 (KIP-464), 5 flexible, configs in the answer (KIP-525), 6 throttled \
         (KIP-599), 7 topic ids"),
    api(ApiKey::DeleteTopics, 1, 6, Both, "4 flexible, 5 error message, 6 by topic id (KIP-516)"),
    api(ApiKey::DeleteRecords, 0, 2, Broker, "0 (KIP-107), 2 flexible"),
    api(ApiKey::InitProducerId, 0, 5, Broker,
        "2 flexible, 3 resume (KIP-360), 4 PRODUCER_FENCED (KIP-588), 5 TRANSACTION_ABORTABLE \
         (KIP-890)"),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4, Broker,
        "2 current leader epoch (KIP-320), 3 replica id, 4 flexible"),
    api(ApiKey::DescribeAcls, 1, 3, Both,
        "1 prefixed patterns (KIP-290), 2 flexible, 3 user resources (KIP-373)"),
    api(ApiKey::CreateAcls, 1, 3, Both,
        "1 prefixed patterns (KIP-290), 2 flexible, 3 user resources (KIP-373)"),
    api(ApiKey::DeleteAcls, 1, 3, Both,
        "1 prefixed patterns (KIP-290), 2 flexible, 3 user resources (KIP-373)"),
    api(ApiKey::DescribeConfigs, 1, 4, Both,
        "1 synonyms and sources (KIP-226), 3 types and documentation (KIP-569), 4 flexible"),
    api(ApiKey::AlterConfigs, 0, 2, Both,
        "2 flexible; replaces all, IncrementalAlterConfigs is its heir"),
    api(ApiKey::AlterReplicaLogDirs, 1, 2, Broker, "1 (KIP-113), 2 flexible"),
    api(ApiKey::DescribeLogDirs, 1, 5, Broker,
        "2 flexible, 3 top-level error, 4 volume sizes (KIP-827), 5 cordoned directories \
         (KIP-1066)"),
    api(ApiKey::CreatePartitions, 0, 3, Both, "0 (KIP-195), 2 flexible, 3 throttled (KIP-599)"),
    api(ApiKey::DeleteGroups, 0, 3, Broker, "0 (KIP-229), 2 flexible, 3 error message"),
    api(ApiKey::ElectLeaders, 0, 2, Both, "1 election types (KIP-460), 2 flexible"),
    api(ApiKey::IncrementalAlterConfigs, 0, 1, Both, "0 (KIP-339), 1 flexible"),
    api(ApiKey::AlterPartitionReassignments, 0, 1, Both,
        "0 (KIP-455), 1 whether the replication factor may change"),
    api(ApiKey::ListPartitionReassignments, 0, 0, Both, "0 (KIP-455)"),
    api(ApiKey::OffsetDelete, 0, 0, Broker, "0 (KIP-496)"),
    api(ApiKey::DescribeClientQuotas, 0, 1, Broker, "0 (KIP-546), 1 flexible"),
    api(ApiKey::AlterClientQuotas, 0, 1, Both, "0 (KIP-546), 1 flexible"),
    api(ApiKey::DescribeUserScramCredentials, 0, 0, Both, "0 (KIP-554)"),
    api(ApiKey::AlterUserScramCredentials, 0, 0, Both, "0 (KIP-554)"),
    api(ApiKey::DescribeQuorum, 0, 2, Both,
        "0 (KIP-595), 1 fetch and caught-up times (KIP-836), 2 directory ids and nodes (KIP-853)"),
    api(ApiKey::AlterPartition, 2, 3, Controller,
        "2 topic ids (KIP-841), 3 epochs of the brokers in the ISR (KIP-903)"),
    api(ApiKey::UpdateFeatures, 0, 2, Both,
        "0 (KIP-584), 1 upgrade types and validate only, 2 no results of single features \
         (KIP-1022)"),
    api(ApiKey::Envelope, 0, 0, Controller, "0 (KIP-590)"),
    api(ApiKey::FetchSnapshot, 0, 1, Controller,
        "0 (KIP-630), 1 the follower's directory (KIP-853)"),
    api(ApiKey::DescribeCluster, 0, 2, Both,
        "0 (KIP-700), 1 endpoint type (KIP-919), 2 fenced brokers (KIP-1073)"),
    api(ApiKey::DescribeProducers, 0, 0, Broker, "0 (KIP-664)"),
    api(ApiKey::BrokerRegistration, 0, 4, Controller,
        "0 (KIP-631), 2 log directories (KIP-858), 3 epoch of the last stop (KIP-966), 4 features \
         from 0"),
    api(ApiKey::BrokerHeartbeat, 0, 2, Controller,
        "0 (KIP-631), 1 directories that are offline (KIP-858), 2 cordoned ones (KIP-1066)"),
    api(ApiKey::UnregisterBroker, 0, 0, Both, "0 (KIP-631)"),
    api(ApiKey::AllocateProducerIds, 0, 0, Controller, "0 (KIP-730)"),
    api(ApiKey::ControllerRegistration, 0, 0, Controller, "0 (KIP-919)"),
    api(ApiKey::AssignReplicasToDirs, 0, 0, Controller, "0 (KIP-858)"),
    api(ApiKey::ListConfigResources, 0, 1, Broker,
        "0 client metrics resources only (KIP-1000), 1 resource types (KIP-1142)"),
    api(ApiKey::DescribeTopicPartitions, 0, 0, Broker, "0 (KIP-966)"),
    api(ApiKey::AddRaftVoter, 0, 1, Both, "0 (KIP-853), 1 answered before it is committed (KIP-1186)"),
    api(ApiKey::RemoveRaftVoter, 0, 0, Both, "0 (KIP-853)"),
    api(ApiKey::UpdateRaftVoter, 0, 0, Controller, "0 (KIP-853)"),
];

/// Keys below this are looked up in `INDEX`.
const KEYS: usize = 128;
const NONE: u8 = u8::MAX;
/// Where each key's line is in [`APIS`].
const INDEX: [u8; KEYS] = {
    let mut index = [NONE; KEYS];
    let mut line = 0;
    while line < APIS.len() {
        index[APIS[line].key as usize] = line as u8;
        line += 1;
    }
    index
};

/// The API of a key on the wire, `None` when it is not served anywhere.
pub fn find(key: i16) -> Option<&'static Api> {
    let line = INDEX.get(usize::try_from(key).ok()?)?;
    APIS.get(usize::from(*line))
}

/// The API, when this listener serves it in this version. An ApiVersions request passes in any
/// version: it is answered by [`unsupported_api_versions`] where `serves` says no. Kafka closes the
/// connection of any other request that does not pass.
pub fn check(key: i16, version: i16, listener: ListenerType) -> Option<&'static Api> {
    let api = find(key)?;
    let passes = api.serves(version) || api.key == ApiKey::ApiVersions;
    (passes && api.listeners.include(listener)).then_some(api)
}

/// What ApiVersions answers on a listener of this type.
pub fn advertised(listener: ListenerType) -> Vec<ApiVersion> {
    APIS.iter().filter(|api| api.listeners.include(listener)).map(api_version).collect()
}

fn api_version(api: &Api) -> ApiVersion {
    ApiVersion { api_key: api.key as i16, min_version: api.advertised_min(), max_version: api.max }
}

/// The answer to an ApiVersions request of a version that is not served, to be written in version
/// 0, whatever was asked for: the error and the range of ApiVersions alone (KIP-511).
pub fn unsupported_api_versions() -> ApiVersionsResponse {
    let own = APIS.iter().filter(|api| api.key == ApiKey::ApiVersions);
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: own.map(api_version).collect(),
        ..ApiVersionsResponse::default()
    }
}

#[cfg(test)]
mod tests;
