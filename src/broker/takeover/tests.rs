//! What is continued, what is refused, and that a refusal changes no byte.

use super::super::start::StartError;
use super::super::tests::{Lone, files, quorum_params, settings};
use super::super::{Broker, Image, Settings};
use super::TakeoverError;
use crate::env::{Disk, RealDisk, SystemClock};
use crate::log::checkpoint::PARTITION_METADATA;
use ottla_protocol::MetadataRecord;
use ottla_protocol::metadata::FeatureLevelRecord;
use std::path::Path;
use std::sync::Arc;

async fn start(settings: Settings) -> Result<Arc<Broker>, StartError> {
    Broker::start(settings, Arc::new(RealDisk), Arc::new(SystemClock)).await
}

/// A stopped broker's directory whose metadata log then finalized `feature` at `level`.
async fn directory_with(dir: &Path, feature: &str, level: i16) {
    start(settings(&[dir])).await.unwrap().stop().await;
    let settings = settings(&[dir]);
    let lone = Lone::open(quorum_params(&settings)).await;
    let record = FeatureLevelRecord { name: feature.to_owned(), feature_level: level };
    lone.append(&[MetadataRecord::FeatureLevel(record)]).await;
    lone.quorum.close().await.unwrap();
}

#[tokio::test]
async fn levels_of_a_later_kafka_are_served_as_found() {
    for (feature, level) in [("metadata.version", 33), ("share.version", 2)] {
        let dir = tempfile::tempdir().unwrap();
        directory_with(dir.path(), feature, level).await;
        let broker = start(settings(&[dir.path()])).await.unwrap();
        let image: Arc<Image> = broker.image();
        assert_eq!(image.features.level(feature), level);
        broker.stop().await;
    }
}

#[tokio::test]
async fn a_level_that_does_not_exist_here_is_refused_and_nothing_is_changed() {
    for (feature, level) in [("metadata.version", 34), ("share.version", 3), ("made.up", 1)] {
        let dir = tempfile::tempdir().unwrap();
        directory_with(dir.path(), feature, level).await;
        let before = files(dir.path());
        let error = start(settings(&[dir.path()])).await.unwrap_err();
        let StartError::Takeover(TakeoverError::Feature { name, level: found, .. }) = &error else {
            panic!("{error}");
        };
        assert_eq!((name.as_str(), *found), (feature, level));
        assert!(error.to_string().contains("nothing was changed"), "{error}");
        assert_eq!(files(dir.path()), before);
    }
}

#[tokio::test]
async fn partitions_without_a_metadata_log_are_refused_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let partition = dir.path().join("orders-0");
    RealDisk.create_dir_all(&partition).unwrap();
    RealDisk.write_atomic(&partition.join(PARTITION_METADATA), b"version: 0\n").unwrap();
    RealDisk
        .write_atomic(&dir.path().join("meta.properties"), b"version=0\nbroker.id=1\n")
        .unwrap();
    let before = files(dir.path());
    let error = start(settings(&[dir.path()])).await.unwrap_err();
    let StartError::Takeover(TakeoverError::NoMetadata { partition: found, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(*found, partition);
    assert_eq!(files(dir.path()), before);
}
