//! Cases of disks that fail: cut at every byte, syncs and writes that fail, a full disk.

use super::tests::{Fixture, NOW, append, batch, client, idempotent, read_all};
use super::*;
use crate::env::disk::{DirEntry, LockError, LockGuard, Space};
use crate::env::{DiskFile, OpenMode, RealDisk};
use ottla_protocol::ErrorCode;
use rustix::fd::BorrowedFd;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};

/// Which operations fail from now on.
#[derive(Debug, Default)]
struct Faults {
    sync: AtomicBool,
    full: AtomicBool,
}

#[derive(Debug, Clone, Default)]
struct FaultyDisk {
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn write_all_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        if self.faults.full.load(Ordering::Relaxed) {
            // A full disk takes some of it.
            self.file.write_all_at(&slices[..1], position)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(slices, position)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.faults.sync.load(Ordering::Relaxed) {
            return Err(io::Error::other("sync failed"));
        }
        self.file.sync()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path, mode)?;
        Ok(Arc::new(FaultyFile { file, faults: self.faults.clone() }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }

    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        RealDisk.write_atomic(path, bytes)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        RealDisk.exists(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }

    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        RealDisk.lock(path)
    }

    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        RealDisk.modified_ms(path)
    }

    fn set_modified_ms(&self, path: &Path, ms: i64) -> io::Result<()> {
        RealDisk.set_modified_ms(path, ms)
    }
}

fn open_faulty(fixture: &Fixture) -> (Log, Arc<Faults>) {
    let disk = FaultyDisk::default();
    let faults = disk.faults.clone();
    let log = Log::open(LogParams { disk: Arc::new(disk), ..fixture.params() }).unwrap();
    (log, faults)
}

#[test]
fn failed_sync_takes_the_log_offline_and_moves_no_recovery_point() {
    let mut fixture = Fixture::new();
    fixture.config.flush_messages = 2;
    let (mut log, faults) = open_faulty(&fixture);
    append(&mut log, batch(1, NOW.0)).unwrap();
    faults.sync.store(true, Ordering::Relaxed);
    let refused = append(&mut log, batch(1, NOW.0));
    assert_eq!(refused.unwrap_err(), ErrorCode::KafkaStorageError);
    assert!(log.is_offline());
    faults.sync.store(false, Ordering::Relaxed);
    assert_eq!(append(&mut log, batch(1, NOW.0)).unwrap_err(), ErrorCode::KafkaStorageError);
    log.flush(NOW).unwrap();
    assert_eq!(log.recovery_point(), Offset(0), "a failed sync is not tried again");
}

#[test]
fn full_disk_refuses_appends_and_leaves_nothing_half_written() {
    let fixture = Fixture::new();
    let (mut log, faults) = open_faulty(&fixture);
    append(&mut log, idempotent(1, 0, 0, 2)).unwrap();
    faults.full.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let refused = append(&mut log, idempotent(1, 0, 2, 2));
        assert_eq!(refused.unwrap_err(), ErrorCode::KafkaStorageError);
    }
    assert!(!log.is_offline());
    assert_eq!(read_all(&log, Offset(0)).len(), 1);
    faults.full.store(false, Ordering::Relaxed);
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
    faults.full.store(true, Ordering::Relaxed);
    append(&mut log, batch(1, NOW.0)).unwrap_err();
    faults.full.store(false, Ordering::Relaxed);
    log.close(NOW).unwrap();
    let mut log = fixture.open_clean();
    assert_eq!(log.log_end_offset(), Offset(1));
    append(&mut log, batch(1, NOW.0)).unwrap();
    assert_eq!(read_all(&log, Offset(0)).len(), 2);
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
