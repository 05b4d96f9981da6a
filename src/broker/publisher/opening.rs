//! Opening many partitions side by side, and saying how far it has come.
//!
//! After a crash each log is validated past its recovery point, which reads its newest segments whole: as many logs at
//! a time as there are `num.recovery.threads.per.data.dir` for each directory, and no fewer than there are processors.

use super::Publisher;
use crate::machines::metadata::Image;
use crate::machines::metadata::image::{PartitionRegistration, TopicImage};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// So many that were closed in order are opened one after another.
const FEW: usize = 64;
/// How often progress is logged.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A partition to open or to change, as `Publisher::apply` takes it.
pub(super) type Job = (Arc<TopicImage>, i32, Arc<PartitionRegistration>);

/// How far the opening has come.
#[derive(Debug, Default)]
struct Progress {
    opened: AtomicUsize,
    recovered_segments: AtomicUsize,
    recovered_bytes: AtomicU64,
    is_done: Mutex<bool>,
    done: Condvar,
}

impl Publisher {
    /// Opens and leads partitions, side by side when that can take long.
    pub(super) fn open_all(&self, image: &Image, jobs: &[Job]) {
        let threads = self.opening_threads(jobs.len());
        if threads <= 1 {
            for (topic, index, registration) in jobs {
                self.apply(image, topic, *index, registration);
            }
            return;
        }
        if jobs.len() > FEW {
            self.sync_earlier_writes();
        }
        let progress = Progress::default();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| progress.report(jobs.len()));
            let openers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| self.open_next(image, jobs, &next, &progress)))
                .collect();
            let ended: Vec<_> = openers.into_iter().map(|opener| opener.join()).collect();
            progress.finish();
            self.earlier_writes_synced.store(false, Ordering::Release);
            if let Some(panic) = ended.into_iter().find_map(Result::err) {
                std::panic::resume_unwind(panic);
            }
        });
        // Coordinators need the runtime, which those threads are not part of.
        for (topic, index, _) in jobs {
            self.elect_coordinator(&topic.name, *index);
        }
    }

    /// Makes what the process before wrote durable at once, which costs many logs less than two syncs each.
    fn sync_earlier_writes(&self) {
        let found = !self.found.lock().is_empty();
        let mut unclean = self.directories.online().filter(|log_dir| !log_dir.was_clean).peekable();
        if !found || unclean.peek().is_none() {
            return;
        }
        let disk = self.directories.disk();
        let synced = unclean.all(|log_dir| match disk.sync_all(&log_dir.path) {
            Ok(synced) => synced,
            Err(error) => {
                // No second sync would tell what the first one lost.
                if log_dir.health.take_offline() {
                    let directory = log_dir.path.display();
                    tracing::error!(%directory, %error, "the log directory is offline");
                }
                false
            }
        });
        self.earlier_writes_synced.store(synced, Ordering::Release);
    }

    fn opening_threads(&self, jobs: usize) -> usize {
        // Reads the limits of the control group: not for every publication.
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let unclean = self.directories.all.iter().filter(|log_dir| !log_dir.was_clean).count();
        // Later none of the logs that were there at the start is left to open.
        let wanted = if unclean > 0 && !self.found.lock().is_empty() {
            processors().max(unclean * self.settings.recovery_threads_per_dir)
        } else if jobs > FEW {
            processors()
        } else {
            1
        };
        crate::env::threads(wanted.min(jobs))
    }

    fn open_next(&self, image: &Image, jobs: &[Job], next: &AtomicUsize, progress: &Progress) {
        while let Some((topic, index, registration)) =
            jobs.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let is_new = self.partition(&topic.name, *index).is_none();
            self.apply(image, topic, *index, registration);
            if let Some(partition) = self.partition(&topic.name, *index).filter(|_| is_new) {
                let (segments, bytes) = partition.recovered();
                progress.recovered_segments.fetch_add(segments, Ordering::Relaxed);
                progress.recovered_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            progress.opened.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Progress {
    /// Logs a line each second until all is done, and one more if there was any.
    fn report(&self, jobs: usize) {
        let begin = Instant::now();
        let mut is_done = self.is_done.lock();
        let mut lines = 0;
        while !*is_done {
            let waited = self.done.wait_for(&mut is_done, PROGRESS_INTERVAL);
            if waited.timed_out() || lines > 0 {
                lines += 1;
                tracing::info!(
                    opened = self.opened.load(Ordering::Relaxed),
                    of = jobs,
                    recovered_segments = self.recovered_segments.load(Ordering::Relaxed),
                    recovered_bytes = self.recovered_bytes.load(Ordering::Relaxed),
                    seconds = begin.elapsed().as_secs(),
                    "opening logs"
                );
            }
        }
    }

    fn finish(&self) {
        *self.is_done.lock() = true;
        self.done.notify_all();
    }
}
