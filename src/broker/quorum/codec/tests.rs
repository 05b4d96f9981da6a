//! What is encoded is read again, and other bytes are refused.

use super::super::announce::Standing;
use super::super::voter_set::{Voter, VoterEndpoint};
use super::*;
use crate::broker::Address;
use ottla_protocol::Timestamp;
use ottla_protocol::record::{BatchBuilder, BatchParams};
use proptest::prelude::*;

fn entry(epoch: i32, index: u64, base_offset: i64) -> QuorumEntry {
    let mut batch = BatchBuilder::new(BatchParams {
        base_offset: Offset(base_offset),
        leader_epoch: LeaderEpoch(epoch),
        ..BatchParams::default()
    });
    batch.push(Timestamp(7), None, Some(b"value"), &[]);
    let batch = Batch::parse(batch.build().freeze()).unwrap();
    let log_id = types::log_id(LeaderEpoch(epoch), index);
    QuorumEntry { log_id, payload: Payload::Batch(batch), voters: None }
}

const DIRECTORY: Uuid = Uuid::from_u128(7);

fn append() -> AppendEntriesRequest<types::Types> {
    AppendEntriesRequest {
        vote: types::vote(LeaderEpoch(3), Some(BrokerId(2)), true),
        prev_log_id: Some(types::log_id(LeaderEpoch(2), 8)),
        entries: vec![entry(2, 9, 20), entry(3, 10, 21)],
        leader_commit: None,
    }
}

fn announcement(voters_max: Option<u32>) -> Message {
    let endpoint = |name: &str, port| VoterEndpoint {
        name: name.to_owned(),
        address: ("host".to_owned(), port),
    };
    let voter = Voter {
        id: BrokerId(4),
        directory_id: DIRECTORY,
        endpoints: vec![endpoint("CONTROLLER", 9093), endpoint("OTHER", 9094)],
        kraft_versions: (0, 1),
    };
    Message::Announce(Announcement { voter, voters_max })
}

fn announced(standing: Standing, leader: Option<(BrokerId, Address)>) -> Answer {
    Answer::Announced(Announced { standing, epoch: LeaderEpoch(3), leader })
}

fn messages() -> Vec<Message> {
    let last = types::log_id(LeaderEpoch(2), 8);
    vec![
        Message::Append(append()),
        Message::Vote(VoteRequest {
            vote: types::vote(LeaderEpoch(4), Some(BrokerId(1)), false),
            last_log_id: Some(last),
        }),
        Message::PreVote(PreVote { epoch: LeaderEpoch(4), candidate: BrokerId(1), last: None }),
        Message::Snapshot(SnapshotPart {
            vote: types::vote(LeaderEpoch(3), Some(BrokerId(2)), true),
            end_offset: Offset(9),
            last,
            total: 100,
            position: 3,
            bytes: Bytes::from_static(b"part"),
        }),
        Message::EndEpoch(LeaderEpoch(4)),
        announcement(None),
        announcement(Some(3)),
    ]
}

#[test]
fn messages_are_read_as_they_were_written() {
    for message in messages() {
        let bytes = message.encode(DIRECTORY);
        let (to, read) = Message::decode(bytes.clone()).unwrap();
        assert_eq!(to, DIRECTORY);
        assert_eq!(format!("{read:?}"), format!("{message:?}"));
        for cut in 0..bytes.len() {
            // The part of a snapshot is what is left of the message, however long.
            let is_part = matches!(message, Message::Snapshot(_)) && cut >= bytes.len() - 4;
            assert_eq!(Message::decode(bytes.slice(..cut)).is_ok(), is_part, "{cut}");
        }
    }
}

#[test]
fn answers_are_read_as_they_were_written() {
    let vote = types::vote(LeaderEpoch(3), Some(BrokerId(2)), true);
    let last = Some(types::log_id(LeaderEpoch(2), 8));
    for answer in [
        Answer::Append(AppendEntriesResponse::Success),
        Answer::Append(AppendEntriesResponse::Conflict),
        Answer::Append(AppendEntriesResponse::HigherVote(vote)),
        Answer::Append(AppendEntriesResponse::PartialSuccess(last)),
        Answer::Vote(VoteResponse { vote, vote_granted: true, last_log_id: last }),
        Answer::PreVote { is_granted: true, epoch: LeaderEpoch(5) },
        Answer::Snapshot(SnapshotResponse { vote }),
        Answer::EndEpoch,
        announced(Standing::Learner, None),
        announced(Standing::Replaced(DIRECTORY), Some((BrokerId(1), ("host".to_owned(), 1)))),
        Answer::Refused("why".to_owned()),
    ] {
        assert_eq!(Answer::decode(answer.encode()), Ok(answer));
    }
}

#[test]
fn entries_that_do_not_follow_or_are_damaged_are_refused() {
    let mut gap = append();
    gap.entries[1].log_id.index = 11;
    let mut other_epoch = append();
    other_epoch.entries[1].log_id = types::log_id(LeaderEpoch(4), 10);
    for request in [gap, other_epoch] {
        assert!(Message::decode(Message::Append(request).encode(Uuid::nil())).is_err());
    }
    let bytes = Message::Append(append()).encode(Uuid::nil());
    let mut damaged = bytes.to_vec();
    // The last byte lies in the last batch's records.
    *damaged.last_mut().unwrap() ^= 1;
    assert!(Message::decode(Bytes::from(damaged)).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        kind in 0_u8..8,
    ) {
        let mut framed = vec![VERSION, kind];
        framed.extend_from_slice(&bytes);
        for bytes in [bytes, framed] {
            let _ = Message::decode(Bytes::from(bytes.clone()));
            let _ = Answer::decode(Bytes::from(bytes));
        }
    }

    #[test]
    fn a_message_with_bytes_turned_over_is_a_message_or_refused(
        at in 0_usize..7,
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = messages()[at].encode(Uuid::nil()).to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let _ = Message::decode(Bytes::from(bytes));
    }
}
