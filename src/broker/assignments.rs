//! Tells the controller in which log directories this broker's replicas lie, where the metadata say otherwise.
//!
//! A broker with several directories chooses for itself where a new replica goes, a replica moves from one to another,
//! and a directory may have another id after its disk was replaced. As long as the controller does not know, it cannot
//! tell which partitions a failed directory takes with it. Partitions are put in whenever one of that happens; one
//! request is under way at a time and has all that came meanwhile. What counts is where the log lies and what the Image
//! says when it is sent, so that nothing need be taken back.
//!
//! Source: KIP-858, Kafka's `AssignmentsManager`.

use super::controller_calls::ControllerCalls;
use super::directories::Directories;
use super::partition::Partition;
use super::{ControllerReply, ControllerRequest, Image};
use crate::machines::metadata::features::can_assign_directories;
use arc_swap::ArcSwap;
use ottla_protocol::messages::assign_replicas_to_dirs_request::{
    DirectoryData, PartitionData, TopicData,
};
use ottla_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};
use ottla_protocol::{BrokerEpoch, BrokerId, ErrorCode, TopicId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// Pause before a request is tried again, doubled each time; Kafka's are the same.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The longest of them.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Pause until the Image may have what this broker was told to open a moment ago.
const IMAGE_PAUSE: Duration = Duration::from_millis(5);
/// Replicas in one request, as in Kafka.
const REPLICAS_MAX: usize = 2250;

type Key = (TopicId, i32);

/// Where to ask, and for whom.
pub(crate) struct AssignmentParams {
    pub(crate) broker: BrokerId,
    pub(crate) controller: Arc<dyn ControllerCalls>,
    pub(crate) directories: Arc<Directories>,
    pub(crate) image: Arc<ArcSwap<Image>>,
}

/// The replicas of which the controller may not know where they lie.
#[derive(Debug, Default)]
pub(crate) struct Assignments {
    waiting: Mutex<BTreeMap<Key, Arc<Partition>>>,
    added: Notify,
}

/// What the metadata say of a replica's log directory.
enum Known {
    /// What is so; or nobody need know.
    Rightly,
    /// Nothing yet: the Image is not as new as the partition.
    NotYet,
    /// Another one than this, in which it lies.
    Otherwise(Uuid),
}

/// A replica, and the directory in which it lies.
pub(super) struct Assignment {
    pub(super) partition: Arc<Partition>,
    pub(super) directory: Uuid,
}

impl Assignments {
    /// Takes a partition whose log has come into its directory just now.
    pub(crate) fn submit(&self, partition: Arc<Partition>) {
        let key = (partition.topic_id(), partition.index());
        self.waiting.lock().insert(key, partition);
        self.added.notify_one();
    }

    /// Tells until `stop` says so; one task of the broker runs this.
    pub(crate) async fn run(
        self: Arc<Self>,
        params: AssignmentParams,
        mut stop: watch::Receiver<bool>,
    ) {
        let telling = async {
            let mut pause = RETRY_PAUSE;
            loop {
                let batch = self.next_batch(&params).await;
                if self.take_answer(&batch, tell(&params, &batch).await) {
                    pause = RETRY_PAUSE;
                } else {
                    self.retry(batch);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stopping| *stopping) => {}
            () = telling => {}
        }
    }

    /// The replicas of which the controller is to be told, with their directories, once there are any.
    async fn next_batch(&self, params: &AssignmentParams) -> Vec<Assignment> {
        loop {
            let added = self.added.notified();
            let (batch, is_early) = self.look(params);
            if !batch.is_empty() {
                return batch;
            }
            if is_early {
                tokio::time::sleep(IMAGE_PAUSE).await;
            } else {
                added.await;
            }
        }
    }

    /// What is to be told now, and whether more may come once the Image is newer.
    fn look(&self, params: &AssignmentParams) -> (Vec<Assignment>, bool) {
        let image = params.image.load();
        let mut batch = Vec::new();
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, partition| {
            if batch.len() >= REPLICAS_MAX {
                return true;
            }
            match known(params, &image, partition) {
                Known::Rightly => false,
                Known::NotYet => true,
                Known::Otherwise(directory) => {
                    batch.push(Assignment { partition: Arc::clone(partition), directory });
                    false
                }
            }
        });
        (batch, !waiting.is_empty())
    }

    /// Whether the controller took everything that can be taken.
    fn take_answer(
        &self,
        batch: &[Assignment],
        answered: Result<AssignReplicasToDirsResponse, ErrorCode>,
    ) -> bool {
        let error = match &answered {
            Ok(response) => ErrorCode::from_code(response.error_code),
            Err(error) => *error,
        };
        let (replicas, first) = (batch.len(), batch.first().map(|it| &it.partition));
        if error.is_err() {
            tracing::warn!(%error, replicas, ?first, "the controller is told again where replicas lie");
            return false;
        }
        let topics = answered.iter().flat_map(|it| &it.directories).flat_map(|it| &it.topics);
        let refused = topics
            .flat_map(|topic| &topic.partitions)
            .map(|partition| ErrorCode::from_code(partition.error_code))
            .find(|error| error.is_err() && !is_over(*error));
        match refused {
            Some(error) => {
                tracing::warn!(%error, replicas, ?first, "the controller did not take the directory of a replica");
                false
            }
            None => true,
        }
    }

    fn retry(&self, batch: Vec<Assignment>) {
        let mut waiting = self.waiting.lock();
        for it in batch {
            let key = (it.partition.topic_id(), it.partition.index());
            waiting.entry(key).or_insert(it.partition);
        }
        self.added.notify_one();
    }
}

/// The topic or the replica is gone by now: the Image will say so.
fn is_over(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::UnknownTopicId
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::NotLeaderOrFollower
    )
}

fn known(params: &AssignmentParams, image: &Image, partition: &Partition) -> Known {
    if partition.is_gone() || partition.future_replica().is_some() {
        // A move has spoken for the directory that it goes to, and puts the partition in again when it ends.
        return Known::Rightly;
    }
    let all = &params.directories.all;
    let Some(present) = all.iter().find(|log_dir| partition.is_in(&log_dir.path)) else {
        return Known::Rightly;
    };
    let topic = image.topics.get_by_id(&partition.topic_id());
    let Some(registration) = topic.and_then(|topic| topic.partition(partition.index())) else {
        return Known::NotYet;
    };
    let is_needless = !can_assign_directories(image.features.metadata_version())
        || !registration.replicas.contains(&params.broker)
        || registration.directory_of(params.broker) == present.id;
    if is_needless { Known::Rightly } else { Known::Otherwise(present.id) }
}

async fn tell(
    params: &AssignmentParams,
    batch: &[Assignment],
) -> Result<AssignReplicasToDirsResponse, ErrorCode> {
    let own = params.image.load().cluster.brokers.get(&params.broker).map(|own| own.epoch);
    let own = own.ok_or(ErrorCode::BrokerIdNotRegistered)?;
    let request = request(params.broker, own, batch);
    match params.controller.call(ControllerRequest::AssignReplicasToDirs(request)).await? {
        ControllerReply::AssignReplicasToDirs(response) => Ok(response),
        _ => Err(ErrorCode::UnknownServerError),
    }
}

/// What a broker says to the controller of its replicas.
pub(super) fn request(
    broker: BrokerId,
    epoch: BrokerEpoch,
    batch: &[Assignment],
) -> AssignReplicasToDirsRequest {
    let mut directories: Vec<DirectoryData> = Vec::new();
    let mut sorted: Vec<&Assignment> = batch.iter().collect();
    sorted.sort_by_key(|it| (it.directory, it.partition.topic_id(), it.partition.index()));
    for Assignment { partition, directory } in sorted {
        let topic_id = partition.topic_id();
        let data = PartitionData { partition_index: partition.index() };
        if directories.last().is_none_or(|last| last.id != *directory) {
            directories.push(DirectoryData { id: *directory, topics: Vec::new() });
        }
        let Some(last) = directories.last_mut() else { continue };
        match last.topics.last_mut().filter(|topic| topic.topic_id == topic_id) {
            Some(topic) => topic.partitions.push(data),
            None => last.topics.push(TopicData { topic_id, partitions: vec![data] }),
        }
    }
    AssignReplicasToDirsRequest { broker_id: broker.0, broker_epoch: epoch.0, directories }
}

#[cfg(test)]
mod tests;
