//! Golden transcripts: `testdata/*.txt` holds requests and, below each, what they brought about.
//!
//! A line that starts with `> ` is a step; the lines below it are its outcome, rewritten by `UPDATE_EXPECT=1`. Member
//! ids are written `client#1` for `client-00000000-0000-0000-0000-000000000001`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ottla_protocol::messages::leave_group_request::MemberIdentity;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ottla_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ottla_protocol::messages::{
    ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    OffsetCommitRequest, OffsetDeleteRequest, SyncGroupRequest,
};
use ottla_protocol::{ErrorCode, Message, Reader, Timestamp};
use uuid::Uuid;

use super::world::{Outcome, World, subscription};
use crate::machines::group::{GroupConfig, GroupRecord, GroupRequest, GroupResponse, Join};

#[test]
fn transcripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machines/group/testdata");
    let is_update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut seen = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let expected = std::fs::read_to_string(&path).unwrap();
        let actual = play(&expected);
        if is_update {
            std::fs::write(&path, &actual).unwrap();
        } else {
            assert_eq!(actual, expected, "{} differs; UPDATE_EXPECT=1", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 10, "transcripts are missing");
}

fn play(text: &str) -> String {
    let mut world = World::new(GroupConfig::default());
    let mut actual = String::new();
    for line in text.lines() {
        match line.strip_prefix("> ") {
            Some(step) => {
                writeln!(actual, "{line}").unwrap();
                actual.push_str(&shorten(&play_step(&mut world, &lengthen(step))));
            }
            // Titles and the space between steps stay; old outcomes go.
            None if line.starts_with('#') || line.is_empty() => {
                writeln!(actual, "{line}").unwrap();
            }
            None => {}
        }
    }
    actual
}

fn play_step(world: &mut World, step: &str) -> String {
    let mut words = step.split(' ');
    let verb = words.next().unwrap();
    let rest: Vec<&str> = words.collect();
    let args = Args(rest.iter().filter_map(|word| word.split_once('=')).collect());
    let mut text = String::new();
    match verb {
        "config" => {
            let ms = |name, default| args.number(name, default);
            let config = GroupConfig {
                initial_rebalance_delay_ms: ms("delay", 3_000) as i32,
                group_size_max: ms("size", i64::from(i32::MAX)) as i32,
                offset_metadata_max: ms("metadata", 4_096) as i32,
                offsets_retention_ms: ms("retention", 604_800_000),
                offsets_retention_check_interval_ms: ms("check", 600_000),
                ..GroupConfig::default()
            };
            world.machine.set_config(config.clone());
            world.config = config;
        }
        "at" => {
            let to = Timestamp(rest[0].parse().unwrap());
            for (at, outcome) in world.advance_to(to) {
                if !outcome.records.is_empty() || !outcome.replies.is_empty() {
                    writeln!(text, "  at {at}").unwrap();
                    show(&mut text, &outcome);
                }
            }
        }
        "restart" => world.restart(),
        _ => {
            let (id, outcome) = world.request(request(verb, &args));
            show(&mut text, &outcome);
            if world.parked.contains(&id) {
                writeln!(text, "  parked {}", id.0).unwrap();
            }
        }
    }
    text
}

/// `name=value` words.
struct Args<'a>(BTreeMap<&'a str, &'a str>);

impl Args<'_> {
    fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).copied().unwrap_or(default).to_owned()
    }
    fn optional(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| (*value).to_owned())
    }
    fn number(&self, name: &str, default: i64) -> i64 {
        self.0.get(name).map_or(default, |value| value.parse().unwrap())
    }
    /// `a:b,c:d`
    fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let list = self.text(name, "");
        list.split(',')
            .filter(|item| !item.is_empty())
            .map(|item| item.split_once(':').unwrap_or((item, "")))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    }
}

fn request(verb: &str, args: &Args<'_>) -> GroupRequest {
    let group_id = args.text("group", "g");
    let member_id = args.text("member", "");
    let group_instance_id = args.optional("instance");
    let generation_id = args.number("generation", -1) as i32;
    match verb {
        "join" => {
            let protocol = |(name, topics): (String, String)| JoinGroupRequestProtocol {
                name,
                metadata: subscription(&topics),
            };
            GroupRequest::Join(Box::new(Join {
                version: args.number("v", 9) as i16,
                client_id: args.text("client", "c"),
                client_host: "/127.0.0.1".to_owned(),
                uuid: Uuid::from_u128(args.number("uuid", 0) as u128),
                request: JoinGroupRequest {
                    group_id,
                    member_id,
                    group_instance_id,
                    session_timeout_ms: args.number("session", 10_000) as i32,
                    rebalance_timeout_ms: args.number("rebalance", 60_000) as i32,
                    protocol_type: args.text("type", "consumer"),
                    protocols: args.pairs("protocols").into_iter().map(protocol).collect(),
                    reason: None,
                },
            }))
        }
        "sync" => GroupRequest::Sync(SyncGroupRequest {
            group_id,
            generation_id,
            member_id,
            group_instance_id,
            protocol_type: args.optional("type"),
            protocol_name: args.optional("protocol"),
            assignments: args
                .pairs("assign")
                .into_iter()
                .map(|(member_id, assignment)| SyncGroupRequestAssignment {
                    member_id,
                    assignment: Bytes::from(assignment),
                })
                .collect(),
        }),
        "heartbeat" => GroupRequest::Heartbeat(HeartbeatRequest {
            group_id,
            generation_id,
            member_id,
            group_instance_id,
        }),
        "leave" => GroupRequest::Leave(LeaveGroupRequest {
            group_id,
            members: args
                .pairs("members")
                .into_iter()
                .map(|(member_id, instance)| MemberIdentity {
                    member_id,
                    group_instance_id: Some(instance).filter(|i| !i.is_empty()),
                    reason: None,
                })
                .collect(),
            ..Default::default()
        }),
        _ => offset_request(verb, args),
    }
}

fn offset_request(verb: &str, args: &Args<'_>) -> GroupRequest {
    let group_id = args.text("group", "g");
    match verb {
        "commit" => GroupRequest::CommitOffsets {
            version: args.number("v", 9) as i16,
            request: OffsetCommitRequest {
                group_id,
                member_id: args.text("member", ""),
                group_instance_id: args.optional("instance"),
                generation_id_or_member_epoch: args.number("generation", -1) as i32,
                retention_time_ms: args.number("retention", -1),
                topics: args
                    .pairs("offsets")
                    .into_iter()
                    .map(|(name, offset)| OffsetCommitRequestTopic {
                        name,
                        topic_id: Uuid::from_u128(args.number("id", 0) as u128),
                        partitions: vec![OffsetCommitRequestPartition {
                            partition_index: 0,
                            committed_offset: offset.parse().unwrap(),
                            committed_leader_epoch: 3,
                            committed_metadata: args.optional("metadata"),
                        }],
                    })
                    .collect(),
            },
        },
        "fetch" => GroupRequest::FetchOffsets(OffsetFetchRequestGroup {
            group_id,
            topics: args.optional("topics").map(|topics| {
                let topic = |name: &str| OffsetFetchRequestTopics {
                    name: name.to_owned(),
                    topic_id: Uuid::from_u128(args.number("id", 0) as u128),
                    partition_indexes: vec![0],
                };
                topics.split(',').map(topic).collect()
            }),
            ..Default::default()
        }),
        "delete_offsets" => GroupRequest::DeleteOffsets(OffsetDeleteRequest {
            group_id,
            topics: args
                .pairs("topics")
                .into_iter()
                .map(|(name, _)| OffsetDeleteRequestTopic {
                    name,
                    partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
                })
                .collect(),
        }),
        "describe" => {
            GroupRequest::Describe { version: args.number("v", 6) as i16, groups: vec![group_id] }
        }
        "list" => {
            let words = |name| args.pairs(name).into_iter().map(|(word, _)| word).collect();
            GroupRequest::List { states: words("states"), types: words("types") }
        }
        "delete_group" => GroupRequest::DeleteGroups(vec![group_id]),
        "topic_deleted" => GroupRequest::TopicsDeleted(vec![(
            args.text("topic", ""),
            Uuid::from_u128(args.number("id", 0) as u128),
        )]),
        _ => panic!("no such step: {verb}"),
    }
}

fn show(text: &mut String, outcome: &Outcome) {
    for record in &outcome.records {
        writeln!(text, "  record {}", show_record(record)).unwrap();
    }
    for (id, response) in &outcome.replies {
        writeln!(text, "  reply {} {}", id.0, show_response(response)).unwrap();
    }
}

fn show_record(record: &GroupRecord) -> String {
    match record {
        GroupRecord::OffsetCommit { key, value } => {
            let at = format!("offset {} {}-{}", key.group, key.topic, key.partition);
            match value {
                None => format!("{at} deleted"),
                Some(v) => format!(
                    "{at} {} epoch={} metadata={:?} at={} expires={}",
                    v.offset, v.leader_epoch, v.metadata, v.commit_timestamp, v.expire_timestamp
                ),
            }
        }
        GroupRecord::GroupMetadata { key, value: None } => format!("group {} deleted", key.group),
        GroupRecord::GroupMetadata { key, value: Some(v) } => {
            let members: Vec<String> = v
                .members
                .iter()
                .map(|m| format!("{}={}", m.member_id, show_bytes(&m.assignment)))
                .collect();
            format!(
                "group {} generation={} type={:?} protocol={} leader={} at={} members=[{}]",
                key.group,
                v.generation,
                v.protocol_type,
                v.protocol.as_deref().unwrap_or("-"),
                v.leader.as_deref().unwrap_or("-"),
                v.current_state_timestamp,
                members.join(" ")
            )
        }
        other => format!("{other:?}"),
    }
}

fn error(code: i16) -> &'static str {
    ErrorCode::from_code(code).name()
}

fn show_response(response: &GroupResponse) -> String {
    match response {
        GroupResponse::Join(r) if r.error_code != 0 => {
            format!("{} member={}", error(r.error_code), r.member_id)
        }
        GroupResponse::Join(r) => {
            let members: Vec<String> = r
                .members
                .iter()
                .map(|m| format!("{}={}", m.member_id, topics_of(&m.metadata)))
                .collect();
            let skip = if r.skip_assignment { " skip" } else { "" };
            format!(
                "NONE generation={} protocol={} leader={} member={} members=[{}]{skip}",
                r.generation_id,
                r.protocol_name.as_deref().unwrap_or("-"),
                r.leader,
                r.member_id,
                members.join(" ")
            )
        }
        GroupResponse::Sync(r) => {
            format!("{} assignment={}", error(r.error_code), show_bytes(&r.assignment))
        }
        GroupResponse::Heartbeat(r) => error(r.error_code).to_owned(),
        GroupResponse::Leave(r) => {
            let member = |m: &ottla_protocol::messages::leave_group_response::MemberResponse| {
                format!("{}={}", m.member_id, error(m.error_code))
            };
            r.members.iter().map(member).collect::<Vec<_>>().join(" ")
        }
        GroupResponse::CommitOffsets(r) => {
            let topics = r.topics.iter();
            let codes = topics.flat_map(|t| t.partitions.iter().map(|p| (&t.name, p.error_code)));
            codes
                .map(|(name, code)| format!("{name}={}", error(code)))
                .collect::<Vec<_>>()
                .join(" ")
        }
        GroupResponse::FetchOffsets(r) => {
            let show = |name: &str, p: &_| {
                let p: &ottla_protocol::messages::offset_fetch_response::OffsetFetchResponsePartitions = p;
                format!("{name}-{}={}:{:?}", p.partition_index, p.committed_offset, p.metadata)
            };
            let topics = r.topics.iter();
            let all = topics.flat_map(|t| t.partitions.iter().map(|p| show(&t.name, p)));
            format!("[{}]", all.collect::<Vec<_>>().join(" "))
        }
        GroupResponse::DeleteOffsets(r) => {
            let topics = r.topics.iter();
            let codes = topics.flat_map(|t| t.partitions.iter().map(|p| (&t.name, p.error_code)));
            codes
                .map(|(name, code)| format!("{name}={}", error(code)))
                .collect::<Vec<_>>()
                .join(" ")
        }
        GroupResponse::Describe(groups) => {
            let g = &groups[0];
            let members: Vec<String> = g
                .members
                .iter()
                .map(|m| {
                    let (metadata, assignment) = (&m.member_metadata, &m.member_assignment);
                    format!("{}={}/{}", m.member_id, topics_of(metadata), show_bytes(assignment))
                })
                .collect();
            format!(
                "{} {} type={:?} protocol={:?} members=[{}] {}",
                error(g.error_code),
                g.group_state,
                g.protocol_type,
                g.protocol_data,
                members.join(" "),
                g.error_message.as_deref().unwrap_or("-")
            )
        }
        GroupResponse::List(groups) => {
            let show = |g: &ottla_protocol::messages::list_groups_response::ListedGroup| {
                format!("{}:{}:{}:{}", g.group_id, g.group_type, g.group_state, g.protocol_type)
            };
            format!("[{}]", groups.iter().map(show).collect::<Vec<_>>().join(" "))
        }
        GroupResponse::DeleteGroups(results) => error(results[0].error_code).to_owned(),
        GroupResponse::TopicsDeleted => "done".to_owned(),
        GroupResponse::Refused(code) => code.name().to_owned(),
    }
}

fn show_bytes(bytes: &Bytes) -> String {
    format!("'{}'", String::from_utf8_lossy(bytes))
}

fn topics_of(metadata: &Bytes) -> String {
    let mut reader = Reader::new(metadata.clone());
    if reader.i16().is_err() {
        return "-".to_owned();
    }
    ConsumerProtocolSubscription::decode(&mut reader, 0).unwrap().topics.join("+")
}

const UUID_START: &str = "-00000000-0000-0000-0000-";

/// `a#1` to the member id that it stands for.
fn lengthen(text: &str) -> String {
    let mut parts = text.split('#');
    let mut long = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let number: u64 = part[..end].parse().unwrap();
        write!(long, "{UUID_START}{number:012x}{}", &part[end..]).unwrap();
    }
    long
}

/// The other way round.
fn shorten(text: &str) -> String {
    let mut parts = text.split(UUID_START);
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let number = u64::from_str_radix(&part[..12], 16).unwrap();
        write!(short, "#{number}{}", &part[12..]).unwrap();
    }
    short
}
