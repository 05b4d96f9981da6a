//! Where the controller machine works: over the metadata quorum's log, publishing the Image that it has made.
//!
//! Publication happens before the replies that rest on it leave, so a client that was told of its new topic finds
//! leaders and logs in place.

use super::host::{HostError, Stage};
use super::publisher::Publisher;
use super::quorum::Quorum;
use crate::machines::RequestId;
use crate::machines::metadata::{Controller, ControllerEffect, ControllerReply, Image};
use arc_swap::ArcSwap;
use ottla_protocol::{MetadataRecord, Offset, Timestamp};
use std::sync::Arc;
use tokio::sync::Notify;

/// The controller's surroundings.
pub struct MetadataStage {
    quorum: Arc<Quorum>,
    publisher: Arc<Publisher>,
    image: Arc<ArcSwap<Image>>,
    published: Notify,
}

impl MetadataStage {
    /// A stage over an open quorum.
    pub fn new(
        quorum: Arc<Quorum>,
        publisher: Arc<Publisher>,
        image: Arc<ArcSwap<Image>>,
    ) -> MetadataStage {
        MetadataStage { quorum, publisher, image, published: Notify::new() }
    }
}

impl Stage for MetadataStage {
    type Machine = Controller;
    type Reply = ControllerReply;

    fn append(&self, now: Timestamp, records: &[MetadataRecord]) -> Result<Offset, HostError> {
        self.quorum.append(now, records)
    }

    fn committed(&self) -> Offset {
        self.quorum.committed()
    }

    async fn commit_moved(&self) {
        // With one voter a record is committed when `append` returns, and the host looks then.
        self.published.notified().await;
    }

    fn publish(&self, machine: &mut Controller) {
        let new = Arc::new(machine.image().clone());
        let old = self.image.load_full();
        self.publisher.publish(&old, &new);
        self.quorum.set_metadata_version(new.features.metadata_version());
        self.image.store(Arc::clone(&new));
        if let Err(error) = self.quorum.snapshot_if_due(&new) {
            tracing::error!(%error, "snapshot of the cluster metadata not written");
        }
    }

    fn perform(&self, effect: ControllerEffect) -> Option<(RequestId, ControllerReply)> {
        let ControllerEffect::Reply(id, reply) = effect;
        Some((id, reply))
    }
}
