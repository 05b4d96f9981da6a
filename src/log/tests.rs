//! Cases of the log as a whole, with small segments.

use super::*;
use crate::env::RealDisk;
use bytes::Bytes;
use ottla_protocol::batch::{BatchHeader, batches};
use ottla_protocol::record::{BatchBuilder, BatchParams};
use ottla_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tempfile::TempDir;

pub(super) const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A directory and the settings that logs in it are opened with.
pub(super) struct Fixture {
    pub(super) dir: TempDir,
    pub(super) config: LogConfig,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let config = LogConfig {
            segment_bytes: 600,
            index_interval_bytes: 100,
            segment_index_bytes: 1000,
            retention_ms: -1,
            ..LogConfig::default()
        };
        Fixture { dir: tempfile::tempdir().unwrap(), config }
    }

    pub(super) fn params(&self) -> LogParams {
        LogParams {
            disk: Arc::new(RealDisk),
            dir: self.path(),
            topic: "events".into(),
            partition: 0,
            topic_id: uuid::Uuid::from_u128(7),
            config: Arc::new(self.config.clone()),
            log_start_offset: Offset(0),
            recovery_point: Offset(0),
            clean_shutdown: false,
            now: NOW,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("events-0")
    }

    pub(super) fn open(&self) -> Log {
        Log::open(self.params()).unwrap()
    }

    pub(super) fn open_clean(&self) -> Log {
        Log::open(LogParams { clean_shutdown: true, ..self.params() }).unwrap()
    }

    pub(super) fn files(&self) -> Vec<String> {
        RealDisk.list(&self.path()).unwrap().into_iter().map(|entry| entry.name).collect()
    }
}

/// A producer's batch with `count` records of which the first has this timestamp, the next one more, and so on.
pub(super) fn batch_of(params: BatchParams, count: usize, timestamp: i64, size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(params);
    let value = vec![b'v'; size];
    for n in 0..count {
        builder.push(Timestamp(timestamp + n as i64), Some(b"key"), Some(&value), &[]);
    }
    builder.build().freeze()
}

pub(super) fn batch(count: usize, timestamp: i64) -> Bytes {
    batch_of(BatchParams::default(), count, timestamp, 10)
}

pub(super) fn idempotent(id: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    let params = BatchParams {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: sequence,
        ..BatchParams::default()
    };
    batch_of(params, count, NOW.0, 10)
}

pub(super) fn client() -> AppendContext {
    AppendContext {
        leader_epoch: LeaderEpoch(0),
        now: NOW,
        origin: AppendOrigin::Client,
        transaction: TransactionCheck::Verified,
    }
}

pub(super) fn append(log: &mut Log, records: Bytes) -> Result<AppendInfo, ErrorCode> {
    log.append_as_leader(records, client()).map_err(|error| error.error_code())
}

/// Headers of everything from `offset` on.
pub(super) fn read_all(log: &Log, mut offset: Offset) -> Vec<BatchHeader> {
    let mut headers = Vec::new();
    while let Some(slice) = log.read(offset, 300, MinOne::Yes, log.log_end_offset()).unwrap() {
        let bytes = slice.to_bytes().unwrap();
        for found in batches(&bytes) {
            let Ok((header, whole)) = found else { break };
            ottla_protocol::batch::check_crc(&header, whole).unwrap();
            offset = header.next_offset();
            headers.push(header);
        }
    }
    headers
}

#[test]
fn reads_what_was_appended_across_segments_and_reopening() {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    assert!(
        !fixture.files().iter().any(|name| name.ends_with(".log")),
        "an empty log has no files"
    );
    for n in 0..40 {
        let info = append(&mut log, batch(3, NOW.0 + n)).unwrap();
        assert_eq!((info.first_offset, info.last_offset), (Offset(n * 3), Offset(n * 3 + 2)));
    }
    assert!(log.segments().len() > 5);
    let check = |log: &Log| {
        assert_eq!(log.log_end_offset(), Offset(120));
        let headers = read_all(log, Offset(0));
        assert_eq!(headers.len(), 40);
        assert!(headers.iter().all(|header| header.leader_epoch == LeaderEpoch(0)));
        for offset in 0..120 {
            let slice =
                log.read(Offset(offset), 1, MinOne::Yes, log.log_end_offset()).unwrap().unwrap();
            assert_eq!(slice.base_offset, Offset(offset / 3 * 3), "the batch that holds {offset}");
        }
    };
    check(&log);
    drop(log);
    check(&fixture.open());
    fixture.open().close(NOW).unwrap();
    check(&fixture.open_clean());
}
