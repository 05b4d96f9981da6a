//! Image: an immutable picture of the committed cluster metadata.
//!
//! Whoever has the records of the metadata log up to an offset has the same Image: brokers publish
//! it to their handlers, and the controller's own state is one. Parts are shared between clones, so
//! publishing copies only what changed. A record that fits nothing (a change of a partition that is
//! not there) changes nothing: the log is written by a controller that has checked it. Source:
//! KIP-631 and Kafka's `MetadataImage`, whose snapshot order [`Image::to_records`] keeps.

mod cluster;
mod security;
mod topics;

pub use cluster::{
    BrokerRegistration, ClusterImage, ControllerRegistration, Endpoint, VersionRange,
};
pub use security::{
    AclsImage, QuotaEntity, QuotaValue, QuotasImage, ScramImage, TokensImage, quota_record,
};
pub use topics::{
    DIRECTORY_LOST, DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED, LeaderRecoveryState,
    NO_LEADER_CHANGE, PartitionRegistration, TopicImage, TopicsImage, numbers,
};

use super::features::METADATA_VERSION;
use super::shared_map::SharedMap;
use ottla_protocol::metadata::{ConfigRecord, FeatureLevelRecord, ProducerIdsRecord};
use ottla_protocol::{BrokerId, MetadataRecord, Offset, ProducerId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What kind of thing a configuration belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum ResourceType {
    /// A topic.
    Topic = 2,
    /// A broker, or all brokers when the name is empty.
    Broker = 4,
    /// The log levels of a broker.
    BrokerLogger = 8,
    /// A subscription for client metrics (KIP-714).
    ClientMetrics = 16,
    /// A group.
    Group = 32,
}

impl ResourceType {
    /// The kind of a number on the wire.
    pub fn from_id(id: i8) -> Option<Self> {
        Some(match id {
            2 => ResourceType::Topic,
            4 => ResourceType::Broker,
            8 => ResourceType::BrokerLogger,
            16 => ResourceType::ClientMetrics,
            32 => ResourceType::Group,
            _ => return None,
        })
    }

    /// The number on the wire.
    pub fn id(self) -> i8 {
        self as i8
    }
}

/// A thing that has a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigResource {
    /// Its kind.
    pub kind: ResourceType,
    /// Its name; empty for all brokers.
    pub name: String,
}

impl ConfigResource {
    /// A resource of a kind and name.
    pub fn new(kind: ResourceType, name: impl Into<String>) -> Self {
        ConfigResource { kind, name: name.into() }
    }
}

/// Dynamic configurations of a resource, by name.
pub type ConfigMap = BTreeMap<String, String>;

/// All dynamic configurations.
pub type ConfigsImage = SharedMap<ConfigResource, Arc<ConfigMap>>;

/// Finalized features (KIP-584).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeaturesImage {
    /// Feature to level; a feature of level 0 is not in here.
    pub levels: BTreeMap<String, i16>,
    /// State of a migration of ZooKeeper, as read; 0 is none.
    pub zk_migration_state: i8,
}

impl FeaturesImage {
    /// A feature's finalized level; 0 when it is not enabled.
    pub fn level(&self, name: &str) -> i16 {
        self.levels.get(name).copied().unwrap_or(0)
    }

    /// The finalized `metadata.version`; 0 before the bootstrap records.
    pub fn metadata_version(&self) -> i16 {
        self.level(METADATA_VERSION)
    }
}

/// The picture of the committed cluster metadata at an offset.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The last offset whose record is in the picture; unknown when there is none.
    pub offset: Offset,
    /// Finalized features.
    pub features: Arc<FeaturesImage>,
    /// Brokers and controllers.
    pub cluster: Arc<ClusterImage>,
    /// Topics and partitions.
    pub topics: TopicsImage,
    /// Dynamic configurations.
    pub configs: ConfigsImage,
    /// Client quotas.
    pub quotas: Arc<QuotasImage>,
    /// The first producer id of the next block; `ProducerId::NONE` before the first block.
    pub next_producer_id: ProducerId,
    /// Access control entries.
    pub acls: Arc<AclsImage>,
    /// SCRAM credentials.
    pub scram: Arc<ScramImage>,
    /// Delegation tokens.
    pub tokens: Arc<TokensImage>,
}

impl Default for Image {
    fn default() -> Self {
        Image {
            offset: Offset::UNKNOWN,
            features: Arc::default(),
            cluster: Arc::default(),
            topics: TopicsImage::default(),
            configs: ConfigsImage::default(),
            quotas: Arc::default(),
            next_producer_id: ProducerId::NONE,
            acls: Arc::default(),
            scram: Arc::default(),
            tokens: Arc::default(),
        }
    }
}

impl Image {
    /// Applies the record at `offset`.
    pub fn replay(&mut self, offset: Offset, record: &MetadataRecord) {
        self.advance_to(offset);
        match record {
            MetadataRecord::Topic(r) => self.topics.replay_topic(r),
            MetadataRecord::Partition(r) => self.topics.replay_partition(r),
            MetadataRecord::PartitionChange(r) => self.topics.replay_change(r),
            MetadataRecord::RemoveTopic(r) => {
                if let Some(name) = self.topics.replay_remove(&r.topic_id) {
                    self.configs.remove(&ConfigResource::new(ResourceType::Topic, &*name));
                }
            }
            MetadataRecord::ClearElr(r) => self.topics.replay_clear_elr(&r.topic_name),
            MetadataRecord::Config(r) => self.replay_config(r),
            MetadataRecord::FeatureLevel(r) => self.replay_feature(r),
            MetadataRecord::ZkMigrationState(r) => {
                Arc::make_mut(&mut self.features).zk_migration_state = r.zk_migration_state;
            }
            MetadataRecord::ProducerIds(r) => {
                self.next_producer_id = ProducerId(r.next_producer_id);
            }
            MetadataRecord::ClientQuota(r) => Arc::make_mut(&mut self.quotas).replay(r),
            MetadataRecord::NoOp(_)
            | MetadataRecord::BeginTransaction(_)
            | MetadataRecord::EndTransaction(_)
            | MetadataRecord::AbortTransaction(_) => {}
            _ if self.replay_security(record) => {}
            _ => self.replay_cluster(record),
        }
    }

    /// Notes that the log holds `offset`, of which nothing is to be seen here (control records).
    pub fn advance_to(&mut self, offset: Offset) {
        self.offset = self.offset.max(offset);
    }

    fn replay_cluster(&mut self, record: &MetadataRecord) {
        let cluster = Arc::make_mut(&mut self.cluster);
        match record {
            MetadataRecord::RegisterBroker(r) => {
                cluster.brokers.insert(BrokerId(r.broker_id), BrokerRegistration::from_record(r));
            }
            MetadataRecord::UnregisterBroker(r) => {
                cluster.brokers.remove(&BrokerId(r.broker_id));
            }
            MetadataRecord::BrokerRegistrationChange(r) => cluster.replay_change(r),
            MetadataRecord::FenceBroker(r) => cluster.set_fenced(r.id, r.epoch, true),
            MetadataRecord::UnfenceBroker(r) => cluster.set_fenced(r.id, r.epoch, false),
            MetadataRecord::RegisterController(r) => {
                let controller = ControllerRegistration::from_record(r);
                cluster.controllers.insert(controller.id, controller);
            }
            MetadataRecord::UnregisterController(r) => {
                cluster.controllers.remove(&BrokerId(r.controller_id));
            }
            _ => {}
        }
    }

    fn replay_security(&mut self, record: &MetadataRecord) -> bool {
        match record {
            MetadataRecord::UserScramCredential(r) => {
                let credentials = &mut Arc::make_mut(&mut self.scram).credentials;
                credentials.insert((r.mechanism, r.name.clone()), r.clone());
            }
            MetadataRecord::RemoveUserScramCredential(r) => {
                let credentials = &mut Arc::make_mut(&mut self.scram).credentials;
                credentials.remove(&(r.mechanism, r.name.clone()));
            }
            MetadataRecord::AccessControlEntry(r) => {
                Arc::make_mut(&mut self.acls).entries.insert(r.id, r.clone());
            }
            MetadataRecord::RemoveAccessControlEntry(r) => {
                Arc::make_mut(&mut self.acls).entries.remove(&r.id);
            }
            MetadataRecord::DelegationToken(r) => {
                Arc::make_mut(&mut self.tokens).tokens.insert(r.token_id.clone(), r.clone());
            }
            MetadataRecord::RemoveDelegationToken(r) => {
                Arc::make_mut(&mut self.tokens).tokens.remove(&r.token_id);
            }
            _ => return false,
        }
        true
    }

    fn replay_config(&mut self, record: &ConfigRecord) {
        let Some(kind) = ResourceType::from_id(record.resource_type) else { return };
        let resource = ConfigResource::new(kind, &record.resource_name);
        let mut configs = self.configs.get(&resource).cloned().unwrap_or_default();
        let map = Arc::make_mut(&mut configs);
        match &record.value {
            Some(value) => map.insert(record.name.clone(), value.clone()),
            None => map.remove(&record.name),
        };
        if map.is_empty() {
            self.configs.remove(&resource);
        } else {
            self.configs.insert(resource, configs);
        }
    }

    fn replay_feature(&mut self, record: &FeatureLevelRecord) {
        let levels = &mut Arc::make_mut(&mut self.features).levels;
        if record.feature_level == 0 {
            levels.remove(&record.name);
        } else {
            levels.insert(record.name.clone(), record.feature_level);
        }
    }

    /// The dynamic configurations of a resource; empty when it has none.
    pub fn config(&self, resource: &ConfigResource) -> Arc<ConfigMap> {
        self.configs.get(resource).cloned().unwrap_or_default()
    }

    /// A dynamic configuration of a topic, if it has one of its own.
    pub fn topic_config(&self, topic: &str, name: &str) -> Option<&str> {
        let configs = self.configs.get(&ConfigResource::new(ResourceType::Topic, topic))?;
        configs.get(name).map(String::as_str)
    }

    /// The records of a snapshot of this picture, in the order in which Kafka writes them.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        self.features_to_records(&mut records);
        self.cluster.to_records(&mut records);
        for topic in self.topics.iter() {
            topic.to_records(&mut records);
        }
        for (resource, configs) in self.configs.iter() {
            records.extend(configs.iter().map(|(name, value)| {
                MetadataRecord::Config(ConfigRecord {
                    resource_type: resource.kind.id(),
                    resource_name: resource.name.clone(),
                    name: name.clone(),
                    value: Some(value.clone()),
                })
            }));
        }
        self.quotas.to_records(&mut records);
        if self.next_producer_id != ProducerId::NONE {
            records.push(MetadataRecord::ProducerIds(ProducerIdsRecord {
                broker_id: -1,
                broker_epoch: -1,
                next_producer_id: self.next_producer_id.0,
            }));
        }
        let acls = self.acls.entries.values().cloned();
        records.extend(acls.map(MetadataRecord::AccessControlEntry));
        let scram = self.scram.credentials.values().cloned();
        records.extend(scram.map(MetadataRecord::UserScramCredential));
        let tokens = self.tokens.tokens.values().cloned();
        records.extend(tokens.map(MetadataRecord::DelegationToken));
        records
    }

    /// `metadata.version` stands first: readers need it to read on.
    fn features_to_records(&self, records: &mut Vec<MetadataRecord>) {
        let levels = &self.features.levels;
        let first = levels.get_key_value(METADATA_VERSION);
        let others = levels.iter().filter(|(name, _)| *name != METADATA_VERSION);
        for (name, level) in first.into_iter().chain(others) {
            records.push(MetadataRecord::FeatureLevel(FeatureLevelRecord {
                name: name.clone(),
                feature_level: *level,
            }));
        }
        if self.features.zk_migration_state != 0 {
            records.push(MetadataRecord::ZkMigrationState(
                ottla_protocol::metadata::ZkMigrationStateRecord {
                    zk_migration_state: self.features.zk_migration_state,
                },
            ));
        }
    }
}
