use super::*;
use crate::env::{Disk, OpenMode, RealDisk};
use bytes::Bytes;
use ottla_protocol::messages::{FetchResponse, fetch_response as generated};
use ottla_protocol::{Offset, ProducerId};

fn answer(records: Option<LogSlice>, version: i16, topic_id: uuid::Uuid) -> Answer {
    let topic = match version {
        ..=12 => TopicKey::Name("t".into()),
        _ => TopicKey::Id(topic_id),
    };
    let aborted = AbortedTransaction {
        producer_id: ProducerId(7),
        first_offset: Offset(3),
        last_offset: Offset(5),
        last_stable_offset: Offset(6),
    };
    let read = PartitionAnswer {
        error: ErrorCode::None,
        high_watermark: 9,
        last_stable_offset: 8,
        log_start_offset: 1,
        aborted: Some(vec![aborted]),
        records,
        ..PartitionAnswer::unknown(topic.clone(), 0, ErrorCode::None)
    };
    let moved = PartitionAnswer {
        aborted: None,
        current_leader: (version >= 16).then_some((4, 5)),
        ..PartitionAnswer::unknown(topic, 1, ErrorCode::NotLeaderOrFollower)
    };
    let node = Node { id: 4, host: "h".to_owned(), port: 9, rack: None };
    Answer {
        error: ErrorCode::None,
        session_id: 11,
        partitions: vec![read, moved],
        endpoints: vec![node],
    }
}

fn expected(version: i16, topic_id: uuid::Uuid, records: Bytes) -> FetchResponse {
    let read = generated::PartitionData {
        high_watermark: 9,
        last_stable_offset: 8,
        log_start_offset: 1,
        aborted_transactions: Some(vec![generated::AbortedTransaction {
            producer_id: 7,
            first_offset: 3,
        }]),
        records: Some(records),
        ..Default::default()
    };
    let mut moved = generated::PartitionData {
        partition_index: 1,
        error_code: ErrorCode::NotLeaderOrFollower.code(),
        high_watermark: -1,
        aborted_transactions: None,
        ..Default::default()
    };
    let mut node_endpoints = Vec::new();
    if version >= 16 {
        moved.current_leader = generated::LeaderIdAndEpoch { leader_id: 4, leader_epoch: 5 };
        let host = "h".to_owned();
        node_endpoints.push(generated::NodeEndpoint { node_id: 4, host, port: 9, rack: None });
    }
    let topic = generated::FetchableTopicResponse {
        topic: "t".to_owned(),
        topic_id,
        partitions: vec![read, moved],
    };
    FetchResponse { session_id: 11, responses: vec![topic], node_endpoints, ..Default::default() }
}

#[test]
fn layout_is_the_generated_one_in_every_version() {
    let dir = tempfile::tempdir().unwrap();
    let file = RealDisk.open(&dir.path().join("log"), OpenMode::Create).unwrap();
    let base_offset = Offset(0);
    let topic_id = uuid::Uuid::from_u128(77);
    for version in 4..=18 {
        let slice = LogSlice {
            file: file.clone(),
            position: 0,
            len: 4,
            available: 4,
            base_offset,
            is_recent: true,
        };
        let mut out = SendQueue::default();
        write(6, version, &answer(Some(slice), version, topic_id), &mut out);
        let want = request::write_response(
            6,
            version,
            &expected(version, topic_id, Bytes::from_static(b"data")),
        );
        // The file's four bytes are not among the queue's own.
        let own = out.bytes_mut().clone();
        assert_eq!(own.len() + 4, want.len(), "{version}");
        let at = want.windows(4).position(|window| window == b"data").unwrap();
        assert_eq!(own[..at], want[..at], "{version}");
        assert_eq!(own[at..], want[at + 4..], "{version}");
    }
}
