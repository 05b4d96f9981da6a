//! Reading what does not lie in memory, for a consumer that is far behind: on threads that may wait for the device, few
//! at a time, a bounded piece ahead, and with the pages behind it let go, so that live producers and consumers keep
//! the workers and the page cache.
//!
//! Invariant: only pages that this reader brought in are let go; what was in memory before stays.

#![cfg_attr(feature = "simulation", allow(dead_code, reason = "what is simulated is never cold"))]

use super::DiskFile;
use super::net::FileRegion;
use std::io;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bytes that are waited for at once, and bytes that are read ahead of them.
pub(super) const PIECE_BYTES: usize = 1024 * 1024;
/// Threads that wait for the device on behalf of readers, over all connections.
const WAITING_MAX: usize = 8;

static WAITING: Semaphore = Semaphore::const_new(WAITING_MAX);

/// Runs `read`, which may wait for the device, on a thread for that.
///
/// # Errors
/// If the runtime is shutting down.
pub async fn run<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let _permit = WAITING.acquire().await.map_err(io::Error::other)?;
    super::blocking(read).await.map_err(io::Error::other)
}

/// What a connection's reader brought in last.
#[derive(Debug, Default)]
pub(super) struct ColdReader(Option<Trail>);

#[derive(Debug)]
struct Trail {
    file: Arc<dyn DiskFile>,
    /// The last piece that was waited for.
    position: u64,
    len: usize,
    /// Up to here it was this reader that brought the pages in.
    own_end: u64,
}

impl ColdReader {
    /// Makes sure that a piece of the region lies in memory, before it is sent.
    pub(super) async fn bring_in(
        &mut self,
        region: &FileRegion,
        position: u64,
        len: usize,
    ) -> io::Result<()> {
        let end = position + len as u64;
        let is_own = self.0.as_ref().is_some_and(|trail| trail.holds(region, position, end));
        if !is_own && region.file.is_cached(position, len) {
            self.let_go();
            return Ok(());
        }
        let file = region.file.clone();
        let own_end = run(move || {
            // What lies in memory already was wanted by somebody else, and is left alone.
            let ahead = if file.is_cached(end, PIECE_BYTES) { 0 } else { PIECE_BYTES };
            file.bring_in(position, len, ahead).map(|()| end + ahead as u64)
        });
        let own_end = own_end.await??;
        self.let_go();
        self.0 = Some(Trail { file: region.file.clone(), position, len, own_end });
        Ok(())
    }

    /// Lets the last piece go: by the time that the next one is wanted it has been sent.
    pub(super) fn let_go(&mut self) {
        if let Some(trail) = self.0.take() {
            trail.file.let_go(trail.position, trail.len);
        }
    }
}

impl Trail {
    fn holds(&self, region: &FileRegion, position: u64, end: u64) -> bool {
        let is_same = std::ptr::addr_eq(Arc::as_ptr(&self.file), Arc::as_ptr(&region.file));
        is_same && position >= self.position && end <= self.own_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::faulty::{Faults, FaultyDisk};
    use crate::env::{Disk, OpenMode, RealDisk};

    const PIECE: u64 = PIECE_BYTES as u64;

    struct World {
        _dir: tempfile::TempDir,
        faults: Arc<Faults>,
        region: FileRegion,
        reader: ColdReader,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let faults = Arc::clone(&disk.faults);
        let file = disk.open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        let region = FileRegion { file, position: 0, len: 1, is_recent: false };
        World { _dir: dir, faults, region, reader: ColdReader::default() }
    }

    impl World {
        async fn wants(&mut self, position: u64) -> usize {
            self.reader.bring_in(&self.region, position, PIECE_BYTES).await.unwrap();
            self.faults.syncs_begun()
        }
    }

    #[tokio::test]
    async fn what_lies_in_memory_is_left_alone() {
        let mut world = world();
        assert_eq!((world.wants(0).await, world.wants(PIECE).await), (0, 0));
    }

    #[tokio::test]
    async fn a_sequential_reader_reads_one_piece_ahead_and_lets_go_behind_it() {
        let mut world = world();
        world.faults.empty_memory();
        for n in 0..5 {
            assert_eq!(world.wants(n * PIECE).await, n as usize + 1);
            assert!(world.region.file.is_cached(n * PIECE, PIECE_BYTES * 2));
            assert_eq!(world.faults.regions_in_memory(), 1, "only the piece and the one after it");
        }
    }

    #[tokio::test]
    async fn pages_of_others_stay() {
        let mut world = world();
        world.faults.empty_memory();
        // Another reader has brought in the second piece and the third.
        world.region.file.bring_in(PIECE, PIECE_BYTES, PIECE_BYTES).unwrap();
        assert_eq!((world.wants(0).await, world.wants(PIECE).await), (2, 2));
        assert_eq!(world.wants(2 * PIECE).await, 2);
        assert!(world.region.file.is_cached(PIECE, 2 * PIECE_BYTES));
        assert!(!world.region.file.is_cached(0, 1), "the reader's own piece went");
    }

    #[test]
    fn the_real_file_reads_from_memory_what_was_brought_in() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        file.write_all_at(&[io::IoSlice::new(&bytes)], 0).unwrap();
        file.sync().unwrap();
        let mut read = vec![0; 1000];
        for position in [0, 4095, 299_000] {
            file.let_go(0, bytes.len());
            match file.read_exact_at_cached(&mut read, position) {
                Ok(()) => {}
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            file.bring_in(position, 1000, 0).unwrap();
            assert!(file.is_cached(position, 1000));
            file.read_exact_at_cached(&mut read, position).unwrap();
            assert_eq!(read, bytes[position as usize..][..1000]);
        }
        let beyond = file.read_exact_at_cached(&mut read, 299_500);
        assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
