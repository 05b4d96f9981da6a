//! A whole broker behind a loopback listener, spoken to in raw frames.

mod cluster;
mod configs;
mod cordoned_log_dirs;
mod describe_cluster;
mod durability;
mod envelope;
mod fetch_sessions;
mod groups;
mod growing;
mod log_dirs;
mod metadata_log;
mod node;
mod replication;
mod shared_listener;

use super::*;
use crate::broker::{self, Broker, ControllerReply, ControllerRequest};
use crate::config::Config;
use crate::env::net::ListenOptions;
use crate::env::{RealDisk, SystemClock};
use bytes::{Bytes, BytesMut};
use ottla_protocol::apis::ListenerType;
use ottla_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla_protocol::messages::*;
use ottla_protocol::record::{BatchBuilder, BatchParams};
use ottla_protocol::{ApiKey, ErrorCode, Message, Request, Timestamp, request};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// A logger of which nothing is in force.
fn root_logger() -> Arc<RootLogger> {
    Arc::new(RootLogger::new("info", |_| Ok(())))
}

/// Creates a topic through a broker, wherever the controller is.
async fn create_topic(broker: &Broker, name: &str, partitions: i32, replicas: i16) {
    create_topic_with(broker, name, (partitions, replicas), Vec::new()).await;
}

async fn create_topic_with(
    broker: &Broker,
    name: &str,
    (num_partitions, replication_factor): (i32, i16),
    configs: Vec<CreatableTopicConfig>,
) {
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions,
        replication_factor,
        configs,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let request = ControllerRequest::CreateTopics { request, seed: uuid::Uuid::new_v4() };
    let reply = broker.controller(request).await.unwrap();
    let ControllerReply::CreateTopics(reply) = reply else { panic!("{reply:?}") };
    assert_eq!(reply.topics[0].error_code, 0, "{reply:?}");
}

/// A broker on a port of its own, with a directory that goes with it.
struct World {
    _dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    broker: Arc<Broker>,
    server: Option<Server>,
    address: SocketAddr,
    controller_address: SocketAddr,
}

impl World {
    fn new() -> World {
        World::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Limits)) -> World {
        World::build(change, |_| Vec::new())
    }

    /// A broker with properties that may name its directory.
    fn configured(properties: fn(&str) -> Vec<(&'static str, String)>) -> World {
        World::build(|_| {}, properties)
    }

    fn build(
        change: impl FnOnce(&mut Limits),
        properties: fn(&str) -> Vec<(&'static str, String)>,
    ) -> World {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let config = Config::without_file().unwrap();
        let mut limits = Limits::from_config(&config);
        change(&mut limits);
        let settings = Settings::from_config(&config, root_logger());
        let (broker, server, address, controller_address) = runtime.block_on(async {
            let bound = bind("PLAINTEXT", ListenerType::Broker).await;
            let controller = bind("CONTROLLER", ListenerType::Controller).await;
            let addresses = (bound.address(), controller.address());
            let disk = Arc::new(RealDisk);
            let clock = Arc::new(SystemClock);
            let of_broker = broker_settings(dir.path(), addresses.0, addresses.1, properties);
            let broker = Broker::start(of_broker, disk, clock).await.unwrap();
            let server = Server::start(broker.clone(), limits, settings, vec![bound, controller]);
            (broker, server, addresses.0, addresses.1)
        });
        World { _dir: dir, runtime, broker, server: Some(server), address, controller_address }
    }

    fn connect(&self) -> Client {
        World::connect_to(self.address)
    }

    fn connect_to(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        Client { stream, correlation_id: 0 }
    }

    fn create_topic(&self, name: &str, partitions: i32) {
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let seed = uuid::Uuid::new_v4();
        let request = broker::ControllerRequest::CreateTopics { request, seed };
        let reply = self.runtime.block_on(self.broker.controller(request)).unwrap();
        let broker::ControllerReply::CreateTopics(reply) = reply else { panic!("{reply:?}") };
        assert_eq!(reply.topics[0].error_code, 0, "{reply:?}");
    }
}

async fn bind(name: &str, listener_type: ListenerType) -> BoundListener {
    bind_shared(name, listener_type, false).await
}

async fn bind_shared(name: &str, listener_type: ListenerType, is_shared: bool) -> BoundListener {
    let params = ListenerParams {
        name: name.to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 0,
        listener_type,
        is_shared,
        advertised: Advertised::AsDialled,
        options: ListenOptions { backlog: 16, receive_buffer_bytes: None, send_buffer_bytes: None },
    };
    BoundListener::bind(&params).await.unwrap()
}

impl Drop for World {
    fn drop(&mut self) {
        let server = self.server.take();
        self.runtime.block_on(async {
            if let Some(server) = server {
                server.stop().await;
            }
            self.broker.stop().await;
        });
    }
}

struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    fn send<Q: Request>(&mut self, version: i16, body: &Q) -> i32 {
        self.correlation_id += 1;
        let frame = request::write_request(self.correlation_id, Some("test"), version, body);
        self.stream.write_all(&frame).unwrap();
        self.correlation_id
    }

    fn receive<M: Message>(&mut self, version: i16) -> (i32, M) {
        request::parse_response(self.frame().expect("an answer"), version).unwrap()
    }

    fn call<Q: Request>(&mut self, version: i16, body: &Q) -> Q::Response {
        let sent = self.send(version, body);
        let (correlation_id, response) = self.receive(version);
        assert_eq!(correlation_id, sent);
        response
    }

    /// The next frame; `None` when the broker has closed the connection.
    fn frame(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = BytesMut::zeroed(i32::from_be_bytes(length) as usize);
        self.stream.read_exact(&mut frame).ok()?;
        Some(frame.freeze())
    }
}

fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchParams::default());
    for value in values {
        builder.push(Timestamp(1_700_000_000_000), None, Some(value.as_bytes()), &[]);
    }
    builder.build().freeze()
}

fn broker_settings(
    dir: &std::path::Path,
    address: SocketAddr,
    controller_address: SocketAddr,
    properties: fn(&str) -> Vec<(&'static str, String)>,
) -> broker::Settings {
    let mut values = crate::config::Values::default();
    let dir = dir.to_str().expect("a temporary directory's path is text");
    values.set("log.dirs", dir, crate::config::Source::Override);
    let controller = format!("CONTROLLER://127.0.0.1:{}", controller_address.port());
    let listeners = format!("PLAINTEXT://127.0.0.1:{},{controller}", address.port());
    let voters = format!("1@127.0.0.1:{}", controller_address.port());
    for (key, value) in [
        ("process.roles", "broker,controller"),
        ("producer.id.expiration.check.interval.ms", "50"),
        ("node.id", "1"),
        ("listeners", &listeners),
        ("controller.listener.names", "CONTROLLER"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"),
        ("controller.quorum.voters", &voters),
    ] {
        values.set(key, value, crate::config::Source::Override);
    }
    for (key, value) in properties(dir) {
        values.set(key, &value, crate::config::Source::Override);
    }
    let config = crate::config::Config::from_values(values).expect("valid settings");
    let listener = |name: &str, host: &str, port| broker::AdvertisedListener {
        name: name.to_owned(),
        host: host.to_owned(),
        port,
        security_protocol: 0,
    };
    let listeners = [
        listener("PLAINTEXT", "registered.example", address.port()),
        listener("CONTROLLER", "controller.example", controller_address.port()),
    ];
    broker::Settings::new(std::sync::Arc::new(config), &listeners)
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let world = World::new();
    let mut client = world.connect();
    let request = ApiVersionsRequest {
        client_software_name: "test".to_owned(),
        client_software_version: "1".to_owned(),
        ..Default::default()
    };
    let sent: Vec<i32> = (0..20).map(|_| client.send(3, &request)).collect();
    let metadata = client.send(12, &MetadataRequest::default());
    for id in sent {
        let (correlation_id, response) = client.receive::<ApiVersionsResponse>(3);
        assert_eq!((correlation_id, response.error_code), (id, 0));
    }
    assert_eq!(client.receive::<MetadataResponse>(12).0, metadata);
}

#[test]
fn frame_that_comes_in_pieces_is_answered() {
    let world = World::new();
    let mut client = world.connect();
    let frame = request::write_request(7, None, 1, &MetadataRequest::default());
    for byte in frame.iter() {
        client.stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(client.receive::<MetadataResponse>(1).0, 7);
}

/// The broker closes the connection without an answer, and goes on serving others.
fn is_closed_by(bytes: &[u8]) {
    let world = World::with(|limits| limits.request_bytes_max = 1 << 20);
    let mut client = world.connect();
    client.stream.write_all(bytes).unwrap();
    assert_eq!(client.frame(), None);
    let answer = world.connect().call(1, &MetadataRequest::default());
    assert_eq!(answer.brokers.len(), 1);
}

#[test]
fn bad_bytes_close_the_connection() {
    is_closed_by(&(-1i32).to_be_bytes());
    is_closed_by(&((1i32 << 20) + 1).to_be_bytes());
    is_closed_by(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    is_closed_by(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
}

fn header(key: i16, version: i16) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 10];
    frame.extend(key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(5i32.to_be_bytes());
    frame.extend((-1i16).to_be_bytes());
    frame
}

#[test]
fn what_is_not_served_closes_the_connection() {
    is_closed_by(&header(4, 0));
    is_closed_by(&header(999, 0));
    is_closed_by(&header(ApiKey::Metadata as i16, 99));
    is_closed_by(&header(ApiKey::Produce as i16, 2));
    // The controller's own.
    is_closed_by(&header(ApiKey::Vote as i16, 0));
    // A body that ends too early.
    is_closed_by(&header(ApiKey::ListOffsets as i16, 1));
}

#[test]
fn api_versions_of_the_future_are_answered_in_version_0() {
    let world = World::new();
    let mut client = world.connect();
    client.stream.write_all(&header(ApiKey::ApiVersions as i16, 99)[..]).unwrap();
    let mut frame = header(ApiKey::ApiVersions as i16, 99);
    frame[3] = 11;
    frame.push(0);
    let mut client = world.connect();
    client.stream.write_all(&frame).unwrap();
    let (correlation_id, response) = client.receive::<ApiVersionsResponse>(0);
    assert_eq!(correlation_id, 5);
    assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code());
    assert_eq!(response.api_keys[0].api_key, ApiKey::ApiVersions as i16);
}

#[test]
fn api_versions_checks_who_is_meant() {
    let world = World::new();
    let request = |cluster_id: Option<&str>, node_id, name: &str| ApiVersionsRequest {
        client_software_name: name.to_owned(),
        client_software_version: "1.0".to_owned(),
        cluster_id: cluster_id.map(str::to_owned),
        node_id,
    };
    let own = world.broker.cluster_id();
    let cases = [
        (request(None, -1, "java"), ErrorCode::None),
        (request(Some(own), 1, "java"), ErrorCode::None),
        (request(Some(own), 2, "java"), ErrorCode::RebootstrapRequired),
        (request(Some("other"), 1, "java"), ErrorCode::RebootstrapRequired),
        (request(None, -1, "-java"), ErrorCode::InvalidRequest),
    ];
    for (request, error) in cases {
        let response = world.connect().call(5, &request);
        assert_eq!(response.error_code, error.code(), "{request:?}");
    }
}

#[test]
fn connections_above_the_limit_of_an_address_are_closed() {
    let world = World::with(|limits| limits.connections_per_ip_max = 1);
    let mut first = world.connect();
    first.call(1, &MetadataRequest::default());
    let mut second = world.connect();
    assert_eq!(second.frame(), None);
    first.call(1, &MetadataRequest::default());
}

#[test]
fn idle_connection_is_closed() {
    let idle = std::time::Duration::from_millis(50);
    let world = World::with(|limits| limits.idle_max = Some(idle));
    let mut client = world.connect();
    assert_eq!(client.frame(), None);
}

#[test]
fn metadata_names_the_address_that_was_dialled() {
    let world = World::new();
    let response = world.connect().call(12, &MetadataRequest::default());
    let [node] = response.brokers.as_slice() else { panic!("{response:?}") };
    assert_eq!((node.host.as_str(), node.port), ("127.0.0.1", i32::from(world.address.port())));
}

fn produce(topic: &str, acks: i16, records: Bytes) -> ProduceRequest {
    let data = produce_request::PartitionProduceData { index: 0, records: Some(records) };
    let topic = produce_request::TopicProduceData {
        name: topic.to_owned(),
        partition_data: vec![data],
        ..Default::default()
    };
    ProduceRequest { acks, timeout_ms: 1_000, topic_data: vec![topic], ..Default::default() }
}

fn fetch(topic: &str, offset: i64, max_wait_ms: i32) -> FetchRequest {
    let partition = fetch_request::FetchPartition {
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = fetch_request::FetchTopic {
        topic: topic.to_owned(),
        partitions: vec![partition],
        ..Default::default()
    };
    FetchRequest { max_wait_ms, min_bytes: 1, topics: vec![topic], ..Default::default() }
}

fn only(response: FetchResponse) -> fetch_response::PartitionData {
    response.responses.into_iter().next().unwrap().partitions.into_iter().next().unwrap()
}

#[test]
fn what_is_produced_is_fetched_in_every_version() {
    let world = World::new();
    world.create_topic("t", 1);
    let topic_id = world.broker.image().topics.get("t").unwrap().id;
    let mut client = world.connect();
    for (n, version) in (3..=13).enumerate() {
        let mut request = produce("t", -1, batch(&["a", "b"]));
        request.topic_data[0].topic_id = topic_id;
        let response = client.call(version, &request);
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, 2 * n as i64), "{version}");
    }
    for version in 4..=18 {
        let mut request = fetch("t", 3, 0);
        request.topics[0].topic_id = topic_id;
        let answer = only(client.call(version, &request));
        assert_eq!((answer.error_code, answer.high_watermark), (0, 22), "{version}");
        // From the batch that holds the offset.
        let records = answer.records.unwrap();
        assert_eq!(records.len() % batch(&["a", "b"]).len(), 0);
        assert_eq!(records[..8], 2i64.to_be_bytes(), "{version}");
    }
}

#[test]
fn waiting_fetch_is_answered_when_records_come() {
    let world = World::new();
    world.create_topic("t", 1);
    let mut consumer = world.connect();
    consumer.send(12, &fetch("t", 0, 15_000));
    let mut producer = world.connect();
    let response = producer.call(9, &produce("t", 1, batch(&["a"])));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    let answer = only(consumer.receive::<FetchResponse>(12).1);
    assert_eq!(answer.high_watermark, 1);
}

#[test]
fn waiting_fetch_is_answered_when_the_server_stops() {
    let mut world = World::new();
    world.create_topic("t", 1);
    let mut consumer = world.connect();
    consumer.call(12, &MetadataRequest::default());
    consumer.send(12, &fetch("t", 0, 60_000));
    let server = world.server.take().unwrap();
    world.runtime.block_on(server.stop());
    assert_eq!(only(consumer.receive::<FetchResponse>(12).1).error_code, 0);
}

#[test]
fn produce_errors_are_kafkas() {
    let world = World::new();
    world.create_topic("t", 1);
    let mut client = world.connect();
    let mut error = |request: ProduceRequest| {
        client.call(9, &request).responses[0].partition_responses[0].error_code
    };
    assert_eq!(error(produce("t", 2, batch(&["a"]))), ErrorCode::InvalidRequiredAcks.code());
    assert_eq!(error(produce("u", 1, batch(&["a"]))), ErrorCode::UnknownTopicOrPartition.code());
    assert_eq!(error(produce("t", 1, Bytes::new())), ErrorCode::InvalidRecord.code());
    let two = [batch(&["a"]), batch(&["b"])].concat();
    assert_eq!(error(produce("t", 1, two.into())), ErrorCode::InvalidRecord.code());
    let mut damaged = batch(&["a"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(error(produce("t", 1, damaged.into())), ErrorCode::CorruptMessage.code());
}

#[test]
fn failed_produce_without_acks_closes_the_connection() {
    let world = World::new();
    let mut client = world.connect();
    client.send(9, &produce("u", 0, batch(&["a"])));
    assert_eq!(client.frame(), None);
}

#[test]
fn zstd_topic_is_fetched_by_clients_from_before_zstd() {
    let world = World::new();
    let mut client = world.connect();
    let config = create_topics_request::CreatableTopicConfig {
        name: "compression.type".to_owned(),
        value: Some("zstd".to_owned()),
    };
    let topic = CreatableTopic {
        name: "t".to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        configs: vec![config],
        ..Default::default()
    };
    let request =
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
    assert_eq!(client.call(7, &request).topics[0].error_code, 0);
    client.call(9, &produce("t", 1, batch(&["a"])));
    let answer = only(client.call(9, &fetch("t", 0, 0)));
    assert_eq!((answer.error_code, answer.high_watermark), (0, 1));
    assert!(answer.records.is_some_and(|records| !records.is_empty()));
}

#[test]
fn only_the_first_partition_with_records_goes_over_the_limits() {
    let world = World::new();
    world.create_topic("t", 3);
    let mut client = world.connect();
    for index in 0..3 {
        let mut request = produce("t", 1, batch(&["a"]));
        request.topic_data[0].partition_data[0].index = index;
        client.call(9, &request);
    }
    let size = batch(&["a"]).len();
    let mut lengths = |max_bytes: usize, partition_max_bytes: usize| -> Vec<usize> {
        let mut request = fetch("t", 0, 0);
        request.max_bytes = max_bytes as i32;
        let partitions = &mut request.topics[0].partitions;
        partitions[0].partition_max_bytes = partition_max_bytes as i32;
        for partition in 1..3 {
            let other = fetch_request::FetchPartition { partition, ..partitions[0].clone() };
            partitions.push(other);
        }
        let response = client.call(12, &request);
        let partitions = response.responses[0].partitions.iter();
        partitions.map(|one| one.records.as_ref().map_or(0, Bytes::len)).collect()
    };
    assert_eq!(lengths(10_000, 10_000), [size, size, size]);
    assert_eq!(lengths(10_000, 1), [size, 0, 0]);
    assert_eq!(lengths(1, 10_000), [size, 0, 0]);
    assert_eq!(lengths(2 * size + 9, 10_000), [size, size, 0], "no part of a batch alone");
}

#[test]
fn fetch_errors_are_kafkas() {
    let world = World::new();
    world.create_topic("t", 1);
    let mut client = world.connect();
    let mut error = |request: FetchRequest| only(client.call(12, &request)).error_code;
    assert_eq!(error(fetch("t", 1, 10_000)), ErrorCode::OffsetOutOfRange.code());
    assert_eq!(error(fetch("u", 0, 10_000)), ErrorCode::UnknownTopicOrPartition.code());
    let mut request = fetch("t", 0, 10_000);
    request.topics[0].partitions[0].current_leader_epoch = 9;
    assert_eq!(error(request), ErrorCode::UnknownLeaderEpoch.code());
}

#[test]
fn list_offsets_finds_ends_and_times() {
    let world = World::new();
    world.create_topic("t", 1);
    let mut client = world.connect();
    client.call(9, &produce("t", -1, batch(&["a", "b"])));
    let mut offset = |timestamp, version| {
        let partition =
            list_offsets_request::ListOffsetsPartition { timestamp, ..Default::default() };
        let topic = list_offsets_request::ListOffsetsTopic {
            name: "t".to_owned(),
            partitions: vec![partition],
        };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        let response = client.call(version, &request);
        let answer = &response.topics[0].partitions[0];
        (answer.error_code, answer.offset)
    };
    assert_eq!(offset(-1, 11), (0, 2));
    assert_eq!(offset(-2, 1), (0, 0));
    assert_eq!(offset(-3, 7), (0, 0));
    assert_eq!(offset(-4, 8), (0, 0));
    assert_eq!(offset(-5, 9), (0, -1));
    assert_eq!(offset(-6, 11), (0, -1));
    assert_eq!(offset(-3, 6), (ErrorCode::UnsupportedVersion.code(), -1));
    assert_eq!(offset(1_700_000_000_000, 6), (0, 0));
    assert_eq!(offset(1_700_000_000_001, 6), (0, -1));
}

#[test]
fn metadata_creates_topics_that_are_asked_for() {
    let world = World::new();
    let mut client = world.connect();
    let topic = |name: &str| metadata_request::MetadataRequestTopic {
        name: Some(name.to_owned()),
        ..Default::default()
    };
    let request = |allow_auto_topic_creation| MetadataRequest {
        topics: Some(vec![topic("new"), topic("not a name")]),
        allow_auto_topic_creation,
        ..Default::default()
    };
    let mut errors = |allow| {
        let response = client.call(12, &request(allow));
        let mut errors: Vec<_> = response
            .topics
            .into_iter()
            .map(|topic| (topic.name.unwrap(), ErrorCode::from_code(topic.error_code)))
            .collect();
        errors.sort();
        errors
    };
    let answers = |new| {
        let invalid = ErrorCode::InvalidTopicException;
        vec![("new".to_owned(), new), ("not a name".to_owned(), invalid)]
    };
    assert_eq!(errors(false), answers(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(errors(true), answers(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(errors(true), answers(ErrorCode::None));
}

#[test]
fn producer_ids_are_given_out_once() {
    let world = World::new();
    let mut client = world.connect();
    let request = InitProducerIdRequest { transactional_id: None, ..Default::default() };
    let mut id = || {
        let response = client.call(4, &request);
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        response.producer_id
    };
    assert!(id() < id());
}

#[test]
fn silent_producers_are_forgotten_after_the_time_that_was_set_last() {
    let world = World::new();
    world.create_topic("t", 1);
    let mut client = world.connect();
    let mut builder = BatchBuilder::new(BatchParams {
        producer_id: ottla_protocol::ProducerId(5),
        producer_epoch: ottla_protocol::ProducerEpoch(0),
        base_sequence: 0,
        ..BatchParams::default()
    });
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    builder.push(Timestamp(now), None, Some(b"a"), &[]);
    client.call(9, &produce("t", 1, builder.build().freeze()));
    let partitions = describe_producers_request::TopicRequest {
        name: "t".to_owned(),
        partition_indexes: vec![0],
    };
    let describe = DescribeProducersRequest { topics: vec![partitions] };
    let known = |client: &mut Client| {
        let response = client.call(0, &describe);
        response.topics[0].partitions[0].active_producers.len()
    };
    std::thread::sleep(std::time::Duration::from_millis(150));
    assert_eq!(known(&mut client), 1, "a day is the default");
    let config = incremental_alter_configs_request::AlterableConfig {
        name: "producer.id.expiration.ms".to_owned(),
        value: Some("1".to_owned()),
        ..Default::default()
    };
    let resource = incremental_alter_configs_request::AlterConfigsResource {
        resource_type: 4,
        configs: vec![config],
        ..Default::default()
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    assert_eq!(client.call(1, &request).responses[0].error_code, 0);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while known(&mut client) != 0 {
        assert!(std::time::Instant::now() < deadline, "the producer is still there");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
