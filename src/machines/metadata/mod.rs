//! Cluster metadata: the [`Image`] that everybody reads and the [`Controller`] that decides on
//! changes of it.
//!
//! Not here: consensus and the log (`broker/quorum.rs`), publishing to partitions
//! (`broker/publisher.rs`).

pub mod config_rules;
pub mod controller;
pub mod effective;
pub mod features;
pub mod image;
pub mod placement;
pub mod random;
pub mod shared_map;

pub use controller::configs::alter as alter_config;
pub use controller::{
    ApiError, Controller, ControllerEffect, ControllerReply, ControllerRequest, ControllerSettings,
    LoneReplicas, validate_topic_name,
};
pub use features::{bootstrap_records, record_version};
pub use image::Image;
