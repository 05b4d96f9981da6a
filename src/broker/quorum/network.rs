//! openraft's messages to other voters, over whatever carries bytes to them and answers back.

use super::Shared;
use super::codec::{Answer, CodecError, Message, SnapshotPart};
use super::types::{self, Types};
use crate::broker::Address;
use bytes::Bytes;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot, Vote};
use ottla_protocol::{BrokerId, LeaderEpoch};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use uuid::Uuid;

/// Bytes of a snapshot in one message.
const SNAPSHOT_PART_BYTES: usize = 1 << 20;
/// Pause before a voter that could not be reached is tried again.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(50);
/// How long a voter may take for one part of a snapshot: the last one is made durable and applied.
const SNAPSHOT_PART_TIMEOUT: Duration = Duration::from_secs(30);

/// A future of a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a message was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("voter {to}: {cause}")]
pub struct TransportError {
    /// Whom it was for: an id, or an address.
    pub to: String,
    /// Why.
    pub cause: String,
}

/// Carries messages between voters. What it carries is opaque and at most a little more than 1 MiB, or than one batch
/// of the log.
pub trait RaftTransport: Send + Sync + 'static {
    /// Sends a message to a voter and waits for the answer, which [`super::Quorum::receive`] makes there. Dropping the
    /// future gives the answer up; the message may have been received.
    fn send(&self, to: BrokerId, message: Bytes) -> BoxFuture<'_, Result<Bytes, TransportError>>;

    /// The same to whoever listens at an address.
    fn send_to(
        &self,
        address: Address,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>>;
}

/// Makes the connections of openraft.
pub(super) struct Network {
    /// The voter.
    pub shared: Arc<Shared>,
    /// What carries the bytes.
    pub transport: Arc<dyn RaftTransport>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: i32, _node: &EmptyNode) -> Link {
        let (shared, transport) = (Arc::clone(&self.shared), Arc::clone(&self.transport));
        let link = Link { shared, transport, to: BrokerId(target), directory_id: OnceLock::new() };
        // Now, not with the first message: what openraft knows, it knows of the disk that is meant now.
        let _ = link.receiver();
        link
    }
}

/// The way to one disk of one voter: openraft makes another one when the members change.
pub(super) struct Link {
    shared: Arc<Shared>,
    transport: Arc<dyn RaftTransport>,
    to: BrokerId,
    /// The disk, once it is known: another one with the same id must not answer for it.
    directory_id: OnceLock<Uuid>,
}

type RpcError = RPCError<i32, EmptyNode, RaftError<i32>>;

/// What went wrong on the way.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("voter {0} refused: {1}")]
    Refused(String, String),
    #[error("voter {0} took too long")]
    TimedOut(BrokerId),
    #[error("node {0} has not said yet which directory it has")]
    Unknown(BrokerId),
}

impl From<LinkError> for RpcError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Codec(error) => RPCError::Network(NetworkError::new(&error)),
            error => RPCError::Unreachable(Unreachable::new(&error)),
        }
    }
}

/// Sends a message and reads the answer.
async fn ask(
    transport: &dyn RaftTransport,
    (to, directory_id): Receiver,
    message: &Message,
) -> Result<Answer, LinkError> {
    match Answer::decode(transport.send(to, message.encode(directory_id)).await?)? {
        Answer::Refused(why) => Err(LinkError::Refused(to.to_string(), why)),
        answer => Ok(answer),
    }
}

/// The same for whoever listens at an address.
pub(super) async fn ask_at(
    transport: &dyn RaftTransport,
    address: Address,
    message: &Message,
) -> Result<Answer, LinkError> {
    let to = format!("at {}:{}", address.0, address.1);
    match Answer::decode(transport.send_to(address, message.encode(Uuid::nil())).await?)? {
        Answer::Refused(why) => Err(LinkError::Refused(to, why)),
        answer => Ok(answer),
    }
}

/// Node and directory that a message is for; nil for whichever the node has.
pub(super) type Receiver = (BrokerId, Uuid);

/// Asks a voter whether it would grant its vote.
pub(super) async fn ask_pre_vote(
    transport: &dyn RaftTransport,
    to: Receiver,
    request: super::codec::PreVote,
) -> bool {
    let answer = ask(transport, to, &Message::PreVote(request)).await;
    matches!(answer, Ok(Answer::PreVote { is_granted: true, .. }))
}

/// Tells a voter that the epoch of this leader ends.
pub(super) async fn tell_end(transport: &dyn RaftTransport, to: Receiver, epoch: LeaderEpoch) {
    if let Err(error) = ask(transport, to, &Message::EndEpoch(epoch)).await {
        tracing::debug!(%error, "a voter does not know that its leader goes");
    }
}

impl Link {
    /// Whom messages are for; the directory is nil where voters have none (`kraft.version` 0).
    fn receiver(&self) -> Result<Receiver, LinkError> {
        if let Some(directory_id) = self.directory_id.get() {
            return Ok((self.to, *directory_id));
        }
        let directory_id = self.shared.directory_of(self.to);
        match directory_id.is_nil() {
            true if self.shared.log.voters().is_dynamic => Err(LinkError::Unknown(self.to)),
            true => Ok((self.to, directory_id)),
            false => Ok((self.to, *self.directory_id.get_or_init(|| directory_id))),
        }
    }

    async fn ask(&self, message: &Message) -> Result<Answer, LinkError> {
        ask(self.transport.as_ref(), self.receiver()?, message).await
    }

    fn unexpected(&self) -> LinkError {
        LinkError::Codec(CodecError(format!("voter {} answers something else", self.to)))
    }

    async fn send_snapshot(
        &self,
        vote: Vote<i32>,
        snapshot: Snapshot<Types>,
    ) -> Result<SnapshotResponse<i32>, LinkError> {
        let (file, last) = (snapshot.snapshot, snapshot.meta.last_log_id);
        let Some(last) = last else { return Err(self.unexpected()) };
        let total = file.bytes.len();
        let mut position = 0;
        loop {
            let end = total.min(position + SNAPSHOT_PART_BYTES);
            let part = Message::Snapshot(SnapshotPart {
                vote,
                end_offset: file.end_offset,
                last,
                total: total as u64,
                position: position as u64,
                bytes: file.bytes.slice(position..end),
            });
            let answer = tokio::time::timeout(SNAPSHOT_PART_TIMEOUT, self.ask(&part)).await;
            let answer = answer.map_err(|_| LinkError::TimedOut(self.to))??;
            let Answer::Snapshot(answer) = answer else { return Err(self.unexpected()) };
            if end == total || answer.vote > vote {
                return Ok(answer);
            }
            position = end;
        }
    }
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<i32>, RpcError> {
        let last = request.entries.last().and_then(|entry| entry.end_offset());
        let prev = request.prev_log_id.and_then(|prev| self.shared.log.end_of(prev.index));
        let message = Message::Append(request);
        let patience = self.shared.log.params().timing.request_timeout;
        self.shared.note_asked();
        let asked = tokio::time::timeout(patience, self.ask(&message)).await;
        match asked.map_err(|_| LinkError::TimedOut(self.to))?? {
            Answer::Append(answer) => {
                let end = match answer {
                    AppendEntriesResponse::Success => last.or(prev),
                    _ => None,
                };
                self.shared.hear_voter(self.to, end);
                Ok(answer)
            }
            _ => Err(self.unexpected().into()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<i32>,
        _option: RPCOption,
    ) -> Result<VoteResponse<i32>, RpcError> {
        let epoch = types::epoch_of(request.vote.leader_id.term);
        let (vote, message) = (request.vote, Message::Vote(request));
        let patience = self.shared.log.params().timing.request_timeout;
        let asked = tokio::time::timeout(patience, self.ask(&message)).await;
        let answer = asked.unwrap_or(Err(LinkError::TimedOut(self.to)));
        match &answer {
            Ok(Answer::Vote(answer)) if answer.vote_granted && answer.vote == vote => {
                self.shared.log.note_grant(epoch, self.to);
            }
            _ => self.shared.note_refusal(epoch),
        }
        match answer? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(self.unexpected().into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<i32>,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<i32>, StreamingError<Types, Fatal<i32>>> {
        let mut cancel = pin!(cancel);
        tokio::select! {
            biased;
            closed = &mut cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => sent.map_err(|error| match error {
                LinkError::Codec(error) => StreamingError::Network(NetworkError::new(&error)),
                error => StreamingError::Unreachable(Unreachable::new(&error)),
            }),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}
