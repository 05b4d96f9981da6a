//! Verifying log directories as they lie on disk, Apache Kafka's or ours, without changing them.
//!
//! Every file of every partition is read: batches (header, CRC, offsets), the three indexes against the batches, leader
//! epochs, producer snapshots, `partition.metadata`; then the directory's own checkpoints and `meta.properties`; of the
//! metadata log also its records, its snapshots and `quorum-state`. Deliberately not here: repair. Opening the log
//! repairs what can be repaired, and every finding says so.
//!
//! Invariants: files are opened for reading only, no lock is taken, and memory does not grow with what a file says. A
//! broker may be running: the end of an active segment that is not whole yet, past the recovery point, is a note and
//! not a problem, and a partition whose files changed while it looked damaged is looked at again.
//!
//! Source: Kafka documentation, "Log" and "Message Format"; the modules of this room for each file's form.

mod directory;
mod entries;
mod finding;
mod indexes;
mod metadata;
mod partition;
mod segment;
mod text;

pub use finding::{Finding, Findings, Kind, Severity};

use crate::env::Disk;
use std::path::{Path, PathBuf};

/// Why a directory cannot be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It is not there, or cannot be listed.
    #[error("cannot read log directory {path}: {source}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It has neither `meta.properties` nor a partition.
    #[error("{path} is no log directory: it has neither meta.properties nor a partition", path = path.display())]
    NoLogDirectory {
        /// Which.
        path: PathBuf,
    },
}

/// What happens while a check runs, for whoever watches.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// So many bytes of batches will be read.
    Total(u64),
    /// This partition is next.
    Partition(&'a Path),
    /// So many bytes more were read.
    Bytes(u64),
}

/// What was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Partition directories.
    pub partitions: u64,
    /// `.log` files.
    pub segments: u64,
    /// Sound batches.
    pub batches: u64,
    /// Bytes of the `.log` files.
    pub bytes: u64,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// What was read.
    pub counts: Counts,
    /// What is wrong or worth knowing, in the order of the files.
    pub findings: Findings,
}

impl CheckReport {
    /// Nothing is wrong; there may be notes.
    pub fn is_clean(&self) -> bool {
        self.findings.problems() == 0
    }
}

/// Checks the log directories `dirs` of one broker; `watch` is told how it goes.
///
/// # Errors
/// `Unreadable`, `NoLogDirectory`: nothing can be said then.
pub fn check(
    disk: &dyn Disk,
    dirs: &[PathBuf],
    watch: &mut dyn FnMut(Step<'_>),
) -> Result<CheckReport, CheckError> {
    let mut listed = Vec::new();
    let mut total = 0;
    for dir in dirs {
        let listing = directory::list(disk, dir)?;
        total += listing.bytes;
        listed.push(listing);
    }
    watch(Step::Total(total));
    let mut report = CheckReport::default();
    directory::check_all(disk, &listed, &mut report, watch);
    Ok(report)
}

#[cfg(test)]
mod tests;
