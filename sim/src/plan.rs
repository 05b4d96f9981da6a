//! What a seed chooses before anything runs: the cluster's shape, its settings, and how long what goes wrong.

use crate::history::Place;
use crate::mutation::Mutation;
use ottla::env::rng::Rng;

/// Where the controllers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Three nodes are brokers and voters.
    Combined,
    /// Three brokers, and three controllers of their own.
    Separate,
}

/// When a record counts (`ottla.ack.durability`), and so what may lose power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// When it is in the page caches of the in-sync replicas: one machine of a whole cluster may lose power at a time.
    PageCache,
    /// When it is on the disks of the in-sync replicas: all may lose power at once.
    Fsync,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicPlan {
    /// Its name.
    pub(crate) name: String,
    /// Its partitions.
    pub(crate) partitions: i32,
}

/// What one seed runs.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) layout: Layout,
    pub(crate) durability: Durability,
    pub(crate) topics: Vec<TopicPlan>,
    /// Milliseconds after which a segment is rolled; `None` for the default.
    pub(crate) segment_ms: Option<u64>,
    /// Milliseconds in which things go wrong.
    pub(crate) chaos_ms: u64,
    /// Whether segment files are filled ahead (`log.preallocate`).
    pub(crate) preallocates: bool,
    /// Bytes of metadata between snapshots.
    pub(crate) snapshot_bytes: u64,
    /// Producers of each partition.
    pub(crate) producers: usize,
    /// Whether topics come and go.
    pub(crate) churns: bool,
    /// Milliseconds between two batches of a producer, at the most.
    pub(crate) pause_ms: usize,
    /// The rule that is broken.
    pub(crate) mutation: Option<Mutation>,
}

impl Plan {
    /// What this seed runs.
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>) -> Plan {
        let mut rng = Rng::new(seed ^ 0x706c_616e);
        let layout = if rng.one_in(4) { Layout::Separate } else { Layout::Combined };
        let durability = match (rng.one_in(2), mutation) {
            (_, Some(Mutation::PageCachesLosePower)) => Durability::PageCache,
            (_, Some(Mutation::DisksClaimSyncs)) | (true, _) => Durability::Fsync,
            (false, _) => Durability::PageCache,
        };
        let topics = (0..1 + rng.below(2)).map(|number| TopicPlan {
            name: format!("t{number}"),
            partitions: 2 + rng.below(2) as i32,
        });
        Plan {
            seed,
            layout,
            durability,
            topics: topics.collect(),
            segment_ms: rng.one_in(3).then(|| 500 + rng.below(2000) as u64),
            chaos_ms: 4000 + rng.below(6000) as u64,
            preallocates: seed.is_multiple_of(3),
            snapshot_bytes: if rng.one_in(2) { 3000 } else { 1 << 20 },
            producers: 1 + rng.below(2),
            churns: rng.one_in(2),
            pause_ms: 30 + rng.below(200),
            mutation,
        }
    }

    /// All partitions of the topics.
    pub(crate) fn places(&self) -> Vec<Place> {
        let of = |topic: &TopicPlan| {
            let name = topic.name.clone();
            (0..topic.partitions).map(move |index| (name.clone(), index))
        };
        self.topics.iter().flat_map(of).collect()
    }
}
