//! DescribeCluster by both kinds of listeners.

use super::*;

fn ask(world: &World, address: SocketAddr, endpoint_type: i8) -> DescribeClusterResponse {
    let request = DescribeClusterRequest { endpoint_type, ..Default::default() };
    let response = World::connect_to(address).call(1, &request);
    assert!(response.error_code != 0 || response.cluster_id == world.broker.cluster_id());
    response
}

#[test]
fn each_kind_of_listener_names_the_nodes_of_its_kind() {
    let world = World::new();
    let broker = ask(&world, world.address, 1);
    assert_eq!((broker.error_code, broker.endpoint_type), (0, 1));
    let controller = ask(&world, world.controller_address, 2);
    assert_eq!((controller.error_code, controller.endpoint_type), (0, 2));
    assert_eq!(controller.controller_id, 1);
    let node = &controller.brokers[0];
    assert_eq!((node.broker_id, node.host.as_str()), (1, "controller.example"));
    assert_eq!(node.port, i32::from(world.controller_address.port()));
}

#[test]
fn nodes_of_the_other_kind_are_refused_by_name() {
    let world = World::new();
    for (address, endpoint_type, text) in [
        (
            world.address,
            2,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of \
             type CONTROLLER",
        ),
        (
            world.controller_address,
            1,
            "The request was sent to an endpoint of type CONTROLLER, but we wanted an endpoint \
             of type BROKER",
        ),
    ] {
        let response = ask(&world, address, endpoint_type);
        assert_eq!(response.error_code, ErrorCode::MismatchedEndpointType.code());
        assert_eq!(response.error_message.as_deref(), Some(text));
    }
}
