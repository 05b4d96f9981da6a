//! Features, their levels and what the finalized `metadata.version` asks of records.
//!
//! Source: KIP-584, KIP-778, KIP-1022 and the tables of Apache Kafka 4.3.1.

use super::image::VersionRange;
use ottla_protocol::MetadataRecord;
use ottla_protocol::metadata::{BrokerRegistrationChangeRecord, ConfigRecord, FeatureLevelRecord};

/// `metadata.version`.
pub const METADATA_VERSION: &str = "metadata.version";
/// `kraft.version`: kept in control records of the metadata log, not in feature records.
pub const KRAFT_VERSION: &str = "kraft.version";
/// `eligible.leader.replicas.version` (KIP-966).
pub const ELR_VERSION: &str = "eligible.leader.replicas.version";
/// `group.version`: 1 is the consumer protocol (KIP-848).
pub const GROUP_VERSION: &str = "group.version";
/// `transaction.version`: 2 is KIP-890.
pub const TRANSACTION_VERSION: &str = "transaction.version";
/// `share.version`: 1 is share groups (KIP-932).
pub const SHARE_VERSION: &str = "share.version";
/// `streams.version`: 1 is the streams protocol (KIP-1071).
pub const STREAMS_VERSION: &str = "streams.version";

/// A feature with the range that this broker supports and the level that a new cluster gets.
#[derive(Debug, Clone, Copy)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Supported levels; the lowest is 0 for features that may be off.
    pub range: VersionRange,
    /// The level after formatting.
    pub initial: i16,
}

impl Feature {
    /// The supported range beside a finalized level. A directory on which Apache Kafka 4.4.0 ran may have levels that
    /// 4.3.1 does not know; they are served as they are found, while new clusters and upgrades stay with 4.3.1.
    pub fn range_at(&self, finalized: i16) -> VersionRange {
        let found = FOUND.iter().find(|(name, _)| *name == self.name).map(|(_, max)| *max);
        match found.filter(|max| (self.range.max..=*max).contains(&finalized)) {
            Some(_) => VersionRange { min: self.range.min, max: finalized },
            None => self.range,
        }
    }
}

const fn feature(name: &'static str, min: i16, max: i16, initial: i16) -> Feature {
    Feature { name, range: VersionRange { min, max }, initial }
}

/// All features of Kafka 4.3.1, in the order of its bootstrap records, `kraft.version` last.
pub const FEATURES: [Feature; 7] = [
    feature(METADATA_VERSION, 7, 30, 30),
    feature(ELR_VERSION, 0, 1, 1),
    feature(GROUP_VERSION, 0, 1, 1),
    feature(SHARE_VERSION, 0, 1, 1),
    feature(STREAMS_VERSION, 0, 1, 1),
    feature(TRANSACTION_VERSION, 0, 2, 2),
    feature(KRAFT_VERSION, 0, 1, 0),
];

/// Levels of Kafka 4.4.0 that need nothing of a broker which does not serve share groups: 31 and 32 of
/// `metadata.version` change no record (an ACL's host may be a range of addresses), 33 brings the record that takes a
/// controller out, which the Image knows; 2 of `share.version` is dead letters (KIP-1191).
const FOUND: [(&str, i16); 2] = [(METADATA_VERSION, 33), (SHARE_VERSION, 2)];

/// A feature by its name.
pub fn find_feature(name: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|feature| feature.name == name)
}

/// A level of `metadata.version`.
#[derive(Debug, Clone, Copy)]
pub struct MetadataVersion {
    /// The level.
    pub level: i16,
    /// Kafka's name of it.
    pub name: &'static str,
    /// Whether records changed with it, so that going below it would lose something.
    pub changed_records: bool,
}

const fn version(level: i16, name: &'static str, changed_records: bool) -> MetadataVersion {
    MetadataVersion { level, name, changed_records }
}

/// Every `metadata.version` that is supported or may be found, ascending.
pub const METADATA_VERSIONS: [MetadataVersion; 27] = [
    version(7, "3.3-IV3", true),
    version(8, "3.4-IV0", true),
    version(9, "3.5-IV0", false),
    version(10, "3.5-IV1", false),
    version(11, "3.5-IV2", true),
    version(12, "3.6-IV0", false),
    version(13, "3.6-IV1", true),
    version(14, "3.6-IV2", true),
    version(15, "3.7-IV0", true),
    version(16, "3.7-IV1", false),
    version(17, "3.7-IV2", true),
    version(18, "3.7-IV3", false),
    version(19, "3.7-IV4", false),
    version(20, "3.8-IV0", false),
    version(21, "3.9-IV0", false),
    version(22, "4.0-IV0", false),
    version(23, "4.0-IV1", true),
    version(24, "4.0-IV2", false),
    version(25, "4.0-IV3", false),
    version(26, "4.1-IV0", false),
    version(27, "4.1-IV1", false),
    version(28, "4.2-IV0", false),
    version(29, "4.2-IV1", false),
    version(30, "4.3-IV0", true),
    version(31, "4.4-IV0", false),
    version(32, "4.4-IV1", true),
    version(33, "4.4-IV2", true),
];

/// Kafka's name of a level of `metadata.version`.
pub fn metadata_version_name(level: i16) -> Option<&'static str> {
    METADATA_VERSIONS.iter().find(|version| version.level == level).map(|version| version.name)
}

const MIGRATION_SUPPORTED: i16 = 8;
const DIRECTORY_ASSIGNMENT_SUPPORTED: i16 = 17;
const ELR_SUPPORTED: i16 = 23;
const CORDONED_LOG_DIRS_SUPPORTED: i16 = 30;

/// Whether brokers may cordon log directories at this level of `metadata.version` (KIP-1066).
pub fn can_cordon(metadata_version: i16) -> bool {
    metadata_version >= CORDONED_LOG_DIRS_SUPPORTED
}

/// Whether the metadata say at this level of `metadata.version` which log directory each replica is in (KIP-858).
pub fn can_assign_directories(metadata_version: i16) -> bool {
    metadata_version >= DIRECTORY_ASSIGNMENT_SUPPORTED
}

/// The version in which a record is written while `metadata_version` is finalized.
pub fn record_version(record: &MetadataRecord, metadata_version: i16) -> i16 {
    match record {
        MetadataRecord::Partition(_) | MetadataRecord::PartitionChange(_) => {
            if metadata_version >= ELR_SUPPORTED {
                2
            } else {
                i16::from(metadata_version >= DIRECTORY_ASSIGNMENT_SUPPORTED)
            }
        }
        MetadataRecord::RegisterBroker(_) => match metadata_version {
            CORDONED_LOG_DIRS_SUPPORTED.. => 4,
            DIRECTORY_ASSIGNMENT_SUPPORTED.. => 3,
            MIGRATION_SUPPORTED.. => 2,
            _ => 1,
        },
        MetadataRecord::BrokerRegistrationChange(change) => change_version(change),
        _ => 0,
    }
}

/// Kafka writes the lowest version that can say what changed.
fn change_version(change: &BrokerRegistrationChangeRecord) -> i16 {
    if change.cordoned_log_dirs.is_some() {
        3
    } else if !change.log_dirs.is_empty() {
        2
    } else {
        i16::from(change.in_controlled_shutdown != 0)
    }
}

/// The first records of a new cluster: what formatting decides, without the transaction around
/// them.
pub fn bootstrap_records(min_insync_replicas: i32) -> Vec<MetadataRecord> {
    first_records(formatted_features(), min_insync_replicas)
}

/// The same where somebody has formatted the directory and chosen `formatted`.
pub fn first_records(
    mut formatted: Vec<MetadataRecord>,
    min_insync_replicas: i32,
) -> Vec<MetadataRecord> {
    let is_elr = |record: &MetadataRecord| match record {
        MetadataRecord::FeatureLevel(level) => level.name == ELR_VERSION && level.feature_level > 0,
        _ => false,
    };
    // With KIP-966 the minimum is a property of the cluster, so it goes where all brokers see it.
    if formatted.iter().any(is_elr) {
        formatted.push(MetadataRecord::Config(ConfigRecord {
            resource_type: 4,
            resource_name: String::new(),
            name: "min.insync.replicas".into(),
            value: Some(min_insync_replicas.to_string()),
        }));
    }
    formatted
}

/// The records of `bootstrap.checkpoint`: the features alone.
pub fn formatted_features() -> Vec<MetadataRecord> {
    feature_records(initial_levels())
}

/// The levels of a new cluster, `kraft.version` aside.
pub fn initial_levels() -> Vec<(&'static str, i16)> {
    let all = FEATURES.iter().filter(|feature| feature.name != KRAFT_VERSION);
    all.map(|feature| (feature.name, feature.initial)).collect()
}

/// Records of those levels that are not off.
pub fn feature_records(levels: Vec<(&'static str, i16)>) -> Vec<MetadataRecord> {
    let on = levels.into_iter().filter(|(_, level)| *level > 0);
    on.map(|(name, feature_level)| {
        let name = name.to_owned();
        MetadataRecord::FeatureLevel(FeatureLevelRecord { name, feature_level })
    })
    .collect()
}

/// From which `metadata.version` on a new cluster has a feature on; Kafka's `version-mapping`.
const ON_SINCE: [(&str, i16); 5] = [
    (ELR_VERSION, 26),
    (GROUP_VERSION, 22),
    (SHARE_VERSION, 28),
    (STREAMS_VERSION, 29),
    (TRANSACTION_VERSION, 24),
];

/// The levels that a cluster formatted for this `metadata.version` gets, `kraft.version` aside.
pub fn levels_at(metadata_version: i16) -> Vec<(&'static str, i16)> {
    let level = |(name, initial): (&'static str, i16)| {
        let since = ON_SINCE.iter().find(|(feature, _)| *feature == name).map_or(0, |it| it.1);
        match name {
            METADATA_VERSION => (name, metadata_version),
            _ if metadata_version >= since => (name, initial),
            _ => (name, 0),
        }
    };
    initial_levels().into_iter().map(level).collect()
}

/// The level of `metadata.version` that a release has, or that is named itself: `4.1`, `4.1-IV0`.
pub fn metadata_version_of(release: &str) -> Option<i16> {
    let highest = find_feature(METADATA_VERSION)?.range.max;
    let is_it = |version: &&MetadataVersion| {
        let of_release = version.name.split_once('-').is_some_and(|(of, _)| of == release);
        version.level <= highest && (version.name == release || of_release)
    };
    METADATA_VERSIONS.iter().rev().find(is_it).map(|version| version.level)
}
