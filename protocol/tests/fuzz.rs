//! The fuzz targets on a stable compiler: over inputs that failed once, over the seeds, and over
//! seeds with bytes changed, in the same order each time. `OTTLA_FUZZ_INPUTS` is how many changed
//! seeds a target gets.

#[path = "../../fuzz/src/changes.rs"]
mod changes;
#[path = "../../fuzz/src/protocol.rs"]
mod targets;

use changes::{Numbers, change, inputs};
use std::path::Path;

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
    let mut numbers = Numbers::default();
    for _ in 0..inputs() {
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
