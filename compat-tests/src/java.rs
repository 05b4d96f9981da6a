//! Java: jars from Maven, classes from javac, and the JVM that runs many command lines of tools.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::paths::Paths;

/// The version of Apache Kafka that scenarios are compared with.
pub const KAFKA: &str = "4.3.1";
/// The older version whose tools are in use as well.
pub const KAFKA_OLDER: &str = "3.9.1";
/// A newer version, of which there is the broker alone.
pub const KAFKA_NEWER: &str = "4.4.0";
/// The version with ZooKeeper, whose directories are taken over.
pub const KAFKA_ZOOKEEPER: &str = "2.8.2";

/// Fetches the jars of one pom below `java/` in one version; answers their directory.
///
/// # Errors
/// If Maven is missing or fails.
pub fn jars(paths: &Paths, pom: &str, version: &str) -> Result<PathBuf, String> {
    let libs = paths.work.join(format!("libs/{pom}-{version}"));
    let stamp = libs.join(".complete");
    let source = paths.sources.join(format!("java/{pom}/pom.xml"));
    let text = std::fs::read_to_string(&source).map_err(|e| format!("{source:?}: {e}"))?;
    if std::fs::read_to_string(&stamp).is_ok_and(|done| done == text) {
        return Ok(libs);
    }
    let _ = std::fs::remove_dir_all(&libs);
    println!("compat: fetching {pom} {version} with Maven");
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-f"]).arg(&source).arg("dependency:copy-dependencies");
    command.arg(format!("-DoutputDirectory={}", libs.display()));
    // Kafka 3.9 brings a second binding of SLF4J, of which one must go.
    command.arg("-DexcludeArtifactIds=slf4j-reload4j");
    let property = if pom == "flume" { "flume" } else { "kafka" };
    command.arg(format!("-D{property}.version={version}")).stdin(Stdio::null());
    checked(&mut command, "mvn (Maven, Debian: apt-get install maven)")?;
    std::fs::write(&stamp, text).map_err(|e| format!("{stamp:?}: {e}"))?;
    Ok(libs)
}

/// Compiles Java sources against the jars of `libs`; answers the class path to run them with.
///
/// # Errors
/// If javac is missing or finds errors.
pub fn compile(paths: &Paths, name: &str, libs: &Path) -> Result<String, String> {
    let classes = paths.work.join(format!("classes/{name}"));
    std::fs::create_dir_all(&classes).map_err(|e| format!("{classes:?}: {e}"))?;
    let folder = paths.sources.join("java").join(name);
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| format!("{folder:?}: {e}"))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "java") {
            sources.push(path);
        }
    }
    let mut command = Command::new("javac");
    command.args(["-nowarn", "-encoding", "UTF-8", "-Xlint:none", "--release", "11", "-cp"]);
    command.arg(format!("{}/*", libs.display())).arg("-d").arg(&classes).args(&sources);
    checked(&mut command, "javac (JDK 17, Debian: apt-get install openjdk-17-jdk-headless)")?;
    Ok(format!("{}:{}/*", classes.display(), libs.display()))
}

/// Runs a command to its end; the error holds what it printed.
///
/// # Errors
/// If it cannot be started or does not end with status 0.
pub fn checked(command: &mut Command, what: &str) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{what} does not start: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let err = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what} failed ({}):\n{text}{err}", output.status))
}

/// What a command line of a tool printed and its exit status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: i64,
    pub out: String,
    pub err: String,
}

/// Runs one command line of a tool in a JVM of its own: for one that closes the standard output it is given.
///
/// # Errors
/// If it cannot be started or does not end within `limit`.
pub fn alone(
    paths: &Paths,
    main: &str,
    args: &[&str],
    stdin: &str,
    limit: Duration,
) -> Result<Answer, String> {
    let folder = tempfile::tempdir().map_err(|e| format!("temporary directory: {e}"))?;
    let [input, out, err] = ["in", "out", "err"].map(|name| folder.path().join(name));
    std::fs::write(&input, stdin).map_err(|e| format!("{input:?}: {e}"))?;
    let create = |path: &Path| std::fs::File::create(path).map_err(|e| format!("{path:?}: {e}"));
    let config = paths.sources.join("java/runner/log4j2.properties");
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg(format!("-Dlog4j2.configurationFile={}", config.display()));
    command.arg(format!("-Djava.io.tmpdir={}", folder.path().display()));
    command
        .args(["-cp", &format!("{}/*", jars(paths, "kafka", KAFKA)?.display()), main])
        .args(args);
    command.stdin(std::fs::File::open(&input).map_err(|e| format!("{input:?}: {e}"))?);
    command.stdout(create(&out)?).stderr(create(&err)?);
    let mut child = command.spawn().map_err(|e| format!("java does not start: {e}"))?;
    let begin = Instant::now();
    let ended = loop {
        match child.try_wait() {
            Ok(None) if begin.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
            ended => break ended,
        }
    };
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (out, err) = (text(&out), text(&err));
    let Ok(Some(status)) = ended else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("{main} {args:?}: {ended:?} after {} s\n{out}{err}", limit.as_secs()));
    };
    Ok(Answer { status: status.code().map_or(-1, i64::from), out, err })
}

type Waiting = Arc<Mutex<BTreeMap<u64, Sender<Answer>>>>;

/// A JVM that runs command lines of one version's tools.
pub struct ToolRunner {
    child: Child,
    stdin: ChildStdin,
    waiting: Waiting,
    next: u64,
}

/// A command line that was started and has not answered yet.
pub struct Running {
    id: u64,
    answer: Receiver<Answer>,
}

impl ToolRunner {
    /// Fetches what it needs and starts the JVM.
    ///
    /// # Errors
    /// If Java is missing or the runner cannot be built.
    pub fn start(paths: &Paths, version: &str) -> Result<ToolRunner, String> {
        let libs = jars(paths, "kafka", version)?;
        let class_path = runner_class_path(paths, version, &libs)?;
        let config = paths.sources.join("java/runner/log4j2.properties");
        let mut command = Command::new("java");
        command.args(["-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.args(["-Djava.security.manager=allow", "--add-opens"]);
        command.arg("java.base/java.lang=ALL-UNNAMED");
        command.arg(format!("-Dlog4j2.configurationFile={}", config.display()));
        command.args(["-cp", &class_path, "ToolRunner"]);
        command.arg(libs.join(format!("kafka-tools-{version}.jar")));
        command.arg(libs.join(format!("kafka_2.13-{version}.jar")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|e| format!("java does not start: {e}"))?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let waiting = Waiting::default();
        let answers = Arc::clone(&waiting);
        std::thread::spawn(move || read_answers(stdout, &answers));
        Ok(ToolRunner { child, stdin, waiting, next: 0 })
    }

    /// Starts one command line.
    ///
    /// # Errors
    /// If the JVM is gone.
    pub fn spawn(&mut self, main: &str, args: &[String], stdin: &str) -> Result<Running, String> {
        self.next += 1;
        let id = self.next;
        let (sender, answer) = channel();
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.insert(id, sender);
        }
        let request = json!({"id": id.to_string(), "main": main, "args": args, "stdin": stdin});
        self.send(&request)?;
        Ok(Running { id, answer })
    }

    /// Runs one command line to its end.
    ///
    /// # Errors
    /// If it does not end within `limit` or the JVM is gone.
    pub fn run(
        &mut self,
        main: &str,
        args: &[String],
        stdin: &str,
        limit: Duration,
    ) -> Result<Answer, String> {
        self.spawn(main, args, stdin)?.wait(limit)
    }

    /// Runs the shutdown hooks of a running command, as a SIGTERM would.
    ///
    /// # Errors
    /// If the JVM is gone.
    pub fn stop(&mut self, running: &Running) -> Result<(), String> {
        self.send(&json!({"stop": running.id.to_string()}))
    }

    fn send(&mut self, request: &Value) -> Result<(), String> {
        writeln!(self.stdin, "{request}").map_err(|e| format!("the tools' JVM is gone: {e}"))
    }
}

impl Running {
    /// Waits for the end of the command.
    ///
    /// # Errors
    /// If it does not end within `limit` or the JVM is gone.
    pub fn wait(self, limit: Duration) -> Result<Answer, String> {
        let late = |e| format!("no end within {} s: {e}", limit.as_secs());
        self.answer.recv_timeout(limit).map_err(late)
    }
}

impl Drop for ToolRunner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compiles the runner once a version; two sides may ask at the same time.
fn runner_class_path(paths: &Paths, version: &str, libs: &Path) -> Result<String, String> {
    static COMPILED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().map_err(|e| e.to_string())?;
    if let Some(class_path) = compiled.get(version) {
        return Ok(class_path.clone());
    }
    let class_path = compile(paths, "runner", libs)?;
    println!("compat: tools of Apache Kafka {version} are ready");
    compiled.insert(version.to_owned(), class_path.clone());
    Ok(class_path)
}

fn read_answers(stdout: impl std::io::Read, waiting: &Waiting) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { break };
        let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let answer = Answer {
            status: value["status"].as_i64().unwrap_or(-1),
            out: text("out"),
            err: text("err"),
        };
        let Ok(id) = text("id").parse::<u64>() else { continue };
        let Ok(mut waiting) = waiting.lock() else { break };
        if let Some(sender) = waiting.remove(&id) {
            let _ = sender.send(answer);
        }
    }
    if let Ok(mut waiting) = waiting.lock() {
        waiting.clear();
    }
}
