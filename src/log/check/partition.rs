//! One partition's directory: which files there are, the small ones, then the segments in order.

use super::entries::Entries;
use super::finding::{Finding, Findings, Kind};
use super::indexes::{IndexCheck, OffsetCheck, Place, TimeCheck, TransactionCheck};
use super::metadata;
use super::segment::{SegmentParams, SegmentWalk, Walked};
use super::{Counts, Step};
use crate::env::disk::DirEntry;
use crate::env::{Disk, DiskFile, OpenMode};
use crate::log::checkpoint::{self, PARTITION_METADATA};
use crate::log::directory::{
    CLEANED_SUFFIX, DELETED_SUFFIX, INDEX_SUFFIX, LOG_SUFFIX, SNAPSHOT_SUFFIX, SWAP_SUFFIX,
    TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, file_name, offset_of_name,
};
use crate::log::leader_epochs::{self, EpochEntry};
use crate::log::producer_snapshot;
use ottla_protocol::{Offset, TopicId};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What the log directory's files say of the partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Everything below was synced: the recovery point, or the end of time after a clean stop.
    pub(super) settled: Offset,
    pub(super) is_clean: bool,
    pub(super) recovery_point: Option<Offset>,
    pub(super) log_start_offset: Option<Offset>,
    pub(super) high_watermark: Option<Offset>,
    /// The cleaner has compacted up to there.
    pub(super) cleaned: Option<Offset>,
    pub(super) is_metadata_log: bool,
    /// `meta.properties` is of KRaft's version: every topic has an id.
    pub(super) has_topic_ids: bool,
}

/// What one look at a partition has found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) findings: Findings,
    pub(super) counts: Counts,
    pub(super) topic_id: Option<TopicId>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Files {
    log: Option<u64>,
    offsets: Option<u64>,
    times: Option<u64>,
    transactions: Option<u64>,
}

pub(super) struct PartitionCheck<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) dir: &'a Path,
    pub(super) bounds: Bounds,
    pub(super) looked: Looked,
    segments: BTreeMap<i64, Files>,
    snapshots: Vec<i64>,
    epochs: Vec<EpochEntry>,
}

impl<'a> PartitionCheck<'a> {
    pub(super) fn new(disk: &'a dyn Disk, dir: &'a Path, bounds: Bounds) -> Self {
        PartitionCheck {
            disk,
            dir,
            bounds,
            looked: Looked::default(),
            segments: BTreeMap::new(),
            snapshots: Vec::new(),
            epochs: Vec::new(),
        }
    }

    /// Looks at everything that `entries` lists.
    pub(super) fn run(&mut self, entries: &[DirEntry], watch: &mut dyn FnMut(Step<'_>)) {
        self.looked.counts.partitions = 1;
        for entry in entries {
            self.sort(entry);
        }
        self.read_epochs();
        self.check_segments(watch);
    }

    fn push(&mut self, kind: Kind, name: &str, what: impl Into<String>) {
        let finding = Finding::new(kind, &self.dir.join(name), what);
        self.looked.findings.push(finding);
    }

    /// Puts a file where it belongs, or says that it belongs nowhere.
    fn sort(&mut self, entry: &DirEntry) {
        let name = entry.name.as_str();
        let left_over = [DELETED_SUFFIX, CLEANED_SUFFIX, SWAP_SUFFIX, ".tmp", ".part"];
        if left_over.iter().any(|suffix| name.ends_with(suffix)) {
            let what = "a deletion, compaction or write was under way";
            return self.push(Kind::LeftOver, name, what);
        }
        if [leader_epochs::FILE_NAME, PARTITION_METADATA].contains(&name) {
            return;
        }
        if self.bounds.is_metadata_log && name == metadata::QUORUM_STATE {
            let path = self.dir.join(name);
            return metadata::check_quorum_state(self.disk, &path, &mut self.looked.findings);
        }
        if self.bounds.is_metadata_log && metadata::snapshot_end(name).is_some() {
            let path = self.dir.join(name);
            return metadata::check_snapshot(
                self.disk,
                &path,
                entry.len,
                &mut self.looked.findings,
            );
        }
        // The ordinal of a snapshot's last batch, Ottla's own.
        let snapshot = name.strip_suffix(".raft");
        if self.bounds.is_metadata_log && snapshot.and_then(metadata::snapshot_end).is_some() {
            return;
        }
        let base = offset_of_name(name);
        let suffix = name.find('.').map_or("", |dot| &name[dot..]);
        let Some(base) = base.filter(|base| !entry.is_dir && file_name(*base, suffix) == name)
        else {
            return self.push(Kind::Unknown, name, "it is no file of a partition");
        };
        if suffix == SNAPSHOT_SUFFIX {
            return self.snapshots.push(base);
        }
        let field = match suffix {
            LOG_SUFFIX => |files: &mut Files, len| files.log = Some(len),
            INDEX_SUFFIX => |files: &mut Files, len| files.offsets = Some(len),
            TIME_INDEX_SUFFIX => |files: &mut Files, len| files.times = Some(len),
            TXN_INDEX_SUFFIX => |files: &mut Files, len| files.transactions = Some(len),
            _ => return self.push(Kind::Unknown, name, "it is no file of a partition"),
        };
        field(self.segments.entry(base).or_default(), entry.len);
    }

    fn read_epochs(&mut self) {
        let path = self.dir.join(leader_epochs::FILE_NAME);
        let text = match self.disk.read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => return self.push(Kind::Unreadable, leader_epochs::FILE_NAME, e.to_string()),
        };
        match leader_epochs::parse(&text) {
            Err(line) => {
                self.push(
                    Kind::LeaderEpochs,
                    leader_epochs::FILE_NAME,
                    format!("malformed line {line}"),
                );
            }
            Ok(entries) => {
                let mut disorder = None;
                for pair in entries.windows(2) {
                    let [a, b] = pair else { continue };
                    if b.epoch <= a.epoch || b.start_offset <= a.start_offset {
                        disorder = disorder.or(Some(*b));
                    }
                }
                if let Some(entry) = disorder {
                    let what = format!(
                        "epoch {} from offset {} does not follow the entry before",
                        entry.epoch, entry.start_offset
                    );
                    let finding = Finding::new(Kind::LeaderEpochs, &path, what);
                    self.looked.findings.push(finding.at_offset(entry.start_offset));
                } else {
                    self.epochs = entries;
                }
            }
        }
    }

    fn check_segments(&mut self, watch: &mut dyn FnMut(Step<'_>)) {
        let segments = std::mem::take(&mut self.segments);
        let logs: Vec<i64> = segments
            .iter()
            .filter(|(_, files)| files.log.is_some())
            .map(|(base, _)| *base)
            .collect();
        for (base, _) in segments.iter().filter(|(_, files)| files.log.is_none()) {
            self.push(
                Kind::OrphanIndex,
                &file_name(*base, INDEX_SUFFIX),
                "the .log file is missing",
            );
        }
        let mut transactions = TransactionCheck::default();
        let mut before: Option<Walked> = None;
        let mut gaps = Vec::new();
        let (mut is_sparse, mut is_whole, mut wrong_epoch) = (false, true, None);
        for (n, base) in logs.iter().enumerate() {
            let next_base = logs.get(n + 1).copied();
            let files = segments[base];
            let walked = self.check_segment(*base, files, next_base, &mut transactions, watch);
            let Some(walked) = walked else {
                is_whole = false;
                before = None;
                continue;
            };
            is_sparse |= walked.is_sparse;
            is_whole &= !walked.is_damaged;
            wrong_epoch = wrong_epoch.or(walked.wrong_epoch);
            if let Some(before) = before.take().filter(|before| !before.is_damaged) {
                gaps.push((Offset(*base), before.next_offset));
            }
            before = Some(walked);
        }
        self.check_joins(&gaps, is_sparse || self.bounds.cleaned.is_some());
        let start = logs.first().map_or(Offset(0), |base| Offset(*base));
        let has_batches = before.as_ref().is_some_and(|last| last.next_offset > start);
        let end = before.map_or(start, |last| last.next_offset);
        if let Some((offset, epoch)) = wrong_epoch {
            let path = self.dir.join(leader_epochs::FILE_NAME);
            let what = format!("the batch is of epoch {epoch}, which the file does not have there");
            let finding = Finding::new(Kind::LeaderEpochs, &path, what);
            self.looked.findings.push(finding.at_offset(offset));
        }
        if is_whole {
            self.check_ends(end);
        }
        self.check_snapshots(if is_whole { end } else { Offset(i64::MAX) });
        self.check_topic_id(has_batches);
    }

    /// Says where a segment does not begin at the end of the one before.
    fn check_joins(&mut self, joins: &[(Offset, Offset)], is_compacted: bool) {
        for &(base, end) in joins {
            let name = file_name(base.0, LOG_SUFFIX);
            let finding = if end > base {
                let what = format!("it begins at {base}, but the segment before ends at {end}");
                Finding::new(Kind::BatchOffset, &self.dir.join(name), what)
            } else if end < base && !is_compacted {
                let what = format!("offsets {end} to {} are missing before it", base.0 - 1);
                Finding::new(Kind::OffsetGap, &self.dir.join(name), what)
            } else {
                continue;
            };
            self.looked.findings.push(finding.at_offset(end));
        }
    }

    /// Compares what the checkpoints promise with where the log ends.
    fn check_ends(&mut self, end: Offset) {
        let dir = self.dir.to_owned();
        let promises = [
            ("recovery point", self.bounds.recovery_point),
            ("high watermark", self.bounds.high_watermark),
            ("log start offset", self.bounds.log_start_offset),
        ];
        for (what, offset) in promises {
            let Some(offset) = offset.filter(|offset| *offset > end) else { continue };
            let what = format!("the log ends at {end}, before its checkpointed {what} {offset}");
            let finding = Finding::new(Kind::CheckpointOffset, &dir, what);
            self.looked.findings.push(finding.at_offset(end));
        }
        if let Some(last) = self.epochs.last().filter(|last| last.start_offset > end) {
            let what = format!("epoch {} begins past the log's end {end}", last.epoch);
            let path = dir.join(leader_epochs::FILE_NAME);
            let finding = Finding::new(Kind::LeaderEpochs, &path, what);
            self.looked.findings.push(finding.at_offset(last.start_offset));
        }
    }

    fn check_snapshots(&mut self, end: Offset) {
        for at in std::mem::take(&mut self.snapshots) {
            let name = file_name(at, SNAPSHOT_SUFFIX);
            let path = self.dir.join(&name);
            let bytes = match self.disk.read(&path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => {
                    self.push(Kind::Unreadable, &name, e.to_string());
                    continue;
                }
            };
            let entries = match producer_snapshot::decode(&bytes) {
                Ok(entries) => entries,
                Err(what) => {
                    self.push(Kind::ProducerSnapshot, &name, what);
                    continue;
                }
            };
            let ahead = entries.iter().find(|(_, entry)| {
                entry.last_batch().is_some_and(|batch| batch.last_offset.0 >= at)
                    || entry.current_txn_first_offset.is_some_and(|first| first.0 >= at)
            });
            if let Some((id, _)) = ahead {
                let what = format!("producer {id} has offsets at or past the snapshot's own");
                self.push(Kind::ProducerSnapshot, &name, what);
            } else if at > end.0 && self.bounds.is_clean {
                let what = format!("it is of offset {at}, past the log's end {end}");
                self.push(Kind::ProducerSnapshot, &name, what);
            }
        }
    }

    fn check_topic_id(&mut self, has_batches: bool) {
        match checkpoint::read_partition_metadata(self.disk, self.dir) {
            Ok(Some(id)) => self.looked.topic_id = Some(id),
            Ok(None) if has_batches && self.bounds.has_topic_ids => {
                self.push(Kind::PartitionMetadata, PARTITION_METADATA, "the file is missing");
            }
            Ok(None) => {}
            Err(error) => {
                self.push(Kind::PartitionMetadata, PARTITION_METADATA, error.to_string());
            }
        }
    }

    /// Walks one segment; `None` where its file cannot be read.
    fn check_segment(
        &mut self,
        base: i64,
        files: Files,
        next_base: Option<i64>,
        transactions: &mut TransactionCheck,
        watch: &mut dyn FnMut(Step<'_>),
    ) -> Option<Walked> {
        let is_active = next_base.is_none();
        let is_settled =
            next_base.map_or(self.bounds.is_clean, |next| Offset(next) <= self.bounds.settled);
        let place = Place { base_offset: Offset(base), is_active, is_settled };
        let path = self.dir.join(file_name(base, LOG_SUFFIX));
        let file = self.open(&path)?;
        let len = file.len().ok()?;
        let is_complete = !is_active || self.bounds.is_clean;
        if len > 0 && is_complete {
            self.check_presence(base, files);
        }
        let offsets = self.index(base, INDEX_SUFFIX, files.offsets, Kind::OffsetIndex, place);
        let times = self.index(base, TIME_INDEX_SUFFIX, files.times, Kind::TimeIndex, place);
        let txn_kind = Kind::TransactionIndex;
        let aborted = self.index(base, TXN_INDEX_SUFFIX, files.transactions, txn_kind, place);
        transactions.set_index(aborted);
        let params = SegmentParams {
            path: path.clone(),
            base_offset: Offset(base),
            is_active,
            settled: self.bounds.settled,
            log_start_offset: self.bounds.log_start_offset.unwrap_or(Offset(0)),
            epochs: &self.epochs,
            is_metadata_log: self.bounds.is_metadata_log,
        };
        let mut walk = SegmentWalk {
            params,
            offsets: offsets.map(OffsetCheck::new),
            times: times.map(TimeCheck::new),
            transactions,
            findings: &mut self.looked.findings,
        };
        let walked = walk.run(&*file, len, &mut |bytes| watch(Step::Bytes(bytes)));
        let walked = match walked {
            Ok(walked) => walked,
            // A running broker cut it.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return None,
            Err(e) => {
                self.looked.findings.push(Finding::new(Kind::Unreadable, &path, e.to_string()));
                return None;
            }
        };
        let file_end = file.len().unwrap_or(len);
        walk.finish(&walked, file_end, is_complete);
        self.looked.counts.segments += 1;
        self.looked.counts.batches += walked.batches;
        self.looked.counts.bytes += len;
        Some(walked)
    }

    fn check_presence(&mut self, base: i64, files: Files) {
        for (suffix, len) in [(INDEX_SUFFIX, files.offsets), (TIME_INDEX_SUFFIX, files.times)] {
            if len.is_none() {
                self.push(Kind::IndexMissing, &file_name(base, suffix), "the file is missing");
            }
        }
    }

    /// An index file to be checked, where there is one.
    fn index<const N: usize>(
        &mut self,
        base: i64,
        suffix: &str,
        len: Option<u64>,
        kind: Kind,
        place: Place,
    ) -> Option<IndexCheck<N>> {
        len?;
        let path = self.dir.join(file_name(base, suffix));
        let file = self.open(&path)?;
        let opened = file.len().and_then(|len| Entries::open(file, len).map(|found| (found, len)));
        match opened {
            Ok((entries, len)) => {
                if !len.is_multiple_of(N as u64) {
                    let what = format!("{len} bytes are no multiple of an entry's {N}");
                    self.looked.findings.push(Finding::new(kind, &path, what));
                }
                Some(IndexCheck::new(entries, path, kind, place))
            }
            Err(e) => {
                self.looked.findings.push(Finding::new(Kind::Unreadable, &path, e.to_string()));
                None
            }
        }
    }

    fn open(&mut self, path: &Path) -> Option<Arc<dyn DiskFile>> {
        match self.disk.open(path, OpenMode::Read) {
            Ok(file) => Some(file),
            // A running broker has deleted the segment since.
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                self.looked.findings.push(Finding::new(Kind::Unreadable, path, e.to_string()));
                None
            }
        }
    }
}

impl SegmentWalk<'_> {
    /// Ends the indexes where the batches ended.
    fn finish(&mut self, walked: &Walked, file_end: u64, is_complete: bool) {
        // Nothing is said of entries behind damage.
        if !walked.is_damaged {
            if let Some(offsets) = &mut self.offsets {
                offsets.finish(walked.end, walked.next_offset, file_end);
            }
            if let Some(times) = &mut self.times {
                times.finish(walked.next_offset, is_complete);
            }
            self.transactions.finish(walked.next_offset);
        }
        if let Some(offsets) = &mut self.offsets {
            offsets.index.flush(self.findings);
        }
        if let Some(times) = &mut self.times {
            times.index.flush(self.findings);
        }
        if let Some(index) = &mut self.transactions.index {
            index.flush(self.findings);
        }
    }
}
