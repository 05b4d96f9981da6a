//! The fuzz target of the configuration on a stable compiler, as `protocol/tests/fuzz.rs` does for the wire.

#[path = "../fuzz/src/changes.rs"]
mod changes;
#[path = "../fuzz/src/config.rs"]
mod targets;

use changes::{Numbers, change, inputs};
use std::path::Path;

#[test]
fn properties_survive_anything() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds = vec![
        std::fs::read(root.join("config/server.properties")).expect("the sample file"),
        b"broker.id=0\nlisteners=PLAINTEXT://:9092\nlog.dirs=a,b\nzookeeper.connect=h:2181/c\n"
            .to_vec(),
        b"a\\\n  b : c\\u0041\n! x\nlog.retention.hours 7\n".to_vec(),
    ];
    // Whole files are long: their parts alone are changed more often.
    let lines: Vec<Vec<u8>> = seeds[0].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    seeds.extend(lines.chunks(20).map(|part| part.join(&b'\n')));
    seeds.iter().for_each(|seed| targets::properties(seed));
    let mut numbers = Numbers::default();
    for _ in 0..inputs() {
        let seed = &seeds[numbers.below(seeds.len())];
        let other = &seeds[numbers.below(seeds.len())];
        targets::properties(&change(seed, other, &mut numbers));
    }
}
