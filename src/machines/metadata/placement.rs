//! Which brokers get the replicas of a new partition.
//!
//! Source: Kafka's striped placer. Replicas go to different racks where there are enough, leaders
//! go round over racks and brokers, a fenced broker never comes first and otherwise only where
//! unfenced brokers of its rack do not suffice.

use super::image::{BrokerRegistration, ClusterImage};
use super::random::Random;
use ottla_protocol::BrokerId;
use std::collections::BTreeMap;

/// Brokers of a rack, taken in turn from a moving start.
#[derive(Debug, Default)]
struct BrokerRing {
    brokers: Vec<BrokerId>,
    epoch: usize,
    index: usize,
    offset: usize,
}

impl BrokerRing {
    /// The next broker of this round; `None` when all have been given.
    fn next(&mut self, epoch: usize) -> Option<BrokerId> {
        if self.brokers.is_empty() {
            return None;
        }
        if self.epoch != epoch {
            self.epoch = epoch;
            self.index = 0;
            self.offset = (self.offset + 1) % self.brokers.len();
        }
        if self.index >= self.brokers.len() {
            return None;
        }
        let broker = self.brokers[(self.index + self.offset) % self.brokers.len()];
        self.index += 1;
        Some(broker)
    }
}

#[derive(Debug, Default)]
struct Rack {
    fenced: BrokerRing,
    unfenced: BrokerRing,
}

impl Rack {
    fn next(&mut self, epoch: usize) -> Option<BrokerId> {
        self.unfenced.next(epoch).or_else(|| self.fenced.next(epoch))
    }
}

/// Places partitions one after the other.
struct Placer<'a> {
    racks: Vec<Rack>,
    unfenced: usize,
    epoch: usize,
    offset: usize,
    random: &'a mut Random,
}

/// Replica lists for `partitions` new partitions.
///
/// Kafka's text when the replication factor cannot be had.
pub fn place(
    cluster: &ClusterImage,
    partitions: i32,
    replication_factor: i16,
    random: &mut Random,
) -> Result<Vec<Vec<BrokerId>>, String> {
    if replication_factor <= 0 {
        return Err(format!(
            "Invalid replication factor {replication_factor}: the replication factor must be \
             positive."
        ));
    }
    let usable: Vec<&BrokerRegistration> =
        cluster.brokers.values().filter(|broker| !is_cordoned(broker)).collect();
    let unfenced = usable.iter().filter(|broker| !broker.fenced).count();
    if unfenced == 0 {
        return Err("All brokers are currently fenced, or have all their log directories \
                    cordoned."
            .into());
    }
    let registered = usable.len();
    if replication_factor as usize > registered {
        return Err(format!(
            "The target replication factor of {replication_factor} cannot be reached because only \
             {registered} broker(s) are registered or some brokers have all their log directories \
             cordoned."
        ));
    }
    let mut placer = Placer::new(usable.into_iter(), unfenced, random);
    Ok((0..partitions).map(|_| placer.place(replication_factor as usize)).collect())
}

/// Nothing new goes to a broker whose log directories are all cordoned.
fn is_cordoned(broker: &BrokerRegistration) -> bool {
    broker.cordoned_log_dirs.as_ref().is_some_and(|cordoned| {
        !cordoned.is_empty() && broker.log_dirs.iter().all(|dir| cordoned.contains(dir))
    })
}

impl<'a> Placer<'a> {
    fn new<'b>(
        brokers: impl Iterator<Item = &'b BrokerRegistration>,
        unfenced: usize,
        random: &'a mut Random,
    ) -> Self {
        let mut by_name: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
        for broker in brokers {
            let rack = by_name.entry(broker.rack.as_deref()).or_default();
            let ring = if broker.fenced { &mut rack.fenced } else { &mut rack.unfenced };
            ring.brokers.push(broker.id);
        }
        let mut racks: Vec<Rack> = by_name.into_values().collect();
        for rack in &mut racks {
            rack.fenced.offset = random.below(rack.fenced.brokers.len());
            rack.unfenced.offset = random.below(rack.unfenced.brokers.len());
        }
        let offset = random.below(racks.len());
        Placer { racks, unfenced, epoch: 0, offset, random }
    }

    /// At least one broker is unfenced, and there are as many brokers as replicas.
    fn place(&mut self, replicas: usize) -> Vec<BrokerId> {
        if self.epoch == self.unfenced && self.unfenced > 1 {
            self.shuffle();
            self.epoch = 0;
        }
        self.offset %= self.racks.len();
        let mut brokers = Vec::with_capacity(replicas);
        let mut first_rack = Some(self.offset);
        let count = self.racks.len();
        for rack in (self.offset..self.offset + count).map(|rack| rack % count) {
            if let Some(leader) = self.racks[rack].unfenced.next(self.epoch) {
                brokers.push(leader);
                first_rack = Some(rack);
                break;
            }
        }
        let mut rack = self.offset;
        while brokers.len() < replicas {
            // The leader's rack sits out the first round, so that replicas spread.
            if first_rack == Some(rack) {
                first_rack = None;
            } else if let Some(broker) = self.racks[rack].next(self.epoch) {
                brokers.push(broker);
            }
            rack = (rack + 1) % self.racks.len();
        }
        self.epoch += 1;
        self.offset += 1;
        brokers
    }

    /// Every broker has led once: another order avoids the same lists again.
    fn shuffle(&mut self) {
        self.random.shuffle(&mut self.racks);
        for rack in &mut self.racks {
            self.random.shuffle(&mut rack.fenced.brokers);
            self.random.shuffle(&mut rack.unfenced.brokers);
        }
    }
}
