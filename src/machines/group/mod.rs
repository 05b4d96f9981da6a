//! The group coordinator of one partition of `__consumer_offsets`: the classic group protocol and
//! committed offsets, as Kafka 4's GroupCoordinatorShard.
//!
//! **Hard state** is what the partition's records say: each group's last generation, the committed
//! offsets. **Soft state** is what a new coordinator learns again from the members: who waits to
//! join, whose session runs, in which phase a rebalance is. A parked JoinGroup or SyncGroup is a
//! [`RequestId`] in its member.
//!
//! Before the first operation, records build the live groups. From then on the machine's own
//! records only follow what the live groups already are; they and the answers leave together, and a
//! failed write drops the machine, so nobody sees a live group that the log does not back.
//!
//! | File | What |
//! | --- | --- |
//! | `api.rs` | requests, responses, settings, [`partition_for`] |
//! | `classic.rs` | a classic group and its members |
//! | `join.rs` | JoinGroup |
//! | `rebalance.rs` | the join phase and time-outs |
//! | `member.rs` | SyncGroup, Heartbeat, LeaveGroup |
//! | `offsets.rs` | committed offsets and their expiry |
//! | `store.rs` | all groups and offsets; requests about them |
//! | `timers.rs` | time-outs |
//!
//! **Room for later.** The other group types become files beside `classic.rs`, each with one type
//! that holds a group and is built by replay alone: `consumer.rs` (`ConsumerGroup`, KIP-848;
//! `assignor.rs` has `trait Assignor`, `Range` and `Uniform`), `share.rs` (`ShareGroup`, KIP-932)
//! and `streams.rs` (`StreamsGroup`, KIP-1071). `Store::groups` then holds `enum Group {
//! Classic(..), Consumer(..), Share(..), Streams(..) }`, and the records that are only noted today
//! (`Store::foreign`) go to them. Offsets committed in a transaction become `pending:
//! BTreeMap<ProducerId, CommittedOffsets>` in `store.rs`, which a commit marker merges by record
//! offset; until then they are not seen.
//!
//! Source: KIP-62, 134, 211, 345, 389, 394, 559, 800, 814; Kafka documentation, "Consumer configs".

mod api;
mod classic;
mod join;
mod member;
mod offsets;
mod rebalance;
mod store;
#[cfg(test)]
mod tests;
mod timers;

use ottla_protocol::coordinator::{
    LegacyOffsetCommitKey, LegacyOffsetCommitValue, OffsetCommitKey, OffsetCommitValue,
};
use ottla_protocol::messages::{HeartbeatResponse, JoinGroupRequest};
use ottla_protocol::{ErrorCode, Timestamp};

pub use api::{GroupConfig, GroupEffect, GroupRequest, GroupResponse, Join, partition_for};
pub use ottla_protocol::records::group::GroupRecord;

use super::{Entry, Machine, Output, RequestId};
use classic::ClassicGroup;
use rebalance::Turn;
use store::Store;
use timers::{Timer, Timers};

/// A group coordinator. One task at a time calls it, through the host.
#[derive(Debug)]
pub struct GroupMachine {
    config: GroupConfig,
    store: Store,
    timers: Timers,
    /// False until the first operation: replayed records are the log's, not the machine's own.
    is_active: bool,
    /// Where the look for expired offsets goes on, if it has not come to the end.
    expiry_from: String,
    wall_ahead_ms: i64,
}

impl GroupMachine {
    /// A coordinator that has replayed nothing yet.
    pub fn new(config: GroupConfig) -> Self {
        GroupMachine {
            config,
            store: Store::default(),
            timers: Timers::default(),
            is_active: false,
            expiry_from: String::new(),
            wall_ahead_ms: 0,
        }
    }

    /// Changes the settings; what already runs keeps its times.
    pub fn set_config(&mut self, config: GroupConfig) {
        self.config = config;
    }

    /// How many groups there are, by their state's name.
    pub fn group_count(&self, state: &str) -> usize {
        self.store.groups.values().filter(|group| group.state.to_string() == state).count()
    }

    /// Runs one operation; before the first one the loaded members' sessions start.
    fn run(
        &mut self,
        now: Timestamp,
        operation: impl FnOnce(&mut Store, &mut Turn<'_>, &mut String),
    ) -> Output<Self> {
        let (records, effects) = (Vec::new(), Vec::new());
        let wall = now.plus_ms(self.wall_ahead_ms);
        let mut turn =
            Turn { now, wall, config: &self.config, timers: &mut self.timers, records, effects };
        if !self.is_active {
            self.is_active = true;
            activate(&mut self.store, &mut turn);
        }
        operation(&mut self.store, &mut turn, &mut self.expiry_from);
        Output { records: turn.records, effects: turn.effects }
    }
}

impl Machine for GroupMachine {
    type Request = GroupRequest;
    type Record = GroupRecord;
    type Effect = GroupEffect;

    fn set_wall_ahead(&mut self, ms: i64) {
        self.wall_ahead_ms = ms;
    }

    fn handle(&mut self, now: Timestamp, id: RequestId, request: GroupRequest) -> Output<Self> {
        self.run(now, |store, turn, _| {
            if let Some(response) = handle(store, turn, id, request) {
                turn.reply(id, response);
            }
        })
    }

    fn tick(&mut self, now: Timestamp) -> Output<Self> {
        self.run(now, |store, turn, expiry_from| {
            for (at, timer) in turn.timers.due(now) {
                // One that ended before may have stopped this one.
                if turn.timers.take(at, &timer) {
                    expire(store, turn, &timer, expiry_from);
                }
            }
        })
    }

    fn deadline(&self) -> Option<Timestamp> {
        // The first tick comes at once: the sessions of loaded members start with it.
        if self.is_active { self.timers.next() } else { Some(Timestamp(0)) }
    }

    fn replay(&mut self, entry: &Entry<GroupRecord>) {
        match &entry.record {
            GroupRecord::OffsetCommit { key, value } => {
                self.store.offsets.replay(key, value.as_ref(), entry.offset);
                if value.is_some() {
                    self.store.ensure_simple_group(&key.group, entry.timestamp);
                }
            }
            GroupRecord::LegacyOffsetCommit { key, value } => {
                self.replay(&Entry { record: modern(key, value.as_ref()), ..*entry });
            }
            GroupRecord::GroupMetadata { key, value } => {
                let removed = self.store.replay_group(key, value.as_ref(), self.is_active);
                if let Some(group) = removed {
                    self.timers.cancel(&Timer::Join { group: key.group.clone() });
                    self.timers.cancel(&group.sync_timer());
                    for member in group.members.keys().chain(&group.pending_join) {
                        self.timers.cancel(&group.session_timer(member));
                    }
                }
            }
            GroupRecord::ConsumerGroupMetadata { key, value } => {
                self.store.note_foreign(&key.group_id, value.is_some());
            }
            GroupRecord::ShareGroupMetadata { key, value } => {
                self.store.note_foreign(&key.group_id, value.is_some());
            }
            GroupRecord::StreamsGroupMetadata { key, value } => {
                self.store.note_foreign(&key.group_id, value.is_some());
            }
            // What else the other group types keep stays in the log.
            _ => {}
        }
    }
}

/// An offset as Kafka before 0.9 recorded it, as it is recorded today.
fn modern(key: &LegacyOffsetCommitKey, value: Option<&LegacyOffsetCommitValue>) -> GroupRecord {
    let (group, topic) = (key.group.clone(), key.topic.clone());
    GroupRecord::OffsetCommit {
        key: OffsetCommitKey { group, topic, partition: key.partition },
        value: value.map(|value| OffsetCommitValue {
            offset: value.offset,
            metadata: value.metadata.clone(),
            commit_timestamp: value.commit_timestamp,
            ..OffsetCommitValue::default()
        }),
    }
}

/// The log has been loaded: sessions start, and a group that is larger than allowed rebalances.
fn activate(store: &mut Store, turn: &mut Turn<'_>) {
    set_expiry_timer(turn);
    let size_max = usize::try_from(turn.config.group_size_max).unwrap_or(0);
    for group in store.groups.values_mut() {
        for member_id in group.members.keys() {
            group.restart_session(turn, member_id);
        }
        if group.members.len() > size_max {
            group.prepare_rebalance(turn);
        }
    }
}

fn set_expiry_timer(turn: &mut Turn<'_>) {
    let interval_ms = turn.config.offsets_retention_check_interval_ms.max(1);
    turn.timers.set(Timer::Expiry, turn.now.plus_ms(interval_ms));
}

/// Does what is due when a timer has ended.
fn expire(store: &mut Store, turn: &mut Turn<'_>, timer: &Timer, expiry_from: &mut String) {
    match timer {
        Timer::Session { group, member } => {
            if let Some(group) = store.groups.get_mut(group) {
                group.expire_session(turn, member);
            }
        }
        Timer::Join { group } => {
            if let Some(group) = store.groups.get_mut(group) {
                group.expire_join(turn);
            }
        }
        Timer::Sync { group } => {
            if let Some(group) = store.groups.get_mut(group) {
                group.expire_sync(turn);
            }
        }
        Timer::Expiry => match store.expire(turn, expiry_from) {
            Some(next) => {
                *expiry_from = next;
                turn.timers.set(Timer::Expiry, turn.now);
            }
            None => {
                expiry_from.clear();
                set_expiry_timer(turn);
            }
        },
    }
}

/// Answers a request, or parks it.
fn handle(
    store: &mut Store,
    turn: &mut Turn<'_>,
    id: RequestId,
    request: GroupRequest,
) -> Option<GroupResponse> {
    Some(match request {
        GroupRequest::Join(join) => {
            handle_join(store, turn, id, *join);
            return None;
        }
        GroupRequest::Sync(request) => {
            match store.groups.get_mut(&request.group_id) {
                _ if request.group_id.is_empty() => turn.refuse_sync(id, ErrorCode::InvalidGroupId),
                None => turn.refuse_sync(id, ErrorCode::UnknownMemberId),
                Some(group) => group.sync(turn, id, request),
            }
            return None;
        }
        GroupRequest::Heartbeat(request) => {
            let result = match store.groups.get_mut(&request.group_id) {
                _ if request.group_id.is_empty() => Err(ErrorCode::InvalidGroupId),
                None => Err(ErrorCode::UnknownMemberId),
                Some(group) => group.heartbeat(turn, &request),
            };
            let error_code = result.err().unwrap_or(ErrorCode::None).code();
            GroupResponse::Heartbeat(HeartbeatResponse { error_code, ..Default::default() })
        }
        GroupRequest::Leave(request) if request.group_id.is_empty() => {
            GroupResponse::Refused(ErrorCode::InvalidGroupId)
        }
        GroupRequest::Leave(request) => {
            // In a group that does not exist nobody is a member.
            let mut nobody = ClassicGroup::new(&request.group_id, turn.wall);
            let group = store.groups.get_mut(&request.group_id).unwrap_or(&mut nobody);
            GroupResponse::Leave(group.leave(turn, request))
        }
        GroupRequest::CommitOffsets { version, request } => {
            match store.commit(turn, version, request) {
                Ok(response) => GroupResponse::CommitOffsets(response),
                Err(error) => GroupResponse::Refused(error),
            }
        }
        GroupRequest::FetchOffsets(request) => GroupResponse::FetchOffsets(store.fetch(request)),
        GroupRequest::DeleteOffsets(request) => match store.delete_offsets(turn, request) {
            Ok(response) => GroupResponse::DeleteOffsets(response),
            Err(error) => GroupResponse::Refused(error),
        },
        GroupRequest::Describe { version, groups } => {
            GroupResponse::Describe(store.describe(version, groups))
        }
        GroupRequest::List { states, types } => GroupResponse::List(store.list(&states, &types)),
        GroupRequest::DeleteGroups(groups) => {
            GroupResponse::DeleteGroups(store.delete_groups(turn, groups))
        }
        GroupRequest::TopicsDeleted(topics) => {
            turn.records.extend(store.offsets.delete_topics(&topics));
            GroupResponse::TopicsDeleted
        }
    })
}

fn handle_join(store: &mut Store, turn: &mut Turn<'_>, id: RequestId, join: Join) {
    let request: &JoinGroupRequest = &join.request;
    let sessions = turn.config.session_timeout_ms_min..=turn.config.session_timeout_ms_max;
    if request.group_id.is_empty() {
        turn.refuse_join(id, &request.member_id, ErrorCode::InvalidGroupId);
    } else if !sessions.contains(&request.session_timeout_ms) {
        turn.refuse_join(id, &request.member_id, ErrorCode::InvalidSessionTimeout);
    } else if store.foreign.contains(&request.group_id) {
        turn.refuse_join(id, "", ErrorCode::InconsistentGroupProtocol);
    } else if let Some(group) = store.groups.get_mut(&request.group_id) {
        group.join(turn, id, join);
    } else if request.member_id.is_empty() {
        let mut group = ClassicGroup::new(&request.group_id, turn.wall);
        let empty = group.to_empty_record();
        let records = turn.records.len();
        group.join(turn, id, join);
        if turn.records.len() == records {
            // The group exists from now on, whatever comes of the join.
            turn.records.push(empty);
        }
        store.groups.insert(group.group_id.clone(), group);
    } else {
        turn.refuse_join(id, &request.member_id, ErrorCode::UnknownMemberId);
    }
}
