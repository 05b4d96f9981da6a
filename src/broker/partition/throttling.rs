//! Holding up copies of a replica that is not in sync (KIP-73): the leader sends it nothing, the follower does not ask.

use super::Partition;
use crate::broker::quota::Quotas;
use crate::machines::replica::Replica;
use ottla_protocol::{BrokerId, Offset};
use std::time::Duration;

/// Which sides of this replica's copies the topic's settings name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Throttled {
    /// What it sends as the leader.
    pub(crate) leader: bool,
    /// What it takes as a follower.
    pub(crate) follower: bool,
}

impl Partition {
    /// Takes what the topic's settings name.
    pub(crate) fn set_throttled(&self, throttled: Throttled) {
        if **self.throttled.load() != throttled {
            self.throttled.store(throttled.into());
        }
    }

    /// Whether a follower gets nothing now.
    pub(super) fn is_held_up(&self, replica: &Replica, follower: BrokerId) -> bool {
        self.throttled.load().leader
            && !replica.isr().contains(&follower)
            && self.quotas.leader.wait_ms(self.clock.steady()) > 0
    }

    /// Books what is sent to a follower.
    pub fn note_sent(&self, follower: BrokerId, bytes: usize) {
        if bytes > 0
            && self.throttled.load().leader
            && !self.owned.lock().replica.isr().contains(&follower)
        {
            self.quotas.leader.book(bytes, self.clock.steady());
        }
    }

    /// Books what came from the leader, whose high watermark is given; how long to wait before more is asked for.
    pub(crate) fn note_taken(
        &self,
        bytes: usize,
        end: Offset,
        high_watermark: Offset,
    ) -> Option<Duration> {
        if bytes == 0 || !self.throttled.load().follower || end >= high_watermark {
            return None;
        }
        let Quotas { follower, .. } = &*self.quotas;
        let now = self.clock.steady();
        follower.book(bytes, now);
        let wait_ms = follower.wait_ms(now);
        (wait_ms > 0).then(|| Duration::from_millis(wait_ms))
    }
}
