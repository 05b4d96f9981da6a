//! A partition's directory and its files, opened on first use.
//!
//! Invariant: paths are computed from the directory's present name, so a rename of the directory (topic deletion,
//! move between log directories) needs no change in the files' owners.

use super::error::StorageError;
use crate::env::disk::DirEntry;
use crate::env::open_files::{Handle, Owed};
use crate::env::{Disk, DiskFile, OpenMode};
use parking_lot::RwLock;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

pub(crate) const LOG_SUFFIX: &str = ".log";
pub(crate) const INDEX_SUFFIX: &str = ".index";
pub(crate) const TIME_INDEX_SUFFIX: &str = ".timeindex";
pub(crate) const TXN_INDEX_SUFFIX: &str = ".txnindex";
pub(crate) const SNAPSHOT_SUFFIX: &str = ".snapshot";
pub(crate) const DELETED_SUFFIX: &str = ".deleted";
pub(crate) const CLEANED_SUFFIX: &str = ".cleaned";
pub(crate) const SWAP_SUFFIX: &str = ".swap";

/// `offset` as 20 digits, then `suffix`.
pub(crate) fn file_name(offset: i64, suffix: &str) -> String {
    format!("{offset:020}{suffix}")
}

/// The offset before the first dot of a file's name, where there is one.
pub(crate) fn offset_of_name(name: &str) -> Option<i64> {
    let digits = name.split('.').next()?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// A partition's directory.
#[derive(Debug)]
pub(crate) struct Directory {
    disk: Arc<dyn Disk>,
    path: Arc<RwLock<PathBuf>>,
    /// Follows the name of every file in it.
    suffix: &'static str,
    /// An entry was made, renamed or removed since the last sync of the directory.
    is_changed: AtomicBool,
    /// It lies on the disk. One that was never written into costs nothing there.
    exists: AtomicBool,
    /// It was made since the last sync of its parent.
    is_new: AtomicBool,
    /// Reads do not wait for the device.
    from_memory: bool,
}

impl Directory {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        let path = Arc::new(RwLock::new(path));
        let [is_changed, exists, is_new] = [const { AtomicBool::new(false) }; 3];
        Directory { disk, path, suffix: "", is_changed, exists, is_new, from_memory: false }
    }

    /// The same directory, for look-ups that fail with `WouldBlock` rather than wait for the device.
    pub(crate) fn memory_only(&self) -> Self {
        let [is_changed, exists, is_new] = [const { AtomicBool::new(false) }; 3];
        let (disk, path) = (self.disk.clone(), self.path.clone());
        Directory { disk, path, suffix: self.suffix, is_changed, exists, is_new, from_memory: true }
    }

    /// Reads from a file that lies in it.
    pub(crate) fn read_exact_at(
        &self,
        file: &dyn DiskFile,
        buf: &mut [u8],
        position: u64,
    ) -> io::Result<()> {
        if self.from_memory {
            file.read_exact_at_cached(buf, position)
        } else {
            file.read_exact_at(buf, position)
        }
    }

    /// The same directory with `suffix` after the names of its files: where a segment is made that is to take
    /// another's place.
    pub(crate) fn with_suffix(&self, suffix: &'static str) -> Self {
        let path = self.path.clone();
        let exists = AtomicBool::new(self.exists());
        let [is_changed, is_new] = [const { AtomicBool::new(false) }; 2];
        let disk = self.disk.clone();
        Directory { disk, path, suffix, is_changed, exists, is_new, from_memory: self.from_memory }
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.read().clone()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        let path = self.path.read();
        if self.suffix.is_empty() {
            path.join(name)
        } else {
            path.join(format!("{name}{}", self.suffix))
        }
    }

    pub(crate) fn mark_changed(&self) {
        self.is_changed.store(true, Ordering::Release);
    }

    /// What it holds, and that it is there, may not be durable.
    pub(crate) fn mark_unsynced(&self) {
        if self.exists() {
            self.mark_changed();
            self.is_new.store(true, Ordering::Release);
        }
    }

    /// Whether it lies on the disk.
    pub(crate) fn exists(&self) -> bool {
        self.exists.load(Ordering::Acquire)
    }

    /// What lies in it; nothing where it does not exist.
    pub(crate) fn list(&self) -> Result<Vec<DirEntry>, StorageError> {
        let path = self.path();
        match self.disk.list(&path) {
            Ok(entries) => {
                self.exists.store(true, Ordering::Release);
                Ok(entries)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(StorageError::new("list", &path, e)),
        }
    }

    /// Makes it where it does not exist. Its parent is synced together with it.
    pub(crate) fn create(&self) -> Result<(), StorageError> {
        if self.exists() {
            return Ok(());
        }
        let path = self.path();
        self.disk.create_dir_all(&path).map_err(|e| StorageError::new("create", &path, e))?;
        self.is_new.store(true, Ordering::Release);
        self.exists.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes what changed in it durable; of one that is new, also that it is there.
    pub(crate) fn sync_if_changed(&self) -> Result<(), StorageError> {
        self.sync_entries()?;
        if self.is_new.swap(false, Ordering::AcqRel)
            && let Some(parent) = self.path().parent()
        {
            self.sync(parent)?;
        }
        Ok(())
    }

    /// Makes what changed in it durable.
    pub(crate) fn sync_entries(&self) -> Result<(), StorageError> {
        if self.is_changed.swap(false, Ordering::AcqRel) { self.sync(&self.path()) } else { Ok(()) }
    }

    /// Makes sure that nothing was lost of files that were closed with a sync owed, once they are synced.
    pub(crate) fn sync_closed(&self, owed: Owed) -> Result<(), StorageError> {
        let path = self.path();
        let log_dir = path.parent().unwrap_or(&path);
        let synced = self.disk.open_files().sync_closed(&*self.disk, log_dir, owed);
        synced.map_err(|e| StorageError::new("sync", log_dir, e))
    }

    fn sync(&self, path: &Path) -> Result<(), StorageError> {
        self.disk.sync_dir(path).map_err(|e| StorageError::new("sync", path, e))
    }

    pub(crate) fn rename_file(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let path = self.join(from);
        match self.disk.rename(&path, &self.join(to)) {
            Ok(()) => self.mark_changed(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(StorageError::new("rename", &path, e)),
        }
        Ok(())
    }

    pub(crate) fn remove_file(&self, name: &str) -> Result<(), StorageError> {
        let path = self.join(name);
        match self.disk.remove_file(&path) {
            Ok(()) => self.mark_changed(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(StorageError::new("delete", &path, e)),
        }
        Ok(())
    }

    /// Renames the directory itself, within its parent or to another.
    pub(crate) fn rename_to(&self, to: &Path) -> Result<(), StorageError> {
        let mut path = self.path.write();
        if !self.exists() {
            *path = to.to_owned();
            return Ok(());
        }
        self.disk.rename(&path, to).map_err(|e| StorageError::new("rename", &path, e))?;
        let from = path.parent().map(Path::to_owned);
        *path = to.to_owned();
        drop(path);
        let to = to.parent().map(Path::to_owned);
        for parent in from.iter().chain(to.iter().filter(|to| Some(*to) != from.as_ref())) {
            self.disk.sync_dir(parent).map_err(|e| StorageError::new("sync", parent, e))?;
        }
        Ok(())
    }
}

/// One file of a segment, opened when it is needed and closed when others need it more.
#[derive(Debug)]
pub(crate) struct LazyFile {
    base_offset: i64,
    suffix: &'static str,
    /// Thousands of partitions have no file that was ever opened.
    handle: OnceLock<Arc<Handle>>,
}

impl LazyFile {
    pub(crate) fn new(base_offset: i64, suffix: &'static str) -> Self {
        LazyFile { base_offset, suffix, handle: OnceLock::new() }
    }

    pub(crate) fn name(&self) -> String {
        file_name(self.base_offset, self.suffix)
    }

    pub(crate) fn path(&self, directory: &Directory) -> PathBuf {
        directory.join(&self.name())
    }

    fn handle(&self) -> &Arc<Handle> {
        self.handle.get_or_init(Arc::default)
    }

    /// The open file, to be written; made if it is not there.
    pub(crate) fn create(&self, directory: &Directory) -> Result<Arc<dyn DiskFile>, StorageError> {
        self.handle().note_write();
        self.open(directory, OpenMode::Create)
    }

    /// The open file, to be written; it must exist.
    pub(crate) fn get_to_write(
        &self,
        directory: &Directory,
    ) -> Result<Arc<dyn DiskFile>, StorageError> {
        self.handle().note_write();
        self.open(directory, OpenMode::ReadWrite)
    }

    /// The open file, to be read; it must exist.
    pub(crate) fn get(&self, directory: &Directory) -> Result<Arc<dyn DiskFile>, StorageError> {
        self.open(directory, OpenMode::ReadWrite)
    }

    fn open(
        &self,
        directory: &Directory,
        mode: OpenMode,
    ) -> Result<Arc<dyn DiskFile>, StorageError> {
        self.handle().get_or_open(directory.disk().open_files(), || {
            if mode == OpenMode::Create {
                directory.create()?;
            }
            let path = self.path(directory);
            let opened = directory.disk().open(&path, mode);
            let file = opened.map_err(|e| StorageError::new("open", &path, e))?;
            if mode == OpenMode::Create {
                directory.mark_changed();
            }
            Ok(file)
        })
    }

    /// Gives the descriptor back; the next use opens the file again.
    pub(crate) fn close(&self) {
        if let Some(handle) = self.handle.get() {
            handle.close();
        }
    }

    pub(crate) fn error(
        &self,
        directory: &Directory,
        operation: &'static str,
        e: io::Error,
    ) -> StorageError {
        StorageError::new(operation, &self.path(directory), e)
    }
}

/// Files of a directory that are to be synced.
#[derive(Debug)]
pub(crate) struct ToSync {
    files: Vec<Arc<dyn DiskFile>>,
    handles: Vec<Arc<Handle>>,
    owed: Owed,
}

impl ToSync {
    pub(crate) fn new() -> Self {
        ToSync { files: Vec::new(), handles: Vec::new(), owed: Owed::SYNC }
    }

    /// Takes in a file, which must exist.
    pub(crate) fn add(
        &mut self,
        file: &LazyFile,
        directory: &Directory,
    ) -> Result<(), StorageError> {
        self.files.push(file.get(directory)?);
        self.handles.push(file.handle().clone());
        Ok(())
    }

    /// Takes in a file that is not kept open.
    pub(crate) fn add_file(&mut self, file: Arc<dyn DiskFile>) {
        self.files.push(file);
    }

    /// Takes on what the files owe; [`ToSync::run`] is to follow. While nobody writes to them.
    pub(crate) fn take_owed(mut self) -> Self {
        let owed = self.handles.drain(..).map(|handle| handle.take_owed());
        self.owed = owed.fold(self.owed, Owed::max);
        self
    }

    /// Syncs them. Blocks for the disk. After a failure nothing counts that they hold.
    pub(crate) fn run(&self, directory: &Directory) -> Result<(), StorageError> {
        let mut synced = self.files.iter().map(|file| file.sync());
        let error = |e| StorageError::new("sync", &directory.path(), e);
        synced.try_for_each(|it| it.map_err(error))?;
        directory.sync_closed(self.owed)
    }
}
