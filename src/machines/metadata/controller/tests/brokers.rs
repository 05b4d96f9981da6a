//! Brokers that come, go and return, and who leads meanwhile.

use super::*;
use crate::machines::metadata::image::LeaderRecoveryState;

#[test]
fn a_silent_broker_is_fenced_and_its_partitions_move() {
    let mut world = World::with_brokers(2);
    world.created("t", 2, 2);
    world.now = world.now.plus_ms(8000);
    let epoch = world.controller.image.cluster.brokers[&BrokerId(2)].epoch.0;
    world.heartbeat(2, epoch);
    world.now = world.now.plus_ms(1001);
    assert!(world.controller.deadline().is_some_and(|deadline| deadline <= world.now));
    let output = world.controller.tick(world.now);
    world.append(output.records);
    let image = &world.controller.image;
    assert!(image.cluster.brokers[&BrokerId(1)].fenced);
    for partition in image.topics.get("t").expect("created").partitions.values() {
        assert_eq!((partition.leader, &partition.isr), (BrokerId(2), &vec![BrokerId(2)]));
    }
    world.check_replay();
}

#[test]
fn a_broker_that_is_known_to_be_gone_is_fenced_at_once_and_may_come_back_at_once() {
    let mut world = World::with_brokers(2);
    world.created("t", 2, 2);
    let id = BrokerId(1);
    let epoch = world.controller.image.cluster.brokers[&id].epoch;
    let fence = |epoch| ControllerRequest::FenceBroker { broker_id: id, broker_epoch: epoch };
    let stale = world.ask(fence(BrokerEpoch(epoch.0 - 1)));
    assert_eq!(stale, ControllerReply::FenceBroker(Err(ErrorCode::StaleBrokerEpoch)));
    assert!(!world.controller.image.cluster.brokers[&id].fenced);
    assert_eq!(world.ask(fence(epoch)), ControllerReply::FenceBroker(Ok(true)));
    let image = &world.controller.image;
    assert!(image.cluster.brokers[&id].fenced);
    for partition in image.topics.get("t").expect("created").partitions.values() {
        assert_eq!((partition.leader, &partition.isr), (BrokerId(2), &vec![BrokerId(2)]));
    }
    // Its session would have gone on for seconds.
    world.start_broker(1, 77, epoch.0);
    world.check_replay();
}

/// What the controller says to another process that has the id 1.
fn register_another(world: &mut World) -> ErrorCode {
    let request = BrokerRegistrationRequest {
        broker_id: 1,
        cluster_id: "cluster".into(),
        incarnation_id: Uuid::from_u128(500),
        log_dirs: vec![Uuid::from_u128(501)],
        ..Default::default()
    };
    match world.ask(ControllerRequest::RegisterBroker(request)) {
        ControllerReply::RegisterBroker(reply) => ErrorCode::from_code(reply.error_code),
        other => panic!("not a registration but {other:?}"),
    }
}

#[test]
fn a_broker_whose_connection_has_ended_may_be_replaced_but_stays_until_its_session_ends() {
    let mut world = World::with_brokers(1);
    let id = BrokerId(1);
    let epoch = world.controller.image.cluster.brokers[&id].epoch;
    world.controller.note_disconnect(id, BrokerEpoch(epoch.0 - 1));
    assert_eq!(register_another(&mut world), ErrorCode::DuplicateBrokerRegistration);
    world.controller.note_disconnect(id, epoch);
    assert!(world.controller.tick(world.now).records.is_empty());
    world.heartbeat(1, epoch.0);
    assert_eq!(register_another(&mut world), ErrorCode::DuplicateBrokerRegistration);
    world.controller.note_disconnect(id, epoch);
    // It has no features, which is the next thing that is looked at.
    assert_eq!(register_another(&mut world), ErrorCode::UnsupportedVersion);
}

#[test]
fn leaders_go_back_to_the_first_replicas_in_time() {
    let mut world = World::with_brokers(2);
    world.created("t", 4, 2);
    let off_their_place = |world: &World| {
        let topic = world.controller.image.topics.get("t").expect("created");
        topic.partitions.values().filter(|it| it.leader != it.preferred_leader()).count()
    };
    let broker_id = BrokerId(1);
    let broker_epoch = world.controller.image.cluster.brokers[&broker_id].epoch;
    world.ask(ControllerRequest::FenceBroker { broker_id, broker_epoch });
    let moved = off_their_place(&world);
    assert!(moved > 0);
    world.start_broker(1, 77, broker_epoch.0);
    for index in 0..4 {
        world.alter_isr("t", index, 2, &[2, 1]);
    }
    world.controller.begin_sessions(world.now);
    let mut tick_after = |ms| {
        world.now = world.now.plus_ms(ms);
        for id in [1, 2] {
            let epoch = world.controller.image.cluster.brokers[&BrokerId(id)].epoch.0;
            world.heartbeat(id, epoch);
        }
        let output = world.controller.tick(world.now);
        world.append(output.records);
        off_their_place(&world)
    };
    assert_eq!(tick_after(299_999), moved);
    assert_eq!(tick_after(1), 0);
    world.check_replay();
}

#[test]
fn a_leader_that_is_not_in_sync_is_looked_for_in_time_once_the_topic_allows_it() {
    let mut world = World::with_brokers(2);
    world.created("t", 1, 2);
    let partition = |world: &World| world.partition("t");
    let (leader, other) = match partition(&world).leader {
        BrokerId(1) => (1, 2),
        _ => (2, 1),
    };
    world.alter_isr("t", 0, leader, &[leader]);
    let broker_epoch = world.controller.image.cluster.brokers[&BrokerId(leader)].epoch;
    world.ask(ControllerRequest::FenceBroker { broker_id: BrokerId(leader), broker_epoch });
    assert!(!partition(&world).has_leader());
    world.controller.begin_sessions(world.now);
    let mut leader_after = |ms, allows: bool| {
        if allows {
            let key = "unclean.leader.election.enable";
            alter(&mut world, ResourceType::Topic, "t", 0, key, "true");
        }
        world.now = world.now.plus_ms(ms);
        let epoch = world.controller.image.cluster.brokers[&BrokerId(other)].epoch.0;
        world.heartbeat(other, epoch);
        let output = world.controller.tick(world.now);
        world.append(output.records);
        partition(&world).leader.0
    };
    assert_eq!(leader_after(300_000, false), -1);
    assert_eq!(leader_after(299_999, true), -1);
    assert_eq!(leader_after(1, false), other);
    assert_eq!(partition(&world).leader_recovery_state, LeaderRecoveryState::Recovering);
    world.check_replay();
}

#[test]
fn a_new_controller_gives_brokers_a_whole_session_to_find_it() {
    let mut world = World::with_brokers(2);
    world.now = world.now.plus_ms(8999);
    world.controller.begin_sessions(world.now);
    world.now = world.now.plus_ms(8999);
    assert!(world.controller.tick(world.now).records.is_empty());
    world.now = world.now.plus_ms(1);
    assert!(!world.controller.tick(world.now).records.is_empty());
}

#[test]
fn a_lone_broker_leads_again_after_each_kind_of_restart() {
    let mut world = World::with_brokers(1);
    world.created("t", 1, 1);
    let partition = |world: &World| world.partition("t");
    let epoch = world.controller.image.cluster.brokers[&BrokerId(1)].epoch.0;
    world.now = world.now.plus_ms(10_000);
    let epoch = world.start_broker(1, 77, epoch);
    assert_eq!(partition(&world).leader, BrokerId(1));
    assert_eq!(partition(&world).leader_epoch.0, 2);
    assert!(epoch > 0);
    // Unclean: the last known leader is elected, and has to recover.
    world.now = world.now.plus_ms(10_000);
    world.start_broker(1, 78, -1);
    assert_eq!(partition(&world).leader, BrokerId(1));
    assert_eq!(partition(&world).isr, [BrokerId(1)]);
    assert!(partition(&world).elr.is_empty() && partition(&world).last_known_elr.is_empty());
    world.check_replay();
}

/// As after a crash: its log may have lost what others have (KIP-966).
#[test]
fn a_broker_that_returns_with_an_empty_disk_leaves_the_lead_to_those_who_have_the_records() {
    let mut world = World::with_brokers(3);
    let mut wanted = topic("t", 1, 3);
    wanted.configs =
        vec![CreatableTopicConfig { name: "min.insync.replicas".into(), value: Some("2".into()) }];
    assert_eq!(world.create(vec![wanted]).topics[0].error_code, 0);
    let partition = |world: &World| world.partition("t");
    let epoch_of = |world: &World, id: BrokerId| world.controller.image.cluster.brokers[&id].epoch;
    let fence = |world: &mut World, broker_id: BrokerId| {
        let broker_epoch = epoch_of(world, broker_id);
        let reply = world.ask(ControllerRequest::FenceBroker { broker_id, broker_epoch });
        assert_eq!(reply, ControllerReply::FenceBroker(Ok(true)));
    };
    let first = partition(&world).leader;
    // The other two go, one after another: what the leader writes from now on nobody acknowledges.
    let others: Vec<BrokerId> =
        partition(&world).replicas.iter().copied().filter(|id| *id != first).collect();
    let epochs: Vec<i64> = others.iter().map(|id| epoch_of(&world, *id).0).collect();
    for id in &others {
        fence(&mut world, *id);
    }
    assert_eq!(partition(&world).isr, [first]);
    fence(&mut world, first);
    world.start_broker(first.0, 77, -1);
    assert_eq!(partition(&world).leader, BrokerId::NONE, "in the ISR, and its disk is empty");
    assert!(!partition(&world).isr.contains(&first) && !partition(&world).elr.contains(&first));
    world.start_broker(others[1].0, 78, epochs[1]);
    assert_eq!(partition(&world).leader, others[1], "it stopped in order, and was eligible");
    world.check_replay();
}

#[test]
fn another_process_with_the_id_of_a_live_broker_is_refused() {
    let mut world = World::with_brokers(1);
    assert_eq!(register_another(&mut world), ErrorCode::DuplicateBrokerRegistration);
}
