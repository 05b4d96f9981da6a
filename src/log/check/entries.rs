//! The entries of an index file, read front to back in blocks.

use crate::env::DiskFile;
use std::io;
use std::sync::Arc;

/// Entries read in one go.
const BLOCK: usize = 1024;

/// Reads entries of `N` bytes.
#[derive(Debug)]
pub(super) struct Entries<const N: usize> {
    file: Arc<dyn DiskFile>,
    /// Whole entries in the file.
    count: usize,
    /// The file is longer than its entries: Kafka allocates the index of an active segment in one piece, and the rest
    /// of it is zero.
    pub(super) is_preallocated: bool,
    next: usize,
    block: Vec<[u8; N]>,
    /// The number of the block's first entry.
    from: usize,
}

impl<const N: usize> Entries<N> {
    pub(super) fn open(file: Arc<dyn DiskFile>, len: u64) -> io::Result<Self> {
        let count = len as usize / N;
        let mut is_preallocated = false;
        if count >= 2 {
            let mut last = [0; N];
            file.read_exact_at(&mut last, ((count - 1) * N) as u64)?;
            is_preallocated = last == [0; N];
        }
        Ok(Entries { file, count, is_preallocated, next: 0, block: Vec::new(), from: 0 })
    }

    /// The present entry and its position in the file; `None` after the last.
    pub(super) fn peek(&mut self) -> io::Result<Option<([u8; N], u64)>> {
        if self.next >= self.count {
            return Ok(None);
        }
        if self.next >= self.from + self.block.len() {
            let wanted = BLOCK.min(self.count - self.next);
            self.block.resize(wanted, [0; N]);
            let position = (self.next * N) as u64;
            self.file.read_exact_at(self.block.as_flattened_mut(), position)?;
            self.from = self.next;
        }
        let entry = self.block[self.next - self.from];
        if self.is_preallocated && entry == [0; N] {
            self.count = self.next;
            return Ok(None);
        }
        Ok(Some((entry, (self.next * N) as u64)))
    }

    /// Goes on to the next entry.
    pub(super) fn advance(&mut self) {
        self.next += 1;
    }

    /// Gives up on the file.
    pub(super) fn stop(&mut self) {
        self.count = 0;
    }
}
