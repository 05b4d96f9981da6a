//! What the broker's process has used, as Linux tells it.

use crate::env::Disk;
use std::path::PathBuf;

/// Linux counts CPU time for user space in hundredths of a second on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds and resident megabytes of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) cpu_s: f64,
    pub(super) resident_mb: f64,
}

/// What `pid` has used until now; `None` without a process, or off Linux.
pub(super) fn usage(disk: &dyn Disk, pid: Option<u32>) -> Option<Usage> {
    let dir = PathBuf::from(format!("/proc/{}", pid?));
    let text = |name| String::from_utf8(disk.read(&dir.join(name)).ok()?).ok();
    Some(Usage { cpu_s: cpu_s(&text("stat")?)?, resident_mb: resident_mb(&text("status")?)? })
}

/// Fields 14 and 15, user and system time; the name before them may hold anything.
pub(super) fn cpu_s(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

pub(super) fn resident_mb(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes / 1024.0)
}
