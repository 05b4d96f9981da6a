//! The fetcher's end of a fetch session (KIP-227): what the leader knows of the request already.

use super::{FetchSettings, Key};
use crate::broker::partition::{FetchState, LogPosition};
use ottla_protocol::messages::FetchRequest;
use ottla_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use ottla_protocol::{BrokerEpoch, LeaderEpoch, Offset, TopicId};
use std::collections::BTreeMap;

/// The version that followers fetch with: topic ids, broker epoch, the follower's high watermark.
pub(super) const FETCH_VERSION: i16 = 18;

/// No session.
const NO_SESSION: i32 = 0;
/// Session epoch of a request that wants a new session.
const INITIAL_EPOCH: i32 = 0;
/// Session epoch of a request that wants none.
const FINAL_EPOCH: i32 = -1;

/// A partition of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) position: LogPosition,
    pub(super) log_start_offset: Offset,
}

/// Whether a lane keeps a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionUse {
    /// The leader remembers what was asked for.
    Incremental,
    /// Every request is complete.
    None,
}

/// What the leader knows.
#[derive(Debug)]
pub(super) struct FetchSession {
    kind: SessionUse,
    id: i32,
    epoch: i32,
    /// By partition, what was asked for last.
    pub(super) asked: BTreeMap<Key, Asked>,
}

impl FetchSession {
    pub(super) fn new(kind: SessionUse) -> Self {
        FetchSession { kind, id: NO_SESSION, epoch: INITIAL_EPOCH, asked: BTreeMap::new() }
    }

    /// Whether the next request must hold every partition.
    pub(super) fn is_full(&self) -> bool {
        self.kind == SessionUse::None || self.epoch == INITIAL_EPOCH
    }

    /// The leader knows nothing any more.
    pub(super) fn reset(&mut self) {
        (self.id, self.epoch) = (NO_SESSION, INITIAL_EPOCH);
        self.asked.clear();
    }

    /// The leader has answered a request within the session.
    pub(super) fn answered(&mut self, session_id: i32) {
        if session_id == NO_SESSION {
            // It has no room for another one.
            (self.id, self.epoch) = (NO_SESSION, INITIAL_EPOCH);
            return;
        }
        self.id = session_id;
        self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
    }

    /// A request for `changed`, which no longer asks for `forgotten`.
    pub(super) fn request(
        &mut self,
        settings: &FetchSettings,
        broker_epoch: BrokerEpoch,
        changed: &[(Key, LeaderEpoch, FetchState)],
        forgotten: &[Key],
    ) -> FetchRequest {
        if self.is_full() {
            self.asked.clear();
        }
        let mut topics: BTreeMap<TopicId, Vec<FetchPartition>> = BTreeMap::new();
        for (key, leader_epoch, state) in changed {
            let asked = Asked {
                leader_epoch: *leader_epoch,
                position: state.position,
                log_start_offset: state.log_start_offset,
            };
            self.asked.insert(*key, asked);
            topics.entry(key.0).or_default().push(FetchPartition {
                partition: key.1,
                current_leader_epoch: leader_epoch.0,
                fetch_offset: state.position.end.0,
                last_fetched_epoch: state.position.last_epoch.0,
                log_start_offset: state.log_start_offset.0,
                partition_max_bytes: settings.partition_max_bytes,
                high_watermark: state.high_watermark.0,
                ..Default::default()
            });
        }
        let mut gone: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for key in forgotten {
            // Only what the session has can be taken out of it.
            if self.asked.remove(key).is_some() && !self.is_full() {
                gone.entry(key.0).or_default().push(key.1);
            }
        }
        let node_id = settings.node_id.0;
        let session_epoch = if self.kind == SessionUse::None { FINAL_EPOCH } else { self.epoch };
        FetchRequest {
            replica_state: ReplicaState { replica_id: node_id, replica_epoch: broker_epoch.0 },
            max_wait_ms: settings.wait_max_ms,
            min_bytes: settings.min_bytes,
            max_bytes: settings.response_max_bytes,
            session_id: self.id,
            session_epoch,
            topics: topics
                .into_iter()
                .map(|(topic_id, partitions)| FetchTopic {
                    topic_id,
                    partitions,
                    ..Default::default()
                })
                .collect(),
            forgotten_topics_data: gone
                .into_iter()
                .map(|(topic_id, partitions)| ForgottenTopic {
                    topic_id,
                    partitions,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }
}
