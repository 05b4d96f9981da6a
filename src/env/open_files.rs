//! A bound on the files that are open: who opens one more than the bound closes another that has not been used
//! lately.
//!
//! So thousands of partitions cost descriptors for those that are in use. A file's owner keeps a [`Handle`], opens
//! the file when it needs it and the handle has none, and tells [`OpenFiles`]. The hand of a clock goes over the
//! handles: one that was used since it last came by is passed over once. A use of an open file costs its handle's own
//! lock and one flag. Whoever works with a file holds it by an `Arc`, so a handle that is closed meanwhile takes
//! nothing from him.
//!
//! **What is written and not synced.** The hand prefers files that owe no sync, but where thousands of logs are
//! written to and none is synced, as Kafka's defaults have it, it closes those too: syncing each first would make
//! every record wait for the device. The pages stay in the page cache and a sync of the file, opened again, writes
//! them; but a write-back that failed while the file was closed is told to that later sync only if nobody has heard
//! of it and the kernel has kept the inode since (`errseq_t`, Linux 4.17). The file system itself remembers such a
//! failure and tells it to the next `syncfs` (Linux 5.8). So whoever syncs a file that was closed like that calls
//! [`OpenFiles::sync_closed`] as well, before he believes the sync: one `syncfs` serves all files of the directory
//! that were closed before it began, and where it fails the directory's files never count as synced again. What is
//! left is another process whose own `syncfs` hears of the failure first while the inode is dropped; and older
//! kernels.

use super::disk::{Disk, DiskFile};
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Files that are open at the most. More partitions than this that are written to at once pay some microseconds a
/// record for opening their files again, and thousands that are idle cost nothing.
const OPEN_MAX: usize = 800;
/// Of the descriptors that this process may have, one in so many is for files; the others are for connections.
const LIMIT_SHARE: u64 = 2;
/// So many handles the hand looks at for one that owes no sync before it takes the first one that does.
const LOOKS: usize = 16;

/// Where the owner of a file keeps it while it is open.
#[derive(Debug, Default)]
pub struct Handle {
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    /// Since the hand last came by.
    is_used: AtomicBool,
    /// Something was written since the last sync.
    owes_sync: AtomicBool,
    /// The number of the closing that left a sync owed; 0 for none since the last sync.
    closed_unsynced: AtomicU64,
    /// The hand comes by it.
    is_listed: AtomicBool,
}

/// What has to be synced of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owed(u64);

impl Owed {
    /// A sync of the file is all.
    pub const SYNC: Owed = Owed(0);
}

impl Handle {
    /// The file, where it is open; else what `open` gives. `files` close another one for it.
    ///
    /// # Errors
    /// That of `open`.
    pub fn get_or_open<E>(
        self: &Arc<Self>,
        files: &OpenFiles,
        open: impl FnOnce() -> Result<Arc<dyn DiskFile>, E>,
    ) -> Result<Arc<dyn DiskFile>, E> {
        let mut handle = self.file.lock();
        if let Some(file) = handle.as_ref() {
            if !self.is_used.load(Ordering::Relaxed) {
                self.is_used.store(true, Ordering::Relaxed);
            }
            return Ok(file.clone());
        }
        let file = open()?;
        *handle = Some(file.clone());
        drop(handle);
        files.admit(self);
        Ok(file)
    }

    /// Notes that the file is about to be written: a sync is owed. Before the file is asked for, so that one that is
    /// closed in between is known to owe it.
    pub fn note_write(&self) {
        if !self.owes_sync.load(Ordering::Relaxed) {
            self.owes_sync.store(true, Ordering::Release);
        }
    }

    /// What a sync of the file that begins after this owes. Called with the file in hand and while nobody writes to
    /// it; the caller does the sync, or nothing of the file counts any more.
    pub fn take_owed(&self) -> Owed {
        self.owes_sync.store(false, Ordering::Release);
        Owed(self.closed_unsynced.swap(0, Ordering::AcqRel))
    }

    /// Gives the descriptor back.
    pub fn close(&self) {
        *self.file.lock() = None;
    }
}

/// The files that are open.
#[derive(Debug)]
pub struct OpenFiles {
    max: usize,
    handles: Mutex<VecDeque<Weak<Handle>>>,
    /// Closings that left a sync owed, numbered from 1.
    closed_unsynced: AtomicU64,
    /// By log directory the closings that a `syncfs` has covered; `None` once one has failed.
    synced: Mutex<BTreeMap<PathBuf, Option<u64>>>,
}

impl OpenFiles {
    /// At most `max` of them.
    pub fn new(max: usize) -> Self {
        OpenFiles {
            max,
            handles: Mutex::default(),
            closed_unsynced: AtomicU64::new(0),
            synced: Mutex::default(),
        }
    }

    /// Those of this process, within its limit of descriptors.
    pub fn of_process() -> &'static OpenFiles {
        static FILES: OnceLock<OpenFiles> = OnceLock::new();
        FILES.get_or_init(|| {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            let share = usize::try_from(limit / LIMIT_SHARE).unwrap_or(OPEN_MAX);
            OpenFiles::new(share.clamp(1, OPEN_MAX))
        })
    }

    /// Another process begins.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn reset(&self) {
        self.handles.lock().clear();
        self.synced.lock().clear();
    }

    /// Takes in a handle whose file was opened, and closes another one where there are too many.
    fn admit(&self, handle: &Arc<Handle>) {
        let mut handles = self.handles.lock();
        if handle.is_listed.swap(true, Ordering::AcqRel) {
            return;
        }
        while handles.len() >= self.max && self.close_one(&mut handles) {}
        handles.push_back(Arc::downgrade(handle));
    }

    /// Lets go of one handle, by closing its file if its owner has not; `false` where all are at work.
    fn close_one(&self, handles: &mut VecDeque<Weak<Handle>>) -> bool {
        let (mut looks, mut unsynced) = (0, None);
        // Twice around finds one, where not all are being opened or closed.
        for _ in 0..handles.len() * 2 {
            let Some(handle) = handles.pop_front() else { return false };
            let Some(open) = handle.upgrade() else { return true };
            let is_used = open.is_used.swap(false, Ordering::Relaxed);
            if !is_used && !open.owes_sync.load(Ordering::Acquire) && self.close(&open) {
                return true;
            }
            handles.push_back(handle);
            if !is_used {
                looks += 1;
                unsynced.get_or_insert(open);
            }
            if looks == LOOKS {
                break;
            }
        }
        let Some(handle) = unsynced else { return false };
        let is_closed = self.close(&handle);
        if is_closed {
            handles.retain(|other| other.as_ptr() != Arc::as_ptr(&handle));
        }
        is_closed
    }

    /// Closes the file; `false` where its owner is at the handle this moment.
    fn close(&self, handle: &Handle) -> bool {
        let Some(mut file) = handle.file.try_lock() else { return false };
        if file.take().is_some() && handle.owes_sync.load(Ordering::Acquire) {
            let number = self.closed_unsynced.fetch_add(1, Ordering::AcqRel) + 1;
            handle.closed_unsynced.store(number, Ordering::Release);
        }
        handle.is_listed.store(false, Ordering::Release);
        true
    }

    /// What all files together owe that were closed up to now, for who does not know which of them he has read.
    pub fn owed_by_closed(&self) -> Owed {
        Owed(self.closed_unsynced.load(Ordering::Acquire))
    }

    /// Makes sure that no write-back failed of files in `dir` that were closed with a sync owed, as `owed` says. To
    /// be called after the sync of the files themselves.
    ///
    /// # Errors
    /// One failed: nothing counts that was written in this directory and not synced before.
    pub fn sync_closed(&self, disk: &dyn Disk, dir: &Path, owed: Owed) -> io::Result<()> {
        if owed == Owed::SYNC {
            return Ok(());
        }
        let mut synced = self.synced.lock();
        let known = synced.entry(dir.to_owned()).or_insert(Some(0));
        match *known {
            Some(number) if number >= owed.0 => return Ok(()),
            Some(_) => {}
            None => return Err(io::Error::other("an earlier sync of the file system failed")),
        }
        let number = self.closed_unsynced.load(Ordering::Acquire);
        *known = None;
        disk.sync_all(dir)?;
        *known = Some(number);
        Ok(())
    }
}
