//! The small files of a log directory and of a partition's: offset checkpoints, the clean-shutdown file,
//! `meta.properties`, `partition.metadata`. All are text, written so that a crash leaves the old or the new one.
//!
//! Source: Kafka's storage module; KIP-516 (`partition.metadata`), KIP-631 (`meta.properties` version 1), KIP-858
//! (directory ids), KIP-966 (the clean-shutdown file's broker epoch).

use super::error::{RecoveryError, StorageError};
use crate::env::{Disk, OpenMode};
use ottla_protocol::{Offset, TopicId, uuid_from_text, uuid_to_text};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

/// Offsets below which everything is synced.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// High watermarks.
pub const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Log start offsets that are above their first segment's base offset.
pub const LOG_START_OFFSETS: &str = "log-start-offset-checkpoint";
/// Offsets up to which the cleaner has compacted.
pub const CLEANER_OFFSETS: &str = "cleaner-offset-checkpoint";
/// There after an orderly stop only.
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// Whose log directory it is.
pub const META_PROPERTIES: &str = "meta.properties";
/// A partition's topic id.
pub const PARTITION_METADATA: &str = "partition.metadata";

/// Bytes of a whole `partition.metadata`: two lines, the second with an id of 22 characters.
const PARTITION_METADATA_LEN: usize = "version: 0\ntopic_id: ".len() + 22;

/// Suffix of the directory of a copy that is to take a partition's place (Kafka's name).
const FUTURE_SUFFIX: &str = "-future";
/// Of a directory that belongs to no topic of the cluster.
const STRAY_SUFFIX: &str = "-stray";

/// Topic and partition of an offset.
pub type PartitionKey = (String, i32);

fn read_text(disk: &dyn Disk, path: &Path) -> Result<Option<String>, RecoveryError> {
    match disk.read(path) {
        Ok(bytes) => {
            String::from_utf8(bytes).map(Some).map_err(|_| invalid(path, "is not UTF-8 text"))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StorageError::new("read", path, e).into()),
    }
}

fn invalid(path: &Path, cause: impl Into<String>) -> RecoveryError {
    RecoveryError::Invalid { path: path.to_owned(), cause: cause.into() }
}

fn write_text(disk: &dyn Disk, path: &Path, text: &str) -> Result<(), StorageError> {
    disk.write_atomic(path, text.as_bytes()).map_err(|e| StorageError::new("write", path, e))
}

/// Reads an offset checkpoint (`name` is one of the constants) of a log directory; empty where there is none.
/// Kafka makes the file empty before it first writes it, so an empty one has no offsets either
/// (`CheckpointFile`, which its storage module has).
///
/// # Errors
/// The file cannot be read, or is malformed.
pub fn read_offsets(
    disk: &dyn Disk,
    log_dir: &Path,
    name: &str,
) -> Result<BTreeMap<PartitionKey, Offset>, RecoveryError> {
    let path = log_dir.join(name);
    let Some(text) = read_text(disk, &path)? else { return Ok(BTreeMap::new()) };
    parse_offsets(&text).map_err(|line| invalid(&path, format!("malformed line {line}")))
}

fn parse_offsets(text: &str) -> Result<BTreeMap<PartitionKey, Offset>, usize> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut lines = text.lines();
    let version = lines.next().map(str::trim);
    if version != Some("0") {
        return Err(1);
    }
    let count: usize = lines.next().and_then(|line| line.trim().parse().ok()).ok_or(2usize)?;
    let mut offsets = BTreeMap::new();
    let mut entries = 0;
    for (n, line) in lines.enumerate() {
        let mut fields = line.split_whitespace();
        let entry = (|| {
            let topic = fields.next()?.to_owned();
            let partition = fields.next()?.parse().ok()?;
            let offset = Offset(fields.next()?.parse().ok()?);
            fields.next().is_none().then_some(((topic, partition), offset))
        })();
        let (key, offset) = entry.ok_or(n + 3)?;
        offsets.insert(key, offset);
        entries += 1;
    }
    if entries == count { Ok(offsets) } else { Err(2) }
}

/// Writes an offset checkpoint of a log directory.
///
/// # Errors
/// The file cannot be written.
pub fn write_offsets<'a>(
    disk: &dyn Disk,
    log_dir: &Path,
    name: &str,
    offsets: impl ExactSizeIterator<Item = (&'a str, i32, Offset)>,
) -> Result<(), StorageError> {
    let mut text = format!("0\n{}\n", offsets.len());
    for (topic, partition, offset) in offsets {
        let _ = writeln!(text, "{topic} {partition} {offset}");
    }
    write_text(disk, &log_dir.join(name), &text)
}

/// What the clean-shutdown file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanShutdown {
    /// Epoch of the broker that stopped; -1 where the file has none.
    pub broker_epoch: i64,
}

/// Reads the clean-shutdown file; `None` after a crash. One without readable content (Kafka before 3.8 writes it
/// empty) counts as there.
///
/// # Errors
/// The file cannot be read.
pub fn read_clean_shutdown(
    disk: &dyn Disk,
    log_dir: &Path,
) -> Result<Option<CleanShutdown>, RecoveryError> {
    let path = log_dir.join(CLEAN_SHUTDOWN);
    let bytes = match disk.read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StorageError::new("read", &path, e).into()),
    };
    let json: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    let epoch =
        json.as_ref().and_then(|json| json.get("brokerEpoch")).and_then(|epoch| epoch.as_i64());
    Ok(Some(CleanShutdown { broker_epoch: epoch.unwrap_or(-1) }))
}

/// Writes the clean-shutdown file: all logs of the directory are closed.
///
/// # Errors
/// The file cannot be written.
pub fn write_clean_shutdown(
    disk: &dyn Disk,
    log_dir: &Path,
    broker_epoch: i64,
) -> Result<(), StorageError> {
    let text = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
    write_text(disk, &log_dir.join(CLEAN_SHUTDOWN), &text)
}

/// Removes the clean-shutdown file, durably, before the first write.
///
/// # Errors
/// The file cannot be removed, or the directory not synced.
pub fn remove_clean_shutdown(disk: &dyn Disk, log_dir: &Path) -> Result<(), StorageError> {
    let path = log_dir.join(CLEAN_SHUTDOWN);
    match disk.remove_file(&path) {
        Ok(()) => {}
        // An earlier start may have removed it and not come to the sync.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(StorageError::new("delete", &path, e)),
    }
    disk.sync_dir(log_dir).map_err(|e| StorageError::new("sync", log_dir, e))
}

/// `meta.properties` of a log directory: whose it is. Keys that are not known are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetaProperties {
    /// 0 in ZooKeeper mode (`broker.id`), 1 since KRaft (`node.id`).
    pub version: i32,
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// `node.id`, or `broker.id` in version 0.
    pub node_id: Option<i32>,
    /// The directory's own id.
    pub directory_id: Option<uuid::Uuid>,
    /// Everything else.
    pub other: BTreeMap<String, String>,
}

/// Reads `meta.properties`; `None` in a directory that nobody has formatted.
///
/// # Errors
/// The file cannot be read, or a value in it cannot.
pub fn read_meta_properties(
    disk: &dyn Disk,
    log_dir: &Path,
) -> Result<Option<MetaProperties>, RecoveryError> {
    let path = log_dir.join(META_PROPERTIES);
    let Some(text) = read_text(disk, &path)? else { return Ok(None) };
    let mut meta = MetaProperties::default();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| invalid(&path, format!("malformed line {line:?}")))?;
        let (key, value) = (key.trim(), value.trim());
        let wrong = || invalid(&path, format!("{key} has the value {value:?}"));
        match key {
            "version" => meta.version = value.parse().map_err(|_| wrong())?,
            "cluster.id" => meta.cluster_id = Some(value.to_owned()),
            "node.id" | "broker.id" => meta.node_id = Some(value.parse().map_err(|_| wrong())?),
            "directory.id" => meta.directory_id = Some(uuid_from_text(value).ok_or_else(wrong)?),
            _ => {
                meta.other.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    Ok(Some(meta))
}

/// Writes `meta.properties`.
///
/// # Errors
/// The file cannot be written.
pub fn write_meta_properties(
    disk: &dyn Disk,
    log_dir: &Path,
    meta: &MetaProperties,
) -> Result<(), StorageError> {
    let mut text = String::from("#\n");
    if let Some(id) = &meta.cluster_id {
        let _ = writeln!(text, "cluster.id={id}");
    }
    if let Some(id) = &meta.directory_id {
        let _ = writeln!(text, "directory.id={}", uuid_to_text(*id));
    }
    if let Some(id) = meta.node_id {
        let key = if meta.version == 0 { "broker.id" } else { "node.id" };
        let _ = writeln!(text, "{key}={id}");
    }
    for (key, value) in &meta.other {
        let _ = writeln!(text, "{key}={value}");
    }
    let _ = writeln!(text, "version={}", meta.version);
    write_text(disk, &log_dir.join(META_PROPERTIES), &text)
}

/// Reads a partition's topic id; `None` where the file is not there, or is not whole because the machine went down
/// before it was synced: cut, or zeroes in place of what was written.
///
/// # Errors
/// The file cannot be read, or is malformed.
pub fn read_partition_metadata(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<Option<TopicId>, RecoveryError> {
    let path = dir.join(PARTITION_METADATA);
    let is_whole = |text: &String| text.len() >= PARTITION_METADATA_LEN && !text.contains('\0');
    let Some(text) = read_text(disk, &path)?.filter(is_whole) else {
        return Ok(None);
    };
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.strip_prefix("version: "));
    if version.map(str::trim) != Some("0") {
        return Err(invalid(&path, "has no version that is known"));
    }
    let id = lines.next().and_then(|line| line.strip_prefix("topic_id: "));
    id.and_then(|id| uuid_from_text(id.trim()))
        .map(Some)
        .ok_or_else(|| invalid(&path, "has no topic id"))
}

/// Writes a partition's topic id. It is synced with the first flush of the log: before that no record is durable
/// either, and thousands of partitions that get their first record do not wait for the disk one by one.
///
/// # Errors
/// The file cannot be written.
pub fn write_partition_metadata(
    disk: &dyn Disk,
    dir: &Path,
    topic_id: TopicId,
) -> Result<(), StorageError> {
    let text = format!("version: 0\ntopic_id: {}", uuid_to_text(topic_id));
    let path = dir.join(PARTITION_METADATA);
    let write = || {
        let file = disk.open(&path, OpenMode::Create)?;
        file.set_len(0)?;
        file.write_all_at(&[IoSlice::new(text.as_bytes())], 0)
    };
    write().map_err(|e| StorageError::new("write", &path, e))
}

/// The directory of a partition: `topic-partition`.
pub fn partition_dir(log_dir: &Path, topic: &str, partition: i32) -> PathBuf {
    log_dir.join(format!("{topic}-{partition}"))
}

/// What a partition's directory is renamed to when its topic is deleted; `unique` is a fresh random id.
pub fn deleted_partition_dir(
    log_dir: &Path,
    topic: &str,
    partition: i32,
    unique: uuid::Uuid,
) -> PathBuf {
    capped(log_dir, topic, &format!("-{partition}.{}-delete", unique.simple()))
}

/// What a partition's directory is renamed to that belongs to no topic of the cluster; `unique` is a fresh random id.
pub fn stray_partition_dir(
    log_dir: &Path,
    topic: &str,
    partition: i32,
    unique: uuid::Uuid,
) -> PathBuf {
    capped(log_dir, topic, &format!("-{partition}.{}{STRAY_SUFFIX}", unique.simple()))
}

/// A file name has at most 255 bytes: so much of the topic's is left out.
fn capped(log_dir: &Path, topic: &str, suffix: &str) -> PathBuf {
    let topic = topic.get(..255 - suffix.len()).unwrap_or(topic);
    log_dir.join(format!("{topic}{suffix}"))
}

/// Where a copy of a partition is made that moves to this log directory; `unique` is a fresh random id.
pub fn future_partition_dir(
    log_dir: &Path,
    topic: &str,
    partition: i32,
    unique: uuid::Uuid,
) -> PathBuf {
    log_dir.join(format!("{topic}-{partition}.{}{FUTURE_SUFFIX}", unique.simple()))
}

/// Topic and partition of the name of a copy's directory.
pub fn parse_future_dir(name: &str) -> Option<PartitionKey> {
    let (partition_dir, _unique) = name.strip_suffix(FUTURE_SUFFIX)?.rsplit_once('.')?;
    parse_partition_dir(partition_dir)
}

/// Topic and partition of a partition's directory name; `None` for other names, `-delete`, `-future` and `-stray`
/// among them.
pub fn parse_partition_dir(name: &str) -> Option<PartitionKey> {
    if ["-delete", FUTURE_SUFFIX, STRAY_SUFFIX].iter().any(|suffix| name.ends_with(suffix)) {
        return None;
    }
    let (topic, partition) = name.rsplit_once('-')?;
    let is_number = !partition.is_empty() && partition.bytes().all(|b| b.is_ascii_digit());
    if topic.is_empty() || !is_number {
        return None;
    }
    Some((topic.to_owned(), partition.parse().ok()?))
}
