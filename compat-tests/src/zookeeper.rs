//! A ZooKeeper server of the release that came with Apache Kafka 2.8.2, for brokers that need one.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::free_port;
use crate::java;
use crate::paths::Paths;

/// The chroot of the cluster: half of the world's clusters have one.
const CHROOT: &str = "/kafka";
/// How long the server may take until its port answers.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A server and where it listens; dropped, its process is killed. Its data lies in the broker's directory.
pub struct ZooKeeper {
    child: Child,
    port: u16,
}

impl ZooKeeper {
    /// Starts a server with its data below `dir` and waits until it listens.
    ///
    /// # Errors
    /// If it cannot be started or does not listen in time.
    pub fn start(paths: &Paths, dir: &Path) -> Result<ZooKeeper, String> {
        let port = free_port()?;
        let lines = [
            format!("dataDir={}", dir.join("zookeeper").display()),
            format!("clientPort={port}"),
            "clientPortAddress=127.0.0.1".to_owned(),
            "admin.enableServer=false".to_owned(),
            "maxClientCnxns=0".to_owned(),
            // A session lasts 2 to 20 ticks: those of killed brokers end soon.
            "tickTime=500".to_owned(),
        ];
        let file = dir.join("zookeeper.properties");
        std::fs::write(&file, lines.join("\n")).map_err(|e| format!("{file:?}: {e}"))?;
        let path = dir.join("zookeeper.log");
        let log = std::fs::File::create(&path).map_err(|e| format!("{path:?}: {e}"))?;
        let errors = log.try_clone().map_err(|e| format!("{path:?}: {e}"))?;
        let mut command = java_command(paths, "org.apache.zookeeper.server.ZooKeeperServerMain")?;
        command.arg(&file).current_dir(dir);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().map_err(|e| format!("{command:?} does not start: {e}"))?;
        let server = ZooKeeper { child, port };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let begin = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            if begin.elapsed() > START_LIMIT {
                let log = std::fs::read_to_string(&path).unwrap_or_default();
                return Err(format!("ZooKeeper does not listen on port {port}: {log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Host and port.
    pub fn server(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// As in `zookeeper.connect`.
    pub fn address(&self) -> String {
        format!("{}{CHROOT}", self.server())
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A JVM with the jars of Apache Kafka 2.8.2 and its ZooKeeper.
///
/// # Errors
/// If the jars cannot be fetched.
pub fn java_command(paths: &Paths, main: &str) -> Result<Command, String> {
    let libs = java::jars(paths, "zookeeper", java::KAFKA_ZOOKEEPER)?;
    let log = paths.sources.join("java/zookeeper/log4j.properties");
    let mut command = Command::new("java");
    command.args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg(format!("-Dlog4j.configuration=file:{}", log.display()));
    command.args(["-cp", &format!("{}/*", libs.display()), main]);
    Ok(command)
}
