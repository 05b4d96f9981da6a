//! Connections to other nodes, over which Kafka's requests go.
//!
//! A [`PeerClient`] is one connection to one node: it dials when it is first used and again after it broke, learns the
//! versions that the other side serves (KIP-35), and keeps many requests in flight, whose answers come in their order.
//! Who needs to be undisturbed by others (the quorum, heartbeats, each fetcher) has a client of its own.
//! Deliberately not here: when to try again, which is for those who know what the request was.

use crate::env::net::{Connection, Read, SendQueue};
use bytes::{Bytes, BytesMut};
use ottla_protocol::apis::ListenerType;
use ottla_protocol::frame::{self, FrameError};
use ottla_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ottla_protocol::request::{self, CONTROLLER_PEER, QUORUM_MESSAGE_KEY};
use ottla_protocol::{ApiKey, BrokerId, ErrorCode, Request, WireError};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for one connection; past it new ones are refused.
const QUEUE_MAX: usize = 1024;
/// Requests in flight on one connection.
const IN_FLIGHT_MAX: usize = 1024;
/// Bytes read at a time where no frame has begun.
const CHUNK: usize = 16 * 1024;
/// Bytes read at a time within a large frame.
const CHUNK_MAX: usize = 1 << 20;

/// Why a request got no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// The node cannot be reached.
    #[error("cannot connect to {address}: {cause}")]
    Connect {
        /// Where.
        address: String,
        /// What the system said.
        cause: Arc<io::Error>,
    },
    /// The connection broke: whether the request was done is not known.
    #[error("connection to {address} broken: {cause}")]
    Broken {
        /// Where.
        address: String,
        /// Why.
        cause: String,
    },
    /// No answer came in time: whether the request was done is not known.
    #[error("{address} did not answer within {} ms", patience.as_millis())]
    TimedOut {
        /// Where.
        address: String,
        /// How long it had.
        patience: Duration,
    },
    /// The answer is none.
    #[error("{address} answered what is no answer: {cause}")]
    Malformed {
        /// Where.
        address: String,
        /// What is wrong.
        cause: String,
    },
    /// The node does not serve this API in a version that is spoken here.
    #[error("{address} does not serve {api:?} up to version {max}")]
    NotServed {
        /// Where.
        address: String,
        /// The API.
        api: ApiKey,
        /// The highest version that is spoken here.
        max: i16,
    },
    /// Too many requests wait already.
    #[error("too many requests wait for {address}")]
    Busy {
        /// Where.
        address: String,
    },
}

impl PeerError {
    /// Whether the other machine says that nobody listens there: the process is gone.
    pub fn is_refused(&self) -> bool {
        matches!(self, PeerError::Connect { cause, .. } if cause.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Where a node listens, and how patient its callers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerParams {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `client.id` of the requests.
    pub client_id: String,
    /// How long connecting may take, and how long each answer.
    pub patience: Duration,
    /// Longest answer in bytes.
    pub answer_bytes_max: usize,
    /// Whether the node's broker is wanted or its controller, which may have a listener in common.
    pub wanted: ListenerType,
}

impl PeerParams {
    /// Whether the node is the one at this address.
    pub fn is_for(&self, host: &str, port: u16) -> bool {
        self.host == host && self.port == port
    }
}

struct Outgoing {
    key: i16,
    max_version: i16,
    /// Writes the request's frame for a correlation id and a version.
    write: Box<dyn FnOnce(i32, i16) -> Bytes + Send>,
    reply: oneshot::Sender<Result<(Bytes, i16), PeerError>>,
}

/// One connection to one node.
#[derive(Debug, Clone)]
pub struct PeerClient {
    params: Arc<PeerParams>,
    queue: Arc<Mutex<Option<mpsc::Sender<Outgoing>>>>,
}

impl PeerClient {
    /// A client that has not connected yet.
    pub fn new(params: PeerParams) -> PeerClient {
        PeerClient { params: Arc::new(params), queue: Arc::default() }
    }

    /// Whom it talks to.
    pub fn params(&self) -> &PeerParams {
        &self.params
    }

    /// Sends a request in the highest version that both sides know, at most `max_version`, and waits for its answer;
    /// dropping the future gives the answer up.
    ///
    /// # Errors
    /// Every [`PeerError`]; the connection is closed with all of them but `NotServed` and `Busy`.
    pub async fn call<R>(&self, max_version: i16, request: R) -> Result<R::Response, PeerError>
    where
        R: Request + Send + 'static,
    {
        let client_id = self.params.client_id.clone();
        let write = move |correlation_id, version| {
            request::write_request(correlation_id, Some(&client_id), version, &request).freeze()
        };
        let (answer, version) = self.send(R::KEY, max_version, Box::new(write)).await?;
        let parsed = request::parse_response::<R::Response>(answer, version);
        parsed.map(|(_, response)| response).map_err(|cause| self.malformed(&cause))
    }

    /// Sends a message of the voters' own as `sender` of a cluster and waits for the answer to it.
    ///
    /// # Errors
    /// Those of [`PeerClient::call`].
    pub async fn quorum_message(
        &self,
        (sender, cluster_id): (BrokerId, Arc<str>),
        message: Bytes,
    ) -> Result<Bytes, PeerError> {
        let write = move |correlation_id, _| {
            let sender = (sender, &*cluster_id);
            request::write_quorum_message(correlation_id, sender, &message).freeze()
        };
        let (answer, _) = self.send(QUORUM_MESSAGE_KEY, 0, Box::new(write)).await?;
        Ok(answer.slice(4..))
    }

    async fn send(
        &self,
        key: i16,
        max_version: i16,
        write: Box<dyn FnOnce(i32, i16) -> Bytes + Send>,
    ) -> Result<(Bytes, i16), PeerError> {
        let (reply, answer) = oneshot::channel();
        let outgoing = Outgoing { key, max_version, write, reply };
        let queue = self.queue();
        if let Err(error) = queue.try_send(outgoing) {
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => PeerError::Busy { address: self.address() },
                mpsc::error::TrySendError::Closed(_) => self.broken("it has just been closed"),
            });
        }
        let patience = self.params.patience;
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.broken("it has just been closed")),
            Err(_) => {
                // What comes after an answer that does not come would wait as well.
                self.disconnect();
                Err(PeerError::TimedOut { address: self.address(), patience })
            }
        }
    }

    /// The running connection's queue, or a new one's.
    fn queue(&self) -> mpsc::Sender<Outgoing> {
        let mut queue = self.queue.lock();
        match &*queue {
            Some(sender) if !sender.is_closed() => sender.clone(),
            _ => {
                let (sender, receiver) = mpsc::channel(QUEUE_MAX);
                tokio::spawn(run(Arc::clone(&self.params), receiver));
                *queue = Some(sender.clone());
                sender
            }
        }
    }

    /// Closes the connection once the requests that were taken are answered or given up; the next call dials anew.
    pub fn disconnect(&self) {
        *self.queue.lock() = None;
    }

    /// Dials the node, asks it what it serves, and hangs up: whether it can be reached and answers.
    ///
    /// # Errors
    /// `Connect`, `Broken`, `TimedOut`, `Malformed`.
    pub async fn probe(&self) -> Result<(), PeerError> {
        open(&self.params).await.map(drop)
    }

    fn address(&self) -> String {
        address(&self.params)
    }

    fn broken(&self, cause: &str) -> PeerError {
        PeerError::Broken { address: self.address(), cause: cause.to_owned() }
    }

    fn malformed(&self, cause: &WireError) -> PeerError {
        self.disconnect();
        PeerError::Malformed { address: self.address(), cause: cause.to_string() }
    }
}

fn address(params: &PeerParams) -> String {
    format!("{}:{}", params.host, params.port)
}

async fn dial(params: &PeerParams) -> Result<Connection, PeerError> {
    let dialled = Connection::dial(&params.host, params.port, params.patience).await;
    dialled.map_err(|cause| PeerError::Connect { address: address(params), cause: Arc::new(cause) })
}

/// A request that was sent.
struct Sent {
    correlation_id: i32,
    version: i16,
    reply: oneshot::Sender<Result<(Bytes, i16), PeerError>>,
}

/// The life of one connection: it ends when it breaks, or when its client has let go of it and all is answered.
async fn run(params: Arc<PeerParams>, mut queue: mpsc::Receiver<Outgoing>) {
    let error = match open(&params).await {
        Ok((connection, input, versions)) => {
            let link = Link {
                params: &params,
                connection,
                versions,
                in_flight: Mutex::new(VecDeque::new()),
                answered: tokio::sync::Notify::new(),
            };
            let error = tokio::select! {
                biased;
                error = link.read_all(input) => error,
                error = link.write_all(&mut queue) => error,
            };
            queue.close();
            for sent in link.in_flight.into_inner() {
                // One that has given up does not want it.
                let _ = sent.reply.send(Err(error.clone()));
            }
            error
        }
        Err(error) => error,
    };
    queue.close();
    while let Some(outgoing) = queue.recv().await {
        let _ = outgoing.reply.send(Err(error.clone()));
    }
}

type Versions = BTreeMap<i16, (i16, i16)>;

/// Connects and learns what the other side serves.
async fn open(params: &PeerParams) -> Result<(Connection, BytesMut, Versions), PeerError> {
    const VERSION: i16 = 3;
    let connection = dial(params).await?;
    let asked = ApiVersionsRequest {
        client_software_name: match params.wanted {
            ListenerType::Broker => "ottla".to_owned(),
            ListenerType::Controller => CONTROLLER_PEER.to_owned(),
        },
        client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    let frame = request::write_request(0, Some(&params.client_id), VERSION, &asked);
    let mut input = BytesMut::new();
    let broken = |cause: Failure| cause.of(params);
    let exchange = async {
        let mut queue = SendQueue::default();
        queue.bytes_mut().extend_from_slice(&frame);
        connection.send(&mut queue, Some(params.patience)).await?;
        next_frame(&connection, &mut input, params.answer_bytes_max).await
    };
    let late = |_| PeerError::TimedOut { address: address(params), patience: params.patience };
    let answer = tokio::time::timeout(params.patience, exchange).await.map_err(late)?;
    let answer = answer.map_err(broken)?;
    let (_, response) = request::parse_response::<ApiVersionsResponse>(answer, VERSION)
        .map_err(|cause| broken(Failure::Wire(cause)))?;
    let error = ErrorCode::from_code(response.error_code);
    if error.is_err() {
        return Err(broken(Failure::Wire(WireError::Invalid(error.message().to_owned()))));
    }
    let versions = response.api_keys.iter();
    let versions = versions.map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
    Ok((connection, input, versions))
}

/// What went wrong on a connection.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("an answer to another request")]
    OutOfOrder,
}

impl Failure {
    fn of(self, params: &PeerParams) -> PeerError {
        let (address, cause) = (address(params), self.to_string());
        match self {
            Failure::Io(_) => PeerError::Broken { address, cause },
            Failure::Frame(_) | Failure::Wire(_) | Failure::OutOfOrder => {
                PeerError::Malformed { address, cause }
            }
        }
    }
}

/// Reads until a whole frame is there.
async fn next_frame(
    connection: &Connection,
    input: &mut BytesMut,
    max: usize,
) -> Result<Bytes, Failure> {
    loop {
        if let Some(frame) = frame::next_frame(input, max)? {
            return Ok(frame);
        }
        connection.readable().await?;
        let limit = if input.len() < frame::LENGTH_BYTES {
            CHUNK
        } else {
            (frame::missing(input, max)? + frame::LENGTH_BYTES).clamp(CHUNK, CHUNK_MAX)
        };
        if connection.read(input, limit)? == Read::Closed {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// An open connection at work.
struct Link<'a> {
    params: &'a PeerParams,
    connection: Connection,
    versions: Versions,
    in_flight: Mutex<VecDeque<Sent>>,
    answered: tokio::sync::Notify,
}

impl Link<'_> {
    /// Reads answers until the connection breaks.
    async fn read_all(&self, mut input: BytesMut) -> PeerError {
        loop {
            let max = self.params.answer_bytes_max;
            let read = next_frame(&self.connection, &mut input, max).await;
            if let Err(failure) = read.and_then(|frame| self.take_answer(frame)) {
                return failure.of(self.params);
            }
        }
    }

    fn take_answer(&self, frame: Bytes) -> Result<(), Failure> {
        let correlation_id = match frame.first_chunk::<4>() {
            Some(id) => i32::from_be_bytes(*id),
            None => return Err(WireError::Invalid("an answer without a header".to_owned()).into()),
        };
        let sent = self.in_flight.lock().pop_front().ok_or(Failure::OutOfOrder)?;
        self.answered.notify_one();
        if sent.correlation_id != correlation_id {
            let error = Failure::OutOfOrder.of(self.params);
            let _ = sent.reply.send(Err(error));
            return Err(Failure::OutOfOrder);
        }
        // One that has given up does not want it.
        let _ = sent.reply.send(Ok((frame, sent.version)));
        Ok(())
    }

    /// Sends requests until the connection breaks, or the client lets go of it and has all answers.
    async fn write_all(&self, queue: &mut mpsc::Receiver<Outgoing>) -> PeerError {
        let mut next_correlation_id = 1;
        let mut output = SendQueue::default();
        while let Some(outgoing) = queue.recv().await {
            self.take(outgoing, &mut next_correlation_id, &mut output);
            while output.len() < CHUNK_MAX {
                let Ok(outgoing) = queue.try_recv() else { break };
                self.take(outgoing, &mut next_correlation_id, &mut output);
            }
            let sent = self.connection.send(&mut output, Some(self.params.patience)).await;
            if let Err(error) = sent {
                return Failure::Io(error).of(self.params);
            }
            output.release();
            self.until_in_flight_is_below(IN_FLIGHT_MAX).await;
        }
        self.until_in_flight_is_below(1).await;
        Failure::Io(io::ErrorKind::NotConnected.into()).of(self.params)
    }

    async fn until_in_flight_is_below(&self, bound: usize) {
        loop {
            let answered = self.answered.notified();
            if self.in_flight.lock().len() < bound {
                return;
            }
            answered.await;
        }
    }

    /// Writes a request to `output`, unless the other side does not know it or nobody waits for it any more.
    fn take(&self, outgoing: Outgoing, next_correlation_id: &mut i32, output: &mut SendQueue) {
        let Outgoing { key, max_version, write, reply } = outgoing;
        if reply.is_closed() {
            return;
        }
        let version = match self.version(key, max_version) {
            Ok(version) => version,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let correlation_id = *next_correlation_id;
        *next_correlation_id = correlation_id.wrapping_add(1);
        self.in_flight.lock().push_back(Sent { correlation_id, version, reply });
        output.bytes_mut().extend_from_slice(&write(correlation_id, version));
    }

    fn version(&self, key: i16, max: i16) -> Result<i16, PeerError> {
        // The voters' messages carry their own version.
        let Some(api) = ApiKey::from_code(key) else { return Ok(max) };
        let served = self.versions.get(&key);
        let version = served.map(|(min, their_max)| (*min, max.min(*their_max)));
        match version {
            Some((min, version)) if version >= min => Ok(version),
            _ => Err(PeerError::NotServed { address: address(self.params), api, max }),
        }
    }
}

#[cfg(test)]
mod tests;
