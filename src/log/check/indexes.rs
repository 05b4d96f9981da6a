//! A segment's indexes against its batches, as the batches are walked.
//!
//! What a reader rests on is checked, not how a writer chose its entries: an offset entry must lead to a batch that
//! does not begin after its offset; a time entry's timestamp must be the largest up to the batch that it names, and
//! that batch's; a transaction entry must end with an abort marker of its producer.

use super::entries::Entries;
use super::finding::{Finding, Findings, Kind};
use crate::log::producer_state::EndMarker;
use crate::log::time_index::TimestampOffset;
use crate::log::transaction_index::{self, AbortedTransaction};
use crate::log::{offset_index, time_index};
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::{Offset, Timestamp};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// What is known of the segment that the indexes belong to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) base_offset: Offset,
    /// It takes appends: entries that are newer than the walk are no fault.
    pub(super) is_active: bool,
    /// The recovery point is past it, or the last stop was clean.
    pub(super) is_settled: bool,
}

/// One index file.
#[derive(Debug)]
pub(super) struct IndexCheck<const N: usize> {
    pub(super) entries: Entries<N>,
    pub(super) path: PathBuf,
    kind: Kind,
    place: Place,
    found: Vec<Finding>,
}

impl<const N: usize> IndexCheck<N> {
    pub(super) fn new(entries: Entries<N>, path: PathBuf, kind: Kind, place: Place) -> Self {
        let mut check = IndexCheck { entries, path, kind, place, found: Vec::new() };
        if check.entries.is_preallocated && !place.is_active {
            check.fault(
                None,
                None,
                "the file was not cut to its entries when the segment was closed",
            );
        }
        check
    }

    fn fault(&mut self, offset: Option<Offset>, position: Option<u64>, what: impl Into<String>) {
        // A file that Kafka has allocated ahead keeps stale entries after a truncation, and is built anew.
        let is_rebuilt = !self.place.is_settled && self.entries.is_preallocated;
        let kind = if is_rebuilt { Kind::IndexUnsettled } else { self.kind };
        let mut finding = Finding::new(kind, &self.path, what);
        (finding.offset, finding.position) = (offset, position);
        self.found.push(finding);
    }

    fn peek(&mut self) -> Option<([u8; N], u64)> {
        match self.entries.peek() {
            Ok(entry) => entry,
            // A running broker cut or replaced the file.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && self.place.is_active => {
                self.entries.stop();
                None
            }
            Err(e) => {
                self.entries.stop();
                self.found.push(Finding::new(Kind::Unreadable, &self.path, e.to_string()));
                None
            }
        }
    }

    pub(super) fn flush(&mut self, findings: &mut Findings) {
        for finding in self.found.drain(..) {
            findings.push(finding);
        }
    }
}

/// The offset index.
#[derive(Debug)]
pub(super) struct OffsetCheck {
    pub(super) index: IndexCheck<{ offset_index::ENTRY_SIZE }>,
    last: Option<(Offset, u64)>,
    /// Of entries up to the next sound batch nothing can be said.
    is_after_damage: bool,
}

impl OffsetCheck {
    pub(super) fn new(index: IndexCheck<{ offset_index::ENTRY_SIZE }>) -> Self {
        OffsetCheck { index, last: None, is_after_damage: false }
    }

    /// The next entry that follows the last one in both its numbers.
    fn next(&mut self) -> Option<(Offset, u64, u64)> {
        while let Some((entry, at)) = self.index.peek() {
            let relative = offset_index::relative(&entry);
            let offset = self.index.place.base_offset.plus(i64::from(relative));
            let position = u64::from(offset_index::place(&entry));
            let follows = self.last.is_none_or(|(o, p)| offset > o && position > p);
            if relative >= 0 && follows {
                return Some((offset, position, at));
            }
            let what = format!("entry ({offset}, byte {position}) does not follow the one before");
            self.index.fault(Some(offset), Some(at), what);
            self.index.entries.advance();
        }
        None
    }

    pub(super) fn on_batch(&mut self, header: &BatchHeader, batch_position: u64) {
        while let Some((offset, position, at)) = self.next() {
            if position > batch_position {
                break;
            }
            if position < batch_position && self.is_after_damage {
                // Its batch is the damaged one.
            } else if position < batch_position {
                let what = format!(
                    "entry of offset {offset} leads to byte {position}, where no batch begins"
                );
                self.index.fault(Some(offset), Some(at), what);
            } else if header.base_offset > offset {
                let what = format!(
                    "entry of offset {offset} leads to byte {position}, where the batch of offset {} begins",
                    header.base_offset
                );
                self.index.fault(Some(offset), Some(at), what);
            }
            self.last = Some((offset, position));
            self.index.entries.advance();
        }
        self.is_after_damage = false;
    }

    /// A batch could not be read.
    pub(super) fn on_damage(&mut self) {
        self.is_after_damage = true;
    }

    /// The batches ended at `end` with `next_offset`, as far as they are sound; `file_end` is the file's present end.
    pub(super) fn finish(&mut self, end: u64, next_offset: Offset, file_end: u64) {
        while let Some((offset, position, at)) = self.next() {
            if position < end {
                let what = format!(
                    "entry of offset {offset} leads to byte {position}, where no batch begins"
                );
                self.index.fault(Some(offset), Some(at), what);
            } else if position >= file_end || !self.index.place.is_active {
                let what = format!(
                    "entry of offset {offset} leads to byte {position}, past the log's end at {end}"
                );
                self.index.fault(Some(offset), Some(at), what);
            }
            self.last = Some((offset, position));
            self.index.entries.advance();
        }
        if let Some((offset, position)) = self.last
            && offset >= next_offset
            && position < end
        {
            let what =
                format!("an entry has offset {offset}, but the segment ends before {next_offset}");
            self.index.fault(Some(offset), None, what);
        }
    }
}

/// The time index.
#[derive(Debug)]
pub(super) struct TimeCheck {
    pub(super) index: IndexCheck<{ time_index::ENTRY_SIZE }>,
    last: Option<TimestampOffset>,
    /// Largest timestamp of the batches so far.
    largest: Timestamp,
    /// Of entries up to the next sound batch nothing can be said.
    is_after_damage: bool,
}

impl TimeCheck {
    pub(super) fn new(index: IndexCheck<{ time_index::ENTRY_SIZE }>) -> Self {
        TimeCheck { index, last: None, largest: Timestamp::NONE, is_after_damage: false }
    }

    fn next(&mut self) -> Option<(TimestampOffset, u64)> {
        while let Some((entry, at)) = self.index.peek() {
            let relative = time_index::relative(&entry);
            let timestamp = Timestamp(time_index::timestamp(&entry));
            let offset = self.index.place.base_offset.plus(i64::from(relative));
            let follows =
                self.last.is_none_or(|last| timestamp > last.timestamp && offset >= last.offset);
            if relative >= 0 && follows {
                return Some((TimestampOffset { timestamp, offset }, at));
            }
            let what = format!("entry ({timestamp} ms, {offset}) does not follow the one before");
            self.index.fault(Some(offset), Some(at), what);
            self.index.entries.advance();
        }
        None
    }

    pub(super) fn on_batch(&mut self, header: &BatchHeader) {
        self.largest = self.largest.max(header.max_timestamp);
        while let Some((entry, at)) = self.next() {
            let TimestampOffset { timestamp, offset } = entry;
            if offset > header.last_offset() {
                break;
            }
            if offset < header.base_offset && self.is_after_damage {
                // Its batch is the damaged one.
            } else if offset < header.base_offset {
                let what =
                    format!("entry of {timestamp} ms names offset {offset}, which no batch has");
                self.index.fault(Some(offset), Some(at), what);
            } else if header.max_timestamp != timestamp || self.largest != timestamp {
                let what = format!(
                    "entry of {timestamp} ms names the batch of offset {} with {} ms; the largest so far is {} ms",
                    header.base_offset, header.max_timestamp, self.largest
                );
                self.index.fault(Some(offset), Some(at), what);
            }
            self.last = Some(entry);
            self.index.entries.advance();
        }
        self.is_after_damage = false;
    }

    /// A batch could not be read.
    pub(super) fn on_damage(&mut self) {
        self.is_after_damage = true;
    }

    /// The batches ended at `next_offset`. `is_complete`: the last entry is the segment's largest timestamp.
    pub(super) fn finish(&mut self, next_offset: Offset, is_complete: bool) {
        let mut has_more = false;
        while let Some((entry, at)) = self.next() {
            has_more = true;
            if !self.index.place.is_active {
                let what = format!(
                    "entry of {} ms names offset {}, but the segment ends before {next_offset}",
                    entry.timestamp, entry.offset
                );
                self.index.fault(Some(entry.offset), Some(at), what);
            }
            self.last = Some(entry);
            self.index.entries.advance();
        }
        let last = self.last.map_or(Timestamp::NONE, |last| last.timestamp);
        if is_complete && !has_more && last < self.largest {
            let what = format!(
                "the segment's largest timestamp is {} ms, the last entry's {last} ms",
                self.largest
            );
            self.index.fault(None, None, what);
        }
    }
}

/// The transaction index, and the transactions that are open as the batches are walked.
#[derive(Debug, Default)]
pub(super) struct TransactionCheck {
    pub(super) index: Option<IndexCheck<{ transaction_index::ENTRY_SIZE }>>,
    /// First offsets that were seen of open transactions, by producer id.
    open: BTreeMap<i64, Offset>,
    last: Option<Offset>,
}

impl TransactionCheck {
    /// Goes on with the next segment's index.
    pub(super) fn set_index(
        &mut self,
        index: Option<IndexCheck<{ transaction_index::ENTRY_SIZE }>>,
    ) {
        self.index = index;
        self.last = None;
    }

    /// A batch could not be read: what is open is no longer known.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    fn next(&mut self) -> Option<(AbortedTransaction, u64)> {
        let index = self.index.as_mut()?;
        while let Some((entry, at)) = index.peek() {
            let aborted = transaction_index::parse(&entry);
            let is_ordered = self.last.is_none_or(|last| aborted.last_offset > last)
                && aborted.first_offset <= aborted.last_offset
                && aborted.first_offset.0 >= 0
                && aborted.last_stable_offset <= aborted.last_offset.plus(1);
            if entry[..2] == [0, 0] && is_ordered {
                return Some((aborted, at));
            }
            let what = format!(
                "entry of producer {} from {} to {} is of another version or contradicts itself or the one before",
                aborted.producer_id, aborted.first_offset, aborted.last_offset
            );
            index.fault(Some(aborted.last_offset), Some(at), what);
            index.entries.advance();
        }
        None
    }

    /// Takes a batch into account; the offset of an abort marker whose transaction the index must have but does not.
    pub(super) fn on_batch(
        &mut self,
        header: &BatchHeader,
        marker: Option<EndMarker>,
    ) -> Option<Offset> {
        let mut is_indexed = false;
        while let Some((aborted, at)) = self.next() {
            if aborted.last_offset > header.last_offset() {
                break;
            }
            let is_its_marker = aborted.last_offset >= header.base_offset
                && aborted.producer_id == header.producer_id
                && marker.is_some_and(|marker| marker.is_abort);
            let first = self.open.get(&aborted.producer_id.0).copied();
            let index = self.index.as_mut()?;
            if !is_its_marker {
                let what = format!(
                    "entry of producer {} ends at offset {}, where it has no abort marker",
                    aborted.producer_id, aborted.last_offset
                );
                index.fault(Some(aborted.last_offset), Some(at), what);
            } else if let Some(first) = first.filter(|first| *first < aborted.first_offset) {
                let what = format!(
                    "entry of producer {} begins at offset {}, its transaction at {first}",
                    aborted.producer_id, aborted.first_offset
                );
                index.fault(Some(aborted.last_offset), Some(at), what);
            }
            is_indexed |= is_its_marker;
            self.last = Some(aborted.last_offset);
            index.entries.advance();
        }
        let id = header.producer_id.0;
        match marker {
            Some(marker) => {
                let had_records = self.open.remove(&id).is_some();
                (marker.is_abort && had_records && !is_indexed).then_some(header.base_offset)
            }
            None => {
                if id >= 0 && header.is_transactional() && !header.is_control() {
                    self.open.entry(id).or_insert(header.base_offset);
                }
                None
            }
        }
    }

    /// The segment's batches ended.
    pub(super) fn finish(&mut self, next_offset: Offset) {
        while let Some((aborted, at)) = self.next() {
            let Some(index) = self.index.as_mut() else { return };
            if !index.place.is_active {
                let what = format!(
                    "entry of producer {} ends at offset {}, but the segment ends before {next_offset}",
                    aborted.producer_id, aborted.last_offset
                );
                index.fault(Some(aborted.last_offset), Some(at), what);
            }
            self.last = Some(aborted.last_offset);
            index.entries.advance();
        }
    }
}
