//! Ottla: a message broker that speaks Apache Kafka's wire protocol, on its own log store and replication.

pub mod bench;
pub mod broker;
pub mod client;
pub mod config;
pub mod env;
pub mod log;
pub mod machines;
pub mod server;
pub mod status;
pub mod zookeeper;

#[cfg(test)]
mod tidy;
