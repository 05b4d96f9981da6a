//! What a leader answered, partition by partition: records to append, logs to cut, errors.

use super::Key;
use super::lane::{Cut, Lane};
use super::session::Asked;
use crate::broker::partition::{Fetched, FollowerError, LogPosition, Partition, Truncation};
use crate::log::{AppendError, FlushOwed};
use ottla_protocol::messages::fetch_response::PartitionData;
use ottla_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla_protocol::messages::{FetchResponse, ListOffsetsRequest};
use ottla_protocol::{ErrorCode, LeaderEpoch, Offset};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The version in which a follower looks offsets up.
const LIST_OFFSETS_VERSION: i16 = 7;
/// ListOffsets: the end.
const LATEST: i64 = -1;
/// ListOffsets: the start.
const EARLIEST: i64 = -2;

type Following = (Arc<Partition>, Asked);

/// What an answer leaves to do.
#[derive(Default)]
struct Left {
    cuts: Vec<Cut>,
    /// Logs that are empty and start within the first batch that came.
    restarts: Vec<(Arc<Partition>, Offset, Fetched)>,
    out_of_range: Vec<(Key, Following)>,
    /// Ends that a sync comes before.
    unsynced: Vec<(Arc<Partition>, Offset)>,
}

impl Lane<'_> {
    pub(super) async fn take_response(&mut self, response: FetchResponse) {
        let mut left = Left::default();
        for topic in response.responses {
            for data in topic.partitions {
                self.take_partition((topic.topic_id, data.partition_index), data, &mut left);
            }
        }
        let Left { mut cuts, restarts, out_of_range, mut unsynced } = left;
        cuts.extend(self.find_ends(out_of_range).await);
        cuts.extend(restarts.iter().map(|(partition, first, fetched)| Cut {
            partition: Arc::clone(partition),
            leader_epoch: fetched.leader_epoch,
            position: fetched.position,
            truncation: Truncation::StartAt(*first),
        }));
        self.truncate(cuts).await;
        for (partition, first, fetched) in restarts {
            let position = LogPosition { end: first, last_epoch: LeaderEpoch::UNKNOWN };
            match partition.take_fetched(Fetched { position, ..fetched }) {
                Ok((end, FlushOwed::BeforeAnswer | FlushOwed::BeforeCommit)) => {
                    unsynced.push((partition, end));
                }
                Ok((_, FlushOwed::Nothing)) => {}
                Err(error) => tracing::warn!(?partition, %error, "nothing appended"),
            }
        }
        for (partition, end) in unsynced {
            // The next fetch says that everything below its offset is in this replica: it has to last.
            if let Err(error) = partition.settled(end).await {
                tracing::debug!(?partition, %error, "not synced");
            }
        }
    }

    fn take_partition(&mut self, key: Key, data: PartitionData, left: &mut Left) {
        let Some((asked, partition)) = self.asked_for(&key) else {
            // It was removed, or follows in another epoch: the session is to forget it.
            self.fetcher.state.lock().dirty.insert(key);
            return;
        };
        match ErrorCode::from_code(data.error_code) {
            ErrorCode::None => self.take_data(key, (asked, partition), data, left),
            ErrorCode::OffsetOutOfRange => {
                left.out_of_range.push((key, (partition, asked)));
            }
            ErrorCode::FencedLeaderEpoch => {
                tracing::info!(?partition, epoch = %asked.leader_epoch, "the leader has a newer epoch");
                self.fetcher.give_up(&key, asked.leader_epoch);
            }
            error => {
                // Most say that the leader has not heard yet of what this broker has, or the other way round.
                tracing::debug!(?partition, %error, "fetch is tried again");
                self.fetcher.delay(&key, asked.leader_epoch);
            }
        }
    }

    /// What was asked of a partition, if that is of use still.
    fn asked_for(&self, key: &Key) -> Option<(Asked, Arc<Partition>)> {
        let asked = *self.session.asked.get(key)?;
        let state = self.fetcher.state.lock();
        let copied = state.partitions.get(key)?;
        (copied.leader_epoch == asked.leader_epoch && copied.not_before.is_none())
            .then(|| (asked, Arc::clone(&copied.partition)))
    }

    fn take_data(
        &mut self,
        key: Key,
        (asked, partition): (Asked, Arc<Partition>),
        data: PartitionData,
        left: &mut Left,
    ) {
        let leader_epoch = asked.leader_epoch;
        if data.diverging_epoch.end_offset >= 0 {
            let epoch = LeaderEpoch(data.diverging_epoch.epoch);
            let end_offset = Offset(data.diverging_epoch.end_offset);
            let truncation = Truncation::Diverging { epoch, end_offset };
            let position = asked.position;
            left.cuts.push(Cut { partition, leader_epoch, position, truncation });
            self.ask_again(key);
            return;
        }
        let fetched = Fetched {
            leader_epoch,
            position: asked.position,
            records: data.records.unwrap_or_default(),
            high_watermark: Offset(data.high_watermark),
            log_start_offset: Offset(data.log_start_offset),
        };
        let bytes = fetched.records.len();
        let has_news =
            !fetched.records.is_empty() || fetched.log_start_offset > asked.log_start_offset;
        match partition.take_fetched(fetched.clone()) {
            Ok((end, flush)) => {
                let pause = partition.note_taken(bytes, end, fetched.high_watermark);
                if flush != FlushOwed::Nothing {
                    left.unsynced.push((partition, end));
                }
                if has_news {
                    self.ask_again(key);
                }
                if let Some(pause) = pause {
                    self.fetcher.hold_up(&key, leader_epoch, pause);
                }
            }
            Err(FollowerError::Stale) => self.ask_again(key),
            Err(FollowerError::StartsWithin(first)) => {
                left.restarts.push((partition, first, fetched));
                self.ask_again(key);
            }
            Err(FollowerError::Append(AppendError::Storage(_) | AppendError::Offline)) => {
                // The directory's failure has been logged; a full one is tried again.
                self.fetcher.delay(&key, leader_epoch);
            }
            Err(error) => {
                tracing::error!(?partition, %error, "what the leader sent cannot be appended");
                self.fetcher.delay(&key, leader_epoch);
            }
        }
    }

    /// The session's part for this partition is no longer right.
    fn ask_again(&self, key: Key) {
        let mut state = self.fetcher.state.lock();
        state.dirty.insert(key);
        if let Some(copied) = state.partitions.get_mut(&key) {
            copied.failures = 0;
        }
    }

    /// Asks the leader where the logs start and end that the fetch was out of.
    async fn find_ends(&self, out_of_range: Vec<(Key, Following)>) -> Vec<Cut> {
        if out_of_range.is_empty() {
            return Vec::new();
        }
        let ends = self.list_offsets(&out_of_range, LATEST).await;
        let starts = self.list_offsets(&out_of_range, EARLIEST).await;
        let mut cuts = Vec::new();
        for (key, (partition, asked)) in out_of_range {
            let name = (partition.topic().to_string(), partition.index());
            let found = ends.get(&name).zip(starts.get(&name));
            let Asked { leader_epoch, position, .. } = asked;
            let truncation = match found {
                Some((end, _)) if *end < position.end => Truncation::To(*end),
                Some((_, start)) if *start > position.end => Truncation::StartAt(*start),
                _ => {
                    self.fetcher.delay(&key, leader_epoch);
                    continue;
                }
            };
            tracing::warn!(?partition, ?truncation, "the log is out of the leader's range");
            cuts.push(Cut { partition, leader_epoch, position, truncation });
            self.ask_again(key);
        }
        cuts
    }

    async fn list_offsets(
        &self,
        partitions: &[(Key, Following)],
        timestamp: i64,
    ) -> BTreeMap<(String, i32), Offset> {
        let mut topics: BTreeMap<String, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for (_, (partition, Asked { leader_epoch, .. })) in partitions {
            let asked = ListOffsetsPartition {
                partition_index: partition.index(),
                current_leader_epoch: leader_epoch.0,
                timestamp,
            };
            topics.entry(partition.topic().to_string()).or_default().push(asked);
        }
        let topics = topics
            .into_iter()
            .map(|(name, partitions)| ListOffsetsTopic { name, partitions })
            .collect();
        let replica_id = self.fetcher.settings.node_id.0;
        let request = ListOffsetsRequest { replica_id, topics, ..Default::default() };
        let answered = self.endpoint.list_offsets(LIST_OFFSETS_VERSION, request);
        let limit = self.fetcher.settings.request_timeout;
        let response = match tokio::time::timeout(limit, answered).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                tracing::debug!(leader = %self.fetcher.leader, %error, "offsets not known");
                return BTreeMap::new();
            }
            Err(_) => return BTreeMap::new(),
        };
        let mut found = BTreeMap::new();
        for topic in response.topics {
            for one in topic.partitions.iter().filter(|one| one.error_code == 0) {
                found.insert((topic.name.clone(), one.partition_index), Offset(one.offset));
            }
        }
        found
    }
}
