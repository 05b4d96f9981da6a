//! The records of `__consumer_offsets`: what the group coordinator remembers.
//!
//! A key is the record type as INT16 and its body; a value is its version as INT16 and its body, or
//! null (a tombstone). Types 0 and 1 are offset commits, 2 classic groups, 3 to 8 and 16 consumer
//! groups (KIP-848), 10 to 15 share groups (KIP-932), 17 to 23 streams groups (KIP-1071).
//! Source: the schemas in Kafka's group coordinator.

use bytes::Bytes;

use crate::coordinator::*;
use crate::wire::{Message, Reader, WireError, Writer};

/// Who must be able to read what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupReaders {
    /// Kafka 4.3.1.
    #[default]
    Current,
    /// Kafka since 2.3, whose highest versions are 3.
    Old,
}

impl GroupReaders {
    fn version_max(self) -> i16 {
        match self {
            GroupReaders::Current => i16::MAX,
            GroupReaders::Old => 3,
        }
    }
}

/// Declares the enum, one variant for each type of record, and its code.
macro_rules! group_records {
    ($($(#[$doc:meta])* $variant:ident($key:ident, $value:ident),)*) => {
        /// A record of `__consumer_offsets`; a value of `None` is a tombstone.
        #[derive(Debug, Clone, PartialEq)]
        pub enum GroupRecord {
            $(
                $(#[$doc])*
                $variant {
                    /// What it is about.
                    key: $key,
                    /// What is said about it.
                    value: Option<$value>,
                },
            )*
            /// A type of the future, which this broker passes over.
            Unknown {
                /// The key's first two bytes.
                record_type: i16,
            },
        }

        impl GroupRecord {
            /// Reads a record. Bytes after what the schema knows are left alone, as in Kafka.
            ///
            /// # Errors
            /// What is wrong with key or value; `BadVersion` for a value of the future.
            pub fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<GroupRecord, WireError> {
                let mut r = Reader::new(key.clone());
                Ok(match r.i16()? {
                    $(
                        $key::KEY => GroupRecord::$variant {
                            key: $key::decode(&mut r, 0)?,
                            value: value.map(decode_value::<$value>).transpose()?,
                        },
                    )*
                    record_type => GroupRecord::Unknown { record_type },
                })
            }

            /// Key and value as they stand in the log, the value in the version that Kafka 4.3.1
            /// writes. An unknown record has nothing after its type.
            pub fn encode(&self) -> (Bytes, Option<Bytes>) {
                self.encode_for(GroupReaders::Current)
            }

            /// The same, with the value in the highest version that `readers` know.
            pub fn encode_for(&self, readers: GroupReaders) -> (Bytes, Option<Bytes>) {
                let version = self.value_version().min(readers.version_max());
                match self {
                    $(
                        GroupRecord::$variant { key, value } => (
                            encode_part($key::KEY, key, 0),
                            value.as_ref().map(|value| encode_part(version, value, version)),
                        ),
                    )*
                    GroupRecord::Unknown { record_type } => {
                        (Bytes::copy_from_slice(&record_type.to_be_bytes()), None)
                    }
                }
            }

            /// Whether the record takes back what earlier ones of its key said.
            pub fn is_tombstone(&self) -> bool {
                match self {
                    $(GroupRecord::$variant { value, .. } => value.is_none(),)*
                    GroupRecord::Unknown { .. } => false,
                }
            }
        }
    };
}

group_records! {
    /// A committed offset as Kafka before 0.9 wrote it.
    LegacyOffsetCommit(LegacyOffsetCommitKey, LegacyOffsetCommitValue),
    /// A committed offset.
    OffsetCommit(OffsetCommitKey, OffsetCommitValue),
    /// A classic group with its members.
    GroupMetadata(GroupMetadataKey, GroupMetadataValue),
    /// A consumer group's epoch.
    ConsumerGroupMetadata(ConsumerGroupMetadataKey, ConsumerGroupMetadataValue),
    /// The partitions of the topics that a consumer group reads; no longer written.
    ConsumerGroupPartitionMetadata(
        ConsumerGroupPartitionMetadataKey,
        ConsumerGroupPartitionMetadataValue
    ),
    /// A member of a consumer group.
    ConsumerGroupMemberMetadata(ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue),
    /// The epoch of a consumer group's target assignment.
    ConsumerGroupTargetAssignmentMetadata(
        ConsumerGroupTargetAssignmentMetadataKey,
        ConsumerGroupTargetAssignmentMetadataValue
    ),
    /// What a member of a consumer group shall have.
    ConsumerGroupTargetAssignmentMember(
        ConsumerGroupTargetAssignmentMemberKey,
        ConsumerGroupTargetAssignmentMemberValue
    ),
    /// What a member of a consumer group has.
    ConsumerGroupCurrentMemberAssignment(
        ConsumerGroupCurrentMemberAssignmentKey,
        ConsumerGroupCurrentMemberAssignmentValue
    ),
    /// The topics that a consumer group's regular expression matches.
    ConsumerGroupRegularExpression(
        ConsumerGroupRegularExpressionKey,
        ConsumerGroupRegularExpressionValue
    ),
    /// A share group's epoch.
    ShareGroupMetadata(ShareGroupMetadataKey, ShareGroupMetadataValue),
    /// A member of a share group.
    ShareGroupMemberMetadata(ShareGroupMemberMetadataKey, ShareGroupMemberMetadataValue),
    /// The epoch of a share group's target assignment.
    ShareGroupTargetAssignmentMetadata(
        ShareGroupTargetAssignmentMetadataKey,
        ShareGroupTargetAssignmentMetadataValue
    ),
    /// What a member of a share group shall have.
    ShareGroupTargetAssignmentMember(
        ShareGroupTargetAssignmentMemberKey,
        ShareGroupTargetAssignmentMemberValue
    ),
    /// What a member of a share group has.
    ShareGroupCurrentMemberAssignment(
        ShareGroupCurrentMemberAssignmentKey,
        ShareGroupCurrentMemberAssignmentValue
    ),
    /// Which partitions of a share group have their state set up.
    ShareGroupStatePartitionMetadata(
        ShareGroupStatePartitionMetadataKey,
        ShareGroupStatePartitionMetadataValue
    ),
    /// A streams group's epoch.
    StreamsGroupMetadata(StreamsGroupMetadataKey, StreamsGroupMetadataValue),
    /// A member of a streams group.
    StreamsGroupMemberMetadata(StreamsGroupMemberMetadataKey, StreamsGroupMemberMetadataValue),
    /// The epoch of a streams group's target assignment.
    StreamsGroupTargetAssignmentMetadata(
        StreamsGroupTargetAssignmentMetadataKey,
        StreamsGroupTargetAssignmentMetadataValue
    ),
    /// What a member of a streams group shall have.
    StreamsGroupTargetAssignmentMember(
        StreamsGroupTargetAssignmentMemberKey,
        StreamsGroupTargetAssignmentMemberValue
    ),
    /// What a member of a streams group has.
    StreamsGroupCurrentMemberAssignment(
        StreamsGroupCurrentMemberAssignmentKey,
        StreamsGroupCurrentMemberAssignmentValue
    ),
    /// A streams group's topology.
    StreamsGroupTopology(StreamsGroupTopologyKey, StreamsGroupTopologyValue),
}

impl GroupRecord {
    /// The version that Kafka 4.3.1 writes the value in: 1 for an offset with a time of expiry (as
    /// old clients commit it), 4 for another, 3 for a classic group, else 0.
    pub fn value_version(&self) -> i16 {
        match self {
            GroupRecord::OffsetCommit { value: Some(value), .. } => {
                if value.expire_timestamp == -1 { 4 } else { 1 }
            }
            GroupRecord::GroupMetadata { .. } => 3,
            _ => 0,
        }
    }
}

pub(super) fn decode_value<V: Message>(value: &Bytes) -> Result<V, WireError> {
    let mut r = Reader::new(value.clone());
    let version = r.i16()?;
    V::decode(&mut r, version)
}

pub(super) fn encode_part<M: Message>(prefix: i16, message: &M, version: i16) -> Bytes {
    let mut w = Writer::default();
    w.i16(prefix);
    message.encode(&mut w, version);
    w.freeze()
}
