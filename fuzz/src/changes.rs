//! Changed seeds for the targets on a stable compiler, where no fuzzer drives them.

/// A small generator (xorshift) whose numbers are the same in every run.
pub struct Numbers(u64);

impl Default for Numbers {
    fn default() -> Self {
        Numbers(0x9e37_79b9_7f4a_7c15)
    }
}

impl Numbers {
    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

/// Values that lengths and counts go wrong at.
const EDGES: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff];

/// `seed` with a few bytes changed, left out, or taken from `other`.
pub fn change(seed: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        match numbers.below(6) {
            0 if at < bytes.len() => bytes[at] = EDGES[numbers.below(EDGES.len())],
            1 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, EDGES[numbers.below(EDGES.len())]),
            4 if at < bytes.len() => {
                let end = (at + 1 + numbers.below(8)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let from = numbers.below(other.len());
                let to = (from + numbers.below(32)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

/// How many changed seeds a target gets: `OTTLA_FUZZ_INPUTS`.
pub fn inputs() -> usize {
    let given = std::env::var("OTTLA_FUZZ_INPUTS").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(20_000)
}
