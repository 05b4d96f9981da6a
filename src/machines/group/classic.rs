//! A group of the classic protocol: its members, its state, and the rules that need no time
//! (KIP-62, 345, 389, 394).
//!
//! All of it is soft: it is made from the group's record at load, and what must survive goes into
//! the next record. The steps that take time or answer requests are in `join.rs`, `rebalance.rs`
//! and `member.rs`.
//!
//! Invariants: the leader is a member or absent in a group without members; every static member is
//! a member; the counts of supported protocols are those of the members.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use ottla_protocol::coordinator::group_metadata_value::MemberMetadata;
use ottla_protocol::coordinator::{GroupMetadataKey, GroupMetadataValue};
use ottla_protocol::messages::ConsumerProtocolSubscription;
use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ottla_protocol::messages::join_group_response::JoinGroupResponseMember;
use ottla_protocol::{ErrorCode, Message, Reader, Timestamp};

use crate::machines::RequestId;
use ottla_protocol::records::consumer_protocol::PROTOCOL_TYPE;
use ottla_protocol::records::group::GroupRecord;

/// Where a classic group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Members are asked to join again.
    PreparingRebalance,
    /// All have joined; the leader's assignment is awaited.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        })
    }
}

/// One member.
#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// In the member's order of preference.
    pub protocols: Vec<JoinGroupRequestProtocol>,
    pub assignment: Bytes,
    /// The parked JoinGroup.
    pub parked_join: Option<RequestId>,
    /// The parked SyncGroup.
    pub parked_sync: Option<RequestId>,
    /// Has joined, but no join phase has ended since: it does not know its id yet and cannot send
    /// heartbeats.
    pub is_new: bool,
}

impl Member {
    /// The member's metadata for one of its protocols.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|p| p.name == protocol);
        found.map(|p| p.metadata.clone()).unwrap_or_default()
    }

    /// True while a parked request shows that the member lives.
    pub fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.parked_join.is_some() || self.parked_sync.is_some())
    }

    /// The protocol of `candidates` that the member likes best.
    fn vote<'a>(&self, candidates: &BTreeSet<&'a str>) -> Option<&'a str> {
        self.protocols.iter().find_map(|p| candidates.get(p.name.as_str()).copied())
    }
}

/// A classic group.
#[derive(Debug, Clone)]
pub(super) struct ClassicGroup {
    pub group_id: String,
    pub state: State,
    /// The state before this one; `None` in a group that has just been made or loaded.
    pub previous_state: Option<State>,
    /// When it came into this state; `None` if an old record did not say.
    pub state_timestamp: Option<Timestamp>,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub generation: i32,
    pub leader: Option<String>,
    pub members: BTreeMap<String, Member>,
    /// Instance id to member id.
    pub static_members: BTreeMap<String, String>,
    /// Ids that have been given out and not been used yet (KIP-394).
    pub pending_join: BTreeSet<String>,
    /// Members of this generation that have not asked for their assignment.
    pub pending_sync: BTreeSet<String>,
    /// The topics of a consumer group whose subscriptions could be read.
    pub subscribed_topics: Option<BTreeSet<String>>,
    /// A member came during the initial delay, which is then extended.
    pub new_member_added: bool,
    /// The initial rebalance's running delay, and what is left to extend it by.
    pub initial_delay: Option<(i32, i32)>,
    /// How many members support a protocol.
    supported: BTreeMap<String, usize>,
}

impl ClassicGroup {
    /// A group without members.
    pub fn new(group_id: &str, now: Timestamp) -> Self {
        ClassicGroup {
            group_id: group_id.to_owned(),
            state: State::Empty,
            previous_state: None,
            state_timestamp: Some(now),
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            subscribed_topics: None,
            new_member_added: false,
            initial_delay: None,
            supported: BTreeMap::new(),
        }
    }

    /// The group that a record describes: stable, or empty when it has no members.
    pub fn from_record(group_id: &str, value: &GroupMetadataValue) -> Self {
        let mut group = ClassicGroup::new(group_id, Timestamp(value.current_state_timestamp));
        if value.current_state_timestamp < 0 {
            group.state_timestamp = None;
        }
        group.generation = value.generation;
        group.protocol_type = Some(value.protocol_type.clone()).filter(|t| !t.is_empty());
        group.protocol_name = value.protocol.clone();
        group.leader = value.leader.clone();
        let protocol = value.protocol.clone().unwrap_or_default();
        for recorded in &value.members {
            group.add(Member {
                member_id: recorded.member_id.clone(),
                group_instance_id: recorded.group_instance_id.clone(),
                client_id: recorded.client_id.clone(),
                client_host: recorded.client_host.clone(),
                rebalance_timeout_ms: match recorded.rebalance_timeout {
                    -1 => recorded.session_timeout,
                    timeout => timeout,
                },
                session_timeout_ms: recorded.session_timeout,
                protocols: vec![JoinGroupRequestProtocol {
                    name: protocol.clone(),
                    metadata: recorded.subscription.clone(),
                }],
                assignment: recorded.assignment.clone(),
                ..Member::default()
            });
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        group.compute_subscribed_topics();
        group
    }

    /// The record of this generation, with the members' present assignments.
    pub fn to_record(&self) -> GroupRecord {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        let members = self.members.values().map(|member| MemberMetadata {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        });
        self.record(GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_timestamp.unwrap_or(Timestamp::NONE).0,
            members: members.collect(),
        })
    }

    /// The record that says no more than that the group exists.
    pub fn to_empty_record(&self) -> GroupRecord {
        self.record(GroupMetadataValue {
            protocol: None,
            leader: None,
            current_state_timestamp: self.state_timestamp.unwrap_or(Timestamp::NONE).0,
            ..GroupMetadataValue::default()
        })
    }

    fn record(&self, value: GroupMetadataValue) -> GroupRecord {
        let key = GroupMetadataKey { group: self.group_id.clone() };
        GroupRecord::GroupMetadata { key, value: Some(value) }
    }

    /// Moves to `state` at `now`.
    pub fn transition_to(&mut self, state: State, now: Timestamp) {
        self.previous_state = Some(self.state);
        self.state = state;
        self.state_timestamp = Some(now);
    }

    /// True if a rebalance can start: it is not already joining.
    pub fn can_rebalance(&self) -> bool {
        self.state != State::PreparingRebalance
    }

    /// True if the group's members are Kafka consumers; groups of other types (Connect's) are
    /// opaque.
    pub fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(PROTOCOL_TYPE)
    }

    /// True if a member subscribes to `topic`, or may.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// True if the member leads the group.
    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Adds a member that is not in the group yet; the first one gives the group its type and leads
    /// it.
    pub fn add(&mut self, member: Member) {
        if let Some(instance) = &member.group_instance_id {
            self.static_members.insert(instance.clone(), member.member_id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.member_id.clone());
        }
        self.count_protocols(&member);
        self.pending_join.remove(&member.member_id);
        self.members.insert(member.member_id.clone(), member);
    }

    /// Takes a member, or an id that waits to be used, out of the group; another member leads if it
    /// led.
    pub fn take(&mut self, member_id: &str) -> Option<Member> {
        let removed = self.members.remove(member_id);
        if let Some(member) = &removed {
            self.uncount_protocols(member);
            if let Some(instance) = &member.group_instance_id {
                self.static_members.remove(instance);
            }
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_join.remove(member_id);
        self.pending_sync.remove(member_id);
        removed
    }

    /// Gives a static member a new id; its old assignment goes with it. Answers the old member.
    pub fn replace_static_member(
        &mut self,
        instance: &str,
        old: &str,
        new: &str,
    ) -> Option<Member> {
        let removed = self.members.remove(old)?;
        let member = Member {
            member_id: new.to_owned(),
            parked_join: None,
            parked_sync: None,
            is_new: false,
            ..removed.clone()
        };
        if self.is_leader(old) {
            self.leader = Some(new.to_owned());
        }
        if self.pending_sync.remove(old) {
            self.pending_sync.insert(new.to_owned());
        }
        self.members.insert(new.to_owned(), member);
        self.static_members.insert(instance.to_owned(), new.to_owned());
        Some(removed)
    }

    /// Takes over what a member's new JoinGroup says.
    pub fn update_member(
        &mut self,
        member_id: &str,
        protocols: Vec<JoinGroupRequestProtocol>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
    ) {
        let Some(mut member) = self.members.remove(member_id) else { return };
        self.uncount_protocols(&member);
        member.protocols = protocols;
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        self.count_protocols(&member);
        self.members.insert(member_id.to_owned(), member);
    }

    /// Checks that a request comes from a member.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, or FENCED_INSTANCE_ID when another member has taken the instance's place.
    pub fn validate_member(
        &self,
        member_id: &str,
        instance: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(known) if known != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) {
            true => Ok(()),
            false => Err(ErrorCode::UnknownMemberId),
        }
    }

    /// True if a member with this type and these protocols fits into the group.
    pub fn supports(&self, protocol_type: &str, protocols: &[JoinGroupRequestProtocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|p| self.supporters(&p.name) == self.members.len())
    }

    /// The protocol that every member supports and most like best.
    pub fn select_protocol(&self) -> Option<String> {
        let everyone = self.members.len();
        let candidates: BTreeSet<&str> = self
            .supported
            .iter()
            .filter(|(_, count)| **count == everyone)
            .map(|(name, _)| name.as_str())
            .collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for vote in self.members.values().filter_map(|member| member.vote(&candidates)) {
            *votes.entry(vote).or_default() += 1;
        }
        let most = votes.values().max().copied()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned())
    }

    /// Starts the next generation: Empty without members, else CompletingRebalance.
    pub fn init_next_generation(&mut self, now: Timestamp) {
        self.generation = self.generation.wrapping_add(1);
        self.protocol_name = self.select_protocol();
        self.compute_subscribed_topics();
        let next = if self.members.is_empty() { State::Empty } else { State::CompletingRebalance };
        self.transition_to(next, now);
        self.pending_sync.clear();
    }

    /// Keeps the leader if it has joined, else lets the first member that has joined lead.
    pub fn elect_joined_leader(&mut self) -> bool {
        let Some(leader) = &self.leader else { return false };
        if self.members.get(leader).is_some_and(|member| member.parked_join.is_some()) {
            return true;
        }
        let joined = self.members.values().find(|member| member.parked_join.is_some());
        let Some(joined) = joined.map(|member| member.member_id.clone()) else { return false };
        self.leader = Some(joined);
        true
    }

    /// Members whose JoinGroup is parked.
    pub fn parked_join_count(&self) -> usize {
        self.members.values().filter(|member| member.parked_join.is_some()).count()
    }

    /// True when nobody is awaited any more.
    pub fn has_all_members_joined(&self) -> bool {
        self.pending_join.is_empty()
            && self.members.values().all(|member| member.parked_join.is_some())
    }

    /// How long a join phase takes at most: the longest that a member asks for.
    pub fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0).max(0)
    }

    /// What the leader learns of the members.
    pub fn members_for_leader(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        let describe = |member: &Member| JoinGroupResponseMember {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            metadata: member.metadata(protocol),
        };
        self.members.values().map(describe).collect()
    }

    fn supporters(&self, protocol: &str) -> usize {
        self.supported.get(protocol).copied().unwrap_or(0)
    }

    fn count_protocols(&mut self, member: &Member) {
        for protocol in &member.protocols {
            *self.supported.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn uncount_protocols(&mut self, member: &Member) {
        for protocol in &member.protocols {
            if let Some(count) = self.supported.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.supported.remove(&protocol.name);
                }
            }
        }
    }

    /// Reads the members' subscriptions as version 0, which every later version begins with.
    fn compute_subscribed_topics(&mut self) {
        self.subscribed_topics = match &self.protocol_name {
            _ if !self.uses_consumer_protocol() => None,
            _ if self.members.is_empty() => Some(BTreeSet::new()),
            Some(protocol) => self
                .members
                .values()
                .map(|member| subscription_topics(member.metadata(protocol)))
                .collect::<Option<Vec<_>>>()
                .map(|topics| topics.into_iter().flatten().collect()),
            None => None,
        };
    }
}

/// The topics of a consumer's subscription; `None` when it is not one.
fn subscription_topics(metadata: Bytes) -> Option<Vec<String>> {
    let mut reader = Reader::new(metadata);
    reader.i16().ok()?;
    ConsumerProtocolSubscription::decode(&mut reader, 0)
        .ok()
        .map(|subscription| subscription.topics)
}
