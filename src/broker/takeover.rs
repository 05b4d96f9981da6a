//! Looks at log directories before one byte in them is changed: can this broker go on where another one stopped?
//!
//! Apache Kafka in KRaft mode leaves a metadata log that says what exists, and it is continued in place. Refused are
//! directories whose metadata log has records or feature levels that do not exist here, and directories with
//! partitions but without a metadata log: those of a Kafka with ZooKeeper, whose topics and settings are not in them.
//! To start on them would set every partition aside as a stray.
//!
//! Source: KIP-584 (features), KIP-631 (records); Kafka documentation, "KRaft: Storage".

use super::quorum::METADATA_DIR;
use crate::env::Disk;
use crate::log::checkpoint::{PARTITION_METADATA, parse_partition_dir};
use crate::log::{ScanError, scan_metadata};
use crate::machines::metadata::features::{KRAFT_VERSION, find_feature};
use ottla_protocol::{CLUSTER_METADATA_TOPIC, MetadataRecord};
use std::collections::BTreeMap;
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
    /// There are partitions, and nothing that says what they are.
    #[error(
        "{partition} holds a partition, but there is no metadata log in {metadata}: a directory of a Kafka with \
         ZooKeeper cannot be taken over yet (nothing was changed). Give this broker an empty log.dirs, or, where \
         metadata.log.dir has moved, name it",
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

/// Looks whether what lies in the directories can be continued. Reads the metadata log once; changes nothing.
///
/// # Errors
/// Every [`TakeoverError`].
pub(super) fn check(
    disk: &dyn Disk,
    log_dirs: &[PathBuf],
    metadata_log_dir: &Path,
) -> Result<(), TakeoverError> {
    let path = metadata_log_dir.join(METADATA_DIR);
    let mut levels: BTreeMap<String, i16> = BTreeMap::new();
    let is_there = scan_metadata(disk, &path, &mut |record| {
        if let MetadataRecord::FeatureLevel(record) = record {
            levels.insert(record.name.clone(), record.feature_level);
        }
    })?;
    if !is_there && let Some(partition) = first_partition(disk, log_dirs)? {
        return Err(TakeoverError::NoMetadata { partition, metadata: path });
    }
    for (name, level) in levels {
        let feature = find_feature(&name).filter(|feature| feature.name != KRAFT_VERSION);
        let (min, max) = feature.map_or((0, 0), |it| (it.range.min, it.range_at(level).max));
        if level != 0 && !(min..=max).contains(&level) {
            return Err(TakeoverError::Feature { path, name, level, min, max });
        }
    }
    Ok(())
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
