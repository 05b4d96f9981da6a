//! What must hold, one invariant a file. Each is looked at while things go wrong, or once all is healed.

mod epochs;
mod high_watermarks;
mod images;
mod logs;
mod positions;
mod records;

use crate::history::{History, Place};
use crate::world::World;
use clap::ValueEnum;
use ottla::broker::Partition;
use ottla_protocol::TopicId;
use std::fmt;
use std::sync::Arc;

pub(crate) use positions::check as check_positions;

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Checker {
    /// One leader an epoch, and epochs never go back.
    Epochs,
    /// High watermarks never go back while a replica leads.
    HighWatermarks,
    /// Images are equal at equal metadata offset.
    Images,
    /// Logs are equal below the high watermark.
    Logs,
    /// Consumers see all that is committed, and always the same.
    Reads,
    /// No acknowledged record is lost.
    Lost,
    /// Every record is there exactly once, in its producer's order.
    ExactlyOnce,
    /// Positions of groups are never older than acknowledged.
    Positions,
    /// Once nothing goes wrong any more all becomes whole; and no task panics.
    Health,
}

/// What must not be, and who saw it.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) checker: Checker,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.checker, self.what)
    }
}

/// What is wrong, if something is.
pub(crate) type Check = Result<(), Violation>;

/// What one checker found.
type Finding = Result<(), String>;

/// A partition of one topic for ever: a topic that is deleted and made again has another id, and begins anew.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartitionId {
    // First, since it is compared at every step and tells nearly all apart.
    pub(crate) topic_id: TopicId,
    pub(crate) index: i32,
    pub(crate) topic: Arc<str>,
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} ({})", self.topic, self.index, self.topic_id)
    }
}

/// A replica of a partition in a process that has one.
pub(crate) struct Replica {
    /// The machine's number.
    pub(crate) machine: usize,
    /// Which of its processes it is.
    pub(crate) life: u64,
    pub(crate) id: PartitionId,
    pub(crate) partition: Arc<Partition>,
}

impl Replica {
    /// What clients call it.
    pub(crate) fn place(&self) -> Place {
        (self.id.topic.to_string(), self.id.index)
    }

    fn is_at(&self, (topic, index): &Place) -> bool {
        *self.id.topic == **topic && self.id.index == *index
    }
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
            let (topic, topic_id) = (Arc::clone(partition.topic()), partition.topic_id());
            let id = PartitionId { topic_id, index: partition.index(), topic };
            Replica { machine, life, id, partition }
        }));
    }
    all
}

/// Everything that the checkers have seen so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The one that looks, where the others are to look away.
    pub(crate) only: Option<Checker>,
    epochs: epochs::Epochs,
    high_watermarks: high_watermarks::HighWatermarks,
    images: images::Images,
    logs: logs::Logs,
}

impl Checks {
    /// Whether this one looks.
    pub(crate) fn is_wanted(&self, checker: Checker) -> bool {
        self.only.is_none_or(|only| only == checker)
    }

    fn judge(&self, checker: Checker, found: Finding) -> Check {
        match found {
            Err(what) if self.is_wanted(checker) => Err(Violation { checker, what }),
            _ => Ok(()),
        }
    }

    /// Looks at what is cheap to see: to be called every few milliseconds.
    pub(crate) fn look(&mut self, world: &World) -> Check {
        let replicas = replicas(world);
        let found = self.epochs.look(world, &replicas);
        self.judge(Checker::Epochs, found)?;
        let found = self.high_watermarks.look(&replicas);
        self.judge(Checker::HighWatermarks, found)?;
        let found = self.images.look(world);
        self.judge(Checker::Images, found)
    }

    /// Looks at what was appended to the logs since the last time.
    pub(crate) fn look_at_logs(&mut self, world: &World) -> Check {
        let found = self.logs.look(&replicas(world));
        self.judge(Checker::Logs, found)
    }

    /// Looks at what clients saw.
    pub(crate) fn look_at_clients(&self, history: &History) -> Check {
        let seen = history.violations.iter().find(|seen| self.is_wanted(seen.checker));
        seen.map_or(Ok(()), |seen| Err(seen.clone()))
    }

    /// Looks at everything, after nothing goes wrong any more and all replicas have caught up.
    pub(crate) fn finish(&mut self, world: &World, history: &History) -> Check {
        self.look(world)?;
        self.logs.forget_cursors();
        self.look_at_logs(world)?;
        let replicas = replicas(world);
        self.judge(Checker::Lost, records::check_lost(&replicas, history))?;
        self.judge(Checker::Reads, records::check_reads(&replicas, history))?;
        self.judge(Checker::ExactlyOnce, records::check_exactly_once(&replicas, history))
    }

    /// How much was compared, so that a checker which sees nothing is noticed.
    pub(crate) fn seen(&self) -> String {
        let (epochs, images) = (self.epochs.seen(), self.images.seen());
        format!("{} epochs, {} images, {} batches", epochs, images, self.logs.seen())
    }
}
