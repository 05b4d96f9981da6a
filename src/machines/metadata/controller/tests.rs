//! Cases of each operation, by subject, and two properties: replaying a lived machine's records gives its
//! state, and so does replaying its snapshot.

mod brokers;
mod configs;
mod directories;
mod elections;
mod topics;

use super::*;
use crate::machines::metadata::bootstrap_records;
use crate::machines::metadata::features::FEATURES;
use crate::machines::metadata::image::{PartitionRegistration, ResourceType};
use ottla_protocol::messages::broker_registration_request::{Feature, Listener};
use ottla_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ottla_protocol::messages::{
    alter_client_quotas_request, alter_partition_request, incremental_alter_configs_request,
    update_features_request,
};
use ottla_protocol::{Offset, TopicId};

/// A controller with the log that it has written.
struct World {
    controller: Controller,
    log: Vec<MetadataRecord>,
    now: Timestamp,
    seed: u128,
}

fn settings() -> ControllerSettings {
    ControllerSettings {
        node_id: BrokerId(1),
        cluster_id: "cluster".into(),
        default_partitions: 1,
        default_replication_factor: 1,
        min_insync_replicas: 1,
        unclean_leader_election: false,
        values: Values::default(),
        session_timeout_ms: 9000,
        trusts_own_broker: false,
        rebalance_interval_ms: Some(300_000),
        unclean_interval_ms: 300_000,
        lone_replicas: LoneReplicas::Follow,
    }
}

impl World {
    /// The first partition of a topic.
    fn partition(&self, name: &str) -> PartitionRegistration {
        let topic = self.controller.image.topics.get(name);
        topic
            .and_then(|topic| topic.partition(0))
            .cloned()
            .expect("its first partition")
            .as_ref()
            .clone()
    }

    fn empty() -> World {
        let mut world = World {
            controller: Controller::new(settings()),
            log: Vec::new(),
            now: Timestamp(1000),
            seed: 7,
        };
        world.append(bootstrap_records(1));
        world
    }

    fn with_brokers(count: i32) -> World {
        let mut world = World::empty();
        for id in 1..=count {
            world.start_broker(id, u128::from(id.unsigned_abs()), -1);
        }
        world
    }

    fn append(&mut self, records: Vec<MetadataRecord>) {
        for record in records {
            let offset = Offset(self.log.len() as i64);
            self.log.push(record.clone());
            self.controller.replay(&Entry { offset, timestamp: self.now, record });
        }
    }

    fn ask(&mut self, request: ControllerRequest) -> ControllerReply {
        let mut output = self.controller.handle(self.now, RequestId(1), request);
        self.append(output.records);
        match output.effects.pop() {
            Some(ControllerEffect::Reply(RequestId(1), reply)) => reply,
            other => panic!("no reply but {other:?}"),
        }
    }

    fn start_broker(&mut self, id: i32, incarnation: u128, previous_epoch: i64) -> i64 {
        let log_dirs = vec![Uuid::from_u128(1000 + u128::from(id.unsigned_abs()))];
        self.start_broker_with(id, incarnation, previous_epoch, log_dirs)
    }

    fn start_broker_with(
        &mut self,
        id: i32,
        incarnation: u128,
        previous_epoch: i64,
        log_dirs: Vec<Uuid>,
    ) -> i64 {
        let request = BrokerRegistrationRequest {
            broker_id: id,
            cluster_id: "cluster".into(),
            incarnation_id: Uuid::from_u128(incarnation),
            listeners: vec![Listener {
                name: "PLAINTEXT".into(),
                host: "localhost".into(),
                port: 9092,
                security_protocol: 0,
            }],
            features: FEATURES
                .iter()
                .map(|f| Feature {
                    name: f.name.into(),
                    min_supported_version: f.range.min,
                    max_supported_version: f.range.max,
                })
                .collect(),
            log_dirs,
            previous_broker_epoch: previous_epoch,
            ..Default::default()
        };
        let ControllerReply::RegisterBroker(reply) =
            self.ask(ControllerRequest::RegisterBroker(request))
        else {
            panic!("not a registration")
        };
        assert_eq!(reply.error_code, 0);
        let answer = self.heartbeat(id, reply.broker_epoch);
        assert!(answer.is_caught_up && !answer.is_fenced);
        reply.broker_epoch
    }

    fn heartbeat(&mut self, id: i32, epoch: i64) -> BrokerHeartbeatResponse {
        let request = BrokerHeartbeatRequest {
            broker_id: id,
            broker_epoch: epoch,
            current_metadata_offset: self.log.len() as i64,
            ..Default::default()
        };
        match self.ask(ControllerRequest::BrokerHeartbeat(request)) {
            ControllerReply::BrokerHeartbeat(reply) => reply,
            other => panic!("not a heartbeat but {other:?}"),
        }
    }

    fn alter_isr(&mut self, name: &str, index: i32, leader: i32, isr: &[i32]) {
        assert_eq!(self.try_alter_isr(name, index, leader, isr), ErrorCode::None);
    }

    fn try_alter_isr(&mut self, name: &str, index: i32, leader: i32, isr: &[i32]) -> ErrorCode {
        let image = self.controller.image();
        let topic = image.topics.get(name).expect("created");
        let partition = topic.partition(index).expect("created");
        let wanted = alter_partition_request::PartitionData {
            partition_index: index,
            leader_epoch: partition.leader_epoch.0,
            partition_epoch: partition.partition_epoch,
            new_isr_with_epochs: isr
                .iter()
                .map(|id| alter_partition_request::BrokerState {
                    broker_id: *id,
                    broker_epoch: image.cluster.brokers[&BrokerId(*id)].epoch.0,
                })
                .collect(),
            ..Default::default()
        };
        let request = AlterPartitionRequest {
            broker_id: leader,
            broker_epoch: image.cluster.brokers[&BrokerId(leader)].epoch.0,
            topics: vec![alter_partition_request::TopicData {
                topic_id: topic.id,
                partitions: vec![wanted],
            }],
        };
        let ControllerReply::AlterPartition(reply) =
            self.ask(ControllerRequest::AlterPartition(request))
        else {
            panic!("not a change of the ISR")
        };
        assert_eq!(reply.error_code, 0);
        ErrorCode::from_code(reply.topics[0].partitions[0].error_code)
    }

    fn create(&mut self, topics: Vec<CreatableTopic>) -> CreateTopicsResponse {
        self.seed += 1;
        let seed = Uuid::from_u128(self.seed);
        let request = CreateTopicsRequest { topics, ..Default::default() };
        match self.ask(ControllerRequest::CreateTopics { request, seed }) {
            ControllerReply::CreateTopics(reply) => reply,
            other => panic!("not a creation but {other:?}"),
        }
    }

    fn created(&mut self, name: &str, partitions: i32, factor: i16) -> TopicId {
        let response = self.create(vec![topic(name, partitions, factor)]);
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0]);
        response.topics[0].topic_id
    }

    fn check_replay(&self) {
        let mut again = Controller::new(settings());
        for (offset, record) in self.log.iter().enumerate() {
            let offset = Offset(offset as i64);
            again.replay(&Entry { offset, timestamp: self.now, record: record.clone() });
        }
        assert_eq!(again.image, self.controller.image);
        assert_eq!(again.collisions, self.controller.collisions);
        let mut loaded = Image::default();
        for record in self.controller.image.to_records() {
            loaded.replay(self.controller.image.offset, &record);
        }
        assert_eq!(loaded, self.controller.image);
    }
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions, replication_factor, ..Default::default() }
}

fn alter(
    world: &mut World,
    kind: ResourceType,
    name: &str,
    op: i8,
    key: &str,
    value: &str,
) -> (ErrorCode, String) {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![incremental_alter_configs_request::AlterConfigsResource {
            resource_type: kind.id(),
            resource_name: name.into(),
            configs: vec![incremental_alter_configs_request::AlterableConfig {
                name: key.into(),
                config_operation: op,
                value: (op != 1).then(|| value.to_owned()),
            }],
        }],
        validate_only: false,
    };
    match world.ask(ControllerRequest::IncrementalAlterConfigs(request)) {
        ControllerReply::IncrementalAlterConfigs(reply) => {
            let result = reply.responses[0].clone();
            (ErrorCode::from_code(result.error_code), result.error_message.unwrap_or_default())
        }
        other => panic!("not an alteration but {other:?}"),
    }
}

#[test]
fn producer_ids_come_in_blocks_that_never_overlap() {
    let mut world = World::with_brokers(1);
    let broker_epoch = world.controller.image.cluster.brokers[&BrokerId(1)].epoch.0;
    for start in [0, 1000, 2000] {
        let request = AllocateProducerIdsRequest { broker_id: 1, broker_epoch };
        match world.ask(ControllerRequest::AllocateProducerIds(request)) {
            ControllerReply::AllocateProducerIds(block) => {
                assert_eq!((block.producer_id_start, block.producer_id_len), (start, 1000));
            }
            other => panic!("not a block but {other:?}"),
        }
    }
    world.check_replay();
}

#[test]
fn features_go_up_and_down_within_their_ranges() {
    let mut world = World::with_brokers(1);
    let mut update = |feature: &str, level, upgrade_type| {
        let request = UpdateFeaturesRequest {
            feature_updates: vec![update_features_request::FeatureUpdateKey {
                feature: feature.into(),
                max_version_level: level,
                upgrade_type,
                ..Default::default()
            }],
            ..Default::default()
        };
        match world.ask(ControllerRequest::UpdateFeatures { request, version: 2 }) {
            ControllerReply::UpdateFeatures(reply) => reply.error_message.filter(|t| !t.is_empty()),
            other => panic!("not an update but {other:?}"),
        }
    };
    let all = "The update failed for all features since the following feature had an error: ";
    let failed = |text: &str| Some(format!("{all}{text}"));
    assert_eq!(update("transaction.version", 1, 2), None);
    assert_eq!(update("transaction.version", 2, 1), None);
    assert_eq!(
        update("group.version", 5, 1),
        failed(
            "Invalid update version 5 for feature group.version. Local controller 1 only supports \
             versions 0-1"
        )
    );
    assert_eq!(
        update("nosuch", 1, 1),
        failed(
            "Invalid update version 1 for feature nosuch. Local controller 1 does not support \
             this feature."
        )
    );
    assert_eq!(
        update("metadata.version", 29, 2),
        failed(
            "Unsupported metadata.version downgrade from 30 to 29. Refusing to perform the \
             requested downgrade because it might delete metadata information."
        )
    );
    world.check_replay();
}

#[test]
fn quotas_are_set_and_taken_away() {
    let mut world = World::with_brokers(1);
    let mut alter = |kind: &str, key: &str, value: f64, remove| {
        let request = AlterClientQuotasRequest {
            entries: vec![alter_client_quotas_request::EntryData {
                entity: vec![alter_client_quotas_request::EntityData {
                    entity_type: kind.into(),
                    entity_name: Some("x".into()),
                }],
                ops: vec![alter_client_quotas_request::OpData { key: key.into(), value, remove }],
            }],
            validate_only: false,
        };
        match world.ask(ControllerRequest::AlterClientQuotas(request)) {
            ControllerReply::AlterClientQuotas(reply) => reply.entries[0].error_message.clone(),
            other => panic!("not an alteration but {other:?}"),
        }
    };
    assert_eq!(alter("user", "producer_byte_rate", 1024.0, false), None);
    assert_eq!(alter("user", "request_percentage", 12.5, false), None);
    assert_eq!(alter("user", "producer_byte_rate", 0.0, true), None);
    assert_eq!(
        alter("user", "consumer_byte_rate", 0.5, false).as_deref(),
        Some("consumer_byte_rate cannot be a fractional value.")
    );
    assert_eq!(
        alter("user", "nosuch", 1.0, false).as_deref(),
        Some("Invalid configuration key nosuch")
    );
    assert_eq!(
        alter("group", "producer_byte_rate", 1.0, false).as_deref(),
        Some("Unhandled client quota entity type: group")
    );
    assert_eq!(world.controller.image.quotas.entities.len(), 1);
    world.check_replay();
}
