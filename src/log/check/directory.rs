//! The log directories: what lies in them, their own files, then partition by partition.

use super::finding::{Finding, Kind};
use super::metadata;
use super::partition::{Bounds, Looked, PartitionCheck};
use super::{CheckError, CheckReport, Step};
use crate::env::Disk;
use crate::env::disk::DirEntry;
use crate::log::checkpoint::{
    self, CLEAN_SHUTDOWN, CLEANER_OFFSETS, HIGH_WATERMARKS, LOG_START_OFFSETS, META_PROPERTIES,
    MetaProperties, PartitionKey, RECOVERY_POINTS,
};
use crate::log::directory::LOG_SUFFIX;
use crate::log::own_properties::OWN_PROPERTIES;
use ottla_protocol::{CLUSTER_METADATA_TOPIC, Offset, TopicId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Times that a partition is looked at while its files change under the look.
const LOOKS_MAX: usize = 3;
const LOCK_FILE: &str = ".lock";
/// Kafka keeps the records of the first start there.
const BOOTSTRAP: &str = "bootstrap.checkpoint";

/// A log directory's entries.
#[derive(Debug)]
pub(super) struct Listing {
    path: PathBuf,
    partitions: Vec<(PartitionKey, String)>,
    /// Neither partitions nor files that are known.
    others: Vec<DirEntry>,
    /// Bytes of the `.log` files.
    pub(super) bytes: u64,
}

type Checkpointed = BTreeMap<PartitionKey, Offset>;

/// What the files of a log directory say.
#[derive(Debug, Default)]
struct Promises {
    is_clean: bool,
    has_topic_ids: bool,
    recovery_points: Checkpointed,
    log_start_offsets: Checkpointed,
    high_watermarks: Checkpointed,
    cleaned: Checkpointed,
}

/// Lists a directory.
pub(super) fn list(disk: &dyn Disk, path: &Path) -> Result<Listing, CheckError> {
    let unreadable = |source| CheckError::Unreadable { path: path.to_owned(), source };
    let entries = disk.list(path).map_err(unreadable)?;
    let mut listing =
        Listing { path: path.to_owned(), partitions: Vec::new(), others: Vec::new(), bytes: 0 };
    let is_formatted = entries.iter().any(|entry| entry.name == META_PROPERTIES);
    for entry in entries {
        match checkpoint::parse_partition_dir(&entry.name).filter(|_| entry.is_dir) {
            Some(key) => {
                let inside = disk.list(&path.join(&entry.name)).unwrap_or_default();
                let logs = inside.iter().filter(|file| file.name.ends_with(LOG_SUFFIX));
                listing.bytes += logs.map(|file| file.len).sum::<u64>();
                listing.partitions.push((key, entry.name));
            }
            None => listing.others.push(entry),
        }
    }
    if !is_formatted && listing.partitions.is_empty() {
        return Err(CheckError::NoLogDirectory { path: path.to_owned() });
    }
    Ok(listing)
}

/// Checks the directories that were listed, and that they belong together.
pub(super) fn check_all(
    disk: &dyn Disk,
    listings: &[Listing],
    report: &mut CheckReport,
    watch: &mut dyn FnMut(Step<'_>),
) {
    let mut metas: Vec<(PathBuf, MetaProperties)> = Vec::new();
    let mut topics: BTreeMap<String, (TopicId, String)> = BTreeMap::new();
    for listing in listings {
        let meta = check_meta(disk, listing, &metas, report);
        let has_topic_ids = meta.as_ref().is_none_or(|meta| meta.version > 0);
        metas.extend(meta.map(|meta| (listing.path.clone(), meta)));
        check_others(disk, listing, report);
        let promises = promises(disk, listing, has_topic_ids, Some(report));
        for (key, name) in &listing.partitions {
            let dir = listing.path.join(name);
            watch(Step::Partition(&dir));
            let looked = look(disk, listing, &dir, key, &promises, watch);
            report.counts.partitions += looked.counts.partitions;
            report.counts.segments += looked.counts.segments;
            report.counts.batches += looked.counts.batches;
            report.counts.bytes += looked.counts.bytes;
            report.findings.append(looked.findings);
            let Some(id) = looked.topic_id else { continue };
            let (first, of) = topics.entry(key.0.clone()).or_insert_with(|| (id, name.clone()));
            if *first != id {
                let what = format!("its topic id differs from that of {of}");
                let path = dir.join(checkpoint::PARTITION_METADATA);
                report.findings.push(Finding::new(Kind::PartitionMetadata, &path, what));
            }
        }
    }
}

/// Looks at a partition; again where it seemed damaged while a broker was changing its files.
fn look(
    disk: &dyn Disk,
    listing: &Listing,
    dir: &Path,
    key: &PartitionKey,
    promises: &Promises,
    watch: &mut dyn FnMut(Step<'_>),
) -> Looked {
    let mut again: Option<Promises> = None;
    let mut looks = 0;
    loop {
        let entries = match disk.list(dir) {
            Ok(entries) => entries,
            // The partition was deleted since.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Looked::default(),
            Err(e) => {
                let mut looked = Looked::default();
                looked.findings.push(Finding::new(Kind::Unreadable, dir, e.to_string()));
                return looked;
            }
        };
        let bounds = again.as_ref().unwrap_or(promises).bounds(key);
        let mut check = PartitionCheck::new(disk, dir, bounds);
        if looks == 0 {
            check.run(&entries, watch);
        } else {
            check.run(&entries, &mut |_| {});
        }
        looks += 1;
        let is_same = disk.list(dir).is_ok_and(|now| now == entries);
        if check.looked.findings.problems() == 0 || is_same || looks == LOOKS_MAX {
            return check.looked;
        }
        again = Some(self::promises(disk, listing, promises.has_topic_ids, None));
    }
}

impl Promises {
    fn bounds(&self, key: &PartitionKey) -> Bounds {
        // Kafka recovers the metadata log at every start and keeps no checkpoint of it.
        let is_metadata_log = key.0 == CLUSTER_METADATA_TOPIC;
        let is_clean = self.is_clean && !is_metadata_log;
        let recovery_point = self.recovery_points.get(key).copied();
        Bounds {
            settled: if is_clean { Offset(i64::MAX) } else { recovery_point.unwrap_or(Offset(0)) },
            is_clean,
            recovery_point,
            log_start_offset: self.log_start_offsets.get(key).copied(),
            high_watermark: self.high_watermarks.get(key).copied(),
            cleaned: self.cleaned.get(key).copied(),
            is_metadata_log,
            has_topic_ids: self.has_topic_ids,
        }
    }
}

/// Reads the directory's checkpoints; `report` is told what is wrong with them.
fn promises(
    disk: &dyn Disk,
    listing: &Listing,
    has_topic_ids: bool,
    mut report: Option<&mut CheckReport>,
) -> Promises {
    let mut read = |name: &str| match checkpoint::read_offsets(disk, &listing.path, name) {
        Ok(offsets) => {
            let is_known = |key: &PartitionKey| listing.partitions.iter().any(|(k, _)| k == key);
            for key in offsets.keys().filter(|key| !is_known(key)) {
                if let Some(report) = report.as_deref_mut() {
                    let what = format!("partition {}-{} is not in this directory", key.0, key.1);
                    let path = listing.path.join(name);
                    report.findings.push(Finding::new(Kind::CheckpointStale, &path, what));
                }
            }
            offsets
        }
        Err(error) => {
            if let Some(report) = report.as_deref_mut() {
                let path = listing.path.join(name);
                report.findings.push(Finding::new(Kind::Checkpoint, &path, cause(&error)));
            }
            Checkpointed::new()
        }
    };
    Promises {
        recovery_points: read(RECOVERY_POINTS),
        log_start_offsets: read(LOG_START_OFFSETS),
        high_watermarks: read(HIGH_WATERMARKS),
        cleaned: read(CLEANER_OFFSETS),
        is_clean: matches!(checkpoint::read_clean_shutdown(disk, &listing.path), Ok(Some(_))),
        has_topic_ids,
    }
}

/// What is wrong with a file, without its path.
fn cause(error: &crate::log::RecoveryError) -> String {
    match error {
        crate::log::RecoveryError::Invalid { cause, .. } => cause.clone(),
        error => error.to_string(),
    }
}

fn check_meta(
    disk: &dyn Disk,
    listing: &Listing,
    others: &[(PathBuf, MetaProperties)],
    report: &mut CheckReport,
) -> Option<MetaProperties> {
    let path = listing.path.join(META_PROPERTIES);
    let mut wrong =
        |what: String| report.findings.push(Finding::new(Kind::MetaProperties, &path, what));
    let meta = match checkpoint::read_meta_properties(disk, &listing.path) {
        Ok(Some(meta)) => meta,
        Ok(None) => {
            wrong("the file is missing".to_owned());
            return None;
        }
        Err(error) => {
            wrong(cause(&error));
            return None;
        }
    };
    if !(0..=1).contains(&meta.version) {
        wrong(format!("version {} is not known", meta.version));
    }
    if meta.node_id.is_none() {
        wrong("it has no node.id".to_owned());
    }
    if meta.cluster_id.is_none() && meta.version == 1 {
        wrong("it has no cluster.id".to_owned());
    }
    for (of, other) in others {
        let of = of.display();
        if other.node_id != meta.node_id || other.cluster_id != meta.cluster_id {
            wrong(format!("it names another node or cluster than {of}"));
        }
        if other.directory_id.is_some() && other.directory_id == meta.directory_id {
            wrong(format!("it has the directory.id of {of}"));
        }
    }
    Some(meta)
}

/// Says what lies in the directory beside partitions and checkpoints.
fn check_others(disk: &dyn Disk, listing: &Listing, report: &mut CheckReport) {
    let known = [
        LOCK_FILE,
        OWN_PROPERTIES,
        CLEAN_SHUTDOWN,
        META_PROPERTIES,
        RECOVERY_POINTS,
        LOG_START_OFFSETS,
        HIGH_WATERMARKS,
        CLEANER_OFFSETS,
    ];
    for entry in &listing.others {
        let name = entry.name.as_str();
        let path = listing.path.join(name);
        let (kind, what) = match entry.is_dir {
            false if known.contains(&name) => continue,
            false if name == BOOTSTRAP => {
                metadata::check_snapshot(disk, &path, entry.len, &mut report.findings);
                continue;
            }
            false if name.ends_with(".tmp") => (Kind::LeftOver, "a write was under way"),
            true if name.ends_with("-delete") => (Kind::LeftOver, "a partition that was deleted"),
            true if name.ends_with("-future") => {
                (Kind::LeftOver, "a partition on its way to this directory")
            }
            true if name.ends_with("-stray") => {
                (Kind::Unknown, "a partition that the cluster did not know at a start")
            }
            true => (Kind::Unknown, "a directory that is no partition"),
            false => (Kind::Unknown, "a file that is not of a log directory"),
        };
        report.findings.push(Finding::new(kind, &path, what));
    }
}
