//! One broker process under test: the Ottla binary or Apache Kafka, started from the same file.
//!
//! Both get Kafka's `server.properties` for one combined KRaft node on loopback, so that every
//! scenario meets them in the same way; Kafka 2.8.2 gets one for ZooKeeper, and a ZooKeeper. The
//! data directory outlives the process, not this value.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::java;
use crate::paths::Paths;
use crate::zookeeper::{self, ZooKeeper};

/// Whose broker it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Ottla,
    Kafka,
    KafkaOlder,
    KafkaNewer,
    KafkaZooKeeper,
}

impl Side {
    /// Whether it is Apache Kafka, in whichever version.
    pub fn is_kafka(self) -> bool {
        self != Side::Ottla
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Ottla => "ottla",
            Side::Kafka => "kafka",
            Side::KafkaOlder => "kafka-3.9.1",
            Side::KafkaNewer => "kafka-4.4.0",
            Side::KafkaZooKeeper => "kafka-2.8.2",
        })
    }
}

/// How long a broker may take until its port answers.
const START_LIMIT: Duration = Duration::from_secs(180);
/// How long a broker may take to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The lowest port that is given out.
const PORT_MIN: u16 = 20_000;
/// How many ports may be given out.
const PORTS: u16 = 10_000;

/// Where a broker listens, how it gets there, and what its file says of its part in a cluster.
pub struct Seat {
    /// The address of its listeners.
    pub host: Ipv4Addr,
    pub port: u16,
    /// Lines of `server.properties`: roles, ids, voters, listeners.
    pub mode: Vec<String>,
    /// What stands before its command line, to run it elsewhere (`ip netns exec NAME`).
    pub prefix: Vec<String>,
    /// The id of the cluster that its directory belongs to, in the place of [`CLUSTER_ID`]'s.
    pub cluster_id: Option<&'static str>,
    /// What the format command is told besides; Ottla formats by itself where there is nothing.
    pub format: &'static [&'static str],
}

/// The id of every cluster of this suite's, in which Apache Kafka's directories are formatted.
pub const CLUSTER_ID: &str = "compat-tests-cluster-0";

/// A broker and its directory; dropped, the process is killed and the directory removed.
pub struct Broker {
    side: Side,
    paths: Paths,
    dir: TempDir,
    host: Ipv4Addr,
    port: u16,
    prefix: Vec<String>,
    child: Option<Child>,
    zookeeper: Option<ZooKeeper>,
}

impl Broker {
    /// Formats a fresh directory, starts a broker on it and waits until it listens. `DIR` in an override stands for
    /// the directory, in which `log` is the log directory otherwise.
    ///
    /// # Errors
    /// If the process cannot be started or does not listen in time; holds the end of its log.
    pub fn start(paths: &Paths, side: Side, overrides: &[&str]) -> Result<Broker, String> {
        let dir = tempfile::tempdir().map_err(|e| format!("temporary directory: {e}"))?;
        let (host, port) = (Ipv4Addr::LOCALHOST, free_port()?);
        let zookeeper = match side {
            Side::KafkaZooKeeper => Some(ZooKeeper::start(paths, dir.path())?),
            _ => None,
        };
        let mode = match &zookeeper {
            Some(zookeeper) => zookeeper_mode(port, &zookeeper.address()),
            None => kraft_mode(port, free_port()?),
        };
        let seat = Seat { host, port, mode, prefix: Vec::new(), cluster_id: None, format: &[] };
        let mut broker = Broker::seat_in(paths, side, dir, seat, overrides)?;
        broker.zookeeper = zookeeper;
        broker.launch()?;
        Ok(broker)
    }

    /// Formats a fresh directory for a node of a cluster, which is not started yet.
    ///
    /// # Errors
    /// If the directory cannot be made or formatted.
    pub fn seat(
        paths: &Paths,
        side: Side,
        seat: Seat,
        overrides: &[&str],
    ) -> Result<Broker, String> {
        let dir = tempfile::tempdir().map_err(|e| format!("temporary directory: {e}"))?;
        Broker::seat_in(paths, side, dir, seat, overrides)
    }

    /// Takes a fresh directory for an Ottla whose file has these lines and no others. `DIR` in a line stands for the
    /// directory, in which `log` is to be the log directory.
    ///
    /// # Errors
    /// If the directory cannot be made or the file not be written.
    pub fn seat_lines(paths: &Paths, port: u16, lines: &[String]) -> Result<Broker, String> {
        let dir = tempfile::tempdir().map_err(|e| format!("temporary directory: {e}"))?;
        let text = format!("{}\n", lines.join("\n")).replace("DIR", &dir.path().to_string_lossy());
        let file = dir.path().join("server.properties");
        std::fs::write(&file, text).map_err(|e| format!("{file:?}: {e}"))?;
        Ok(Broker {
            side: Side::Ottla,
            paths: paths.clone(),
            dir,
            host: Ipv4Addr::LOCALHOST,
            port,
            prefix: Vec::new(),
            child: None,
            zookeeper: None,
        })
    }

    fn seat_in(
        paths: &Paths,
        side: Side,
        dir: TempDir,
        seat: Seat,
        overrides: &[&str],
    ) -> Result<Broker, String> {
        let Seat { host, port, mode, prefix, cluster_id, format: more } = seat;
        let node = mode.iter().find(|line| line.starts_with("node.id=")).cloned();
        let properties = properties(dir.path(), &format!("{host}:{port}"), mode, overrides);
        let file = dir.path().join("server.properties");
        std::fs::write(&file, properties).map_err(|e| format!("{file:?}: {e}"))?;
        let paths = paths.clone();
        let broker = Broker { side, paths, dir, host, port, prefix, child: None, zookeeper: None };
        if side.is_kafka() && side != Side::KafkaZooKeeper {
            let config = file.to_string_lossy().into_owned();
            let id = cluster_id.unwrap_or(CLUSTER_ID);
            let mut format = broker.kafka("kafka.tools.StorageTool")?;
            format.args(["format", "-t", id, "-c", &config]).args(more).stdin(Stdio::null());
            java::checked(&mut format, "format")?;
        } else if !more.is_empty() {
            let mut format = Command::new(&broker.paths.ottla);
            let id = cluster_id.unwrap_or(CLUSTER_ID);
            format.arg("format").arg(&file).args(["--cluster-id", id]).args(more);
            java::checked(format.current_dir(broker.dir.path()), "format")?;
        } else if let Some(id) = cluster_id {
            // Ottla makes what is missing when it starts, and takes what is there.
            let (dir, file) = (broker.log_dir(), broker.log_dir().join("meta.properties"));
            let text = format!("version=1\ncluster.id={id}\n{}\n", node.unwrap_or_default());
            std::fs::create_dir_all(&dir).map_err(|e| format!("{dir:?}: {e}"))?;
            std::fs::write(&file, text).map_err(|e| format!("{file:?}: {e}"))?;
        }
        Ok(broker)
    }

    pub fn side(&self) -> Side {
        self.side
    }

    /// Lets another side's broker be the next that is launched on this directory.
    pub fn hand_over(&mut self, side: Side) {
        self.side = side;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The program under test.
    pub fn ottla(&self) -> &Path {
        &self.paths.ottla
    }

    /// The directory that holds the partitions.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Its `server.properties`.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("server.properties")
    }

    /// What the process printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("broker.log")).unwrap_or_default()
    }

    /// Starts the process again on the same directory and port; answers the time until it listened.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn launch(&mut self) -> Result<Duration, String> {
        let begin = Instant::now();
        self.spawn()?;
        self.wait_until_it_listens(begin)?;
        Ok(begin.elapsed())
    }

    /// Starts the process and does not wait.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&mut self) -> Result<(), String> {
        let file = self.dir.path().join("server.properties");
        let mut command = match self.side {
            Side::Ottla => {
                let mut command = Command::new(&self.paths.ottla);
                command.arg("start");
                if let Some(zookeeper) = &self.zookeeper {
                    command.args(["--from-zookeeper", &zookeeper.address()]);
                }
                command
            }
            _ => self.kafka("kafka.Kafka")?,
        };
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("broker.log"))
            .map_err(|e| format!("broker.log: {e}"))?;
        let log_of_errors = log.try_clone().map_err(|e| format!("broker.log: {e}"))?;
        command.arg(&file);
        let mut command = prefixed(&self.prefix, command);
        command.current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(log).stderr(log_of_errors);
        let child = command.spawn().map_err(|e| format!("{command:?} does not start: {e}"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether a process was started and neither stopped nor killed since.
    pub fn is_launched(&self) -> bool {
        self.child.is_some()
    }

    /// Fails if the process, which should run, has ended by itself.
    ///
    /// # Errors
    /// If so; holds the end of its log.
    pub fn expect_running(&mut self) -> Result<(), String> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => {
                self.child = None;
                Err(format!("{} ended ({status}): {}", self.side, tail(&self.log())))
            }
            Some(Err(e)) => Err(format!("wait: {e}")),
            Some(Ok(None)) | None => Ok(()),
        }
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// If there is none.
    pub fn signal(&self, wanted: rustix::process::Signal) -> Result<(), String> {
        signal(self.child.as_ref().ok_or("no process")?.id(), wanted)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        signal(child.id(), rustix::process::Signal::TERM)?;
        let begin = Instant::now();
        while begin.elapsed() < STOP_LIMIT {
            match child.try_wait() {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Err(e) => return Err(format!("wait: {e}")),
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(format!("{} did not stop within {} s of SIGTERM", self.side, STOP_LIMIT.as_secs()))
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until the process ends by itself; answers its exit status.
    ///
    /// # Errors
    /// If it does not within `limit`.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let Some(mut child) = self.child.take() else { return Err("no process".to_owned()) };
        let begin = Instant::now();
        while begin.elapsed() < limit {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Err(e) => return Err(format!("wait: {e}")),
            }
        }
        self.child = Some(child);
        Err(format!("{} goes on after {} s", self.side, limit.as_secs()))
    }

    /// Waits until it listens, having been started at `begin`.
    ///
    /// # Errors
    /// If it ends or does not listen in time.
    pub fn wait_until_it_listens(&mut self, begin: Instant) -> Result<(), String> {
        let address = SocketAddr::from((self.host, self.port));
        while begin.elapsed() < START_LIMIT {
            if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
                return Ok(());
            }
            let ended = match self.child.as_mut() {
                Some(child) => child.try_wait().map_err(|e| e.to_string())?,
                None => return Err("no process".to_owned()),
            };
            if let Some(status) = ended {
                self.child = None;
                return Err(format!("{} ended ({status}): {}", self.side, tail(&self.log())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("{} does not listen on port {}: {}", self.side, self.port, tail(&self.log())))
    }

    fn kafka(&self, main: &str) -> Result<Command, String> {
        let (pom, version) = match self.side {
            Side::KafkaZooKeeper => return zookeeper::java_command(&self.paths, main),
            Side::KafkaOlder => ("kafka", java::KAFKA_OLDER),
            Side::KafkaNewer => ("broker", java::KAFKA_NEWER),
            Side::Kafka | Side::Ottla => ("kafka", java::KAFKA),
        };
        let libs = java::jars(&self.paths, pom, version)?;
        let log = self.paths.sources.join("java/runner/log4j2.properties");
        let mut command = Command::new("java");
        command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.arg(format!("-Dlog4j2.configurationFile={}", log.display()));
        command.args(["-cp", &format!("{}/*", libs.display()), main]);
        Ok(command)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process that this suite started.
///
/// # Errors
/// If there is no such process.
pub fn signal(pid: u32, signal: rustix::process::Signal) -> Result<(), String> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or("no process id")?;
    rustix::process::kill_process(pid, signal).map_err(|e| format!("signal: {e}"))
}

/// A port of the loopback interface that nobody listens on and that this run has not given out:
/// below those that the system gives to outgoing connections, which could take it meanwhile.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16, String> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % u32::from(PORTS)).unwrap_or_default();
    for _ in 0..PORTS {
        let step = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = PORT_MIN + first.wrapping_add(step) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(format!("no free port from {PORT_MIN} on"))
}

/// The command line behind these words, which end in running it.
fn prefixed(prefix: &[String], command: Command) -> Command {
    let Some((first, rest)) = prefix.split_first() else { return command };
    let mut whole = Command::new(first);
    whole.args(rest).arg(command.get_program()).args(command.get_args());
    whole
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn kraft_mode(port: u16, controller_port: u16) -> Vec<String> {
    vec![
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.voters=1@127.0.0.1:{controller_port}"),
        format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned(),
    ]
}

fn zookeeper_mode(port: u16, zookeeper: &str) -> Vec<String> {
    vec![
        "broker.id=1".to_owned(),
        format!("zookeeper.connect={zookeeper}"),
        "zookeeper.session.timeout.ms=3000".to_owned(),
        format!("listeners=PLAINTEXT://127.0.0.1:{port}"),
    ]
}

fn properties(dir: &Path, address: &str, mode: Vec<String>, overrides: &[&str]) -> String {
    let common = [
        format!("advertised.listeners=PLAINTEXT://{address}"),
        format!("log.dirs={}", dir.join("log").display()),
        "offsets.topic.num.partitions=5".to_owned(),
        "offsets.topic.replication.factor=1".to_owned(),
        "transaction.state.log.replication.factor=1".to_owned(),
        "transaction.state.log.min.isr=1".to_owned(),
        "share.coordinator.state.topic.replication.factor=1".to_owned(),
        "share.coordinator.state.topic.min.isr=1".to_owned(),
        "group.initial.rebalance.delay.ms=0".to_owned(),
    ];
    let lines: Vec<String> = mode.into_iter().chain(common).collect();
    let mut text = lines.join("\n");
    for line in overrides {
        text.push('\n');
        text.push_str(&line.replace("DIR", &dir.to_string_lossy()));
    }
    text.push('\n');
    text
}
