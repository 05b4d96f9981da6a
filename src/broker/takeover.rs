//! Looks at log directories before one byte in them is changed: can this broker go on where another one stopped?
//!
//! Apache Kafka in KRaft mode leaves a metadata log that says what exists, and it is continued in place. A Kafka with
//! ZooKeeper leaves none: its topics and their settings are in ZooKeeper, and one is made from what the operator names
//! (`import.rs`). Without that its directories are refused: to start on them would set every partition aside as a
//! stray, or delete from a topic that was to be compacted. The same holds when such a Kafka has run on them since.
//!
//! Refused as well are directories whose metadata log has records or feature levels that do not exist here.
//!
//! Source: KIP-584 (features), KIP-631 (records); Kafka documentation, "KRaft: Storage".

use super::import::{self, ImportError, Plan};
use super::quorum::METADATA_DIR;
use super::settings::Settings;
use crate::env::Disk;
use crate::log::checkpoint::{PARTITION_METADATA, parse_partition_dir, read_meta_properties};
use crate::log::own_properties::is_undisturbed;
use crate::log::{RecoveryError, ScanError, scan_metadata};
use crate::machines::metadata::Image;
use crate::machines::metadata::features::{KRAFT_VERSION, find_feature};
use ottla_protocol::{CLUSTER_METADATA_TOPIC, Offset};
use std::io;
use std::path::{Path, PathBuf};

/// Why a directory is not taken over; nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// It cannot be read.
    #[error("cannot read log directory {path}: {source}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its metadata log cannot be continued.
    #[error("cannot continue the metadata log of another broker (nothing was changed): {0}")]
    Metadata(#[from] ScanError),
    /// A feature is finalized at a level that is not supported.
    #[error(
        "cannot continue the metadata log in {path}: feature {name} is finalized at level {level}, and this broker \
         supports {min} to {max} (nothing was changed)",
        path = path.display()
    )]
    Feature {
        /// The metadata log's directory.
        path: PathBuf,
        /// Which feature.
        name: String,
        /// Its finalized level.
        level: i16,
        /// The lowest level that is supported.
        min: i16,
        /// The highest.
        max: i16,
    },
    /// One of its small files cannot be read.
    #[error(transparent)]
    Read(#[from] RecoveryError),
    /// What a Kafka with ZooKeeper left cannot be imported.
    #[error("cannot take over from ZooKeeper (nothing was changed): {0}")]
    Import(#[from] ImportError),
    /// An import is asked for where there is nothing to import.
    #[error(
        "--from-zookeeper is given, but {path} is no log directory of a Kafka with ZooKeeper: it has no meta.properties \
         of version 0 (nothing was changed)",
        path = path.display()
    )]
    NotZooKeeper {
        /// The directory.
        path: PathBuf,
    },
    /// A Kafka with ZooKeeper has started on the directories since this broker did.
    #[error(
        "a Kafka with ZooKeeper has run on the log directories since {metadata} was written, or its import was cut short \
         (nothing was changed). Say --from-zookeeper HOST:PORT[/chroot] again",
        metadata = metadata.display()
    )]
    RunSince {
        /// The metadata log's directory.
        metadata: PathBuf,
    },
    /// There are partitions, and nothing that says what they are.
    #[error(
        "{partition} holds a partition, but there is no metadata log in {metadata} (nothing was changed). If a Kafka \
         with ZooKeeper left it, say --from-zookeeper HOST:PORT[/chroot], where topics and their settings are; if \
         metadata.log.dir has moved, name it; or give this broker an empty log.dirs",
        partition = partition.display(),
        metadata = metadata.display()
    )]
    NoMetadata {
        /// The first such partition.
        partition: PathBuf,
        /// Where the metadata log would be.
        metadata: PathBuf,
    },
}

/// Looks whether what lies in the directories can be continued, and answers the import that must come first, if any.
/// Reads the metadata log once; changes nothing.
///
/// # Errors
/// Every [`TakeoverError`].
pub(super) fn check(disk: &dyn Disk, settings: &Settings) -> Result<Option<Plan>, TakeoverError> {
    let log_dirs = &settings.log_dirs;
    let path = settings.metadata_log_dir.join(METADATA_DIR);
    let mut image = Image::default();
    let is_there = scan_metadata(disk, &path, &mut |record| image.replay(Offset(0), record))?;
    let mut is_disturbed = false;
    for log_dir in log_dirs {
        is_disturbed |= is_there && !is_undisturbed(disk, log_dir)?;
    }
    match &settings.zookeeper {
        Some(_) if is_there && !is_disturbed => {
            tracing::info!(
                "the log directories were taken over before: --from-zookeeper is not needed"
            );
        }
        Some(source) => {
            check_old(disk, log_dirs)?;
            return Ok(Some(import::plan(disk, settings, source, &image)?));
        }
        None if is_disturbed => return Err(TakeoverError::RunSince { metadata: path }),
        None if is_there => {}
        None => {
            if let Some(partition) = first_partition(disk, log_dirs)? {
                return Err(TakeoverError::NoMetadata { partition, metadata: path });
            }
        }
    }
    for (name, level) in &image.features.levels {
        let (name, level) = (name.clone(), *level);
        let feature = find_feature(&name).filter(|feature| feature.name != KRAFT_VERSION);
        let (min, max) = feature.map_or((0, 0), |it| (it.range.min, it.range_at(level).max));
        if !(min..=max).contains(&level) {
            return Err(TakeoverError::Feature { path, name, level, min, max });
        }
    }
    Ok(None)
}

/// Only what a Kafka with ZooKeeper left is imported.
fn check_old(disk: &dyn Disk, log_dirs: &[PathBuf]) -> Result<(), TakeoverError> {
    let mut is_old = false;
    for log_dir in log_dirs {
        match read_meta_properties(disk, log_dir)? {
            Some(meta) if meta.version != 0 => {
                return Err(TakeoverError::NotZooKeeper { path: log_dir.clone() });
            }
            meta => is_old |= meta.is_some(),
        }
    }
    match log_dirs.first() {
        Some(first) if !is_old => Err(TakeoverError::NotZooKeeper { path: first.clone() }),
        _ => Ok(()),
    }
}

/// A directory of `topic-partition` with the file that each has, or with a segment.
fn first_partition(
    disk: &dyn Disk,
    log_dirs: &[PathBuf],
) -> Result<Option<PathBuf>, TakeoverError> {
    for log_dir in log_dirs {
        let list = |path: &Path| match disk.list(path) {
            Ok(entries) => Ok(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(TakeoverError::Unreadable { path: path.to_owned(), source }),
        };
        for entry in list(log_dir)? {
            let is_other = parse_partition_dir(&entry.name)
                .is_some_and(|(topic, _)| topic != CLUSTER_METADATA_TOPIC);
            if !entry.is_dir || !is_other {
                continue;
            }
            let path = log_dir.join(&entry.name);
            let is_file = |name: &str| name == PARTITION_METADATA || name.ends_with(".log");
            if list(&path)?.iter().any(|entry| is_file(&entry.name)) {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
