//! Newtypes for ids and numbers that must not be swapped, and the few constants every room needs.
//!
//! An unknown offset, id or epoch is -1, never 0 (Kafka documentation, "Protocol").

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                $name(value)
            }
        }
    };
}

number! {
    /// Position of a record in a partition. The log end offset is the *next* offset.
    Offset(i64)
}
number! {
    /// Counts the leaders of a partition.
    LeaderEpoch(i32)
}
number! {
    /// `node.id` of a broker or controller.
    BrokerId(i32)
}
number! {
    /// Counts the registrations of a broker: the metadata offset of the registration.
    BrokerEpoch(i64)
}
number! {
    /// Identity of an idempotent or transactional producer (KIP-98).
    ProducerId(i64)
}
number! {
    /// Counts the incarnations of a producer id.
    ProducerEpoch(i16)
}
number! {
    /// Milliseconds since 1970-01-01 UTC.
    Timestamp(i64)
}

/// A topic's id (KIP-516).
pub type TopicId = uuid::Uuid;

impl Offset {
    /// No such offset.
    pub const UNKNOWN: Offset = Offset(-1);

    /// The offset `count` records later.
    pub fn plus(self, count: i64) -> Offset {
        Offset(self.0.saturating_add(count))
    }
}

impl LeaderEpoch {
    /// No such epoch.
    pub const UNKNOWN: LeaderEpoch = LeaderEpoch(-1);
}

impl ProducerId {
    /// The batch has no producer id.
    pub const NONE: ProducerId = ProducerId(-1);
}

impl ProducerEpoch {
    /// The batch has no producer epoch.
    pub const NONE: ProducerEpoch = ProducerEpoch(-1);
}

impl BrokerId {
    /// No broker.
    pub const NONE: BrokerId = BrokerId(-1);
}

impl Timestamp {
    /// No timestamp.
    pub const NONE: Timestamp = Timestamp(-1);

    /// The time `ms` milliseconds later; stops at the end of time rather than wrapping.
    pub fn plus_ms(self, ms: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(ms))
    }
}

/// `__consumer_offsets`.
pub const GROUP_METADATA_TOPIC: &str = "__consumer_offsets";
/// `__transaction_state`.
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";
/// `__share_group_state`.
pub const SHARE_STATE_TOPIC: &str = "__share_group_state";
/// `__cluster_metadata`.
pub const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";
/// Its fixed topic id.
pub const CLUSTER_METADATA_TOPIC_ID: TopicId = uuid::Uuid::from_u128(1);

/// Whether Kafka itself keeps its state in the topic: clients may not write to it.
pub fn is_internal_topic(name: &str) -> bool {
    matches!(name, GROUP_METADATA_TOPIC | TRANSACTION_STATE_TOPIC | SHARE_STATE_TOPIC)
}

/// A UUID as Kafka prints it: 22 characters of unpadded URL-safe base64.
pub fn uuid_to_text(id: uuid::Uuid) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = id.as_u128();
    // 128 bits are 21 digits of six bits and one of two, which stand at that digit's top.
    let mut text: String =
        (0..21).map(|i| DIGITS[(value >> (122 - 6 * i)) as usize & 63] as char).collect();
    text.push(DIGITS[((value & 3) << 4) as usize] as char);
    text
}

/// The UUID of Kafka's 22-character text; `None` when it is not one.
pub fn uuid_from_text(text: &str) -> Option<uuid::Uuid> {
    let text = text.as_bytes();
    if text.len() != 22 {
        return None;
    }
    let mut value = 0u128;
    for (i, byte) in text.iter().enumerate() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        if i < 21 {
            value = value << 6 | u128::from(digit);
        } else {
            value = value << 2 | u128::from(digit >> 4);
        }
    }
    Some(uuid::Uuid::from_u128(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_text_is_kafkas() {
        // What org.apache.kafka.common.Uuid prints for these bits.
        let cases = [(0u128, "AAAAAAAAAAAAAAAAAAAAAA"), (1, "AAAAAAAAAAAAAAAAAAAAAQ")];
        for (bits, text) in cases {
            assert_eq!(uuid_to_text(uuid::Uuid::from_u128(bits)), text);
        }
        for bits in [u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677] {
            let id = uuid::Uuid::from_u128(bits);
            assert_eq!(uuid_from_text(&uuid_to_text(id)), Some(id));
        }
        assert_eq!(uuid_from_text("short"), None);
    }
}
