//! The records of `__transaction_state`: what the transaction coordinator remembers of each
//! transactional id.
//!
//! Key and value are versions as INT16 and their bodies; a null value is a tombstone.
//! Source: KIP-98; version 1 of the value is KIP-915's, with KIP-890's tagged fields.

use bytes::Bytes;

use super::group::{decode_value, encode_part};
use crate::coordinator::{TransactionLogKey, TransactionLogValue};
use crate::wire::{Message, Reader, WireError};

/// A record of `__transaction_state`.
#[derive(Debug, Clone, PartialEq)]
pub enum TransactionRecord {
    /// The state of a transactional id; `None` is a tombstone.
    TransactionLog {
        /// Names the transactional id.
        key: TransactionLogKey,
        /// Its producer id, epoch, state and partitions.
        value: Option<TransactionLogValue>,
    },
    /// A type of the future, which this broker passes over.
    Unknown {
        /// The key's first two bytes.
        record_type: i16,
    },
}

impl TransactionRecord {
    /// Reads a record. Bytes after what the schema knows are left alone, as in Kafka.
    ///
    /// # Errors
    /// What is wrong with key or value; `BadVersion` for a value of the future.
    pub fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<TransactionRecord, WireError> {
        let mut r = Reader::new(key.clone());
        Ok(match r.i16()? {
            TransactionLogKey::KEY => TransactionRecord::TransactionLog {
                key: TransactionLogKey::decode(&mut r, 0)?,
                value: value.map(decode_value).transpose()?,
            },
            record_type => TransactionRecord::Unknown { record_type },
        })
    }

    /// Key and value as they stand in the log. `version` is that of the value: 0 where
    /// `transaction.version` is 0, else 1.
    pub fn encode(&self, version: i16) -> (Bytes, Option<Bytes>) {
        match self {
            TransactionRecord::TransactionLog { key, value } => (
                encode_part(TransactionLogKey::KEY, key, 0),
                value.as_ref().map(|value| encode_part(version, value, version)),
            ),
            TransactionRecord::Unknown { record_type } => {
                (Bytes::copy_from_slice(&record_type.to_be_bytes()), None)
            }
        }
    }
}
