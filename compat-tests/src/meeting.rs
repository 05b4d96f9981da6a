//! Brokers whose files are those of a tutorial of 2016: four lines, and nothing of a cluster but `zookeeper.connect`.
//!
//! | Scenario | What happens |
//! | --- | --- |
//! | `cluster:2016-123` and the five other orders | they are started in this order, live, are restarted together |
//! | `cluster:2016-door` | ZooKeeper's own shell at the address where they meet, while brokers come and go |
//! | `cluster:2016-refused` | who may not come: another cluster, the same id; and who may have the address already |

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::broker::{Broker, free_port};
use crate::cluster::{self, Cluster};
use crate::disk::{Tools, judge};
use crate::java;
use crate::members::{self, ORDERS, PAUSE, Scene};
use crate::paths::Paths;
use crate::report::Report;
use crate::zookeeper::{ZooKeeper, java_command};

/// How long a broker that is refused may take to end.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);
/// How long the door may take to have another holder, or a session of one that was killed to end.
const DOOR_LIMIT: Duration = Duration::from_secs(40);

/// Runs the scenarios whose names contain `filter`.
///
/// # Errors
/// If a directory cannot be made.
pub fn run(paths: &Paths, filter: &str, report: &Report) -> Result<(), String> {
    for order in ORDERS {
        let name = format!("2016-{}{}{}", order[0], order[1], order[2]);
        if name.contains(filter) {
            scenario(paths, report, &name, |cluster, _| lives(paths, cluster, order))?;
        }
    }
    if "2016-door".contains(filter) {
        scenario(paths, report, "2016-door", |cluster, port| door(paths, cluster, port))?;
    }
    if "2016-refused".contains(filter) {
        scenario(paths, report, "2016-refused", |cluster, port| refused(paths, cluster, port))?;
    }
    Ok(())
}

/// Three brokers, seated and not started, and the port at which they meet.
fn scenario(
    paths: &Paths,
    report: &Report,
    name: &str,
    act: impl FnOnce(&mut Cluster, u16) -> Result<String, String>,
) -> Result<(), String> {
    let port = free_port()?;
    let nodes = (1..=3).map(|id| seat(paths, id, &format!("localhost:{port}")));
    let mut cluster = Cluster::of(nodes.collect::<Result<_, _>>()?);
    judge(&format!("cluster/{name}"), report, || {
        let name = format!("cluster-{name}");
        cluster::keeping(paths, &mut cluster, &name, |cluster| act(cluster, port))
    });
    Ok(())
}

/// The tutorial's file: id, listener, directory, and where ZooKeeper is not.
fn seat(paths: &Paths, id: i32, zookeeper: &str) -> Result<Broker, String> {
    let port = free_port()?;
    let lines = [
        format!("broker.id={id}"),
        format!("listeners=PLAINTEXT://:{port}"),
        "log.dirs=DIR/log".to_owned(),
        format!("zookeeper.connect={zookeeper}"),
    ];
    Broker::seat_lines(paths, port, &lines)
}

/// Started one after another in this order they are one cluster, which lives as every cluster does; then all are
/// started at once on what they have, after an orderly stop and after none.
fn lives(paths: &Paths, cluster: &mut Cluster, order: [i32; 3]) -> Result<String, String> {
    for id in order {
        cluster.spawn(id)?;
        std::thread::sleep(PAUSE);
    }
    cluster.await_members()?;
    let tools = Tools::start_at(paths, &cluster.servers())?;
    let mut scene = Scene { cluster, tools, produced: 0 };
    members::live(&mut scene)?;
    scene.produced = 0;
    let create = "kafka-topics --create --topic kept --partitions 3 --replication-factor 3";
    scene.tools.expect(create)?;
    let mut times = Vec::new();
    for is_orderly in [false, true] {
        scene.until_in_sync("kept", 3)?;
        let before = scene.produced;
        scene.produce("kept")?;
        scene.consume("kept", "reader", before)?;
        for id in scene.cluster.ids() {
            match is_orderly {
                true => scene.cluster.stop(id)?,
                false => scene.cluster.kill(id),
            }
        }
        times.push(scene.cluster.launch_all()?.as_millis());
    }
    scene.until_in_sync("kept", 3)?;
    scene.consume("kept", "another", 0)?;
    Ok(format!("all restarted together know each other after {times:?} ms"))
}

/// Runs a command of ZooKeeper's own shell; what it prints.
fn shell(paths: &Paths, port: u16, command: &str) -> Result<String, String> {
    let mut java = java_command(paths, "org.apache.zookeeper.ZooKeeperMain")?;
    java.args(["-server", &format!("localhost:{port}")]).args(command.split(' '));
    java.stdin(Stdio::null());
    java::checked(&mut java, command)
}

/// Repeats a command until what it prints says so.
fn until(
    paths: &Paths,
    port: u16,
    command: &str,
    is_so: impl Fn(&str) -> bool,
) -> Result<String, String> {
    let begin = Instant::now();
    loop {
        let said = shell(paths, port, command);
        match &said {
            Ok(text) if is_so(text) => return Ok(text.clone()),
            _ if begin.elapsed() > DOOR_LIMIT => return Err(format!("{command}: {said:?}")),
            _ => std::thread::sleep(PAUSE),
        }
    }
}

/// What the shell of Kafka 2.8's ZooKeeper sees where brokers meet.
fn door(paths: &Paths, cluster: &mut Cluster, port: u16) -> Result<String, String> {
    for id in [1, 2, 3] {
        cluster.spawn(id)?;
        std::thread::sleep(PAUSE);
    }
    cluster.await_members()?;
    until(paths, port, "ls /", |text| text.contains("[brokers, cluster, controller]"))?;
    until(paths, port, "ls /brokers/ids", |text| text.contains("[1, 2, 3]"))?;
    let own = format!("\"PLAINTEXT://localhost:{}\"", cluster.node(2).port());
    let node = until(paths, port, "get /brokers/ids/2", |text| text.contains(&own))?;
    for field in ["\"version\":5", "\"jmx_port\":-1", "\"host\":\"localhost\"", "\"timestamp\":\""]
    {
        if !node.contains(field) {
            return Err(format!("no {field} in {node}"));
        }
    }
    let id = until(paths, port, "get /cluster/id", |text| text.contains("\"version\":\"1\""))?;
    let leader = cluster.controller()?;
    let named = format!("\"brokerid\":{leader}");
    until(paths, port, "get /controller", |text| text.contains(&named))?;
    // The one who has the door dies, and another has it.
    cluster.kill(1);
    until(paths, port, "ls /brokers/ids", |text| text.contains("[2, 3]"))?;
    let leader = cluster.wait("another controller", DOOR_LIMIT, |cluster| {
        cluster.controller().and_then(|id| if id == 1 { Err("not yet".to_owned()) } else { Ok(id) })
    })?;
    let named = format!("\"brokerid\":{leader}");
    until(paths, port, "get /controller", |text| text.contains(&named))?;
    let later = shell(paths, port, "get /cluster/id")?;
    cluster.launch(1)?;
    until(paths, port, "ls /brokers/ids", |text| text.contains("[1, 2, 3]"))?;
    cluster.stop(3)?;
    until(paths, port, "ls /brokers/ids", |text| text.contains("[1, 2]"))?;
    match cluster_line(&id) == cluster_line(&later) {
        true => Ok(format!("ZooKeeper's shell reads a broker's node: {}", broker_line(&node))),
        false => Err(format!("another cluster: {id} then {later}")),
    }
}

/// The line of the shell's output that is a broker's node.
fn broker_line(text: &str) -> &str {
    text.lines().find(|line| line.contains("endpoints")).unwrap_or_default()
}

/// The line of the shell's output that is the cluster's node.
fn cluster_line(text: &str) -> Option<&str> {
    text.lines().find(|line| line.contains("\"id\""))
}

/// Starts a broker that must end, and say all this.
fn expect_refused(mut broker: Broker, words: &[&str]) -> Result<(), String> {
    broker.spawn()?;
    let status = broker.wait_for_end(REFUSAL_LIMIT)?;
    let log = broker.log();
    match !status.success() && words.iter().all(|word| log.contains(word)) {
        true => Ok(()),
        false => Err(format!("{status}, and not {words:?}:\n{log}")),
    }
}

/// Answers one connection as an HTTP server does.
fn stranger() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(1) {
            let mut stream = stream;
            let mut word = [0; 4];
            // Whoever it is sees that this is no ZooKeeper, or that nobody is there.
            let _ = stream.read_exact(&mut word);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    Ok(port)
}

/// Who may not come, and who may have the address already.
fn refused(paths: &Paths, cluster: &mut Cluster, port: u16) -> Result<String, String> {
    let at = format!("localhost:{port}");
    cluster.launch(1)?;
    // The same id, at another address.
    let own = cluster.node(1).port();
    let twin = seat(paths, 1, &at)?;
    let (first, second) = (format!("localhost:{own}"), format!("localhost:{}", twin.port()));
    expect_refused(twin, &["broker id 1 is in use", &first, &second])?;
    // A directory of another cluster.
    let other = seat(paths, 2, &at)?;
    let text = "version=1\ncluster.id=another-cluster-of-000\nnode.id=2\n";
    std::fs::create_dir_all(other.log_dir()).map_err(|e| e.to_string())?;
    let file = other.log_dir().join("meta.properties");
    std::fs::write(&file, text).map_err(|e| format!("{file:?}: {e}"))?;
    expect_refused(other, &["zookeeper.connect", "of cluster another-cluster-of-000"])?;
    // A ZooKeeper, and something else.
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let zookeeper = ZooKeeper::start(paths, dir.path())?;
    let there = seat(paths, 2, &zookeeper.server())?;
    expect_refused(there, &["a ZooKeeper answers", "zookeeper.connect", "--from-zookeeper"])?;
    let there = seat(paths, 2, &format!("localhost:{}", stranger()?))?;
    expect_refused(there, &["something that is not ZooKeeper", "zookeeper.connect"])?;
    cluster.wait("the first broker goes on", DOOR_LIMIT, |cluster| cluster.controller())?;
    Ok("the same id, another cluster, a ZooKeeper, a stranger".to_owned())
}
