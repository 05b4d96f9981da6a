//! The door over sockets, with the client that Kafka's directories are imported by.

use super::*;
use crate::env::SystemClock;
use crate::env::net::ListenOptions;
use crate::zookeeper::wire::{CreateMode, Watch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zookeeper_client as zk;

const OPTIONS: ListenOptions =
    ListenOptions { backlog: 16, receive_buffer_bytes: None, send_buffer_bytes: None };

async fn open() -> (DoorServer, String) {
    let listener = Listener::bind("127.0.0.1", 0, &OPTIONS).await.unwrap();
    let address = listener.address().to_string();
    (serve_on(listener), address)
}

fn serve_on(listener: Listener) -> DoorServer {
    let mut server = DoorServer::new(Arc::new(SystemClock));
    server.open(vec![listener]);
    server
}

async fn client(address: &str) -> zk::Client {
    zk::Client::connector()
        .with_session_timeout(Duration::from_secs(4))
        .with_fail_eagerly()
        .connect(address)
        .await
        .unwrap()
}

fn mode(mode: zk::CreateMode) -> zk::CreateOptions<'static> {
    mode.with_acls(zk::Acls::anyone_all())
}

#[tokio::test]
async fn a_client_finds_what_zookeeper_has() {
    let (server, address) = open().await;
    let client = client(&address).await;
    let persistent = mode(zk::CreateMode::Persistent);
    client.mkdir("/brokers/ids", &persistent).await.unwrap();
    let (stat, _) =
        client.create("/brokers/ids/1", b"{}", &mode(zk::CreateMode::Ephemeral)).await.unwrap();
    assert_eq!(stat.ephemeral_owner, client.session_id().0);
    let (data, again) = client.get_data("/brokers/ids/1").await.unwrap();
    assert_eq!((&data[..], again), (&b"{}"[..], stat));
    assert_eq!(client.list_children("/brokers/ids").await.unwrap(), ["1"]);
    let (names, stat) = client.get_children("/brokers").await.unwrap();
    assert_eq!((names, stat.num_children), (vec!["ids".to_owned()], 1));
    assert_eq!(client.get_data("/nothing").await, Err(zk::Error::NoNode));
    let taken = client.create("/brokers", b"", &persistent).await;
    assert_eq!(taken.err(), Some(zk::Error::NodeExists));
    assert_eq!(client.delete("/brokers/ids", None).await, Err(zk::Error::NotEmpty));
    let stat = client.set_data("/brokers", b"x", Some(0)).await.unwrap();
    assert_eq!(stat.version, 1);
    let many = mode(zk::CreateMode::PersistentSequential);
    let (_, first) = client.create("/brokers/n-", b"", &many).await.unwrap();
    assert_eq!(first.into_i64(), 1);
    client.sync("/").await.unwrap();
    assert_eq!(client.get_acl("/").await.unwrap().0, zk::Acls::anyone_all().to_vec());
    server.stop().await;
}

#[tokio::test]
async fn a_watch_tells_of_another_clients_end() {
    let (server, address) = open().await;
    let (watcher, other) = (client(&address).await, client(&address).await);
    let ephemeral = mode(zk::CreateMode::Ephemeral);
    other.create("/mine", b"", &ephemeral).await.unwrap();
    let (_, children) = watcher.list_and_watch_children("/").await.unwrap();
    let (stat, node) = watcher.check_and_watch_stat("/mine").await.unwrap();
    assert!(stat.is_some());
    drop(other);
    assert_eq!(node.changed().await.event_type, zk::EventType::NodeDeleted);
    assert_eq!(children.changed().await.event_type, zk::EventType::NodeChildrenChanged);
    assert_eq!(watcher.list_children("/").await.unwrap(), Vec::<String>::new());
    server.stop().await;
}

#[tokio::test]
async fn the_holders_own_session_needs_no_socket() {
    let (server, address) = open().await;
    let own = server.local_session();
    let client = client(&address).await;
    let create = |path: &str, mode| Request::Create {
        path: path.to_owned(),
        data: Bytes::new(),
        mode,
        wants_stat: false,
    };
    own.request(create("/dir", CreateMode::Persistent)).unwrap();
    own.request(create("/mine", CreateMode::Ephemeral)).unwrap();
    let watch = Watch::Leave;
    own.request(Request::GetChildren { path: "/dir".into(), watch, wants_stat: false }).unwrap();
    client.create("/dir/x", b"", &mode(zk::CreateMode::Persistent)).await.unwrap();
    assert_eq!(own.events().await[0].path, "/dir");
    let (_, gone) = client.get_and_watch_data("/mine").await.map(|(_, stat, w)| (stat, w)).unwrap();
    drop(own);
    assert_eq!(gone.changed().await.event_type, zk::EventType::NodeDeleted);
    server.stop().await;
}

#[tokio::test]
async fn a_session_that_is_over_is_told_so() {
    let (server, address) = open().await;
    let client = client(&address).await;
    let mut states = client.state_watcher();
    let (session, _) = (client.session().clone(), states.peek_state());
    server.stop().await;
    assert_eq!(states.changed().await, zk::SessionState::Disconnected);
    drop(client);
    let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let listener = Listener::bind("127.0.0.1", port, &OPTIONS).await.unwrap();
    let next = serve_on(listener);
    let back = zk::Client::connector().with_session(session).connect(&address).await;
    assert_eq!(back.err(), Some(zk::Error::SessionExpired));
    next.stop().await;
}

#[tokio::test]
async fn words_of_four_letters_tell_what_this_is() {
    let (server, address) = open().await;
    for (word, expected) in
        [("ruok", "imok"), ("isro", "rw"), ("srvr", MARK), ("dump", "dump is not")]
    {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(expected), "{word}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_zookeeper_is_hung_up_on() {
    let (server, address) = open().await;
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], &[0x7f; 4][..], &[0, 0, 0, 4, 1, 2, 3, 4][..]] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
    }
    server.stop().await;
}
