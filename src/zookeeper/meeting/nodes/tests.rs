//! Texts of Kafka with ZooKeeper, read and written.

use super::*;

#[test]
fn zookeeper_connect_is_read_as_zookeepers_client_reads_it() {
    let check = |text: &str, servers: &[(&str, u16)], chroot: &str| {
        let connect = ConnectString::parse(text).unwrap();
        let servers: Vec<Address> =
            servers.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect();
        assert_eq!(connect, ConnectString { servers, chroot: chroot.to_owned() }, "{text}");
    };
    check("localhost:2181", &[("localhost", 2181)], "");
    check("localhost", &[("localhost", 2181)], "");
    check("localhost:2181/", &[("localhost", 2181)], "");
    check("a:1, b:2,c/kafka/one", &[("a", 1), ("b", 2), ("c", 2181)], "/kafka/one");
    check("[::1]:2182,[fe80::1]/k", &[("::1", 2182), ("fe80::1", 2181)], "/k");
    for wrong in ["", ":2181", "a,,b", "a:x", "a:70000", "/k"] {
        assert!(ConnectString::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_brokers_node_has_kafkas_fields() {
    let endpoint = |listener: &str, protocol, host: &str, port| Endpoint {
        listener: listener.to_owned(),
        protocol,
        host: host.to_owned(),
        port,
    };
    let endpoints =
        [endpoint("IN", "SSL", "::1", 9093), endpoint("PLAINTEXT", "PLAINTEXT", "h", 9092)];
    let node = broker(&endpoints, Some("r1"), 1_500_000_000_000);
    let expected = json!({
        "listener_security_protocol_map": {"IN": "SSL", "PLAINTEXT": "PLAINTEXT"},
        "endpoints": ["IN://[::1]:9093", "PLAINTEXT://h:9092"],
        "jmx_port": -1, "features": {}, "host": "h", "port": 9092, "version": 5, "rack": "r1",
        "timestamp": "1500000000000",
    });
    assert_eq!(serde_json::from_slice::<Value>(&node).unwrap(), expected);
    assert_eq!(broker_address(&node), Some(("::1".to_owned(), 9093)));
}

#[test]
fn brokers_of_other_releases_are_understood() {
    let check = |node: &str, expected: Option<(&str, u16)>| {
        let expected = expected.map(|(host, port)| (host.to_owned(), port));
        assert_eq!(broker_address(node.as_bytes()), expected, "{node}");
    };
    check(r#"{"version":1,"host":"h","port":9092,"jmx_port":-1}"#, Some(("h", 9092)));
    check(r#"{"version":4,"endpoints":["X://[::1]:1"],"host":null,"port":-1}"#, Some(("::1", 1)));
    for wrong in ["", "{}", "[]", r#"{"endpoints":["x"]}"#, r#"{"host":"h","port":-1}"#] {
        check(wrong, None);
    }
    assert_eq!(cluster_id(&cluster("abc")).as_deref(), Some("abc"));
    assert_eq!(cluster_id(b"{}"), None);
    assert_eq!(controller_id(&controller(7, 1)), Some(7));
    assert_eq!(controller_id(b"x"), None);
}
