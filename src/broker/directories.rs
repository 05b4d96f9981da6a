//! The log directories of this broker: locks, `meta.properties`, checkpoints, and what lies in each.
//!
//! Invariants: every directory is locked before it is read; nothing is written into a directory that belongs to
//! another cluster or node. Source: Kafka documentation, "KRaft: Storage"; KIP-858 (directory ids).

use super::dir_health::{DirHealth, DirState, Failures, reserve_bytes};
use crate::env::{Disk, LockError, LockGuard};
use crate::log::checkpoint::{
    self, CLEANER_OFFSETS, HIGH_WATERMARKS, LOG_START_OFFSETS, MetaProperties, PartitionKey,
    RECOVERY_POINTS,
};
use crate::log::own_properties::{self, OwnProperties};
use crate::log::{RecoveryError, StorageError};
use ottla_protocol::{BrokerId, Offset, uuid_to_text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

const LOCK_FILE: &str = ".lock";

/// Why the log directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be made or written.
    #[error("cannot use log directory {path}: {source}", path = path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another broker runs on it.
    #[error(
        "log directory {path} is in use by process {holder}: stop it, or give this broker another log.dirs",
        path = path.display()
    )]
    InUse {
        /// Which.
        path: PathBuf,
        /// The process id, as far as known.
        holder: String,
    },
    /// It belongs to another node or cluster.
    #[error("log directory {path} belongs to {what} {found}, but {key} says {expected}", path = path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// `node.id` or `cluster id`.
        what: &'static str,
        /// In the directory.
        found: String,
        /// The property that differs.
        key: &'static str,
        /// In the configuration, or in another directory.
        expected: String,
    },
    /// Two entries name the same directory.
    #[error("log.dirs names {path} twice", path = path.display())]
    Twice {
        /// Which.
        path: PathBuf,
    },
    /// One of its files is damaged.
    #[error(transparent)]
    Read(#[from] RecoveryError),
    /// One of its files cannot be written.
    #[error(transparent)]
    Write(#[from] StorageError),
}

/// One log directory.
#[derive(Debug)]
pub struct LogDirectory {
    /// Where it is.
    pub path: PathBuf,
    /// Its own id.
    pub id: Uuid,
    /// The last stop was in order.
    pub was_clean: bool,
    /// Offsets below which everything was synced, at the last checkpoint.
    pub recovery_points: BTreeMap<PartitionKey, Offset>,
    /// Log start offsets at the last checkpoint.
    pub log_start_offsets: BTreeMap<PartitionKey, Offset>,
    /// High watermarks at the last checkpoint.
    pub high_watermarks: BTreeMap<PartitionKey, Offset>,
    /// Whether it takes records.
    pub health: Arc<DirHealth>,
    /// How far the cleaner had come, at the last checkpoint.
    pub cleaner_offsets: BTreeMap<PartitionKey, Offset>,
    _lock: LockGuard,
}

/// Which Kafka must be able to start on the directories again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// One in KRaft mode, or none.
    KRaft,
    /// One that works with ZooKeeper: `meta.properties` is of version 0 and stays so.
    ZooKeeper,
}

/// All log directories.
#[derive(Debug)]
pub struct Directories {
    disk: Arc<dyn Disk>,
    /// In the order of `log.dirs`.
    pub all: Vec<LogDirectory>,
    /// The cluster's id.
    pub cluster_id: String,
    /// Whose directories they were, and may be again.
    pub origin: Origin,
    /// Told when a directory goes offline.
    failed: Failures,
    /// Where the metadata log lies; one of the others as a rule.
    metadata: (PathBuf, Arc<DirHealth>),
    /// The id of that directory.
    metadata_id: Uuid,
}

/// What the configuration says of the cluster's id.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClusterIds<'a> {
    /// What it must be.
    pub configured: Option<&'a str>,
    /// What it is where all directories are new; drawn where this says nothing.
    pub new: Option<&'a str>,
}

impl Directories {
    /// Locks the directories, formats the new ones and reads their checkpoints.
    ///
    /// # Errors
    /// Every [`DirectoryError`]; nothing was changed in a directory that is not ours.
    pub fn open(
        disk: Arc<dyn Disk>,
        paths: &[PathBuf],
        metadata_path: &Path,
        node_id: BrokerId,
        ids: &ClusterIds<'_>,
    ) -> Result<Directories, DirectoryError> {
        let mut locked = Vec::new();
        for (at, path) in paths.iter().enumerate() {
            if paths[..at].contains(path) {
                return Err(DirectoryError::Twice { path: path.clone() });
            }
            let lock = lock(disk.as_ref(), path)?;
            let meta = checkpoint::read_meta_properties(disk.as_ref(), path)?;
            locked.push((path, lock, meta));
        }
        let cluster_id = agree(&locked, node_id, ids)?;
        let is_old = |meta: &MetaProperties| meta.version == 0;
        let origin = match locked.iter().any(|(_, _, meta)| meta.as_ref().is_some_and(is_old)) {
            true => Origin::ZooKeeper,
            false => Origin::KRaft,
        };
        let failed = Failures::default();
        let mut all: Vec<LogDirectory> = Vec::new();
        for (path, lock, meta) in locked {
            let id = identify(disk.as_ref(), path, meta, (node_id, &cluster_id, origin))?;
            let mut log_dir = load(disk.as_ref(), path, lock, id)?;
            log_dir.health = Arc::new(DirHealth::new(Arc::clone(&failed)));
            all.push(log_dir);
        }
        let health = all.iter().find(|log_dir| log_dir.path == metadata_path).map_or_else(
            || Arc::new(DirHealth::new(Arc::clone(&failed))),
            |log_dir| Arc::clone(&log_dir.health),
        );
        let metadata = (metadata_path.to_owned(), health);
        let metadata_id = metadata_id(disk.as_ref(), metadata_path, &all)?;
        Ok(Directories { disk, all, cluster_id, origin, failed, metadata, metadata_id })
    }

    /// Notes that the metadata log goes with `meta.properties` as it is now; see [`own_properties`].
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn confirm(&self) -> Result<(), DirectoryError> {
        for dir in &self.all {
            let disk = self.disk.as_ref();
            if !own_properties::is_undisturbed(disk, &dir.path)? {
                let meta_digest = own_properties::meta_digest(disk, &dir.path)?;
                let own = OwnProperties { directory_id: dir.id, meta_digest };
                own_properties::write(disk, &dir.path, &own)?;
            }
        }
        Ok(())
    }

    /// The health of the directory of the metadata log.
    pub fn metadata_health(&self) -> &Arc<DirHealth> {
        &self.metadata.1
    }

    /// The id of the directory of the metadata log.
    pub fn metadata_directory_id(&self) -> Uuid {
        self.metadata_id
    }

    /// Completes when a broker is of no more use: with the metadata log's directory, or with the last one. Says so.
    pub async fn all_failed(&self) -> String {
        let mut failures = self.failures();
        loop {
            failures.mark_unchanged();
            if self.metadata.1.is_offline() {
                let path = self.metadata.0.display();
                return format!("the log directory of the cluster metadata, {path}, has failed");
            }
            if self.online().next().is_none() {
                let paths = self.all.iter().map(|log_dir| log_dir.path.display().to_string());
                let paths = paths.collect::<Vec<_>>().join(", ");
                return format!("all log directories have failed: {paths}");
            }
            if failures.changed().await.is_err() {
                // It ends with this.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Changes whenever a directory goes offline.
    pub fn failures(&self) -> watch::Receiver<()> {
        self.failed.subscribe()
    }

    /// Those in which a write or a sync has failed.
    pub fn offline(&self) -> impl Iterator<Item = &LogDirectory> {
        self.all.iter().filter(|log_dir| log_dir.health.is_offline())
    }

    /// The disk that holds them.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Those whose files may still be written.
    pub fn online(&self) -> impl Iterator<Item = &LogDirectory> {
        self.all.iter().filter(|log_dir| !log_dir.health.is_offline())
    }

    /// Looks how much space each directory has, and refuses producers or lets them go on. `reserve` is
    /// `ottla.log.dir.reserve.bytes`. One system call for each directory.
    pub fn look_at_space(&self, reserve: i64) {
        for log_dir in self.online() {
            let directory = log_dir.path.display();
            let space = match self.disk.space(&log_dir.path) {
                Ok(space) => space,
                Err(error) => {
                    tracing::warn!(%directory, %error, "free space is not known");
                    continue;
                }
            };
            let reserve = reserve_bytes(reserve, space);
            let available = space.available;
            match log_dir.health.look(space, reserve) {
                Some(DirState::Full) => {
                    tracing::error!(%directory, available, reserve, "disk full: producers have to wait");
                }
                Some(_) => {
                    tracing::info!(%directory, available, reserve, "producers go on: there is space again");
                }
                None => {}
            }
        }
    }

    /// Marks every directory as not cleanly stopped; called once logs may be written.
    ///
    /// # Errors
    /// A file could not be removed.
    pub fn remove_clean_shutdown(&self) -> Result<(), DirectoryError> {
        for dir in &self.all {
            checkpoint::remove_clean_shutdown(self.disk.as_ref(), &dir.path)?;
        }
        Ok(())
    }
}

fn lock(disk: &dyn Disk, path: &Path) -> Result<LockGuard, DirectoryError> {
    let unusable = |source| DirectoryError::Unusable { path: path.to_owned(), source };
    disk.create_dir_durably(path).map_err(unusable)?;
    disk.lock(&path.join(LOCK_FILE)).map_err(|error| match error {
        LockError::Held(holder) => DirectoryError::InUse { path: path.to_owned(), holder },
        LockError::Io(source) => DirectoryError::Unusable { path: path.to_owned(), source },
    })
}

type Locked<'a> = (&'a PathBuf, LockGuard, Option<MetaProperties>);

/// The cluster id that the directories and the configuration agree on.
fn agree(
    locked: &[Locked<'_>],
    node_id: BrokerId,
    ids: &ClusterIds<'_>,
) -> Result<String, DirectoryError> {
    let mut agreed = ids.configured.map(str::to_owned);
    for (path, _, meta) in locked {
        let Some(meta) = meta else { continue };
        if let Some(found) = meta.node_id.filter(|found| *found != node_id.0) {
            return Err(DirectoryError::Foreign {
                path: (*path).clone(),
                what: "node.id",
                found: found.to_string(),
                key: "node.id (or broker.id)",
                expected: node_id.to_string(),
            });
        }
        let Some(found) = &meta.cluster_id else { continue };
        match &agreed {
            Some(expected) if expected != found => {
                return Err(DirectoryError::Foreign {
                    path: (*path).clone(),
                    what: "cluster id",
                    found: found.clone(),
                    key: "cluster.id or another directory of log.dirs",
                    expected: expected.clone(),
                });
            }
            _ => agreed = Some(found.clone()),
        }
    }
    let new = || ids.new.map_or_else(|| uuid_to_text(Uuid::new_v4()), str::to_owned);
    Ok(agreed.unwrap_or_else(new))
}

/// The directory's id; one that has none gets it, durably. A `meta.properties` of version 0 stays as it is.
fn identify(
    disk: &dyn Disk,
    path: &Path,
    meta: Option<MetaProperties>,
    (node_id, cluster_id, origin): (BrokerId, &str, Origin),
) -> Result<Uuid, DirectoryError> {
    if let Some(known) = meta.as_ref().and_then(|meta| meta.directory_id) {
        return Ok(known);
    }
    let id = Uuid::new_v4();
    let is_old = meta.as_ref().is_some_and(|meta| meta.version == 0);
    if is_old && let Some(own) = own_properties::read(disk, path)? {
        return Ok(own.directory_id);
    }
    let has_own_file = origin == Origin::ZooKeeper;
    if has_own_file {
        let own = OwnProperties { directory_id: id, meta_digest: String::new() };
        own_properties::write(disk, path, &own)?;
    }
    if !is_old {
        let meta = MetaProperties {
            version: if has_own_file { 0 } else { 1 },
            cluster_id: Some(cluster_id.to_owned()),
            node_id: Some(node_id.0),
            directory_id: (!has_own_file).then_some(id),
            other: meta.map(|meta| meta.other).unwrap_or_default(),
        };
        checkpoint::write_meta_properties(disk, path, &meta)?;
    }
    Ok(id)
}

/// The id of the directory of the metadata log, which need not be one of the log directories; without a file of its own
/// it goes by the first one's.
fn metadata_id(disk: &dyn Disk, path: &Path, all: &[LogDirectory]) -> Result<Uuid, DirectoryError> {
    if let Some(log_dir) = all.iter().find(|log_dir| log_dir.path == path) {
        return Ok(log_dir.id);
    }
    let meta = checkpoint::read_meta_properties(disk, path)?;
    let own = meta.and_then(|meta| meta.directory_id);
    Ok(own.or_else(|| all.first().map(|first| first.id)).unwrap_or_default())
}

fn load(
    disk: &dyn Disk,
    path: &Path,
    lock: LockGuard,
    id: Uuid,
) -> Result<LogDirectory, DirectoryError> {
    Ok(LogDirectory {
        path: path.to_owned(),
        id,
        was_clean: checkpoint::read_clean_shutdown(disk, path)?.is_some(),
        recovery_points: read_or_begin_anew(disk, path, RECOVERY_POINTS),
        log_start_offsets: checkpoint::read_offsets(disk, path, LOG_START_OFFSETS)?,
        high_watermarks: checkpoint::read_offsets(disk, path, HIGH_WATERMARKS)?,
        health: Arc::default(),
        cleaner_offsets: read_or_begin_anew(disk, path, CLEANER_OFFSETS),
        _lock: lock,
    })
}

/// Reads a checkpoint without which nothing is lost: logs are recovered, or cleaned, from their start on. Kafka does
/// the same (`LogManager.loadLogs`, which resets the recovery checkpoint to 0).
fn read_or_begin_anew(
    disk: &dyn Disk,
    path: &Path,
    name: &'static str,
) -> BTreeMap<PartitionKey, Offset> {
    checkpoint::read_offsets(disk, path, name).unwrap_or_else(|error| {
        tracing::warn!(%error, "every log of this directory begins anew for {name}");
        BTreeMap::new()
    })
}
