//! A disk for tests: the real one, with syncs that fail or wait, and writes that find it full.

use super::disk::{DirEntry, Disk, DiskFile, LockError, LockGuard, OpenMode, RealDisk, Space};
use parking_lot::{Condvar, Mutex};
use rustix::fd::BorrowedFd;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What goes wrong from now on.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    syncs_fail: bool,
    /// Only syncs of files below this directory fail.
    failing_dir: Option<PathBuf>,
    /// Syncs that fail find no space.
    syncs_are_full: bool,
    is_full: bool,
    /// Only files of this extension find no space.
    full_extension: Option<&'static str>,
    /// Syncs of `.log` files wait for a permit.
    is_gated: bool,
    permits: usize,
    begun: usize,
    space: Option<Space>,
    /// What lies in memory: the regions that were brought in; everything where it is `None`.
    in_memory: Option<Vec<(PathBuf, Range<u64>)>>,
    /// So many changes of directories go on; those after them fail.
    changes: Option<usize>,
}

impl Faults {
    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.state.lock().syncs_fail = fail;
    }

    /// Syncs of files below this directory fail.
    pub(crate) fn fail_syncs_below(&self, dir: &Path) {
        self.state.lock().failing_dir = Some(dir.to_owned());
    }

    /// Syncs that fail say that they find no space, as one of a file system that allocates late may.
    pub(crate) fn fill_syncs(&self) {
        self.state.lock().syncs_are_full = true;
    }

    /// Writes find no space.
    pub(crate) fn fill(&self, is_full: bool) {
        self.state.lock().is_full = is_full;
    }

    /// Writes to files of this extension find no space.
    pub(crate) fn fill_only(&self, extension: Option<&'static str>) {
        self.state.lock().full_extension = extension;
    }

    /// What `Disk::space` answers.
    pub(crate) fn set_space(&self, space: Space) {
        self.state.lock().space = Some(space);
    }

    /// Everything has to be brought into memory before it can be read from there.
    pub(crate) fn empty_memory(&self) {
        self.state.lock().in_memory = Some(Vec::new());
    }

    /// How many regions were brought in and not let go.
    pub(crate) fn regions_in_memory(&self) -> usize {
        self.state.lock().in_memory.as_ref().map_or(0, Vec::len)
    }

    fn is_in_memory(&self, path: &Path, region: &Range<u64>) -> bool {
        let state = self.state.lock();
        let holds = |there: &(PathBuf, Range<u64>)| {
            there.0 == path && there.1.start <= region.start && region.end <= there.1.end
        };
        state.in_memory.as_ref().is_none_or(|all| all.iter().any(holds))
    }

    /// Waits for a permit where the gate is closed.
    fn bring_in(&self, path: &Path, region: Range<u64>) {
        let mut state = self.state.lock();
        state.begun += 1;
        self.changed.notify_all();
        while state.is_gated && state.permits == 0 {
            self.changed.wait(&mut state);
        }
        state.permits = state.permits.saturating_sub(1);
        if let Some(all) = &mut state.in_memory {
            all.push((path.to_owned(), region));
        }
    }

    fn let_go(&self, path: &Path, start: u64) {
        if let Some(all) = &mut self.state.lock().in_memory {
            all.retain(|(there, region)| there != path || region.start != start);
        }
    }

    /// Changes of directories fail after the next `count`: the moment of a crash.
    pub(crate) fn cut_after(&self, count: usize) {
        self.state.lock().changes = Some(count);
    }

    fn change(&self) -> io::Result<()> {
        match &mut self.state.lock().changes {
            Some(0) => Err(io::Error::other("cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// From now on a sync of a segment waits for a permit, and so does what is brought into memory.
    pub(crate) fn gate_syncs(&self) {
        let mut state = self.state.lock();
        state.is_gated = true;
        state.begun = 0;
    }

    /// Lets `count` syncs go on.
    pub(crate) fn permit_syncs(&self, count: usize) {
        self.state.lock().permits += count;
        self.changed.notify_all();
    }

    /// Lets none go on any more.
    pub(crate) fn take_permits(&self) {
        self.state.lock().permits = 0;
    }

    /// Waits until `count` syncs have begun since the gate was closed.
    pub(crate) fn wait_for_syncs(&self, count: usize) {
        let mut state = self.state.lock();
        while state.begun < count {
            self.changed.wait(&mut state);
        }
    }

    pub(crate) fn syncs_begun(&self) -> usize {
        self.state.lock().begun
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let is_segment = path.extension().is_some_and(|extension| extension == "log");
        let mut state = self.state.lock();
        if is_segment {
            state.begun += 1;
            self.changed.notify_all();
            while state.is_gated && state.permits == 0 {
                self.changed.wait(&mut state);
            }
            state.permits = state.permits.saturating_sub(1);
        }
        let is_below = state.failing_dir.as_ref().is_some_and(|dir| path.starts_with(dir));
        match (state.syncs_fail || is_below, state.syncs_are_full) {
            (false, _) => Ok(()),
            (true, false) => Err(io::Error::other("sync failed")),
            (true, true) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn check_space(&self, path: &Path) -> io::Result<()> {
        let state = self.state.lock();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if state.is_full || extension.is_some() && extension == state.full_extension {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyDisk {
    pub(crate) faults: Arc<Faults>,
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
    path: PathBuf,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let region = position..position + buf.len() as u64;
        if !self.faults.is_in_memory(&self.path, &region) {
            self.faults.bring_in(&self.path, region);
        }
        self.file.read_at(buf, position)
    }

    fn read_at_cached(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        if !self.is_cached(position, buf.len()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.file.read_at(buf, position)
    }

    fn is_cached(&self, position: u64, len: usize) -> bool {
        self.faults.is_in_memory(&self.path, &(position..position + len as u64))
    }

    fn bring_in(&self, position: u64, len: usize, ahead: usize) -> io::Result<()> {
        self.faults.bring_in(&self.path, position..position + (len + ahead) as u64);
        Ok(())
    }

    fn let_go(&self, position: u64, _len: usize) {
        self.faults.let_go(&self.path, position);
    }

    fn write_all_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        if let Err(full) = self.faults.check_space(&self.path) {
            // A full disk takes some of it.
            let some = &slices[0][..slices[0].len().min(16)];
            self.file.write_all_at(&[IoSlice::new(some)], position)?;
            return Err(full);
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
        self.faults.sync(&self.path)?;
        self.file.sync()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::CreateNew || mode == OpenMode::Create && !path.exists() {
            self.faults.check_space(path)?;
        }
        let file = RealDisk.open(path, mode)?;
        Ok(Arc::new(FaultyFile { file, faults: self.faults.clone(), path: path.to_owned() }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }

    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.faults.change()?;
        self.faults.check_space(path)?;
        self.faults.sync(path)?;
        RealDisk.write_atomic(path, bytes)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.faults.change()?;
        self.faults.check_space(dir)?;
        RealDisk.create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.change()?;
        RealDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.faults.change()?;
        RealDisk.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.faults.change()?;
        RealDisk.remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.change()?;
        RealDisk.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        RealDisk.exists(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let faked = self.faults.state.lock().space;
        faked.map_or_else(|| RealDisk.space(path), Ok)
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
