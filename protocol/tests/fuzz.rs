//! The fuzz targets on a stable compiler: over inputs that failed once, over the seeds, and over
//! seeds with bytes changed, in the same order each time. `OTTLA_FUZZ_INPUTS` is how many changed
//! seeds a target gets.

#[path = "../../fuzz/src/protocol.rs"]
mod targets;

use std::path::Path;

/// A small generator (xorshift) whose numbers are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

/// Values that lengths and counts go wrong at.
const EDGES: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff];

fn change(seed: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
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

fn testdata() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata"))
}

fn run(name: &str) {
    let (_, target) = targets::TARGETS.into_iter().find(|(found, _)| *found == name).expect("one");
    let regressions = testdata().join("../../fuzz/regressions").join(name);
    for entry in std::fs::read_dir(regressions).into_iter().flatten() {
        let path = entry.expect("a readable folder").path();
        target(&std::fs::read(path).expect("a readable file"));
    }
    let seeds = targets::seeds(testdata()).expect("test data");
    let seeds: Vec<_> =
        seeds.into_iter().filter(|(target, _)| *target == name).map(|(_, seed)| seed).collect();
    assert!(!seeds.is_empty());
    for seed in &seeds {
        target(seed);
    }
    let inputs = std::env::var("OTTLA_FUZZ_INPUTS").ok().and_then(|text| text.parse().ok());
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for _ in 0..inputs.unwrap_or(20_000) {
        let seed = &seeds[numbers.below(seeds.len())];
        let other = &seeds[numbers.below(seeds.len())];
        target(&change(seed, other, &mut numbers));
    }
}

#[test]
fn frames_survive_anything() {
    run("frames");
}

#[test]
fn requests_survive_anything() {
    run("requests");
}

#[test]
fn responses_survive_anything() {
    run("responses");
}

#[test]
fn batches_survive_anything() {
    run("batches");
}

#[test]
fn codecs_survive_anything() {
    run("codecs");
}

#[test]
fn records_survive_anything() {
    run("records");
}
