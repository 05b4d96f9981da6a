//! Topics, configurations, and the state of the cluster.

use bytes::Bytes;
use ottla_protocol::ApiKey;
use ottla_protocol::messages::*;

use crate::data::TOPIC;
use crate::{Recorder, Result};
use uuid::Uuid;

/// Types of configuration resources.
const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;

/// Creates topics, the one for everything and one for each version of DeleteTopics.
pub fn create(r: &mut Recorder) -> Result<()> {
    use create_topics_request::*;
    let topic = |name: &str| CreatableTopic {
        name: name.to_owned(),
        num_partitions: 2,
        replication_factor: 1,
        configs: vec![CreatableTopicConfig {
            name: "retention.ms".to_owned(),
            value: Some("-1".to_owned()),
        }],
        ..Default::default()
    };
    let assigned = CreatableTopic {
        name: "assigned".to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![1] }],
        ..Default::default()
    };
    for version in r.versions_of(ApiKey::CreateTopics) {
        let name = format!("created-{version}");
        let topics = vec![topic(&name), topic(TOPIC), topic("no/name"), assigned.clone()];
        r.ask(version, &CreateTopicsRequest { topics, timeout_ms: 5000, validate_only: false })?;
    }
    r.ask_all(|version| CreatePartitionsRequest {
        topics: vec![create_partitions_request::CreatePartitionsTopic {
            name: "created-2".to_owned(),
            count: 3 + i32::from(version),
            assignments: (version == 1).then(|| {
                vec![create_partitions_request::CreatePartitionsAssignment { broker_ids: vec![1] }]
            }),
        }],
        timeout_ms: 5000,
        validate_only: version == 2,
    })?;
    r.topic_id(TOPIC).map(|_| ())
}

/// Everything that only looks.
pub fn describe(r: &mut Recorder) -> Result<()> {
    r.ask_all(|version| DescribeConfigsRequest {
        resources: [
            (TOPIC_RESOURCE, TOPIC, &["retention.ms", "cleanup.policy"][..]),
            (BROKER_RESOURCE, "1", &["log.retention.ms", "node.id"]),
            (TOPIC_RESOURCE, "unknown", &["retention.ms"]),
        ]
        .map(|(resource_type, name, keys)| describe_configs_request::DescribeConfigsResource {
            resource_type,
            resource_name: name.to_owned(),
            configuration_keys: Some(keys.iter().map(|key| (*key).to_owned()).collect()),
        })
        .into(),
        include_synonyms: true,
        include_documentation: version >= 3,
    })?;
    r.ask_all(|_| AlterReplicaLogDirsRequest {
        dirs: vec![alter_replica_log_dirs_request::AlterReplicaLogDir {
            path: "/unknown".to_owned(),
            topics: vec![alter_replica_log_dirs_request::AlterReplicaLogDirTopic {
                name: TOPIC.to_owned(),
                partitions: vec![0, 1],
            }],
        }],
    })?;
    r.ask_all(|_| DescribeLogDirsRequest {
        topics: Some(vec![describe_log_dirs_request::DescribableLogDirTopic {
            topic: TOPIC.to_owned(),
            partitions: vec![0, 1],
        }]),
    })?;
    r.ask_all(|version| DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        include_fenced_brokers: version >= 2,
        ..Default::default()
    })?;
    r.ask_all(|_| DescribeQuorumRequest {
        topics: vec![describe_quorum_request::TopicData {
            topic_name: "__cluster_metadata".to_owned(),
            partitions: vec![describe_quorum_request::PartitionData { partition_index: 0 }],
        }],
    })?;
    r.ask_all(|version| ListConfigResourcesRequest {
        resource_types: if version >= 1 { vec![TOPIC_RESOURCE, BROKER_RESOURCE] } else { vec![] },
    })?;
    r.ask_all(|_| DescribeAclsRequest {
        resource_type_filter: 2,
        resource_name_filter: Some(TOPIC.to_owned()),
        pattern_type_filter: 3,
        principal_filter: None,
        host_filter: None,
        operation: 1,
        permission_type: 1,
    })?;
    r.ask_all(|_| ListPartitionReassignmentsRequest {
        timeout_ms: 5000,
        topics: Some(vec![
            list_partition_reassignments_request::ListPartitionReassignmentsTopics {
                name: TOPIC.to_owned(),
                partition_indexes: vec![0],
            },
        ]),
    })
}

/// What changes configurations, quotas, credentials and partitions, and describes them then.
pub fn alter(r: &mut Recorder) -> Result<()> {
    configs(r)?;
    quotas(r)?;
    scram(r)?;
    r.ask_all(|version| ElectLeadersRequest {
        election_type: i8::from(version >= 1 && version % 2 == 0),
        topic_partitions: Some(vec![elect_leaders_request::TopicPartitions {
            topic: TOPIC.to_owned(),
            partitions: vec![0, 9],
        }]),
        timeout_ms: 5000,
    })?;
    r.ask_all(|_| AlterPartitionReassignmentsRequest {
        timeout_ms: 5000,
        topics: vec![alter_partition_reassignments_request::ReassignableTopic {
            name: TOPIC.to_owned(),
            partitions: [(0, Some(vec![1])), (1, None), (9, Some(vec![1]))]
                .map(|(partition_index, replicas)| {
                    alter_partition_reassignments_request::ReassignablePartition {
                        partition_index,
                        replicas,
                    }
                })
                .into(),
        }],
        ..Default::default()
    })?;
    r.ask_all(|version| UpdateFeaturesRequest {
        timeout_ms: 5000,
        feature_updates: vec![update_features_request::FeatureUpdateKey {
            feature: "group.version".to_owned(),
            max_version_level: 1,
            ..Default::default()
        }],
        validate_only: version >= 1,
    })?;
    r.ask_all(|_| CreateAclsRequest {
        creations: vec![create_acls_request::AclCreation {
            resource_type: 2,
            resource_name: TOPIC.to_owned(),
            resource_pattern_type: 3,
            principal: "User:alice".to_owned(),
            host: "*".to_owned(),
            operation: 3,
            permission_type: 3,
        }],
    })?;
    r.ask_all(|_| DeleteAclsRequest {
        filters: vec![delete_acls_request::DeleteAclsFilter {
            resource_type_filter: 2,
            pattern_type_filter: 3,
            operation: 1,
            permission_type: 1,
            resource_name_filter: None,
            principal_filter: None,
            host_filter: None,
        }],
    })?;
    r.ask_all(|_| UnregisterBrokerRequest { broker_id: 99 })?;
    voters(r)
}

/// A controller that has a vote already, and one that has none.
fn voters(r: &mut Recorder) -> Result<()> {
    r.ask_all(|version| AddRaftVoterRequest {
        cluster_id: None,
        timeout_ms: 1000,
        voter_id: 1,
        voter_directory_id: Uuid::from_u128(7),
        listeners: vec![add_raft_voter_request::Listener {
            name: "CONTROLLER".to_owned(),
            host: "localhost".to_owned(),
            port: 9093,
        }],
        ack_when_committed: version < 1,
    })?;
    r.ask_all(|_| RemoveRaftVoterRequest {
        cluster_id: None,
        voter_id: 99,
        voter_directory_id: Uuid::from_u128(7),
    })
}

fn configs(r: &mut Recorder) -> Result<()> {
    r.ask_all(|version| AlterConfigsRequest {
        resources: [TOPIC, "unknown"]
            .map(|name| alter_configs_request::AlterConfigsResource {
                resource_type: TOPIC_RESOURCE,
                resource_name: name.to_owned(),
                configs: vec![alter_configs_request::AlterableConfig {
                    name: "retention.ms".to_owned(),
                    value: Some("100000000".to_owned()),
                }],
            })
            .into(),
        validate_only: version == 1,
    })?;
    r.ask_all(|version| IncrementalAlterConfigsRequest {
        resources: vec![incremental_alter_configs_request::AlterConfigsResource {
            resource_type: TOPIC_RESOURCE,
            resource_name: TOPIC.to_owned(),
            configs: [("retention.ms", 1, None), ("no.such.key", 0, Some("x".to_owned()))]
                .map(|(name, config_operation, value)| {
                    incremental_alter_configs_request::AlterableConfig {
                        name: name.to_owned(),
                        config_operation,
                        value,
                    }
                })
                .into(),
        }],
        validate_only: version == 1,
    })
}

fn quotas(r: &mut Recorder) -> Result<()> {
    r.ask_all(|_| AlterClientQuotasRequest {
        entries: vec![alter_client_quotas_request::EntryData {
            entity: [("user", Some("alice".to_owned())), ("client-id", None)]
                .map(|(entity_type, entity_name)| alter_client_quotas_request::EntityData {
                    entity_type: entity_type.to_owned(),
                    entity_name,
                })
                .into(),
            ops: vec![alter_client_quotas_request::OpData {
                key: "producer_byte_rate".to_owned(),
                value: 1024.0,
                remove: false,
            }],
        }],
        validate_only: false,
    })?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    r.ask_all(|_| DescribeClientQuotasRequest {
        components: vec![describe_client_quotas_request::ComponentData {
            entity_type: "user".to_owned(),
            match_type: 2,
            match_: None,
        }],
        strict: false,
    })
}

fn scram(r: &mut Recorder) -> Result<()> {
    r.ask_all(|_| AlterUserScramCredentialsRequest {
        deletions: vec![alter_user_scram_credentials_request::ScramCredentialDeletion {
            name: "nobody".to_owned(),
            mechanism: 1,
        }],
        upsertions: vec![alter_user_scram_credentials_request::ScramCredentialUpsertion {
            name: "alice".to_owned(),
            mechanism: 1,
            iterations: 4096,
            salt: Bytes::from_static(b"salt"),
            salted_password: Bytes::from_static(&[7; 32]),
        }],
    })?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    r.ask_all(|_| DescribeUserScramCredentialsRequest {
        users: Some(
            ["alice", "nobody"]
                .map(|name| describe_user_scram_credentials_request::UserName {
                    name: name.to_owned(),
                })
                .into(),
        ),
    })
}

/// Deletes the topics again.
pub fn delete(r: &mut Recorder) -> Result<()> {
    use delete_topics_request::DeleteTopicState;
    for version in r.versions_of(ApiKey::DeleteTopics) {
        let name = format!("created-{}", version + 1);
        let topic_names = vec![name.clone(), "unknown".to_owned()];
        let by_name = DeleteTopicState { name: Some(name), ..Default::default() };
        let topic_id = uuid::Uuid::from_u128(1 << 100);
        let by_id = DeleteTopicState { name: None, topic_id };
        let body = if version < 6 {
            DeleteTopicsRequest { topic_names, timeout_ms: 5000, ..Default::default() }
        } else {
            DeleteTopicsRequest {
                topics: vec![by_name, by_id],
                timeout_ms: 5000,
                ..Default::default()
            }
        };
        r.ask(version, &body)?;
    }
    Ok(())
}
