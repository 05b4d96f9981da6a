//! Whether a log directory takes records. Every append asks; that is one load, and one subtraction for a producer's.
//!
//! A directory is full below its reserve (`ottla.log.dir.reserve.bytes`) and after a write that found no space. Then
//! producers are refused with an error that they retry, and all else goes on: the reserve is what committed offsets,
//! metadata, checkpoints and the roll before a deletion live from. Free space is looked at by housekeeping, never by
//! a request; between two looks producers spend what the last one found above the reserve, so that it holds on a
//! volume of any size. Invariant: a directory that is offline stays so until the process ends: what its files hold is
//! known only to a recovery. Source: KIP-112.

use crate::env::disk::Space;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use tokio::sync::watch;

/// The reserve of a large volume where none is configured: room for hours of metadata and offsets, and far more than
/// what producers write between two looks.
const RESERVE_BYTES_MAX: u64 = 1 << 30;
/// The reserve of a small volume: one part in so many.
const RESERVE_SHARE: u64 = 20;
/// A full directory takes records again with its reserve and one part in so many of it free, so that it does not
/// change its mind with every deleted segment.
const RESUME_SHARE: u64 = 8;

/// What may be written into a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirState {
    /// Everything.
    Usable,
    /// Everything but producers' records.
    Full,
    /// Nothing: a write or a sync failed.
    Offline,
}

const USABLE: u8 = 0;
const FULL: u8 = 1;
const OFFLINE: u8 = 2;

/// The state of one log directory.
#[derive(Debug)]
pub struct DirHealth {
    state: AtomicU8,
    /// Bytes above the reserve that the last look found and producers have not spent since.
    room: AtomicI64,
    /// A log in it has moved its recovery point.
    is_flushed: AtomicBool,
    /// Told when a directory goes offline.
    failed: Failures,
}

/// Changes whenever one of the log directories that share it goes offline.
pub type Failures = Arc<watch::Sender<()>>;

impl Default for DirHealth {
    fn default() -> Self {
        DirHealth::new(Arc::default())
    }
}

impl DirHealth {
    /// A directory that takes everything; `failed` is told when it no longer does.
    pub fn new(failed: Failures) -> Self {
        let (state, room) = (AtomicU8::new(USABLE), AtomicI64::new(i64::MAX));
        DirHealth { state, room, is_flushed: AtomicBool::new(false), failed }
    }

    /// A log in it has moved its recovery point, and a checkpoint would save a recovery.
    pub fn note_flush(&self) {
        self.is_flushed.store(true, Ordering::Release);
    }

    /// Whether one did since this was last asked.
    pub fn take_flushed(&self) -> bool {
        self.is_flushed.swap(false, Ordering::AcqRel)
    }

    /// What may be written now.
    pub fn state(&self) -> DirState {
        match self.state.load(Ordering::Acquire) {
            USABLE => DirState::Usable,
            FULL => DirState::Full,
            _ => DirState::Offline,
        }
    }

    /// Whether producers have to wait for space.
    pub fn is_full(&self) -> bool {
        self.state() == DirState::Full
    }

    /// Whether a write or a sync failed in it.
    pub fn is_offline(&self) -> bool {
        self.state() == DirState::Offline
    }

    /// Takes it out of use for good; `true` for the first to say so.
    pub fn take_offline(&self) -> bool {
        let is_first = self.state.swap(OFFLINE, Ordering::AcqRel) != OFFLINE;
        self.failed.send_replace(());
        is_first
    }

    /// Refuses producers: a write found no space; `true` for the first to say so.
    pub fn fill(&self) -> bool {
        self.change(USABLE, FULL)
    }

    /// Takes note of `bytes` that a producer has written; `true` when they were the last there is room for.
    pub fn spend(&self, bytes: usize) -> bool {
        let bytes = bytes as i64;
        self.room.fetch_sub(bytes, Ordering::Relaxed) < bytes && self.fill()
    }

    /// Takes what housekeeping saw of the volume; the new state, where it changed.
    pub fn look(&self, space: Space, reserve: u64) -> Option<DirState> {
        let room = i64::try_from(space.available.saturating_sub(reserve)).unwrap_or(i64::MAX);
        // Without a reserve it is for a write to find out: space may be shared, and files may be sparse.
        self.room.store(if reserve == 0 { i64::MAX } else { room }, Ordering::Relaxed);
        if space.available < reserve || space.available == 0 {
            return self.change(USABLE, FULL).then_some(DirState::Full);
        }
        if space.available < reserve.saturating_add(reserve / RESUME_SHARE) {
            return None;
        }
        self.change(FULL, USABLE).then_some(DirState::Usable)
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Bytes that producers leave free; `configured` is `ottla.log.dir.reserve.bytes`, -1 for a reserve by the volume's
/// size.
pub fn reserve_bytes(configured: i64, space: Space) -> u64 {
    u64::try_from(configured).unwrap_or((space.total / RESERVE_SHARE).min(RESERVE_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn reserve_is_a_share_of_small_volumes_and_bounded_on_large_ones() {
        let reserve = |configured, total| reserve_bytes(configured, Space { total, available: 0 });
        assert_eq!(reserve(-1, 64 << 20), (64 << 20) / 20);
        assert_eq!(reserve(-1, 1000 * GIB), GIB);
        assert_eq!((reserve(0, GIB), reserve(5, GIB)), (0, 5));
    }

    #[test]
    fn full_directory_is_usable_again_only_above_its_reserve_and_offline_for_good() {
        let health = DirHealth::default();
        let look = |available| health.look(Space { total: 100, available }, 16);
        assert_eq!(look(16), None);
        assert_eq!(look(15), Some(DirState::Full));
        assert_eq!((look(15), look(17)), (None, None));
        assert_eq!(look(18), Some(DirState::Usable));
        assert!(health.fill() && !health.fill());
        assert_eq!(look(100), Some(DirState::Usable));
        assert_eq!((health.spend(84), health.state()), (false, DirState::Usable));
        assert!(health.spend(1) && !health.spend(1), "the reserve is not for producers");
        assert_eq!(look(100), Some(DirState::Usable));
        assert!(health.take_offline() && !health.take_offline());
        assert_eq!((look(100), health.fill()), (None, false));
        assert!(health.is_offline());
    }
}
