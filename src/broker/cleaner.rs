//! The log cleaner: threads that compact the logs whose policy says so, the dirtiest one first.
//!
//! A pass chooses a log, makes new segments of it and swaps them in; how is the log room's affair, and what may happen
//! to a log meanwhile the partition's. Without a log to clean a thread waits for `log.cleaner.backoff.ms`. A log that
//! cannot be cleaned is set aside until the next start, and the others go on; a disk that cannot be written puts the
//! log offline, but for a full one, which is tried again. Settings may change while it runs: they hold from the next
//! log on, the number of threads and the rate at once.
//!
//! Source: Kafka documentation, "Log Compaction"; KIP-346 (logs that cannot be cleaned).

#[cfg(test)]
mod tests;

use super::housekeeping::Housekeeping;
use super::partition::{CleaningEnd, Partition};
use super::publisher::Publisher;
use super::settings::Settings;
use super::throttle::Throttle;
use crate::config::CleanerConfig;
use crate::env::Clock;
use crate::log::{Cleaning, CleaningBuffers, CleaningError, MayRoll, ReadError};
use crate::machines::metadata::Image;
use ottla_protocol::{GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC, Timestamp};
use parking_lot::{Condvar, Mutex};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// From how many bytes the active segment of an internal topic is rolled for the cleaner's sake. Kafka rolls it at
/// 100 MB or after a week, and until then keeps every commit in each of 50 partitions.
const ROLL_BYTES_MIN: u32 = 128 << 10;

/// Longest wait for the throttle before a thread looks whether its work is still wanted.
const PAUSE_MS_MAX: u64 = 500;

/// Compacts logs.
pub struct Cleaner {
    clock: Arc<dyn Clock>,
    settings: Arc<Settings>,
    publisher: Arc<Publisher>,
    housekeeping: Arc<Housekeeping>,
    state: Mutex<State>,
    /// Threads wait here.
    wake: Condvar,
    /// One thread chooses at a time, so that no two choose the same log.
    choosing: Mutex<()>,
}

struct State {
    config: CleanerConfig,
    throttle: Throttle,
    threads: Vec<CleanerThread>,
    is_stopping: bool,
}

struct CleanerThread {
    handle: JoinHandle<()>,
    is_running: bool,
}

impl Cleaner {
    /// A cleaner of these partitions, at work where `log.cleaner.enable` says so.
    pub fn start(
        clock: Arc<dyn Clock>,
        settings: Arc<Settings>,
        publisher: Arc<Publisher>,
        housekeeping: Arc<Housekeeping>,
        image: &Image,
    ) -> Arc<Self> {
        let config = settings.cleaner(image);
        let state =
            State { config, throttle: Throttle::default(), threads: vec![], is_stopping: false };
        let cleaner = Arc::new(Cleaner {
            clock,
            settings,
            publisher,
            housekeeping,
            state: Mutex::new(state),
            wake: Condvar::new(),
            choosing: Mutex::new(()),
        });
        cleaner.start_threads();
        cleaner
    }

    /// Starts the threads that are not there.
    fn start_threads(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if !state.config.enable || state.is_stopping {
            return;
        }
        let count = usize::try_from(state.config.threads).unwrap_or(0);
        for id in 0..count {
            if state.threads.get(id).is_some_and(|thread| thread.is_running) {
                continue;
            }
            let cleaner = Arc::clone(self);
            let name = format!("log-cleaner-{id}");
            match std::thread::Builder::new().name(name).spawn(move || cleaner.run(id)) {
                Ok(handle) => {
                    let thread = CleanerThread { handle, is_running: true };
                    match state.threads.get_mut(id) {
                        Some(ended) => *ended = thread,
                        None => state.threads.push(thread),
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot start a thread of the cleaner");
                    return;
                }
            }
        }
    }

    /// Takes the settings of `image`.
    pub fn reconfigure(self: &Arc<Self>, image: &Image) {
        let config = self.settings.cleaner(image);
        {
            let mut state = self.state.lock();
            if state.config == config {
                return;
            }
            tracing::info!(?config, "the cleaner's settings have changed");
            state.throttle.reset();
            state.config = config;
            self.wake.notify_all();
        }
        self.start_threads();
    }

    /// Lets the threads end and waits for them; a cleaning under way is broken off.
    pub fn stop(&self) {
        let threads = {
            let mut state = self.state.lock();
            state.is_stopping = true;
            self.wake.notify_all();
            std::mem::take(&mut state.threads)
        };
        for thread in threads {
            if thread.handle.join().is_err() {
                tracing::error!("a thread of the cleaner failed");
            }
        }
    }

    fn run(&self, id: usize) {
        let mut has_cleaned = false;
        loop {
            // Not after every log, or coordinators that are busy would have theirs cleaned without a pause.
            if !has_cleaned {
                self.roll_internal_topics();
            }
            has_cleaned = self.pass();
            let mut state = self.state.lock();
            if !has_cleaned && !state.is_stopping {
                let backoff_ms = u64::try_from(state.config.backoff_ms).unwrap_or(0);
                self.wake.wait_for(&mut state, Duration::from_millis(backoff_ms));
            }
            let is_wanted = i64::try_from(id).is_ok_and(|id| id < i64::from(state.config.threads));
            if state.is_stopping || !is_wanted {
                if let Some(thread) = state.threads.get_mut(id) {
                    thread.is_running = false;
                }
                return;
            }
        }
    }

    /// Cleans the dirtiest log and applies the retention of compacted ones; `false` where nothing was cleaned.
    fn pass(&self) -> bool {
        let has_cleaned = match self.choose() {
            Some((partition, cleaning)) => self.clean(&partition, cleaning),
            None => false,
        };
        self.housekeeping.retain_compacted();
        has_cleaned
    }

    /// Nobody but coordinators reads internal topics, and those want the last record of a key alone.
    fn roll_internal_topics(&self) {
        let now = self.clock.now();
        for topic in [GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC] {
            for partition in self.publisher.partitions_of(topic) {
                let may_roll = MayRoll::FromBytes(ROLL_BYTES_MIN);
                if let Err(error) = partition.roll_for_cleaning(may_roll, now) {
                    tracing::error!(?partition, %error, "cannot roll: the log is offline");
                }
            }
        }
    }

    fn choose(&self) -> Option<(Arc<Partition>, Cleaning)> {
        let _choosing = self.choosing.lock();
        let now = self.clock.now();
        let mut dirty: Vec<(f64, Arc<Partition>)> = Vec::new();
        for partition in self.publisher.all() {
            match partition.cleanable(now) {
                Ok(Some(cleanable)) => dirty.push((cleanable.ratio(), partition)),
                Ok(None) => {}
                Err(error) => set_aside(&partition, &error),
            }
        }
        dirty.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        for (_, partition) in dirty {
            match partition.begin_cleaning(now) {
                Ok(Some(cleaning)) => return Some((partition, cleaning)),
                Ok(None) => {}
                Err(error) => set_aside(&partition, &error),
            }
        }
        None
    }

    /// `true` where all went well.
    fn clean(&self, partition: &Partition, mut cleaning: Cleaning) -> bool {
        let begun = self.clock.steady();
        let result = self.clean_segments(partition, &mut cleaning);
        if result.is_err()
            && let Err(error) = cleaning.discard()
        {
            tracing::warn!(?partition, %error, "what the cleaner has written is left behind");
        }
        let end = match result {
            Ok(()) => CleaningEnd::Done,
            Err(error) => self.failed(partition, &cleaning, &error),
        };
        let is_done = partition.end_cleaning(&cleaning, end);
        if is_done {
            report(&cleaning, begun, self.clock.steady());
            self.housekeeping.checkpoint_cleaner();
        }
        is_done
    }

    fn clean_segments(
        &self,
        partition: &Partition,
        cleaning: &mut Cleaning,
    ) -> Result<(), CleaningError> {
        let truncations = cleaning.truncations();
        let mut pace = |bytes| self.pace(partition, truncations, bytes);
        cleaning.build_map(self.buffers(), &mut pace)?;
        while let Some(cleaned) = cleaning.next(&mut pace)? {
            match partition.swap_in(cleaned) {
                Ok(Some(files)) => self.housekeeping.remove_later(partition, files),
                Ok(None) => return Err(CleaningError::Stopped),
                Err(error) => {
                    tracing::error!(?partition, %error, "a cleaned segment cannot be taken in");
                    return Err(CleaningError::Stopped);
                }
            }
        }
        Ok(())
    }

    /// Waits as long as the throttle asks for; breaks off what nobody wants any more.
    fn pace(&self, partition: &Partition, truncations: u64, bytes: usize) -> ControlFlow<()> {
        let mut state = self.state.lock();
        let rate = state.config.io_max_bytes_per_second;
        state.throttle.book(bytes, rate, self.clock.steady());
        loop {
            if state.is_stopping || !partition.wants_cleaned(truncations) {
                return ControlFlow::Break(());
            }
            let wait_ms = state.throttle.wait_ms(self.clock.steady());
            if wait_ms == 0 {
                return ControlFlow::Continue(());
            }
            let pause = Duration::from_millis(wait_ms.min(PAUSE_MS_MAX));
            self.wake.wait_for(&mut state, pause);
        }
    }

    /// A thread's share of the memory.
    fn buffers(&self) -> CleaningBuffers {
        let state = self.state.lock();
        let CleanerConfig { threads, dedupe_buffer_size, io_buffer_size, .. } = state.config;
        let threads = i64::from(threads.max(1));
        // Half of the second is for reads, the other for writes.
        let map_bytes = (dedupe_buffer_size / threads).min(i64::from(i32::MAX));
        let io_bytes = i64::from(io_buffer_size) / threads / 2;
        CleaningBuffers {
            map_bytes: usize::try_from(map_bytes).unwrap_or(0),
            load_factor: state.config.io_buffer_load_factor,
            io_bytes: usize::try_from(io_bytes).unwrap_or(0),
        }
    }

    fn failed(
        &self,
        partition: &Partition,
        cleaning: &Cleaning,
        error: &CleaningError,
    ) -> CleaningEnd {
        if self.state.lock().is_stopping || !partition.wants_cleaned(cleaning.truncations()) {
            // Its files may be gone for the same reason.
            tracing::info!(?partition, "the cleaning was broken off");
            return CleaningEnd::Stopped;
        }
        match error {
            CleaningError::Stopped => CleaningEnd::Stopped,
            CleaningError::Write(error) if error.is_storage_full() => {
                tracing::error!(?partition, %error, "no space to clean the log; it is tried again");
                CleaningEnd::Stopped
            }
            CleaningError::Write(error) | CleaningError::Read(ReadError::Storage(error)) => {
                tracing::error!(?partition, %error, "cleaning failed: the log is offline");
                partition.fail_cleaning();
                CleaningEnd::Stopped
            }
            CleaningError::Read(_) | CleaningError::MapTooSmall | CleaningError::TooLarge => {
                tracing::warn!(?partition, %error, "the log cannot be cleaned and is set aside");
                CleaningEnd::Failed
            }
        }
    }
}

fn set_aside(partition: &Partition, error: &ReadError) {
    if partition.set_uncleanable() {
        tracing::warn!(?partition, %error, "the log cannot be cleaned and is set aside");
    }
}

fn report(cleaning: &Cleaning, begun: Timestamp, now: Timestamp) {
    let stats = cleaning.stats();
    let (from, to) = (cleaning.cleanable().first_dirty_offset, cleaning.end_offset());
    let (log, ms) = (cleaning.name(), now.0 - begun.0);
    tracing::info!(log, %from, %to, ms, keys = stats.keys,
        bytes_before = stats.bytes_read, bytes_after = stats.bytes_written,
        records_before = stats.records_read, records_after = stats.records_written,
        "cleaned a log");
    if stats.invalid_records > 0 {
        tracing::warn!(log, count = stats.invalid_records, "records without a key were dropped");
    }
}
