//! What other voters ask of this one.
//!
//! Invariant: a snapshot is whole and durable under its final name before openraft hears of it, since openraft drops
//! the log before it at once.

use super::announce;
use super::applied;
use super::codec::{Answer, Message, PreVote, SnapshotPart};
use super::types::{self, Raft, SnapshotFile};
use super::{QuorumError, Shared, VoterRecords, index};
use crate::broker::snapshots::{self, SnapshotId};
use crate::machines::metadata::Controller;
use bytes::{Bytes, BytesMut};
use openraft::raft::{AppendEntriesResponse, SnapshotResponse, VoteRequest};
use openraft::{LogId, Snapshot, Vote};
use ottla_protocol::BrokerId;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of a snapshot that a voter takes.
const SNAPSHOT_BYTES_MAX: u64 = 2 << 30;

/// A snapshot on its way in.
pub(super) struct Incoming {
    id: SnapshotId,
    last: LogId<i32>,
    total: u64,
    bytes: BytesMut,
}

/// Answers a message.
pub(super) async fn receive(shared: &Arc<Shared>, message: Bytes) -> Bytes {
    let own = shared.log.params().own.directory_id;
    let answer = match Message::decode(message) {
        // Another disk than the one that voted, and synced, under this id (KIP-853).
        Ok((directory_id, _))
            if !(directory_id.is_nil() || own.is_nil() || directory_id == own) =>
        {
            Answer::Refused(format!("this is not directory {directory_id}"))
        }
        Ok((_, message)) => answer(shared, message).await,
        Err(error) => Answer::Refused(error.to_string()),
    };
    answer.encode()
}

async fn answer(shared: &Arc<Shared>, message: Message) -> Answer {
    let Some(raft) = shared.raft() else {
        return Answer::Refused("this voter has not started yet".to_owned());
    };
    if shared.is_stalled() {
        return Answer::Refused("this voter waits for space on its disk".to_owned());
    }
    if shared.is_closing() {
        return Answer::Refused("this voter stops".to_owned());
    }
    match message {
        Message::Append(request) => {
            let vote = request.vote;
            let is_known = shared.log.ballot().epoch <= types::epoch_of(vote.leader_id.term);
            if is_known {
                // Before it is worked on: a slow disk here is no silence of the leader.
                shared.hear_leader();
            }
            match raft.append_entries(request).await {
                Ok(answer) => {
                    if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                        shared.hear_leader();
                    }
                    Answer::Append(answer)
                }
                Err(error) => Answer::Refused(error.to_string()),
            }
        }
        Message::Vote(request) => vote(shared, raft, request).await,
        Message::EndEpoch(epoch) => {
            if shared.leader.borrow().epoch == epoch {
                shared.bury_leader();
            }
            Answer::EndEpoch
        }
        Message::PreVote(request) => pre_vote(shared, request),
        Message::Announce(announcement) => {
            Answer::Announced(announce::receive(shared, announcement).await)
        }
        Message::Snapshot(part) => match take_part(shared, part).await {
            Ok(vote) => Answer::Snapshot(SnapshotResponse::new(vote)),
            Err(error) => Answer::Refused(error.to_string()),
        },
    }
}

/// Whether this voter leads, or keeps to a leader.
fn is_led(shared: &Shared) -> bool {
    let leads = shared.log.leading().is_some() && !shared.is_abdicating.load(Ordering::Acquire);
    leads || shared.is_leader_kept()
}

/// Votes, unless there is a leader here: then it is as if the question had not come.
async fn vote(shared: &Shared, raft: &Raft, request: VoteRequest<i32>) -> Answer {
    if is_led(shared) {
        return Answer::Refused("this voter leads, or hears its leader".to_owned());
    }
    let candidate = request.vote.leader_id.voted_for;
    match raft.vote(request).await {
        Ok(answer) => {
            if let Some(candidate) = candidate.filter(|_| answer.vote_granted) {
                shared.note_vote(BrokerId(candidate));
            }
            Answer::Vote(answer)
        }
        Err(error) => Answer::Refused(error.to_string()),
    }
}

/// Whether the candidate would get this vote, which is promised to it then: its log is not behind, and no leader is
/// heard here (KIP-996).
fn pre_vote(shared: &Shared, request: PreVote) -> Answer {
    let ballot = shared.log.ballot();
    let (_, last) = shared.log.log_ids();
    // Who has a vote by a record that is not here yet may need this one's.
    let voters = shared.log.voters();
    let is_voter = voters.is_dynamic || voters.get(request.candidate).is_some();
    let is_next = request.epoch > ballot.epoch && request.last >= last;
    let is_granted = is_voter && !is_led(shared) && is_next && shared.promise(request.candidate);
    Answer::PreVote { is_granted, epoch: ballot.epoch }
}

async fn take_part(shared: &Arc<Shared>, part: SnapshotPart) -> Result<Vote<i32>, QuorumError> {
    shared.hear_leader();
    let vote = part.vote;
    let Some(incoming) = collect(shared, part)? else { return Ok(vote) };
    let storing = Arc::clone(shared);
    let stored = crate::env::blocking(move || store(&storing, incoming)).await;
    let stored = stored.map_err(|error| QuorumError::Stopped(error.to_string()))??;
    let Stored { id, last, bytes, voters } = stored;
    let meta = applied::snapshot_meta(id, last, &shared.voters_in(&voters));
    let file = SnapshotFile { end_offset: id.end_offset, bytes };
    let snapshot = Snapshot { meta, snapshot: Box::new(file) };
    let Some(raft) = shared.raft() else { return Ok(vote) };
    let installed = raft.install_full_snapshot(vote, snapshot).await;
    let answer = installed.map_err(|error| QuorumError::Stopped(error.to_string()))?;
    shared.hear_leader();
    Ok(answer.vote)
}

fn misfit(part: &SnapshotPart, cause: &str) -> QuorumError {
    QuorumError::Entry { offset: part.end_offset, cause: format!("snapshot: {cause}") }
}

/// Puts a part to those before it; the whole once it is.
fn collect(shared: &Shared, part: SnapshotPart) -> Result<Option<Incoming>, QuorumError> {
    let id = SnapshotId { end_offset: part.end_offset, epoch: types::epoch_of_id(&part.last) };
    if part.total > SNAPSHOT_BYTES_MAX || part.end_offset.0 <= 0 {
        return Err(misfit(&part, "it is too large, or of nothing"));
    }
    let mut slot = shared.incoming.lock();
    if part.position == 0 {
        let (last, total) = (part.last, part.total);
        *slot = Some(Incoming { id, last, total, bytes: BytesMut::new() });
    }
    let Some(incoming) = slot.as_mut().filter(|incoming| {
        let is_same = incoming.id == id && incoming.last == part.last;
        is_same && incoming.total == part.total && incoming.bytes.len() as u64 == part.position
    }) else {
        return Err(misfit(&part, "a part is missing"));
    };
    incoming.bytes.extend_from_slice(&part.bytes);
    match incoming.bytes.len() as u64 {
        have if have > part.total => Err(misfit(&part, "it is longer than it said")),
        have if have == part.total => Ok(slot.take()),
        _ => Ok(None),
    }
}

struct Stored {
    id: SnapshotId,
    last: LogId<i32>,
    bytes: Bytes,
    voters: VoterRecords,
}

/// Reads the snapshot once and writes it, where it is newer than what is here.
fn store(shared: &Shared, incoming: Incoming) -> Result<Stored, QuorumError> {
    let params = shared.log.params();
    let (id, last, bytes) = (incoming.id, incoming.last, incoming.bytes.freeze());
    let mut controller = Controller::new(params.controller.clone());
    let mut voters = VoterRecords::default();
    snapshots::replay(&bytes, id, &mut controller, &mut voters)?;
    if shared.committed() < id.end_offset && !shared.log.is_failed() {
        let (disk, dir) = (params.disk.as_ref(), shared.log.dir());
        index::write_ordinal(disk, dir, id, last.index)?;
        snapshots::store(disk, dir, id, &bytes)?;
        shared.log.set_snapshot(id, last.index);
    }
    Ok(Stored { id, last, bytes, voters })
}
