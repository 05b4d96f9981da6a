//! Makes log directories those of a node before it first starts, as Kafka's `kafka-storage format` does.
//!
//! Each directory gets `meta.properties` and `bootstrap.checkpoint`, the levels of features that a new cluster begins
//! with; the one of the metadata log also its first snapshot, where the voters are named here. `meta.properties` comes
//! last: without it a directory is not formatted, and this can be done again. Source: KIP-631, KIP-853, KIP-778.

use super::founding;
use super::quorum::{QuorumError, Voter, VoterEndpoint, VoterRecords};
use super::replay::ReplayError;
use super::snapshots;
use crate::config::Config;
use crate::env::{Disk, LockError};
use crate::log::checkpoint::{MetaProperties, read_meta_properties, write_meta_properties};
use crate::log::{RecoveryError, StorageError};
use crate::machines::metadata::features::{
    ELR_VERSION, FEATURES, Feature, KRAFT_VERSION, METADATA_VERSION, feature_records, levels_at,
    metadata_version_name, metadata_version_of,
};
use bytes::Bytes;
use ottla_protocol::batch::{batches, check_crc};
use ottla_protocol::messages::SnapshotHeaderRecord;
use ottla_protocol::record::decode_records;
use ottla_protocol::records::metadata::decode_metadata_record;
use ottla_protocol::{BrokerId, LeaderEpoch, MetadataRecord, Timestamp, uuid_to_text};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What a new cluster begins with, in each log directory.
const BOOTSTRAP: &str = "bootstrap.checkpoint";
/// That file has some records; more than this is not it.
const BOOTSTRAP_BYTES_MAX: usize = 16 << 20;
/// The lowest level of `metadata.version` at which ELR can be on.
const ELR_SINCE: i16 = 23;

/// Who votes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitialVoters {
    /// Those of `controller.quorum.voters`.
    Configured,
    /// This node alone, to which others can be added.
    Standalone,
    /// Nobody: this node is to be added to a quorum.
    Nobody,
    /// These, to which others can be added.
    Given(Vec<Voter>),
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct FormatRequest {
    /// The cluster's id; drawn where it is not said.
    pub cluster_id: Option<String>,
    /// Who votes first.
    pub voters: InitialVoters,
    /// Directories that are formatted already are passed over.
    pub ignore_formatted: bool,
    /// The release whose features the cluster begins with.
    pub release: Option<String>,
    /// Levels of features, by name.
    pub features: Vec<(String, i16)>,
}

/// Why nothing was formatted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// What is asked for contradicts itself or the configuration.
    #[error("{0}")]
    Refused(String),
    /// A directory is formatted already.
    #[error("log directory {path} is formatted already (--ignore-formatted passes it over)", path = path.display())]
    Formatted {
        /// Which.
        path: PathBuf,
    },
    /// Another process works in it.
    #[error("log directory {path} is in use by process {holder}", path = path.display())]
    InUse {
        /// Which.
        path: PathBuf,
        /// Its id, as far as known.
        holder: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is damaged.
    #[error(transparent)]
    Read(#[from] RecoveryError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] StorageError),
    /// The first snapshot cannot be written.
    #[error(transparent)]
    Snapshot(#[from] QuorumError),
}

fn refused<T>(why: impl Into<String>) -> Result<T, FormatError> {
    Err(FormatError::Refused(why.into()))
}

/// Formats the directories of a configuration; answers what was done, a line for each.
///
/// # Errors
/// Every [`FormatError`]. With `Refused`, `Formatted` and `InUse` nothing was changed.
pub fn format(
    disk: &dyn Disk,
    config: &Config,
    request: &FormatRequest,
    now: Timestamp,
) -> Result<Vec<String>, FormatError> {
    let voters = initial_voters(config, &request.voters)?;
    let levels = feature_levels(request, !matches!(request.voters, InitialVoters::Configured))?;
    let cluster_id = cluster_id(config, request)?;
    let metadata_dir = &config.metadata_log_dir;
    let mut dirs = config.log_dirs.clone();
    if !dirs.contains(metadata_dir) {
        dirs.push(metadata_dir.clone());
    }
    let (mut empty, mut locks) = (Vec::new(), Vec::new());
    for path in &dirs {
        let file = |source| FormatError::File { path: path.clone(), source };
        disk.create_dir_durably(path).map_err(file)?;
        locks.push(disk.lock(&path.join(".lock")).map_err(|error| match error {
            LockError::Held(holder) => FormatError::InUse { path: path.clone(), holder },
            LockError::Io(source) => file(source),
        })?);
        match read_meta_properties(disk, path)? {
            None => empty.push(path),
            Some(meta) => check_formatted(path, &meta, (config, &cluster_id, request))?,
        }
    }
    if empty.is_empty() {
        return Ok(vec!["all log directories are formatted already".to_owned()]);
    }
    let metadata_version = levels.iter().find(|(name, _)| *name == METADATA_VERSION);
    let metadata_version = metadata_version.map_or(0, |(_, level)| *level);
    if founding::has_metadata_log(disk, metadata_dir)? && empty.contains(&metadata_dir) {
        let path = metadata_dir.display();
        return refused(format!("{path} holds a metadata log, but no meta.properties"));
    }
    let bootstrap = bootstrap(&feature_records(levels), metadata_version, now);
    let mut lines = Vec::new();
    for path in empty {
        let own = voters.iter().flatten().find(|voter| voter.id.0 == config.node_id);
        let own = own.filter(|_| path == metadata_dir);
        let directory_id = own.map_or_else(Uuid::new_v4, |own| own.directory_id);
        let file = |source| FormatError::File { path: path.clone(), source };
        disk.write_atomic(&path.join(BOOTSTRAP), &bootstrap).map_err(file)?;
        let mut kind = "log directory";
        if path == metadata_dir {
            kind = "metadata directory";
            if let Some(voters) = &voters {
                kind = if own.is_some() { "directory of a voter" } else { "metadata directory" };
                founding::write_first_voters(disk, path, voters.iter().cloned(), now)?;
            }
        }
        let meta = MetaProperties {
            version: 1,
            cluster_id: Some(cluster_id.clone()),
            node_id: Some(config.node_id),
            directory_id: Some(directory_id),
            ..MetaProperties::default()
        };
        write_meta_properties(disk, path, &meta)?;
        let version = metadata_version_name(metadata_version).unwrap_or("?");
        let (path, id) = (path.display(), uuid_to_text(directory_id));
        lines.push(format!(
            "formatted {kind} {path}: cluster {cluster_id}, directory {id}, metadata.version {version}"
        ));
    }
    Ok(lines)
}

fn check_formatted(
    path: &Path,
    meta: &MetaProperties,
    (config, cluster_id, request): (&Config, &str, &FormatRequest),
) -> Result<(), FormatError> {
    if !request.ignore_formatted {
        return Err(FormatError::Formatted { path: path.to_owned() });
    }
    let (path, node_id) = (path.display(), config.node_id);
    if let Some(other) = meta.cluster_id.as_deref().filter(|other| *other != cluster_id) {
        return refused(format!("log directory {path} is of cluster {other}, not {cluster_id}"));
    }
    match meta.node_id.filter(|other| *other != node_id) {
        Some(other) => refused(format!("log directory {path} is of node {other}, not {node_id}")),
        None => Ok(()),
    }
}

/// Whom the first snapshot names; `None` where there is none.
fn initial_voters(
    config: &Config,
    asked: &InitialVoters,
) -> Result<Option<Vec<Voter>>, FormatError> {
    let has_static = !config.quorum_voters.is_empty();
    match asked {
        InitialVoters::Configured if config.is_controller && !has_static => refused(
            "controller.quorum.voters is not set: say --standalone, --initial-controllers or \
             --no-initial-controllers",
        ),
        InitialVoters::Configured | InitialVoters::Nobody => Ok(None),
        _ if has_static => refused(
            "controller.quorum.voters is set, which --standalone and --initial-controllers replace: \
             name controller.quorum.bootstrap.servers instead",
        ),
        InitialVoters::Standalone if !config.is_controller => {
            refused("--standalone is for a node with the role controller")
        }
        InitialVoters::Standalone => {
            let listeners = &config.listeners;
            let told = listeners.advertised_controller.first();
            let Some(listener) = told.or(listeners.controller.first()) else {
                return refused("controller.listener.names names no listener of this node");
            };
            let host = match listener.host.as_str() {
                "" => "localhost",
                host => host,
            };
            let address = (host.to_owned(), listener.port);
            let endpoint = VoterEndpoint { name: listener.name.clone(), address };
            Ok(Some(vec![Voter {
                id: BrokerId(config.node_id),
                directory_id: Uuid::new_v4(),
                endpoints: vec![endpoint],
                kraft_versions: (0, 1),
            }]))
        }
        InitialVoters::Given(voters) => Ok(Some(voters.clone())),
    }
}

fn cluster_id(config: &Config, request: &FormatRequest) -> Result<String, FormatError> {
    let said = request.cluster_id.clone().or_else(|| config.cluster_id.clone());
    let is_shared = matches!(request.voters, InitialVoters::Given(_) | InitialVoters::Nobody)
        || !config.is_controller;
    match said {
        Some(id) if id.is_empty() || id.len() > 100 => refused("--cluster-id is not one"),
        Some(id) => Ok(id),
        None if is_shared => {
            refused("--cluster-id is needed: all nodes of a cluster must be given the same")
        }
        None => Ok(super::settings::voters_cluster_id(config)
            .unwrap_or_else(|| uuid_to_text(Uuid::new_v4()))),
    }
}

/// The levels that the cluster begins with, `kraft.version` aside.
fn feature_levels(
    request: &FormatRequest,
    is_dynamic: bool,
) -> Result<Vec<(&'static str, i16)>, FormatError> {
    let find = |name: &str| request.features.iter().find(|(asked, _)| asked == name);
    let newest = FEATURES.iter().find(|it| it.name == METADATA_VERSION).map_or(0, |it| it.initial);
    let metadata_version = match (&request.release, find(METADATA_VERSION)) {
        (Some(_), Some(_)) => {
            return refused("say --release-version or --feature metadata.version, not both");
        }
        (Some(release), None) => match metadata_version_of(release) {
            Some(level) => level,
            None => {
                return refused(format!(
                    "--release-version {release}: no release is known of that name (3.3 to 4.3)"
                ));
            }
        },
        (None, Some((_, level))) => *level,
        (None, None) => newest,
    };
    let mut levels = levels_at(metadata_version);
    for (name, level) in &request.features {
        let Some(feature) = FEATURES.iter().find(|feature| feature.name == *name) else {
            let known: Vec<&str> = FEATURES.iter().map(|feature| feature.name).collect();
            return refused(format!(
                "--feature {name}: there is none of that name ({})",
                known.join(", ")
            ));
        };
        check_level(feature, *level, is_dynamic)?;
        if let Some(known) = levels.iter_mut().find(|(known, _)| known == name) {
            known.1 = *level;
        }
    }
    let has_elr = levels.iter().any(|(name, level)| *name == ELR_VERSION && *level > 0);
    if has_elr && metadata_version < ELR_SINCE {
        return refused(format!("{ELR_VERSION} needs metadata.version {ELR_SINCE} or higher"));
    }
    Ok(levels)
}

fn check_level(feature: &Feature, level: i16, is_dynamic: bool) -> Result<(), FormatError> {
    let (name, min, max) = (feature.name, feature.range.min, feature.range.max);
    if !(min..=max).contains(&level) {
        return refused(format!("--feature {name}={level}: the levels are {min} to {max}"));
    }
    match (name, level, is_dynamic) {
        (KRAFT_VERSION, 0, true) => refused(
            "kraft.version=0 has the voters of controller.quorum.voters: leave --standalone, \
             --initial-controllers and --no-initial-controllers out",
        ),
        (KRAFT_VERSION, 1, false) => refused(
            "kraft.version=1 has voters that can change: say --standalone, --initial-controllers or \
             --no-initial-controllers, and no controller.quorum.voters",
        ),
        _ => Ok(()),
    }
}

fn bootstrap(records: &[MetadataRecord], metadata_version: i16, now: Timestamp) -> Vec<u8> {
    let header = SnapshotHeaderRecord { version: 0, last_contained_log_timestamp: 0 };
    let head = (header, LeaderEpoch(0), now);
    snapshots::encode(head, &VoterRecords::default(), records, metadata_version)
}

/// The records that a new cluster begins with, where somebody has formatted the directory.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub(super) fn read_bootstrap(
    disk: &dyn Disk,
    metadata_log_dir: &Path,
) -> Result<Option<Vec<MetadataRecord>>, QuorumError> {
    let path = metadata_log_dir.join(BOOTSTRAP);
    let bytes = match disk.read(&path) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(QuorumError::File { path, source }),
    };
    let damaged = |cause: String| QuorumError::State { path: path.clone(), cause };
    let mut found = Vec::new();
    for batch in batches(&bytes) {
        let (header, batch) = batch.map_err(|cause| damaged(cause.to_string()))?;
        let offset = header.base_offset;
        check_crc(&header, batch).map_err(|cause| ReplayError::Batch { offset, cause })?;
        if header.is_control() {
            continue;
        }
        let records = decode_records(&header, &bytes.slice_ref(batch), BOOTSTRAP_BYTES_MAX);
        for record in records.map_err(|cause| damaged(cause.to_string()))? {
            let decoded = decode_metadata_record(record.value.unwrap_or_default());
            found.push(decoded.map_err(|cause| damaged(cause.to_string()))?.0);
        }
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests;
