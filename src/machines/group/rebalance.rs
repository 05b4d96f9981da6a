//! The join phase of a classic group: when it starts, how long it waits, how it ends; and members
//! that time out.
//!
//! Source: KIP-62 (time-outs), KIP-134 (initial delay), KIP-394 (pending members).

use ottla_protocol::messages::{JoinGroupResponse, SyncGroupResponse};
use ottla_protocol::{ErrorCode, Timestamp};

use super::api::{GroupConfig, GroupEffect, GroupResponse};
use super::classic::{ClassicGroup, Member, State};
use super::timers::{Timer, Timers};
use crate::machines::RequestId;
use ottla_protocol::records::group::GroupRecord;

/// How long a new member's JoinGroup is parked at most. Its disconnection cannot be seen while it
/// is parked; a client that is still there tries again.
pub(super) const NEW_MEMBER_JOIN_TIMEOUT_MS: i32 = 5 * 60 * 1000;

/// What one operation may use and what it brings about.
pub(super) struct Turn<'a> {
    /// On the steady clock, which timers go by.
    pub now: Timestamp,
    /// On the wall clock, for what is written down.
    pub wall: Timestamp,
    pub config: &'a GroupConfig,
    pub timers: &'a mut Timers,
    pub records: Vec<GroupRecord>,
    pub effects: Vec<GroupEffect>,
}

impl Turn<'_> {
    /// Answers a request.
    pub fn reply(&mut self, id: RequestId, response: GroupResponse) {
        self.effects.push(GroupEffect::Reply(id, response));
    }

    /// Answers a JoinGroup with an error.
    pub fn refuse_join(&mut self, id: RequestId, member_id: &str, error: ErrorCode) {
        let response = JoinGroupResponse {
            error_code: error.code(),
            member_id: member_id.to_owned(),
            ..JoinGroupResponse::default()
        };
        self.reply(id, GroupResponse::Join(response));
    }

    /// Answers a JoinGroup that names a member which the group does not know by this id; Kafka
    /// leaves the protocol's name out of this one.
    pub fn refuse_member(&mut self, id: RequestId, member_id: &str, error: ErrorCode) {
        let response = JoinGroupResponse {
            error_code: error.code(),
            member_id: member_id.to_owned(),
            protocol_name: None,
            ..JoinGroupResponse::default()
        };
        self.reply(id, GroupResponse::Join(response));
    }

    /// Answers a SyncGroup with an error.
    pub fn refuse_sync(&mut self, id: RequestId, error: ErrorCode) {
        let response =
            SyncGroupResponse { error_code: error.code(), ..SyncGroupResponse::default() };
        self.reply(id, GroupResponse::Sync(response));
    }

    /// Sets a timer to end in `ms`.
    pub fn set_timer(&mut self, timer: Timer, ms: i32) {
        self.timers.set(timer, self.now.plus_ms(i64::from(ms.max(0))));
    }
}

impl ClassicGroup {
    /// Starts the member's session anew.
    pub fn restart_session(&self, turn: &mut Turn<'_>, member_id: &str) {
        if let Some(member) = self.members.get(member_id) {
            turn.set_timer(self.session_timer(member_id), member.session_timeout_ms);
        }
    }

    /// The timer of a member's session.
    pub fn session_timer(&self, member_id: &str) -> Timer {
        Timer::Session { group: self.group_id.clone(), member: member_id.to_owned() }
    }

    fn join_timer(&self) -> Timer {
        Timer::Join { group: self.group_id.clone() }
    }

    /// The timer of the sync phase.
    pub fn sync_timer(&self) -> Timer {
        Timer::Sync { group: self.group_id.clone() }
    }

    /// Parks a JoinGroup. One that was parked before belongs to a connection that the client has
    /// given up.
    pub fn park_join(&mut self, turn: &mut Turn<'_>, member_id: &str, id: RequestId) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        if let Some(replaced) = member.parked_join.replace(id) {
            turn.refuse_join(replaced, member_id, ErrorCode::RebalanceInProgress);
        }
    }

    /// Removes a member and answers what it has parked, so that a client that still lives joins
    /// again.
    pub fn remove(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        turn.timers.cancel(&self.session_timer(member_id));
        let Some(member) = self.take(member_id) else { return };
        if let Some(id) = member.parked_join {
            turn.refuse_join(id, "", ErrorCode::UnknownMemberId);
        }
        if let Some(id) = member.parked_sync {
            turn.refuse_sync(id, ErrorCode::UnknownMemberId);
        }
    }

    /// Starts a rebalance, or ends the join phase of the one that runs if it can end.
    pub fn prepare_rebalance_or_complete_join(&mut self, turn: &mut Turn<'_>) {
        if self.can_rebalance() {
            self.prepare_rebalance(turn);
        } else {
            self.maybe_complete_join(turn);
        }
    }

    /// Starts a rebalance.
    pub fn prepare_rebalance(&mut self, turn: &mut Turn<'_>) {
        if self.state == State::CompletingRebalance {
            self.abandon_sync(turn, ErrorCode::RebalanceInProgress);
        }
        self.pending_sync.clear();
        turn.timers.cancel(&self.sync_timer());

        let is_initial = self.state == State::Empty;
        self.transition_to(State::PreparingRebalance, turn.wall);
        if is_initial {
            // The group is new: give more members the time to come before the first generation.
            let delay = turn.config.initial_rebalance_delay_ms;
            let remaining = (self.rebalance_timeout_ms() - delay).max(0);
            self.initial_delay = Some((delay, remaining));
            turn.set_timer(self.join_timer(), delay);
        } else if self.has_all_members_joined() {
            self.complete_join(turn);
        } else {
            self.initial_delay = None;
            turn.set_timer(self.join_timer(), self.rebalance_timeout_ms());
        }
    }

    /// Ends the join phase if everybody has joined; an initial rebalance waits for its delay.
    pub fn maybe_complete_join(&mut self, turn: &mut Turn<'_>) {
        let is_initial = self.previous_state == Some(State::Empty);
        if self.state == State::PreparingRebalance && !is_initial && self.has_all_members_joined() {
            self.complete_join(turn);
        }
    }

    /// The join timer has ended: extend the initial delay if members still come, else end the join
    /// phase.
    pub fn expire_join(&mut self, turn: &mut Turn<'_>) {
        if self.state != State::PreparingRebalance {
            return;
        }
        match self.initial_delay.take() {
            Some((delay, remaining)) if self.new_member_added && remaining != 0 => {
                self.new_member_added = false;
                let next = turn.config.initial_rebalance_delay_ms.min(remaining);
                self.initial_delay = Some((next, (remaining - delay).max(0)));
                turn.set_timer(self.join_timer(), next);
            }
            _ => self.complete_join(turn),
        }
    }

    /// Ends the join phase: dynamic members that have not joined are out, and the next generation
    /// starts.
    fn complete_join(&mut self, turn: &mut Turn<'_>) {
        turn.timers.cancel(&self.join_timer());
        self.initial_delay = None;
        let absent = |m: &&Member| m.parked_join.is_none() && m.group_instance_id.is_none();
        let absent: Vec<String> =
            self.members.values().filter(absent).map(|m| m.member_id.clone()).collect();
        for member_id in absent {
            self.remove(turn, &member_id);
        }

        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Only static members, and none has joined: wait until their sessions end or one comes.
            // At least a millisecond, so that a member without a time-out does not make this a busy
            // loop.
            turn.set_timer(self.join_timer(), self.rebalance_timeout_ms().max(1));
            return;
        }
        self.init_next_generation(turn.wall);
        if self.state == State::Empty {
            turn.records.push(self.to_record());
            return;
        }
        for member_id in self.members.keys().cloned().collect::<Vec<_>>() {
            let response = self.join_response(&member_id);
            self.answer_join(turn, &member_id, response);
            self.restart_session(turn, &member_id);
            if let Some(member) = self.members.get_mut(&member_id) {
                member.is_new = false;
            }
            self.pending_sync.insert(member_id);
        }
        turn.set_timer(self.sync_timer(), self.rebalance_timeout_ms());
    }

    /// What a member learns of the present generation; the leader learns the members too.
    pub fn join_response(&self, member_id: &str) -> JoinGroupResponse {
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member_id.to_owned(),
            members: match self.is_leader(member_id) {
                true => self.members_for_leader(),
                false => Vec::new(),
            },
            ..JoinGroupResponse::default()
        }
    }

    /// Answers the member's parked JoinGroup, if there is one.
    pub fn answer_join(
        &mut self,
        turn: &mut Turn<'_>,
        member_id: &str,
        response: JoinGroupResponse,
    ) {
        let member = self.members.get_mut(member_id);
        if let Some(id) = member.and_then(|member| member.parked_join.take()) {
            turn.reply(id, GroupResponse::Join(response));
        }
    }

    /// Takes the assignments back and answers every parked SyncGroup with an error.
    fn abandon_sync(&mut self, turn: &mut Turn<'_>, error: ErrorCode) {
        for member_id in self.members.keys().cloned().collect::<Vec<_>>() {
            let Some(member) = self.members.get_mut(&member_id) else { continue };
            member.assignment = Default::default();
            if let Some(id) = member.parked_sync.take() {
                turn.refuse_sync(id, error);
                self.restart_session(turn, &member_id);
            }
        }
    }

    /// A member's session, or the wait for a member to be, has ended.
    pub fn expire_session(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        if self.pending_join.contains(member_id) {
            self.remove(turn, member_id);
            if self.state == State::PreparingRebalance && self.has_all_members_joined() {
                self.complete_join(turn);
            }
            return;
        }
        let member = self.members.get(member_id);
        if member.is_some_and(|member| !member.has_satisfied_heartbeat()) {
            self.remove(turn, member_id);
            match self.state {
                State::Stable | State::CompletingRebalance => {
                    self.prepare_rebalance_or_complete_join(turn);
                }
                State::PreparingRebalance if self.has_all_members_joined() => {
                    self.complete_join(turn);
                }
                State::PreparingRebalance | State::Empty => {}
            }
        }
    }

    /// Members have not asked for their assignment in time: they are out, and the others join
    /// again.
    pub fn expire_sync(&mut self, turn: &mut Turn<'_>) {
        let is_late = matches!(self.state, State::CompletingRebalance | State::Stable);
        if is_late && !self.pending_sync.is_empty() {
            for member_id in self.pending_sync.clone() {
                self.remove(turn, &member_id);
            }
            self.prepare_rebalance(turn);
        }
    }
}
