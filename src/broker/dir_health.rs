//! Whether a log directory takes records. Every partition in it looks before it appends; that is one load.
//!
//! Invariant: a directory that is offline stays so until the process ends: what its files hold is known only to a
//! recovery. Source: KIP-112.

use std::sync::atomic::{AtomicBool, Ordering};

/// The state of one log directory.
#[derive(Debug, Default)]
pub struct DirHealth {
    is_offline: AtomicBool,
}

impl DirHealth {
    /// Whether a write or a sync failed in it.
    pub fn is_offline(&self) -> bool {
        self.is_offline.load(Ordering::Acquire)
    }

    /// Takes it out of use for good; `true` for the first to say so.
    pub fn take_offline(&self) -> bool {
        !self.is_offline.swap(true, Ordering::AcqRel)
    }
}
