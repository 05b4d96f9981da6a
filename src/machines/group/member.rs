//! SyncGroup, Heartbeat and LeaveGroup of the classic protocol.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::leave_group_request::MemberIdentity;
use ottla_protocol::messages::leave_group_response::MemberResponse;
use ottla_protocol::messages::{
    HeartbeatRequest, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

use super::api::GroupResponse;
use super::classic::{ClassicGroup, State};
use super::rebalance::Turn;
use crate::machines::RequestId;

impl ClassicGroup {
    /// Gives a member its assignment, or parks it until the leader has sent the assignments.
    pub fn sync(&mut self, turn: &mut Turn<'_>, id: RequestId, request: SyncGroupRequest) {
        if let Err(error) = self.validate_sync(&request) {
            turn.refuse_sync(id, error);
            return;
        }
        match self.state {
            State::Empty => turn.refuse_sync(id, ErrorCode::UnknownMemberId),
            State::PreparingRebalance => turn.refuse_sync(id, ErrorCode::RebalanceInProgress),
            State::CompletingRebalance => {
                self.park_sync(turn, id, &request.member_id);
                self.has_synced(turn, &request.member_id);
                if self.is_leader(&request.member_id) {
                    self.assign(turn, request);
                }
            }
            State::Stable => {
                self.has_synced(turn, &request.member_id);
                let assignment = self.members.get(&request.member_id).map(|m| m.assignment.clone());
                let response = self.sync_response(assignment.unwrap_or_default());
                turn.reply(id, GroupResponse::Sync(response));
            }
        }
    }

    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        let differs = |given: &Option<String>, own: &Option<String>| match (given, own) {
            (Some(given), Some(own)) => given != own,
            _ => false,
        };
        if request.generation_id != self.generation {
            Err(ErrorCode::IllegalGeneration)
        } else if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol_name)
        {
            Err(ErrorCode::InconsistentGroupProtocol)
        } else {
            Ok(())
        }
    }

    fn park_sync(&mut self, turn: &mut Turn<'_>, id: RequestId, member_id: &str) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        if let Some(replaced) = member.parked_sync.replace(id) {
            // It was parked by a connection that the client has given up.
            turn.refuse_sync(replaced, ErrorCode::RebalanceInProgress);
        }
    }

    fn has_synced(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            turn.timers.cancel(&self.sync_timer());
        }
    }

    /// The leader's assignments: recorded, and given to everybody who waits.
    fn assign(&mut self, turn: &mut Turn<'_>, request: SyncGroupRequest) {
        let mut assignments: BTreeMap<String, Bytes> =
            request.assignments.into_iter().map(|a| (a.member_id, a.assignment)).collect();
        for (member_id, member) in &mut self.members {
            // A member that the leader passed over gets an empty assignment.
            member.assignment = assignments.remove(member_id).unwrap_or_default();
        }
        turn.records.push(self.to_record());
        for member_id in self.members.keys().cloned().collect::<Vec<_>>() {
            let Some(member) = self.members.get_mut(&member_id) else { continue };
            let assignment = member.assignment.clone();
            if let Some(id) = member.parked_sync.take() {
                let response = self.sync_response(assignment);
                turn.reply(id, GroupResponse::Sync(response));
                self.restart_session(turn, &member_id);
            }
        }
        self.transition_to(State::Stable, turn.wall);
    }

    fn sync_response(&self, assignment: Bytes) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment,
            ..SyncGroupResponse::default()
        }
    }

    /// A member lives; it learns whether it must join again.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS.
    pub fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state == State::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.restart_session(turn, &request.member_id);
        match self.state {
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Members leave, or an operator removes static members by their instance.
    pub fn leave(&mut self, turn: &mut Turn<'_>, request: LeaveGroupRequest) -> LeaveGroupResponse {
        let mut members = Vec::with_capacity(request.members.len());
        for leaving in request.members {
            let error = self.leave_one(turn, &leaving).err().unwrap_or(ErrorCode::None);
            members.push(MemberResponse {
                member_id: leaving.member_id,
                group_instance_id: leaving.group_instance_id,
                error_code: error.code(),
            });
        }
        if members.iter().any(|member| member.error_code == ErrorCode::None.code()) {
            match self.state {
                State::Stable | State::CompletingRebalance => {
                    self.prepare_rebalance_or_complete_join(turn);
                }
                State::PreparingRebalance => self.maybe_complete_join(turn),
                State::Empty => {}
            }
        }
        LeaveGroupResponse { members, ..LeaveGroupResponse::default() }
    }

    fn leave_one(
        &mut self,
        turn: &mut Turn<'_>,
        leaving: &MemberIdentity,
    ) -> Result<(), ErrorCode> {
        let instance = leaving.group_instance_id.as_deref();
        let member_id = if leaving.member_id.is_empty() {
            let known = instance.and_then(|instance| self.static_members.get(instance));
            known.ok_or(ErrorCode::UnknownMemberId)?.clone()
        } else {
            if !self.pending_join.contains(&leaving.member_id) {
                self.validate_member(&leaving.member_id, instance)?;
            }
            leaving.member_id.clone()
        };
        self.remove(turn, &member_id);
        Ok(())
    }
}
