//! `--scale` goes through, with a cluster small enough for a test.

use std::process::Command;

#[test]
fn a_small_cluster_loses_a_broker_and_is_whole_again() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla-sim"));
    command.args(["--scale", "--brokers", "5", "--partitions", "200", "--leaders", "80"]);
    let output = command.output().expect("the simulator runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    let value = |what: &str| {
        let line = told.lines().find(|line| line.trim_start().starts_with(what));
        line.and_then(|line| line.split_whitespace().last()).unwrap_or_default().to_owned()
    };
    assert_eq!(value("partitions that lost their leader"), "80", "{told}");
    // Five heartbeats each two seconds, whatever else there is.
    assert!(told.contains("idle: BrokerHeartbeat at controllers"), "{told}");
}
