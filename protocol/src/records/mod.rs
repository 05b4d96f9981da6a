//! Kafka's own records: the contents of the internal topics, of control batches, and of what
//! consumers put into group requests.
//!
//! Each module turns the key and value of a record into a typed value and back. Not here: batches
//! (`record.rs`), and when such a record is written (machines).
//! Invariant: bytes of any content give a value or a [`crate::WireError`].

pub mod consumer_protocol;
pub mod control;
pub mod group;
pub mod metadata;
pub mod transaction;

#[cfg(test)]
mod tests;
