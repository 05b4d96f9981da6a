use super::*;
use crate::broker::Settings;
use crate::broker::snapshots::{self, SnapshotId};
use crate::broker::tests::{Lone, quorum_params, settings as settings_of};
use crate::env::RealDisk;
use crate::machines::metadata::bootstrap_records;
use ottla_protocol::messages::{KRaftVersionRecord, VotersRecord, voters_record};
use ottla_protocol::records::control::ControlRecord;

fn params(settings: &Settings, snapshot_bytes: u64) -> QuorumParams {
    QuorumParams { snapshot_bytes, ..quorum_params(settings) }
}

/// A broker that is restarted often must write snapshots too.
#[tokio::test]
async fn what_the_log_holds_counts_towards_the_next_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings_of(&[dir.path()]);
    let params = params(&settings, u64::MAX);
    let lone = Lone::open(params.clone()).await;
    lone.append(&bootstrap_records(1)).await;
    let written = lone.quorum.shared.applied.lock().bytes_since_snapshot;
    lone.quorum.close().await.unwrap();
    assert!(written > 0);
    let again = Lone::open(params).await;
    assert!(again.quorum.shared.applied.lock().bytes_since_snapshot > written);
    again.quorum.close().await.unwrap();
}

/// A directory that was formatted with a dynamic quorum has its voters in control records alone.
#[tokio::test]
async fn a_snapshot_repeats_the_voters_of_the_log_that_goes() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings_of(&[dir.path()]);
    let metadata = dir.path().join(METADATA_DIR);
    RealDisk.create_dir_all(&metadata).unwrap();
    let mut formatted = VoterRecords::default();
    for record in [
        ControlRecord::KRaftVersion(KRaftVersionRecord { version: 0, k_raft_version: 1 }),
        ControlRecord::Voters(VotersRecord {
            version: 0,
            voters: vec![voters_record::Voter { voter_id: 1, ..Default::default() }],
        }),
    ] {
        formatted.0.insert(record.type_id(), record);
    }
    let id = SnapshotId { end_offset: Offset(0), epoch: LeaderEpoch(0) };
    let image = Image::default();
    snapshots::write(&RealDisk, &metadata, id, &image, &formatted, Timestamp(1)).unwrap();

    // Every record makes a snapshot due.
    let lone = Lone::open(params(&settings, 1)).await;
    lone.append(&bootstrap_records(1)).await;
    lone.quorum.close().await.unwrap();
    let (written, _) = lone.quorum.shared.log.snapshot().expect("a snapshot");
    assert!(written > id);
    let again = Quorum::open(params(&settings, 1)).unwrap();
    assert_eq!(again.shared.log.snapshot().map(|(id, _)| id), Some(written));
    assert_eq!(*again.shared.applied.lock().voters(), formatted);
}

mod cluster;
mod world;
