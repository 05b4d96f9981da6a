//! Kafka's wire protocol and record formats: bytes to messages and batches, and back.
//!
//! | Module | What it does |
//! | --- | --- |
//! | [`frame`], [`request`] | frames out of a stream; headers; requests and responses in frames |
//! | [`apis`] | which APIs and versions are served, and where |
//! | [`wire`], [`writer`] | the primitive types |
//! | [`generated`] | every message of Kafka's schemas, by `protocol/generate/generate.py` |
//! | [`batch`], [`record`], [`compression`] | record batches: header, records, codecs |
//! | [`records`] | what is in the records of internal topics and control batches |
//! | [`error`], [`types`] | error codes, and numbers that must not be swapped |
//!
//! No I/O and no state. Source: the message schemas in Apache Kafka's jars, and the Kafka
//! documentation's chapters "Protocol" and "Message Format". `testdata/golden` holds frames of a
//! real Kafka, `testdata/records` its logs.
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
