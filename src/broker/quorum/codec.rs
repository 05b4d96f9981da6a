//! Messages between voters as bytes, big-endian: `version u8, kind u8`, in a request the id of the receiver's directory
//! (nil for any: one that has another must not answer for it), then the fields of the kind. They travel inside
//! a Kafka frame, which bounds their size; counts and lengths are checked against the bytes that are there.

use super::announce::{Announced, Announcement};
use super::types::{self, Batch, Payload, QuorumEntry};
use announcements::{put_announced, put_announcement};
use bytes::{BufMut, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{LogId, Vote};
use ottla_protocol::batch::check_crc;
use ottla_protocol::{BrokerId, LeaderEpoch, Offset};
use uuid::Uuid;

mod announcements;

const VERSION: u8 = 2;
/// No id.
const NOBODY: i32 = -1;

/// Why bytes are no message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a message of a voter: {0}")]
pub(super) struct CodecError(pub String);

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SnapshotPart {
    /// The leader's claim.
    pub vote: Vote<i32>,
    /// The offset after the snapshot's last record.
    pub end_offset: Offset,
    /// Its last entry.
    pub last: LogId<i32>,
    /// Bytes of the whole file.
    pub total: u64,
    /// Where this part begins.
    pub position: u64,
    /// The part.
    pub bytes: Bytes,
}

/// Would I be elected?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PreVote {
    /// The epoch that the candidate would begin.
    pub epoch: LeaderEpoch,
    /// The candidate.
    pub candidate: BrokerId,
    /// Its last entry.
    pub last: Option<LogId<i32>>,
}

/// What voters ask of each other.
#[derive(Debug)]
pub(super) enum Message {
    Append(AppendEntriesRequest<types::Types>),
    Vote(VoteRequest<i32>),
    PreVote(PreVote),
    Snapshot(SnapshotPart),
    /// The leader of the epoch goes.
    EndEpoch(LeaderEpoch),
    /// A node says that it is there.
    Announce(Announcement),
}

/// What they answer.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Append(AppendEntriesResponse<i32>),
    Vote(VoteResponse<i32>),
    PreVote {
        is_granted: bool,
        epoch: LeaderEpoch,
    },
    Snapshot(SnapshotResponse<i32>),
    EndEpoch,
    Announced(Announced),
    /// It was not done.
    Refused(String),
}

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const PRE_VOTE: u8 = 3;
const SNAPSHOT: u8 = 4;
const END_EPOCH: u8 = 5;
const REFUSED: u8 = 6;
const ANNOUNCE: u8 = 7;

fn begin(kind: u8) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u8(kind);
    out
}

/// Begins a request for a directory.
fn ask(kind: u8, to: Uuid) -> BytesMut {
    let mut out = begin(kind);
    out.put_slice(to.as_bytes());
    out
}

fn put_id(out: &mut BytesMut, id: Option<&LogId<i32>>) {
    out.put_u8(u8::from(id.is_some()));
    if let Some(id) = id {
        out.put_u64(id.leader_id.term);
        out.put_u64(id.index);
    }
}

fn put_vote(out: &mut BytesMut, vote: &Vote<i32>) {
    out.put_u64(vote.leader_id.term);
    out.put_i32(vote.leader_id.voted_for.unwrap_or(NOBODY));
    out.put_u8(u8::from(vote.committed));
}

impl Message {
    /// The message's bytes, for the directory `to`.
    pub fn encode(&self, to: Uuid) -> Bytes {
        match self {
            Message::Append(request) => append_request(request, to),
            Message::Vote(request) => {
                let mut out = ask(VOTE, to);
                put_vote(&mut out, &request.vote);
                put_id(&mut out, request.last_log_id.as_ref());
                out.freeze()
            }
            Message::PreVote(request) => {
                let mut out = ask(PRE_VOTE, to);
                out.put_i32(request.epoch.0);
                out.put_i32(request.candidate.0);
                put_id(&mut out, request.last.as_ref());
                out.freeze()
            }
            Message::EndEpoch(epoch) => {
                let mut out = ask(END_EPOCH, to);
                out.put_i32(epoch.0);
                out.freeze()
            }
            Message::Announce(announcement) => {
                let mut out = ask(ANNOUNCE, to);
                put_announcement(&mut out, announcement);
                out.freeze()
            }
            Message::Snapshot(part) => {
                let mut out = ask(SNAPSHOT, to);
                out.reserve(part.bytes.len() + 64);
                put_vote(&mut out, &part.vote);
                out.put_i64(part.end_offset.0);
                put_id(&mut out, Some(&part.last));
                out.put_u64(part.total);
                out.put_u64(part.position);
                out.put_slice(&part.bytes);
                out.freeze()
            }
        }
    }

    /// Reads a message and for which directory it is; batches in it have been checked.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn decode(bytes: Bytes) -> Result<(Uuid, Message), CodecError> {
        let mut r = Reader { bytes };
        let kind = r.kind()?;
        let to = r.uuid()?;
        let message = match kind {
            APPEND => Message::Append(r.append_request()?),
            VOTE => Message::Vote(VoteRequest { vote: r.vote()?, last_log_id: r.id()? }),
            PRE_VOTE => Message::PreVote(PreVote {
                epoch: LeaderEpoch(r.i32()?),
                candidate: BrokerId(r.i32()?),
                last: r.id()?,
            }),
            SNAPSHOT => Message::Snapshot(SnapshotPart {
                vote: r.vote()?,
                end_offset: Offset(r.i64()?),
                last: r.id()?.ok_or_else(|| CodecError("a snapshot of nothing".to_owned()))?,
                total: r.u64()?,
                position: r.u64()?,
                bytes: std::mem::take(&mut r.bytes),
            }),
            END_EPOCH => Message::EndEpoch(LeaderEpoch(r.i32()?)),
            ANNOUNCE => Message::Announce(r.announcement()?),
            kind => return Err(CodecError(format!("kind {kind}"))),
        };
        r.end()?;
        Ok((to, message))
    }
}

fn append_request(request: &AppendEntriesRequest<types::Types>, to: Uuid) -> Bytes {
    let mut out = ask(APPEND, to);
    put_vote(&mut out, &request.vote);
    put_id(&mut out, request.prev_log_id.as_ref());
    put_id(&mut out, request.leader_commit.as_ref());
    let count = request.entries.len();
    out.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
    for entry in &request.entries {
        out.put_u64(entry.log_id.leader_id.term);
        out.put_u64(entry.log_id.index);
        // What a leader reads back from its log is a batch, always.
        let bytes = match &entry.payload {
            Payload::Batch(batch) => batch.bytes.as_ref(),
            Payload::EpochStart => &[],
        };
        out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        out.put_slice(bytes);
    }
    out.freeze()
}

impl Answer {
    /// The answer's bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Answer::Append(answer) => {
                let mut out = begin(APPEND);
                match answer {
                    AppendEntriesResponse::Success => out.put_u8(0),
                    AppendEntriesResponse::Conflict => out.put_u8(1),
                    AppendEntriesResponse::HigherVote(vote) => {
                        out.put_u8(2);
                        put_vote(&mut out, vote);
                    }
                    AppendEntriesResponse::PartialSuccess(matching) => {
                        out.put_u8(3);
                        put_id(&mut out, matching.as_ref());
                    }
                }
                out.freeze()
            }
            Answer::Vote(answer) => {
                let mut out = begin(VOTE);
                put_vote(&mut out, &answer.vote);
                out.put_u8(u8::from(answer.vote_granted));
                put_id(&mut out, answer.last_log_id.as_ref());
                out.freeze()
            }
            Answer::PreVote { is_granted, epoch } => {
                let mut out = begin(PRE_VOTE);
                out.put_u8(u8::from(*is_granted));
                out.put_i32(epoch.0);
                out.freeze()
            }
            Answer::Snapshot(answer) => {
                let mut out = begin(SNAPSHOT);
                put_vote(&mut out, &answer.vote);
                out.freeze()
            }
            Answer::EndEpoch => begin(END_EPOCH).freeze(),
            Answer::Announced(answer) => {
                let mut out = begin(ANNOUNCE);
                put_announced(&mut out, answer);
                out.freeze()
            }
            Answer::Refused(why) => {
                let mut out = begin(REFUSED);
                out.put_slice(why.as_bytes());
                out.freeze()
            }
        }
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn decode(bytes: Bytes) -> Result<Answer, CodecError> {
        let mut r = Reader { bytes };
        let answer = match r.kind()? {
            APPEND => Answer::Append(match r.u8()? {
                0 => AppendEntriesResponse::Success,
                1 => AppendEntriesResponse::Conflict,
                2 => AppendEntriesResponse::HigherVote(r.vote()?),
                3 => AppendEntriesResponse::PartialSuccess(r.id()?),
                other => return Err(CodecError(format!("outcome {other}"))),
            }),
            VOTE => Answer::Vote(VoteResponse {
                vote: r.vote()?,
                vote_granted: r.flag()?,
                last_log_id: r.id()?,
            }),
            PRE_VOTE => Answer::PreVote { is_granted: r.flag()?, epoch: LeaderEpoch(r.i32()?) },
            SNAPSHOT => Answer::Snapshot(SnapshotResponse { vote: r.vote()? }),
            END_EPOCH => Answer::EndEpoch,
            ANNOUNCE => Answer::Announced(r.announced()?),
            REFUSED => {
                let why = std::mem::take(&mut r.bytes);
                Answer::Refused(String::from_utf8_lossy(&why).into_owned())
            }
            kind => return Err(CodecError(format!("kind {kind}"))),
        };
        r.end()?;
        Ok(answer)
    }
}

pub(super) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(super) fn take(&mut self, len: usize) -> Result<Bytes, CodecError> {
        if self.bytes.len() < len {
            return Err(CodecError(format!("{len} bytes are to come, {} do", self.bytes.len())));
        }
        Ok(self.bytes.split_to(len))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let mut out = [0; N];
        out.copy_from_slice(&self.take(N)?);
        Ok(out)
    }

    pub(super) fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn flag(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(CodecError(format!("flag {other}"))),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, CodecError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, CodecError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid, CodecError> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    fn kind(&mut self) -> Result<u8, CodecError> {
        let version = self.u8()?;
        if version != VERSION {
            return Err(CodecError(format!("version {version}")));
        }
        self.u8()
    }

    /// A term: a leader epoch, so of 31 bits.
    fn term(&mut self) -> Result<u64, CodecError> {
        let term = self.u64()?;
        // One below the end, so that a next epoch is one too.
        if term >= i32::MAX as u64 {
            return Err(CodecError(format!("term {term}")));
        }
        Ok(term)
    }

    fn log_id(&mut self) -> Result<LogId<i32>, CodecError> {
        let term = self.term()?;
        let index = self.u64()?;
        if index > u64::MAX >> 1 {
            return Err(CodecError(format!("index {index}")));
        }
        Ok(types::log_id(types::epoch_of(term), index))
    }

    fn id(&mut self) -> Result<Option<LogId<i32>>, CodecError> {
        if self.flag()? { self.log_id().map(Some) } else { Ok(None) }
    }

    fn vote(&mut self) -> Result<Vote<i32>, CodecError> {
        let term = self.term()?;
        let voted_for = self.i32()?;
        let committed = self.flag()?;
        if voted_for < 0 && committed {
            return Err(CodecError("nobody is elected".to_owned()));
        }
        let voted_for = (voted_for >= 0).then_some(BrokerId(voted_for));
        Ok(types::vote(types::epoch_of(term), voted_for, committed))
    }

    fn append_request(&mut self) -> Result<AppendEntriesRequest<types::Types>, CodecError> {
        let (vote, prev_log_id, leader_commit) = (self.vote()?, self.id()?, self.id()?);
        let count = u64::from(self.u32()?);
        let mut entries: Vec<QuorumEntry> = Vec::new();
        let first = prev_log_id.map_or(0, |prev| prev.index + 1);
        for next in first..first + count {
            let entry = self.entry()?;
            if entry.log_id.index != next {
                return Err(CodecError(format!("{} is to be {next}", entry.log_id)));
            }
            entries.push(entry);
        }
        Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
    }

    fn entry(&mut self) -> Result<QuorumEntry, CodecError> {
        let log_id = self.log_id()?;
        let len = self.u32()?;
        let bytes = self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        let unsound = |cause: &dyn std::fmt::Display| CodecError(format!("{log_id}: {cause}"));
        let batch = Batch::parse(bytes).map_err(|cause| unsound(&cause))?;
        check_crc(&batch.header, &batch.bytes).map_err(|cause| unsound(&cause))?;
        if batch.header.leader_epoch != types::epoch_of_id(&log_id) {
            return Err(unsound(&format!("a batch of epoch {}", batch.header.leader_epoch)));
        }
        Ok(QuorumEntry::of(log_id, batch))
    }

    fn end(&self) -> Result<(), CodecError> {
        match self.bytes.len() {
            0 => Ok(()),
            more => Err(CodecError(format!("{more} bytes too many"))),
        }
    }
}

#[cfg(test)]
mod tests;
