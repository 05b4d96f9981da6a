//! broker
pub mod host;

/// One broker of the cluster.
#[derive(Debug, Default)]
pub struct Broker {}
