//! The groups of typed fields that [`super::Config`] is made of; each field names the key it is read from.
//!
//! Units are in the names of the keys, and where a key has none, in the field's. What a key means, its default and its
//! range stand in the table.

use super::ConfigError;
use super::values::{Values, typed};

macro_rules! groups {
    ($($(#[$doc:meta])* $group:ident { $($field:ident: $kind:ty = $key:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $group {
            $(#[doc = concat!("`", $key, "`")] pub $field: $kind,)*
        }

        impl $group {
            pub(super) fn read(values: &Values) -> Result<Self, ConfigError> {
                Ok(Self { $($field: typed(values, $key)?,)* })
            }
        }
    )*};
}

groups! {
    /// Sockets, connections and threads.
    SocketConfig {
        send_buffer_bytes: i32 = "socket.send.buffer.bytes",
        receive_buffer_bytes: i32 = "socket.receive.buffer.bytes",
        request_max_bytes: usize = "socket.request.max.bytes",
        listen_backlog_size: u32 = "socket.listen.backlog.size",
        connections_max_idle_ms: i64 = "connections.max.idle.ms",
        max_connections: i32 = "max.connections",
        max_connections_per_ip: i32 = "max.connections.per.ip",
        max_connections_per_ip_overrides: String = "max.connections.per.ip.overrides",
        max_connection_creation_rate: i32 = "max.connection.creation.rate",
        queued_max_requests: usize = "queued.max.requests",
        queued_max_request_bytes: i64 = "queued.max.request.bytes",
        num_network_threads: i32 = "num.network.threads",
        num_io_threads: i32 = "num.io.threads",
        background_threads: i32 = "background.threads",
        worker_threads: usize = "ottla.worker.threads",
        failed_authentication_delay_ms: i32 = "connection.failed.authentication.delay.ms",
        max_request_partition_size_limit: i32 = "max.request.partition.size.limit",
    }

    /// How topics come to be and go, and what requests may ask of them.
    TopicDefaults {
        num_partitions: i32 = "num.partitions",
        default_replication_factor: i16 = "default.replication.factor",
        auto_create_topics_enable: bool = "auto.create.topics.enable",
        delete_topic_enable: bool = "delete.topic.enable",
        fetch_max_bytes: i32 = "fetch.max.bytes",
        fetch_session_cache_slots: usize = "max.incremental.fetch.session.cache.slots",
        max_decompressed_message_bytes: i32 = "max.decompressed.message.bytes",
    }

    /// What the log room does on its own account, apart from what topics can override.
    LogHousekeeping {
        flush_scheduler_interval_ms: i64 = "log.flush.scheduler.interval.ms",
        flush_offset_checkpoint_interval_ms: i64 = "log.flush.offset.checkpoint.interval.ms",
        flush_start_offset_checkpoint_interval_ms: i64 =
            "log.flush.start.offset.checkpoint.interval.ms",
        high_watermark_checkpoint_interval_ms: i64 =
            "replica.high.watermark.checkpoint.interval.ms",
        retention_check_interval_ms: i64 = "log.retention.check.interval.ms",
        initial_task_delay_ms: i64 = "log.initial.task.delay.ms",
        dir_failure_timeout_ms: i64 = "log.dir.failure.timeout.ms",
        num_recovery_threads_per_data_dir: usize = "num.recovery.threads.per.data.dir",
        producer_id_expiration_ms: i32 = "producer.id.expiration.ms",
        producer_id_expiration_check_interval_ms: i32 =
            "producer.id.expiration.check.interval.ms",
        cordoned_dirs: Vec<String> = "cordoned.log.dirs",
        ack_durability: String = "ottla.ack.durability",
        dir_reserve_bytes: i64 = "ottla.log.dir.reserve.bytes",
    }

    /// The log cleaner.
    CleanerConfig {
        enable: bool = "log.cleaner.enable",
        threads: i32 = "log.cleaner.threads",
        backoff_ms: i64 = "log.cleaner.backoff.ms",
        dedupe_buffer_size: i64 = "log.cleaner.dedupe.buffer.size",
        io_buffer_size: i32 = "log.cleaner.io.buffer.size",
        io_buffer_load_factor: f64 = "log.cleaner.io.buffer.load.factor",
        io_max_bytes_per_second: f64 = "log.cleaner.io.max.bytes.per.second",
    }

    /// Committed offsets and the topic that holds them.
    OffsetsConfig {
        topic_num_partitions: i32 = "offsets.topic.num.partitions",
        topic_replication_factor: i16 = "offsets.topic.replication.factor",
        topic_segment_bytes: i32 = "offsets.topic.segment.bytes",
        topic_compression_codec: i32 = "offsets.topic.compression.codec",
        retention_minutes: i32 = "offsets.retention.minutes",
        retention_check_interval_ms: i64 = "offsets.retention.check.interval.ms",
        metadata_max_bytes: i32 = "offset.metadata.max.bytes",
        commit_timeout_ms: i32 = "offsets.commit.timeout.ms",
        load_buffer_size: i32 = "offsets.load.buffer.size",
    }

    /// The group coordinator; a group's own overrides are not in here.
    GroupDefaults {
        initial_rebalance_delay_ms: i32 = "group.initial.rebalance.delay.ms",
        min_session_timeout_ms: i32 = "group.min.session.timeout.ms",
        max_session_timeout_ms: i32 = "group.max.session.timeout.ms",
        max_size: i32 = "group.max.size",
        rebalance_protocols: Vec<String> = "group.coordinator.rebalance.protocols",
        append_linger_ms: i32 = "group.coordinator.append.linger.ms",
        consumer_session_timeout_ms: i32 = "group.consumer.session.timeout.ms",
        consumer_min_session_timeout_ms: i32 = "group.consumer.min.session.timeout.ms",
        consumer_max_session_timeout_ms: i32 = "group.consumer.max.session.timeout.ms",
        consumer_heartbeat_interval_ms: i32 = "group.consumer.heartbeat.interval.ms",
        consumer_min_heartbeat_interval_ms: i32 = "group.consumer.min.heartbeat.interval.ms",
        consumer_max_heartbeat_interval_ms: i32 = "group.consumer.max.heartbeat.interval.ms",
        consumer_max_size: i32 = "group.consumer.max.size",
        consumer_assignors: Vec<String> = "group.consumer.assignors",
        consumer_migration_policy: String = "group.consumer.migration.policy",
        consumer_assignment_interval_ms: i32 = "group.consumer.assignment.interval.ms",
        share_session_timeout_ms: i32 = "group.share.session.timeout.ms",
        share_heartbeat_interval_ms: i32 = "group.share.heartbeat.interval.ms",
        share_record_lock_duration_ms: i32 = "group.share.record.lock.duration.ms",
        share_delivery_count_limit: i32 = "group.share.delivery.count.limit",
        share_partition_max_record_locks: i32 = "group.share.partition.max.record.locks",
        share_max_size: i32 = "group.share.max.size",
        streams_session_timeout_ms: i32 = "group.streams.session.timeout.ms",
        streams_heartbeat_interval_ms: i32 = "group.streams.heartbeat.interval.ms",
        streams_num_standby_replicas: i32 = "group.streams.num.standby.replicas",
        streams_initial_rebalance_delay_ms: i32 = "group.streams.initial.rebalance.delay.ms",
        streams_max_size: i32 = "group.streams.max.size",
    }

    /// Transactions and the topic that holds their state.
    TransactionConfig {
        max_timeout_ms: i32 = "transaction.max.timeout.ms",
        transactional_id_expiration_ms: i32 = "transactional.id.expiration.ms",
        topic_num_partitions: i32 = "transaction.state.log.num.partitions",
        topic_replication_factor: i16 = "transaction.state.log.replication.factor",
        topic_min_isr: i32 = "transaction.state.log.min.isr",
        topic_segment_bytes: i32 = "transaction.state.log.segment.bytes",
        load_buffer_size: i32 = "transaction.state.log.load.buffer.size",
        abort_timed_out_interval_ms: i32 =
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        remove_expired_interval_ms: i32 =
            "transaction.remove.expired.transaction.cleanup.interval.ms",
        partition_verification_enable: bool = "transaction.partition.verification.enable",
        two_phase_commit_enable: bool = "transaction.two.phase.commit.enable",
    }

    /// The topic that holds the state of share groups.
    ShareStateConfig {
        topic_num_partitions: i32 = "share.coordinator.state.topic.num.partitions",
        topic_replication_factor: i16 = "share.coordinator.state.topic.replication.factor",
        topic_min_isr: i16 = "share.coordinator.state.topic.min.isr",
        topic_segment_bytes: i32 = "share.coordinator.state.topic.segment.bytes",
    }

    /// The metadata log and its snapshots.
    MetadataLogConfig {
        segment_bytes: i32 = "metadata.log.segment.bytes",
        segment_ms: i64 = "metadata.log.segment.ms",
        retention_bytes: i64 = "metadata.max.retention.bytes",
        retention_ms: i64 = "metadata.max.retention.ms",
        max_record_bytes_between_snapshots: i64 =
            "metadata.log.max.record.bytes.between.snapshots",
        max_snapshot_interval_ms: i64 = "metadata.log.max.snapshot.interval.ms",
        max_idle_interval_ms: i32 = "metadata.max.idle.interval.ms",
    }

    /// Copying between brokers, and brokers' standing with the controller.
    ReplicationConfig {
        lag_time_max_ms: i64 = "replica.lag.time.max.ms",
        fetch_max_bytes: i32 = "replica.fetch.max.bytes",
        fetch_min_bytes: i32 = "replica.fetch.min.bytes",
        fetch_response_max_bytes: i32 = "replica.fetch.response.max.bytes",
        fetch_wait_max_ms: i32 = "replica.fetch.wait.max.ms",
        fetch_backoff_ms: i32 = "replica.fetch.backoff.ms",
        socket_timeout_ms: i32 = "replica.socket.timeout.ms",
        socket_receive_buffer_bytes: i32 = "replica.socket.receive.buffer.bytes",
        num_fetchers: i32 = "num.replica.fetchers",
        request_timeout_ms: i32 = "request.timeout.ms",
        broker_heartbeat_interval_ms: i32 = "broker.heartbeat.interval.ms",
        broker_session_timeout_ms: i32 = "broker.session.timeout.ms",
        controlled_shutdown_enable: bool = "controlled.shutdown.enable",
        auto_leader_rebalance_enable: bool = "auto.leader.rebalance.enable",
        leader_imbalance_check_interval_s: i64 = "leader.imbalance.check.interval.seconds",
        unclean_leader_election_interval_ms: i64 = "unclean.leader.election.interval.ms",
        controller_socket_timeout_ms: i32 = "controller.socket.timeout.ms",
        initial_registration_timeout_ms: i64 = "initial.broker.registration.timeout.ms",
    }
}
