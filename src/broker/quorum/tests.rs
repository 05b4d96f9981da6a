use super::*;
use crate::broker::Settings;
use crate::broker::tests::{quorum_params, settings as settings_of};
use crate::env::RealDisk;
use crate::machines::metadata::bootstrap_records;
use ottla_protocol::messages::{KRaftVersionRecord, VotersRecord, voters_record};

/// Opens the metadata log so that every record makes a snapshot due.
fn open(settings: &Settings, controller: &mut Controller) -> Quorum {
    let params = QuorumParams { snapshot_bytes: 1, ..quorum_params(settings) };
    Quorum::open(params, controller).unwrap()
}

/// A broker that is restarted often must write snapshots too.
#[test]
fn what_the_log_holds_counts_towards_the_next_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings_of(&[dir.path()]);
    let open = || open(&settings, &mut Controller::new(settings.controller.clone()));
    let quorum = open();
    quorum.elect().unwrap();
    quorum.append(Timestamp(1), &bootstrap_records(1)).unwrap();
    let written = quorum.owned.lock().bytes_since_snapshot;
    quorum.close().unwrap();
    assert!(written > 0);
    assert_eq!(open().owned.lock().bytes_since_snapshot, written);
}

/// A directory that was formatted with a dynamic quorum has its voters in control records alone.
#[test]
fn a_snapshot_repeats_the_voters_of_the_log_that_goes() {
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

    let mut controller = Controller::new(settings.controller.clone());
    let quorum = open(&settings, &mut controller);
    quorum.elect().unwrap();
    let records = bootstrap_records(1);
    let base = quorum.append(Timestamp(1), &records).unwrap();
    for (n, record) in records.into_iter().enumerate() {
        let offset = base.plus(n as i64);
        controller.replay(&Entry { offset, timestamp: Timestamp(1), record });
    }
    let written = quorum.snapshot_if_due(controller.image()).unwrap().expect("a snapshot");
    assert!(written > id);
    quorum.close().unwrap();
    let again = open(&settings, &mut Controller::new(settings.controller.clone()));
    assert_eq!(again.owned.lock().snapshot, Some(written));
    assert_eq!(again.owned.lock().voters, formatted);
}
