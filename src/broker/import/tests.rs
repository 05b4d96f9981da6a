//! Log directories as Kafka 2.8.2 leaves them, the tree that it left in ZooKeeper, and a broker that starts on them.

use super::super::start::StartError;
use super::super::tests::{create_topic, files, settings, settings_with};
use super::super::{Broker, ControllerRequest, Image, Settings};
use super::PRODUCER_ID_GAP;
use crate::env::faulty::FaultyDisk;
use crate::env::{Disk, RealDisk, SystemClock};
use crate::log::checkpoint::parse_partition_dir;
use crate::machines::metadata::image::{ConfigResource, QuotaEntity, QuotaValue, ResourceType};
use crate::zookeeper::{Cluster, Source, Tree};
use ottla_protocol::messages::CreatePartitionsRequest;
use ottla_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use ottla_protocol::{BrokerId, LeaderEpoch, ProducerId, uuid_to_text};
use std::path::Path;
use std::sync::Arc;

const RECORDED: &[u8] = include_bytes!("../../zookeeper/testdata/kafka-2.8.2.json");
const META: &str =
    "#\n#Sat Nov 28 05:47:25 UTC 2026\nbroker.id=1\nversion=0\ncluster.id=S5eGc78jQlibQ5LtWcXAzw\n";

fn recorded() -> Tree {
    Tree::from_json(RECORDED).unwrap()
}

fn write(path: &Path, text: &str) {
    RealDisk.create_dir_all(path.parent().unwrap()).unwrap();
    RealDisk.write_atomic(path, text.as_bytes()).unwrap();
}

/// The directories of the recorded cluster, all of them empty of records.
fn lay_out(dir: &Path) {
    write(&dir.join("meta.properties"), META);
    for (name, topic) in Cluster::read(&recorded()).unwrap().topics {
        for index in topic.partitions.keys() {
            let partition = dir.join(format!("{name}-{index}"));
            let id = uuid_to_text(topic.id.unwrap());
            write(&partition.join("partition.metadata"), &format!("version: 0\ntopic_id: {id}"));
            write(&partition.join("leader-epoch-checkpoint"), "0\n1\n0 0\n");
            write(&partition.join("00000000000000000000.log"), "");
        }
    }
}

fn with(dir: &Path, source: Option<Source>) -> Settings {
    Settings { zookeeper: source, ..settings(&[dir]) }
}

async fn start_on(disk: Arc<dyn Disk>, settings: Settings) -> Result<Arc<Broker>, StartError> {
    Broker::start(settings, disk, Arc::new(SystemClock)).await
}

async fn start(dir: &Path, source: Option<Source>) -> Result<Arc<Broker>, StartError> {
    start_on(Arc::new(RealDisk), with(dir, source)).await
}

fn config(image: &Image, kind: ResourceType, name: &str, key: &str) -> Option<String> {
    image.config(&ConfigResource::new(kind, name)).get(key).cloned()
}

fn check_image(image: &Image) {
    let cluster = Cluster::read(&recorded()).unwrap();
    for (name, topic) in cluster.topics.iter().filter(|(name, _)| *name != "doomed") {
        let found = image.topics.get(name).unwrap();
        assert_eq!(Some(found.id), topic.id);
        assert_eq!(found.partition_count(), topic.partitions.len() as i32);
        for partition in found.partitions.values() {
            assert_eq!(partition.leader, BrokerId(1));
            assert_eq!(partition.leader_epoch, LeaderEpoch(0), "{name}");
        }
    }
    assert!(image.topics.get("doomed").is_none());
    let topic = |name: &str, key: &str| config(image, ResourceType::Topic, name, key);
    assert_eq!(topic("compacted", "cleanup.policy").as_deref(), Some("compact"));
    assert_eq!(topic("__consumer_offsets", "segment.bytes").as_deref(), Some("104857600"));
    assert_eq!(topic("plain", "retention.ms").as_deref(), Some("-1"));
    assert_eq!(topic("plain", "message.timestamp.after.max.ms").as_deref(), Some("86400000"));
    assert_eq!(topic("plain", "message.format.version"), None);
    let broker = |name: &str, key: &str| config(image, ResourceType::Broker, name, key);
    assert_eq!(broker("", "log.retention.ms").as_deref(), Some("7200000"));
    assert_eq!(broker("1", "log.cleaner.threads").as_deref(), Some("2"));
    assert_eq!(broker("1", "leader.replication.throttled.rate").as_deref(), Some("1000000"));
    let entity = |parts: &[(&str, Option<&str>)]| {
        let part =
            |(kind, name): &(&str, Option<&str>)| ((*kind).to_owned(), name.map(str::to_owned));
        QuotaEntity(parts.iter().map(part).collect())
    };
    let bob = &image.quotas.entities[&entity(&[("user", Some("bob")), ("client-id", None)])];
    assert_eq!(bob["request_percentage"], QuotaValue(12.5));
    let ip = &image.quotas.entities[&entity(&[("ip", Some("10.0.0.1"))])];
    assert_eq!(ip["connection_creation_rate"], QuotaValue(5.0));
    let alice = &image.scram.credentials[&(2, "al ice*".to_owned())];
    assert_eq!((alice.iterations, alice.stored_key.len(), alice.server_key.len()), (4096, 64, 64));
    assert_eq!(&alice.salt[..], b"fqz553jejyki7t0pbi41s1umo");
    assert!(image.next_producer_id >= ProducerId(3000 + PRODUCER_ID_GAP));
}

#[tokio::test]
async fn everything_that_zookeeper_knows_is_taken_over_once_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path());
    let broker = start(dir.path(), Some(Source::Tree(recorded()))).await.unwrap();
    check_image(&broker.image());
    assert_eq!(broker.cluster_id(), "S5eGc78jQlibQ5LtWcXAzw");
    broker.stop().await;
    drop(broker);
    let meta = RealDisk.read(&dir.path().join("meta.properties")).unwrap();
    assert_eq!(String::from_utf8(meta).unwrap(), META);
    let names: Vec<String> =
        RealDisk.list(dir.path()).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(!names.iter().any(|name| name == "doomed-0" || name.ends_with("-stray")), "{names:?}");
    // The option may stay on the command line, and may go: leader epochs stand still.
    for source in [Some(Source::Tree(recorded())), None] {
        let broker = start(dir.path(), source).await.unwrap();
        check_image(&broker.image());
        broker.stop().await;
    }
}

#[tokio::test]
async fn a_kafka_that_ran_since_is_noticed_and_topics_made_here_stay() {
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path());
    let broker = start(dir.path(), Some(Source::Tree(recorded()))).await.unwrap();
    let made = create_topic(&broker, "made-here").await;
    let more = CreatePartitionsTopic { name: "plain".to_owned(), count: 4, assignments: None };
    let request = CreatePartitionsRequest { topics: vec![more], ..Default::default() };
    let seed = uuid::Uuid::new_v4();
    broker.controller(ControllerRequest::CreatePartitions { request, seed }).await.unwrap();
    let id = made.topic_id();
    let path = made.checkpoint().unwrap().directory.join("made-here-0/partition.metadata");
    let producer_id = broker.image().next_producer_id;
    broker.stop().await;
    drop(broker);
    write(&path, &format!("version: 0\ntopic_id: {}", uuid_to_text(id)));
    write(&dir.path().join("plain-3/00000000000000000000.log"), "");
    write(&dir.path().join("meta.properties"), &META.replace("05:47:25", "06:00:00"));
    let before = files(dir.path());
    let error = start(dir.path(), None).await.unwrap_err().to_string();
    assert!(error.contains("--from-zookeeper"), "{error}");
    assert_eq!(files(dir.path()), before);
    let broker = start(dir.path(), Some(Source::Tree(recorded()))).await.unwrap();
    assert_eq!(broker.image().topics.get("plain").unwrap().partition_count(), 4);
    assert_eq!(broker.image().topics.get("made-here").unwrap().id, id);
    assert!(broker.image().next_producer_id >= producer_id);
    broker.stop().await;
    drop(broker);
    start(dir.path(), None).await.unwrap().stop().await;
}

type Change = fn(&Path, &mut Tree);

/// What the change makes of it is refused with `expected`, and nothing is changed.
async fn check_refused(change: Change, expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path());
    let mut tree = recorded();
    change(dir.path(), &mut tree);
    let before = files(dir.path());
    let result = start(dir.path(), Some(Source::Tree(tree))).await;
    let error = result.expect_err(expected).to_string();
    assert!(error.contains(expected) && error.contains("nothing was changed"), "{error}");
    assert_eq!(files(dir.path()), before, "{expected}");
}

fn set(tree: &mut Tree, path: &str, data: &str) {
    tree.insert(path, Some(data.to_owned()));
}

#[tokio::test]
async fn what_cannot_be_taken_over_is_refused_before_a_byte_changes() {
    let topic = "/brokers/topics/plain";
    let cases: [(Change, &str); 17] = [
        (
            |dir, _| {
                let message = [&[0; 11][..], &[20, 0, 0, 0, 0, 1], &[0; 15]].concat();
                let path = dir.join("plain-1/00000000000000000000.log");
                RealDisk.write_atomic(&path, &message).unwrap();
            },
            "magic 1",
        ),
        (
            |_, tree| {
                let data = r#"{"config":{"message.format.version":"0.10.2-IV0"}}"#;
                set(tree, "/config/topics/plain", data);
            },
            "message.format.version",
        ),
        (|dir, _| write(&dir.join("meta.properties"), "version=0\nbroker.id=1\n"), "cluster.id"),
        (|_, tree| set(tree, "/brokers/ids/1", "{}"), "registered"),
        (|_, tree| set(tree, "/cluster/id", r#"{"version":"1","id":"other"}"#), "/cluster/id"),
        (
            |_, tree| set(tree, "/kafka-acl/Topic/plain", r#"{"acls":[{"principal":"User:a"}]}"#),
            "/kafka-acl/Topic/plain",
        ),
        (
            |_, tree| set(tree, "/admin/reassign_partitions", r#"{"partitions":[{"topic":"t"}]}"#),
            "reassign",
        ),
        (|_, tree| set(tree, "/brokers/topics/more", r#"{"partitions":{"0":[1,2]}}"#), "more-0"),
        (|_, tree| set(tree, "/brokers/topics/more", r#"{"partitions":{"0":[2]}}"#), "[2]"),
        (|_, tree| set(tree, "/brokers/topics/more", r#"{"partitions":{"1":[1]}}"#), "partition 0"),
        (
            |_, tree| {
                let data = r#"{"partitions":{"0":[1]},"adding_replicas":{"0":[2]}}"#;
                set(tree, "/brokers/topics/more", data);
            },
            "being added",
        ),
        (|_, tree| tree.remove("/brokers/topics/plain"), "plain-0"),
        (|dir, _| write(&dir.join("plain-3/00000000000000000000.log"), ""), "plain-3"),
        (
            |dir, _| {
                let text = "version: 0\ntopic_id: 2GvspOOFTCepbw8nzPwzsA";
                write(&dir.join("plain-1/partition.metadata"), text);
            },
            "another topic",
        ),
        (
            |_, tree| set(tree, "/config/topics/plain", r#"{"config":{"cleanup.policy":"x"}}"#),
            "/config/topics/plain",
        ),
        (
            |_, tree| {
                let data = r#"{"config":{"listener.name.a.ssl.key.password":"x"}}"#;
                set(tree, "/config/brokers/1", data);
            },
            "password.encoder.secret",
        ),
        (|dir, _| write(&dir.join("meta.properties"), "version=1\nnode.id=1\n"), "version 0"),
    ];
    assert!(recorded().data(topic).is_some());
    for (change, expected) in cases {
        check_refused(change, expected).await;
    }
}

#[tokio::test]
async fn directories_without_any_partition_are_not_those_of_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("meta.properties"), META);
    let error = start(dir.path(), Some(Source::Tree(recorded()))).await.unwrap_err().to_string();
    assert!(error.contains("log.dirs"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = start(empty.path(), Some(Source::Nothing)).await.unwrap_err().to_string();
    assert!(error.contains("version 0"), "{error}");
}

#[tokio::test]
async fn without_zookeeper_topics_are_what_the_directories_show() {
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path());
    write(&dir.path().join("plain-1/leader-epoch-checkpoint"), "0\n2\n0 0\n7 40\n");
    write(&dir.path().join("cleaner-offset-checkpoint"), "0\n1\ncompacted 0 5\n");
    let broker = start(dir.path(), Some(Source::Nothing)).await.unwrap();
    let image = broker.image();
    assert_eq!(image.topics.len(), 6);
    let plain = image.topics.get("plain").unwrap();
    assert_eq!(plain.partition(1).unwrap().leader_epoch, LeaderEpoch(7));
    let policy = |name: &str| config(&image, ResourceType::Topic, name, "cleanup.policy");
    assert_eq!(policy("__consumer_offsets").as_deref(), Some("compact"));
    assert_eq!(policy("__transaction_state").as_deref(), Some("compact"));
    assert_eq!(policy("compacted"), None);
    let retention = |name: &str| config(&image, ResourceType::Topic, name, "retention.ms");
    assert_eq!((retention("compacted").as_deref(), retention("plain")), (Some("-1"), None));
    broker.stop().await;
}

#[tokio::test]
async fn without_zookeeper_a_gap_in_the_partitions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path());
    RealDisk.remove_dir_all(&dir.path().join("plain-1")).unwrap();
    let before = files(dir.path());
    let error = start(dir.path(), Some(Source::Nothing)).await.unwrap_err().to_string();
    assert!(error.contains("partition 1"), "{error}");
    assert_eq!(files(dir.path()), before);
}

/// At whichever change of a directory the process ends: the import can be done again, and then all is there.
#[tokio::test]
async fn an_import_that_was_cut_short_is_done_again() {
    let mut cuts = 0;
    for count in 0.. {
        let dir = tempfile::tempdir().unwrap();
        lay_out(dir.path());
        let disk = FaultyDisk::default();
        disk.faults.cut_after(count);
        let source = Some(Source::Tree(recorded()));
        let first = start_on(Arc::new(disk), with(dir.path(), source.clone())).await;
        if let Ok(broker) = first {
            broker.stop().await;
            break;
        }
        cuts += 1;
        let broker = start(dir.path(), source).await.unwrap();
        check_image(&broker.image());
        broker.stop().await;
        drop(broker);
        start(dir.path(), None).await.unwrap().stop().await;
    }
    assert!(cuts > 8, "only {cuts} changes");
}

#[tokio::test]
async fn a_directory_that_is_added_is_of_version_zero_too() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    lay_out(old.path());
    let dirs = [old.path(), new.path()];
    let settings = Settings { zookeeper: Some(Source::Tree(recorded())), ..settings(&dirs) };
    let broker = start_on(Arc::new(RealDisk), settings).await.unwrap();
    check_image(&broker.image());
    broker.stop().await;
    drop(broker);
    let meta = RealDisk.read(&new.path().join("meta.properties")).unwrap();
    let meta = String::from_utf8(meta).unwrap();
    assert!(meta.contains("version=0") && !meta.contains("directory.id"), "{meta}");
    let settings = settings_with(&dirs, &[]);
    start_on(Arc::new(RealDisk), settings).await.unwrap().stop().await;
}

#[test]
fn the_recorded_directories_have_names_that_kafka_can_read() {
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path());
    let entries = RealDisk.list(dir.path()).unwrap();
    assert_eq!(entries.iter().filter(|it| parse_partition_dir(&it.name).is_some()).count(), 17);
}
