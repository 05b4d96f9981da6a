//! Random operations: what the records say is what was lived.

use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ottla_protocol::messages::leave_group_request::MemberIdentity;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ottla_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use proptest::prelude::*;
use uuid::Uuid;

use super::world::{World, subscription};
use crate::machines::group::classic::{ClassicGroup, State};
use crate::machines::group::{GroupConfig, GroupRequest, GroupResponse, Join};

#[derive(Debug, Clone)]
enum Op {
    Join { who: usize, version: i16, protocols: u8, is_static: bool },
    Sync { who: usize, is_stale: bool },
    Heartbeat { who: usize },
    Leave { who: usize },
    Commit { who: usize, topic: u8, offset: i64 },
    DeleteGroup { group: usize },
    Advance { ms: i64 },
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..CLIENTS;
    prop_oneof![
        6 => (who.clone(), prop_oneof![Just(3i16), Just(5), Just(9)], 1u8..4, any::<bool>())
            .prop_map(|(who, version, protocols, is_static)| Op::Join { who, version, protocols, is_static }),
        6 => (who.clone(), prop::bool::weighted(0.1))
            .prop_map(|(who, is_stale)| Op::Sync { who, is_stale }),
        2 => who.clone().prop_map(|who| Op::Heartbeat { who }),
        1 => who.clone().prop_map(|who| Op::Leave { who }),
        3 => (who, 0u8..3, 0i64..100)
            .prop_map(|(who, topic, offset)| Op::Commit { who, topic, offset }),
        1 => (0..GROUPS).prop_map(|group| Op::DeleteGroup { group }),
        4 => prop_oneof![0i64..50, 0i64..5_000, 0i64..40_000].prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::Restart),
    ]
}

const CLIENTS: usize = 6;
const GROUPS: usize = 2;

/// What a client knows of itself.
#[derive(Debug, Clone, Default)]
struct Client {
    member_id: String,
    instance: Option<String>,
    generation: i32,
    members: Vec<String>,
}

fn group_of(who: usize) -> String {
    format!("g{}", who % GROUPS)
}

fn request(op: &Op, clients: &mut [Client], step: usize) -> Option<GroupRequest> {
    Some(match op {
        Op::Join { who, version, protocols, is_static } => {
            let client = &mut clients[*who];
            if client.member_id.is_empty() {
                client.instance = is_static.then(|| format!("i{who}"));
            }
            let names = ["range", "roundrobin"];
            let protocols = names.iter().enumerate().filter(|(i, _)| protocols & (1 << i) != 0);
            GroupRequest::Join(Box::new(Join {
                version: *version,
                client_id: format!("c{who}"),
                client_host: "/127.0.0.1".to_owned(),
                uuid: Uuid::from_u128(step as u128),
                request: JoinGroupRequest {
                    group_id: group_of(*who),
                    member_id: client.member_id.clone(),
                    group_instance_id: client.instance.clone(),
                    session_timeout_ms: 6_000 + *who as i32 * 1_000,
                    rebalance_timeout_ms: 9_000,
                    protocol_type: "consumer".to_owned(),
                    protocols: protocols
                        .map(|(_, name)| JoinGroupRequestProtocol {
                            name: (*name).to_owned(),
                            metadata: subscription("t0+t1"),
                        })
                        .collect(),
                    reason: None,
                },
            }))
        }
        Op::Sync { who, is_stale } => {
            let client = &clients[*who];
            GroupRequest::Sync(SyncGroupRequest {
                group_id: group_of(*who),
                generation_id: client.generation - i32::from(*is_stale),
                member_id: client.member_id.clone(),
                group_instance_id: client.instance.clone(),
                assignments: client
                    .members
                    .iter()
                    .map(|member_id| SyncGroupRequestAssignment {
                        member_id: member_id.clone(),
                        assignment: format!("{step}-{member_id}").into(),
                    })
                    .collect(),
                ..Default::default()
            })
        }
        Op::Heartbeat { who } => GroupRequest::Heartbeat(HeartbeatRequest {
            group_id: group_of(*who),
            generation_id: clients[*who].generation,
            member_id: clients[*who].member_id.clone(),
            group_instance_id: clients[*who].instance.clone(),
        }),
        Op::Leave { who } => GroupRequest::Leave(LeaveGroupRequest {
            group_id: group_of(*who),
            members: vec![MemberIdentity {
                member_id: clients[*who].member_id.clone(),
                group_instance_id: clients[*who].instance.clone(),
                reason: None,
            }],
            ..Default::default()
        }),
        Op::Commit { who, topic, offset } => GroupRequest::CommitOffsets {
            version: 9,
            request: OffsetCommitRequest {
                group_id: group_of(*who),
                member_id: clients[*who].member_id.clone(),
                generation_id_or_member_epoch: clients[*who].generation,
                topics: vec![OffsetCommitRequestTopic {
                    name: format!("t{topic}"),
                    partitions: vec![OffsetCommitRequestPartition {
                        committed_offset: *offset,
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                ..Default::default()
            },
        },
        Op::DeleteGroup { group } => GroupRequest::DeleteGroups(vec![format!("g{group}")]),
        Op::Advance { .. } | Op::Restart => return None,
    })
}

fn learn(clients: &mut [Client], client_of: &[(u64, usize)], id: u64, response: GroupResponse) {
    let Some((_, who)) = client_of.iter().find(|(known, _)| *known == id) else { return };
    if let GroupResponse::Join(response) = response {
        let client = &mut clients[*who];
        client.member_id = response.member_id;
        client.generation = response.generation_id;
        client.members = response.members.into_iter().map(|m| m.member_id).collect();
    }
}

fn check(world: &World) {
    let (lived, loaded) = (&world.machine.store, world.loaded().store);
    assert_eq!(lived.recorded, loaded.recorded);
    assert_eq!(lived.offsets, loaded.offsets);
    assert_eq!(lived.foreign, loaded.foreign);
    let mut parked = 0;
    for group in lived.groups.values() {
        check_group(group);
        parked += group.members.values().filter(|m| m.parked_join.is_some()).count();
        parked += group.members.values().filter(|m| m.parked_sync.is_some()).count();
        assert!(loaded.groups.contains_key(&group.group_id), "a group without a record");
        if group.state == State::Stable {
            let other = &loaded.groups[&group.group_id];
            let known = |group: &ClassicGroup| {
                let members = group.members.values();
                let members: Vec<_> = members
                    .map(|m| {
                        (m.member_id.clone(), m.group_instance_id.clone(), m.assignment.clone())
                    })
                    .collect();
                (group.generation, group.protocol_name.clone(), group.leader.clone(), members)
            };
            assert_eq!(known(group), known(other), "stable, but not as recorded");
        }
    }
    assert_eq!(parked, world.parked.len(), "every request is answered or parked in one member");
}

fn check_group(group: &ClassicGroup) {
    let leader = group.leader.as_ref();
    assert_eq!(leader.is_some(), !group.members.is_empty());
    assert!(leader.is_none_or(|leader| group.members.contains_key(leader)));
    assert!(group.static_members.values().all(|id| group.members.contains_key(id)));
    assert!(group.pending_sync.iter().all(|id| group.members.contains_key(id)));
    assert!(group.pending_join.iter().all(|id| !group.members.contains_key(id)));
    match group.state {
        State::Empty => assert!(group.members.is_empty()),
        State::Stable | State::CompletingRebalance => {
            assert!(group.members.values().all(|m| m.parked_join.is_none()));
            assert!(!group.members.is_empty());
        }
        State::PreparingRebalance => {
            assert!(group.members.values().all(|m| m.parked_sync.is_none()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn replayed_is_what_was_lived(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new(GroupConfig {
            initial_rebalance_delay_ms: 100,
            group_size_max: 3,
            offsets_retention_ms: 60_000,
            offsets_retention_check_interval_ms: 30_000,
            ..GroupConfig::default()
        });
        let mut clients = vec![Client { generation: -1, ..Client::default() }; CLIENTS];
        let mut client_of = Vec::new();
        for (step, op) in ops.iter().enumerate() {
            let outcomes = match (request(op, &mut clients, step), op) {
                (Some(request), Op::Join { who, .. }) => {
                    let (id, outcome) = world.request(request);
                    client_of.push((id.0, *who));
                    vec![outcome]
                }
                (Some(request), _) => vec![world.request(request).1],
                (None, Op::Advance { ms }) => {
                    let to = world.now.plus_ms(*ms);
                    world.advance_to(to).into_iter().map(|(_, outcome)| outcome).collect()
                }
                (None, _) => {
                    world.restart();
                    Vec::new()
                }
            };
            for (id, response) in outcomes.into_iter().flat_map(|outcome| outcome.replies) {
                learn(&mut clients, &client_of, id.0, response);
            }
            check(&world);
        }
    }
}
