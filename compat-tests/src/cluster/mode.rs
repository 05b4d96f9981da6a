//! What the file of a node says of its part in a cluster: roles, ids, voters, listeners.

use std::net::Ipv4Addr;

/// A voter that is a broker too, with the ports of both.
pub fn mode(id: i32, voters: &str, host: Ipv4Addr, (port, controller): (u16, u16)) -> Vec<String> {
    let listeners = format!("PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}");
    node_mode(id, voters, "broker,controller", &listeners)
}

/// A broker without a vote.
pub fn broker_mode(id: i32, voters: &str, host: Ipv4Addr, port: u16) -> Vec<String> {
    node_mode(id, voters, "broker", &format!("PLAINTEXT://{host}:{port}"))
}

fn node_mode(id: i32, voters: &str, roles: &str, listeners: &str) -> Vec<String> {
    vec![
        format!("process.roles={roles}"),
        format!("node.id={id}"),
        format!("controller.quorum.voters={voters}"),
        format!("listeners={listeners}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned(),
    ]
}
