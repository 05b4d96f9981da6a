//! File systems of their own for log directories, so that one can be full, or fail, without the machine's.
//!
//! They are mounted in a mount namespace of this process alone ([`enter`]): whatever happens to it, nothing of them is
//! left to the machine. A tmpfs may be mounted by everybody who may make a user namespace; ext4 on a loop device, which
//! is what can fail, by root alone.
//!
//! Deliberately not here: storage that is thinner than it says. A loop device whose file finds no space takes a part of
//! a write for the whole (Linux 6.18), and loses what it has acknowledged.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::java::checked;

/// Tells the process in the namespace that it is there.
const INSIDE: &str = "COMPAT_NAMESPACE";
/// Bytes of a device, and of the memory behind it: it is sparse.
const DEVICE_BYTES: u64 = 192 << 20;
const BACKING_BYTES: u64 = 224 << 20;

/// Whether this process may mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// It is in a namespace of its own.
    Inside,
    /// One that is, with the same arguments, has to be run: by this command.
    Enter(Vec<&'static str>),
    /// It may not, for this reason.
    Impossible(String),
}

/// Whether this process may mount, or how one may.
pub fn namespace() -> Namespace {
    if std::env::var_os(INSIDE).is_some() {
        return Namespace::Inside;
    }
    let words = if is_root() { vec!["unshare", "-m"] } else { vec!["unshare", "-rm"] };
    let mut probe = Command::new(words[0]);
    probe.args(&words[1..]).args(["mount", "-t", "tmpfs", "tmpfs", "/tmp"]).stdin(Stdio::null());
    match checked(&mut probe, "a mount namespace") {
        Ok(_) => Namespace::Enter(words),
        Err(e) => Namespace::Impossible(e.trim().replace('\n', " ")),
    }
}

/// Runs this program with these arguments in a mount namespace of its own; whether it succeeded.
///
/// # Errors
/// If it does not start.
pub fn enter(words: &[&str], args: &[&str]) -> Result<bool, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .arg(own)
        .args(args)
        .env(INSIDE, if is_root() { "root" } else { "user" });
    let status = command.status().map_err(|e| format!("{}: {e}", words[0]))?;
    Ok(status.success())
}

/// Whether devices may be mounted too; who is root in a user namespace only is not.
pub fn may_mount_devices() -> bool {
    std::env::var_os(INSIDE).is_some_and(|who| who == "root")
}

/// Whether this is the machine's root, or that of the namespace.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How a device fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The file system finds itself damaged and becomes read-only: EROFS.
    ReadOnly,
    /// Every access to a file fails: EIO.
    Gone,
}

impl Fault {
    pub const ALL: [Fault; 2] = [Fault::ReadOnly, Fault::Gone];

    pub fn name(self) -> &'static str {
        match self {
            Fault::ReadOnly => "read-only",
            Fault::Gone => "io-error",
        }
    }
}

/// A mounted file system; dropped, it is unmounted.
pub struct Volume {
    /// Holds the mount point and, of a device, the file system behind it.
    dir: TempDir,
    is_device: bool,
}

impl Volume {
    /// A file system in memory.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn tmpfs(bytes: u64) -> Result<Volume, String> {
        let volume = Volume::new(false)?;
        mount(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"], &volume.path())?;
        Ok(volume)
    }

    /// An ext4 that can be made to fail.
    ///
    /// # Errors
    /// If it cannot be made or mounted.
    pub fn ext4() -> Result<Volume, String> {
        let volume = Volume::new(true)?;
        let backing = volume.backing();
        mount(&["-t", "tmpfs", "-o", &format!("size={BACKING_BYTES}"), "tmpfs"], &backing)?;
        let image = volume.image();
        let file = std::fs::File::create(&image).map_err(|e| format!("{image:?}: {e}"))?;
        file.set_len(DEVICE_BYTES).map_err(|e| format!("{image:?}: {e}"))?;
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&image);
        checked(mkfs.stdin(Stdio::null()), "mkfs.ext4")?;
        volume.mount_device()?;
        Ok(volume)
    }

    fn new(is_device: bool) -> Result<Volume, String> {
        let dir = tempfile::tempdir().map_err(|e| format!("temporary directory: {e}"))?;
        let volume = Volume { dir, is_device };
        for path in [volume.path(), volume.backing()] {
            std::fs::create_dir(&path).map_err(|e| format!("{path:?}: {e}"))?;
        }
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("volume")
    }

    fn backing(&self) -> PathBuf {
        self.dir.path().join("backing")
    }

    fn image(&self) -> PathBuf {
        self.backing().join("image")
    }

    fn mount_device(&self) -> Result<(), String> {
        let image = self.image();
        mount(&["-o", "loop,errors=remount-ro", &image.to_string_lossy()], &self.path())
    }

    /// Leaves no more than so many bytes, or less where it is fuller already, until it is emptied.
    ///
    /// # Errors
    /// If something else is in the way.
    pub fn fill_but(&self, bytes: u64) -> Result<(), String> {
        let path = self.ballast();
        let failed = |e: std::io::Error| format!("{path:?}: {e}");
        let state = rustix::fs::statvfs(self.path()).map_err(|e| failed(e.into()))?;
        let excess = (state.f_bavail * state.f_frsize).saturating_sub(bytes);
        if excess == 0 {
            return Ok(());
        }
        let file = std::fs::File::create(&path).map_err(failed)?;
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(&file, flags, 0, excess) {
            // The node was faster: nothing is left now.
            Err(rustix::io::Errno::NOSPC) | Ok(()) => Ok(()),
            Err(e) => Err(failed(e.into())),
        }
    }

    /// Gives back the space that [`Volume::fill_but`] has taken.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn empty(&self) -> Result<(), String> {
        let path = self.ballast();
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{path:?}: {e}")),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Writes a file until no byte is left; removed, the space is back.
    ///
    /// # Errors
    /// If something else is in the way.
    pub fn fill(&self) -> Result<PathBuf, String> {
        let path = self.ballast();
        let failed = |e| format!("{path:?}: {e}");
        let mut file = std::fs::File::create(&path).map_err(failed)?;
        for size in [1 << 20, 4096, 1] {
            let bytes = vec![1; size];
            loop {
                match file.write_all(&bytes) {
                    Ok(()) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(e) => return Err(failed(e)),
                }
            }
        }
        Ok(path)
    }

    /// Lets it fail from now on.
    ///
    /// # Errors
    /// If the system does not offer that fault.
    pub fn fail(&self, fault: Fault) -> Result<(), String> {
        let path = self.path();
        match fault {
            Fault::ReadOnly => {
                let mut find = Command::new("findmnt");
                find.args(["-no", "SOURCE"]).arg(&path).stdin(Stdio::null());
                let device = checked(&mut find, "findmnt")?;
                let name = device.trim().trim_start_matches("/dev/");
                let trigger = PathBuf::from(format!("/sys/fs/ext4/{name}/trigger_fs_error"));
                std::fs::write(&trigger, "compat").map_err(|e| format!("{trigger:?}: {e}"))
            }
            Fault::Gone => {
                // EXT4_IOC_SHUTDOWN without flushing the journal; std has no ioctl.
                let script = "import fcntl, os, struct, sys\n\
                    fcntl.ioctl(os.open(sys.argv[1], 0), 0x8004587d, struct.pack('I', 2))";
                let mut shutdown = Command::new("python3");
                shutdown.args(["-c", script]).arg(&path).stdin(Stdio::null());
                checked(&mut shutdown, "python3").map(drop)
            }
        }
    }

    /// Brings the device back, repaired as after a crash. Nobody may have a file of it open.
    ///
    /// # Errors
    /// If it cannot be repaired.
    pub fn repair(&self) -> Result<(), String> {
        umount(&self.path())?;
        let mut check = Command::new("e2fsck");
        check.arg("-p").arg(self.image()).stdin(Stdio::null());
        let output = check.output().map_err(|e| format!("e2fsck: {e}"))?;
        // 1: errors were corrected.
        if !matches!(output.status.code(), Some(0 | 1)) {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            return Err(format!("e2fsck ({}): {text}", output.status));
        }
        self.mount_device()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = umount(&self.path());
        if self.is_device {
            let _ = umount(&self.backing());
        }
    }
}

fn mount(args: &[&str], at: &Path) -> Result<(), String> {
    let mut command = Command::new("mount");
    command.args(args).arg(at).stdin(Stdio::null());
    checked(&mut command, "mount").map(drop)
}

fn umount(at: &Path) -> Result<(), String> {
    let mut command = Command::new("umount");
    command.arg(at).stdin(Stdio::null());
    checked(&mut command, "umount").map(drop)
}
