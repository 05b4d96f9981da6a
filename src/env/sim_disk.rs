//! A disk for tests that lives in memory and knows what a crash may leave of it.
//!
//! Of every file and directory there is what a reader sees now and what a sync has made durable, with the changes
//! between the two. When a process is killed all changes stay. When the machine loses power each page of a file is
//! as some change left it, the length likewise, and pages that never came are zeroes; of a directory's changes the
//! first few stay, as on a file system with a journal. Everything is decided by one seed. Deliberately not here:
//! links, permissions, files in two directories.

mod changes;

use super::disk::{DirEntry, Disk, DiskFile, LockError, LockGuard, OpenMode, Space};
use super::open_files::OpenFiles;
use super::rng::Rng;
use changes::{DirChange, FileChange, left_of_file};
use parking_lot::Mutex;
use rustix::fd::BorrowedFd;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Time of every change.
const MODIFIED_MS: i64 = 1_700_000_000_000;

/// How the process that used the disk came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process was killed: what it wrote is in the page cache.
    Kill,
    /// The machine lost power: what was not synced may be lost, in part and out of order.
    PowerLoss,
}

#[derive(Debug, Default)]
struct FileNode {
    data: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<FileChange>,
    modified_ms: i64,
}

#[derive(Debug, Default)]
struct DirNode {
    entries: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    changes: Vec<DirChange>,
}

#[derive(Debug)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Debug)]
struct State {
    rng: Rng,
    /// The first is the root.
    nodes: Vec<Node>,
    /// Changes and syncs so far.
    operations: u64,
    /// The operation that is cut, and after which nothing goes.
    last_operation: u64,
    is_dead: bool,
    /// Files of an earlier life are of no use.
    lives: u64,
    /// Bytes that files may still grow.
    room: Option<u64>,
    syncs_fail: bool,
    /// Names whose syncs do nothing; `/` stands for directories.
    unsynced: Vec<&'static str>,
    /// Pages of some closed file could not be written; only a sync of the file system says so.
    has_lost_pages: bool,
}

/// The disk; copies are the same one.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>, Arc<OpenFiles>);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: usize,
    life: u64,
    name: String,
}

fn ended() -> io::Error {
    io::Error::other("the process has ended")
}

impl SimDisk {
    /// An empty disk, of which a seed decides what a loss of power leaves.
    pub fn new(seed: u64) -> Self {
        SimDisk::with_open_files(seed, usize::MAX)
    }

    /// As [`SimDisk::new`], with so many files kept open at the most.
    pub fn with_open_files(seed: u64, max: usize) -> Self {
        let state = State {
            rng: Rng::new(seed),
            nodes: vec![Node::Dir(DirNode::default())],
            operations: 0,
            last_operation: u64::MAX,
            is_dead: false,
            lives: 0,
            room: None,
            syncs_fail: false,
            unsynced: Vec::new(),
            has_lost_pages: false,
        };
        SimDisk(Arc::new(Mutex::new(state)), Arc::new(OpenFiles::new(max)))
    }

    /// Changes and syncs so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Of the operations from now on `count` succeed; the next one is cut, a write at any byte.
    pub fn end_after(&self, count: u64) {
        let mut state = self.0.lock();
        state.last_operation = state.operations + count;
    }

    /// Copies of this disk; each open file has one.
    pub fn copies(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Whether the operation has come that was to be the last.
    pub fn is_dead(&self) -> bool {
        self.0.lock().is_dead
    }

    /// Files may grow by so many bytes; `None` for ever.
    pub fn set_room(&self, room: Option<u64>) {
        self.0.lock().room = room;
    }

    /// Whether it takes so many bytes only.
    pub fn is_filling(&self) -> bool {
        self.0.lock().room.is_some()
    }

    /// From now on syncs fail, or do not any more.
    pub fn fail_syncs(&self, fail: bool) {
        self.0.lock().syncs_fail = fail;
    }

    /// The next sync of the file system tells that pages were lost, and no other does.
    pub fn lose_pages(&self) {
        self.0.lock().has_lost_pages = true;
    }

    /// From now on a sync of a file with this end of its name does nothing; `/` stands for directories.
    pub fn ignore_syncs(&self, suffix: &'static str) {
        self.0.lock().unsynced.push(suffix);
    }

    /// Turns one bit of a file over, on the disk and in memory.
    pub fn flip_bit(&self, path: &Path, bit: usize) {
        let mut state = self.0.lock();
        let node = state.find(path).expect("a file to damage");
        let Node::File(file) = &mut state.nodes[node] else { panic!("not a file") };
        for bytes in [&mut file.data, &mut file.durable] {
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Ends the process, and with it every open file; the disk is ready for the next one.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.0.lock();
        if crash == Crash::PowerLoss {
            state.lose_power();
        }
        state.lives += 1;
        self.1.reset();
        (state.is_dead, state.last_operation) = (false, u64::MAX);
        (state.room, state.syncs_fail) = (None, false);
    }

    /// Names of the files and directories that have changed since their last sync.
    pub fn unsynced(&self) -> Vec<String> {
        let state = self.0.lock();
        let mut found = Vec::new();
        let mut open = vec![(0, "/".to_owned())];
        while let Some((node, name)) = open.pop() {
            let is_changed = match &state.nodes[node] {
                Node::File(file) => !file.changes.is_empty(),
                Node::Dir(dir) => {
                    open.extend(dir.entries.iter().map(|(name, node)| (*node, name.clone())));
                    !dir.changes.is_empty()
                }
            };
            if is_changed {
                found.push(name);
            }
        }
        found.sort();
        found
    }

    /// Every file's bytes, by path.
    pub fn image(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.0.lock();
        let mut image = BTreeMap::new();
        state.collect(0, Path::new("/"), &mut image);
        image
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut node = 0;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            let Node::Dir(dir) = &self.nodes[node] else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            node = *dir.entries.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    fn dir(&mut self, node: usize) -> io::Result<&mut DirNode> {
        match &mut self.nodes[node] {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&mut self, node: usize) -> io::Result<&mut FileNode> {
        match &mut self.nodes[node] {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// The directory that `path` lies in, and its name there.
    fn parent(&self, path: &Path) -> io::Result<(usize, String)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        Ok((self.find(path.parent().unwrap_or(Path::new("/")))?, name))
    }

    /// Counts an operation; an error where it is the last one or comes after it.
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        self.is_dead |= self.operations > self.last_operation;
        if self.is_dead { Err(ended()) } else { Ok(()) }
    }

    fn change_dir(&mut self, node: usize, change: DirChange) -> io::Result<()> {
        let dir = self.dir(node)?;
        change.apply(&mut dir.entries);
        dir.changes.push(change);
        Ok(())
    }

    fn change_file(&mut self, node: usize, change: FileChange) -> io::Result<()> {
        let file = self.file(node)?;
        change.apply(&mut file.data);
        file.changes.push(change);
        file.modified_ms = MODIFIED_MS;
        Ok(())
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<usize> {
        if self.is_dead {
            return Err(ended());
        }
        match self.find(path) {
            Ok(_) if mode == OpenMode::CreateNew => Err(io::ErrorKind::AlreadyExists.into()),
            Ok(node) => self.file(node).map(|_| node),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(error) if matches!(mode, OpenMode::Read | OpenMode::ReadWrite) => Err(error),
            Err(_) => self.create(path, Node::File(FileNode::default())),
        }
    }

    fn create(&mut self, path: &Path, new: Node) -> io::Result<usize> {
        let (dir, name) = self.parent(path)?;
        self.step()?;
        if self.room == Some(0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let node = self.nodes.len();
        self.nodes.push(new);
        self.change_dir(dir, DirChange::Put(name, node))?;
        Ok(node)
    }

    fn write(&mut self, node: usize, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        if self.is_dead {
            return Err(ended());
        }
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let mut result = self.step();
        let at = position as usize;
        let len = self.file(node)?.data.len();
        let grows = (at + bytes.len()).saturating_sub(len) as u64;
        if result.is_err() {
            let kept = self.rng.below(bytes.len() + 1);
            bytes.truncate(kept);
        } else if let Some(room) = self.room.filter(|room| *room < grows) {
            bytes.truncate(len.max(at) + room as usize - at);
            self.room = Some(0);
            result = Err(io::ErrorKind::StorageFull.into());
        } else if let Some(room) = self.room.as_mut() {
            *room -= grows;
        }
        if !bytes.is_empty() {
            self.change_file(node, FileChange::Write { at, bytes })?;
        }
        result
    }

    fn sync(&mut self, node: usize, name: &str) -> io::Result<()> {
        self.step()?;
        if self.syncs_fail {
            return Err(io::Error::other("sync failed"));
        }
        if self.unsynced.iter().any(|suffix| name.ends_with(suffix)) {
            return Ok(());
        }
        match &mut self.nodes[node] {
            Node::File(file) => {
                // Not all of it anew: that would make a log cost the square of its length.
                for change in file.changes.drain(..) {
                    change.apply(&mut file.durable);
                }
            }
            Node::Dir(dir) => {
                for change in dir.changes.drain(..) {
                    change.apply(&mut dir.durable);
                }
            }
        }
        Ok(())
    }

    fn lose_power(&mut self) {
        for node in &mut self.nodes {
            match node {
                Node::File(file) => {
                    file.data = left_of_file(&mut self.rng, &file.durable, &file.changes);
                    file.changes.clear();
                    file.durable.clone_from(&file.data);
                }
                Node::Dir(dir) => {
                    let kept = self.rng.below(dir.changes.len() + 1);
                    for change in &dir.changes[..kept] {
                        change.apply(&mut dir.durable);
                    }
                    dir.changes.clear();
                    dir.entries.clone_from(&dir.durable);
                }
            }
        }
    }

    fn collect(&self, node: usize, path: &Path, image: &mut BTreeMap<PathBuf, Vec<u8>>) {
        match &self.nodes[node] {
            Node::File(file) => {
                image.insert(path.to_owned(), file.data.clone());
            }
            Node::Dir(dir) => {
                for (name, child) in &dir.entries {
                    self.collect(*child, &path.join(name), image);
                }
            }
        }
    }
}

impl SimFile {
    fn check(&self, state: &State) -> io::Result<()> {
        if state.is_dead || state.lives != self.life { Err(ended()) } else { Ok(()) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = self.disk.0.lock();
        self.check(&state)?;
        let data = &state.file(self.node)?.data;
        let from = data.len().min(position as usize);
        let count = buf.len().min(data.len() - from);
        buf[..count].copy_from_slice(&data[from..from + count]);
        Ok(count)
    }

    fn write_all_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        self.check(&state)?;
        state.write(self.node, slices, position)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.0.lock();
        self.check(&state)?;
        Ok(state.file(self.node)?.data.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        self.check(&state)?;
        state.step()?;
        state.change_file(self.node, FileChange::SetLen(len as usize))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        self.check(&state)?;
        state.sync(self.node, &self.name)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Disk for SimDisk {
    fn open_files(&self) -> &OpenFiles {
        &self.1
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        let node = state.open(path, mode)?;
        let name = path.to_string_lossy().into_owned();
        Ok(Arc::new(SimFile { disk: self.clone(), node, life: state.lives, name }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.0.lock();
        let node = state.open(path, OpenMode::Read)?;
        Ok(state.file(node)?.data.clone())
    }

    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let temporary = Path::new(&name);
        let file = self.open(temporary, OpenMode::Create)?;
        file.set_len(0)?;
        file.write_all_at(&[IoSlice::new(bytes)], 0)?;
        file.sync()?;
        self.rename(temporary, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new("/")))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.0.lock();
        let node = state.find(dir)?;
        let entries = state.dir(node)?.entries.clone();
        let listed = entries.into_iter().map(|(name, node)| match &state.nodes[node] {
            Node::File(file) => DirEntry { name, is_dir: false, len: file.data.len() as u64 },
            Node::Dir(_) => DirEntry { name, is_dir: true, len: 0 },
        });
        Ok(listed.collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let paths: Vec<&Path> = dir.ancestors().collect();
        for path in paths.into_iter().rev() {
            if state.find(path).is_err() {
                state.create(path, Node::Dir(DirNode::default()))?;
            }
        }
        Ok(())
    }

    /// Within one directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.find(from)?;
        let ((dir, from), (other, to)) = (state.parent(from)?, state.parent(to)?);
        assert_eq!(dir, other, "a rename stays in its directory");
        state.step()?;
        state.change_dir(dir, DirChange::Rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let node = state.find(path)?;
        state.file(node)?;
        let (dir, name) = state.parent(path)?;
        state.step()?;
        state.change_dir(dir, DirChange::Remove(name))
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.find(dir)?;
        let (parent, name) = state.parent(dir)?;
        state.step()?;
        state.change_dir(parent, DirChange::Remove(name))
    }

    fn sync_all(&self, _: &Path) -> io::Result<bool> {
        let mut state = self.0.lock();
        for node in 0..state.nodes.len() {
            state.sync(node, "*")?;
        }
        let has_lost_pages = std::mem::take(&mut state.has_lost_pages);
        if has_lost_pages { Err(io::Error::other("pages were lost")) } else { Ok(true) }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let node = state.find(dir)?;
        state.dir(node)?;
        state.sync(node, "/")
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.lock().find(path).is_ok()
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let available = self.0.lock().room.unwrap_or(u64::MAX);
        Ok(Space { total: u64::MAX, available })
    }

    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        let mut state = self.0.lock();
        let node = state.find(path)?;
        Ok(state.file(node)?.modified_ms)
    }

    fn set_modified_ms(&self, path: &Path, ms: i64) -> io::Result<()> {
        let mut state = self.0.lock();
        let node = state.find(path)?;
        state.file(node)?.modified_ms = ms;
        Ok(())
    }

    fn lock(&self, _: &Path) -> Result<LockGuard, LockError> {
        Ok(LockGuard::of_nobody())
    }
}
