//! Many logs, and few files that may be open: what is closed meanwhile is found again, and owes its sync as before.

use super::tests::{NOW, append, batch, batch_of, read_all};
use super::*;
use crate::env::sim_disk::{Crash, SimDisk};
use ottla_protocol::record::BatchParams;

/// Files that may be open.
const FILES: usize = 20;

struct Broker {
    disk: SimDisk,
    shared: Arc<dyn Disk>,
    config: Arc<LogConfig>,
}

impl Broker {
    fn new() -> Broker {
        let disk = SimDisk::with_open_files(1, FILES);
        disk.create_dir_durably(Path::new("/logs")).unwrap();
        let shared = Arc::new(disk.clone());
        let config = Arc::new(LogConfig { segment_bytes: 600, ..LogConfig::default() });
        Broker { disk, shared, config }
    }

    fn open(&self, partition: i32, clean_shutdown: bool, recovery_point: Offset) -> Log {
        let params = LogParams {
            disk: Arc::clone(&self.shared),
            dir: checkpoint::partition_dir(Path::new("/logs"), "events", partition),
            topic: "events".into(),
            partition,
            topic_id: uuid::Uuid::from_u128(7),
            config: Arc::clone(&self.config),
            log_start_offset: Offset(0),
            recovery_point,
            clean_shutdown,
            earlier_writes_synced: true,
            now: NOW,
        };
        Log::open(params).unwrap()
    }

    fn open_files(&self) -> usize {
        self.disk.copies() - 2
    }
}

fn ends(logs: &[Log]) -> Vec<i64> {
    logs.iter().map(|log| log.log_end_offset().0).collect()
}

#[test]
fn many_logs_that_are_written_and_read_keep_few_files_open() {
    let broker = Broker::new();
    let open = |point: Offset| (0..200).map(|n| broker.open(n, false, point)).collect::<Vec<_>>();
    let mut logs = open(Offset(0));
    assert_eq!(broker.open_files(), 0, "those without records have none");
    for round in 1..=4 {
        for log in &mut logs {
            append(log, batch_of(BatchParams::default(), 2, NOW.0 + round, 60)).unwrap();
            assert!(broker.open_files() <= FILES);
        }
    }
    assert!(logs.iter().all(|log| log.segments.len() > 1));
    for log in &mut logs {
        assert_eq!(read_all(log, Offset(0)).len(), 4);
        log.flush(NOW).unwrap();
        assert!(broker.open_files() <= FILES);
    }
    // What was closed before its sync is durable nevertheless.
    let before = ends(&logs);
    drop(logs);
    broker.disk.crash(Crash::PowerLoss);
    let mut logs = open(Offset(8));
    assert_eq!(ends(&logs), before);
    assert!(broker.open_files() <= FILES, "recovery closes what it read");
    logs.iter_mut().for_each(|log| log.close(NOW).unwrap());
    assert_eq!(broker.open_files(), 0);
    broker.disk.crash(Crash::PowerLoss);
    let logs: Vec<Log> = (0..200).map(|n| broker.open(n, true, Offset(8))).collect();
    assert_eq!(ends(&logs), before);
}

#[test]
fn a_file_in_use_stays_open() {
    let broker = Broker::new();
    let mut busy = broker.open(0, false, Offset(0));
    append(&mut busy, batch(1, NOW.0)).unwrap();
    let directory = busy.directory.clone();
    let file = Arc::downgrade(&busy.segments[0].file(&directory).unwrap());
    for n in 1..100 {
        let mut log = broker.open(n, false, Offset(0));
        append(&mut log, batch(1, NOW.0)).unwrap();
        append(&mut busy, batch(1, NOW.0)).unwrap();
        assert!(file.upgrade().is_some());
    }
}

#[test]
fn who_reads_a_file_keeps_it_when_it_is_closed_for_others() {
    let broker = Broker::new();
    let mut log = broker.open(0, false, Offset(0));
    append(&mut log, batch(1, NOW.0)).unwrap();
    let read = log.read(Offset(0), 1000, MinOne::Yes, Offset(1)).unwrap().unwrap();
    let others: Vec<Log> = (1..100)
        .map(|n| {
            let mut other = broker.open(n, false, Offset(0));
            append(&mut other, batch(1, NOW.0)).unwrap();
            other
        })
        .collect();
    assert_eq!(others.len(), 99);
    assert_eq!(read.to_bytes().unwrap().len(), read.len);
    assert_eq!(broker.open_files(), FILES + 1);
}

/// The kernel tells a failed write-back to descriptors that were open then, and to the file system's next sync.
#[test]
fn pages_that_were_lost_while_their_file_was_closed_take_the_log_offline() {
    let broker = Broker::new();
    let mut logs: Vec<Log> = (0..100).map(|n| broker.open(n, false, Offset(0))).collect();
    for log in &mut logs {
        append(log, batch(1, NOW.0)).unwrap();
    }
    broker.disk.lose_pages();
    // This one's file was open all the time.
    logs[99].flush(NOW).unwrap();
    assert_eq!(logs[99].recovery_point(), Offset(1));
    logs[0].flush(NOW).unwrap_err();
    assert!(logs[0].is_offline());
    assert_eq!(logs[0].recovery_point(), Offset(0));
    // The disk tells it once, and it holds for all.
    logs[1].flush(NOW).unwrap_err();
    assert!(logs[1].is_offline());
}

#[test]
fn one_sync_of_the_file_system_serves_all_files_that_were_closed_before_it() {
    let broker = Broker::new();
    let mut logs: Vec<Log> = (0..100).map(|n| broker.open(n, false, Offset(0))).collect();
    for log in &mut logs {
        append(log, batch(1, NOW.0)).unwrap();
    }
    logs[0].flush(NOW).unwrap();
    broker.disk.lose_pages();
    for log in &mut logs[1..80] {
        log.flush(NOW).unwrap();
    }
    // What was closed since needs another one.
    for log in &mut logs {
        append(log, batch(1, NOW.0)).unwrap();
    }
    logs[0].flush(NOW).unwrap_err();
}

#[test]
fn files_that_owe_no_sync_are_closed_first() {
    let broker = Broker::new();
    let mut written = broker.open(0, false, Offset(0));
    append(&mut written, batch(1, NOW.0)).unwrap();
    let directory = written.directory.clone();
    let file = Arc::downgrade(&written.segments[0].file(&directory).unwrap());
    let mut others = Vec::new();
    for n in 1..100 {
        let mut log = broker.open(n, false, Offset(0));
        append(&mut log, batch(1, NOW.0)).unwrap();
        log.flush(NOW).unwrap();
        assert!(file.upgrade().is_some(), "closed for {n}");
        others.push(log);
    }
}
