//! A history: a log on a simulated disk, told what a broker tells it, until the process or the machine ends; then
//! opened again and checked. All of it follows from the seed.

use super::super::checkpoint::{
    self, LOG_START_OFFSETS, RECOVERY_POINTS, partition_dir, write_offsets,
};
use super::super::*;
use super::checks::{Broken, Seen, check_all};
use super::model::{Batch, Model, Opened};
use crate::env::rng::Rng;
use crate::env::sim_disk::{Crash, SimDisk};
use bytes::Bytes;
use ottla_protocol::batch::{BatchHeader, leader_prefix};
use ottla_protocol::record::{BatchBuilder, BatchParams};
use ottla_protocol::{ProducerEpoch, ProducerId};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

pub(super) const NOW: Timestamp = Timestamp(1_700_000_000_000);
const LOG_DIR: &str = "/logs";
const TOPIC: &str = "events";
/// Keys of records: few, so that compaction has something to do.
const KEYS: usize = 7;
/// Producers without transactions have the ids below, those with transactions from here on.
const TRANSACTIONAL: usize = 10;
/// Files that are kept open, by the seed's remainder.
const OPEN_FILES: [usize; 3] = [usize::MAX, 1, 3];
const BUFFERS: CleaningBuffers =
    CleaningBuffers { map_bytes: 1 << 16, load_factor: 0.9, io_bytes: 256 };

/// Why a verb did not succeed.
#[derive(Debug)]
pub(super) enum Stop {
    /// The disk failed, as a disk may.
    Disk(String),
    /// A rule is broken.
    Broken(Broken),
}

/// What a verb answers.
pub(super) type Done = Result<(), Stop>;

fn failed(error: impl std::fmt::Display) -> Stop {
    Stop::Disk(error.to_string())
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) disk: SimDisk,
    pub(super) config: LogConfig,
    pub(super) log: Option<Log>,
    pub(super) model: Model,
    pub(super) history: Vec<String>,
    /// A flush that runs while other verbs do.
    job: Option<FlushJob>,
    deleted: Vec<DeletedFiles>,
    /// The recovery point was past the log's end: another start finds another one, and less to recover.
    was_stale: bool,
    /// Nothing ends the process but what the test says.
    pub(super) is_calm: bool,
    /// The high watermark of the last cleaning.
    cleaned_below: i64,
    epoch: i32,
    values: usize,
    now: Timestamp,
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len())]
}

fn random_config(rng: &mut Rng) -> LogConfig {
    let is_compacted = rng.one_in(3);
    LogConfig {
        segment_bytes: pick(rng, &[900, 1500, 3000, 20_000]),
        index_interval_bytes: pick(rng, &[0, 100, 1000]),
        segment_index_bytes: pick(rng, &[100, 1000]),
        retention_ms: -1,
        cleanup_policy: CleanupPolicy { delete: !is_compacted, compact: is_compacted },
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: pick(rng, &[0, 1000]),
        flush_messages: pick(rng, &[1, 7, i64::MAX, i64::MAX]),
        producer_id_expiration_ms: i64::MAX,
        message_timestamp_after_max_ms: i64::MAX,
        preallocate: rng.one_in(3),
        ..LogConfig::default()
    }
}

impl World {
    /// A new log.
    pub(super) fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::with_open_files(seed, OPEN_FILES[seed as usize % OPEN_FILES.len()]);
        disk.create_dir_durably(Path::new(LOG_DIR)).unwrap();
        let config = random_config(&mut rng);
        let mut world = World {
            rng,
            disk,
            config,
            log: None,
            model: Model::default(),
            history: Vec::new(),
            job: None,
            deleted: Vec::new(),
            was_stale: false,
            is_calm: false,
            cleaned_below: 0,
            epoch: 0,
            values: 0,
            now: NOW,
        };
        world.open().unwrap();
        world
    }

    pub(super) fn path(&self) -> PathBuf {
        partition_dir(Path::new(LOG_DIR), TOPIC, 0)
    }

    pub(super) fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("it is open between crashes")
    }

    fn end(&self) -> i64 {
        self.log.as_ref().map_or(0, |log| log.log_end_offset().0)
    }

    /// Opens the log as a broker does at its start.
    pub(super) fn open(&mut self) -> Done {
        let (disk, dir) = (&self.disk, Path::new(LOG_DIR));
        let offset = |name| {
            let offsets = checkpoint::read_offsets(disk, dir, name).map_err(failed)?;
            let key = (TOPIC.to_owned(), 0);
            Ok::<_, Stop>(offsets.get(&key).copied().unwrap_or(Offset(0)))
        };
        let (recovery_point, log_start_offset) =
            (offset(RECOVERY_POINTS)?, offset(LOG_START_OFFSETS)?);
        let clean = checkpoint::read_clean_shutdown(disk, dir).map_err(failed)?;
        checkpoint::remove_clean_shutdown(disk, dir).map_err(failed)?;
        checkpoint::read_partition_metadata(disk, &self.path()).map_err(failed)?;
        // As with many logs to open, in half of the cases.
        let earlier_writes_synced =
            clean.is_none() && disk.operations() % 2 == 0 && disk.sync_all(dir).map_err(failed)?;
        let mut log = Log::open(LogParams {
            disk: Arc::new(disk.clone()),
            dir: self.path(),
            topic: TOPIC.into(),
            partition: 0,
            topic_id: uuid::Uuid::from_u128(7),
            config: Arc::new(self.config.clone()),
            log_start_offset,
            recovery_point,
            clean_shutdown: clean.is_some(),
            earlier_writes_synced,
            now: self.now,
        })
        .map_err(failed)?;
        for files in &log.recovery_report().deleted {
            files.remove().map_err(failed)?;
        }
        let end = log.log_end_offset();
        log.on_high_watermark(end);
        self.was_stale = log.recovery_point() < recovery_point;
        self.log = Some(log);
        // What is appended now is not what was synced.
        if self.was_stale { self.checkpoint() } else { Ok(()) }
    }

    /// Writes recovery point and log start offset as the broker's chores do.
    pub(super) fn checkpoint(&mut self) -> Done {
        let log = self.log();
        let (recovery_point, start) = (log.recovery_point(), log.log_start_offset());
        let first_segment = log.segments().next().map_or(Offset(0), |it| it.base_offset);
        let line = |offset| (TOPIC, 0, offset);
        let starts: Vec<_> = (start > first_segment).then(|| line(start)).into_iter().collect();
        let points = std::iter::once(line(recovery_point));
        let dir = Path::new(LOG_DIR);
        write_offsets(&self.disk, dir, RECOVERY_POINTS, points).map_err(failed)?;
        write_offsets(&self.disk, dir, LOG_START_OFFSETS, starts.into_iter()).map_err(failed)?;
        self.model.start_min = start.0;
        Ok(())
    }

    pub(super) fn append(&mut self, sent: Bytes, origin: AppendOrigin) -> Done {
        let context = AppendContext {
            leader_epoch: LeaderEpoch(self.epoch),
            now: self.now,
            origin,
            transaction: TransactionCheck::Verified,
        };
        let first = self.log().log_end_offset();
        let header = BatchHeader::parse(&sent).map_err(failed)?;
        let prefix = leader_prefix(&header, first, context.leader_epoch);
        let stored = Bytes::from([&prefix[..], &sent[prefix.len()..]].concat());
        let header = BatchHeader::parse(&stored).map_err(failed)?;
        let batch = Batch::new(header, stored).map_err(Stop::Broken)?;
        self.model.unanswered = vec![batch];
        let appended = match self.log().append_as_leader(sent, context) {
            Ok(appended) => appended,
            Err(error @ (AppendError::Storage(_) | AppendError::Offline)) => {
                return Err(failed(error));
            }
            Err(error) => return Err(Stop::Broken(format!("appends: {error}"))),
        };
        if appended.is_duplicate {
            self.model.unanswered.clear();
            return Ok(());
        }
        if appended.first_offset != first {
            let found = appended.first_offset;
            return Err(Stop::Broken(format!("appends: at {found}, not {first}")));
        }
        self.model.batches.append(&mut self.model.unanswered);
        self.model.end = appended.last_offset.0 + 1;
        let end = self.log().log_end_offset();
        self.log().on_high_watermark(end);
        if appended.flush == FlushOwed::Nothing { Ok(()) } else { self.flush() }
    }

    fn batch(&mut self, params: BatchParams) -> Bytes {
        let count = 1 + self.rng.below(4);
        let mut builder = BatchBuilder::new(params);
        for _ in 0..count {
            self.values += 1;
            let size = if self.rng.one_in(12) { 150 } else { self.rng.below(40) };
            let value = format!("v{}{}", self.values, "x".repeat(size));
            let key = format!("k{}", self.rng.below(KEYS));
            let is_tombstone = self.config.cleanup_policy.compact && self.rng.one_in(8);
            let value = (!is_tombstone).then_some(value.as_bytes());
            let timestamp = NOW.plus_ms(self.values as i64 + self.rng.below(30) as i64);
            builder.push(timestamp, Some(key.as_bytes()), value, &[]);
        }
        builder.build().freeze()
    }

    fn next_batch(&mut self) -> (Bytes, AppendOrigin) {
        let kind = self.rng.below(3);
        let id = self.rng.below(2) + if kind == 2 { TRANSACTIONAL } else { 0 };
        let mut params = BatchParams::default();
        if kind > 0 {
            let known = self.log().active_producers();
            let of_id = known.iter().find(|producer| producer.producer_id.0 == id as i64);
            let last = of_id.map_or(-1, |producer| producer.last_sequence);
            params.producer_id = ProducerId(id as i64);
            params.producer_epoch = ProducerEpoch(0);
            params.base_sequence = last + 1;
            params.is_transactional = kind == 2;
        }
        (self.batch(params), AppendOrigin::Client)
    }

    pub(super) fn append_next(&mut self) -> Done {
        let (sent, origin) = self.next_batch();
        self.append(sent, origin)
    }

    /// Ends a transaction that is open.
    fn end_transaction(&mut self) -> Done {
        let id = ProducerId((TRANSACTIONAL + self.rng.below(2)) as i64);
        if !self.log().has_ongoing_transaction(id) {
            return Ok(());
        }
        let is_commit = self.rng.one_in(2);
        let mut builder = BatchBuilder::new(BatchParams {
            producer_id: id,
            producer_epoch: ProducerEpoch(0),
            is_transactional: true,
            is_control: true,
            ..BatchParams::default()
        });
        let key = [0, 0, 0, u8::from(is_commit)];
        builder.push(NOW, Some(&key), Some(&[0, 0, 0, 0, 0, 3]), &[]);
        self.append(builder.build().freeze(), AppendOrigin::Coordinator)
    }

    fn begin_epoch(&mut self) {
        self.epoch += 1;
        let (epoch, end) = (LeaderEpoch(self.epoch), self.log().log_end_offset());
        self.log().assign_leader_epoch(epoch, end);
    }

    /// One flush runs at a time.
    fn finish_job(&mut self) -> Done {
        let Some(job) = self.job.take() else { return Ok(()) };
        let now = self.now;
        match job.run() {
            Ok(()) => self.log().mark_flushed(&job, now),
            Err(error) => {
                self.log().fail_flush();
                return Err(failed(error));
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Done {
        self.finish_job()?;
        let now = self.now;
        self.log().flush(now).map_err(failed)
    }

    fn begin_flush(&mut self) -> Done {
        self.finish_job()?;
        self.job = self.log().prepare_flush().map_err(failed)?;
        Ok(())
    }

    fn flush_inactive(&mut self) -> Done {
        self.finish_job()?;
        self.job = self.log().prepare_flush_inactive().map_err(failed)?;
        self.finish_job()
    }

    pub(super) fn roll(&mut self) -> Done {
        let (end, now) = (self.log().log_end_offset(), self.now);
        self.log().roll(end, now).map_err(failed)
    }

    fn retain(&mut self) -> Done {
        let mut config = LogConfig::clone(self.log().config());
        config.retention_bytes = pick(&mut self.rng, &[-1, 0, 700, 2500]);
        self.log().set_config(Arc::new(config));
        let (end, now) = (self.log().log_end_offset(), self.now);
        self.model.start_max = end.0;
        let deleted = self.log().apply_retention(now, end).map_err(failed)?;
        self.model.start = self.log().log_start_offset().0;
        self.model.start_max = self.model.start;
        deleted.last().map_or(Ok(()), DeletedFiles::sync_renames).map_err(failed)?;
        self.deleted.extend(deleted);
        Ok(())
    }

    fn remove_deleted(&mut self) -> Done {
        let deleted = std::mem::take(&mut self.deleted);
        deleted.iter().try_for_each(DeletedFiles::remove).map_err(failed)
    }

    fn delete_records(&mut self) {
        let (start, end) = (self.model.start, self.end());
        let offset = start + self.rng.below((end - start + 1) as usize) as i64;
        let moved = self.log().set_log_start_offset(Offset(offset), Offset(end));
        moved.expect("the end is the high watermark");
        (self.model.start, self.model.start_max) = (offset, offset);
    }

    /// A follower's cut; the broker then writes its checkpoints, before it appends again.
    fn truncate(&mut self) -> Done {
        let (start, end) = (self.model.start, self.end());
        let cut = self.model.batches.iter().find(|it| it.first() < start && it.last() >= start);
        // What was cleaned was below the high watermark then.
        let from = cut.map_or(start, |batch| batch.last() + 1).max(self.cleaned_below);
        if from > end {
            return Ok(());
        }
        let offset = from + self.rng.below((end - from + 1) as usize) as i64;
        self.model.cutting_to = Some(offset);
        let now = self.now;
        self.log().truncate_to(Offset(offset), now).map_err(failed)?;
        let end = self.end();
        if end > offset || self.log().log_start_offset().0 != start {
            return Err(Stop::Broken(format!("truncated to {end} instead of {offset}")));
        }
        self.forget_from(end);
        self.checkpoint()
    }

    fn truncate_fully(&mut self) -> Done {
        let (start, end) = (self.model.start, self.end());
        let offset = start + self.rng.below((end - start + 20) as usize) as i64;
        self.model.cutting_to = Some(0);
        self.model.start_max = offset;
        let now = self.now;
        self.log().truncate_fully_and_start_at(Offset(offset), now).map_err(failed)?;
        self.forget_from(0);
        (self.model.start, self.model.end) = (offset, offset);
        self.checkpoint()
    }

    fn forget_from(&mut self, end: i64) {
        let model = &mut self.model;
        model.batches.retain(|batch| batch.last() < end);
        model.gone.retain(|offset| *offset < end);
        model.cleaned_to = model.cleaned_to.min(end);
        model.durable = model.durable.min(end);
        (model.cutting_to, model.end) = (None, end);
    }

    fn clean(&mut self) -> Done {
        self.now = self.now.plus_ms(self.rng.below(3000) as i64);
        let now = self.now;
        let log = self.log();
        let (end, checkpoint) = (log.log_end_offset(), log.cleaner_checkpoint());
        let Some(cleanable) = log.cleanable(checkpoint, end, now).map_err(failed)? else {
            return Ok(());
        };
        let mut cleaning = log.prepare_cleaning(cleanable, now).map_err(failed)?;
        let bound = cleanable.first_uncleanable_offset.0;
        self.cleaned_below = end.0;
        let mut go_on = |_: usize| ControlFlow::Continue(());
        cleaning.build_map(BUFFERS, &mut go_on).map_err(failed)?;
        loop {
            let next = cleaning.next(&mut go_on).map_err(|error| {
                let _ = cleaning.discard();
                failed(error)
            });
            let Some(cleaned) = next? else { break };
            // It has synced what it read.
            self.model.durable = self.model.durable.max(bound);
            self.model.cleaned_to = self.model.cleaned_to.max(bound);
            if self.rng.one_in(3) {
                self.append_next()?;
            }
            if !self.log().begin_swap(&cleaned).map_err(failed)? {
                return Err(Stop::Broken("a cleaned segment is of no use".to_owned()));
            }
            cleaned.sync_names().map_err(failed)?;
            let replaced = self.log().finish_swap(cleaned).map_err(failed)?;
            self.deleted.extend(replaced.unwrap_or_default());
        }
        self.log().set_cleaner_checkpoint(Some(cleaning.end_offset()));
        let seen = self.see(Opened::WithPageCache).map_err(Stop::Broken)?;
        let (model, there) = (&mut self.model, offsets(&seen.batches));
        let all = model.batches.iter().flat_map(|batch| &batch.records);
        let bound = model.cleaned_to;
        let cleaned = all.map(|record| record.offset).filter(|offset| *offset < bound);
        model.gone.extend(cleaned.filter(|offset| !there.contains_key(offset)));
        Ok(())
    }

    /// An orderly stop, after which nothing may be missing whatever befalls the machine.
    fn close(&mut self) -> Done {
        self.finish_job()?;
        let now = self.now;
        self.log().close(now).map_err(failed)?;
        self.checkpoint()?;
        checkpoint::write_clean_shutdown(&self.disk, Path::new(LOG_DIR), 1).map_err(failed)?;
        self.model.durable = self.model.end;
        Ok(())
    }

    pub(super) fn see(&self, opened: Opened) -> Result<Seen, Broken> {
        let log = self.log.as_ref().expect("it is open between crashes");
        Seen::of(log, &self.disk, opened)
    }

    /// What happens next; `true` where it was an orderly stop.
    fn verb(&mut self) -> Result<bool, Stop> {
        let is_compacted = self.config.cleanup_policy.compact;
        let (name, verb): (&str, fn(&mut World) -> Done) = match self.rng.below(100) {
            0..45 => ("append", World::append_next),
            45..52 => ("end a transaction", World::end_transaction),
            52..57 => ("begin an epoch", |world| {
                world.begin_epoch();
                Ok(())
            }),
            57..63 => ("flush", World::flush),
            63..66 => ("begin a flush", World::begin_flush),
            66..69 => ("flush inactive segments", World::flush_inactive),
            69..73 => ("roll", World::roll),
            73..77 => ("retain", World::retain),
            77..79 => ("remove deleted files", World::remove_deleted),
            79..82 => ("delete records", |world| {
                world.delete_records();
                Ok(())
            }),
            82..85 => ("truncate", World::truncate),
            85 => ("truncate fully", World::truncate_fully),
            86..93 => ("checkpoint", World::checkpoint),
            93..97 if is_compacted => ("clean", World::clean),
            97 => ("fill the disk", |world| {
                let room = world.rng.below(600) as u64;
                world.disk.set_room(Some(room).filter(|_| world.rng.one_in(2)));
                Ok(())
            }),
            98 => ("fail syncs", |world| {
                world.disk.fail_syncs(true);
                Ok(())
            }),
            99 => {
                self.history.push("close".to_owned());
                return self.close().map(|()| true);
            }
            _ => ("append", World::append_next),
        };
        let (start, end, durable) = (self.model.start, self.end(), self.model.durable);
        self.history.push(format!("{name} at {start}..{end}, of which {durable} are durable"));
        verb(self).map(|()| false)
    }

    /// One step of the history, with the crash that it may end in.
    pub(super) fn step(&mut self) -> Result<(), Broken> {
        if !self.is_calm && self.rng.one_in(12) {
            let operations = self.rng.below(25) as u64;
            self.history.push(format!("the process ends after {operations} operations"));
            self.disk.end_after(operations);
        }
        match self.verb() {
            Ok(false) => {
                let recovery_point = self.log().recovery_point().0;
                self.model.durable = self.model.durable.max(recovery_point);
                Ok(())
            }
            Ok(true) => self.crash(Opened::WithPageCache),
            Err(Stop::Broken(broken)) => Err(broken),
            Err(Stop::Disk(cause)) => {
                self.history.push(cause);
                if self.disk.is_dead() || self.log().is_offline() {
                    return self.crash(Opened::AfterPowerLoss);
                }
                // The disk is full, and the log says that nothing has changed.
                self.model.unanswered.clear();
                self.model.start = self.log().log_start_offset().0;
                self.model.start_max = self.model.start;
                Ok(())
            }
        }
    }

    /// Ends the process, or the machine too; what is there then must be as the model says. `at_worst` is what a
    /// loss of power leaves to be relied on.
    pub(super) fn crash(&mut self, at_worst: Opened) -> Result<(), Broken> {
        let mut opened = Opened::WithPageCache;
        loop {
            let crash = if self.rng.one_in(3) { Crash::Kill } else { Crash::PowerLoss };
            self.history.push(format!("{crash:?}"));
            (self.log, self.job, self.deleted) = (None, None, Vec::new());
            self.disk.crash(crash);
            if crash == Crash::PowerLoss {
                opened = at_worst;
            }
            if self.rng.one_in(4) {
                self.disk.end_after(self.rng.below(20) as u64);
            }
            match self.open() {
                Ok(()) => break,
                Err(Stop::Disk(_)) if self.disk.is_dead() => {}
                Err(stop) => return Err(format!("open: {stop:?}")),
            }
        }
        self.disk.end_after(u64::MAX / 2);
        self.check(opened)
    }

    /// Checks what was opened, and that opening it again and appending changes none of it.
    pub(super) fn check(&mut self, opened: Opened) -> Result<(), Broken> {
        let seen = self.see(opened)?;
        self.history.push(format!("opened {}..{}", seen.start, seen.end));
        check_all(&self.model, &seen)?;
        self.model.adopt(opened, &seen.batches, seen.start, seen.end);
        let is_recovered = self.log().recovery_report().recovered_segments > 0;
        if is_recovered && !self.was_stale && self.rng.one_in(2) {
            self.check_again(&seen)?;
        }
        let sent = self.batch(BatchParams::default());
        match self.append(sent, AppendOrigin::Client) {
            Ok(()) => Ok(()),
            Err(stop) => Err(format!("appends: {stop:?}")),
        }
    }

    fn check_again(&mut self, seen: &Seen) -> Result<(), Broken> {
        let image = self.disk.image();
        self.log = None;
        self.disk.crash(Crash::Kill);
        self.open().map_err(|stop| format!("open again: {stop:?}"))?;
        super::checks::idempotent(&image, &self.disk.image())?;
        let again = self.see(Opened::WithPageCache)?;
        check_all(&self.model, &again)?;
        super::checks::same(seen, &again)
    }
}

fn offsets(batches: &[Batch]) -> BTreeMap<i64, ()> {
    batches.iter().flat_map(|it| &it.records).map(|record| (record.offset, ())).collect()
}

/// Lets a whole history happen; what was broken, and the history, where a rule was.
pub(super) fn run(mut world: World, steps: usize) -> Result<(), (Broken, Vec<String>)> {
    let mut result = Ok(());
    for _ in 0..steps {
        result = world.step();
        if result.is_err() {
            break;
        }
    }
    let result = result.and_then(|()| world.crash(Opened::AfterPowerLoss));
    result.map_err(|broken| (broken, world.history))
}
