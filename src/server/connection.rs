//! One connection: frames in, answers out in the order of the requests.
//!
//! Reads whatever the socket has, handles every whole frame in it, and writes the answers together. A request whose
//! answer is not ready (a fetch that waits, a group's join) is awaited before the next one is looked at, as in Kafka,
//! after what is ready has been written. No task and no channel per request.
//! Invariants: the read buffer never grows past one frame and one chunk; an idle connection holds no buffer.

use super::handlers::{self, Begun, Close, Pending, RequestContext};
use crate::env::net::{Connection, Read, SendQueue};
use bytes::{Bytes, BytesMut};
use ottla_protocol::{frame, request};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tracing::{debug, info};

/// Bytes read at once while nothing is known about the peer's frames.
const CHUNK_MIN: usize = 4 * 1024;
/// Bytes read at once from a peer that sends large frames, at most.
const CHUNK_MAX: usize = 1024 * 1024;
/// Answers that are written before more requests are handled.
const ANSWERS_MAX: usize = 256 * 1024;
/// A connection that has been quiet for so long gives its buffers back.
const BUFFERS_KEPT: Duration = Duration::from_secs(1);

/// Serves the connection until one of the two sides ends it.
pub(crate) async fn serve(connection: &Connection, context: RequestContext) {
    let session = Session {
        connection,
        context,
        input: BytesMut::new(),
        output: SendQueue::default(),
        chunk: CHUNK_MIN,
    };
    session.run().await;
}

struct Session<'c> {
    connection: &'c Connection,
    context: RequestContext,
    input: BytesMut,
    output: SendQueue,
    /// Bytes to read when no frame is begun: a little more than the last frame.
    chunk: usize,
}

impl Session<'_> {
    async fn run(mut self) {
        let idle = tokio::time::sleep(BUFFERS_KEPT);
        tokio::pin!(idle);
        let mut quiet = Quiet { since: Instant::now(), released: false };
        let reason = loop {
            if let Err(reason) = self.handle_frames().await {
                break reason;
            }
            match self.read() {
                Ok(Read::Some) => {
                    quiet.since = Instant::now();
                    continue;
                }
                Ok(Read::Closed) => break Close::ByPeer,
                Ok(Read::Nothing) => {}
                Err(reason) => break reason,
            }
            if let Err(reason) = self.wait(idle.as_mut(), &mut quiet).await {
                break reason;
            }
        };
        self.end(&reason);
        self.context.peer_gone();
    }

    /// Waits for the peer; gives buffers back and ends the connection in time.
    async fn wait(
        &mut self,
        mut timer: std::pin::Pin<&mut Sleep>,
        quiet: &mut Quiet,
    ) -> Result<(), Close> {
        let idle_max = self.context.shared.limits.idle_max;
        if quiet.released && quiet.since.elapsed() < BUFFERS_KEPT {
            quiet.released = false;
            timer.as_mut().reset(Instant::now() + BUFFERS_KEPT);
        }
        loop {
            tokio::select! {
                biased;
                ready = self.connection.readable() => return ready.map_err(Close::Broken),
                () = timer.as_mut() => {}
            }
            let quiet_for = quiet.since.elapsed();
            if idle_max.is_some_and(|max| quiet_for >= max) {
                return Err(Close::Idle);
            }
            if quiet_for >= BUFFERS_KEPT {
                self.release();
                quiet.released = true;
                // Without a limit there is nothing left to wake up for; a day is as good as never.
                let next = idle_max.unwrap_or(Duration::from_secs(86_400));
                timer.as_mut().reset(quiet.since + next);
                continue;
            }
            timer.as_mut().reset(quiet.since + BUFFERS_KEPT);
        }
    }

    fn release(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
            self.chunk = CHUNK_MIN;
        }
        self.output.release();
    }

    /// Reads to the end of the frame that is begun, or a chunk.
    fn read(&mut self) -> Result<Read, Close> {
        let limit = if self.input.len() < frame::LENGTH_BYTES {
            self.chunk
        } else {
            let max = self.context.shared.limits.request_bytes_max;
            // The next frame's length comes along, so that its read can be as exact.
            let missing = frame::missing(&self.input, max)? + frame::LENGTH_BYTES;
            missing.clamp(CHUNK_MIN, CHUNK_MAX)
        };
        self.connection.read(&mut self.input, limit).map_err(Close::Broken)
    }

    async fn handle_frames(&mut self) -> Result<(), Close> {
        let max = self.context.shared.limits.request_bytes_max;
        while let Some(frame) = frame::next_frame(&mut self.input, max)? {
            self.chunk = (frame.len() + 8).clamp(CHUNK_MIN, CHUNK_MAX);
            self.handle(frame).await?;
            if self.output.len() >= ANSWERS_MAX {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    async fn handle(&mut self, frame: Bytes) -> Result<(), Close> {
        let (header, body) = request::parse_header(frame)?;
        let idle_max = self.context.shared.limits.idle_max;
        let before = self.output.len();
        if self.context.is_undecided {
            self.context.decide(&header, &body).await;
        }
        let begun = handlers::begin(&mut self.context, header, body, &mut self.output);
        let mut pending = match begun? {
            Begun::Done => return Ok(()),
            Begun::Pending(pending) => pending,
        };
        debug_assert_eq!(before, self.output.len());
        // Most answers are ready at the first look: they need no write of their own.
        if let Some(answer) = poll_once(&mut pending).await {
            self.output.append(answer?);
            return Ok(());
        }
        send(self.connection, &mut self.output, idle_max).await?;
        let answer = within(idle_max, pending).await??;
        self.output.append(answer);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Close> {
        if self.output.is_empty() {
            return Ok(());
        }
        let idle_max = self.context.shared.limits.idle_max;
        send(self.connection, &mut self.output, idle_max).await
    }

    fn end(&self, reason: &Close) {
        let peer = self.context.peer;
        let client_id = self.context.client_id.as_deref().unwrap_or_default();
        if !reason.is_peers_fault() {
            debug!(%peer, client_id, %reason, "connection closed");
            return;
        }
        if let Some(left_out) = self.context.shared.refusals.admit(Instant::now()) {
            info!(%peer, client_id, %reason, left_out, "connection closed");
        }
    }
}

/// Sends what is queued; a peer that takes nothing for too long is idle, like one that says nothing.
async fn send(
    connection: &Connection,
    output: &mut SendQueue,
    idle_max: Option<Duration>,
) -> Result<(), Close> {
    connection.send(output, idle_max).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::TimedOut if idle_max.is_some() => Close::Idle,
        _ => Close::Broken(error),
    })
}

/// Waits for an answer, but not longer than a connection may be idle.
async fn within<F: Future>(idle_max: Option<Duration>, answer: F) -> Result<F::Output, Close> {
    match idle_max {
        Some(max) => tokio::time::timeout(max, answer).await.map_err(|_| Close::Idle),
        None => Ok(answer.await),
    }
}

/// Since when a peer has been quiet.
struct Quiet {
    since: Instant,
    released: bool,
}

async fn poll_once(pending: &mut Pending<'_>) -> Option<Result<SendQueue, Close>> {
    poll_fn(|cx| match pending.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
