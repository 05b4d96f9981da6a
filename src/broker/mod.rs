//! broker
pub mod host;
