//! The settings of one log, as the topic's effective configuration says. The broker converts from its own
//! configuration; names and defaults are those of Kafka's topic configs.

use ottla_protocol::batch::{Compression, TimestampType};

/// What `cleanup.policy` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old segments are deleted by time and size.
    pub delete: bool,
    /// The last value of each key is kept; records must have keys.
    pub compact: bool,
}

/// What `compression.type` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionTarget {
    /// `producer`: batches stay as they were sent.
    Producer,
    /// Every batch is stored with this codec (`uncompressed` is `Compression::None`).
    Codec {
        /// The codec.
        codec: Compression,
        /// Its level; `None` is the codec's own default.
        level: Option<i32>,
    },
}

/// Settings of one log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`, 1 to 2^31-1.
    pub segment_bytes: i32,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: upper bound of what is taken off `segment.ms`.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: largest size of one index file.
    pub segment_index_bytes: i32,
    /// `index.interval.bytes`.
    pub index_interval_bytes: i32,
    /// `retention.ms`; -1 keeps for ever.
    pub retention_ms: i64,
    /// `retention.bytes`; -1 has no bound.
    pub retention_bytes: i64,
    /// `cleanup.policy`.
    pub cleanup_policy: CleanupPolicy,
    /// `min.cleanable.dirty.ratio`: share of uncleaned bytes from which the log is cleaned.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long tombstones and transaction markers stay after cleaning.
    pub delete_retention_ms: i64,
    /// `max.compaction.lag.ms`; bounds `segment.ms` where the log is compacted.
    pub max_compaction_lag_ms: i64,
    /// `max.message.bytes`: largest batch, as sent and as stored.
    pub max_message_bytes: i32,
    /// `max.decompressed.message.bytes`.
    pub max_decompressed_message_bytes: i32,
    /// `compression.type` and the level of its codec.
    pub compression: CompressionTarget,
    /// `message.timestamp.type`.
    pub message_timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub message_timestamp_after_max_ms: i64,
    /// `flush.messages`, at least 1.
    pub flush_messages: i64,
    /// `ottla.ack.durability=fsync` of the broker: the high watermark passes synced records only.
    pub sync_before_commit: bool,
    /// `flush.ms`.
    pub flush_ms: i64,
    /// `preallocate`: the active segment's file is filled with zeros ahead of the batches.
    pub preallocate: bool,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: i64,
    /// `producer.id.expiration.ms` of the broker.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            cleanup_policy: CleanupPolicy { delete: true, compact: false },
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            delete_retention_ms: 86_400_000,
            max_compaction_lag_ms: i64::MAX,
            max_message_bytes: 1_048_588,
            max_decompressed_message_bytes: i32::MAX - 8,
            compression: CompressionTarget::Producer,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 3_600_000,
            flush_messages: i64::MAX,
            sync_before_commit: false,
            flush_ms: i64::MAX,
            preallocate: false,
            file_delete_delay_ms: 60_000,
            producer_id_expiration_ms: 86_400_000,
        }
    }
}

impl LogConfig {
    /// Longest time a segment takes appends: compaction cannot reach the active segment, so its lag bounds it.
    pub fn segment_ms_max(&self) -> i64 {
        if self.cleanup_policy.compact {
            self.segment_ms.min(self.max_compaction_lag_ms.max(0))
        } else {
            self.segment_ms
        }
    }
}
