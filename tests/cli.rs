//! The program as a person meets it: what it prints, and how it ends when something is wrong.

use std::process::{Command, Output};

fn ottla(arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.args(arguments).current_dir(dir.path()).env_remove("RUST_LOG");
    command.output().expect("runs")
}

fn check_error(arguments: &[&str], parts: &[&str]) {
    let output = ottla(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
    let last = error.lines().last().unwrap_or_default();
    assert!(last.starts_with("ottla: "), "{error}");
    for part in parts {
        assert!(last.contains(part), "{part} is not in: {error}");
    }
}

#[test]
fn a_wrong_value_is_one_line_with_key_value_and_range() {
    let parts = ["num.partitions", "Invalid value 0", "[1,...]"];
    check_error(&["config", "--override", "num.partitions=0"], &parts);
    check_error(&["start", "--override", "num.partitions=0"], &parts);
    let parts = ["listeners", "SSL", "PLAINTEXT"];
    check_error(&["start", "--override", "listeners=SSL://:0"], &parts);
    check_error(&["start", "no-such-file.properties"], &["no-such-file.properties"]);
    check_error(&["start", "--override", "nonsense"], &["KEY=VALUE"]);
}

#[test]
fn a_port_in_use_and_a_bad_directory_are_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{port}");
    check_error(&["start", "--override", &listeners], &[&port]);
    let arguments =
        ["--override", "listeners=PLAINTEXT://127.0.0.1:0", "--override", "log.dirs=/dev/null/x"];
    check_error(&[&["start"][..], &arguments].concat(), &["/dev/null/x"]);
}

#[test]
fn config_shows_values_with_their_sources() {
    let output = ottla(&["config", "--override", "num.partitions=7"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    assert_eq!(line("num.partitions="), "num.partitions=7  # --override");
    assert_eq!(line("message.max.bytes="), "message.max.bytes=1048588  # default");
    assert!(line("log.cleaner.threads=").contains("; ignored: "));
}

#[test]
fn version_and_help_are_printed() {
    assert!(ottla(&["version"]).stdout.starts_with(b"ottla "));
    let help = ottla(&["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("start"), "{help:?}");
}
