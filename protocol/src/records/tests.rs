use bytes::Bytes;

use super::consumer_protocol::*;
use super::control::ControlRecord;
use super::group::{GroupReaders, GroupRecord};
use super::metadata::*;
use super::transaction::TransactionRecord;
use crate::batch::{BatchHeader, batches};
use crate::coordinator::*;
use crate::generated::MetadataRecord;
use crate::messages::*;
use crate::metadata::*;
use crate::record::{Record, decode_records};

/// Every record of a segment, with the header of its batch.
fn records(segment: &'static [u8]) -> Vec<(BatchHeader, Record)> {
    let segment = Bytes::from_static(segment);
    let mut all = Vec::new();
    for batch in batches(&segment) {
        let (header, batch) = batch.expect("whole batches");
        crate::batch::check_crc(&header, batch).expect("sound batches");
        let batch = segment.slice_ref(batch);
        let records = decode_records(&header, &batch, 1 << 20).expect("records");
        all.extend(records.into_iter().map(|record| (header, record)));
    }
    all
}

/// Checks that both ways lead to Kafka's bytes, for every record of the segment.
fn check_metadata_segment(segment: &'static [u8]) -> (Vec<MetadataRecord>, Vec<ControlRecord>) {
    let (mut metadata, mut control) = (Vec::new(), Vec::new());
    for (header, record) in records(segment) {
        let value = record.value.expect("a value");
        if header.is_control() {
            let key = record.key.expect("a key");
            let decoded = ControlRecord::decode(&key, &value).expect("a control record");
            assert_eq!((decoded.key(), decoded.value()), (key, value), "{decoded:?}");
            control.push(decoded);
        } else {
            let (decoded, version) = decode_metadata_record(value.clone()).expect("a record");
            assert_eq!(encode_metadata_record(&decoded, version), value, "{decoded:?}");
            metadata.push(decoded);
        }
    }
    (metadata, control)
}

#[test]
fn the_metadata_log_of_kafka_comes_back_byte_for_byte() {
    let (metadata, control) =
        check_metadata_segment(include_bytes!("../../testdata/records/cluster-metadata.log"));
    assert!(matches!(&control[0], ControlRecord::LeaderChange(change) if change.leader_id == 1));
    assert!(metadata.contains(&MetadataRecord::from(FeatureLevelRecord {
        name: "metadata.version".into(),
        feature_level: 30,
    })));
    assert!(metadata.iter().any(|record| matches!(record, MetadataRecord::RegisterBroker(_))));
    assert!(metadata.iter().any(|record| matches!(record, MetadataRecord::Partition(_))));
    assert!(metadata.iter().any(|record| matches!(record, MetadataRecord::ClientQuota(_))));
}

#[test]
fn a_snapshot_of_kafka_comes_back_byte_for_byte() {
    let (metadata, control) = check_metadata_segment(include_bytes!(
        "../../testdata/records/cluster-metadata.checkpoint"
    ));
    assert!(!metadata.is_empty());
    assert!(matches!(control.first(), Some(ControlRecord::SnapshotHeader(_))));
    assert!(matches!(control.last(), Some(ControlRecord::SnapshotFooter(_))));
}

#[test]
fn the_offsets_of_kafka_come_back_byte_for_byte() {
    let mut kinds = std::collections::BTreeSet::new();
    for (_, record) in records(include_bytes!("../../testdata/records/consumer-offsets.log")) {
        let (key, value) = (record.key.expect("a key"), record.value);
        let decoded = GroupRecord::decode(&key, value.as_ref()).expect("a group record");
        assert_eq!(decoded.encode(), (key.clone(), value.clone()), "{decoded:?}");
        kinds.insert((key[1], decoded.is_tombstone()));
    }
    for kind in [(1, false), (2, false), (3, false), (5, false), (5, true), (8, true)] {
        assert!(kinds.contains(&kind), "{kind:?} of {kinds:?}");
    }
}

#[test]
fn the_transaction_state_of_kafka_comes_back_byte_for_byte() {
    let all = records(include_bytes!("../../testdata/records/transaction-state.log"));
    assert!(!all.is_empty());
    for (_, record) in all {
        let (key, value) = (record.key.expect("a key"), record.value);
        let decoded = TransactionRecord::decode(&key, value.as_ref()).expect("a record");
        assert_eq!(decoded.encode(1), (key, value), "{decoded:?}");
    }
}

#[test]
fn a_metadata_record_that_is_none_is_an_error() {
    let good = encode_metadata_record(&TopicRecord::default().into(), 0);
    assert!(decode_metadata_record(good.clone()).is_ok());
    let mut longer = good.to_vec();
    longer.push(0);
    let cases: [&[u8]; 6] =
        [b"", &[0, 2, 0], &[2, 2, 0], &[1, 99, 0], &[1, 2, 9], longer.as_slice()];
    for bytes in cases {
        assert!(decode_metadata_record(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
    }
    for length in 0..good.len() {
        assert!(decode_metadata_record(good.slice(..length)).is_err());
    }
}

#[test]
fn markers_of_transactions_are_kafkas() {
    let commit = ControlRecord::Commit(EndTxnMarker { coordinator_epoch: 7 });
    assert_eq!(commit.key()[..], [0, 0, 0, 1]);
    assert_eq!(commit.value()[..], [0, 0, 0, 0, 0, 7]);
    assert_eq!(ControlRecord::decode(&commit.key(), &commit.value()), Ok(commit));
    // Later versions add to the end.
    let key = Bytes::from_static(&[0, 1, 0, 0, 9]);
    let value = Bytes::from_static(&[0, 1, 0, 0, 0, 3, 9, 9]);
    let abort = ControlRecord::Abort(EndTxnMarker { coordinator_epoch: 3 });
    assert_eq!(ControlRecord::decode(&key, &value), Ok(abort));
    let unknown = ControlRecord::decode(&Bytes::from_static(&[0, 0, 0, 42]), &value);
    assert_eq!(unknown, Ok(ControlRecord::Unknown { type_id: 42 }));
    assert!(ControlRecord::decode(&Bytes::from_static(&[0xff, 0xff, 0, 0]), &value).is_err());
    assert!(ControlRecord::decode(&Bytes::from_static(&[0, 0, 0]), &value).is_err());
    assert!(ControlRecord::decode(&Bytes::from_static(&[0; 4]), &Bytes::new()).is_err());
}

#[test]
fn a_leader_change_with_directories_is_of_version_one() {
    let mut change = LeaderChangeMessage { leader_id: 3, ..LeaderChangeMessage::default() };
    change.voters.push(leader_change_message::Voter {
        voter_id: 3,
        voter_directory_id: uuid::Uuid::from_u128(5),
    });
    change.version = 1;
    let record = ControlRecord::LeaderChange(change);
    assert_eq!(ControlRecord::decode(&record.key(), &record.value()), Ok(record));
}

#[test]
fn a_group_record_of_the_future_is_passed_over() {
    let unknown = GroupRecord::decode(&Bytes::from_static(&[0, 99, 1, 2]), None);
    assert_eq!(unknown, Ok(GroupRecord::Unknown { record_type: 99 }));
    let record = GroupRecord::OffsetCommit {
        key: OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 3 },
        value: Some(OffsetCommitValue { offset: 9, ..OffsetCommitValue::default() }),
    };
    let (key, value) = record.encode();
    let value = value.expect("a value");
    assert_eq!((key[..2].to_vec(), value[..2].to_vec()), (vec![0, 1], vec![0, 4]));
    assert_eq!(GroupRecord::decode(&key, Some(&value)), Ok(record));
    let mut future = value.to_vec();
    future[1] = 9;
    assert!(GroupRecord::decode(&key, Some(&Bytes::from(future))).is_err());
    assert!(GroupRecord::decode(&Bytes::from_static(&[0]), None).is_err());
}

#[test]
fn an_offset_with_a_time_of_expiry_is_of_version_one() {
    let value = OffsetCommitValue { expire_timestamp: 5, ..OffsetCommitValue::default() };
    let record = GroupRecord::OffsetCommit { key: OffsetCommitKey::default(), value: Some(value) };
    assert_eq!(record.value_version(), 1);
    let (key, value) = record.encode();
    assert_eq!(GroupRecord::decode(&key, value.as_ref()), Ok(record));
}

#[test]
fn a_subscription_of_the_future_is_read_as_the_latest() {
    let subscription = ConsumerProtocolSubscription {
        topics: vec!["a".into(), "b".into()],
        ..ConsumerProtocolSubscription::default()
    };
    for version in 0..=3 {
        let bytes = encode_subscription(&subscription, version);
        assert_eq!(decode_subscription(&bytes), Ok((subscription.clone(), version)));
    }
    let mut bytes = encode_subscription(&subscription, 3).to_vec();
    bytes[1] = 9;
    bytes.extend_from_slice(b"more");
    assert_eq!(decode_subscription(&Bytes::from(bytes)), Ok((subscription, 3)));
    assert!(decode_subscription(&Bytes::from_static(&[0xff, 0xff])).is_err());
    let assignment = ConsumerProtocolAssignment::default();
    let bytes = encode_assignment(&assignment, 1);
    assert_eq!(decode_assignment(&bytes), Ok((assignment, 1)));
}

#[test]
fn an_offset_for_old_readers_is_of_version_three() {
    let value = OffsetCommitValue { offset: 9, leader_epoch: 2, ..OffsetCommitValue::default() };
    let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 3 };
    let record = GroupRecord::OffsetCommit { key, value: Some(value) };
    let (key, value) = record.encode_for(GroupReaders::Old);
    assert_eq!(value.as_ref().map(|value| value[..2].to_vec()), Some(vec![0, 3]));
    assert_eq!(GroupRecord::decode(&key, value.as_ref()), Ok(record));
}
