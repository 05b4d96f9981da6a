//! What a check can find, how bad it is and what to do about it: one table.

use ottla_protocol::Offset;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Findings of one kind that are kept of one file; the rest is counted. A damaged index has millions.
const KEPT_PER_FILE: u32 = 10;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Worth knowing; a broker that runs or restarts deals with it.
    Note,
    /// Data or files are damaged.
    Problem,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $severity:ident $remedy:literal;)*) => {
        /// What was found.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Kind::$kind => Severity::$severity,)* }
            }

            /// What to do about it.
            pub fn remedy(self) -> &'static str {
                match self { $(Kind::$kind => $remedy,)* }
            }
        }
    };
}

kinds! {
    /// A batch or its header is not what was written.
    Batch "batch" Problem
        "restore the segment from a backup, or stop the broker and remove the partition's directory so that another replica fills it again; past the recovery point a start after a crash cuts the log here";
    /// Offsets go back, or leave the segment.
    BatchOffset "batch-offset" Problem
        "restore the segment from a backup, or let another replica fill the partition again";
    /// The end of an active segment is not whole.
    TornTail "torn-tail" Note
        "none: a running broker is still writing it, and a start after a crash cuts it off";
    /// Segments do not join.
    OffsetGap "offset-gap" Problem
        "a segment was removed or cut: restore it from a backup, or let another replica fill the partition again";
    /// The offset index.
    OffsetIndex "offset-index" Problem
        "stop the broker and delete the .index file: the next start builds it anew";
    /// The time index.
    TimeIndex "time-index" Problem
        "stop the broker and delete the .timeindex file: the next start builds it anew";
    /// The transaction index.
    TransactionIndex "transaction-index" Problem
        "stop the broker and delete the segment's .index, .timeindex and .txnindex files: the next start builds them anew";
    /// An index that will be built anew anyway.
    IndexUnsettled "index-unsettled" Note
        "none: it lies past the recovery point, and a start after a crash builds it anew";
    /// A segment without an index file.
    IndexMissing "index-missing" Problem
        "restart the broker: it builds a missing index anew";
    /// Index files without their segment.
    OrphanIndex "orphan-index" Problem
        "the segment's .log file is gone: restore it, or let another replica fill the partition again; the next start deletes the index";
    /// A producer snapshot.
    ProducerSnapshot "producer-snapshot" Problem
        "stop the broker and delete the .snapshot file: the next start rebuilds producers from the batches";
    /// `leader-epoch-checkpoint`.
    LeaderEpochs "leader-epochs" Problem
        "stop the broker, delete the file and .kafka_cleanshutdown of the log directory: recovery reads epochs from the batches past the recovery point";
    /// `partition.metadata`.
    PartitionMetadata "partition-metadata" Problem
        "write the file with the topic's id (kafka-topics.sh --describe): `version: 0`, then `topic_id: ID`";
    /// A checkpoint file of the log directory.
    Checkpoint "checkpoint" Problem
        "stop the broker and delete the file: offsets are found again by recovery of every log, which takes longer";
    /// An offset in a checkpoint that its log contradicts.
    CheckpointOffset "checkpoint-offset" Problem
        "the log ends too early: restore it from a backup, or let another replica fill the partition again";
    /// A line of a checkpoint that means nothing.
    CheckpointStale "checkpoint-stale" Note
        "none: the broker drops it with its next checkpoint";
    /// `meta.properties`.
    MetaProperties "meta-properties" Problem
        "restore the file from another log directory of the same broker, each with a directory.id of its own";
    /// Files of a deletion, compaction, move or write that was under way.
    LeftOver "left-over" Note
        "none: a running broker finishes it, and the next start removes it or puts it in place";
    /// Something that belongs to no broker.
    Unknown "unknown" Note
        "move it away if it is not yours: Apache Kafka does not start on a directory that it does not know";
    /// The disk does not give a file.
    Unreadable "unreadable" Problem
        "look for errors of the disk and at the file's permissions";
    /// A record of the metadata log, or a snapshot of it.
    Metadata "metadata" Problem
        "restore __cluster_metadata-0 from a backup or from another controller";
    /// `quorum-state`.
    QuorumState "quorum-state" Problem
        "stop the broker and delete the file: the epoch is found in the metadata log";
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// In which file or directory.
    pub path: PathBuf,
    /// At which offset, where one is known.
    pub offset: Option<Offset>,
    /// At which byte of the file, where one is known.
    pub position: Option<u64>,
    /// What is wrong, in words.
    pub what: String,
}

impl Finding {
    pub(super) fn new(kind: Kind, path: &Path, what: impl Into<String>) -> Finding {
        let path = path.to_owned();
        Finding { kind, path, offset: None, position: None, what: what.into() }
    }

    pub(super) fn at_offset(mut self, offset: Offset) -> Finding {
        self.offset = Some(offset);
        self
    }

    pub(super) fn at(mut self, position: u64) -> Finding {
        self.position = Some(position);
        self
    }
}

/// What was found, within a bound for each file.
#[derive(Debug, Default)]
pub struct Findings {
    kept: Vec<Finding>,
    counts: BTreeMap<(PathBuf, Kind), u32>,
    problems: u64,
    notes: u64,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        match finding.kind.severity() {
            Severity::Problem => self.problems += 1,
            Severity::Note => self.notes += 1,
        }
        let count = self.counts.entry((finding.path.clone(), finding.kind)).or_default();
        *count = count.saturating_add(1);
        if *count <= KEPT_PER_FILE {
            self.kept.push(finding);
        }
    }

    pub(super) fn append(&mut self, other: Findings) {
        self.kept.extend(other.kept);
        self.counts.extend(other.counts);
        self.problems += other.problems;
        self.notes += other.notes;
    }

    /// The findings, file by file; of a file at most ten of a kind.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.kept.iter()
    }

    /// Findings of [`Severity::Problem`], those that were not kept among them.
    pub fn problems(&self) -> u64 {
        self.problems
    }

    /// Findings of [`Severity::Note`].
    pub fn notes(&self) -> u64 {
        self.notes
    }

    /// Findings that were counted only.
    pub fn not_kept(&self) -> u64 {
        self.problems + self.notes - self.kept.len() as u64
    }
}
