//! Logs that could not be opened because their disk was full: recovery cuts and rebuilds files. They are opened once
//! there is space again; until then their partitions answer KAFKA_STORAGE_ERROR.

use super::Publisher;
use super::opening::Job;
use crate::broker::metadata::MetadataNode;
use crate::log::RecoveryError;
use crate::machines::metadata::Image;
use crate::machines::metadata::image::TopicImage;
use ottla_protocol::TopicId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Before logs are opened again; doubled each time that not all of them could be,
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// up to this: opening reads a log's newest segments.
const PAUSE_MAX: Duration = Duration::from_secs(16);

/// The logs that wait for space.
#[derive(Debug, Default)]
pub(super) struct Unopened {
    partitions: Mutex<BTreeSet<(TopicId, i32)>>,
    added: Notify,
}

impl Publisher {
    /// Says why a log could not be opened, and remembers it if space is what it wants.
    pub(super) fn note_unopened(&self, topic: &TopicImage, index: i32, error: &RecoveryError) {
        tracing::error!(topic = %topic.name, index, %error, "cannot open partition");
        if error.is_storage_full() {
            self.unopened.partitions.lock().insert((topic.id, index));
            self.unopened.added.notify_one();
        }
    }

    /// Opens what could not be opened for want of space and is in the metadata still. Whether nothing is left to open.
    pub fn reopen(&self, image: &Image) -> bool {
        let unopened = std::mem::take(&mut *self.unopened.partitions.lock());
        let jobs: Vec<Job> = unopened
            .into_iter()
            .filter_map(|(id, index)| {
                let topic = image.topics.get_by_id(&id)?;
                let registration = topic.partition(index)?;
                let is_here = registration.replicas.contains(&self.node_id);
                let is_open = self.partition(&topic.name, index).is_some();
                (is_here && !is_open).then(|| (Arc::clone(topic), index, Arc::clone(registration)))
            })
            .collect();
        self.open_all(image, &jobs);
        self.replication.fetchers.wake();
        self.unopened.partitions.lock().is_empty()
    }

    /// Opens logs that found no space when there is space again, until `stop` says so.
    pub async fn reopen_in_time(
        self: Arc<Self>,
        metadata: Arc<MetadataNode>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut pause = PAUSE_MIN;
        loop {
            let due = async {
                if self.unopened.partitions.lock().is_empty() {
                    self.unopened.added.notified().await;
                    pause = PAUSE_MIN;
                }
                tokio::time::sleep(pause).await;
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(|stopping| *stopping) => return,
                () = due => {}
            }
            if self.directories.online().any(|log_dir| log_dir.health.is_full()) {
                continue;
            }
            let (publisher, metadata) = (Arc::clone(&self), Arc::clone(&metadata));
            let reopened = crate::env::blocking(move || {
                metadata.with_published(|image| publisher.reopen(image))
            });
            match reopened.await {
                Ok(true) => pause = PAUSE_MIN,
                Ok(false) => pause = (pause * 2).min(PAUSE_MAX),
                Err(error) => {
                    tracing::error!(%error, "logs that found no space are not opened again");
                    return;
                }
            }
        }
    }
}
