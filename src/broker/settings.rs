//! What the broker room takes from the configuration, and how a topic's settings follow from it and the Image.

use crate::log::LogConfig;
use crate::machines::metadata::Image;

/// Settings of one topic.
#[derive(Debug, Clone)]
pub struct TopicSettings {
    /// For its logs.
    pub log: LogConfig,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
}

/// The broker room's view of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Settings {}

impl Settings {
    /// The effective settings of a topic: its own, else the cluster's, else the file's, else the default.
    pub fn topic(&self, _image: &Image, _topic: &str) -> TopicSettings {
        TopicSettings { log: LogConfig::default(), min_insync_replicas: 1 }
    }
}
