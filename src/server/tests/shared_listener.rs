//! A listener of a broker without controller's listeners, by which clients and nodes come.

use super::*;
use ottla_protocol::request::CONTROLLER_PEER;
use std::time::Duration;

fn api_versions(software: &str) -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: software.to_owned(),
        client_software_version: "1".to_owned(),
        ..Default::default()
    }
}

fn serves(answer: &ApiVersionsResponse, api: ApiKey) -> bool {
    answer.api_keys.iter().any(|it| it.api_key == api as i16)
}

#[test]
fn nodes_reach_the_controller_at_once_and_clients_once_they_are_let_in() {
    let mut world = World::new();
    let bound = world.runtime.block_on(bind_shared("PLAINTEXT", ListenerType::Broker, true));
    assert!(bound.is_for_nodes());
    let address = bound.address();
    let server = world.server.as_mut().unwrap();
    let _in_runtime = world.runtime.enter();
    server.open(vec![bound]);

    let mut client = World::connect_to(address);
    client.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let sent = client.send(3, &api_versions("some-client"));
    let mut old_client = World::connect_to(address);
    let asked = old_client.send(1, &MetadataRequest::default());

    let mut node = World::connect_to(address);
    let answer = node.call(3, &api_versions(CONTROLLER_PEER));
    assert!(serves(&answer, ApiKey::BrokerHeartbeat) && !serves(&answer, ApiKey::Produce));
    let registered = node.call(0, &BrokerHeartbeatRequest { broker_id: 99, ..Default::default() });
    assert_ne!(registered.error_code, 0);

    let early = client.stream.read(&mut [0; 1]);
    assert!(early.is_err(), "clients wait: {early:?}");
    world.server.as_ref().unwrap().let_clients_in();
    client.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (correlation_id, answer) = client.receive::<ApiVersionsResponse>(3);
    assert_eq!(correlation_id, sent);
    assert!(serves(&answer, ApiKey::Produce) && !serves(&answer, ApiKey::BrokerHeartbeat));
    let (correlation_id, metadata) = old_client.receive::<MetadataResponse>(1);
    assert_eq!((correlation_id, metadata.brokers.len()), (asked, 1));
    // Who has come as a client stays one.
    client.call(3, &api_versions(CONTROLLER_PEER));
    let answer = client.call(3, &api_versions("some-client"));
    assert!(serves(&answer, ApiKey::Produce));
}
