//! Files and directories: the trait that `log` writes through, and the real disk.
//!
//! Invariant: what changes a directory (create, rename, remove) is durable only after
//! [`Disk::sync_dir`]; what changes a file only after [`DiskFile::sync`]. A failed sync is never retried.

use super::open_files::OpenFiles;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::Advice;
use rustix::io::ReadWriteFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; reads only.
    Read,
    /// Must exist; reads and writes.
    ReadWrite,
    /// Reads and writes; made if it is not there.
    Create,
    /// Reads and writes; must not be there.
    CreateNew,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name, without the directory. Names that are not UTF-8 are left out of listings.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes, for a file.
    pub len: u64,
}

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// In all.
    pub total: u64,
    /// Free to us.
    pub available: u64,
}

/// An open file, read and written at positions; shared between threads.
pub trait DiskFile: Send + Sync + std::fmt::Debug {
    /// Reads up to `buf.len()` bytes at `position`; 0 at the end.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all of `slices` one after another from `position` on.
    fn write_all_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()>;
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// The descriptor for `sendfile`, where there is one.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// [`DiskFile::read_at`] from memory: `WouldBlock` where the device would have to be waited for.
    fn read_at_cached(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.read_at(buf, position)
    }
    /// Whether the region seems to lie in memory: some of its pages are looked at.
    fn is_cached(&self, _position: u64, _len: usize) -> bool {
        true
    }
    /// Brings the region into memory and waits until it is there; begins with the `ahead` bytes after it too.
    fn bring_in(&self, _position: u64, _len: usize, _ahead: usize) -> io::Result<()> {
        Ok(())
    }
    /// Lets the region's memory go, as far as nobody else has a hold on it.
    fn let_go(&self, _position: u64, _len: usize) {}

    /// Reads exactly `buf.len()` bytes.
    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        fill(buf, |rest, done| self.read_at(rest, position + done))
    }
    /// [`DiskFile::read_exact_at`] from memory, as [`DiskFile::read_at_cached`].
    fn read_exact_at_cached(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        fill(buf, |rest, done| self.read_at_cached(rest, position + done))
    }
}

/// Fills the buffer with what `read` puts into what is left of it, given the bytes that are there already.
fn fill(
    buf: &mut [u8],
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match read(&mut buf[done..], done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}

/// A file system.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// The bound on files that are kept open.
    fn open_files(&self) -> &OpenFiles {
        OpenFiles::of_process()
    }
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// A whole small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Replaces a small file so that a crash leaves the old or the new one: temporary file, sync, rename, sync of the
    /// directory. The temporary is `path` with `.tmp` appended, as Kafka names it.
    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// The directory's entries, in the order of their names.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes a directory and its parents.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes a directory and those of its parents that are not there, durably.
    fn create_dir_durably(&self, dir: &Path) -> io::Result<()> {
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !self.exists(path);
        let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
        self.create_dir_all(dir)?;
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
            self.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }
    /// Renames a file or directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all below it.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes all durable that was written to the file system of `dir`, where the disk can (`syncfs`); whether it has.
    fn sync_all(&self, _dir: &Path) -> io::Result<bool> {
        Ok(false)
    }
    /// Makes the directory's entries durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Whether something is there.
    fn exists(&self, path: &Path) -> bool;
    /// Total and free bytes of the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Milliseconds since 1970 of the file's last change.
    fn modified_ms(&self, path: &Path) -> io::Result<i64>;
    /// Sets that time.
    fn set_modified_ms(&self, path: &Path, ms: i64) -> io::Result<()>;
    /// Takes the lock file at `path` for this process and writes the process id into it; the lock goes with the
    /// guard or the process.
    ///
    /// # Errors
    /// [`LockError::Held`] with the holder's process id, [`LockError::Io`].
    fn lock(&self, path: &Path) -> Result<LockGuard, LockError>;
}

/// Why a lock file could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("held by process {0}")]
    Held(String),
    /// The file cannot be opened or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Holds a lock file until it is dropped.
#[derive(Debug)]
pub struct LockGuard {
    _file: Option<File>,
}

#[cfg(any(test, feature = "simulation"))]
impl LockGuard {
    /// That of a disk which only one process has.
    pub fn of_nobody() -> Self {
        LockGuard { _file: None }
    }
}

/// The machine's own file systems.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

/// Bytes between the pages that [`DiskFile::is_cached`] looks at: few looks for a region that is in memory, and little
/// to wait for where one is missed.
const LOOK_BYTES: usize = 256 * 1024;
/// No page is smaller.
const PAGE_BYTES: usize = 4096;

impl RealFile {
    fn advise(&self, position: u64, len: usize, advice: Advice) -> io::Result<()> {
        match NonZeroU64::new(len as u64) {
            Some(len) => Ok(rustix::fs::fadvise(&self.0, position, Some(len), advice)?),
            None => Ok(()),
        }
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buf, position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn read_at_cached(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let flags = ReadWriteFlags::NOWAIT;
        match rustix::io::preadv2(&self.0, &mut [IoSliceMut::new(buf)], position, flags) {
            // A file system that cannot tell (NOTSUP), or a kernel before 4.14 (INVAL, NOSYS).
            Err(
                rustix::io::Errno::NOTSUP | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS,
            ) => self.read_at(buf, position),
            Err(rustix::io::Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            result => Ok(result?),
        }
    }

    fn is_cached(&self, position: u64, len: usize) -> bool {
        let Some(last) = len.checked_sub(1) else { return true };
        let mut looked_at = (0..last).step_by(LOOK_BYTES).chain([last]);
        looked_at.all(|at| self.read_at_cached(&mut [0], position + at as u64).is_ok())
    }

    fn bring_in(&self, position: u64, len: usize, ahead: usize) -> io::Result<()> {
        self.advise(position, len + ahead, Advice::WillNeed)?;
        let first = position - position % PAGE_BYTES as u64;
        for page in (first..position + len as u64).step_by(PAGE_BYTES) {
            self.read_at(&mut [0], page)?;
        }
        Ok(())
    }

    fn let_go(&self, position: u64, len: usize) {
        // Advice that is not taken leaves the memory to the kernel's own judgement.
        let _ = self.advise(position, len, Advice::DontNeed);
    }

    fn write_all_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut done = 0;
        // One system call as a rule; after a short write slice by slice.
        loop {
            match rustix::io::pwritev(&self.0, slices, position) {
                Ok(n) => {
                    done += n;
                    break;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if done == total {
            return Ok(());
        }
        let mut start = 0;
        for slice in slices {
            let end = start + slice.len();
            if end > done {
                let from = done.max(start);
                self.0.write_all_at(&slice[from - start..], position + from as u64)?;
                done = end;
            }
            start = end;
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let temporary = Path::new(&name);
        let file = File::create(temporary)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        fs::rename(temporary, path)?;
        match path.parent() {
            Some(dir) => self.sync_dir(dir),
            None => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // An entry that vanishes while we look was not there.
            let Ok(metadata) = entry.metadata() else { continue };
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry { name, is_dir: metadata.is_dir(), len: metadata.len() });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn sync_all(&self, dir: &Path) -> io::Result<bool> {
        rustix::fs::syncfs(File::open(dir)?)?;
        Ok(true)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        let modified = fs::metadata(path)?.modified()?;
        Ok(modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis() as i64)
    }

    fn set_modified_ms(&self, path: &Path, ms: i64) -> io::Result<()> {
        let since = std::time::Duration::from_millis(ms.max(0).unsigned_abs());
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_modified(std::time::UNIX_EPOCH + since)
    }

    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        // Kafka takes a POSIX lock (FileChannel.tryLock), which two brokers of one process would share; flock
        // keeps those apart. Both are held, so neither Kafka nor Ottla starts on a directory in use.
        let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        let locked = rustix::fs::flock(&file, operation)
            .and_then(|()| rustix::fs::fcntl_lock(&file, operation));
        match locked {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::ACCESS) => {
                let holder = fs::read_to_string(path).unwrap_or_default();
                let holder = holder.trim();
                let holder = if holder.is_empty() { "unknown" } else { holder };
                return Err(LockError::Held(holder.to_owned()));
            }
            Err(error) => return Err(LockError::Io(error.into())),
        }
        file.set_len(0)?;
        file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)?;
        Ok(LockGuard { _file: Some(file) })
    }
}
