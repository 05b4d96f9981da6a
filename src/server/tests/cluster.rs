//! Several whole nodes in one process, over loopback: three voters and a node without a vote.

use super::envelope::{create, describe_quorum, envelope};
use super::node::{Node, PATIENCE, node_settings};
use super::*;
use crate::broker::image::{DIRECTORY_UNASSIGNED, PartitionRegistration};
use crate::env::Disk;
use crate::env::faulty::FaultyDisk;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const VOTERS: [i32; 3] = [1, 2, 3];
const OBSERVER: i32 = 4;

struct Cluster {
    dirs: BTreeMap<i32, TempDir>,
    /// Where each voter's controller listens.
    controllers: BTreeMap<i32, u16>,
    nodes: BTreeMap<i32, Node>,
}

/// Opens one node; it joins the cluster when it can.
async fn open(
    id: i32,
    (dirs, disk): (&[PathBuf], Arc<dyn Disk>),
    controllers: &BTreeMap<i32, u16>,
    controller: Option<BoundListener>,
) -> (Node, BoundListener) {
    let client = bind("PLAINTEXT", ListenerType::Broker).await;
    let voters: Vec<String> =
        controllers.iter().map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
    let ports = (client.address().port(), controllers.get(&id).copied());
    let voters = voters.join(",");
    // No follower that has gone is let go of because it lags: no test waits for so long.
    let more = [("controller.quorum.voters", &voters[..]), ("replica.lag.time.max.ms", "3600000")];
    let settings = node_settings(id, dirs, ports, &more);
    (Node::open(settings, disk, controller).await.unwrap(), client)
}

impl Cluster {
    /// Three voters that have joined.
    async fn start() -> Cluster {
        Cluster::start_on(Arc::new(RealDisk), |dir| vec![dir.to_owned()]).await
    }

    /// The same on this disk, each with the log directories that `log_dirs` makes of its own.
    async fn start_on(disk: Arc<dyn Disk>, log_dirs: impl Fn(&Path) -> Vec<PathBuf>) -> Cluster {
        let mut listeners = BTreeMap::new();
        for id in VOTERS {
            listeners.insert(id, bind("CONTROLLER", ListenerType::Controller).await);
        }
        let controllers = listeners.iter().map(|(id, bound)| (*id, bound.address().port()));
        let mut cluster = Cluster {
            dirs: BTreeMap::new(),
            controllers: controllers.collect(),
            nodes: BTreeMap::new(),
        };
        let mut clients = Vec::new();
        for (id, controller) in listeners {
            let dir = tempfile::tempdir().unwrap();
            let on = (&log_dirs(dir.path())[..], Arc::clone(&disk));
            let opened = open(id, on, &cluster.controllers, Some(controller)).await;
            cluster.dirs.insert(id, dir);
            clients.push((id, opened.1));
            cluster.nodes.insert(id, opened.0);
        }
        let joining: Vec<_> = cluster
            .nodes
            .values()
            .map(|node| {
                let broker = Arc::clone(&node.broker);
                tokio::spawn(async move { broker.join().await })
            })
            .collect();
        for joined in joining {
            tokio::time::timeout(PATIENCE, joined).await.unwrap().unwrap().unwrap();
        }
        for (id, client) in clients {
            cluster.nodes.get_mut(&id).unwrap().server.open(vec![client]);
        }
        cluster
    }

    async fn add_observer(&mut self) {
        let dir = tempfile::tempdir().unwrap();
        let on = (&[dir.path().to_owned()][..], Arc::new(RealDisk) as Arc<dyn Disk>);
        let (mut node, client) = open(OBSERVER, on, &self.controllers, None).await;
        node.join().await.unwrap();
        node.server.open(vec![client]);
        self.dirs.insert(OBSERVER, dir);
        self.nodes.insert(OBSERVER, node);
    }

    async fn create_topic(&self, at: i32, name: &str, partitions: i32, replicas: i16) {
        create_topic(&self.nodes[&at].broker, name, partitions, replicas).await;
    }

    /// Waits until `holds` does.
    async fn until(&self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        let begin = Instant::now();
        while !holds(self) {
            assert!(begin.elapsed() < PATIENCE, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn knows(&self, id: i32, topic: &str) -> bool {
        self.nodes[&id].broker.image().topics.get(topic).is_some()
    }

    async fn stop(self) {
        for node in self.nodes.into_values() {
            node.server.stop().await;
            node.broker.stop().await;
        }
    }
}

fn batch(text: &str) -> Bytes {
    let mut batch = BatchBuilder::new(BatchParams::default());
    batch.push(Timestamp(1), None, Some(text.as_bytes()), &[]);
    batch.build().freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_and_without_a_vote_share_metadata_and_replicate_records() {
    let mut cluster = Cluster::start().await;
    // Enough for a snapshot, from which the newcomer has to begin.
    for number in 0..20 {
        cluster.create_topic(1 + number % 3, &format!("t{number}"), 1, 3).await;
    }
    cluster.add_observer().await;
    assert!(cluster.knows(OBSERVER, "t0"));
    let quorum = cluster.nodes.values().find_map(|node| {
        let status = node.broker.quorum_status()?;
        (status.leader_id == node.broker.node_id()).then_some((node, status))
    });
    let (leader, status) = quorum.expect("a leader");
    assert_eq!(status.voters.len(), 3);
    let metadata_dir = cluster.dirs[&OBSERVER].path().join("__cluster_metadata-0");
    let names: Vec<String> = std::fs::read_dir(metadata_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.ends_with(".checkpoint")), "{names:?}");
    let observers = leader.broker.metadata_observers();
    assert_eq!(observers.iter().map(|it| it.id.0).collect::<Vec<_>>(), [OBSERVER]);

    // The request goes from a node without a vote to the controller; the newcomer gets replicas too.
    cluster.create_topic(OBSERVER, "all", 1, 4).await;
    cluster
        .until("everybody knows the topic", |it| it.nodes.keys().all(|id| it.knows(*id, "all")))
        .await;
    let image = cluster.nodes[&1].broker.image();
    let leader = image.topics.get("all").unwrap().partition(0).unwrap().leader;
    let partition = cluster.nodes[&leader.0].broker.partition("all", 0).unwrap();
    cluster.until("it leads", |_| partition.is_leader()).await;
    let appended = partition.append(batch("a record"), -1, broker::AppendOrigin::Client).unwrap();
    let end = appended.last_offset.plus(1);
    cluster
        .until("all replicas have the record, and know that it is committed", |it| {
            it.nodes.values().all(|node| {
                node.broker.partition("all", 0).is_ok_and(|it| it.high_watermark() == end)
            })
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_an_envelope_is_answered_by_the_active_controller_alone() {
    let cluster = Cluster::start().await;
    for request in [envelope(2, &describe_quorum()), envelope(7, &create("t"))] {
        cluster
            .until("one answers, and the others that they are not who is looked for", |it| {
                let codes = it.controllers.values().map(|port| {
                    let address = SocketAddr::from(([127, 0, 0, 1], *port));
                    let mut peer = World::connect_to(address);
                    tokio::task::block_in_place(|| peer.call(0, &request)).error_code
                });
                let mut codes: Vec<ErrorCode> = codes.map(ErrorCode::from_code).collect();
                codes.sort_unstable_by_key(|code| code.code());
                codes == [ErrorCode::None, ErrorCode::NotController, ErrorCode::NotController]
            })
            .await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_that_is_gone_led_has_another_leader() {
    let mut cluster = Cluster::start().await;
    cluster.create_topic(1, "t", 6, 3).await;
    cluster
        .until("everybody knows the topic", |it| it.nodes.keys().all(|id| it.knows(*id, "t")))
        .await;
    let gone = 2;
    let node = cluster.nodes.remove(&gone).unwrap();
    // As a process that is killed: its listeners and connections are gone, and it said nothing.
    node.server.stop().await;
    node.broker.abandon().await;
    drop(node.broker);
    cluster
        .until("others lead, before any session has ended", |it| {
            let image = it.nodes[&1].broker.image();
            let topic = image.topics.get("t").unwrap();
            topic.partitions.values().all(|it| it.leader.0 != gone && it.isr.len() == 2)
        })
        .await;
    cluster.stop().await;
}

fn registration(cluster: &Cluster, at: i32, topic: &str, index: i32) -> PartitionRegistration {
    let image = cluster.nodes[&at].broker.image();
    image.topics.get(topic).unwrap().partition(index).unwrap().as_ref().clone()
}

/// Appends as a producer with acks=all that is answered after the sync.
async fn produce_durably(cluster: &Cluster, at: i32, index: i32) -> Result<(), ErrorCode> {
    let partition = cluster.nodes[&at].broker.partition("t", index)?;
    let appended = partition.append(batch("a record"), -1, broker::AppendOrigin::Client);
    let appended = appended.map_err(|error| error.error_code())?;
    let end = appended.last_offset.plus(1);
    partition.settled(end).await?;
    cluster
        .until("the record is committed", |_| {
            !partition.is_leader() || partition.high_watermark() >= end
        })
        .await;
    if partition.is_leader() { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) }
}

/// Source: KIP-858.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_in_a_directory_that_fails_has_another_leader_and_the_rest_goes_on() {
    let disk = FaultyDisk::default();
    let faults = Arc::clone(&disk.faults);
    let two = |dir: &Path| vec![dir.join("one"), dir.join("two")];
    let cluster = Cluster::start_on(Arc::new(disk), two).await;
    let flush = CreatableTopicConfig { name: "flush.messages".into(), value: Some("1".into()) };
    create_topic_with(&cluster.nodes[&1].broker, "t", (6, 3), vec![flush]).await;
    cluster
        .until("the controller knows where every replica lies", |it| {
            it.knows(1, "t")
                && (0..6).all(|index| {
                    let directories = registration(it, 1, "t", index).directories;
                    directories.iter().all(|directory| *directory != DIRECTORY_UNASSIGNED)
                })
        })
        .await;
    for index in 0..6 {
        let leader = registration(&cluster, 1, "t", index).leader.0;
        cluster
            .until("it leads", |it| {
                it.nodes[&leader].broker.partition("t", index).is_ok_and(|it| it.is_leader())
            })
            .await;
        assert_eq!(produce_durably(&cluster, leader, index).await, Ok(()));
    }
    // The second directory of the leader of some partition; its metadata log is in the first.
    let in_two = |it: &Cluster, at: i32, index: i32| {
        let partition = it.nodes[&at].broker.partition("t", index).unwrap();
        partition.checkpoint().unwrap().directory.ends_with("two")
    };
    let leader_of = |it: &Cluster, index: i32| registration(it, 1, "t", index).leader.0;
    let lost = (0..6).find(|index| in_two(&cluster, leader_of(&cluster, *index), *index)).unwrap();
    let failing = leader_of(&cluster, lost);
    let (there, elsewhere): (Vec<i32>, Vec<i32>) =
        (0..6).partition(|index| in_two(&cluster, failing, *index));
    let kept: Vec<i32> =
        elsewhere.into_iter().filter(|index| leader_of(&cluster, *index) == failing).collect();
    faults.fail_syncs_below(&cluster.dirs[&failing].path().join("two"));
    assert!(produce_durably(&cluster, failing, lost).await.is_err());
    cluster
        .until("others lead what lay there", |it| {
            there.iter().all(|index| {
                let now = registration(it, 1, "t", *index);
                now.has_leader() && now.leader.0 != failing && now.isr.len() == 2
            })
        })
        .await;
    for index in there {
        let leader = leader_of(&cluster, index);
        cluster
            .until("it leads", |it| {
                it.nodes[&leader].broker.partition("t", index).is_ok_and(|it| it.is_leader())
            })
            .await;
        assert_eq!(produce_durably(&cluster, leader, index).await, Ok(()));
    }
    for index in kept {
        assert_eq!(leader_of(&cluster, index), failing, "its other directory works");
        assert_eq!(produce_durably(&cluster, failing, index).await, Ok(()));
    }
    // Whoever follows there no longer is waited for by no leader.
    for index in 0..6 {
        assert_eq!(produce_durably(&cluster, leader_of(&cluster, index), index).await, Ok(()));
    }
    cluster.stop().await;
}
