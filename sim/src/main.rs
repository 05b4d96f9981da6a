//! The simulator: whole brokers over a simulated disk, network and clock.
fn main() {
    entropy::begin(7);
    log::show();
    let role = node::Role { id: 1, host: "node1".to_owned(), is_broker: true, is_controller: true };
    let properties = node::properties(&role, "1@node1:9093");
    let mut world = world::World::new(7, vec![(role, properties)]);
    world.trace.is_shown = true;
    while world.now_ms() < 5000 {
        world.step();
        if world.has_joined(0) {
            println!("JOINED at {}", world.now_ms());
            break;
        }
    }
    println!("{:?}", world.net.history());
}
mod entropy;
mod log;
mod node;
mod plan;
mod world;
