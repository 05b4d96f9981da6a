//! How a broker ends: what it leads is handed over, its tasks end, and its logs are closed as far as it has come with
//! them. Invariant: a clean-shutdown file says that all logs of its directory were closed in order and that nobody has
//! opened them since, and names the epoch under which the broker was registered last, as far as it knows.
//! Source: KIP-500 (controlled shutdown), KIP-966 (the broker epoch).

use super::Broker;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// How far this process has come with the logs of its directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogsStage {
    /// They lie there as the process before left them, and whether that stopped in order is still said.
    Untouched,
    /// Some may be open; for ever where that failed.
    Opening,
    Open,
    /// Whatever was open was closed.
    Closed,
}

impl Broker {
    /// Hands over what this broker leads, where others can take it (`controlled.shutdown.enable`). Clients are to be
    /// served until this returns.
    pub async fn leave(&self) {
        let image = self.image();
        let has_others = image.cluster.unfenced().any(|broker| broker.id != self.node_id());
        if has_others && self.settings.controlled_shutdown {
            self.membership.leave().await;
        }
    }

    /// Lets go of everything as it is, as if the process were killed.
    #[cfg(test)]
    pub async fn abandon(&self) {
        *self.logs_stage.lock() = LogsStage::Closed;
        self.stop().await;
    }

    async fn end_tasks(&self) {
        self.stopping.send_replace(true);
        self.groups.stop();
        self.publisher.replication().fetchers.stop().await;
        self.metadata.resign();
        let tasks: Vec<JoinHandle<()>> = self.tasks.lock().drain(..).collect();
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the broker failed");
            }
        }
    }

    async fn close_metadata(&self) {
        if let Err(error) = self.metadata.close().await {
            tracing::error!(%error, "metadata log not closed in order");
        }
    }

    /// Stops in order: coordinators and controller first, then the logs are flushed and closed, and each
    /// directory gets its clean-shutdown file. One that has not joined yet may have touched no log: then what the
    /// directories say of the last orderly stop goes on to hold.
    pub async fn stop(&self) {
        self.end_tasks().await;
        let (cleaner, mover) = (Arc::clone(&self.cleaner), Arc::clone(&self.mover));
        let (housekeeping, stage) = (Arc::clone(&self.housekeeping), Arc::clone(&self.logs_stage));
        let epoch = self.broker_epoch();
        let finished = crate::env::blocking(move || {
            mover.stop();
            cleaner.stop();
            // Waits where they are being opened.
            match std::mem::replace(&mut *stage.lock(), LogsStage::Closed) {
                LogsStage::Open => housekeeping.finish(epoch),
                LogsStage::Untouched => housekeeping.leave_untouched(epoch),
                LogsStage::Opening | LogsStage::Closed => {}
            }
        });
        if let Err(error) = finished.await {
            tracing::error!(%error, "stop failed");
        }
        self.close_metadata().await;
    }
}
