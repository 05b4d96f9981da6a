//! The parts of a run that need no broker; `tests/cli.rs` runs the loads against the binary.

use super::loads::percentiles;
use super::process::{cpu_s, resident_mb};
use super::*;

#[test]
fn percentiles_are_of_sorted_values() {
    let values = percentiles((1..=1000).rev().collect());
    assert_eq!(values, [("p50_ms", 0.501, "ms"), ("p99_ms", 0.991, "ms"), ("p999_ms", 1.0, "ms")]);
    assert_eq!(percentiles(Vec::new())[0].1, 0.0);
}

#[test]
fn usage_is_read_whatever_the_process_is_called() {
    let stat = "12 (a) b) S 1 1 1 0 -1 4194560 1 2 3 4 250 150 0 0 20 0 1 0 100 1 1";
    assert_eq!(cpu_s(stat), Some(4.0));
    assert_eq!(cpu_s("nonsense"), None);
    assert_eq!(resident_mb("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2.0));
}

#[test]
fn outcomes_are_shown_as_lines_and_as_json() {
    let outcome = Outcome { load: Load::Ready, figures: vec![("ready_ms", 12.5, "ms")] };
    assert!(to_text(std::slice::from_ref(&outcome)).contains("ready_ms"));
    assert_eq!(to_json(&[outcome]), "{\"ready\":{\"ready_ms\":12.5}}\n");
    assert_eq!(Load::of_name("fetch"), Some(Load::Fetch));
    assert_eq!(Load::of_name("nothing"), None);
}
