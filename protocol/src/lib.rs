//! Kafka's wire protocol and record formats: bytes to messages and batches, and back.
//!
//! No I/O and no state. Source: the message schemas in Apache Kafka's jars, and the Kafka
//! documentation's chapters "Protocol" and "Message Format".
#![forbid(unsafe_code)]

pub mod apis;
pub mod batch;
pub mod compression;
pub mod error;
pub mod frame;
pub mod generated;
pub mod record;
pub mod records;
pub mod request;
pub mod types;
pub mod wire;
pub mod writer;

#[cfg(test)]
mod proptests;

pub use error::ErrorCode;
pub use generated::{ApiKey, MetadataRecord, coordinator, messages, metadata};
pub use types::*;
pub use wire::{Message, Reader, Request, WireError, Writer};
