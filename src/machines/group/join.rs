//! JoinGroup of the classic protocol.
//!
//! Source: KIP-62, KIP-345 (static members), KIP-389 (group size), KIP-394 (member id required),
//! KIP-814 (a static leader that comes back skips the assignment).

use ottla_protocol::ErrorCode;
use ottla_protocol::messages::JoinGroupResponse;

use super::api::{GroupResponse, Join};
use super::classic::{ClassicGroup, Member, State};
use super::rebalance::{NEW_MEMBER_JOIN_TIMEOUT_MS, Turn};
use crate::machines::RequestId;

/// From this version on a dynamic member is first given an id to join with.
const MEMBER_ID_REQUIRED_SINCE: i16 = 4;
/// From this version on a static leader that comes back can be told not to assign.
const SKIP_ASSIGNMENT_SINCE: i16 = 9;

impl ClassicGroup {
    /// Lets a client join.
    pub fn join(&mut self, turn: &mut Turn<'_>, id: RequestId, join: Join) {
        let is_unknown_member = join.request.member_id.is_empty();
        if !self.accepts_joining(turn, &join.request.member_id) {
            self.remove(turn, &join.request.member_id);
            turn.refuse_join(id, "", ErrorCode::GroupMaxSizeReached);
        } else if !self.supports(&join.request.protocol_type, &join.request.protocols) {
            turn.refuse_join(id, &join.request.member_id, ErrorCode::InconsistentGroupProtocol);
        } else if is_unknown_member {
            self.join_new_member(turn, id, join);
        } else {
            self.join_known_member(turn, id, join);
        }
    }

    /// Whether the group's size allows the member in. While it joins, those who wait count, not
    /// those who were there: after the limit was lowered the last to come back are left out.
    fn accepts_joining(&self, turn: &Turn<'_>, member_id: &str) -> bool {
        let member = self.members.get(member_id);
        let size_max = usize::try_from(turn.config.group_size_max).unwrap_or(0);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                member.is_some_and(|member| member.parked_join.is_some())
                    || self.parked_join_count() < size_max
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.members.len() < size_max
            }
        }
    }

    fn join_new_member(&mut self, turn: &mut Turn<'_>, id: RequestId, join: Join) {
        let instance = join.request.group_instance_id.clone();
        let prefix = instance.as_deref().unwrap_or(&join.client_id);
        let new_id = format!("{prefix}-{}", join.uuid.hyphenated());
        match instance {
            Some(instance) => match self.static_members.get(&instance).cloned() {
                Some(old_id) => self.replace_and_join(turn, id, join, &old_id, &new_id),
                None => self.add_and_rebalance(turn, id, join, new_id),
            },
            None if join.version >= MEMBER_ID_REQUIRED_SINCE => {
                self.pending_join.insert(new_id.clone());
                turn.set_timer(self.session_timer(&new_id), join.request.session_timeout_ms);
                turn.refuse_join(id, &new_id, ErrorCode::MemberIdRequired);
            }
            None => self.add_and_rebalance(turn, id, join, new_id),
        }
    }

    fn join_known_member(&mut self, turn: &mut Turn<'_>, id: RequestId, join: Join) {
        let member_id = join.request.member_id.clone();
        let instance = join.request.group_instance_id.as_deref();
        if self.pending_join.contains(&member_id) {
            match instance {
                None => self.add_and_rebalance(turn, id, join, member_id),
                // Only dynamic members get an id to come back with.
                Some(_) => turn.refuse_join(id, &member_id, ErrorCode::UnknownServerError),
            }
            return;
        }
        if let Err(error) = self.validate_member(&member_id, instance) {
            turn.refuse_member(id, &member_id, error);
            return;
        }
        let has_changed =
            self.members.get(&member_id).is_none_or(|m| m.protocols != join.request.protocols);
        match self.state {
            State::PreparingRebalance => self.update_and_rebalance(turn, id, join),
            State::CompletingRebalance if has_changed => self.update_and_rebalance(turn, id, join),
            // It may have missed the answer: tell it again.
            State::CompletingRebalance => {
                turn.reply(id, GroupResponse::Join(self.join_response(&member_id)));
            }
            // A leader that joins again asks for a rebalance, since what it assigns has changed.
            State::Stable if has_changed || self.is_leader(&member_id) => {
                self.update_and_rebalance(turn, id, join);
            }
            State::Stable => turn.reply(id, GroupResponse::Join(self.join_response(&member_id))),
            State::Empty => turn.refuse_join(id, &member_id, ErrorCode::UnknownMemberId),
        }
    }

    fn update_and_rebalance(&mut self, turn: &mut Turn<'_>, id: RequestId, join: Join) {
        let request = join.request;
        self.update_member(
            &request.member_id,
            request.protocols,
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
        );
        self.park_join(turn, &request.member_id, id);
        self.prepare_rebalance_or_complete_join(turn);
    }

    fn add_and_rebalance(
        &mut self,
        turn: &mut Turn<'_>,
        id: RequestId,
        join: Join,
        member_id: String,
    ) {
        if self.state == State::PreparingRebalance && self.previous_state == Some(State::Empty) {
            self.new_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.request.protocol_type);
        }
        self.add(Member {
            member_id: member_id.clone(),
            group_instance_id: join.request.group_instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            rebalance_timeout_ms: join.request.rebalance_timeout_ms,
            session_timeout_ms: join.request.session_timeout_ms,
            protocols: join.request.protocols,
            parked_join: Some(id),
            is_new: true,
            ..Member::default()
        });
        turn.set_timer(self.session_timer(&member_id), NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.prepare_rebalance_or_complete_join(turn);
    }

    /// A static member comes back without its id: it gets a new one, the old one is fenced, and as
    /// long as the protocol stays the same a stable group does not rebalance.
    fn replace_and_join(
        &mut self,
        turn: &mut Turn<'_>,
        id: RequestId,
        join: Join,
        old_id: &str,
        new_id: &str,
    ) {
        let old_leader = self.leader.clone().unwrap_or_default();
        let instance = join.request.group_instance_id.as_deref().unwrap_or_default();
        if let Some(old) = self.replace_static_member(instance, old_id, new_id) {
            self.fence(turn, &old);
        }
        self.restart_session(turn, new_id);
        self.update_member(
            new_id,
            join.request.protocols,
            join.request.rebalance_timeout_ms,
            join.request.session_timeout_ms,
        );
        self.park_join(turn, new_id, id);
        match self.state {
            State::Stable if self.select_protocol() == self.protocol_name => {
                turn.records.push(self.to_record());
                let response = match join.version >= SKIP_ASSIGNMENT_SINCE {
                    true => JoinGroupResponse {
                        skip_assignment: self.is_leader(new_id),
                        ..self.join_response(new_id)
                    },
                    // An old client that is told of its leadership would assign from its own,
                    // perhaps stale, view: it is told the old leader's id.
                    false => JoinGroupResponse {
                        leader: old_leader,
                        members: Vec::new(),
                        ..self.join_response(new_id)
                    },
                };
                self.answer_join(turn, new_id, response);
            }
            State::Stable => self.prepare_rebalance_or_complete_join(turn),
            // The leader may already assign to the old id.
            State::CompletingRebalance => self.prepare_rebalance(turn),
            State::PreparingRebalance | State::Empty => self.maybe_complete_join(turn),
        }
    }

    /// Tells the holder of a replaced member id, if it waits, that another took its place.
    fn fence(&self, turn: &mut Turn<'_>, old: &Member) {
        turn.timers.cancel(&self.session_timer(&old.member_id));
        if let Some(id) = old.parked_join {
            turn.refuse_member(id, &old.member_id, ErrorCode::FencedInstanceId);
        }
        if let Some(id) = old.parked_sync {
            turn.refuse_sync(id, ErrorCode::FencedInstanceId);
        }
    }
}
