//! Producing, fetching and what belongs to it, on the topic `golden`.

use bytes::Bytes;
use ottla_protocol::batch::Compression;
use ottla_protocol::messages::*;
use ottla_protocol::record::{BatchBuilder, BatchParams, RecordHeader};
use ottla_protocol::{ApiKey, ProducerEpoch, ProducerId, Timestamp};
use std::time::Duration;
use uuid::Uuid;

use crate::{Recorder, Result};

/// The topic that everything happens in; it has two partitions.
pub const TOPIC: &str = "golden";

/// Records everything here.
pub fn record(r: &mut Recorder) -> Result<()> {
    let topic_id = r.topic_id(TOPIC)?;
    metadata(r, topic_id)?;
    let producer_id = init_producer_id(r)?;
    for (sequence, version) in r.versions_of(ApiKey::Produce).into_iter().enumerate() {
        let records = batch(version, producer_id, sequence as i32 * 2);
        r.ask(version, &produce(version, topic_id, 0, records))?;
    }
    // To a partition that is not there, and bytes that are no batch.
    r.ask(12, &produce(12, topic_id, 9, batch(0, -1, -1)))?;
    r.ask(12, &produce(12, topic_id, 0, Bytes::from_static(&[7; 80])))?;
    fetch(r, topic_id)?;
    for timestamp in [-1, -2, -3, -4, -5, -6, 1_700_000_000_001] {
        r.ask_all(|version| list_offsets(version, timestamp))?;
    }
    r.ask_all(|version| OffsetForLeaderEpochRequest {
        replica_id: if version >= 3 { -1 } else { -2 },
        topics: vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
            topic: TOPIC.to_owned(),
            partitions: [(0, 0), (1, 5), (7, 0)]
                .map(|(partition, leader_epoch)| {
                    offset_for_leader_epoch_request::OffsetForLeaderPartition {
                        partition,
                        current_leader_epoch: -1,
                        leader_epoch,
                    }
                })
                .into(),
        }],
    })?;
    r.ask_all(|_| DescribeProducersRequest {
        topics: vec![describe_producers_request::TopicRequest {
            name: TOPIC.to_owned(),
            partition_indexes: vec![0, 1],
        }],
    })?;
    r.ask_all(|version| DeleteRecordsRequest {
        timeout_ms: 5000,
        topics: vec![delete_records_request::DeleteRecordsTopic {
            name: TOPIC.to_owned(),
            partitions: vec![delete_records_request::DeleteRecordsPartition {
                partition_index: 0,
                offset: i64::from(version) + 1,
            }],
        }],
    })
}

fn metadata(r: &mut Recorder, topic_id: Uuid) -> Result<()> {
    use metadata_request::MetadataRequestTopic;
    r.ask_all(|version| MetadataRequest {
        topics: Some(vec![
            MetadataRequestTopic { name: Some(TOPIC.to_owned()), ..Default::default() },
            MetadataRequestTopic { name: Some("not a topic!".to_owned()), ..Default::default() },
        ]),
        allow_auto_topic_creation: version < 4,
        include_topic_authorized_operations: version >= 8,
        include_cluster_authorized_operations: (8..=10).contains(&version),
    })?;
    r.ask_all(|version| MetadataRequest {
        topics: if version == 0 { Some(Vec::new()) } else { None },
        ..Default::default()
    })?;
    for topic_id in [topic_id, Uuid::from_u128(1 << 100)] {
        let topics = vec![MetadataRequestTopic { topic_id, name: None }];
        r.ask(13, &MetadataRequest { topics: Some(topics), ..Default::default() })?;
    }
    r.ask_all(|_| DescribeTopicPartitionsRequest {
        topics: [TOPIC, "unknown"]
            .map(|name| describe_topic_partitions_request::TopicRequest { name: name.to_owned() })
            .into(),
        response_partition_limit: 1,
        cursor: None,
    })
}

fn init_producer_id(r: &mut Recorder) -> Result<i64> {
    let body = InitProducerIdRequest {
        transaction_timeout_ms: 60_000,
        transactional_id: None,
        ..Default::default()
    };
    // A fresh broker has no block of producer ids yet.
    r.exchange(0, &body)?;
    std::thread::sleep(Duration::from_millis(1000));
    let mut producer_id = -1;
    for version in r.versions_of(ApiKey::InitProducerId) {
        producer_id = r.ask(version, &body)?.producer_id;
    }
    Ok(producer_id)
}

/// Two records, compressed with another codec in each version.
fn batch(version: i16, producer_id: i64, base_sequence: i32) -> Bytes {
    let codec = if version < 7 { version % 4 } else { version % 5 };
    let mut builder = BatchBuilder::new(BatchParams {
        compression: Compression::from_bits(codec).unwrap_or(Compression::None),
        producer_id: ProducerId(producer_id),
        producer_epoch: ProducerEpoch(if producer_id < 0 { -1 } else { 0 }),
        base_sequence,
        ..BatchParams::default()
    });
    let time = Timestamp(1_700_000_000_000 + i64::from(version));
    builder.push(time, Some(b"key"), Some(b"value"), &[RecordHeader::new("header", "x")]);
    builder.push(time.plus_ms(1), None, None, &[]);
    builder.build().freeze()
}

fn produce(version: i16, topic_id: Uuid, index: i32, records: Bytes) -> ProduceRequest {
    let by_id = version >= 13;
    ProduceRequest {
        transactional_id: None,
        acks: if version % 2 == 0 { 1 } else { -1 },
        timeout_ms: 5000,
        topic_data: vec![produce_request::TopicProduceData {
            name: if by_id { String::new() } else { TOPIC.to_owned() },
            topic_id: if by_id { topic_id } else { Uuid::nil() },
            partition_data: vec![produce_request::PartitionProduceData {
                index,
                records: Some(records),
            }],
        }],
    }
}

fn fetch(r: &mut Recorder, topic_id: Uuid) -> Result<()> {
    // From the beginning, past the end, and a session that is not there.
    for (fetch_offset, session_id, session_epoch) in [(0, 0, -1), (1 << 40, 0, -1), (0, 0, 0)] {
        r.ask_all(|version| {
            fetch_request(version, topic_id, fetch_offset, session_id, session_epoch)
        })?;
    }
    r.ask(11, &fetch_request(11, topic_id, 0, 12345, 7))?;
    r.ask(13, &fetch_request(13, Uuid::from_u128(1 << 100), 0, 0, -1)).map(|_| ())
}

fn fetch_request(
    version: i16,
    topic_id: Uuid,
    fetch_offset: i64,
    session_id: i32,
    session_epoch: i32,
) -> FetchRequest {
    let by_id = version >= 13;
    FetchRequest {
        max_wait_ms: 10,
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation_level: i8::from(version % 2 == 0),
        session_id,
        session_epoch,
        topics: vec![fetch_request::FetchTopic {
            topic: if by_id { String::new() } else { TOPIC.to_owned() },
            topic_id: if by_id { topic_id } else { Uuid::nil() },
            partitions: [0, 9]
                .map(|partition| fetch_request::FetchPartition {
                    partition,
                    current_leader_epoch: if version >= 9 { 0 } else { -1 },
                    fetch_offset,
                    partition_max_bytes: 300,
                    ..Default::default()
                })
                .into(),
        }],
        ..Default::default()
    }
}

fn list_offsets(version: i16, timestamp: i64) -> ListOffsetsRequest {
    ListOffsetsRequest {
        isolation_level: i8::from(version >= 2 && version % 2 == 0),
        topics: vec![list_offsets_request::ListOffsetsTopic {
            name: TOPIC.to_owned(),
            partitions: [0, 1, 9]
                .map(|partition_index| list_offsets_request::ListOffsetsPartition {
                    partition_index,
                    timestamp,
                    ..Default::default()
                })
                .into(),
        }],
        timeout_ms: 5000,
        ..Default::default()
    }
}
