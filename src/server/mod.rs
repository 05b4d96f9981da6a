//! Room 5: Kafka connections and APIs.
//!
//! `listener` accepts, `connection` reads frames and writes answers, `handlers` holds one function per API, and
//! `fetch_session` what a consumer need not repeat with each fetch. Handlers keep no state between requests.

mod connection;
mod fetch_session;
pub mod handlers;
mod listener;
mod root_logger;
mod settings;
#[cfg(test)]
mod tests;

pub use handlers::{Node, RequestContext};
pub use listener::{Advertised, BoundListener, ListenerParams, Server};
pub use root_logger::RootLogger;
pub use settings::{Limits, Settings, listeners};

use fetch_session::FetchSessions;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What all connections of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) settings: Settings,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) refusals: RateLimit,
    stopping: watch::Sender<bool>,
    /// Whether clients are served on listeners that they share with nodes.
    open: watch::Sender<bool>,
}

impl Shared {
    fn new(limits: Limits, settings: Settings) -> Shared {
        Shared {
            limits,
            fetch_sessions: FetchSessions::new(settings.fetch_session_slots),
            settings,
            refusals: RateLimit::default(),
            stopping: watch::Sender::new(false),
            open: watch::Sender::new(false),
        }
    }

    /// Completes when the server goes down: whatever waits is then answered with what there is.
    pub(crate) async fn stopped(&self) {
        let mut receiver = self.stopping.subscribe();
        // The sender lives as long as `self`.
        let _ = receiver.wait_for(|stopping| *stopping).await;
    }

    /// Completes when clients may come, or when the server goes down.
    pub(crate) async fn opened(&self) {
        let mut open = self.open.subscribe();
        tokio::select! {
            biased;
            // The sender lives as long as `self`.
            _ = open.wait_for(|open| *open) => {}
            () = self.stopped() => {}
        }
    }

    fn let_clients_in(&self) {
        self.open.send_replace(true);
    }

    fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

/// Log lines about refused peers in one [`RateLimit::WINDOW`].
const REFUSALS_LOGGED: u32 = 10;

/// Bounds the log lines that peers can cause.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    state: Mutex<(Option<Instant>, u32)>,
}

impl RateLimit {
    const WINDOW: Duration = Duration::from_secs(10);

    /// Whether this line may be logged, and how many were not since the last one that was.
    pub(crate) fn admit(&self, now: Instant) -> Option<u32> {
        let mut state = self.state.lock();
        let (start, count) = &mut *state;
        if start.is_none_or(|start| now - start >= Self::WINDOW) {
            let left_out = count.saturating_sub(REFUSALS_LOGGED);
            *start = Some(now);
            *count = 1;
            return Some(left_out);
        }
        *count += 1;
        (*count <= REFUSALS_LOGGED).then_some(0)
    }
}
