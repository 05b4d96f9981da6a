//! A group's committed position is never older than the last one whose commit was acknowledged.
//!
//! A commit without an answer may count at any time after it was sent, as in Kafka: nothing orders the commits of two
//! connections. So a position may also be any of those.

use super::Checker;
use crate::client::Client;
use crate::workload::{Shared, ask_position};
use std::time::Duration;

/// Asks for every group's positions once all is healed, and looks whether they may be so.
pub(crate) async fn check(shared: Shared) {
    let keys: Vec<_> = shared.history.lock().commits.keys().cloned().collect();
    let mut client = Client::new(shared.bootstrap.clone(), 0);
    for (group, place) in keys {
        let (position, commits) = loop {
            if shared.history.lock().is_done {
                return;
            }
            let commits =
                || shared.history.lock().commits.get(&(group.clone(), place.clone())).cloned();
            let before = commits();
            match ask_position(&mut client, &group, &place).await {
                // The consumer goes on: what was acknowledged while the answer was on its way may be newer than it.
                Some(position) if commits() == before => break (position, before),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let mut history = shared.history.lock();
        history.positions_read += 1;
        if let Some(cause) = commits.unwrap_or_default().misfit(position) {
            history.violate(Checker::Positions, format!("{group} {place:?}, healed: {cause}"));
        }
    }
    shared.history.lock().are_positions_checked = true;
}
