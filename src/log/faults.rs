//! Cases of disks that fail: cut at every byte, syncs and writes that fail, a full disk.

use super::tests::{Fixture, NOW, append, batch, client, idempotent, read_all};
use super::*;
use crate::env::faulty::{Faults, FaultyDisk};
use crate::env::{OpenMode, RealDisk};
use ottla_protocol::ErrorCode;
use std::io::IoSlice;

fn open_faulty(fixture: &Fixture) -> (Log, Arc<Faults>) {
    let disk = FaultyDisk::default();
    let faults = disk.faults.clone();
    let log = Log::open(LogParams { disk: Arc::new(disk), ..fixture.params() }).unwrap();
    (log, faults)
}

#[test]
fn failed_sync_takes_the_log_offline_and_moves_no_recovery_point() {
    let fixture = Fixture::new();
    let (mut log, faults) = open_faulty(&fixture);
    append(&mut log, batch(1, NOW.0)).unwrap();
    faults.fail_syncs(true);
    log.flush(NOW).unwrap_err();
    assert!(log.is_offline());
    faults.fail_syncs(false);
    assert_eq!(append(&mut log, batch(1, NOW.0)).unwrap_err(), ErrorCode::KafkaStorageError);
    log.flush(NOW).unwrap();
    assert_eq!(log.recovery_point(), Offset(0), "a failed sync is not tried again");
}

#[test]
fn full_disk_refuses_appends_and_leaves_nothing_half_written() {
    let fixture = Fixture::new();
    let (mut log, faults) = open_faulty(&fixture);
    append(&mut log, idempotent(1, 0, 0, 2)).unwrap();
    faults.fill(true);
    for _ in 0..2 {
        let refused = append(&mut log, idempotent(1, 0, 2, 2));
        assert_eq!(refused.unwrap_err(), ErrorCode::KafkaStorageError);
    }
    assert!(!log.is_offline());
    assert_eq!(read_all(&log, Offset(0)).len(), 1);
    let file = RealDisk.open(&fixture.path().join("00000000000000000000.log"), OpenMode::Read);
    assert_eq!(file.unwrap().len().unwrap(), log.size(), "what was half written is cut off");
    faults.fill(false);
    let info = append(&mut log, idempotent(1, 0, 2, 2)).unwrap();
    assert_eq!((info.first_offset, info.is_duplicate), (Offset(2), false));
    assert_eq!(read_all(&log, Offset(0)).len(), 2);
    drop(log);
    assert_eq!(fixture.open().log_end_offset(), Offset(4));
}

#[test]
fn refused_write_that_was_torn_is_cut_by_a_clean_shutdown() {
    let fixture = Fixture::new();
    let (mut log, faults) = open_faulty(&fixture);
    append(&mut log, batch(1, NOW.0)).unwrap();
    faults.fill(true);
    append(&mut log, batch(1, NOW.0)).unwrap_err();
    faults.fill(false);
    log.close(NOW).unwrap();
    let mut log = fixture.open_clean();
    assert_eq!(log.log_end_offset(), Offset(1));
    append(&mut log, batch(1, NOW.0)).unwrap();
    assert_eq!(read_all(&log, Offset(0)).len(), 2);
}

#[test]
fn full_disk_at_a_roll_leaves_the_log_as_it_was() {
    let fixture = Fixture::new();
    for extension in ["log", "snapshot", "index", "timeindex"] {
        let (mut log, faults) = open_faulty(&fixture);
        let end = log.log_end_offset();
        faults.fill_only(Some(extension));
        let mut n = 0;
        let sequence = |n: i32| idempotent(end.0 + 1, 0, n, 1);
        while append(&mut log, sequence(n)).is_ok() {
            n += 1;
            assert!(n < 100, "a segment has 600 bytes");
        }
        let state = |log: &Log| (log.segments().len(), log.size(), log.log_end_offset());
        let before = state(&log);
        append(&mut log, sequence(n)).unwrap_err();
        assert_eq!((state(&log), log.is_offline()), (before, false), "{extension}");
        faults.fill_only(None);
        let info = append(&mut log, sequence(n)).unwrap();
        assert_eq!(info.first_offset, end.plus(i64::from(n)));
        while !append(&mut log, batch(1, NOW.0)).unwrap().has_rolled {}
        let end = log.log_end_offset();
        let count = read_all(&log, Offset(0)).len();
        drop(log);
        let log = fixture.open();
        assert_eq!((log.log_end_offset(), read_all(&log, Offset(0)).len()), (end, count));
    }
}

#[test]
fn index_entries_that_find_no_space_wait_in_memory() {
    let mut fixture = Fixture::new();
    fixture.config.segment_bytes = 1 << 20;
    fixture.config.segment_index_bytes = 1 << 20;
    fixture.config.index_interval_bytes = 0;
    let (mut log, faults) = open_faulty(&fixture);
    faults.fill_only(Some("index"));
    for _ in 0..1200 {
        append(&mut log, batch(1, NOW.0)).unwrap();
    }
    assert!(log.flush(NOW).is_ok(), "the active segment's index is not part of it");
    assert_eq!(
        log.read(Offset(700), 1, MinOne::Yes, Offset(1200)).unwrap().unwrap().base_offset,
        Offset(700)
    );
    log.close(NOW).unwrap_err();
    assert!(!log.is_offline());
    faults.fill_only(None);
    log.close(NOW).unwrap();
    assert_eq!(read_all(&fixture.open_clean(), Offset(0)).len(), 1200);
}

#[test]
fn full_disk_lets_retention_delete_all_but_the_active_segment() {
    let mut fixture = Fixture::new();
    fixture.config.retention_ms = 1;
    let (mut log, faults) = open_faulty(&fixture);
    while log.segments().len() < 3 {
        append(&mut log, batch(1, NOW.0)).unwrap();
    }
    faults.fill(true);
    let end = log.log_end_offset();
    assert_eq!(log.apply_retention(NOW.plus_ms(1000), end).unwrap().len(), 2);
    assert!(log.apply_retention(NOW.plus_ms(1000), end).unwrap_err().is_storage_full());
    assert!(!log.is_offline());
    faults.fill(false);
    assert_eq!(log.apply_retention(NOW.plus_ms(1000), end).unwrap().len(), 1);
}

#[test]
fn cut_at_every_byte_leaves_the_whole_batches_before() {
    let mut fixture = Fixture::new();
    fixture.config.segment_bytes = 1 << 20;
    let mut log = fixture.open();
    let mut ends = vec![0u64];
    for n in 0..3 {
        log.append_as_leader(idempotent(1, 0, n * 2, 2), client()).unwrap();
        ends.push(log.size());
    }
    drop(log);
    let path = fixture.path().join("00000000000000000000.log");
    let whole = RealDisk.read(&path).unwrap();
    for cut in 0..=whole.len() {
        for tail in [&[][..], &[0; 100][..], &[0xff; 7][..]] {
            let bytes = [&whole[..cut], tail].concat();
            let file = RealDisk.open(&path, OpenMode::ReadWrite).unwrap();
            file.set_len(0).unwrap();
            file.write_all_at(&[IoSlice::new(&bytes)], 0).unwrap();
            let log = fixture.open();
            // The tail may happen to be what was cut: batches end with a zero.
            let same = bytes.iter().zip(&whole).take_while(|(a, b)| a == b).count();
            let batches = ends.partition_point(|end| *end <= same as u64) - 1;
            assert_eq!(log.log_end_offset(), Offset(batches as i64 * 2), "cut at {cut}");
            assert_eq!(read_all(&log, Offset(0)).len(), batches);
            let is_cut = bytes.len() as u64 > ends[batches];
            assert_eq!(log.recovery_report().cuts.len(), usize::from(is_cut), "cut at {cut}");
            drop(log);
            for name in fixture.files().iter().filter(|name| name.ends_with(".snapshot")) {
                RealDisk.remove_file(&fixture.path().join(name)).unwrap();
            }
        }
    }
}

#[test]
fn flipped_bit_ends_the_log_before_its_batch_and_drops_later_segments() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    for n in 0..20 {
        append(&mut log, batch(2, NOW.0 + n)).unwrap();
    }
    let bases: Vec<Offset> = log.segments().map(|segment| segment.base_offset).collect();
    drop(log);
    let path = fixture.path().join(format!("{:020}.log", bases[1].0));
    let mut bytes = RealDisk.read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    RealDisk.write_atomic(&path, &bytes).unwrap();
    let log = fixture.open();
    assert!(log.log_end_offset() > bases[1] && log.log_end_offset() < bases[2]);
    assert_eq!(log.recovery_report().deleted.len(), bases.len() - 2);
    let cut = &log.recovery_report().cuts[0];
    assert_eq!((&cut.path, cut.offset), (&path, log.log_end_offset()));
}
