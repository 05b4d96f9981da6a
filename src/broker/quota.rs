//! Bytes per second that replicas may copy which are not in sync: what a reassignment moves (KIP-73).
//!
//! A broker has one rate as a leader and one as a follower; topics name the replicas that they hold for. One that is in
//! sync is never held up. Bytes are booked when they have been sent or taken, so one answer may go over the rate, which
//! the next one pays for. Source: Kafka's `ReplicationQuotaManager`.

use super::Image;
use super::throttle::Throttle;
use crate::machines::metadata::image::{ConfigResource, ResourceType};
use ottla_protocol::{BrokerId, Timestamp};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which end of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The leader sends.
    Leader,
    /// The follower takes.
    Follower,
}

impl Side {
    fn rate_key(self) -> &'static str {
        match self {
            Side::Leader => "leader.replication.throttled.rate",
            Side::Follower => "follower.replication.throttled.rate",
        }
    }

    fn replicas_key(self) -> &'static str {
        match self {
            Side::Leader => "leader.replication.throttled.replicas",
            Side::Follower => "follower.replication.throttled.replicas",
        }
    }
}

/// The rate of one side of this broker.
#[derive(Debug)]
pub(crate) struct Quota {
    side: Side,
    is_limited: AtomicBool,
    state: Mutex<(Throttle, f64)>,
}

impl Quota {
    /// No limit yet.
    pub(crate) fn new(side: Side) -> Self {
        let state = Mutex::new((Throttle::default(), f64::MAX));
        Quota { side, is_limited: AtomicBool::new(false), state }
    }

    /// Takes the rate that `image` has for the broker.
    pub(crate) fn reconfigure(&self, image: &Image, broker: BrokerId) {
        let of = |name: &str| {
            let configs = image.config(&ConfigResource::new(ResourceType::Broker, name));
            let value = configs.get(self.side.rate_key());
            value.and_then(|value| value.trim().parse::<f64>().ok())
        };
        let rate = of(&broker.to_string()).or_else(|| of(""));
        let mut state = self.state.lock();
        let rate = rate.unwrap_or(f64::MAX);
        if state.1 != rate {
            state.0.reset();
            state.1 = rate;
        }
        self.is_limited.store(rate < f64::MAX, Ordering::Release);
    }

    /// Whether `image` names a replica for this side.
    pub(crate) fn holds_for(
        &self,
        image: &Image,
        topic: &str,
        index: i32,
        broker: BrokerId,
    ) -> bool {
        let replicas = image.topic_config(topic, self.side.replicas_key());
        let names = |entry: &str| {
            let (partition, replica) = entry.split_once(':').unwrap_or_default();
            partition.trim().parse() == Ok(index) && replica.trim().parse() == Ok(broker.0)
        };
        replicas.is_some_and(|text| text.split(',').any(|it| it.trim() == "*" || names(it)))
    }

    /// Books bytes that were sent or taken.
    pub(crate) fn book(&self, bytes: usize, now: Timestamp) {
        if self.is_limited.load(Ordering::Acquire) {
            let (throttle, rate) = &mut *self.state.lock();
            throttle.book(bytes, *rate, now);
        }
    }

    /// Milliseconds until more may go; 0 is now.
    pub(crate) fn wait_ms(&self, now: Timestamp) -> u64 {
        match self.is_limited.load(Ordering::Acquire) {
            true => self.state.lock().0.wait_ms(now),
            false => 0,
        }
    }
}

/// Both sides of this broker.
#[derive(Debug)]
pub(crate) struct Quotas {
    /// What it sends as a leader.
    pub(crate) leader: Quota,
    /// What it takes as a follower.
    pub(crate) follower: Quota,
}

impl Default for Quotas {
    fn default() -> Self {
        Quotas { leader: Quota::new(Side::Leader), follower: Quota::new(Side::Follower) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_protocol::metadata::ConfigRecord;
    use ottla_protocol::{MetadataRecord, Offset};

    fn image(configs: &[(ResourceType, &str, &str, &str)]) -> Image {
        let mut image = Image::default();
        for (kind, resource, name, value) in configs {
            let record = MetadataRecord::Config(ConfigRecord {
                resource_type: kind.id(),
                resource_name: (*resource).to_owned(),
                name: (*name).to_owned(),
                value: Some((*value).to_owned()),
            });
            image.replay(Offset(0), &record);
        }
        image
    }

    #[test]
    fn topics_name_the_replicas_that_are_held_up() {
        let key = Side::Leader.replicas_key();
        let check = |value: &str, index, broker, expected: bool| {
            let image = image(&[(ResourceType::Topic, "t", key, value)]);
            let quota = Quota::new(Side::Leader);
            let found = quota.holds_for(&image, "t", index, BrokerId(broker));
            assert_eq!(found, expected, "{value} {index} {broker}");
            let other = Quota::new(Side::Follower);
            assert!(!other.holds_for(&image, "t", index, BrokerId(broker)));
        };
        check("*", 3, 4, true);
        check("0:1,3:4", 3, 4, true);
        check("0:1, 3:4", 3, 4, true);
        check("0:1,3:4", 3, 1, false);
        check("", 0, 0, false);
        check("x", 0, 0, false);
    }

    #[test]
    fn the_brokers_own_rate_comes_before_that_of_all() {
        let key = Side::Follower.rate_key();
        let quota = Quota::new(Side::Follower);
        let now = Timestamp(1_000_000);
        quota.book(1 << 30, now);
        assert_eq!(quota.wait_ms(now), 0, "there is no limit");
        let all = (ResourceType::Broker, "", key, "1000");
        quota.reconfigure(&image(&[all]), BrokerId(1));
        quota.book(1300, now);
        assert_eq!(quota.wait_ms(now), 1000);
        let own = (ResourceType::Broker, "1", key, "2000");
        quota.reconfigure(&image(&[all, own]), BrokerId(1));
        quota.book(2600, now);
        assert_eq!(quota.wait_ms(now), 1000);
        quota.reconfigure(&image(&[]), BrokerId(1));
        assert_eq!(quota.wait_ms(now), 0);
    }
}
