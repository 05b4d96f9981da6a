//! A quorum of one that grows to three and shrinks again, over loopback, while it takes writes.

use super::node::{Node, PATIENCE, node_settings};
use super::*;
use crate::broker::{AdvertisedListener, Answered, StartError, Voter, VoterEndpoint, VoterStatus};
use ottla_protocol::BrokerId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nodes whose controllers are looked for at `bootstrap`.
struct Cluster {
    dirs: BTreeMap<i32, TempDir>,
    nodes: BTreeMap<i32, Node>,
    bootstrap: u16,
    /// Whether the first node's voters are those of its configuration.
    is_static: bool,
}

impl Cluster {
    /// One node, which is its own quorum.
    async fn start(is_static: bool) -> Cluster {
        let mut cluster =
            Cluster { dirs: BTreeMap::new(), nodes: BTreeMap::new(), bootstrap: 0, is_static };
        cluster.join(1, false).await.unwrap();
        cluster
    }

    async fn join(&mut self, id: i32, auto_join: bool) -> Result<(), StartError> {
        self.dirs.entry(id).or_insert_with(|| tempfile::tempdir().unwrap());
        let client = bind("PLAINTEXT", ListenerType::Broker).await;
        let controller = bind("CONTROLLER", ListenerType::Controller).await;
        if self.bootstrap == 0 {
            self.bootstrap = controller.address().port();
        }
        let ports = (client.address().port(), Some(controller.address().port()));
        let dirs = [self.dirs[&id].path().to_owned()];
        let servers = format!("127.0.0.1:{}", self.bootstrap);
        let voters = format!("{id}@{servers}");
        let quorum = match self.is_static && id == 1 {
            true => ("controller.quorum.voters", voters.as_str()),
            false => ("controller.quorum.bootstrap.servers", servers.as_str()),
        };
        let auto_join = ("controller.quorum.auto.join.enable", &auto_join.to_string()[..]);
        let settings = node_settings(id, &dirs, ports, &[quorum, auto_join]);
        let mut node = Node::open(settings, Arc::new(RealDisk), Some(controller)).await?;
        node.join().await?;
        node.server.open(vec![client]);
        self.nodes.insert(id, node);
        Ok(())
    }

    async fn stop(&mut self, id: i32) {
        let node = self.nodes.remove(&id).unwrap();
        node.broker.leave().await;
        node.server.stop().await;
        node.broker.stop().await;
    }

    fn voters(&self, id: i32) -> Vec<i32> {
        self.nodes[&id].broker.voters().ids().map(|id| id.0).collect()
    }

    fn voter(&self, id: i32) -> Voter {
        let broker = &self.nodes[&id].broker;
        let endpoint = |it: &AdvertisedListener| VoterEndpoint {
            name: it.name.clone(),
            address: (it.host.clone(), it.port),
        };
        Voter {
            id: BrokerId(id),
            directory_id: broker.metadata_directory_id(),
            endpoints: broker.settings().controller_listeners.iter().map(endpoint).collect(),
            kraft_versions: (0, 1),
        }
    }

    /// The one that leads, once it is known.
    async fn leader(&self) -> i32 {
        let begin = Instant::now();
        loop {
            for (id, node) in &self.nodes {
                let status = node.broker.quorum_status().unwrap();
                if status.leader_id.0 == *id {
                    return *id;
                }
            }
            assert!(begin.elapsed() < PATIENCE, "nobody leads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn create_topic(&self, at: i32, name: &str, replicas: i16) {
        create_topic(&self.nodes[&at].broker, name, 1, replicas).await;
    }

    async fn until(&self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        let begin = Instant::now();
        while !holds(self) {
            let status: Vec<_> =
                self.nodes.values().map(|node| node.broker.quorum_status()).collect();
            assert!(begin.elapsed() < PATIENCE, "{what}: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn add(&self, id: i32) -> Result<(), ErrorCode> {
        let leader = self.leader().await;
        let (voter, timeout) = (self.voter(id), Duration::from_secs(10));
        self.nodes[&leader].broker.voting()?.add_voter(voter, Answered::Committed, timeout).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_voter_becomes_three_and_one_again() {
    let mut cluster = Cluster::start(false).await;
    assert_eq!(cluster.voters(1), [1]);
    for number in 0..20 {
        cluster.create_topic(1, &format!("a{number}"), 1).await;
    }
    let refused = cluster.join(2, false).await;
    assert!(matches!(refused, Err(StartError::NotFormatted)), "{refused:?}");
    for id in [2, 3] {
        cluster.join(id, true).await.unwrap();
        cluster.until("it has a vote", |it| it.voters(id).contains(&id)).await;
        cluster.create_topic(id, &format!("b{id}"), 2).await;
    }
    cluster
        .until("all know the voters", |it| [1, 2, 3].iter().all(|id| it.voters(*id) == [1, 2, 3]))
        .await;
    assert_eq!(cluster.add(3).await, Err(ErrorCode::DuplicateVoter));
    let leader = cluster.leader().await;
    let status = cluster.nodes[&leader].broker.quorum_status().unwrap();
    assert!(status.voters.iter().all(|it: &VoterStatus| !it.directory_id.is_nil()), "{status:?}");

    // The leader is replaced when it goes.
    cluster.stop(leader).await;
    let rest: Vec<i32> = cluster.nodes.keys().copied().collect();
    cluster.create_topic(rest[0], "c", 2).await;
    let next = cluster.leader().await;
    let gone = cluster.nodes[&next].broker.voters().get(BrokerId(leader)).unwrap().directory_id;
    let removed = cluster.nodes[&next].broker.remove_voter(BrokerId(leader), gone).await;
    assert_eq!(removed, Ok(()));
    // And the leader of two has the other one elected before its vote is taken.
    let own = cluster.voter(next).directory_id;
    let removed = cluster.nodes[&next].broker.remove_voter(BrokerId(next), own).await;
    assert_eq!(removed, Err(ErrorCode::NotLeaderOrFollower));
    let last = cluster.leader().await;
    assert_ne!(last, next);
    let last_broker = &cluster.nodes[&last].broker;
    let begin = Instant::now();
    while let Err(error) = last_broker.remove_voter(BrokerId(next), own).await {
        assert_eq!(error, ErrorCode::RequestTimedOut);
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.create_topic(next, "d", 2).await;
    cluster.until("it follows without a vote", |it| it.voters(next) == [last]).await;
    let own = cluster.voter(last).directory_id;
    let removed = cluster.nodes[&last].broker.remove_voter(BrokerId(last), own).await;
    assert_eq!(removed, Err(ErrorCode::InvalidRequest));
    assert_eq!(cluster.add(next).await, Ok(()));
    for id in [last, next] {
        cluster.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_of_the_configuration_can_be_changed_once_kraft_version_is_raised() {
    let mut cluster = Cluster::start(true).await;
    cluster.create_topic(1, "a", 1).await;
    let broker = Arc::clone(&cluster.nodes[&1].broker);
    assert_eq!(broker.kraft_version(), 0);
    let timeout = Duration::from_secs(10);
    let refused =
        broker.voting().unwrap().add_voter(cluster.voter(1), Answered::Committed, timeout).await;
    assert_eq!(refused, Err(ErrorCode::UnsupportedVersion));
    assert_eq!(broker.voting().unwrap().make_dynamic().await, Ok(()));
    assert_eq!(broker.kraft_version(), 1);
    cluster.join(2, true).await.unwrap();
    cluster.until("it has a vote", |it| it.voters(2) == [1, 2]).await;
    cluster.create_topic(2, "b", 2).await;
    // The log goes before the configuration, which still names one voter.
    for id in [1, 2] {
        cluster.stop(id).await;
    }
}
