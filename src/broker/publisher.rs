//! From Image to partitions: what the committed metadata says is here gets opened, led, reconfigured or
//! deleted. No other path makes or ends a Partition.
//!
//! Invariant: partitions of a topic id that the Image no longer has are closed to readers and writers before their
//! files are renamed; a recreated topic has another id and never meets the old files.

use super::directories::Directories;
use super::groups::Groups;
use super::partition::{Partition, PartitionParams};
use super::replication::Replication;
use super::settings::Settings;
use crate::env::Clock;
use crate::log::checkpoint::{
    parse_future_dir, parse_partition_dir, partition_dir, read_partition_metadata,
    stray_partition_dir,
};
use crate::log::{Log, LogParams, RecoveryError, StorageError};
use crate::machines::metadata::Image;
use crate::machines::metadata::image::{BrokerRegistration, PartitionRegistration, TopicImage};
use crate::machines::replica::Leadership;
use ottla_protocol::{BrokerId, GROUP_METADATA_TOPIC, Offset, Timestamp, TopicId};
use parking_lot::{Mutex, RwLock};
use reopening::Unopened;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use trash::{DELETE_SUFFIX, Trash};

mod opening;
mod reopening;
mod trash;

/// Why most strays are.
const UNKNOWN: &str = "the metadata does not know this directory";
/// Why a directory is set aside beside which there is another with the same log.
const MOVED: &str = "a move had copied this log into another log directory";

/// Partitions that do not exist and have a preferred log directory. Kafka has no bound.
const PREFERRED_MAX: usize = 10_000;

type Checkpointed = BTreeMap<(String, i32), Offset>;
type TopicPartitions = BTreeMap<i32, Arc<Partition>>;

/// The partitions of this broker.
pub struct Publisher {
    node_id: BrokerId,
    clock: Arc<dyn Clock>,
    settings: Arc<Settings>,
    directories: Arc<Directories>,
    groups: Arc<Groups>,
    replication: Replication,
    partitions: RwLock<HashMap<Arc<str>, TopicPartitions>>,
    /// Where directories lie that were found at start, by topic, partition and topic id.
    found: Mutex<HashMap<(String, i32), Vec<Found>>>,
    trash: Trash,
    /// The log directories that were asked for before their partitions came; at most [`PREFERRED_MAX`].
    preferred: Mutex<HashMap<(String, i32), usize>>,
    /// Lines are in the checkpoints of partitions that went, or were cut since.
    has_stale_lines: AtomicBool,
    /// What the process before wrote is durable, and this one has not opened logs since.
    earlier_writes_synced: AtomicBool,
    unopened: Unopened,
}

#[derive(Debug, Clone)]
struct Found {
    directory: usize,
    topic_id: Option<TopicId>,
}

impl Publisher {
    /// A publisher over the locked directories; nothing is open yet.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn new(
        node_id: BrokerId,
        clock: Arc<dyn Clock>,
        settings: Arc<Settings>,
        directories: Arc<Directories>,
        groups: Arc<Groups>,
        replication: Replication,
    ) -> Result<Publisher, StorageError> {
        let publisher = Publisher {
            node_id,
            clock,
            settings,
            directories,
            groups,
            replication,
            partitions: RwLock::new(HashMap::new()),
            found: Mutex::new(HashMap::new()),
            trash: Trash::default(),
            preferred: Mutex::new(HashMap::new()),
            has_stale_lines: AtomicBool::new(false),
            earlier_writes_synced: AtomicBool::new(false),
            unopened: Unopened::default(),
        };
        publisher.look_around()?;
        Ok(publisher)
    }

    /// Notes which partition lies in which directory, and what a deletion left behind.
    fn look_around(&self) -> Result<(), StorageError> {
        let disk = self.directories.disk();
        let mut found = self.found.lock();
        let mut futures = Vec::new();
        for (directory, log_dir) in self.directories.all.iter().enumerate() {
            let entries = disk.list(&log_dir.path).map_err(|source| StorageError {
                operation: "list",
                path: log_dir.path.clone(),
                position: 0,
                source,
            })?;
            for entry in entries.into_iter().filter(|entry| entry.is_dir) {
                let path = log_dir.path.join(&entry.name);
                if entry.name.ends_with(DELETE_SUFFIX) {
                    self.trash.put(Timestamp(0), path);
                } else if let Some(key) = parse_partition_dir(&entry.name) {
                    let topic_id = read_partition_metadata(disk.as_ref(), &path).ok().flatten();
                    found.entry(key).or_default().push(Found { directory, topic_id });
                } else if let Some(key) = parse_future_dir(&entry.name) {
                    futures.push((key, path));
                }
            }
        }
        for (key, path) in futures {
            if found.contains_key(&key) {
                tracing::info!(path = %path.display(), "a move did not end: its copy is removed");
                self.trash.put(Timestamp(0), path);
            } else {
                let why = "the copy of a move, whose log is in no log directory";
                self.set_aside(&path, (&key.0, key.1), why);
            }
        }
        Ok(())
    }

    /// What all partitions share of replication.
    pub(crate) fn replication(&self) -> &Replication {
        &self.replication
    }

    /// The log directories.
    pub(crate) fn directories(&self) -> &Arc<Directories> {
        &self.directories
    }

    /// A partition of this broker.
    pub fn partition(&self, topic: &str, index: i32) -> Option<Arc<Partition>> {
        self.partitions.read().get(topic)?.get(&index).cloned()
    }

    /// All partitions of this broker.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().flat_map(|topic| topic.values().cloned()).collect()
    }

    /// The partitions of one topic.
    pub fn partitions_of(&self, topic: &str) -> Vec<Arc<Partition>> {
        let partitions = self.partitions.read();
        partitions.get(topic).into_iter().flat_map(|topic| topic.values().cloned()).collect()
    }

    /// Whether the checkpoints have to be written for what happened since this was last asked.
    pub fn take_stale_lines(&self) -> bool {
        self.has_stale_lines.swap(false, Ordering::AcqRel)
    }

    /// Makes this broker what `new` says it is.
    pub fn publish(&self, old: &Image, new: &Image) {
        self.remove_gone(old, new);
        let mut jobs = Vec::new();
        for topic in new.topics.iter() {
            let before = old.topics.get_by_id(&topic.id);
            if before.is_some_and(|before| Arc::ptr_eq(before, topic)) {
                continue;
            }
            for (index, registration) in topic.partitions.iter() {
                let same = before.and_then(|before| before.partition(*index));
                if same.is_some_and(|same| Arc::ptr_eq(same, registration)) {
                    continue;
                }
                if registration.replicas.contains(&self.node_id) {
                    jobs.push((Arc::clone(topic), *index, Arc::clone(registration)));
                } else if let Some(partition) = self.partition(&topic.name, *index) {
                    self.stop_replica(new, &partition);
                }
            }
        }
        self.open_all(new, &jobs);
        self.replication.fetchers.wake();
        self.reconfigure(old, new);
        self.look_for_gone(old, new);
    }

    /// Followers are waited for no more whose brokers have been fenced, or are on their way out, or whose log
    /// directories have failed.
    fn look_for_gone(&self, old: &Image, new: &Image) {
        if Arc::ptr_eq(&old.cluster, &new.cluster) {
            return;
        }
        let before = || old.cluster.brokers.values();
        let was_active = before().filter(|broker| broker.is_active());
        let fenced: Vec<BrokerId> =
            was_active.map(|broker| broker.id).filter(|id| !new.cluster.is_active(*id)).collect();
        let has_lost = |broker: &BrokerRegistration| {
            let now = new.cluster.brokers.get(&broker.id);
            now.is_some_and(|now| broker.log_dirs.iter().any(|dir| !now.log_dirs.contains(dir)))
        };
        let losers: Vec<BrokerId> =
            before().filter(|broker| has_lost(broker)).map(|broker| broker.id).collect();
        if fenced.is_empty() && losers.is_empty() {
            return;
        }
        for partition in self.all() {
            let topic = new.topics.get_by_id(&partition.topic_id());
            let registration = topic.and_then(|topic| topic.partition(partition.index()));
            let lies_there = |id: &BrokerId| {
                registration.is_some_and(|it| !new.cluster.has_directory_of(it, *id))
            };
            let lost = losers.iter().copied().filter(lies_there);
            let gone: Vec<BrokerId> = fenced.iter().copied().chain(lost).collect();
            if !gone.is_empty() {
                partition.fence(gone, new.offset);
            }
        }
    }

    /// A reassignment has taken the replica from this broker.
    fn stop_replica(&self, image: &Image, partition: &Arc<Partition>) {
        self.retire(partition);
        let mut partitions = self.partitions.write();
        if let Some(topic) = partitions.get_mut(partition.topic()) {
            topic.remove(&partition.index());
            if topic.is_empty() {
                partitions.remove(partition.topic());
            }
        }
        drop(partitions);
        tracing::info!(?partition, "the replica is on other brokers by now, and is deleted here");
        self.delete(image, partition);
    }

    /// Nothing is read into, or out of, the partition any more.
    fn retire(&self, partition: &Partition) {
        self.replication.fetchers.unfollow(partition);
        if &**partition.topic() == GROUP_METADATA_TOPIC {
            self.groups.resign(partition.index());
        }
    }

    fn apply(
        &self,
        image: &Image,
        topic: &TopicImage,
        index: i32,
        registration: &PartitionRegistration,
    ) {
        let partition = match self.partition(&topic.name, index) {
            Some(partition) => partition,
            None => match self.open(image, topic, index, registration) {
                Ok(partition) => partition,
                Err(error) => return self.note_unopened(topic, index, &error),
            },
        };
        if registration.leader == self.node_id {
            self.lead((image, topic), &partition, registration);
        } else {
            self.follow(topic, &partition, registration);
        }
    }

    fn lead(
        &self,
        (image, topic): (&Image, &TopicImage),
        partition: &Arc<Partition>,
        registration: &PartitionRegistration,
    ) {
        self.replication.fetchers.unfollow(partition);
        if &*topic.name == GROUP_METADATA_TOPIC {
            // It may have led in an earlier epoch, and not since.
            self.groups.resign_before(partition.index(), registration.leader_epoch);
        }
        let led = partition.lead(Leadership {
            leader_epoch: registration.leader_epoch,
            partition_epoch: registration.partition_epoch,
            isr: registration.isr.clone(),
            replicas: registration.replicas.clone(),
            metadata_offset: image.offset,
        });
        if let Err(error) = led {
            tracing::error!(?partition, %error, "cannot lead partition");
            return;
        }
        if tokio::runtime::Handle::try_current().is_ok() {
            self.elect_coordinator(&topic.name, partition.index());
        }
    }

    fn follow(
        &self,
        topic: &TopicImage,
        partition: &Arc<Partition>,
        registration: &PartitionRegistration,
    ) {
        let (leader, leader_epoch) = (registration.leader, registration.leader_epoch);
        if &*topic.name == GROUP_METADATA_TOPIC {
            self.groups.resign(partition.index());
        }
        partition.follow(leader, leader_epoch, registration.partition_epoch);
        // One in a directory that failed would be in the fetches still, and so seem to be in sync.
        if leader == BrokerId::NONE || partition.is_offline() {
            self.replication.fetchers.unfollow(partition);
        } else {
            self.replication.fetchers.follow(Arc::clone(partition), leader, leader_epoch);
        }
    }

    fn elect_coordinator(&self, topic: &str, index: i32) {
        if topic != GROUP_METADATA_TOPIC {
            return;
        }
        if let Some(partition) = self.partition(topic, index).filter(|it| it.is_leader()) {
            self.groups.elect(partition);
        }
    }

    fn open(
        &self,
        image: &Image,
        topic: &TopicImage,
        index: i32,
        registration: &PartitionRegistration,
    ) -> Result<Arc<Partition>, RecoveryError> {
        let name = topic.name.to_string();
        let key = (name, index);
        let mut found = self.found.lock().get(&key).cloned().unwrap_or_default();
        found.retain(|found| self.is_of_topic(found, &key.0, index, topic.id));
        // There are two after a crash within the swap that ends a move; it went to the assigned directory.
        let assigned = registration.directory_of(self.node_id);
        found.sort_by_key(|found| self.directories.all[found.directory].id != assigned);
        let (directory, is_new) = match found.first() {
            Some(found) => (found.directory, false),
            None => (self.choose_directory(image, registration, &key), true),
        };
        self.preferred.lock().remove(&key);
        let log_dir = &self.directories.all[directory];
        // The checkpoints of the start may know a topic of the same name that is gone.
        let checkpointed = |offsets: &Checkpointed| offsets.get(&key).copied().filter(|_| !is_new);
        let offset = |offsets: &Checkpointed| checkpointed(offsets).unwrap_or(Offset(0));
        let topic_settings = self.settings.topic(image, &topic.name);
        let mut log = Log::open(LogParams {
            disk: Arc::clone(self.directories.disk()),
            dir: partition_dir(&log_dir.path, &topic.name, index),
            topic: Arc::clone(&topic.name),
            partition: index,
            topic_id: topic.id,
            config: topic_settings.log,
            log_start_offset: offset(&log_dir.log_start_offsets),
            recovery_point: offset(&log_dir.recovery_points),
            clean_shutdown: log_dir.was_clean,
            earlier_writes_synced: self.earlier_writes_synced.load(Ordering::Acquire),
            now: self.clock.now(),
        })?;
        log.set_cleaner_checkpoint(checkpointed(&log_dir.cleaner_offsets));
        for files in log.take_deleted_by_recovery() {
            files.remove()?;
        }
        if log.recovery_point() < offset(&log_dir.recovery_points) {
            // What is appended now is not what was synced when it was written.
            self.has_stale_lines.store(true, Ordering::Release);
        }
        // Not before: a log that cannot be opened today must be looked for in the same place tomorrow.
        self.found.lock().remove(&key);
        for left in found.iter().skip(1) {
            let path = partition_dir(&self.directories.all[left.directory].path, &key.0, index);
            self.set_aside(&path, (&key.0, index), MOVED);
        }
        let partition = Partition::new(PartitionParams {
            name: (Arc::clone(&topic.name), topic.id, index),
            replica: self.replication.replica_settings(topic_settings.min_insync_replicas),
            clock: Arc::clone(&self.clock),
            log,
            high_watermark: offset(&log_dir.high_watermarks),
            health: Arc::clone(&log_dir.health),
            isr_changes: Arc::clone(&self.replication.isr_changes),
            quotas: Arc::clone(&self.replication.quotas),
        });
        self.replication.throttle(image, &partition);
        if log_dir.id != assigned {
            self.replication.assignments.submit(Arc::clone(&partition));
        }
        let mut partitions = self.partitions.write();
        let topic_partitions = partitions.entry(Arc::clone(&topic.name)).or_default();
        topic_partitions.insert(index, Arc::clone(&partition));
        Ok(partition)
    }

    /// A directory of another topic of the same name is set aside.
    fn is_of_topic(&self, found: &Found, name: &str, index: i32, topic_id: TopicId) -> bool {
        if found.topic_id.is_none_or(|id| id == topic_id) {
            return true;
        }
        let from = partition_dir(&self.directories.all[found.directory].path, name, index);
        self.set_aside(&from, (name, index), UNKNOWN);
        false
    }

    /// Renames the directory of a partition, or of a copy of it, as Kafka does with one that nobody knows.
    fn set_aside(&self, from: &Path, (topic, partition): (&str, i32), why: &str) {
        let log_dir = from.parent().unwrap_or(from);
        let to = stray_partition_dir(log_dir, topic, partition, uuid::Uuid::new_v4());
        let disk = self.directories.disk();
        let renamed = disk.rename(from, &to);
        match renamed.and_then(|()| disk.sync_dir(log_dir)) {
            Ok(()) => {
                tracing::warn!(from = %from.display(), to = %to.display(), "set aside: {why}");
            }
            Err(error) => {
                tracing::error!(from = %from.display(), %error, "cannot set a stray directory aside");
            }
        }
    }

    /// The directory that the controller assigned, or one that was asked for before, or the one with
    /// the fewest partitions; a cordoned one, and one that is offline, only where all are.
    fn choose_directory(
        &self,
        image: &Image,
        registration: &PartitionRegistration,
        key: &(String, i32),
    ) -> usize {
        let assigned = registration.directory_of(self.node_id);
        let all = &self.directories.all;
        if let Some(at) = all.iter().position(|log_dir| log_dir.id == assigned) {
            return at;
        }
        let preferred = self.preferred.lock().get(key).copied();
        if let Some(at) = preferred.filter(|at| !all[*at].health.is_offline()) {
            return at;
        }
        if all.len() == 1 {
            return 0;
        }
        let mut counts = vec![0usize; all.len()];
        for partition in self.all() {
            let Some(checkpoint) = partition.checkpoint() else { continue };
            if let Some(at) = all.iter().position(|log_dir| log_dir.path == checkpoint.directory) {
                counts[at] += 1;
            }
        }
        let own = image.cluster.brokers.get(&self.node_id);
        let cordoned = own.and_then(|own| own.cordoned_log_dirs.as_deref()).unwrap_or_default();
        let fewest = counts.iter().enumerate().min_by_key(|(at, count)| {
            let log_dir = &all[*at];
            (log_dir.health.is_offline(), cordoned.contains(&log_dir.id), **count)
        });
        fewest.map_or(0, |(at, _)| at)
    }

    fn remove_gone(&self, old: &Image, new: &Image) {
        if old.topics.is_same(&new.topics) {
            return;
        }
        let mut deleted = Vec::new();
        for topic in old.topics.iter() {
            if new.topics.get_by_id(&topic.id).is_some() {
                continue;
            }
            deleted.push((topic.name.to_string(), topic.id));
            let gone = self.partitions.write().remove(&topic.name);
            for partition in gone.into_iter().flatten().map(|(_, partition)| partition) {
                self.retire(&partition);
                self.delete(old, &partition);
            }
        }
        self.groups.topics_deleted(deleted);
    }

    /// Remembers where a partition is to be made that is not here yet.
    pub fn prefer(&self, topic: &str, index: i32, directory: usize) {
        let mut preferred = self.preferred.lock();
        let key = (topic.to_owned(), index);
        if preferred.len() < PREFERRED_MAX || preferred.contains_key(&key) {
            preferred.insert(key, directory);
        }
    }

    fn reconfigure(&self, old: &Image, new: &Image) {
        if old.configs.is_same(&new.configs) {
            return;
        }
        self.replication.reconfigure(new);
        let partitions = self.partitions.read();
        for (topic, partitions) in partitions.iter() {
            let settings = self.settings.topic(new, topic);
            for partition in partitions.values() {
                self.replication.throttle(new, partition);
                partition.set_config(Arc::clone(&settings.log), settings.min_insync_replicas);
            }
        }
    }

    /// Sets aside what lies in the log directories and no topic of `image` owns; runs after the first publication.
    /// What a topic owns and could not be opened stays where it is.
    pub fn set_strays_aside(&self, image: &Image) {
        let is_owned = |topic: &str, index: i32, found: &Found| {
            let owner = image.topics.get(topic);
            owner.is_some_and(|owner| {
                owner.partition(index).is_some_and(|it| it.replicas.contains(&self.node_id))
                    && found.topic_id.is_none_or(|id| id == owner.id)
            })
        };
        let mut strays = Vec::new();
        self.found.lock().retain(|(topic, index), found| {
            let (owned, others): (Vec<_>, Vec<_>) =
                found.drain(..).partition(|found| is_owned(topic, *index, found));
            *found = owned;
            strays.extend(others.into_iter().map(|found| (topic.clone(), *index, found)));
            !found.is_empty()
        });
        for (topic, index, found) in strays {
            if topic == ottla_protocol::CLUSTER_METADATA_TOPIC {
                continue;
            }
            let log_dir = &self.directories.all[found.directory];
            let from = partition_dir(&log_dir.path, &topic, index);
            self.set_aside(&from, (&topic, index), UNKNOWN);
        }
    }
}
