//! Moves partitions between the log directories of this broker while they work.
//!
//! Threads (`num.replica.alter.log.dirs.threads`) take the moves in the order in which they were asked for, each one to
//! its end: a copy in `topic-N.<id>-future` follows the log, the controller is told of the new directory, and the
//! partition takes the copy in. A move that fails or is cancelled leaves the log where it was. Invariant: until the
//! swap the log is whole where it was, after it where it went; a crash between the two renames leaves both, and the
//! controller's assignment names the newer. Differently from Kafka a stop ends moves: the copies are thrown away.
//!
//! Source: KIP-113, KIP-858.

#[cfg(test)]
mod tests;

use super::assignments::{self, Assignment};
use super::controller_link::ControllerLink;
use super::directories::{Directories, LogDirectory};
use super::housekeeping::Housekeeping;
use super::membership::Membership;
use super::partition::{Move, MoveBegin, MoveEnd, MoveError, NextCopy, Partition, copy};
use super::publisher::Publisher;
use super::settings::Settings;
use super::throttle::Throttle;
use super::{ControllerReply, ControllerRequest, Image};
use crate::env::Clock;
use crate::log::checkpoint::{future_partition_dir, partition_dir};
use crate::log::{AppendError, Log, LogParams};
use crate::machines::metadata::features::can_assign_directories;
use arc_swap::ArcSwap;
use ottla_protocol::{ErrorCode, Offset};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use uuid::Uuid;

/// Pause before a swap is tried again that had too much to copy, or for which the cleaner had not let go.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for the throttle before a thread looks whether its work is still wanted.
const PAUSE_MS_MAX: u64 = 500;
/// Longest name of a directory.
const NAME_BYTES_MAX: usize = 255;

/// What the mover works with.
pub(super) struct MoverParams {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: Arc<Settings>,
    pub(super) directories: Arc<Directories>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) housekeeping: Arc<Housekeeping>,
    pub(super) link: Arc<ControllerLink>,
    pub(super) image: Arc<ArcSwap<Image>>,
    pub(super) membership: Arc<Membership>,
    /// Where the controller's answers are waited for.
    pub(super) runtime: tokio::runtime::Handle,
}

/// Moves partitions.
pub(super) struct Mover {
    params: MoverParams,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// At most one for each partition: what was cancelled goes when another comes.
    queue: VecDeque<Job>,
    throttle: Throttle,
    /// Bytes per second.
    rate: f64,
    threads: Vec<JoinHandle<()>>,
    /// Threads that look into the queue again before they end.
    running: usize,
    is_stopping: bool,
}

impl State {
    fn take_rate(&mut self, rate: f64) {
        if self.rate.to_bits() != rate.to_bits() {
            self.rate = rate;
            self.throttle.reset();
        }
    }
}

struct Job {
    partition: Arc<Partition>,
    moving: Arc<Move>,
}

impl Mover {
    /// A mover without work.
    pub(super) fn new(params: MoverParams) -> Arc<Self> {
        Arc::new(Mover { params, state: Mutex::default(), wake: Condvar::new() })
    }

    fn is_cordoned(&self, image: &Image, log_dir: &LogDirectory) -> bool {
        let own = image.cluster.brokers.get(&self.params.settings.node_id);
        let cordoned = own.and_then(|own| own.cordoned_log_dirs.as_deref()).unwrap_or_default();
        cordoned.contains(&log_dir.id)
    }

    /// Moves a partition to the log directory at `path`, as ReplicaManager.alterReplicaLogDirs does.
    ///
    /// # Errors
    /// INVALID_TOPIC_EXCEPTION for a name too long for a copy's directory, LOG_DIR_NOT_FOUND,
    /// KAFKA_STORAGE_ERROR for one that is offline or while any is, INVALID_REPLICA_ASSIGNMENT for
    /// one that is cordoned, UNKNOWN_TOPIC_OR_PARTITION, REPLICA_NOT_AVAILABLE for a partition of
    /// other brokers.
    pub(super) fn alter(
        self: &Arc<Self>,
        topic: &str,
        index: i32,
        path: &str,
    ) -> Result<(), ErrorCode> {
        let MoverParams { directories, publisher, image, settings, .. } = &self.params;
        if future_partition_dir(Path::new(""), topic, index, Uuid::nil()).as_os_str().len()
            > NAME_BYTES_MAX
        {
            return Err(ErrorCode::InvalidTopicException);
        }
        let at = directories.all.iter().position(|log_dir| is_named(log_dir, path));
        let at = at.ok_or(ErrorCode::LogDirNotFound)?;
        let log_dir = &directories.all[at];
        if log_dir.health.is_offline() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let image = image.load();
        if self.is_cordoned(&image, log_dir) {
            return Err(ErrorCode::InvalidReplicaAssignment);
        }
        let Some(partition) = publisher.partition(topic, index) else {
            publisher.prefer(topic, index, at);
            let registration = image.topics.get(topic).and_then(|topic| topic.partition(index));
            return Err(match registration {
                None => ErrorCode::UnknownTopicOrPartition,
                Some(it) if it.replicas.contains(&settings.node_id) => ErrorCode::KafkaStorageError,
                Some(_) => ErrorCode::ReplicaNotAvailable,
            });
        };
        let is_elsewhere = !partition.is_in(&log_dir.path);
        if is_elsewhere && directories.online().count() < directories.all.len() {
            return Err(ErrorCode::KafkaStorageError);
        }
        match partition.begin_move(&log_dir.path)? {
            MoveBegin::Begun(moving) => self.submit(Job { partition, moving }),
            MoveBegin::IsThere | MoveBegin::UnderWay => {
                self.wake.notify_all();
            }
        }
        Ok(())
    }

    fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.state.lock();
        state.threads.retain(|thread| !thread.is_finished());
        state.queue.retain(|job| job.partition.wants_move(&job.moving));
        state.queue.push_back(job);
        self.wake.notify_all();
        if state.is_stopping || state.running >= self.params.settings.mover_threads {
            return;
        }
        let mover = Arc::clone(self);
        let thread = std::thread::Builder::new().name("replica-mover".to_owned());
        match thread.spawn(move || mover.run()) {
            Ok(thread) => {
                state.running += 1;
                state.threads.push(thread);
            }
            Err(error) => tracing::error!(%error, "cannot start a thread that moves partitions"),
        }
    }

    /// Ends the moves and waits for the threads.
    pub(super) fn stop(&self) {
        let threads = {
            let mut state = self.state.lock();
            state.is_stopping = true;
            state.queue.clear();
            self.wake.notify_all();
            std::mem::take(&mut state.threads)
        };
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that moves partitions failed");
            }
        }
    }

    fn run(&self) {
        loop {
            let job = {
                let mut state = self.state.lock();
                match state.queue.pop_front() {
                    Some(job) => job,
                    None => {
                        state.running -= 1;
                        return;
                    }
                }
            };
            self.work(&job);
        }
    }

    fn work(&self, job: &Job) {
        let Job { partition, moving } = job;
        let Some(target) = self.directory(&moving.log_dir) else { return };
        let (topic, index) = (partition.topic(), partition.index());
        let future = future_partition_dir(&target.path, topic, index, Uuid::new_v4());
        let to = target.path.display();
        match self.move_to(job, target, &future) {
            Ok(()) => {
                tracing::info!(?partition, %to, "the partition has moved to another log directory");
                // The old directory's checkpoints know it no more.
                self.params.housekeeping.write_all();
                // A move that was cancelled before this one may have spoken last.
                self.assign_present(partition);
                return;
            }
            Err(MoveError::Cancelled) => tracing::info!(?partition, %to, "the move was cancelled"),
            Err(error) => {
                self.note_failure(target, &error);
                tracing::error!(?partition, %to, %error, "the partition cannot move");
            }
        }
        partition.end_move(moving);
        self.remove_copy(&future);
        self.assign_present(partition);
    }

    fn move_to(
        &self,
        job: &Job,
        target: &LogDirectory,
        future_dir: &Path,
    ) -> Result<(), MoveError> {
        let Job { partition, moving } = job;
        self.check(job, target)?;
        let mut future = self.open(partition, future_dir)?;
        self.catch_up(job, target, &mut future)?;
        // Before the swap, so that a crash within it leaves no doubt which directory counts.
        self.assign(partition, target.id);
        let (topic, index) = (partition.topic(), partition.index());
        let to = partition_dir(&target.path, topic, index);
        loop {
            self.catch_up(job, target, &mut future)?;
            self.params.housekeeping.write_all();
            let retired = self.params.publisher.retired_dir(partition);
            let end = partition.finish_move(moving, future, (&to, &retired), &target.health)?;
            future = match end {
                MoveEnd::Done => {
                    self.params.publisher.remove_later(partition, retired);
                    return Ok(());
                }
                MoveEnd::NotYet(future) => *future,
                MoveEnd::Cancelled => return Err(MoveError::Cancelled),
            };
            let mut state = self.state.lock();
            if !state.is_stopping {
                self.wake.wait_for(&mut state, PAUSE);
            }
        }
    }

    fn open(&self, partition: &Partition, dir: &Path) -> Result<Log, MoveError> {
        let image = self.params.image.load();
        let log = Log::open(LogParams {
            disk: Arc::clone(self.params.directories.disk()),
            dir: dir.to_owned(),
            topic: Arc::clone(partition.topic()),
            partition: partition.index(),
            topic_id: partition.topic_id(),
            config: self.params.settings.topic(&image, partition.topic()).log,
            log_start_offset: partition.copy_start()?,
            recovery_point: Offset(0),
            clean_shutdown: false,
            earlier_writes_synced: false,
            now: self.params.clock.now(),
        })?;
        Ok(log)
    }

    /// Copies what the log has more than the copy, and syncs it.
    fn catch_up(
        &self,
        job: &Job,
        target: &LogDirectory,
        future: &mut Log,
    ) -> Result<(), MoveError> {
        let Job { partition, moving } = job;
        loop {
            moving.note(future);
            self.check(job, target)?;
            let now = self.params.clock.now();
            match partition.next_copy(future.log_end_offset())? {
                NextCopy::Slice(slice) => {
                    let bytes = copy(&slice, future, now)?;
                    moving.note(future);
                    target.health.spend(bytes);
                    self.pace(job, bytes);
                }
                NextCopy::RestartAt(offset) => future.truncate_fully_and_start_at(offset, now)?,
                NextCopy::CaughtUp => break,
            }
        }
        future.flush(self.params.clock.now())?;
        moving.note(future);
        Ok(())
    }

    fn check(&self, job: &Job, target: &LogDirectory) -> Result<(), MoveError> {
        use super::dir_health::DirState;
        if self.state.lock().is_stopping || !job.partition.wants_move(&job.moving) {
            return Err(MoveError::Cancelled);
        }
        match target.health.state() {
            DirState::Usable => Ok(()),
            DirState::Full => Err(MoveError::Full),
            DirState::Offline => Err(AppendError::Offline.into()),
        }
    }

    /// Waits as long as the throttle asks for; what was booked at another rate counts no more.
    fn pace(&self, job: &Job, bytes: usize) {
        let mut state = self.state.lock();
        state.take_rate(self.rate());
        let rate = state.rate;
        state.throttle.book(bytes, rate, self.params.clock.steady());
        loop {
            state.take_rate(self.rate());
            let wait_ms = state.throttle.wait_ms(self.params.clock.steady());
            if wait_ms == 0 || state.is_stopping || !job.partition.wants_move(&job.moving) {
                return;
            }
            self.wake.wait_for(&mut state, Duration::from_millis(wait_ms.min(PAUSE_MS_MAX)));
        }
    }

    fn rate(&self) -> f64 {
        self.params.settings.move_bytes_per_second(&self.params.image.load())
    }

    /// A write that failed takes the directory offline, as in Kafka, but for one that found no space.
    fn note_failure(&self, target: &LogDirectory, error: &MoveError) {
        let cause = match error {
            MoveError::Write(cause) | MoveError::Append(AppendError::Storage(cause)) => cause,
            _ => return,
        };
        let directory = target.path.display();
        if cause.is_storage_full() {
            if target.health.fill() {
                tracing::error!(%directory, %cause, "disk full: producers have to wait");
            }
        } else if target.health.take_offline() {
            tracing::error!(%directory, %cause, "the log directory is offline");
        }
    }

    fn remove_copy(&self, future: &Path) {
        let disk = self.params.directories.disk();
        if !disk.exists(future) {
            return;
        }
        let removed = disk.remove_dir_all(future);
        let removed = removed.and_then(|()| disk.sync_dir(future.parent().unwrap_or(future)));
        if let Err(error) = removed {
            tracing::error!(path = %future.display(), %error, "cannot remove a copy");
        }
    }

    /// Tells the controller where the partition is now: of its move it may have heard already.
    fn assign_present(&self, partition: &Arc<Partition>) {
        let all = &self.params.directories.all;
        if let Some(present) = all.iter().find(|log_dir| partition.is_in(&log_dir.path)) {
            self.assign(partition, present.id);
        }
    }

    /// Tells the controller of a partition's directory. A controller that does not answer hears later where the
    /// partition is then.
    fn assign(&self, partition: &Arc<Partition>, directory: Uuid) {
        if !can_assign_directories(self.params.image.load().features.metadata_version()) {
            return;
        }
        let (broker, epoch) = (self.params.settings.node_id, self.params.membership.epoch());
        let assignment = Assignment { partition: Arc::clone(partition), directory };
        let request = assignments::request(broker, epoch, &[assignment]);
        let request = ControllerRequest::AssignReplicasToDirs(request);
        match self.params.runtime.block_on(self.params.link.call(request)) {
            Ok(ControllerReply::AssignReplicasToDirs(reply)) if reply.error_code == 0 => return,
            Ok(reply) => tracing::warn!(?partition, ?reply, "the log directory was not assigned"),
            Err(error) => tracing::warn!(?partition, %error, "the log directory was not assigned"),
        }
        self.params.publisher.replication().assignments.submit(Arc::clone(partition));
    }

    fn directory(&self, path: &Path) -> Option<&LogDirectory> {
        self.params.directories.all.iter().find(|log_dir| log_dir.path == path)
    }
}

/// Whether a client's path is this log directory, which DescribeLogDirs names as it is configured and Kafka in full.
fn is_named(log_dir: &LogDirectory, path: &str) -> bool {
    let path = PathBuf::from(path);
    let full = std::path::absolute(&log_dir.path);
    path == log_dir.path || full.is_ok_and(|full| path == full)
}
