//! Cases of each operation, and two properties: replaying a lived machine's records gives its
//! state, and so does replaying its snapshot.

mod brokers;
mod directories;

use super::*;
use crate::machines::metadata::bootstrap_records;
use crate::machines::metadata::features::FEATURES;
use crate::machines::metadata::image::{
    ConfigResource, DIRECTORY_UNASSIGNED, LeaderRecoveryState, PartitionRegistration, ResourceType,
};
use ottla_protocol::messages::broker_registration_request::{Feature, Listener};
use ottla_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ottla_protocol::messages::{
    alter_client_quotas_request, alter_partition_reassignments_request, alter_partition_request,
    create_partitions_request, delete_topics_request, elect_leaders_request,
    incremental_alter_configs_request, update_features_request,
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

/// Asks a cluster of one broker, with a topic `taken.name`, for a topic.
fn check_creation(wanted: CreatableTopic, expected: Result<(i32, i16), (ErrorCode, &str)>) {
    let mut world = World::with_brokers(1);
    world.created("taken.name", 1, 1);
    let response = world.create(vec![wanted.clone()]);
    let result = &response.topics[0];
    match expected {
        Ok(shape) => {
            assert_eq!((result.error_code, &result.error_message), (0, &None));
            assert_eq!((result.num_partitions, result.replication_factor), shape);
        }
        Err((code, text)) => {
            assert_eq!(result.error_message.as_deref(), Some(text));
            assert_eq!(result.error_code, code.code());
            assert!(world.controller.image.topics.len() == 1, "nothing is created");
        }
    }
    world.check_replay();
}

#[test]
fn topics_are_created_or_refused_as_kafka_does() {
    let long = "x".repeat(250);
    let assigned = |brokers: &[i32], index| CreatableTopic {
        assignments: vec![CreatableReplicaAssignment {
            partition_index: index,
            broker_ids: brokers.to_vec(),
        }],
        ..topic("assigned", -1, -1)
    };
    let configured = |name: &str, value: Option<&str>| CreatableTopic {
        configs: vec![CreatableTopicConfig { name: name.into(), value: value.map(str::to_owned) }],
        ..topic("configured", 1, 1)
    };
    use ErrorCode as E;
    let cases = [
        (topic("t", 3, 1), Ok((3, 1))),
        (topic("t", -1, -1), Ok((1, 1))),
        (assigned(&[1], 0), Ok((1, 1))),
        (configured("retention.ms", Some("1000")), Ok((1, 1))),
        (
            topic("taken.name", 1, 1),
            Err((E::TopicAlreadyExists, "Topic 'taken.name' already exists.")),
        ),
        (
            topic("taken_name", 1, 1),
            Err((
                E::InvalidTopicException,
                "Topic 'taken_name' collides with existing topic: taken.name",
            )),
        ),
        (
            topic("", 1, 1),
            Err((
                E::InvalidTopicException,
                "Topic name is invalid: the empty string is not allowed",
            )),
        ),
        (
            topic("..", 1, 1),
            Err((E::InvalidTopicException, "Topic name is invalid: '..' is not allowed")),
        ),
        (
            topic("a b", 1, 1),
            Err((
                E::InvalidTopicException,
                "Topic name is invalid: 'a b' contains one or more characters other than ASCII \
                 alphanumerics, '.', '_' and '-'",
            )),
        ),
        (
            topic("t", 1, 3),
            Err((
                E::InvalidReplicationFactor,
                "Unable to replicate the partition 3 time(s): The target replication factor of 3 \
                 cannot be reached because only 1 broker(s) are registered or some brokers have \
                 all their log directories cordoned.",
            )),
        ),
        (
            topic("t", 1, 0),
            Err((
                E::InvalidReplicationFactor,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            )),
        ),
        (
            topic("t", 0, 1),
            Err((
                E::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.",
            )),
        ),
        (
            topic("t", 10_001, 1),
            Err((E::PolicyViolation, "Excessively large number of partitions per request.")),
        ),
        (
            assigned(&[1], 1),
            Err((
                E::InvalidReplicaAssignment,
                "partitions should be a consecutive 0-based integer sequence",
            )),
        ),
        (
            assigned(&[2], 0),
            Err((
                E::InvalidReplicaAssignment,
                "The manual partition assignment includes broker 2, but no such broker is \
                 registered.",
            )),
        ),
        (
            assigned(&[1, 1], 0),
            Err((
                E::InvalidReplicaAssignment,
                "The manual partition assignment includes the broker 1 more than once.",
            )),
        ),
        (
            configured("nosuch", Some("1")),
            Err((E::InvalidConfig, "Unknown topic config name: nosuch")),
        ),
        (
            configured("retention.ms", Some("abc")),
            Err((
                E::InvalidConfig,
                "Invalid value abc for configuration retention.ms: Not a number of type LONG",
            )),
        ),
        (
            configured("retention.ms", None),
            Err((E::InvalidConfig, "Null value not supported for topic configs: retention.ms")),
        ),
    ];
    for (wanted, expected) in cases {
        check_creation(wanted, expected);
    }
    let text = format!(
        "Topic name is invalid: the length of '{long}' is longer than the max allowed length 249"
    );
    check_creation(topic(&long, 1, 1), Err((E::InvalidTopicException, &text)));
}

#[test]
fn duplicates_in_a_request_are_refused_and_the_rest_created() {
    let mut world = World::with_brokers(1);
    let response = world.create(vec![topic("a", 1, 1), topic("a", 1, 1), topic("b", 1, 1)]);
    let results: Vec<(&str, i16)> =
        response.topics.iter().map(|t| (t.name.as_str(), t.error_code)).collect();
    assert_eq!(results, [("b", 0), ("a", ErrorCode::InvalidRequest.code())]);
}

#[test]
fn validating_only_creates_nothing() {
    let mut world = World::with_brokers(1);
    let request = CreateTopicsRequest {
        topics: vec![topic("t", 1, 1)],
        validate_only: true,
        ..Default::default()
    };
    world.ask(ControllerRequest::CreateTopics { request, seed: Uuid::from_u128(1) });
    assert!(world.controller.image.topics.is_empty());
}

#[test]
fn replicas_spread_and_leaders_go_round() {
    let mut world = World::with_brokers(3);
    world.created("t", 6, 2);
    let topic = world.controller.image.topics.get("t").expect("just created");
    let mut leaders = BTreeMap::new();
    for partition in topic.partitions.values() {
        assert_eq!(partition.replicas.len(), 2);
        assert_ne!(partition.replicas[0], partition.replicas[1]);
        *leaders.entry(partition.leader).or_insert(0) += 1;
    }
    assert_eq!(leaders.into_values().collect::<Vec<_>>(), [2, 2, 2]);
    world.check_replay();
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut world = World::with_brokers(1);
    let a = world.created("a", 1, 1);
    let b = world.created("b", 1, 1);
    world.created("keep", 1, 1);
    let by = |name: Option<&str>, topic_id| delete_topics_request::DeleteTopicState {
        name: name.map(str::to_owned),
        topic_id,
    };
    let unknown = Uuid::from_u128(99);
    let request = DeleteTopicsRequest {
        topics: vec![
            by(Some("a"), Uuid::nil()),
            by(None, b),
            by(None, unknown),
            by(Some("nosuch"), Uuid::nil()),
            by(Some("keep"), unknown),
        ],
        ..Default::default()
    };
    let ControllerReply::DeleteTopics(reply) = world.ask(ControllerRequest::DeleteTopics(request))
    else {
        panic!("not a deletion")
    };
    let code = |name: Option<&str>, id: TopicId| {
        let found = reply
            .responses
            .iter()
            .find(|r| r.name.as_deref() == name && r.topic_id == id)
            .expect("one answer for each");
        ErrorCode::from_code(found.error_code)
    };
    assert_eq!(code(Some("a"), a), ErrorCode::None);
    assert_eq!(code(Some("b"), b), ErrorCode::None);
    assert_eq!(code(None, unknown), ErrorCode::UnknownTopicId);
    assert_eq!(code(Some("nosuch"), Uuid::nil()), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(code(Some("keep"), unknown), ErrorCode::InvalidRequest);
    assert_eq!(world.controller.image.topics.len(), 1);
    world.check_replay();
}

#[test]
fn partitions_are_added_but_never_taken_away() {
    let mut world = World::with_brokers(1);
    world.created("t", 2, 1);
    let mut grow = |name: &str, count| {
        let request = CreatePartitionsRequest {
            topics: vec![create_partitions_request::CreatePartitionsTopic {
                name: name.into(),
                count,
                assignments: None,
            }],
            ..Default::default()
        };
        let seed = Uuid::from_u128(3);
        match world.ask(ControllerRequest::CreatePartitions { request, seed }) {
            ControllerReply::CreatePartitions(reply) => {
                let result = reply.results[0].clone();
                (ErrorCode::from_code(result.error_code), result.error_message)
            }
            other => panic!("not an increase but {other:?}"),
        }
    };
    assert_eq!(grow("t", 4), (ErrorCode::None, None));
    let (code, text) = grow("t", 4);
    assert_eq!(code, ErrorCode::InvalidPartitions);
    assert_eq!(text.as_deref(), Some("Topic already has 4 partition(s)."));
    let (_, text) = grow("t", 3);
    assert_eq!(
        text.as_deref(),
        Some("The topic t currently has 4 partition(s); 3 would not be an increase.")
    );
    assert_eq!(grow("nosuch", 3).0, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(world.controller.image.topics.partition_count(), 4);
    world.check_replay();
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
fn configurations_change_one_by_one_and_are_checked() {
    let mut world = World::with_brokers(1);
    world.created("t", 1, 1);
    use ErrorCode as E;
    use ResourceType::*;
    let cases = [
        (Topic, "t", 0, "retention.ms", "5", E::None, ""),
        (Topic, "t", 2, "cleanup.policy", "compact", E::None, ""),
        (Topic, "t", 3, "cleanup.policy", "delete", E::None, ""),
        (
            Topic,
            "t",
            2,
            "retention.ms",
            "6",
            E::InvalidConfig,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            Topic,
            "nosuch",
            0,
            "retention.ms",
            "6",
            E::UnknownTopicOrPartition,
            "The topic 'nosuch' does not exist.",
        ),
        (
            Topic,
            "t",
            0,
            "remote.storage.enable",
            "true",
            E::InvalidConfig,
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
             with remote log storage.",
        ),
        (Group, "g", 0, "consumer.session.timeout.ms", "46000", E::None, ""),
        (
            Group,
            "g",
            0,
            "consumer.session.timeout.ms",
            "1",
            E::InvalidConfig,
            "consumer.session.timeout.ms must be greater than or equal to \
             group.consumer.min.session.timeout.ms",
        ),
        (
            ClientMetrics,
            "m",
            0,
            "interval.ms",
            "1",
            E::InvalidRequest,
            "Invalid value 1 for interval.ms, interval must be between 100 and 3600000 (1 hour)",
        ),
        (ClientMetrics, "m", 0, "interval.ms", "1000", E::None, ""),
        (
            Broker,
            "1",
            0,
            "min.insync.replicas",
            "2",
            E::InvalidConfig,
            "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
        ),
        (
            Broker,
            "",
            1,
            "min.insync.replicas",
            "",
            E::InvalidConfig,
            "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
        ),
        (Broker, "", 0, "min.insync.replicas", "2", E::None, ""),
    ];
    for (kind, name, op, key, value, code, text) in cases {
        let (got, message) = alter(&mut world, kind, name, op, key, value);
        assert_eq!((got, message.as_str()), (code, text), "{key}");
    }
    let image = &world.controller.image;
    assert_eq!(image.topic_config("t", "retention.ms"), Some("5"));
    assert_eq!(image.topic_config("t", "cleanup.policy"), Some("compact"));
    let group = image.config(&ConfigResource::new(Group, "g"));
    assert_eq!(group["consumer.session.timeout.ms"], "46000");
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

#[test]
fn a_reassignment_waits_for_the_new_replica_and_can_be_cancelled() {
    let mut world = World::with_brokers(2);
    let assignment = CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![1] };
    world.create(vec![CreatableTopic { assignments: vec![assignment], ..topic("t", -1, -1) }]);
    let mut reassign = |replicas: Option<Vec<i32>>| {
        let request = AlterPartitionReassignmentsRequest {
            topics: vec![alter_partition_reassignments_request::ReassignableTopic {
                name: "t".into(),
                partitions: vec![alter_partition_reassignments_request::ReassignablePartition {
                    partition_index: 0,
                    replicas,
                }],
            }],
            allow_replication_factor_change: false,
            ..Default::default()
        };
        let reply = world.ask(ControllerRequest::AlterPartitionReassignments(request));
        let ControllerReply::AlterPartitionReassignments(reply) = reply else {
            panic!("not a reassignment")
        };
        let code = ErrorCode::from_code(reply.responses[0].partitions[0].error_code);
        let topic = world.controller.image.topics.get("t").cloned().expect("t");
        (code, topic.partition(0).cloned().expect("t-0"))
    };
    assert_eq!(reassign(None).0, ErrorCode::NoReassignmentInProgress);
    assert_eq!(reassign(Some(vec![1, 2])).0, ErrorCode::InvalidReplicationFactor);
    let (code, partition) = reassign(Some(vec![2]));
    assert_eq!(code, ErrorCode::None);
    assert_eq!(partition.adding_replicas, [BrokerId(2)]);
    assert_eq!(partition.removing_replicas, [BrokerId(1)]);
    assert_eq!(partition.leader, BrokerId(1));
    let (code, partition) = reassign(None);
    assert_eq!(code, ErrorCode::None);
    assert!(!partition.is_reassigning() && partition.replicas == [BrokerId(1)]);
    world.check_replay();
}

#[test]
fn elections_that_are_not_needed_say_so() {
    let mut world = World::with_brokers(1);
    world.created("t", 1, 1);
    let request = ElectLeadersRequest {
        election_type: 0,
        topic_partitions: Some(vec![elect_leaders_request::TopicPartitions {
            topic: "t".into(),
            partitions: vec![0, 9],
        }]),
        ..Default::default()
    };
    let ControllerReply::ElectLeaders(reply) = world.ask(ControllerRequest::ElectLeaders(request))
    else {
        panic!("not an election")
    };
    let codes: Vec<ErrorCode> = reply.replica_election_results[0]
        .partition_result
        .iter()
        .map(|result| ErrorCode::from_code(result.error_code))
        .collect();
    assert_eq!(codes, [ErrorCode::ElectionNotNeeded, ErrorCode::UnknownTopicOrPartition]);
}
