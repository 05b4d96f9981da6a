//! What the broker room takes from the configuration, and how a topic's settings follow from it and the Image.

use super::{Address, Bootstrap, ControllerAddresses, Founding};
use crate::config::topic::{Dynamic, TopicConfig};
use crate::config::{self, CleanerConfig, Config, Value};
use crate::log::{CleanupPolicy, CompressionTarget, LogConfig};
use crate::machines::group::GroupConfig;
use crate::machines::metadata::image::{ConfigMap, ConfigResource, ResourceType};
use crate::machines::metadata::{ControllerSettings, Image, LoneReplicas};
use crate::zookeeper;
use ottla_protocol::batch::{Compression, TimestampType};
use ottla_protocol::{BrokerId, uuid_to_text};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

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
    /// Everything, as read at the start.
    pub config: Arc<Config>,
    /// `node.id`.
    pub node_id: BrokerId,
    /// `cluster.id`, where the configuration names one.
    pub cluster_id: Option<String>,
    /// What it is otherwise, where nobody has formatted the directories of a quorum of several voters.
    pub voters_cluster_id: Option<String>,
    /// `log.dirs`.
    pub log_dirs: Vec<PathBuf>,
    /// `metadata.log.dir`.
    pub metadata_log_dir: PathBuf,
    /// What topics and settings are imported from, where a Kafka with ZooKeeper left the log directories.
    pub zookeeper: Option<zookeeper::Source>,
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
    /// `producer.id.expiration.check.interval.ms`.
    pub producer_id_expiration_check_interval_ms: i64,
    /// How often deleted files are looked at.
    pub trash_interval_ms: i64,
    /// `ottla.log.dir.reserve.bytes`.
    pub dir_reserve_bytes: i64,
    /// `num.recovery.threads.per.data.dir`.
    pub recovery_threads_per_dir: usize,
    /// Whether this node is the quorum.
    pub is_sole_voter: bool,
    /// `inter.broker.listener.name`, in capitals.
    pub inter_broker_listener: String,
    /// The voters of `controller.quorum.voters` and where they listen.
    pub static_voters: BTreeMap<BrokerId, Address>,
    /// Where the controllers listen, as far as is known now.
    pub controllers: ControllerAddresses,
    /// What directories without a metadata log are made to.
    pub founding: Founding,
    /// Where the quorum is looked for otherwise.
    pub bootstrap: Bootstrap,
    /// `controller.socket.timeout.ms`.
    pub controller_patience: Duration,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// `log.dir.failure.timeout.ms`.
    pub dir_failure_timeout: Duration,
    /// `initial.broker.registration.timeout.ms`.
    pub initial_registration_timeout: Duration,
    /// `controlled.shutdown.enable`.
    pub controlled_shutdown: bool,
    /// `num.replica.alter.log.dirs.threads`; as many as log directories by default.
    pub mover_threads: usize,
}

/// How fast partitions move between log directories.
const MOVE_RATE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";

/// As many brokers become voters by themselves where nothing says which are to be: a majority of three survives one,
/// and each more makes every change of the metadata dearer.
const MEETING_VOTERS_MAX: usize = 3;

/// How often deleted files are looked at, in milliseconds.
const TRASH_INTERVAL_MS: i64 = 1000;

impl Settings {
    /// The broker room's part of `config`. `bound` are the listeners with the ports that they have.
    pub fn new(config: Arc<Config>, bound: &[AdvertisedListener]) -> Settings {
        let controller_names = &config.listeners.controller_names;
        let (controller_listeners, bound): (Vec<_>, Vec<_>) =
            bound.iter().cloned().partition(|listener| controller_names.contains(&listener.name));
        let advertised_controller = &config.listeners.advertised_controller;
        let controller_listeners = controller_listeners.into_iter().map(|bound| {
            let told = advertised_controller.iter().find(|told| told.name == bound.name);
            told.map_or(bound, advertise)
        });
        let controller_listeners = controller_listeners.collect();
        let advertised = config.listeners.advertised.iter().map(advertise).collect::<Vec<_>>();
        let advertised = if advertised.is_empty() { bound } else { advertised };
        Settings {
            node_id: BrokerId(config.node_id),
            cluster_id: config.cluster_id.clone(),
            voters_cluster_id: voters_cluster_id(&config),
            log_dirs: config.log_dirs.clone(),
            metadata_log_dir: config.metadata_log_dir.clone(),
            zookeeper: None,
            advertised,
            controller_listeners,
            rack: config.rack.clone(),
            metadata_log: Arc::new(metadata_log(&config)),
            metadata_snapshot_bytes: config
                .metadata_log
                .max_record_bytes_between_snapshots
                .max(1)
                .unsigned_abs(),
            controller: controller(&config),
            group: group(&config),
            initial_task_delay_ms: config.logs.initial_task_delay_ms,
            retention_check_interval_ms: config.logs.retention_check_interval_ms,
            flush_checkpoint_interval_ms: config.logs.flush_offset_checkpoint_interval_ms,
            high_watermark_checkpoint_interval_ms: config
                .logs
                .high_watermark_checkpoint_interval_ms,
            flush_scheduler_interval_ms: config.logs.flush_scheduler_interval_ms,
            producer_id_expiration_check_interval_ms: i64::from(
                config.logs.producer_id_expiration_check_interval_ms,
            ),
            trash_interval_ms: TRASH_INTERVAL_MS,
            dir_reserve_bytes: config.logs.dir_reserve_bytes,
            recovery_threads_per_dir: config.logs.num_recovery_threads_per_data_dir,
            mover_threads: mover_threads(&config),
            is_sole_voter: is_sole_voter(&config),
            inter_broker_listener: config.listeners.inter_broker.clone(),
            controllers: ControllerAddresses::new(static_voters(&config)),
            static_voters: static_voters(&config),
            founding: founding(&config),
            bootstrap: bootstrap(&config),
            controller_patience: milliseconds(config.replication.controller_socket_timeout_ms),
            heartbeat_interval: milliseconds(config.replication.broker_heartbeat_interval_ms),
            dir_failure_timeout: milliseconds(config.logs.dir_failure_timeout_ms),
            initial_registration_timeout: milliseconds(
                config.replication.initial_registration_timeout_ms,
            ),
            controlled_shutdown: config.replication.controlled_shutdown_enable,
            config,
        }
    }

    /// Makes these the settings of a broker that knows no more than where others meet (decision 8), and what is to
    /// become of its directories. `servers` are the brokers that are there.
    pub fn meet(
        &mut self,
        founding: Founding,
        cluster_id: Option<String>,
        servers: watch::Receiver<Vec<Address>>,
    ) {
        self.founding = founding;
        self.cluster_id = cluster_id.or(self.cluster_id.take());
        self.bootstrap = Bootstrap { servers, auto_join: true, voters_max: MEETING_VOTERS_MAX };
        self.is_sole_voter = false;
    }

    /// The listeners of the quorum: the controller's, or where there is none that of the brokers among themselves.
    pub fn quorum_listeners(&self) -> &[AdvertisedListener] {
        if !self.controller_listeners.is_empty() {
            return &self.controller_listeners;
        }
        let is_own = |it: &&AdvertisedListener| it.name == self.inter_broker_listener;
        self.advertised.iter().find(is_own).map_or(&[], std::slice::from_ref)
    }

    /// Where the quorum is looked for before anything is known of it.
    pub fn known_controllers(&self) -> BTreeSet<Address> {
        let known = self.controllers.all().into_values();
        known.chain(self.bootstrap.servers.borrow().iter().cloned()).collect()
    }

    /// The cleaner's settings as `image` has them.
    pub fn cleaner(&self, image: &Image) -> CleanerConfig {
        let of = |name: &str| image.config(&ConfigResource::new(ResourceType::Broker, name));
        let (broker, cluster) = (of(&self.node_id.to_string()), of(""));
        CleanerConfig::now(&self.config, Dynamic { broker: &broker, cluster: &cluster })
    }

    /// `replica.alter.log.dirs.io.max.bytes.per.second` as `image` has it.
    pub fn move_bytes_per_second(&self, image: &Image) -> f64 {
        let of = |name: &str| {
            let configs = image.config(&ConfigResource::new(ResourceType::Broker, name));
            configs.get(MOVE_RATE).and_then(|value| value.trim().parse().ok())
        };
        of(&self.node_id.to_string()).or_else(|| of("")).unwrap_or(f64::MAX)
    }

    /// Whether the running cleaner can have these dynamic configurations of this broker, or of all (no `name`).
    ///
    /// # Errors
    /// Kafka's message.
    pub fn check_cleaner(
        &self,
        image: &Image,
        name: &str,
        configs: &ConfigMap,
    ) -> Result<(), String> {
        let of = |name: &str| image.config(&ConfigResource::new(ResourceType::Broker, name));
        let (broker, cluster) = (of(&self.node_id.to_string()), of(""));
        let dynamic = match name {
            "" => Dynamic { broker: &broker, cluster: configs },
            _ => Dynamic { broker: configs, cluster: &cluster },
        };
        let (before, after) = (self.cleaner(image), CleanerConfig::now(&self.config, dynamic));
        if before == after { Ok(()) } else { before.check_change(&after) }
    }

    /// The effective settings of a topic: its own, else the broker's, else the cluster's, else the file's, else the
    /// default (KIP-226).
    pub fn topic(&self, image: &Image, topic: &str) -> TopicSettings {
        let of = |kind, name: &str| image.config(&ConfigResource::new(kind, name));
        let own = of(ResourceType::Topic, topic);
        let broker = of(ResourceType::Broker, &self.node_id.to_string());
        let cluster = of(ResourceType::Broker, "");
        let dynamic = Dynamic { broker: &broker, cluster: &cluster };
        let expiration = dynamic.value(&self.config, "producer.id.expiration.ms");
        let expiration_ms = expiration
            .and_then(|value| value.integer())
            .unwrap_or(i64::from(self.config.logs.producer_id_expiration_ms));
        let topic_config = TopicConfig::new(&self.config, dynamic, &own).or_else(|error| {
            // The controller checks what it writes; a directory of another version may hold what is not valid here.
            tracing::error!(topic, %error, "the topic's configuration is not valid: defaults apply");
            TopicConfig::new(&self.config, Dynamic::NONE, config::topic::NOTHING)
        });
        match topic_config {
            Ok(topic) => TopicSettings {
                min_insync_replicas: usize::try_from(topic.min_insync_replicas).unwrap_or(1),
                log: Arc::new(self.log_config(&topic, expiration_ms)),
            },
            Err(_) => TopicSettings { log: Arc::default(), min_insync_replicas: 1 },
        }
    }

    fn log_config(&self, topic: &TopicConfig, producer_id_expiration_ms: i64) -> LogConfig {
        let has = |policy: &str| topic.cleanup_policy.iter().any(|name| name == policy);
        LogConfig {
            segment_bytes: topic.internal_segment_bytes.unwrap_or(topic.segment_bytes),
            segment_ms: topic.segment_ms,
            segment_jitter_ms: topic.segment_jitter_ms,
            segment_index_bytes: topic.segment_index_bytes,
            index_interval_bytes: topic.index_interval_bytes,
            retention_ms: topic.retention_ms,
            retention_bytes: topic.retention_bytes,
            cleanup_policy: CleanupPolicy { delete: has("delete"), compact: has("compact") },
            min_cleanable_dirty_ratio: topic.min_cleanable_dirty_ratio,
            min_compaction_lag_ms: topic.min_compaction_lag_ms,
            delete_retention_ms: topic.delete_retention_ms,
            max_compaction_lag_ms: topic.max_compaction_lag_ms,
            max_message_bytes: topic.max_message_bytes,
            max_decompressed_message_bytes: topic.max_decompressed_message_bytes,
            compression: compression(topic),
            message_timestamp_type: match topic.message_timestamp_type.as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            message_timestamp_before_max_ms: topic.message_timestamp_before_max_ms,
            message_timestamp_after_max_ms: topic.message_timestamp_after_max_ms,
            flush_messages: topic.flush_messages,
            sync_before_commit: self.config.logs.ack_durability == "fsync",
            flush_ms: topic.flush_ms,
            preallocate: topic.preallocate,
            file_delete_delay_ms: topic.file_delete_delay_ms,
            producer_id_expiration_ms,
        }
    }
}

fn milliseconds(ms: impl Into<i64>) -> Duration {
    Duration::from_millis(ms.into().max(0).unsigned_abs())
}

fn is_sole_voter(config: &Config) -> bool {
    config.is_controller
        && config.quorum_voters.len() <= 1
        && config.quorum_bootstrap_servers.is_empty()
}

fn founding(config: &Config) -> Founding {
    if !config.quorum_voters.is_empty() || config.quorum_bootstrap_servers.is_empty() {
        return Founding::Static;
    }
    match config.is_controller && config.is_own_bootstrap {
        true => Founding::Standalone,
        false => Founding::Join,
    }
}

fn bootstrap(config: &Config) -> Bootstrap {
    Bootstrap {
        auto_join: config.quorum_auto_join,
        ..Bootstrap::fixed(config.quorum_bootstrap_servers.clone())
    }
}

fn static_voters(config: &Config) -> BTreeMap<BrokerId, Address> {
    let voters = config.quorum_voters.iter();
    voters.map(|voter| (BrokerId(voter.id), (voter.host.clone(), voter.port))).collect()
}

/// The cluster id of directories that nobody has formatted: all voters of one configuration must come to the same.
pub(super) fn voters_cluster_id(config: &Config) -> Option<String> {
    if config.quorum_voters.len() <= 1 {
        return None;
    }
    let mut voters: Vec<String> = config
        .quorum_voters
        .iter()
        .map(|voter| format!("{}@{}:{}", voter.id, voter.host, voter.port))
        .collect();
    voters.sort();
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, voters.join(",").as_bytes());
    Some(uuid_to_text(id))
}

fn compression(topic: &TopicConfig) -> CompressionTarget {
    let (codec, level) = match topic.compression_type.as_str() {
        "gzip" => (Compression::Gzip, Some(topic.compression_gzip_level)),
        "snappy" => (Compression::Snappy, None),
        "lz4" => (Compression::Lz4, Some(topic.compression_lz4_level)),
        "zstd" => (Compression::Zstd, Some(topic.compression_zstd_level)),
        "uncompressed" => (Compression::None, None),
        _ => return CompressionTarget::Producer,
    };
    CompressionTarget::Codec { codec, level }
}

fn advertise(listener: &config::Listener) -> AdvertisedListener {
    AdvertisedListener {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: listener.port,
        security_protocol: listener.protocol.id(),
    }
}

fn metadata_log(config: &Config) -> LogConfig {
    LogConfig {
        segment_bytes: config.metadata_log.segment_bytes,
        segment_ms: config.metadata_log.segment_ms,
        // A snapshot alone lets the log go.
        retention_ms: -1,
        retention_bytes: -1,
        max_message_bytes: i32::MAX,
        ..LogConfig::default()
    }
}

fn controller(config: &Config) -> ControllerSettings {
    let integer = |name: &str| config.values.get(name).ok().flatten().and_then(|v| v.integer());
    let unclean = config.values.get("unclean.leader.election.enable").ok().flatten();
    ControllerSettings {
        node_id: BrokerId(config.node_id),
        cluster_id: String::new(),
        default_partitions: config.topics.num_partitions,
        default_replication_factor: config.topics.default_replication_factor,
        min_insync_replicas: integer("min.insync.replicas").unwrap_or(1) as i32,
        unclean_leader_election: unclean == Some(Value::Boolean(true)),
        values: config.values.clone(),
        session_timeout_ms: i64::from(config.replication.broker_session_timeout_ms),
        trusts_own_broker: is_sole_voter(config)
            || config.is_controller && config.quorum_voters.is_empty(),
        rebalance_interval_ms: config
            .replication
            .auto_leader_rebalance_enable
            .then_some(config.replication.leader_imbalance_check_interval_s * 1000),
        unclean_interval_ms: config.replication.unclean_leader_election_interval_ms,
        lone_replicas: LoneReplicas::Follow,
    }
}

fn mover_threads(config: &Config) -> usize {
    let given = config.values.get("num.replica.alter.log.dirs.threads").ok().flatten();
    let given = given.and_then(|value| usize::try_from(value.integer()?).ok());
    given.unwrap_or(config.log_dirs.len()).max(1)
}

fn group(config: &Config) -> GroupConfig {
    GroupConfig {
        session_timeout_ms_min: config.groups.min_session_timeout_ms,
        session_timeout_ms_max: config.groups.max_session_timeout_ms,
        group_size_max: config.groups.max_size,
        initial_rebalance_delay_ms: config.groups.initial_rebalance_delay_ms,
        offset_metadata_max: config.offsets.metadata_max_bytes,
        offsets_retention_ms: i64::from(config.offsets.retention_minutes) * 60_000,
        offsets_retention_check_interval_ms: config.offsets.retention_check_interval_ms,
    }
}
