use super::*;
use crate::env::{RealDisk, SystemClock};
use crate::machines::metadata::bootstrap_records;

/// A broker that is restarted often must write snapshots too.
#[test]
fn what_the_log_holds_counts_towards_the_next_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let settings = crate::broker::tests::settings(&[dir.path()]);
    let open = || {
        let params = QuorumParams {
            disk: Arc::new(RealDisk),
            health: Arc::default(),
            clock: Arc::new(SystemClock),
            dir: dir.path().to_owned(),
            node_id: BrokerId(1),
            log: Arc::default(),
            snapshot_bytes: 1,
        };
        Quorum::open(params, &mut Controller::new(settings.controller.clone())).unwrap()
    };
    let quorum = open();
    quorum.elect().unwrap();
    quorum.append(Timestamp(1), &bootstrap_records(1)).unwrap();
    let written = quorum.owned.lock().bytes_since_snapshot;
    quorum.close().unwrap();
    assert!(written > 0);
    assert_eq!(open().owned.lock().bytes_since_snapshot, written);
}
