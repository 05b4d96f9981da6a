//! The cleaner's map from a key to the last offset that has it, of a fixed size.
//!
//! Keys are kept as 128-bit hashes, 24 bytes an entry, as Kafka keeps them, so that the map's memory depends on the
//! number of keys only. The hash is keyed at random: nobody outside can make keys that collide.

use ottla_protocol::Offset;
use std::hash::{BuildHasher, RandomState};

/// Bytes of a slot.
pub(crate) const ENTRY_SIZE: usize = 24;

/// Two halves of the hash, and the offset plus one; 0 there is a free slot.
type Slot = [u64; 3];

pub(crate) struct KeyMap {
    slots: Vec<Slot>,
    /// Entries it takes.
    capacity: usize,
    len: usize,
    latest_offset: Offset,
    hashers: [RandomState; 2],
}

impl KeyMap {
    /// A map of at most `bytes`, filled up to `load_factor`, and no larger than `keys_max` keys need.
    pub(crate) fn new(bytes: usize, load_factor: f64, keys_max: usize) -> Self {
        let load_factor = load_factor.clamp(0.01, 1.0);
        let needed = (keys_max as f64 / load_factor) as usize;
        let count = (bytes / ENTRY_SIZE).min(needed.saturating_add(2));
        KeyMap {
            slots: vec![[0; 3]; count],
            // One slot stays free, where a search ends.
            capacity: ((count as f64 * load_factor) as usize).min(count.saturating_sub(1)),
            len: 0,
            latest_offset: Offset(-1),
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// Entries it takes.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Entries it has.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Every record up to this offset has been put in.
    pub(crate) fn latest_offset(&self) -> Offset {
        self.latest_offset
    }

    pub(crate) fn set_latest_offset(&mut self, offset: Offset) {
        self.latest_offset = offset;
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        [self.hashers[0].hash_one(key), self.hashers[1].hash_one(key)]
    }

    /// The slot that has the hash, or the free one where it would go.
    fn find(&self, hash: [u64; 2]) -> usize {
        let count = self.slots.len();
        let mut at = ((u128::from(hash[0]) * count as u128) >> 64) as usize;
        // A slot is always free, so that this ends.
        while self.slots[at][2] != 0 && self.slots[at][..2] != hash {
            at = if at + 1 == count { 0 } else { at + 1 };
        }
        at
    }

    /// Notes that `key` was seen at `offset`; `false` when the map is full, and nothing was noted.
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        if self.len >= self.capacity {
            return false;
        }
        let hash = self.hash(key);
        let at = self.find(hash);
        self.len += usize::from(self.slots[at][2] == 0);
        self.slots[at] = [hash[0], hash[1], offset.0 as u64 + 1];
        self.latest_offset = offset;
        true
    }

    /// The last offset that `key` was seen at; -1 for a key that was not.
    pub(crate) fn get(&self, key: &[u8]) -> Offset {
        if self.len == 0 {
            return Offset(-1);
        }
        Offset(self.slots[self.find(self.hash(key))][2] as i64 - 1)
    }
}

impl std::fmt::Debug for KeyMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let KeyMap { len, capacity, latest_offset, .. } = self;
        write!(f, "KeyMap({len} of {capacity} keys up to offset {latest_offset})")
    }
}
