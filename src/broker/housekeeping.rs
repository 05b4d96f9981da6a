//! What a broker does beside requests: retention, flushes, checkpoints, expiry of producer ids, removal of
//! deleted files, free space, snapshots of the metadata.
//!
//! One task drives it; the disk work runs on a blocking thread. An interval without changes writes nothing.

use super::directories::{Directories, LogDirectory};
use super::partition::{Checkpoint, Flush, Partition};
use super::publisher::Publisher;
use super::settings::Settings;
use crate::env::Clock;
use crate::log::checkpoint::{
    CLEANER_OFFSETS, HIGH_WATERMARKS, LOG_START_OFFSETS, RECOVERY_POINTS, write_clean_shutdown,
    write_offsets,
};
use crate::log::{DeletedFiles, StorageError};
use ottla_protocol::{BrokerEpoch, Offset, Timestamp};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Shortest pause between two rounds.
const PAUSE_MS_MIN: u64 = 50;

type Offsets = Vec<(Arc<str>, i32, Offset)>;

/// Does the chores.
pub struct Housekeeping {
    clock: Arc<dyn Clock>,
    settings: Arc<Settings>,
    directories: Arc<Directories>,
    publisher: Arc<Publisher>,
    deleted: Mutex<Vec<(i64, DeletedFiles)>>,
    written: Mutex<BTreeMap<(PathBuf, &'static str), Offsets>>,
}

/// When each chore is next due, in milliseconds of the steady clock: one that is put back must not stop them.
struct Due {
    retention: i64,
    checkpoints: i64,
    high_watermarks: i64,
    flush: i64,
    producers: i64,
    trash: i64,
}

impl Housekeeping {
    /// Chores for these partitions.
    pub fn new(
        clock: Arc<dyn Clock>,
        settings: Arc<Settings>,
        directories: Arc<Directories>,
        publisher: Arc<Publisher>,
    ) -> Arc<Self> {
        Arc::new(Housekeeping {
            clock,
            settings,
            directories,
            publisher,
            deleted: Mutex::new(Vec::new()),
            written: Mutex::new(BTreeMap::new()),
        })
    }

    /// Runs until `stop` says so.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let now = self.clock.steady().0;
        let settings = &self.settings;
        let mut due = Due {
            retention: now.saturating_add(settings.initial_task_delay_ms),
            checkpoints: now.saturating_add(settings.flush_checkpoint_interval_ms),
            high_watermarks: now.saturating_add(settings.high_watermark_checkpoint_interval_ms),
            flush: now.saturating_add(settings.flush_scheduler_interval_ms),
            producers: now.saturating_add(settings.producer_id_expiration_check_interval_ms),
            trash: now,
        };
        loop {
            let next = due.retention.min(due.checkpoints).min(due.high_watermarks);
            let next = next.min(due.flush).min(due.producers).min(due.trash);
            let pause = next.saturating_sub(self.clock.steady().0).max(0) as u64;
            let pause = Duration::from_millis(pause.max(PAUSE_MS_MIN));
            tokio::select! {
                biased;
                _ = stop.wait_for(|stopping| *stopping) => return,
                () = tokio::time::sleep(pause) => {}
            }
            let work = Arc::clone(&self);
            let round = crate::env::blocking(move || {
                work.round(&mut due);
                due
            });
            match round.await {
                Ok(returned) => due = returned,
                Err(error) => {
                    tracing::error!(%error, "housekeeping stopped");
                    return;
                }
            }
        }
    }

    fn round(&self, due: &mut Due) {
        let now = self.clock.steady();
        if due.retention <= now.0 {
            self.retain();
            due.retention = now.0.saturating_add(self.settings.retention_check_interval_ms);
        }
        if due.flush <= now.0 {
            for partition in self.publisher.all() {
                report(&partition, partition.flush(Flush::Due));
            }
            due.flush = now.0.saturating_add(self.settings.flush_scheduler_interval_ms);
        }
        if due.checkpoints <= now.0 {
            self.checkpoint();
            due.checkpoints = now.0.saturating_add(self.settings.flush_checkpoint_interval_ms);
        }
        if due.high_watermarks <= now.0 {
            self.checkpoint_high_watermarks();
            let interval = self.settings.high_watermark_checkpoint_interval_ms;
            due.high_watermarks = now.0.saturating_add(interval);
        }
        if due.producers <= now.0 {
            for partition in self.publisher.all() {
                partition.remove_expired_producers(self.clock.now());
            }
            let interval = self.settings.producer_id_expiration_check_interval_ms;
            due.producers = now.0.saturating_add(interval);
        }
        if due.trash <= now.0 {
            if self.publisher.take_stale_lines() {
                self.write_all();
            }
            if self.directories.online().filter(|it| it.health.take_flushed()).count() > 0 {
                // After a roll: less is left to recover.
                self.write_offsets();
            }
            self.publisher.empty_trash(now);
            self.remove_deleted(now.0);
            self.directories.look_at_space(self.settings.dir_reserve_bytes);
            due.trash = now.0.saturating_add(self.settings.trash_interval_ms);
        }
    }

    fn retain(&self) {
        let now = self.clock.now();
        for partition in self.publisher.all() {
            self.retain_one(&partition, now);
        }
    }

    /// Applies the retention of compacted logs, which Kafka's cleaner does after each of its looks.
    pub fn retain_compacted(&self) {
        let now = self.clock.now();
        for partition in self.publisher.all().iter().filter(|it| it.is_compacted()) {
            self.retain_one(partition, now);
        }
    }

    fn retain_one(&self, partition: &Partition, now: Timestamp) {
        match partition.apply_retention(now) {
            Ok(files) => self.remove_later(partition, files),
            Err(error) => tracing::error!(?partition, %error, "retention failed"),
        }
    }

    /// Removes the files of segments when `file.delete.delay.ms` has passed.
    pub fn remove_later(&self, partition: &Partition, files: Vec<DeletedFiles>) {
        if files.is_empty() {
            return;
        }
        let due = self.clock.steady().plus_ms(partition.file_delete_delay_ms()).0;
        self.deleted.lock().extend(files.into_iter().map(|files| (due, files)));
    }

    /// Removes the files of segments whose time has come on the steady clock.
    pub fn remove_deleted(&self, now: i64) {
        let due: Vec<(i64, DeletedFiles)> = {
            let mut deleted = self.deleted.lock();
            let (due, later) = deleted.drain(..).partition(|(time, _)| *time <= now);
            *deleted = later;
            due
        };
        for (_, files) in due {
            if let Err(error) = files.remove() {
                tracing::error!(%error, "cannot remove deleted segment");
            }
        }
    }

    /// Flushes what rolled and writes recovery points and log start offsets.
    pub fn checkpoint(&self) {
        for partition in self.publisher.all() {
            report(&partition, partition.flush(Flush::Inactive));
        }
        self.write_offsets();
    }

    fn write_offsets(&self) {
        self.write(RECOVERY_POINTS, |checkpoint| Some(checkpoint.recovery_point));
        self.write(LOG_START_OFFSETS, |checkpoint| {
            let is_above = checkpoint.log_start_offset > checkpoint.first_segment;
            is_above.then_some(checkpoint.log_start_offset)
        });
    }

    /// Writes all checkpoints.
    pub fn write_all(&self) {
        self.write_offsets();
        self.checkpoint_high_watermarks();
        self.checkpoint_cleaner();
    }

    /// Writes how far the cleaner has come.
    pub fn checkpoint_cleaner(&self) {
        self.write(CLEANER_OFFSETS, |checkpoint| checkpoint.cleaned_to);
    }

    /// Writes the high watermarks.
    pub fn checkpoint_high_watermarks(&self) {
        self.write(HIGH_WATERMARKS, |checkpoint| Some(checkpoint.high_watermark));
    }

    fn write(&self, name: &'static str, pick: impl Fn(&Checkpoint) -> Option<Offset>) {
        // Before the offsets are read: of two writers the later one has the newer offsets.
        let mut written = self.written.lock();
        let mut by_directory: BTreeMap<PathBuf, Offsets> = BTreeMap::new();
        for log_dir in self.directories.online() {
            by_directory.insert(log_dir.path.clone(), Vec::new());
        }
        for partition in self.publisher.all() {
            for checkpoint in
                partition.checkpoint().into_iter().chain(partition.future_checkpoint())
            {
                let Some(offset) = pick(&checkpoint) else { continue };
                let line = (Arc::clone(partition.topic()), partition.index(), offset);
                if let Some(lines) = by_directory.get_mut(&checkpoint.directory) {
                    lines.push(line);
                }
            }
        }
        for (directory, mut offsets) in by_directory {
            offsets.sort();
            let key = (directory, name);
            if written.get(&key) == Some(&offsets) {
                continue;
            }
            let lines = offsets.iter().map(|(topic, index, offset)| (&**topic, *index, *offset));
            match write_offsets(self.directories.disk().as_ref(), &key.0, name, lines) {
                Ok(()) => {
                    written.insert(key, offsets);
                }
                Err(error) => self.note_failure(&key.0, &error),
            }
        }
    }

    /// A checkpoint that cannot be written takes its directory offline, as in Kafka, but for one that found no space.
    /// Where nobody produces it is the first to notice.
    fn note_failure(&self, path: &Path, error: &StorageError) {
        let log_dir = self.directories.all.iter().find(|log_dir| log_dir.path == path);
        match log_dir {
            Some(log_dir) if !error.is_storage_full() => {
                if log_dir.health.take_offline() {
                    let directory = path.display();
                    tracing::error!(%directory, %error, "the log directory is offline");
                }
            }
            _ => tracing::error!(%error, "checkpoint not written"),
        }
    }

    /// The last chores of an orderly stop: closes all logs, checkpoints, and says in each directory that it was
    /// clean; one that is offline was not.
    pub fn finish(&self, broker_epoch: BrokerEpoch) {
        let is_clean = close_all(&self.publisher.all());
        self.write_all();
        if is_clean {
            self.directories.online().for_each(|log_dir| self.note_clean(log_dir, broker_epoch));
        }
    }

    /// The last chore of a process that opened no log: its registration, if there was one, is not to make a crash of
    /// the orderly stop before it (KIP-966).
    pub fn leave_untouched(&self, broker_epoch: BrokerEpoch) {
        if broker_epoch.0 >= 0 {
            let were_clean = self.directories.online().filter(|log_dir| log_dir.was_clean);
            were_clean.for_each(|log_dir| self.note_clean(log_dir, broker_epoch));
        }
    }

    fn note_clean(&self, log_dir: &LogDirectory, broker_epoch: BrokerEpoch) {
        let disk = self.directories.disk().as_ref();
        if let Err(error) = write_clean_shutdown(disk, &log_dir.path, broker_epoch.0) {
            tracing::error!(%error, "clean-shutdown file not written");
        }
    }
}

/// Closes logs side by side, since each waits for the disk, which makes several syncs durable at once. Whether all
/// were closed in order.
fn close_all(partitions: &[Arc<Partition>]) -> bool {
    /// More gain little on one file system.
    const THREADS: usize = 8;
    let close = |partition: &Arc<Partition>| match partition.close() {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(?partition, %error, "log not closed in order");
            false
        }
    };
    let threads = crate::env::threads(THREADS);
    if threads == 1 {
        return partitions.iter().map(close).fold(true, |all, it| all & it);
    }
    let share = partitions.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let closers: Vec<_> = partitions
            .chunks(share)
            .map(|partitions| {
                scope.spawn(move || partitions.iter().map(close).fold(true, |all, it| all & it))
            })
            .collect();
        closers.into_iter().all(|closer| closer.join().unwrap_or(false))
    })
}

fn report(partition: &Partition, result: Result<(), StorageError>) {
    if let Err(error) = result {
        tracing::error!(?partition, %error, "flush failed: the log is offline");
    }
}
