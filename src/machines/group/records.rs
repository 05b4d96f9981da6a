//! The records of a group coordinator: what stands in `__consumer_offsets`, and the ones that a classic group writes.
//!
//! Versions are those that Kafka 4.3.1 writes: group metadata 3, offset commits 4 (1 with an expiry of their own).

use bytes::Bytes;
use ottla_protocol::coordinator::{
    GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue,
};

/// A record of `__consumer_offsets`; without a value it is a tombstone.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupRecord {
    /// A committed offset.
    OffsetCommit {
        /// Group, topic, partition.
        key: OffsetCommitKey,
        /// The offset.
        value: Option<OffsetCommitValue>,
    },
    /// A classic group's generation.
    GroupMetadata {
        /// The group.
        key: GroupMetadataKey,
        /// Its members and assignments.
        value: Option<GroupMetadataValue>,
    },
    /// A record of a kind that this coordinator does not use.
    Unknown {
        /// As in the log.
        key: Bytes,
        /// As in the log.
        value: Option<Bytes>,
    },
}
