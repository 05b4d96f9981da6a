//! Numbers that look random, drawn from a seed that comes with the request.
//!
//! Machines have no source of randomness of their own, so that the same requests give the same
//! records.

use ottla_protocol::uuid_to_text;
use uuid::Uuid;

/// A generator (xoroshiro128+); not for secrets.
#[derive(Debug, Clone)]
pub struct Random {
    low: u64,
    high: u64,
}

impl Random {
    /// Starts from a seed, usually a random UUID.
    pub fn new(seed: Uuid) -> Self {
        let (high, low) = seed.as_u64_pair();
        let (low, high) = (scramble(low), scramble(high ^ low.rotate_left(32)));
        // The state may be anything but zero.
        Random { low: if low == 0 && high == 0 { 1 } else { low }, high }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        let (low, mut high) = (self.low, self.high);
        let result = low.wrapping_add(high);
        high ^= low;
        self.low = low.rotate_left(24) ^ high ^ (high << 16);
        self.high = high.rotate_left(37);
        result
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next_u64() % bound as u64) as usize }
    }

    /// Puts items into another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// A new id. Like Kafka's, its text never begins with a dash, which command lines would take
    /// for an option.
    pub fn topic_id(&mut self) -> Uuid {
        loop {
            let bits = u128::from(self.next_u64()) << 64 | u128::from(self.next_u64());
            let id = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
            if !uuid_to_text(id).starts_with('-') {
                return id;
            }
        }
    }
}

/// SplitMix64: seeds that differ little give states that differ much.
fn scramble(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
