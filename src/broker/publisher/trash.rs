//! Directories of partitions that are gone: renamed at once, so that nothing opens them again, and removed after
//! `file.delete.delay.ms`, when nobody reads from their files any more.

use super::Publisher;
use crate::broker::partition::Partition;
use crate::log::checkpoint::deleted_partition_dir;
use crate::machines::metadata::Image;
use ottla_protocol::Timestamp;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// Suffix of the directory of a deleted partition until it is removed (Kafka's name).
pub(super) const DELETE_SUFFIX: &str = "-delete";

/// Directories to remove, with the time on the steady clock.
#[derive(Debug, Default)]
pub(super) struct Trash(Mutex<Vec<(Timestamp, PathBuf)>>);

impl Trash {
    pub(super) fn put(&self, due: Timestamp, path: PathBuf) {
        self.0.lock().push((due, path));
    }

    fn take_due(&self, now: Timestamp) -> Vec<PathBuf> {
        let mut all = self.0.lock();
        all.extract_if(.., |(due, _)| *due <= now).map(|(_, path)| path).collect()
    }
}

impl Publisher {
    /// What the directory is to be called that a partition's log has left, until it is removed.
    pub fn retired_dir(&self, partition: &Partition) -> PathBuf {
        let log_dir = partition.checkpoint().map(|it| it.directory).unwrap_or_default();
        let unique = uuid::Uuid::new_v4();
        deleted_partition_dir(&log_dir, partition.topic(), partition.index(), unique)
    }

    /// Removes a directory that a partition's log has left, after `file.delete.delay.ms`.
    pub fn remove_later(&self, partition: &Partition, path: PathBuf) {
        self.put_into_trash(path, partition.file_delete_delay_ms());
    }

    fn put_into_trash(&self, path: PathBuf, delay_ms: i64) {
        // A partition that never had a record has no directory.
        if self.directories.disk().exists(&path) {
            self.trash.put(self.clock.steady().plus_ms(delay_ms), path);
        }
    }

    /// Ends a partition, whose topic's settings `image` has; its directory goes with it.
    pub(super) fn delete(&self, image: &Image, partition: &Partition) {
        self.has_stale_lines.store(true, Ordering::Release);
        let mut target = None;
        let result = partition.delete(|log| {
            let (path, unique) = (log.path(), uuid::Uuid::new_v4());
            let log_dir = path.parent().unwrap_or(&path);
            let to = deleted_partition_dir(log_dir, log.topic(), log.partition(), unique);
            target = Some(to.clone());
            to
        });
        match (result, target) {
            (Ok(()), Some(path)) => {
                let settings = self.settings.topic(image, partition.topic());
                self.put_into_trash(path, settings.log.file_delete_delay_ms);
            }
            (Ok(()), None) => {}
            (Err(error), _) => tracing::error!(?partition, %error, "cannot delete partition"),
        }
    }

    /// Directories that are to be removed.
    #[cfg(test)]
    pub fn trash(&self) -> Vec<PathBuf> {
        self.trash.0.lock().iter().map(|(_, path)| path.clone()).collect()
    }

    /// Removes directories of deleted partitions whose time has come on the steady clock.
    pub fn empty_trash(&self, now: Timestamp) {
        let disk = self.directories.disk();
        for path in self.trash.take_due(now) {
            let removed = disk.remove_dir_all(&path);
            if let Err(error) = removed.and_then(|()| disk.sync_dir(path.parent().unwrap_or(&path)))
            {
                tracing::error!(path = %path.display(), %error, "cannot remove a deleted partition");
            }
        }
    }
}
