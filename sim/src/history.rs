//! What the clients did and saw, as far as a checker needs it.

use crate::checks::{Checker, Violation};
use std::collections::{BTreeMap, BTreeSet};

/// A partition by its topic's name.
pub(crate) type Place = (String, i32);

/// What is known of one commit of a group's position in a partition.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Commits {
    /// The newest position whose commit was acknowledged.
    pub(crate) acknowledged: Option<i64>,
    /// Positions whose commit was sent and not answered: each may still come to count.
    pub(crate) unknown: BTreeSet<i64>,
}

/// The history of one seed.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Values that were sent, in their producer's order.
    pub(crate) sent: BTreeMap<Place, BTreeMap<String, Vec<String>>>,
    /// Values that were acknowledged, by place and offset; the offset of some is unknown.
    pub(crate) acknowledged: BTreeMap<Place, Vec<(String, Option<i64>)>>,
    /// What a consumer saw at an offset.
    pub(crate) read: BTreeMap<Place, BTreeMap<i64, String>>,
    /// By group and place.
    pub(crate) commits: BTreeMap<(String, Place), Commits>,
    /// Producers that wait for the fate of a record.
    pub(crate) unresolved: usize,
    /// What a client saw that must not be.
    pub(crate) violations: Vec<Violation>,
    /// How many records consumers read, those read again among them.
    pub(crate) records_read: usize,
    /// How many answers told a position that was looked at.
    pub(crate) positions_read: usize,
    /// No more records are begun.
    pub(crate) is_over: bool,
    /// All positions were looked at after the end.
    pub(crate) are_positions_checked: bool,
    /// All clients end.
    pub(crate) is_done: bool,
}

impl History {
    /// Something that must not be.
    pub(crate) fn violate(&mut self, checker: Checker, what: String) {
        // The first one of each says enough.
        if self.violations.iter().all(|seen| seen.checker != checker) {
            self.violations.push(Violation { checker, what });
        }
    }

    /// How many records were acknowledged.
    pub(crate) fn acknowledged_count(&self) -> usize {
        self.acknowledged.values().map(Vec::len).sum()
    }

    /// How many records were acknowledged in one partition.
    pub(crate) fn acknowledged_in(&self, place: &Place) -> usize {
        self.acknowledged.get(place).map_or(0, Vec::len)
    }
}
