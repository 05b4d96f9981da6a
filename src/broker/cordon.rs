//! Tells the controller which log directories get no new partitions (KIP-1066).
//!
//! The controller learns it by heartbeat, as in Kafka: at the start, and when the configuration or the metadata version
//! has changed. The broker's registration in the Image is then what everybody goes by.

use super::{Broker, ControllerRequest, Image};
use crate::config::cordon::{CORDONED_LOG_DIRS, cordoned};
use crate::machines::metadata::effective::BrokerSources;
use crate::machines::metadata::features;
use ottla_protocol::messages::BrokerHeartbeatRequest;
use uuid::Uuid;

impl Broker {
    /// Tells the controller of the cordoned directories, where it does not know them as they are.
    pub(super) async fn report_cordoned_dirs(&self) {
        let image = self.image();
        let Some(wanted) = self.cordoned_dirs(&image) else { return };
        let registration = image.cluster.brokers.get(&self.node_id());
        let known = registration.and_then(|broker| broker.cordoned_log_dirs.as_deref());
        if known.unwrap_or_default() == wanted {
            return;
        }
        let request = ControllerRequest::BrokerHeartbeat(BrokerHeartbeatRequest {
            broker_id: self.node_id().0,
            broker_epoch: self.broker_epoch().0,
            current_metadata_offset: image.offset.0,
            cordoned_log_dirs: Some(wanted),
            ..Default::default()
        });
        if let Err(error) = self.link.call(request).await {
            tracing::warn!(%error, "the controller does not know the cordoned log directories");
        }
    }

    /// The ids of the cordoned directories; `None` while the cluster's metadata version has no place for them.
    fn cordoned_dirs(&self, image: &Image) -> Option<Vec<Uuid>> {
        if !features::can_cordon(image.features.metadata_version()) {
            return None;
        }
        let sources = BrokerSources::new(image, self.node_id(), &self.settings.controller.values);
        let value = sources.broker_key(CORDONED_LOG_DIRS).value.unwrap_or_default();
        let places = cordoned(&value, &self.settings.log_dirs).unwrap_or_else(|error| {
            tracing::warn!("{CORDONED_LOG_DIRS}={value}: {error}");
            Vec::new()
        });
        let dirs = self.directories.all.iter().enumerate();
        Some(dirs.filter(|(at, _)| places.contains(at)).map(|(_, dir)| dir.id).collect())
    }
}
