//! What a Kafka 2.8.2 left in a ZooKeeper 3.5.9, as exported, and what it means.

use super::{Cluster, PartitionState, Source, Tree, ZooKeeperError};
use std::collections::BTreeMap;
use std::io;

const RECORDED: &[u8] = include_bytes!("testdata/kafka-2.8.2.json");

fn recorded() -> Tree {
    Tree::from_json(RECORDED).unwrap()
}

fn read_with(changes: &[(&str, &str)]) -> Result<Cluster, ZooKeeperError> {
    let mut tree = recorded();
    for (path, data) in changes {
        tree.insert(*path, Some((*data).to_owned()));
    }
    Cluster::read(&tree)
}

#[test]
fn a_tree_survives_its_file() {
    let tree = recorded();
    assert_eq!(Tree::from_json(tree.to_json().as_bytes()).unwrap(), tree);
    let children: Vec<&str> = tree.children("/brokers/topics").collect();
    let topics = ["__consumer_offsets", "__transaction_state", "compacted", "doomed", "plain"];
    assert_eq!(children, [&topics[..], &["round-0"]].concat());
    assert_eq!(tree.data("/brokers/ids"), None);
    let mut tree = tree;
    tree.remove("/brokers/topics");
    assert_eq!(tree.below("/brokers/topics").count(), 0);
    assert!(tree.data("/cluster/id").is_some());
}

#[test]
fn files_that_are_no_export_are_told_what_they_lack() {
    let check = |text: &str, expected: &str| {
        let error = Tree::from_json(text.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("", "EOF");
    check("{}", "version");
    check(r#"{"version":2,"nodes":{}}"#, "version");
    check(r#"{"version":1}"#, "nodes");
    check(r#"{"version":1,"nodes":{"/a":1}}"#, "/a");
    check(r#"{"version":1,"nodes":{"a":null}}"#, "path");
}

#[test]
fn the_recorded_cluster_is_read_whole() {
    let cluster = Cluster::read(&recorded()).unwrap();
    assert_eq!(cluster.id.as_deref(), Some("S5eGc78jQlibQ5LtWcXAzw"));
    assert_eq!((cluster.controller_epoch, cluster.next_producer_id), (3, 3000));
    assert!(cluster.brokers.is_empty() && cluster.acls.is_empty() && !cluster.is_reassigning);
    assert!(cluster.deletions.iter().eq(["doomed"]));
    let plain = &cluster.topics["plain"];
    assert_eq!(plain.partitions, BTreeMap::from([(0, vec![1]), (1, vec![1]), (2, vec![1])]));
    let state = PartitionState { leader: 1, leader_epoch: 0, isr: vec![1] };
    assert_eq!(plain.states[&2], state);
    assert!(plain.id.is_some() && !plain.is_reassigning);
    let names: Vec<String> = cluster
        .configs
        .keys()
        .map(|entity| {
            let part = |(kind, name): &(String, Option<String>)| {
                format!("{kind}:{}", name.as_deref().unwrap_or("<default>"))
            };
            entity.0.iter().map(part).collect::<Vec<_>>().join(" ")
        })
        .filter(|name| !name.starts_with("topics"))
        .collect();
    let expected = [
        "brokers:<default>",
        "brokers:1",
        "clients:c1",
        "ips:10.0.0.1",
        "users:al ice*",
        "users:bob clients:<default>",
    ];
    assert_eq!(names, expected);
    assert_eq!(cluster.topic_configs("compacted")["cleanup.policy"], "compact");
}

#[test]
fn what_would_change_under_the_hands_is_told_of() {
    let topic = r#"{"version":3,"partitions":{"0":[1]},"adding_replicas":{"0":[2]}}"#;
    assert!(read_with(&[("/brokers/topics/t", topic)]).unwrap().topics["t"].is_reassigning);
    let plan = r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1]}]}"#;
    assert!(read_with(&[("/admin/reassign_partitions", plan)]).unwrap().is_reassigning);
    assert_eq!(read_with(&[("/brokers/ids/1", "{}")]).unwrap().brokers, ["1"]);
    let acls = r#"{"version":1,"acls":[{"principal":"User:Bob"}]}"#;
    let path = "/kafka-acl-extended/prefixed/Topic/t";
    assert_eq!(read_with(&[(path, acls)]).unwrap().acls, [path]);
    let none = r#"{"version":1,"acls":[]}"#;
    assert!(read_with(&[("/kafka-acl/Topic/t", none)]).unwrap().acls.is_empty());
}

/// Versions 1 and 2 of the nodes (Kafka 0.8 to 2.3) have no ids and no reassignments.
#[test]
fn nodes_of_older_versions_are_read() {
    let cluster = read_with(&[
        ("/brokers/topics/old", r#"{"version":1,"partitions":{"1":[0],"0":[0]}}"#),
        ("/config/topics/old", r#"{"version":1,"config":{"retention.ms":3600000}}"#),
    ])
    .unwrap();
    assert_eq!(cluster.topics["old"].id, None);
    assert_eq!(cluster.topics["old"].partitions.len(), 2);
    assert_eq!(cluster.topic_configs("old")["retention.ms"], "3600000");
}

#[test]
fn a_damaged_node_is_named() {
    for (path, data) in [
        ("/brokers/topics/t", "{"),
        ("/brokers/topics/t", r#"{"partitions":{"0":["x"]}}"#),
        ("/brokers/topics/plain/partitions/0/state", "{}"),
        ("/config/topics/t", r#"{"config":{"a":[1]}}"#),
        ("/controller_epoch", "x"),
        ("/latest_producer_id_block", "{}"),
        ("/cluster/id", "id"),
    ] {
        let error = read_with(&[(path, data)]).unwrap_err().to_string();
        assert!(error.contains(path), "{error}");
    }
}

#[tokio::test]
async fn a_source_is_nothing_or_a_file() {
    let none = Source::open("none", |_| Err(io::ErrorKind::NotFound.into())).await;
    assert!(matches!(none, Ok(Source::Nothing)));
    let file = Source::open("zk.json", |_| Ok(RECORDED.to_vec())).await;
    assert!(matches!(file, Ok(Source::Tree(tree)) if tree == recorded()));
    for missing in ["zk.json", "./zk", "/tmp/zk"] {
        let error = Source::open(missing, |_| Err(io::ErrorKind::NotFound.into())).await;
        assert!(matches!(error, Err(ZooKeeperError::File { .. })), "{missing}");
    }
}
