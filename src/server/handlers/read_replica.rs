//! Which replica a consumer should read from: the one in its rack that has the most (KIP-392, Kafka's
//! `RackAwareReplicaSelector`).

use crate::broker::{Broker, Partition, ReplicaView};
use ottla_protocol::{BrokerId, Offset};

/// A replica other than this leader that is better for a consumer in `rack` that wants `offset`; `None` where there is
/// none, or this broker does not lead.
pub(super) fn preferred(
    broker: &Broker,
    partition: &Partition,
    rack: &str,
    offset: Offset,
) -> Option<BrokerId> {
    let followers = partition.followers_with(offset)?;
    let image = broker.image();
    let is_near = |id: BrokerId| {
        let broker = image.cluster.brokers.get(&id).filter(|broker| !broker.fenced);
        broker.and_then(|broker| broker.rack.as_deref()) == Some(rack)
    };
    if is_near(broker.node_id()) {
        return None;
    }
    best(followers.into_iter().filter(|follower| is_near(follower.id)))
}

/// The one that has the most, then the one that had everything last, then the one with the lower id.
fn best(followers: impl Iterator<Item = ReplicaView>) -> Option<BrokerId> {
    let rank = |it: &ReplicaView| (it.log_end_offset, it.last_caught_up, std::cmp::Reverse(it.id));
    followers.max_by_key(rank).map(|follower| follower.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_protocol::Timestamp;

    #[test]
    fn the_replica_with_the_most_is_the_best() {
        let view = |id, end, caught_up| ReplicaView {
            id: BrokerId(id),
            log_end_offset: Offset(end),
            last_caught_up: Timestamp(caught_up),
        };
        let check = |views: &[ReplicaView], expected: Option<i32>| {
            assert_eq!(best(views.iter().copied()), expected.map(BrokerId));
        };
        check(&[], None);
        check(&[view(2, 5, 9), view(3, 6, 1)], Some(3));
        check(&[view(2, 5, 1), view(3, 5, 2)], Some(3));
        check(&[view(3, 5, 1), view(2, 5, 1)], Some(2));
    }
}
