//! The cluster's metadata in every node's files, as `kafka-dump-log` and `kafka-metadata-shell` of 4.3.1 read them.
//!
//! Topics, replicas that move, configurations, quotas and producer ids are made. Then the shell loads each node's
//! metadata log, and later, with the nodes killed, each node's newest snapshot; both must show all of it, and
//! `kafka-dump-log` must read every file without complaint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::broker::Side;
use crate::cluster::{self, Cluster, SETTLE_LIMIT};
use crate::disk::{Tools, judge};
use crate::dump;
use crate::java::{self, Answer, ToolRunner};
use crate::paths::Paths;
use crate::report::Report;

const SHELL: &str = "org.apache.kafka.shell.MetadataShell";
/// How long the shell may take for a file.
const LIMIT: Duration = Duration::from_secs(30);
/// The shell waits until its loader has applied something, which that notes before it shows what it loaded, and not
/// at all where it was through before the file's end was known: on a busy machine the shell may show nothing, or wait
/// for ever.
const TRIES: usize = 5;
/// More than all that is made before the first look, which is to find the log whole.
const SNAPSHOT_BYTES: &str = "metadata.log.max.record.bytes.between.snapshots=40000";
/// Topics that make the nodes write snapshots, by a setting of some kilobytes each.
const FILLERS: usize = 40;
const FILLER_SETTING: &str = "leader.replication.throttled.replicas";
const FILLER_REPLICAS: usize = 3000;
const PARTITION: &str = "__cluster_metadata-0";

/// Words of what `kafka-dump-log` prints of a log and a snapshot.
const DUMPED: [&str; 7] = [
    "LeaderChange",
    "SnapshotHeader",
    "SnapshotFooter",
    "\"type\":\"FEATURE_LEVEL_RECORD\"",
    "\"type\":\"REGISTER_CONTROLLER_RECORD\"",
    "\"type\":\"CLIENT_QUOTA_RECORD\"",
    "\"name\":\"orders\"",
];

/// What is set, and where the shell shows it.
const SET: [(&str, &str, &str); 4] = [
    (
        "topics --entity-name orders",
        "max.message.bytes=777777",
        "configs/TOPIC:orders/max.message.bytes",
    ),
    (
        "brokers --entity-name 2",
        "log.cleaner.backoff.ms=15777",
        "configs/BROKER:2/log.cleaner.backoff.ms",
    ),
    (
        "brokers --entity-default",
        "log.cleaner.backoff.ms=15666",
        "configs/BROKER/log.cleaner.backoff.ms",
    ),
    (
        "users --entity-name alice",
        "producer_byte_rate=1048576",
        "clientQuotas/user(alice)/producer_byte_rate",
    ),
];

/// Runs it.
///
/// # Errors
/// If the cluster cannot be prepared.
pub fn run(paths: &Paths, side: Side, report: &Report) -> Result<(), String> {
    let mut cluster = Cluster::start(paths, side, 3, &[SNAPSHOT_BYTES])?;
    judge(&format!("cluster/metadata [{side}]"), report, || {
        let tools = Tools::start_at(paths, &cluster.servers())?;
        cluster::keeping(paths, &mut cluster, "cluster-metadata", |cluster| {
            scenario(paths, cluster, tools)
        })
    });
    Ok(())
}

fn scenario(paths: &Paths, cluster: &mut Cluster, mut tools: Tools) -> Result<String, String> {
    let version = make(cluster, &mut tools)?;
    let expected = Expected { version, topic_id: None };
    // The log that a running node writes is read from a copy, as an operator would: the shell locks the directory.
    let copies = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut logs = Vec::new();
    for id in cluster.ids() {
        logs.push(copy_of_log(&metadata_dir(cluster, id), &copies.path().join(id.to_string()))?);
    }
    let logged = trees(paths, &logs)?;
    let mut offsets = Vec::new();
    for (tree, log) in logged.iter().zip(&logs) {
        expected.check(tree).map_err(|e| format!("{}: {e}", log.display()))?;
        offsets.push(offset(tree)?);
    }
    let end = offsets.iter().copied().max().unwrap_or_default();
    let snapshots = await_snapshots(cluster, end)?;
    locked(paths, &snapshots[0])?;
    for id in cluster.ids() {
        cluster.kill(id);
    }
    let topic_id = logged[0].get("topics/byName/orders/id").cloned();
    let expected = Expected { topic_id, ..expected };
    for (tree, snapshot) in trees(paths, &snapshots)?.iter().zip(&snapshots) {
        expected.check(tree).map_err(|e| format!("{}: {e}", snapshot.display()))?;
    }
    walk(paths, &snapshots[0])?;
    let mut runner = tools.into_runner();
    for id in cluster.ids() {
        dumped(&mut runner, &metadata_dir(cluster, id))?;
    }
    Ok(format!("offset {end} on, logs and snapshots of three nodes"))
}

/// `kafka-dump-log` reads every segment and snapshot without complaint, and shows what was made.
fn dumped(runner: &mut ToolRunner, dir: &Path) -> Result<(), String> {
    let mut files = Vec::new();
    for path in dump::listed(dir)? {
        if path.extension().is_some_and(|ending| ending == "log" || ending == "checkpoint") {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    let decoder = "--cluster-metadata-decoder";
    let text = dump::look(runner, &["--deep-iteration", decoder, "--files", &files.join(",")])?;
    match DUMPED.iter().find(|words| !text.contains(*words)) {
        Some(missing) => Err(format!("no {missing} in what kafka-dump-log prints of {files:?}")),
        None => Ok(()),
    }
}

/// Makes what is looked for; answers the name of the finalized `metadata.version`.
fn make(cluster: &mut Cluster, tools: &mut Tools) -> Result<String, String> {
    tools.expect(
        "kafka-topics --create --topic orders --replica-assignment 1:2:3,2:3:1 --config retention.ms=86400123",
    )?;
    tools.expect("kafka-topics --create --topic doomed --partitions 2 --replication-factor 3")?;
    tools.expect("kafka-topics --delete --topic doomed")?;
    for (entity, value, _) in SET {
        tools.expect(&format!(
            "kafka-configs --alter --entity-type {entity} --add-config {value}"
        ))?;
    }
    let answer = tools.run_with("kafka-console-producer --topic orders", "one\ntwo\n")?;
    if answer.status != 0 {
        return Err(format!("kafka-console-producer: {answer:?}"));
    }
    cluster.await_in_sync(&["orders"])?;
    cluster.lead("orders", &[vec![1, 2, 3], vec![3, 1]])?;
    cluster.await_in_sync(&["orders"])?;
    let features = tools.expect("kafka-features describe")?;
    let line =
        features.lines().find(|line| line.contains("metadata.version")).ok_or("no features")?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "FinalizedVersionLevel:");
    words.nth(1).map(str::to_owned).ok_or(format!("no level in {line}"))
}

/// What every node's files must show.
struct Expected {
    version: String,
    /// That of `orders`, once it is known.
    topic_id: Option<String>,
}

impl Expected {
    fn check(&self, tree: &Tree) -> Result<(), String> {
        let at = |path: &str| {
            tree.get(path).map(String::as_str).ok_or(format!("no {path} in {tree:#?}"))
        };
        let is = |path: &str, wanted: &str| match at(path)? {
            found if found == wanted => Ok(()),
            found => Err(format!("{path} is {found}, not {wanted}")),
        };
        is("features/metadataVersion", &format!("Optional[{}]", self.version))?;
        is("topics/byName/orders/name", "orders")?;
        is("configs/TOPIC:orders/retention.ms", "86400123")?;
        for (_, setting, path) in SET {
            let value = setting.split_once('=').map(|(_, value)| value).unwrap_or_default();
            // A quota is a floating-point number.
            let wanted = if value == "1048576" { "1048576.0" } else { value };
            is(path, wanted)?;
        }
        let id = at("topics/byName/orders/id")?;
        if self.topic_id.as_ref().is_some_and(|wanted| wanted != id) {
            return Err(format!("the id of orders is {id}, not {:?}", self.topic_id));
        }
        is(&format!("topics/byId/{id}/name"), "orders")?;
        for (partition, replicas) in [(0, "1, 2, 3"), (1, "3, 1")] {
            let path = format!("topics/byName/orders/{partition}");
            registered(at(&path)?, replicas).map_err(|e| format!("{path}: {e}"))?;
        }
        if let Some(path) = tree.keys().find(|path| path.contains("doomed")) {
            return Err(format!("{path} was deleted"));
        }
        for id in 1..=3 {
            let broker = at(&format!("cluster/brokers/{id}"))?;
            let words = [format!("id={id},"), "fenced=false".to_owned(), "PLAINTEXT".to_owned()];
            if let Some(missing) = words.iter().find(|words| !broker.contains(*words)) {
                return Err(format!("no {missing} in {broker}"));
            }
            at(&format!("cluster/controllers/{id}"))?;
        }
        match at("producerIds/nextProducerId")?.parse::<i64>() {
            Ok(next) if next > 0 => Ok(()),
            next => Err(format!("the next producer id is {next:?}")),
        }
    }
}

/// Whether a partition has these replicas, all of them in sync, the first its leader, and none coming or going.
fn registered(partition: &str, replicas: &str) -> Result<(), String> {
    let list = |name: &str| {
        let (_, rest) = partition.split_once(&format!("{name}=["))?;
        rest.split_once(']').map(|(list, _)| list)
    };
    let ids = |list: &str| list.split(", ").map(str::to_owned).collect::<BTreeSet<String>>();
    let leader = replicas.split(',').next().unwrap_or_default();
    let is_good = list("replicas") == Some(replicas)
        && list("isr").map(ids) == Some(ids(replicas))
        && partition.contains(&format!("leader={leader},"))
        && partition.contains("removingReplicas=[], addingReplicas=[]");
    if is_good { Ok(()) } else { Err(format!("not of the replicas {replicas}: {partition}")) }
}

fn metadata_dir(cluster: &Cluster, id: i32) -> PathBuf {
    cluster.node(id).log_dir().join(PARTITION)
}

/// Copies the one segment of a metadata log into a directory, which is made.
fn copy_of_log(dir: &Path, to: &Path) -> Result<PathBuf, String> {
    let name = format!("{:020}.log", 0);
    let copy = to.join(&name);
    std::fs::create_dir_all(to).map_err(|e| format!("{to:?}: {e}"))?;
    std::fs::copy(dir.join(&name), &copy).map_err(|e| format!("{dir:?}, {name}: {e}"))?;
    Ok(copy)
}

/// Makes topics until every node has a snapshot of what came after `offset`; answers the newest of each.
fn await_snapshots(cluster: &mut Cluster, offset: i64) -> Result<Vec<PathBuf>, String> {
    let begin = Instant::now();
    let value = vec!["0:1"; FILLER_REPLICAS].join(",");
    for number in 0..FILLERS {
        let topic = format!("filler-{number}");
        cluster.create(&topic, &[vec![1, 2, 3]], &[(FILLER_SETTING, &value)])?;
        let mut newest = Vec::new();
        for id in cluster.ids() {
            newest.extend(newest_snapshot(&metadata_dir(cluster, id), offset)?);
        }
        if newest.len() == cluster.ids().len() {
            return Ok(newest);
        }
        if begin.elapsed() > SETTLE_LIMIT {
            break;
        }
    }
    Err(format!("no snapshot on every node {} s after offset {offset}", begin.elapsed().as_secs()))
}

fn newest_snapshot(dir: &Path, offset: i64) -> Result<Option<PathBuf>, String> {
    let mut newest = None;
    for path in dump::listed(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let end = name.strip_suffix(".checkpoint").and_then(|name| name.split_once('-'));
        if end.is_some_and(|(end, _)| end.parse::<i64>().is_ok_and(|end| end > offset)) {
            newest = Some(path);
        }
    }
    Ok(newest)
}

/// Runs one command line of the shell's until its answer is good.
fn shell(
    paths: &Paths,
    file: &Path,
    (command, input): (&[&str], &str),
    is_good: impl Fn(&Answer) -> bool,
) -> Result<Answer, String> {
    let name = file.to_string_lossy().into_owned();
    let args = [&["--snapshot", &name], command].concat();
    let mut last = String::new();
    for _ in 0..TRIES {
        match java::alone(paths, SHELL, &args, input, LIMIT) {
            Ok(answer) if is_good(&answer) => return Ok(answer),
            Ok(answer) => last = format!("{answer:?}"),
            Err(e) => last = e,
        }
    }
    Err(format!("{name}: {last}"))
}

/// The shell refuses a directory that a broker uses.
fn locked(paths: &Paths, snapshot: &Path) -> Result<(), String> {
    let is_refused = |answer: &Answer| answer.status != 0 && answer.err.contains("Unable to lock");
    shell(paths, snapshot, (&["ls", "/"], ""), is_refused).map(drop)
}

/// An operator looks about in a snapshot.
fn walk(paths: &Paths, snapshot: &Path) -> Result<(), String> {
    let lines = "ls /\nls image/topics/byName\ncd image/topics/byName/orders\npwd\ncat 1\n\
        find /image/cluster\nexit\n";
    let said = [
        "image",
        "local",
        "orders",
        "filler-0",
        "/image/topics/byName/orders",
        "PartitionRegistration(replicas=[3, 1]",
        "/image/cluster/brokers/2",
        "/image/cluster/controllers/3",
    ];
    let is_good =
        |answer: &Answer| answer.status == 0 && said.iter().all(|words| answer.out.contains(words));
    shell(paths, snapshot, (&[], lines), is_good).map(drop)
}

/// Leaves of the metadata by their paths below `/image`.
type Tree = BTreeMap<String, String>;

/// What the shell shows of each file; their JVMs run side by side.
fn trees(paths: &Paths, files: &[PathBuf]) -> Result<Vec<Tree>, String> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = files
            .iter()
            .map(|file| {
                scope.spawn(move || shell(paths, file, (&["tree", "/image"], ""), is_loaded))
            })
            .collect();
        let mut trees = Vec::new();
        for (asked, file) in asked.into_iter().zip(files) {
            let answer = asked.join().map_err(|_| "a thread panicked".to_owned())??;
            let is_error = |line: &&str| !line.contains("Ignoring control record");
            if let Some(error) = answer.err.lines().find(is_error) {
                return Err(format!("{}: {error}", file.display()));
            }
            trees.push(parsed(&answer.out));
        }
        Ok(trees)
    })
}

fn is_loaded(answer: &Answer) -> bool {
    answer.status == 0 && !answer.out.contains("offset -1,")
}

/// Reads what `tree` prints: a name and a colon, and what is below it two more spaces to the right.
fn parsed(text: &str) -> Tree {
    let mut tree = Tree::new();
    let mut names: Vec<&str> = Vec::new();
    for line in text.lines() {
        let content = line.trim_start();
        names.truncate((line.len() - content.len()) / 2);
        match content.strip_suffix(':') {
            Some(name) => names.push(name),
            None => {
                tree.insert(names.join("/"), content.to_owned());
            }
        }
    }
    tree
}

/// The offset of the last record that the shell has loaded.
fn offset(tree: &Tree) -> Result<i64, String> {
    let provenance = tree.get("provenance").ok_or("no provenance")?;
    let number = provenance.strip_prefix("offset ").and_then(|rest| rest.split(',').next());
    number.and_then(|number| number.parse().ok()).ok_or(format!("no offset in {provenance}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_read_out_of_what_the_shell_prints() {
        let text = "configs:\n  TOPIC:a:\n    k:\n      v\nprovenance:\n  offset 7, epoch 1, time x\nscram:\n";
        let tree = parsed(text);
        assert_eq!(tree.get("configs/TOPIC:a/k").map(String::as_str), Some("v"));
        assert_eq!((offset(&tree), tree.len()), (Ok(7), 2));
    }

    #[test]
    fn a_partition_is_good_when_all_its_replicas_are_in_sync() {
        let text = "PartitionRegistration(replicas=[3, 1], isr=[1, 3], removingReplicas=[], \
            addingReplicas=[], elr=[], leader=3, leaderEpoch=2)";
        assert_eq!(registered(text, "3, 1"), Ok(()));
        assert!(registered(&text.replace("isr=[1, 3]", "isr=[3]"), "3, 1").is_err());
        assert!(registered(text, "1, 3").is_err());
    }
}
