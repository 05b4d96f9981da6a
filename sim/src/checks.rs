//! What must hold, one invariant a file. Each is looked at while things go wrong, or once all is healed.

mod epochs;
mod high_watermarks;
mod images;
mod logs;
mod positions;
mod records;

use crate::history::{History, Place};
use crate::world::World;
use ottla::broker::Partition;
use std::sync::Arc;

pub(crate) use positions::check as check_positions;

/// What is wrong, if something is.
pub(crate) type Check = Result<(), String>;

/// A replica of a partition in a process that has one.
pub(crate) struct Replica {
    /// The machine's number.
    pub(crate) machine: usize,
    /// Which of its processes it is.
    pub(crate) life: u64,
    pub(crate) place: Place,
    pub(crate) partition: Arc<Partition>,
}

/// All replicas that are open now.
pub(crate) fn replicas(world: &World) -> Vec<Replica> {
    let mut all = Vec::new();
    for machine in 0..world.machines.len() {
        let Some(broker) = world.broker(machine) else { continue };
        let life = world.machines[machine].lives;
        let mut here = broker.partitions();
        here.sort_by(|one, other| (one.topic(), one.index()).cmp(&(other.topic(), other.index())));
        all.extend(here.into_iter().map(|partition| {
            let place = (partition.topic().to_string(), partition.index());
            Replica { machine, life, place, partition }
        }));
    }
    all
}

/// Everything that the checkers have seen so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    epochs: epochs::Epochs,
    high_watermarks: high_watermarks::HighWatermarks,
    images: images::Images,
    logs: logs::Logs,
}

impl Checks {
    /// Looks at what is cheap to see: to be called every few milliseconds.
    pub(crate) fn look(&mut self, world: &World) -> Check {
        let replicas = replicas(world);
        self.epochs.look(world, &replicas)?;
        self.high_watermarks.look(&replicas)?;
        self.images.look(world)
    }

    /// Looks at what was appended to the logs since the last time.
    pub(crate) fn look_at_logs(&mut self, world: &World) -> Check {
        self.logs.look(&replicas(world))
    }

    /// Looks at everything, after nothing goes wrong any more and all replicas have caught up.
    pub(crate) fn finish(&mut self, world: &World, history: &History) -> Check {
        self.look(world)?;
        self.logs.forget_cursors();
        self.look_at_logs(world)?;
        records::check(&replicas(world), history)
    }

    /// How much was compared, so that a checker which sees nothing is noticed.
    pub(crate) fn seen(&self) -> String {
        let (epochs, images) = (self.epochs.seen(), self.images.seen());
        format!("{} epochs, {} images, {} batches", epochs, images, self.logs.seen())
    }
}
