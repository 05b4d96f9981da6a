//! The rules that a log keeps whatever the crash, one function each, over what was found of it.

use super::super::directory::{
    INDEX_SUFFIX, LOG_SUFFIX, SNAPSHOT_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, file_name,
    offset_of_name,
};
use super::super::{
    AbortedTransaction, ActiveProducer, EpochEntry, Log, MinOne, TimeQuery, TimestampOffset,
    checkpoint, leader_epochs,
};
use super::model::{Batch, Entry, Model, Opened, Replay, replay};
use crate::env::Disk;
use ottla_protocol::batch::{batches, check_crc};
use ottla_protocol::{Offset, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Offsets and timestamps that are looked up, at the most.
const LOOKUPS_MAX: usize = 60;

/// A rule that is broken.
pub(super) type Broken = String;

/// One segment's file.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) base_offset: i64,
    pub(super) batches: Vec<Batch>,
    /// Why the walk over its batches ended before the file's end.
    pub(super) cause: Option<String>,
}

/// What an open log answers, and what lies in its directory.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) opened: Opened,
    pub(super) segments: Vec<Found>,
    pub(super) batches: Vec<Batch>,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) names: Vec<String>,
    /// The batch that was read at an offset.
    pub(super) reads: Vec<(i64, Option<i64>)>,
    /// All bytes from the log start offset on, read in one go after another.
    pub(super) bytes: Vec<u8>,
    pub(super) times: Vec<(i64, Option<TimestampOffset>)>,
    pub(super) max_timestamp: Option<TimestampOffset>,
    pub(super) epochs: Vec<EpochEntry>,
    pub(super) producers: Vec<ActiveProducer>,
    pub(super) aborted: Vec<AbortedTransaction>,
    pub(super) last_stable_offset: i64,
}

impl Seen {
    pub(super) fn of(log: &Log, disk: &dyn Disk, opened: Opened) -> Result<Seen, Broken> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let listed = disk.list(&log.path()).unwrap_or_default();
        let names: Vec<String> = listed.into_iter().map(|entry| entry.name).collect();
        let mut segments = Vec::new();
        for name in names.iter().filter(|name| name.ends_with(LOG_SUFFIX)) {
            let mut bytes = disk.read(&log.path().join(name)).map_err(|e| text(&e))?;
            let base = offset_of_name(name).unwrap_or(-1);
            let active = log.segments().last().filter(|it| it.base_offset.0 == base);
            if let Some(size) = active.map(|it| it.size as usize)
                && log.config().preallocate
                && bytes.iter().skip(size).all(|byte| *byte == 0)
            {
                bytes.truncate(size);
            }
            segments.push(walk(base, bytes));
        }
        let all: Vec<Batch> = segments.iter().flat_map(|it| it.batches.clone()).collect();
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let mut reads = Vec::new();
        let step = (((end.0 - start.0) as usize) / LOOKUPS_MAX).max(1);
        for offset in (start.0..end.0).step_by(step) {
            let read = log.read(Offset(offset), 1, MinOne::Yes, end).map_err(|e| text(&e))?;
            reads.push((offset, read.map(|slice| slice.base_offset.0)));
        }
        let mut times = Vec::new();
        for timestamp in timestamps(&all) {
            times.push((timestamp, find(log, TimeQuery::AtOrAfter(Timestamp(timestamp)))?));
        }
        Ok(Seen {
            opened,
            segments,
            batches: all,
            start: start.0,
            end: end.0,
            names,
            reads,
            bytes: read_through(log)?,
            times,
            max_timestamp: find(log, TimeQuery::Largest)?,
            epochs: log.leader_epochs().to_vec(),
            producers: log.active_producers(),
            aborted: log.aborted_transactions(start, end).map_err(|e| text(&e))?,
            last_stable_offset: log.last_stable_offset(end).0,
        })
    }

    fn visible(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| batch.last() >= self.start)
    }

    fn records(&self) -> impl Iterator<Item = &Entry> {
        let records = self.visible().flat_map(|batch| &batch.records);
        records.filter(|record| record.offset >= self.start)
    }
}

/// What the log finds by time, and a view of it.
fn find(log: &Log, query: TimeQuery) -> Result<Option<TimestampOffset>, Broken> {
    let found = log.find_by_time(query).map_err(|e| e.to_string())?;
    let by_view = log.time_view().find(query).map_err(|e| e.to_string())?;
    that(found == by_view, || format!("the log finds {found:?}, and a view {by_view:?}"))?;
    Ok(found)
}

fn walk(base_offset: i64, bytes: Vec<u8>) -> Found {
    let mut found = Found { base_offset, batches: Vec::new(), cause: None };
    for next in batches(&bytes) {
        let batch = next.map_err(|e| e.to_string()).and_then(|(header, bytes)| {
            check_crc(&header, bytes).map_err(|e| e.to_string())?;
            Batch::new(header, bytes::Bytes::copy_from_slice(bytes))
        });
        match batch {
            Ok(batch) => found.batches.push(batch),
            Err(cause) => {
                found.cause = Some(cause);
                break;
            }
        }
    }
    found
}

/// Some of the records' timestamps, and those next to them.
fn timestamps(batches: &[Batch]) -> Vec<i64> {
    let all: BTreeSet<i64> =
        batches.iter().flat_map(|batch| &batch.records).map(|record| record.timestamp).collect();
    let step = (all.len() * 2 / LOOKUPS_MAX).max(1);
    all.iter().step_by(step).flat_map(|timestamp| [*timestamp, timestamp + 1]).collect()
}

fn read_through(log: &Log) -> Result<Vec<u8>, Broken> {
    let mut all = Vec::new();
    let mut offset = log.log_start_offset();
    loop {
        let read = log.read(offset, 700, MinOne::Yes, log.log_end_offset());
        let Some(slice) = read.map_err(|e| e.to_string())? else { return Ok(all) };
        let bytes = slice.to_bytes().map_err(|e| e.to_string())?;
        let before = offset;
        for found in batches(&bytes) {
            let Ok((header, whole)) = found else { break };
            all.extend_from_slice(whole);
            offset = header.next_offset();
        }
        if offset == before {
            return Err(format!("a read at {offset} gives no whole batch"));
        }
    }
}

/// A rule by its name.
pub(super) type Check = (&'static str, fn(&Model, &Seen) -> Result<(), Broken>);

/// Every rule.
pub(super) const CHECKS: &[Check] = &[
    ("sequence", sequence),
    ("subset", subset),
    ("kept", kept),
    ("bounds", bounds),
    ("offset lookups", offset_lookups),
    ("time lookups", time_lookups),
    ("epochs", epochs),
    ("producers", producers),
    ("transactions", transactions),
    ("strays", strays),
];

/// The first rule that is broken.
pub(super) fn check_all(model: &Model, seen: &Seen) -> Result<(), Broken> {
    for (name, check) in CHECKS {
        check(model, seen).map_err(|broken| format!("{name}: {broken}"))?;
    }
    Ok(())
}

fn that(is_so: bool, broken: impl FnOnce() -> String) -> Result<(), Broken> {
    if is_so { Ok(()) } else { Err(broken()) }
}

/// Every file is whole batches with offsets that grow, within the segment, below the log's end.
fn sequence(_: &Model, seen: &Seen) -> Result<(), Broken> {
    let mut next = 0;
    for (n, segment) in seen.segments.iter().enumerate() {
        let base = segment.base_offset;
        if let Some(cause) = &segment.cause {
            return Err(format!("segment {base} does not end with a batch: {cause}"));
        }
        that(base >= next, || format!("segment {base} begins below {next}"))?;
        next = base;
        for batch in &segment.batches {
            let first = batch.first();
            that(first >= next, || format!("batch {first} lies after {next}"))?;
            next = batch.last() + 1;
        }
        let bound = seen.segments.get(n + 1).map_or(seen.end, |next| next.base_offset);
        that(next <= bound, || format!("segment {base} ends at {next}, after {bound}"))?;
    }
    Ok(())
}

/// Nothing is there that was not appended, or was appended and taken back.
fn subset(model: &Model, seen: &Seen) -> Result<(), Broken> {
    let all = model.batches.iter().chain(&model.unanswered).flat_map(|batch| &batch.records);
    let records: BTreeMap<i64, &Entry> = all.map(|record| (record.offset, record)).collect();
    for batch in &seen.batches {
        let first = batch.first();
        if model.find(first).is_some_and(|known| known.bytes == batch.bytes) {
            continue;
        }
        that(first < model.cleaned_to, || format!("batch {first} was not appended"))?;
        for record in &batch.records {
            let known = records.get(&record.offset);
            let is_known = known.is_some_and(|it| it.key == record.key && it.value == record.value);
            that(is_known, || format!("record {} was not appended", record.offset))?;
        }
    }
    Ok(())
}

/// What was answered is there after a kill, and what was flushed after a loss of power. The cleaner takes records
/// that have a later one of their key, tombstones, and what transactions leave behind.
fn kept(model: &Model, seen: &Seen) -> Result<(), Broken> {
    let there: BTreeSet<i64> = seen.batches.iter().map(Batch::first).collect();
    let mut latest = BTreeMap::new();
    for record in seen.records() {
        latest.insert(record.key.clone(), record.offset);
    }
    let offsets: BTreeSet<i64> = seen.records().map(|record| record.offset).collect();
    let aborted = if model.was_cleaned() { model.aborted() } else { BTreeSet::new() };
    for batch in &model.batches {
        if !model.is_due(batch, seen.opened, seen.start) {
            continue;
        }
        let first = batch.first();
        if batch.last() >= model.cleaned_to {
            that(there.contains(&first), || format!("batch {first} is gone"))?;
            continue;
        }
        if batch.header.is_control() || aborted.contains(&first) {
            continue;
        }
        for record in batch.records.iter().filter(|record| record.offset >= seen.start) {
            let offset = record.offset;
            let is_superseded = latest.get(&record.key).is_some_and(|later| *later > offset);
            let may_be_gone = is_superseded || record.value.is_none();
            let is_there = offsets.contains(&offset) || model.gone.contains(&offset);
            that(is_there || may_be_gone, || format!("record {offset} is gone"))?;
        }
    }
    Ok(())
}

/// Where the log begins and ends: never below what was checkpointed or flushed, never above what was answered.
fn bounds(model: &Model, seen: &Seen) -> Result<(), Broken> {
    let (start, end) = (seen.start, seen.end);
    that(start >= model.start_min, || format!("start {start} below {}", model.start_min))?;
    that(start <= model.start_max, || format!("start {start} above {}", model.start_max))?;
    that(end >= start, || format!("end {end} below the start {start}"))?;
    if model.cutting_to.is_some() {
        return Ok(());
    }
    // Where batches are missing, a log start offset that went back takes the end with it.
    let reaches = |offset: i64| {
        let last = model.batches.iter().map(|batch| batch.last() + 1).rfind(|it| *it <= offset);
        end >= offset || (start < model.start && last.is_none_or(|last| end >= last))
    };
    that(reaches(model.durable), || format!("end {end} below {}", model.durable))?;
    let end_max = model.unanswered.last().map_or(model.end, |batch| batch.last() + 1);
    that(end <= end_max, || format!("end {end} above {end_max}"))?;
    let is_exact = seen.opened == Opened::WithPageCache;
    that(!is_exact || reaches(model.end), || format!("end {end} below {}", model.end))
}

/// Reading at an offset finds the batch that a walk finds.
fn offset_lookups(_: &Model, seen: &Seen) -> Result<(), Broken> {
    for (offset, found) in &seen.reads {
        let walked = seen.batches.iter().find(|batch| batch.last() >= *offset).map(Batch::first);
        that(walked == *found, || format!("{found:?} at {offset}, which is in {walked:?}"))?;
    }
    let walked: Vec<u8> = seen.visible().flat_map(|batch| batch.bytes.clone()).collect();
    that(walked == seen.bytes, || "reading through gives other bytes than a walk".to_owned())
}

/// Looking a timestamp up finds the record that a walk finds.
fn time_lookups(_: &Model, seen: &Seen) -> Result<(), Broken> {
    let pair = |record: &Entry| (record.timestamp, record.offset);
    let found = |found: &Option<TimestampOffset>| found.map(|it| (it.timestamp.0, it.offset.0));
    for (timestamp, answered) in &seen.times {
        let walked = seen.records().find(|record| record.timestamp >= *timestamp).map(pair);
        let answered = found(answered);
        that(walked == answered, || format!("{answered:?} at {timestamp}, not {walked:?}"))?;
    }
    // A batch that the cleaner left empty keeps its timestamp, but has no offset for it.
    if seen.visible().any(|batch| batch.records.is_empty()) {
        return Ok(());
    }
    let walked = seen.records().fold(None, |largest, record| match largest {
        Some((timestamp, _)) if timestamp >= record.timestamp => largest,
        _ => Some(pair(record)),
    });
    let answered = found(&seen.max_timestamp);
    that(walked == answered, || format!("largest timestamp {answered:?}, not {walked:?}"))
}

/// The leader epochs are those of the batches, from the log start offset on.
fn epochs(_: &Model, seen: &Seen) -> Result<(), Broken> {
    let at = |offset: i64| {
        let n = seen.epochs.partition_point(|entry| entry.start_offset.0 <= offset);
        n.checked_sub(1).map(|n| seen.epochs[n].epoch.0)
    };
    for batch in seen.visible() {
        let (first, epoch) = (batch.first().max(seen.start), batch.epoch());
        that(at(first) == Some(epoch), || format!("{:?} at {first}, not {epoch}", at(first)))?;
    }
    let is_growing = seen
        .epochs
        .is_sorted_by(|a, b| a.epoch.0 < b.epoch.0 && a.start_offset.0 < b.start_offset.0);
    that(is_growing, || format!("{:?} do not grow", seen.epochs))?;
    for entry in &seen.epochs {
        let start = entry.start_offset.0;
        if start == seen.start {
            continue;
        }
        that((seen.start..=seen.end).contains(&start), || format!("{entry:?} is outside"))?;
        // An epoch begins with a batch, or where batches are missing.
        let before = seen.visible().take_while(|batch| batch.first() < start).last();
        let after = before.map_or(seen.start, |batch| batch.last() + 1);
        that(start >= after, || format!("{entry:?} begins within a batch"))?;
        let next = seen.visible().find(|batch| batch.first() >= start);
        let is_gap = after < next.map_or(seen.end, Batch::first);
        let is_first = next.is_some_and(|batch| batch.epoch() == entry.epoch.0);
        that(is_first || is_gap, || format!("{entry:?} has no batch"))?;
    }
    Ok(())
}

/// What all batches say that were not lost, those that the cleaner took too.
fn replay_left(model: &Model, seen: &Seen) -> Replay {
    let mut left = model.clone();
    left.adopt(seen.opened, &seen.batches, seen.start, seen.end);
    replay(&left.batches)
}

/// The producers are what a replay from some batch at or before the log start offset gives.
fn producers(model: &Model, seen: &Seen) -> Result<(), Broken> {
    let visible = replay(seen.visible());
    let known: BTreeMap<i64, &ActiveProducer> =
        seen.producers.iter().map(|producer| (producer.producer_id.0, producer)).collect();
    let older = model.batches.iter().filter(|batch| batch.last() < seen.start);
    let mut before: Vec<&Batch> = older.collect();
    let whole = replay(before.iter().copied().chain(seen.visible()));
    let left = model.was_cleaned().then(|| replay_left(model, seen));
    for (id, expected) in &visible.producers {
        let Some(found) = known.get(id) else { return Err(format!("{id} is not known")) };
        if let Some(left) = left.as_ref().map(|left| &left.producers[id]) {
            let last = |it: &ActiveProducer| (it.producer_epoch, it.last_sequence);
            let is_same =
                [last(expected), last(left)].contains(&last(found)) || expected.last_sequence == -1;
            that(is_same, || format!("{found:?}, not {expected:?}"))?;
        }
    }
    if left.is_some() {
        return Ok(());
    }
    // Recovery forgets a transaction of which no batch is left: the next one that is found begins it anew.
    let is_same = |known: &ActiveProducer, found: &ActiveProducer| {
        let is_cut = known.current_txn_start_offset.is_some_and(|first| first.0 < seen.start);
        let left = visible.producers.get(&known.producer_id.0);
        let first = match is_cut && known.current_txn_start_offset != found.current_txn_start_offset
        {
            true => left.and_then(|left| left.current_txn_start_offset),
            false => known.current_txn_start_offset,
        };
        ActiveProducer { current_txn_start_offset: first, ..*known } == *found
    };
    let is_of = |replay: &Replay, found: &ActiveProducer| {
        replay.producers.get(&found.producer_id.0).is_some_and(|known| is_same(known, found))
    };
    let mut others: Vec<&ActiveProducer> =
        seen.producers.iter().filter(|found| !is_of(&whole, found)).collect();
    while !others.is_empty() {
        let some = replay(before.iter().copied().chain(seen.visible()));
        others.retain(|found| !is_of(&some, found));
        if before.is_empty() {
            break;
        }
        before.remove(0);
    }
    that(others.is_empty(), || format!("{others:?} of {:?}", whole.producers.values()))
}

/// Readers of committed records see exactly those: aborted batches are indexed, others are not, and undecided ones
/// are above the last stable offset.
fn transactions(model: &Model, seen: &Seen) -> Result<(), Broken> {
    let older = model.batches.iter().filter(|batch| batch.last() < seen.start);
    let whole = replay(older.chain(seen.visible()));
    let covers = |txn: &AbortedTransaction, batch: &Batch| {
        let range = txn.first_offset.0..=txn.last_offset.0;
        txn.producer_id == batch.header.producer_id && range.contains(&batch.first())
    };
    let model_replay = model.was_cleaned().then(|| replay_left(model, seen));
    let whole = model_replay.as_ref().unwrap_or(&whole);
    let aborted = &whole.aborted;
    for batch in seen.visible().filter(|it| it.header.is_transactional()) {
        if batch.header.is_control() || batch.records.is_empty() {
            continue;
        }
        let (first, is_indexed) = (batch.first(), seen.aborted.iter().any(|it| covers(it, batch)));
        let is_aborted = aborted.iter().any(|it| covers(it, batch));
        that(is_aborted == is_indexed, || {
            format!("batch {first}: {:?} are indexed, not {aborted:?}", seen.aborted)
        })?;
    }
    let visible = replay(seen.visible());
    if !model.was_cleaned() {
        for found in &seen.aborted {
            let is_known = whole.aborted.iter().any(|it| {
                let is_cut = it.first_offset < Offset(seen.start);
                it.last_offset == found.last_offset
                    && (it.last_stable_offset <= found.last_stable_offset || is_cut)
                    && (it.first_offset == found.first_offset || is_cut)
            });
            that(is_known, || format!("{found:?} is none of {:?}", whole.aborted))?;
        }
    }
    let expected = |it: Option<i64>| it.unwrap_or(seen.end).clamp(seen.start, seen.end);
    let either = [expected(visible.first_unstable()), expected(whole.first_unstable())];
    let found = seen.last_stable_offset;
    that(either.contains(&found), || format!("last stable offset {found}, not {either:?}"))
}

/// Every file belongs to a segment or to the log.
fn strays(_: &Model, seen: &Seen) -> Result<(), Broken> {
    let last_base = seen.segments.last().map_or(0, |segment| segment.base_offset);
    let temporary = format!("{}.tmp", leader_epochs::FILE_NAME);
    let mut snapshots_past_end = 0;
    for name in &seen.names {
        let of_segment = seen.segments.iter().any(|segment| {
            let suffixes =
                [LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, SNAPSHOT_SUFFIX];
            suffixes.iter().any(|suffix| *name == file_name(segment.base_offset, suffix))
        });
        let is_snapshot = name.ends_with(SNAPSHOT_SUFFIX);
        snapshots_past_end += usize::from(is_snapshot && !of_segment);
        let is_newest = is_snapshot && offset_of_name(name).is_some_and(|at| at > last_base);
        let own = [checkpoint::PARTITION_METADATA, leader_epochs::FILE_NAME, &temporary];
        let is_own = own.contains(&name.as_str());
        that(of_segment || is_newest || is_own, || format!("{name} belongs to nothing"))?;
    }
    that(snapshots_past_end <= 1, || format!("{snapshots_past_end} snapshots past the end"))
}

/// Opening a log that was recovered changes no file.
pub(super) fn idempotent(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) -> Result<(), Broken> {
    for path in before.keys().chain(after.keys()) {
        let (before, after) = (before.get(path), after.get(path));
        let name = path.display();
        that(before == after, || {
            format!("idempotence: {name} was {before:?} and is {after:?} after another start")
        })?;
    }
    Ok(())
}

/// Opening a log that was recovered gives the same answers.
pub(super) fn same(before: &Seen, after: &Seen) -> Result<(), Broken> {
    let answers = |seen: &Seen| {
        let Seen { start, end, epochs, producers, aborted, last_stable_offset, .. } = seen;
        format!("{start}..{end} {epochs:?} {producers:?} {aborted:?} {last_stable_offset}")
    };
    let (before, after) = (answers(before), answers(after));
    that(before == after, || format!("idempotence: answered {before} and now {after}"))
}
