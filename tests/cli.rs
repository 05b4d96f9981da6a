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
    assert!(line("background.threads=").contains("; ignored: "));
}

#[test]
fn version_and_help_are_printed() {
    assert!(ottla(&["version"]).stdout.starts_with(b"ottla "));
    let help = ottla(&["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("start"), "{help:?}");
}

#[test]
fn check_says_by_its_status_whether_a_directory_is_sound() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("UTF-8");
    let status = |arguments: &[&str]| ottla(arguments).status.code();
    assert_eq!(status(&["check", path]), Some(2), "no log directory");
    assert_eq!(status(&["check"]), Some(2), "no ./ottla-data");
    let meta = dir.path().join("meta.properties");
    std::fs::write(&meta, "version=1\nnode.id=1\ncluster.id=c\n").expect("written");
    assert_eq!(status(&["check", path]), Some(0));
    std::fs::create_dir(dir.path().join("a-0")).expect("made");
    std::fs::write(dir.path().join("a-0/00000000000000000000.log"), [1; 200]).expect("written");
    std::fs::write(dir.path().join("recovery-point-offset-checkpoint"), "0\n1\na 0 9\n")
        .expect("written");
    let output = ottla(&["check", path, "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["clean"], false);
    assert_eq!(report["findings"][0]["kind"], "batch");
    assert!(output.stderr.is_empty(), "no bar without a terminal");
}

/// A broker on a free port in a fresh directory; killed when dropped.
struct Running {
    child: std::process::Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start() -> Running {
        use std::io::BufRead;
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
        command.args(["start", "--override", "listeners=PLAINTEXT://127.0.0.1:0"]);
        command.current_dir(dir.path()).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("starts");
        let stdout = child.stdout.take().expect("piped");
        let line = std::io::BufReader::new(stdout).lines().next().expect("a line").expect("text");
        let address = line.split_whitespace().nth(2).expect("an address").to_owned();
        Running { child, address, _dir: dir }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_load_runs_and_the_log_directory_stays_sound() {
    let broker = Running::start();
    let output = ottla(&[
        "bench",
        "ready",
        "produce",
        "fetch",
        "small",
        "latency",
        "connections",
        "--json",
        "--bootstrap-server",
        &broker.address,
        "--megabytes",
        "4",
        "--requests",
        "200",
        "--records",
        "50",
        "--idle-connections",
        "20",
    ]);
    assert!(output.status.success(), "{output:?}");
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for (load, figure) in [
        ("ready", "ready_ms"),
        ("produce", "mb_per_s"),
        ("fetch", "mb_per_s"),
        ("small", "requests_per_s"),
        ("latency", "p99_ms"),
        ("connections", "connections_per_s"),
    ] {
        assert!(
            figures[load][figure].as_f64().is_some_and(|value| value > 0.0),
            "{load}: {figures}"
        );
    }
    let data = broker._dir.path().join("ottla-data");
    let output = ottla(&["check", data.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{output:?}");
    check_error(&["bench", "nonsense", "--bootstrap-server", &broker.address], &["nonsense"]);
}
