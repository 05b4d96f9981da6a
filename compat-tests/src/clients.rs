//! The group scenario with every client: records of every codec, read by a group that changes.
//!
//! A client's program is given bootstrap servers, a prefix and a number of records. It creates a
//! topic of three partitions for each codec that the client has, and two members of one group that
//! subscribe to all of them. It produces two fifths of the records (key `k` and the number modulo
//! 100, value the number and some words), lets a third member join while it produces the next three
//! tenths, and the first member leave before the last three. It succeeds if every record of every
//! topic was read and each key's records came in order (producers are idempotent where the client
//! can: without it a retry may change the order); a record that is read again after a change
//! of the group is counted, not an error.
//!
//! `COMPAT_RECORDS` is the number of records of each codec, `COMPAT_LIMIT_S` how long a program
//! waits for a step.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::broker::{Broker, Side};
use crate::java::{self, checked};
use crate::paths::Paths;
use crate::report::Report;

/// Enough for every partition to have many batches; the full scenario has 100,000.
const RECORDS_DEFAULT: &str = "2000";
/// The versions of the Java client that are run.
const JAVA_VERSIONS: &[&str] = &["2.8.2", "3.9.1", "4.3.1", "4.4.0"];

/// A client whose program is built: its name and the command that takes the arguments.
pub struct Client {
    name: String,
    command: Vec<String>,
}

/// Builds the programs of all clients whose names contain `filter`; what cannot be built fails.
pub fn prepare(paths: &Paths, filter: &str, report: &Report) -> Vec<Client> {
    let mut clients = Vec::new();
    let mut add = |name: &str, build: &dyn Fn() -> Result<Vec<String>, String>| {
        if name.contains(filter) {
            match build() {
                Ok(command) => clients.push(Client { name: name.to_owned(), command }),
                Err(e) => report.failed(&format!("clients/{name}"), &e),
            }
        }
    };
    add("librdkafka", &librdkafka);
    for version in JAVA_VERSIONS {
        add(&format!("java-{version}"), &|| java_client(paths, version, "GroupScenario"));
    }
    add("franz-go", &|| go(paths));
    add("confluent-kafka", &|| python(paths, "confluent.py"));
    add("kafka-python", &|| python(paths, "kafka_python.py"));
    add("kafkajs", &|| js(paths));
    clients
}

/// Runs the clients one after another against one broker.
///
/// # Errors
/// If the broker does not start.
pub fn run(paths: &Paths, side: Side, clients: &[Client], report: &Report) -> Result<(), String> {
    let broker = Broker::start(paths, side, &[])?;
    let records = std::env::var("COMPAT_RECORDS").unwrap_or_else(|_| RECORDS_DEFAULT.to_owned());
    for client in clients {
        let title = format!("clients/{} [{side}]", client.name);
        let begin = Instant::now();
        let Some((program, first)) = client.command.split_first() else { continue };
        let mut command = Command::new(program);
        command.args(first).args([&broker.address(), &client.name, &records]);
        command.stdin(Stdio::null());
        match checked(&mut command, &client.name) {
            Ok(text) => {
                println!("{title}: {}", text.trim_end());
                report.passed(&title, begin.elapsed());
            }
            Err(e) => report.failed(&title, &e),
        }
    }
    Ok(())
}

/// The program over librdkafka, which is built with this one.
///
/// # Errors
/// If it was not built.
pub fn librdkafka() -> Result<Vec<String>, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let program = own.with_file_name("compat-librdkafka");
    if !program.exists() {
        return Err("build it with --features compat-tests/librdkafka".to_owned());
    }
    Ok(vec![text(&program)])
}

/// A class of `java/client`, compiled with the oldest client and run with any.
///
/// # Errors
/// If Maven or javac fail.
pub fn java_client(paths: &Paths, version: &str, main: &str) -> Result<Vec<String>, String> {
    let oldest = java::jars(paths, "client", JAVA_VERSIONS[0])?;
    java::compile(paths, "client", &oldest)?;
    let libs = java::jars(paths, "client", version)?;
    let classes = paths.work.join("classes/client");
    let class_path = format!("{}:{}/*", text(&classes), text(&libs));
    let words = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
    let quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=off";
    let words = words.into_iter().chain([quiet, "-cp", &class_path, main]);
    Ok(words.map(str::to_owned).collect())
}

fn go(paths: &Paths) -> Result<Vec<String>, String> {
    let program = paths.work.join("franz-go");
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(&program).arg(".");
    command.current_dir(paths.sources.join("clients/go")).stdin(Stdio::null());
    println!("compat: building franz-go");
    checked(&mut command, "go (Go 1.26 or newer)")?;
    Ok(vec![text(&program)])
}

fn python(paths: &Paths, script: &str) -> Result<Vec<String>, String> {
    let folder = paths.work.join("python");
    let sources = paths.sources.join("clients/python");
    let wanted = sources.join("requirements.txt");
    let requirements = std::fs::read_to_string(&wanted).map_err(|e| format!("{wanted:?}: {e}"))?;
    let stamp = folder.join(".complete");
    if !std::fs::read_to_string(&stamp).is_ok_and(|done| done == requirements) {
        println!("compat: fetching Python clients");
        let mut command = Command::new("python3");
        command.args(["-m", "venv", "--clear"]).arg(&folder).stdin(Stdio::null());
        checked(&mut command, "python3 (Debian: apt-get install python3-venv)")?;
        let mut command = Command::new(folder.join("bin/pip"));
        command.args(["install", "-q", "-r"]).arg(&wanted).stdin(Stdio::null());
        checked(&mut command, "pip")?;
        std::fs::write(&stamp, requirements).map_err(|e| format!("{stamp:?}: {e}"))?;
    }
    Ok(vec![text(&folder.join("bin/python")), "-B".to_owned(), text(&sources.join(script))])
}

fn js(paths: &Paths) -> Result<Vec<String>, String> {
    let folder = paths.work.join("js");
    let sources = paths.sources.join("clients/js");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{folder:?}: {e}"))?;
    let mut is_new = false;
    for name in ["package.json", "package-lock.json", "index.js"] {
        let (from, to) = (sources.join(name), folder.join(name));
        let wanted = std::fs::read(&from).map_err(|e| format!("{from:?}: {e}"))?;
        if std::fs::read(&to).is_ok_and(|there| there == wanted) {
            continue;
        }
        is_new = true;
        std::fs::write(&to, wanted).map_err(|e| format!("{to:?}: {e}"))?;
    }
    if is_new || !folder.join("node_modules").exists() {
        println!("compat: fetching KafkaJS");
        let mut command = Command::new("npm");
        command.args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder);
        command.stdin(Stdio::null());
        checked(&mut command, "npm (Debian: apt-get install npm)")?;
    }
    Ok(vec!["node".to_owned(), text(&folder.join("index.js"))])
}

fn text(path: &Path) -> String {
    PathBuf::from(path).to_string_lossy().into_owned()
}
