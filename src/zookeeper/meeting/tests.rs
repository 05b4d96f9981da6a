//! Brokers that meet over sockets of this machine.

use super::*;
use crate::env::SystemClock;
use crate::env::net::{ListenOptions, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(20);
const OPTIONS: ListenOptions =
    ListenOptions { backlog: 16, receive_buffer_bytes: None, send_buffer_bytes: None };

async fn free_port() -> u16 {
    Listener::bind("127.0.0.1", 0, &OPTIONS).await.unwrap().address().port()
}

/// A broker of this id; its own address is one where nobody listens.
async fn broker(node_id: i32, connect: &str) -> MeetingParams {
    let port = free_port().await;
    MeetingParams {
        connect: ConnectString::parse(connect).unwrap(),
        node_id,
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".to_owned(),
            protocol: "PLAINTEXT",
            host: "127.0.0.1".to_owned(),
            port,
        }],
        rack: None,
        cluster_id: None,
        new_cluster_id: format!("cluster-of-{node_id}"),
        part: Part::Newcomer,
        clock: Arc::new(SystemClock),
    }
}

fn member(params: MeetingParams, cluster_id: &str) -> MeetingParams {
    MeetingParams { cluster_id: Some(cluster_id.into()), part: Part::Member, ..params }
}

async fn outcome(meeting: &Meeting) -> Result<Outcome, MeetingError> {
    tokio::time::timeout(PATIENCE, meeting.outcome()).await.expect("they meet in time")
}

async fn await_peers(meeting: &Meeting, count: usize) -> Vec<Address> {
    let mut peers = meeting.peers();
    let seen = peers.wait_for(|peers| peers.len() == count);
    tokio::time::timeout(PATIENCE, seen).await.expect("in time").unwrap().clone()
}

#[tokio::test]
async fn the_first_founds_and_others_join() {
    let connect = format!("127.0.0.1:{}", free_port().await);
    let (one, two) = (broker(1, &connect).await, broker(2, &connect).await);
    let addresses = [&one, &two].map(|it| ("127.0.0.1".to_owned(), it.endpoints[0].port));
    let one = Meeting::begin(one);
    assert_eq!(outcome(&one).await.unwrap(), Outcome::Found("cluster-of-1".to_owned()));
    let two = Meeting::begin(two);
    assert_eq!(outcome(&two).await.unwrap(), Outcome::Join("cluster-of-1".to_owned()));
    assert_eq!(await_peers(&one, 1).await, addresses[1..]);
    assert_eq!(await_peers(&two, 1).await, addresses[..1]);
    two.leave().await;
    await_peers(&one, 0).await;
    one.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_come_at_once_one_founds() {
    for round in 0..10 {
        let connect = format!("127.0.0.1:{}/k{round}", free_port().await);
        let mut meetings = Vec::new();
        for id in 0..5 {
            meetings.push(Meeting::begin(broker(id, &connect).await));
        }
        let (mut founded, mut ids) = (0, std::collections::BTreeSet::new());
        for meeting in &meetings {
            match outcome(meeting).await.unwrap() {
                Outcome::Found(id) => {
                    founded += 1;
                    ids.insert(id);
                }
                Outcome::Join(id) => {
                    ids.insert(id);
                }
            }
        }
        assert_eq!((founded, ids.len()), (1, 1));
        for meeting in &meetings {
            await_peers(meeting, 4).await;
        }
    }
}

#[tokio::test]
async fn when_its_holder_goes_another_has_the_door_and_the_cluster_stays() {
    let connect = format!("127.0.0.1:{}", free_port().await);
    let one = Meeting::begin(broker(1, &connect).await);
    outcome(&one).await.unwrap();
    let two = Meeting::begin(broker(2, &connect).await);
    outcome(&two).await.unwrap();
    let three = Meeting::begin(broker(3, &connect).await);
    outcome(&three).await.unwrap();
    // They have been there long enough to come back at once.
    tokio::time::sleep(RETRY_PAUSE + Duration::from_millis(100)).await;
    // As `kill -9` would end it.
    one.task.abort();
    let four = Meeting::begin(broker(4, &connect).await);
    assert_eq!(outcome(&four).await.unwrap(), Outcome::Join("cluster-of-1".to_owned()));
    for meeting in [&two, &three, &four] {
        await_peers(meeting, 2).await;
    }
}

#[tokio::test]
async fn brokers_of_two_clusters_are_told_so() {
    let connect = format!("127.0.0.1:{}", free_port().await);
    let one = Meeting::begin(broker(1, &connect).await);
    outcome(&one).await.unwrap();
    let two = Meeting::begin(member(broker(2, &connect).await, "other"));
    let refused = outcome(&two).await.unwrap_err().to_string();
    assert!(
        refused.contains("of cluster cluster-of-1, and log.dirs of cluster other"),
        "{refused}"
    );
    // Under another chroot there may be another cluster.
    let three = Meeting::begin(broker(3, &format!("{connect}/three")).await);
    assert_eq!(outcome(&three).await.unwrap(), Outcome::Found("cluster-of-3".to_owned()));
}

#[tokio::test]
async fn an_id_in_use_is_refused_and_that_of_a_dead_broker_is_not() {
    let connect = format!("127.0.0.1:{}", free_port().await);
    let mut one = broker(1, &connect).await;
    let alive = Listener::bind("127.0.0.1", 0, &OPTIONS).await.unwrap();
    one.endpoints[0].port = alive.address().port();
    let one = Meeting::begin(one);
    outcome(&one).await.unwrap();
    let second = broker(1, &connect).await;
    let own = second.endpoints[0].port;
    let refused = outcome(&Meeting::begin(second.clone())).await.unwrap_err().to_string();
    assert!(refused.contains(&alive.address().to_string()), "{refused}");
    assert!(refused.contains(&format!("127.0.0.1:{own}")), "{refused}");
    drop(alive);
    let second = Meeting::begin(second);
    assert!(matches!(outcome(&second).await, Ok(Outcome::Join(_))));
}

/// Answers every connection with the same text.
async fn server_that_says(text: &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn who_else_is_at_the_address_is_told() {
    for (text, expected) in [
        ("Zookeeper version: 3.5.9-83df9301, built on 01/06/2021\n", "--from-zookeeper"),
        ("srvr is not executed because it is not in the whitelist.\n", "--from-zookeeper"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "something that is not ZooKeeper"),
    ] {
        let connect = format!("127.0.0.1:{}", server_that_says(text).await);
        let refused = outcome(&Meeting::begin(broker(1, &connect).await)).await.unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
        assert!(refused.to_string().contains("zookeeper.connect"), "{refused}");
        // Who has a cluster needs no address, and waits without end.
        let member = Meeting::begin(member(broker(1, &connect).await, "x"));
        let waited = tokio::time::timeout(Duration::from_millis(100), member.outcome()).await;
        assert!(waited.is_err());
    }
}

#[tokio::test]
async fn only_at_the_first_address_a_cluster_is_founded() {
    let connect = format!("nowhere.invalid:1,127.0.0.1:{}", free_port().await);
    let new = Meeting::begin(broker(1, &connect).await);
    let waited = tokio::time::timeout(Duration::from_millis(300), new.outcome()).await;
    assert!(waited.is_err());
    // One that has a cluster is joined there as well.
    let old = Meeting::begin(member(broker(2, &connect).await, "x"));
    assert_eq!(outcome(&old).await.unwrap(), Outcome::Join("x".to_owned()));
    assert_eq!(outcome(&new).await.unwrap(), Outcome::Join("x".to_owned()));
}

#[tokio::test]
async fn all_go_to_the_first_address_once_it_can_be_had() {
    let (first, second) = (free_port().await, free_port().await);
    let taken = Listener::bind("127.0.0.1", first, &OPTIONS).await.unwrap();
    let connect = format!("127.0.0.1:{first},127.0.0.1:{second}");
    // The first address is held by somebody who says nothing.
    let one = Meeting::begin(member(broker(1, &connect).await, "x"));
    outcome(&one).await.unwrap();
    drop(taken);
    let two = Meeting::begin(member(broker(2, &connect).await, "x"));
    outcome(&two).await.unwrap();
    await_peers(&one, 1).await;
    await_peers(&two, 1).await;
}

#[tokio::test]
async fn the_active_controller_is_named() {
    let address = format!("127.0.0.1:{}", free_port().await);
    let one = Meeting::begin(broker(1, &address).await);
    outcome(&one).await.unwrap();
    let two = Meeting::begin(broker(2, &address).await);
    outcome(&two).await.unwrap();
    let client = zookeeper_client::Client::connect(&address).await.unwrap();
    let named = async |expected: Option<i32>| {
        let check = async {
            loop {
                let node = client.get_data(CONTROLLER).await.ok();
                if node.and_then(|(node, _)| nodes::controller_id(&node)) == expected {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, check).await.expect("in time");
    };
    one.lead(true);
    named(Some(1)).await;
    two.lead(true);
    named(Some(2)).await;
    one.lead(false);
    named(Some(2)).await;
    two.leave().await;
    named(None).await;
}
