//! The topics that a broker makes for itself, with the settings that Kafka gives them.

use super::Config;
use ottla_protocol::{GROUP_METADATA_TOPIC, SHARE_STATE_TOPIC, TRANSACTION_STATE_TOPIC};

/// An internal topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalTopic {
    /// Its name.
    pub name: &'static str,
    /// How many partitions it gets.
    pub partitions: i32,
    /// How many replicas each.
    pub replication_factor: i16,
    /// Its own settings.
    pub configs: Vec<(&'static str, String)>,
}

/// All internal topics.
pub fn topics(config: &Config) -> Vec<InternalTopic> {
    let (offsets, transactions) = (&config.offsets, &config.transactions);
    let share = &config.share_state;
    vec![
        InternalTopic {
            name: GROUP_METADATA_TOPIC,
            partitions: offsets.topic_num_partitions,
            replication_factor: offsets.topic_replication_factor,
            configs: vec![
                ("cleanup.policy", "compact".to_owned()),
                ("segment.bytes", offsets.topic_segment_bytes.to_string()),
                ("compression.type", "producer".to_owned()),
            ],
        },
        InternalTopic {
            name: TRANSACTION_STATE_TOPIC,
            partitions: transactions.topic_num_partitions,
            replication_factor: transactions.topic_replication_factor,
            configs: vec![
                ("unclean.leader.election.enable", "false".to_owned()),
                ("compression.type", "uncompressed".to_owned()),
                ("cleanup.policy", "compact".to_owned()),
                ("min.insync.replicas", transactions.topic_min_isr.to_string()),
                ("segment.bytes", transactions.topic_segment_bytes.to_string()),
            ],
        },
        InternalTopic {
            name: SHARE_STATE_TOPIC,
            partitions: share.topic_num_partitions,
            replication_factor: share.topic_replication_factor,
            configs: vec![
                ("cleanup.policy", "delete".to_owned()),
                ("compression.type", "none".to_owned()),
                ("segment.bytes", share.topic_segment_bytes.to_string()),
                ("retention.ms", "-1".to_owned()),
                ("min.insync.replicas", share.topic_min_isr.to_string()),
            ],
        },
    ]
}
