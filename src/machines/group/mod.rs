//! The group coordinator of one partition of `__consumer_offsets`.
mod api;
mod records;

pub use api::{GroupConfig, GroupEffect, GroupRequest, GroupResponse, Join, partition_for};
pub use records::GroupRecord;
