//! Where sequential readers of a segment go on: the batch after each of the last regions that were handed out, so that
//! the next fetch finds it without a search.
//!
//! Invariants: a cursor is a batch of the segment, which only a truncation takes away; few are kept, none before the
//! first region that ends within the segment.

use super::segment::BatchPosition;
use ottla_protocol::Offset;
use parking_lot::Mutex;

/// Cursors of a segment: readers at different places, and a reader that asks again. 160 bytes.
const CURSORS_MAX: usize = 4;

/// A batch, and an entry of the offset index that is not behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) batch: BatchPosition,
    pub(crate) entry: usize,
}

/// The newest cursors, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Cursors(Mutex<Vec<Cursor>>);

impl Cursors {
    /// The one whose batch holds `offset`.
    pub(crate) fn find(&self, offset: Offset) -> Option<Cursor> {
        let holds =
            |batch: &BatchPosition| (batch.base_offset..=batch.last_offset).contains(&offset);
        self.0.lock().iter().find(|cursor| holds(&cursor.batch)).copied()
    }

    pub(crate) fn note(&self, cursor: Cursor) {
        let mut all = self.0.lock();
        if all.iter().any(|known| known.batch == cursor.batch) {
            return;
        }
        if all.len() == CURSORS_MAX {
            all.remove(0);
        }
        all.reserve_exact(1);
        all.push(cursor);
    }

    pub(crate) fn clear(&self) {
        *self.0.lock() = Vec::new();
    }
}
