//! Asks the controller for the ISRs that this broker's leaders want (AlterPartition, KIP-497).
//!
//! Leaders put their changes in, at most one for each partition; one request is under way at a time and has all that
//! came meanwhile. What fails for reasons that pass is tried again, as long as the leader still wants it. What the
//! controller refuses because the leader's picture is old waits for the Image, which replaces the leader's state.
//!
//! Source: Kafka's `DefaultAlterPartitionManager`; KIP-841, KIP-903.

use super::controller_calls::ControllerCalls;
use super::partition::Partition;
use super::{ControllerReply, ControllerRequest, Image};
use crate::machines::replica::{IsrAnswer, IsrChange};
use arc_swap::ArcSwap;
use ottla_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use ottla_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};
use ottla_protocol::{BrokerId, ErrorCode, LeaderEpoch, TopicId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Pause before a request is tried again; Kafka has the same.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Changes in one request, so that it stays below any limit on frames.
const CHANGES_MAX: usize = 10_000;

type Key = (TopicId, i32);

#[derive(Debug, Clone)]
struct Wanted {
    partition: Arc<Partition>,
    change: IsrChange,
}

/// The changes that leaders want.
#[derive(Debug, Default)]
pub(crate) struct IsrChanges {
    waiting: Mutex<BTreeMap<Key, Wanted>>,
    added: Notify,
}

impl IsrChanges {
    /// Takes a leader's change; it replaces an older one of the same partition.
    pub(crate) fn submit(&self, partition: Arc<Partition>, change: IsrChange) {
        let key = (partition.topic_id(), partition.index());
        self.waiting.lock().insert(key, Wanted { partition, change });
        self.added.notify_one();
    }

    /// Asks until `stop` says so; one task of the broker runs this.
    pub(crate) async fn run(
        self: Arc<Self>,
        controller: Arc<dyn ControllerCalls>,
        (broker, image): (BrokerId, Arc<ArcSwap<Image>>),
        mut stop: watch::Receiver<bool>,
    ) {
        let asking = async {
            loop {
                let batch = self.next_batch().await;
                let answered = ask(&*controller, broker, &image.load(), &batch).await;
                if self.take_answer(batch, answered) == Next::Retry {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stopping| *stopping) => {}
            () = asking => {}
        }
    }

    /// The changes that are still wanted, once there are any.
    async fn next_batch(&self) -> BTreeMap<Key, Wanted> {
        loop {
            let added = self.added.notified();
            let mut batch: BTreeMap<Key, Wanted> = {
                let mut waiting = self.waiting.lock();
                match waiting.keys().nth(CHANGES_MAX).copied() {
                    Some(first_left) => {
                        let left = waiting.split_off(&first_left);
                        std::mem::replace(&mut *waiting, left)
                    }
                    None => std::mem::take(&mut *waiting),
                }
            };
            let is_last = batch.len() < CHANGES_MAX;
            // Not under the lock of those that wait: leaders come to it with their own.
            batch.retain(|_, wanted| wanted.partition.wants_isr(&wanted.change));
            if !batch.is_empty() {
                return batch;
            }
            if is_last {
                added.await;
            }
        }
    }

    /// Tells each leader what the controller said of its change.
    fn take_answer(
        &self,
        mut batch: BTreeMap<Key, Wanted>,
        answered: Result<AlterPartitionResponse, ErrorCode>,
    ) -> Next {
        let response = match answered {
            Ok(response) if response.error_code == 0 => response,
            Ok(response) => {
                let error = ErrorCode::from_code(response.error_code);
                // STALE_BROKER_EPOCH: this broker has started anew, or the controller has not seen it yet.
                tracing::warn!(%error, "ISR changes are tried again");
                return self.retry(batch);
            }
            Err(error) => {
                tracing::debug!(%error, "ISR changes are tried again");
                return self.retry(batch);
            }
        };
        for topic in response.topics {
            for one in topic.partitions {
                let Some(wanted) = batch.remove(&(topic.topic_id, one.partition_index)) else {
                    continue;
                };
                let answer = match ErrorCode::from_code(one.error_code) {
                    ErrorCode::None => IsrAnswer::Committed {
                        leader_epoch: LeaderEpoch(one.leader_epoch),
                        partition_epoch: one.partition_epoch,
                        isr: one.isr.into_iter().map(BrokerId).collect(),
                    },
                    ErrorCode::OperationNotAttempted | ErrorCode::IneligibleReplica => {
                        IsrAnswer::Rejected
                    }
                    error if waits_for_image(error) => {
                        tracing::debug!(partition = ?wanted.partition, %error, "ISR not changed");
                        continue;
                    }
                    error => {
                        tracing::warn!(partition = ?wanted.partition, %error, "ISR not changed yet");
                        batch.insert((topic.topic_id, one.partition_index), wanted);
                        continue;
                    }
                };
                wanted.partition.isr_answered(wanted.change, answer);
            }
        }
        if batch.is_empty() { Next::Go } else { self.retry(batch) }
    }

    /// Puts changes back, but not over newer ones.
    fn retry(&self, batch: BTreeMap<Key, Wanted>) -> Next {
        let mut waiting = self.waiting.lock();
        for (key, wanted) in batch {
            waiting.entry(key).or_insert(wanted);
        }
        self.added.notify_one();
        Next::Retry
    }

    /// The changes that wait, for a controller that a test plays.
    #[cfg(test)]
    pub(crate) fn take(&self) -> Vec<(Arc<Partition>, IsrChange)> {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_values().map(|wanted| (wanted.partition, wanted.change)).collect()
    }
}

/// What to do after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Go,
    Retry,
}

/// The leader's picture is old, or it leads no more: the Image will tell it.
fn waits_for_image(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::InvalidUpdateVersion
            | ErrorCode::InvalidRequest
            | ErrorCode::NewLeaderElected
    )
}

async fn ask(
    controller: &dyn ControllerCalls,
    broker: BrokerId,
    image: &Image,
    batch: &BTreeMap<Key, Wanted>,
) -> Result<AlterPartitionResponse, ErrorCode> {
    let own = image.cluster.brokers.get(&broker).ok_or(ErrorCode::BrokerIdNotRegistered)?;
    let mut topics: Vec<TopicData> = Vec::new();
    for ((topic_id, index), wanted) in batch {
        let data = partition_data(*index, &wanted.change, (broker, own.epoch.0));
        match topics.last_mut().filter(|topic| topic.topic_id == *topic_id) {
            Some(topic) => topic.partitions.push(data),
            None => topics.push(TopicData { topic_id: *topic_id, partitions: vec![data] }),
        }
    }
    let request = AlterPartitionRequest { broker_id: broker.0, broker_epoch: own.epoch.0, topics };
    match controller.call(ControllerRequest::AlterPartition(request)).await? {
        ControllerReply::AlterPartition(response) => Ok(response),
        _ => Err(ErrorCode::UnknownServerError),
    }
}

fn partition_data(index: i32, change: &IsrChange, own: (BrokerId, i64)) -> PartitionData {
    let members = change.isr.iter().map(|member| BrokerState {
        broker_id: member.id.0,
        broker_epoch: if member.id == own.0 { own.1 } else { member.broker_epoch.0 },
    });
    PartitionData {
        partition_index: index,
        leader_epoch: change.leader_epoch.0,
        new_isr_with_epochs: members.collect(),
        // A leader that was elected uncleanly has nothing to recover: it is whole as it is (KIP-704).
        leader_recovery_state: 0,
        partition_epoch: change.partition_epoch,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
