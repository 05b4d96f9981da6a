//! Broker and controller registrations in the Image.

use super::topics::{
    DIRECTORY_LOST, DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED, PartitionRegistration,
};
use ottla_protocol::metadata::{
    BrokerRegistrationChangeRecord, RegisterBrokerRecord, RegisterControllerRecord,
    register_broker_record::{BrokerEndpoint, BrokerFeature},
    register_controller_record::{ControllerEndpoint, ControllerFeature},
};
use ottla_protocol::{BrokerEpoch, BrokerId, MetadataRecord};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Where a listener of a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// The versions of a feature that a node supports, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// Lowest.
    pub min: i16,
    /// Highest.
    pub max: i16,
}

/// A registered broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Its `node.id`.
    pub id: BrokerId,
    /// Counts its registrations: the metadata offset of the last one.
    pub epoch: BrokerEpoch,
    /// Drawn anew at each start of the process.
    pub incarnation_id: Uuid,
    /// Listeners by name.
    pub listeners: BTreeMap<String, Endpoint>,
    /// Features by name.
    pub features: BTreeMap<String, VersionRange>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Whether it may not lead and is hidden from clients.
    pub fenced: bool,
    /// Whether it is handing over its leaderships.
    pub in_controlled_shutdown: bool,
    /// From a migration of ZooKeeper, kept as read.
    pub is_migrating_zk_broker: bool,
    /// Ids of its log directories that are online.
    pub log_dirs: Vec<Uuid>,
    /// Log directories in which nothing new is to be placed; `None` before metadata version 4.3.
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

impl BrokerRegistration {
    /// What the record says.
    pub fn from_record(record: &RegisterBrokerRecord) -> Self {
        BrokerRegistration {
            id: BrokerId(record.broker_id),
            epoch: BrokerEpoch(record.broker_epoch),
            incarnation_id: record.incarnation_id,
            listeners: record
                .end_points
                .iter()
                .map(|end| (end.name.clone(), endpoint(&end.host, end.port, end.security_protocol)))
                .collect(),
            features: record
                .features
                .iter()
                .map(|f| (f.name.clone(), range(f.min_supported_version, f.max_supported_version)))
                .collect(),
            rack: record.rack.clone(),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            is_migrating_zk_broker: record.is_migrating_zk_broker,
            log_dirs: record.log_dirs.clone(),
            cordoned_log_dirs: record.cordoned_log_dirs.clone(),
        }
    }

    /// The record that registers the broker in this state.
    pub fn to_record(&self) -> RegisterBrokerRecord {
        RegisterBrokerRecord {
            broker_id: self.id.0,
            is_migrating_zk_broker: self.is_migrating_zk_broker,
            incarnation_id: self.incarnation_id,
            broker_epoch: self.epoch.0,
            end_points: self
                .listeners
                .iter()
                .map(|(name, end)| BrokerEndpoint {
                    name: name.clone(),
                    host: end.host.clone(),
                    port: end.port,
                    security_protocol: end.security_protocol,
                })
                .collect(),
            features: self
                .features
                .iter()
                .map(|(name, range)| BrokerFeature {
                    name: name.clone(),
                    min_supported_version: range.min,
                    max_supported_version: range.max,
                })
                .collect(),
            rack: self.rack.clone(),
            fenced: self.fenced,
            in_controlled_shutdown: self.in_controlled_shutdown,
            log_dirs: self.log_dirs.clone(),
            cordoned_log_dirs: self.cordoned_log_dirs.clone(),
        }
    }

    /// Whether it may lead: neither fenced nor on its way out.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    fn change(&mut self, record: &BrokerRegistrationChangeRecord) {
        match record.fenced {
            -1 => self.fenced = false,
            1 => self.fenced = true,
            _ => {}
        }
        if record.in_controlled_shutdown == 1 {
            self.in_controlled_shutdown = true;
        }
        if !record.log_dirs.is_empty() {
            self.log_dirs = record.log_dirs.clone();
        }
        if record.cordoned_log_dirs.is_some() {
            self.cordoned_log_dirs = record.cordoned_log_dirs.clone();
        }
    }
}

/// A registered controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerRegistration {
    /// Its `node.id`.
    pub id: BrokerId,
    /// Drawn anew at each start of the process.
    pub incarnation_id: Uuid,
    /// From a migration of ZooKeeper, kept as read.
    pub zk_migration_ready: bool,
    /// Listeners by name.
    pub listeners: BTreeMap<String, Endpoint>,
    /// Features by name.
    pub features: BTreeMap<String, VersionRange>,
}

impl ControllerRegistration {
    /// What the record says.
    pub fn from_record(record: &RegisterControllerRecord) -> Self {
        ControllerRegistration {
            id: BrokerId(record.controller_id),
            incarnation_id: record.incarnation_id,
            zk_migration_ready: record.zk_migration_ready,
            listeners: record
                .end_points
                .iter()
                .map(|end| (end.name.clone(), endpoint(&end.host, end.port, end.security_protocol)))
                .collect(),
            features: record
                .features
                .iter()
                .map(|f| (f.name.clone(), range(f.min_supported_version, f.max_supported_version)))
                .collect(),
        }
    }

    /// The record that registers the controller in this state.
    pub fn to_record(&self) -> RegisterControllerRecord {
        RegisterControllerRecord {
            controller_id: self.id.0,
            incarnation_id: self.incarnation_id,
            zk_migration_ready: self.zk_migration_ready,
            end_points: self
                .listeners
                .iter()
                .map(|(name, end)| ControllerEndpoint {
                    name: name.clone(),
                    host: end.host.clone(),
                    port: end.port,
                    security_protocol: end.security_protocol,
                })
                .collect(),
            features: self
                .features
                .iter()
                .map(|(name, range)| ControllerFeature {
                    name: name.clone(),
                    min_supported_version: range.min,
                    max_supported_version: range.max,
                })
                .collect(),
        }
    }
}

fn endpoint(host: &str, port: u16, security_protocol: i16) -> Endpoint {
    Endpoint { host: host.to_owned(), port, security_protocol }
}

fn range(min: i16, max: i16) -> VersionRange {
    VersionRange { min, max }
}

/// All registrations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterImage {
    /// Brokers by id.
    pub brokers: BTreeMap<BrokerId, BrokerRegistration>,
    /// Controllers by id.
    pub controllers: BTreeMap<BrokerId, ControllerRegistration>,
}

impl ClusterImage {
    /// Whether the broker is registered and may lead.
    pub fn is_active(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(BrokerRegistration::is_active)
    }

    /// Whether the log directory in which this broker has its replica is online, as far as is known (KIP-858).
    pub fn has_directory_of(&self, partition: &PartitionRegistration, id: BrokerId) -> bool {
        let Some(broker) = self.brokers.get(&id) else { return false };
        match partition.directory_of(id) {
            DIRECTORY_UNASSIGNED | DIRECTORY_MIGRATING => true,
            DIRECTORY_LOST => false,
            directory => broker.log_dirs.is_empty() || broker.log_dirs.contains(&directory),
        }
    }

    /// Brokers that clients may be told of.
    pub fn unfenced(&self) -> impl Iterator<Item = &BrokerRegistration> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }

    pub(super) fn replay_change(&mut self, record: &BrokerRegistrationChangeRecord) {
        if let Some(broker) = self.brokers.get_mut(&BrokerId(record.broker_id))
            && broker.epoch.0 == record.broker_epoch
        {
            broker.change(record);
        }
    }

    pub(super) fn set_fenced(&mut self, id: i32, epoch: i64, fenced: bool) {
        let record = BrokerRegistrationChangeRecord {
            broker_id: id,
            broker_epoch: epoch,
            fenced: if fenced { 1 } else { -1 },
            ..Default::default()
        };
        self.replay_change(&record);
    }

    pub(super) fn to_records(&self, records: &mut Vec<MetadataRecord>) {
        let brokers = self.brokers.values();
        records.extend(brokers.map(|broker| MetadataRecord::RegisterBroker(broker.to_record())));
        let controllers = self.controllers.values();
        records.extend(controllers.map(|c| MetadataRecord::RegisterController(c.to_record())));
    }
}
