//! A directory that our log wrote is clean; each kind of damage is found and named.

use super::*;
use crate::env::RealDisk;
use crate::log::checkpoint::{
    self, CLEAN_SHUTDOWN, HIGH_WATERMARKS, META_PROPERTIES, MetaProperties, PARTITION_METADATA,
    RECOVERY_POINTS,
};
use crate::log::tests::{
    Fixture, NOW, append, batch, client, coordinator, idempotent, marker, transactional,
};
use ottla_protocol::batch::{BatchHeader, batches, set_base_offset};
use ottla_protocol::{LeaderEpoch, Offset, TopicId};
use std::fs;

const SEGMENT: &str = "00000000000000000000.log";
const INDEX: &str = "00000000000000000000.index";
const TIME_INDEX: &str = "00000000000000000000.timeindex";

/// How the broker that wrote the directory ended.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Clean,
    Crash,
}

/// A log directory with one partition of several segments, transactions and epochs.
fn written(stop: Stop) -> Fixture {
    let fixture = Fixture::new();
    let mut log = fixture.open();
    for n in 0..20 {
        append(&mut log, batch(3, NOW.0 + n)).unwrap();
        append(&mut log, idempotent(9, 0, n as i32 * 2, 2)).unwrap();
    }
    log.assign_leader_epoch(LeaderEpoch(1), log.log_end_offset());
    let context = AppendContextOf(LeaderEpoch(1));
    for n in 0..6 {
        log.append_as_leader(transactional(1, n * 2, 2), context.client()).unwrap();
        log.append_as_leader(transactional(2, n, 1), context.client()).unwrap();
        log.append_as_leader(marker(1, n % 2 == 0), context.coordinator()).unwrap();
        log.append_as_leader(marker(2, n % 3 == 0), context.coordinator()).unwrap();
    }
    assert!(log.segments().len() > 5);
    let end = log.log_end_offset();
    log.close(NOW).unwrap();
    let dir = fixture.dir.path();
    let meta = MetaProperties {
        version: 1,
        cluster_id: Some("cluster".to_owned()),
        node_id: Some(1),
        directory_id: Some(uuid::Uuid::from_u128(3)),
        ..MetaProperties::default()
    };
    checkpoint::write_meta_properties(&RealDisk, dir, &meta).unwrap();
    let recovery_point = if stop == Stop::Clean { end } else { Offset(0) };
    for (name, offset) in [(RECOVERY_POINTS, recovery_point), (HIGH_WATERMARKS, end)] {
        let lines = [("events", 0, offset)].into_iter();
        checkpoint::write_offsets(&RealDisk, dir, name, lines).unwrap();
    }
    if stop == Stop::Clean {
        checkpoint::write_clean_shutdown(&RealDisk, dir, 5).unwrap();
    }
    fixture
}

/// Contexts of appends in one epoch.
struct AppendContextOf(LeaderEpoch);

impl AppendContextOf {
    fn client(&self) -> crate::log::AppendContext {
        crate::log::AppendContext { leader_epoch: self.0, ..client() }
    }

    fn coordinator(&self) -> crate::log::AppendContext {
        crate::log::AppendContext { leader_epoch: self.0, ..coordinator() }
    }
}

fn run(fixture: &Fixture) -> CheckReport {
    check(&RealDisk, &[fixture.dir.path().to_owned()], &mut |_| {}).unwrap()
}

/// Every file with its bytes.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(content(&path));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

/// Damages a directory after a stop and expects exactly this: kind, end of the path, part of the text.
fn check_damage(stop: Stop, damage: impl Fn(&Fixture), expected: &[(Kind, &str, &str)]) {
    let fixture = written(stop);
    damage(&fixture);
    let before = content(fixture.dir.path());
    let report = run(&fixture);
    assert_eq!(content(fixture.dir.path()), before, "a check changed something");
    let found: Vec<_> = report.findings.iter().collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (kind, path, text) in expected {
        let is_it = |finding: &&&Finding| {
            finding.kind == *kind && finding.path.ends_with(path) && finding.what.contains(text)
        };
        assert!(
            found.iter().any(|finding| is_it(&finding)),
            "no {kind:?} {path} {text}: {found:#?}"
        );
    }
    let problems = expected.iter().filter(|(kind, ..)| kind.severity() == Severity::Problem);
    assert_eq!(report.findings.problems(), problems.count() as u64);
}

/// Changes one file of the partition.
fn edit(fixture: &Fixture, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = fixture.path().join(name);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

/// The last file of the partition with this suffix.
fn last(fixture: &Fixture, suffix: &str) -> String {
    fixture.files().into_iter().rfind(|name| name.ends_with(suffix)).unwrap()
}

fn headers(bytes: &[u8]) -> Vec<(usize, BatchHeader)> {
    let mut position = 0;
    let mut all = Vec::new();
    for found in batches(bytes) {
        let (header, whole) = found.unwrap();
        all.push((position, header));
        position += whole.len();
    }
    all
}

#[test]
fn what_our_log_wrote_is_clean() {
    check_damage(Stop::Clean, |_| {}, &[]);
    check_damage(Stop::Crash, |_| {}, &[]);
    let report = run(&written(Stop::Clean));
    assert!(report.is_clean());
    assert_eq!(report.counts.partitions, 1);
    assert_eq!(report.counts.batches, 64);
    assert!(report.counts.segments > 5);
}

#[test]
fn a_flipped_bit_in_a_batch_is_found_and_the_rest_read_on() {
    let flip = |at: usize| move |f: &Fixture| edit(f, SEGMENT, |bytes| bytes[at] ^= 4);
    for stop in [Stop::Clean, Stop::Crash] {
        check_damage(stop, flip(80), &[(Kind::Batch, SEGMENT, "CRC is")]);
        check_damage(stop, flip(10), &[(Kind::Batch, SEGMENT, "cannot be used")]);
        check_damage(stop, flip(16), &[(Kind::Batch, SEGMENT, "magic 6")]);
    }
    let report = {
        let fixture = written(Stop::Clean);
        flip(80)(&fixture);
        run(&fixture)
    };
    let finding = report.findings.iter().next().unwrap();
    assert_eq!((finding.position, finding.offset), (Some(0), Some(Offset(0))));
    assert_eq!(report.counts.batches, 63);
}

#[test]
fn a_cut_tail_is_a_note_only_past_the_recovery_point() {
    let cut = |bytes: usize| {
        move |f: &Fixture| {
            let name = last(f, ".log");
            edit(f, &name, |file| file.truncate(file.len() - bytes));
            for suffix in [".index", ".timeindex"] {
                let name = last(f, suffix);
                edit(f, &name, Vec::clear);
            }
        }
    };
    check_damage(Stop::Crash, cut(10), &[(Kind::TornTail, ".log", "a batch is cut")].map(tail));
    let zeros = |f: &Fixture| {
        let name = last(f, ".log");
        edit(f, &name, |file| file.extend([0; 300]));
    };
    check_damage(Stop::Crash, zeros, &[(Kind::TornTail, ".log", "magic 0")].map(tail));
    check_damage(Stop::Clean, cut(10), &[(Kind::Batch, ".log", "a batch is cut")].map(tail));
    let first = |f: &Fixture| edit(f, SEGMENT, |file| file.truncate(file.len() - 10));
    check_damage(Stop::Crash, first, &[(Kind::Batch, SEGMENT, "a batch is cut")]);
}

/// The name of the last segment is the same in every fixture.
fn tail<'a>((kind, suffix, text): (Kind, &'a str, &'a str)) -> (Kind, &'a str, &'a str) {
    let name = last(&written(Stop::Clean), suffix);
    (kind, Box::leak(name.into_boxed_str()), text)
}

#[test]
fn a_log_that_ends_before_its_checkpoints_is_found() {
    let without_last_batch = |f: &Fixture| {
        let name = last(f, ".log");
        edit(f, &name, |file| file.truncate(headers(file).last().unwrap().0));
        for suffix in [".index", ".timeindex", ".txnindex"] {
            fs::remove_file(f.path().join(last(f, suffix))).unwrap();
        }
        fs::write(f.path().join(last(f, ".log").replace(".log", ".index")), []).unwrap();
        fs::write(f.path().join(last(f, ".log").replace(".log", ".timeindex")), []).unwrap();
        fs::remove_file(f.path().join(last(f, ".snapshot"))).unwrap();
    };
    let fixture = written(Stop::Clean);
    without_last_batch(&fixture);
    let report = run(&fixture);
    let texts: Vec<_> = report.findings.iter().map(|finding| finding.what.as_str()).collect();
    for part in ["recovery point", "high watermark"] {
        assert!(texts.iter().any(|text| text.contains(part)), "{texts:?}");
    }
}

#[test]
fn offsets_that_go_back_and_segments_that_do_not_join_are_found() {
    let back = |f: &Fixture| {
        edit(f, SEGMENT, |bytes| {
            let at = headers(bytes)[1].0;
            set_base_offset(&mut bytes[at..], Offset(1));
        });
    };
    check_damage(Stop::Clean, back, &[(Kind::BatchOffset, SEGMENT, "offsets 1 to 2 follow 3")]);
    let second = |f: &Fixture, suffix: &str| {
        f.files().into_iter().filter(|name| name.ends_with(suffix)).nth(1).unwrap()
    };
    let without_second = |f: &Fixture| {
        for suffix in [".log", ".index", ".timeindex"] {
            fs::remove_file(f.path().join(second(f, suffix))).unwrap();
        }
    };
    let third = written(Stop::Clean);
    let third = third.files().into_iter().filter(|name| name.ends_with(".log")).nth(2).unwrap();
    check_damage(
        Stop::Clean,
        without_second,
        &[(Kind::OffsetGap, &third, "are missing before it")],
    );
    let without_log = |f: &Fixture| fs::remove_file(f.path().join(second(f, ".log"))).unwrap();
    let index = written(Stop::Clean);
    let index = index.files().into_iter().filter(|name| name.ends_with(".index")).nth(1).unwrap();
    check_damage(
        Stop::Clean,
        without_log,
        &[
            (Kind::OffsetGap, &third, "are missing before it"),
            (Kind::OrphanIndex, &index, "the .log file is missing"),
        ],
    );
}

#[test]
fn index_entries_that_lead_nowhere_are_found() {
    let entry = |name: &'static str, at: usize, by: u8| {
        move |f: &Fixture| edit(f, name, |bytes| bytes[at] = bytes[at].wrapping_add(by))
    };
    let check = |name: &'static str, at, by, expected| {
        check_damage(Stop::Clean, entry(name, at, by), expected);
    };
    check(INDEX, 7, 1, &[(Kind::OffsetIndex, INDEX, "where no batch begins")]);
    check(INDEX, 3, 253, &[(Kind::OffsetIndex, INDEX, "where the batch of offset")]);
    check(INDEX, 0, 128, &[(Kind::OffsetIndex, INDEX, "does not follow")]);
    check(TIME_INDEX, 7, 255, &[(Kind::TimeIndex, TIME_INDEX, "the largest so far is")]);
    let half = |name: &'static str| move |f: &Fixture| edit(f, name, |bytes| bytes.truncate(9));
    check_damage(Stop::Clean, half(INDEX), &[(Kind::OffsetIndex, INDEX, "no multiple")]);
    let empty = |f: &Fixture| edit(f, TIME_INDEX, Vec::clear);
    check_damage(Stop::Clean, empty, &[(Kind::TimeIndex, TIME_INDEX, "largest timestamp is")]);
    let past = |f: &Fixture| edit(f, INDEX, |bytes| bytes.extend([0, 0, 0, 99, 0, 0, 9, 9]));
    check_damage(Stop::Clean, past, &[(Kind::OffsetIndex, INDEX, "past the log's end")]);
    let gone = |f: &Fixture| fs::remove_file(f.path().join(INDEX)).unwrap();
    check_damage(Stop::Crash, gone, &[(Kind::IndexMissing, INDEX, "is missing")]);
    let ahead = |f: &Fixture| edit(f, INDEX, |bytes| bytes.resize(4000, 0));
    check_damage(Stop::Clean, ahead, &[(Kind::OffsetIndex, INDEX, "was not cut")]);
}

#[test]
fn an_active_index_that_is_allocated_ahead_is_sound() {
    let ahead = |f: &Fixture| {
        for suffix in [".index", ".timeindex"] {
            let name = last(f, suffix);
            edit(f, &name, |bytes| bytes.resize(1200, 0));
        }
    };
    check_damage(Stop::Crash, ahead, &[]);
}

#[test]
fn transaction_indexes_are_held_against_the_markers() {
    let fixture = written(Stop::Clean);
    let name = fixture.files().into_iter().find(|name| name.ends_with(".txnindex")).unwrap();
    let gone = |f: &Fixture| fs::remove_file(f.path().join(&name)).unwrap();
    let damaged = written(Stop::Clean);
    gone(&damaged);
    let report = run(&damaged);
    assert!(report.findings.problems() > 0);
    assert!(
        report.findings.iter().all(|f| f.kind == Kind::TransactionIndex && f.path.ends_with(&name))
    );
    let producer = |f: &Fixture| edit(f, &name, |bytes| bytes[9] = 77);
    check_damage(
        Stop::Clean,
        producer,
        &[
            (Kind::TransactionIndex, &name, "where it has no abort marker"),
            (Kind::TransactionIndex, &name, "aborts here, but no entry says so"),
        ],
    );
    let version = |f: &Fixture| edit(f, &name, |bytes| bytes[1] = 9);
    check_damage(
        Stop::Clean,
        version,
        &[
            (Kind::TransactionIndex, &name, "of another version"),
            (Kind::TransactionIndex, &name, "aborts here, but no entry says so"),
        ],
    );
}

#[test]
fn small_files_of_a_partition_are_read() {
    const EPOCHS: &str = "leader-epoch-checkpoint";
    let epochs =
        |text: &'static str| move |f: &Fixture| fs::write(f.path().join(EPOCHS), text).unwrap();
    check_damage(
        Stop::Clean,
        epochs("0\n1\nx y\n"),
        &[
            (Kind::LeaderEpochs, EPOCHS, "malformed line 3"),
            (Kind::LeaderEpochs, EPOCHS, "of epoch 0, which the file does not have"),
        ],
    );
    check_damage(
        Stop::Clean,
        epochs("0\n2\n0 0\n1 90\n"),
        &[(Kind::LeaderEpochs, EPOCHS, "of epoch 0, which the file does not have")],
    );
    check_damage(
        Stop::Crash,
        epochs("0\n2\n1 0\n0 90\n"),
        &[(Kind::LeaderEpochs, EPOCHS, "does not follow")],
    );
    let metadata = |f: &Fixture| fs::remove_file(f.path().join(PARTITION_METADATA)).unwrap();
    check_damage(
        Stop::Clean,
        metadata,
        &[(Kind::PartitionMetadata, PARTITION_METADATA, "missing")],
    );
    let text = "version: 0\ntopic: what follows is no topic id\n";
    let metadata = |f: &Fixture| fs::write(f.path().join(PARTITION_METADATA), text).unwrap();
    check_damage(
        Stop::Clean,
        metadata,
        &[(Kind::PartitionMetadata, PARTITION_METADATA, "no topic id")],
    );
    let name = last(&written(Stop::Clean), ".snapshot");
    let crc = |f: &Fixture| edit(f, &name, |bytes| bytes[20] ^= 1);
    check_damage(Stop::Clean, crc, &[(Kind::ProducerSnapshot, &name, "CRC is")]);
    let version = |f: &Fixture| edit(f, &name, |bytes| bytes[1] = 3);
    check_damage(Stop::Clean, version, &[(Kind::ProducerSnapshot, &name, "version 3")]);
    let left = |f: &Fixture| {
        for name in ["00000000000000000003.log.deleted", "1.log.cleaned", "1.log.swap", "notes.txt"]
        {
            fs::write(f.path().join(name), "x").unwrap();
        }
    };
    check_damage(
        Stop::Clean,
        left,
        &[
            (Kind::LeftOver, "00000000000000000003.log.deleted", "under way"),
            (Kind::LeftOver, "1.log.cleaned", "under way"),
            (Kind::LeftOver, "1.log.swap", "under way"),
            (Kind::Unknown, "notes.txt", "no file of a partition"),
        ],
    );
}

#[test]
fn small_files_of_the_log_directory_are_read() {
    let write = |name: &'static str, text: &'static str| {
        move |f: &Fixture| fs::write(f.dir.path().join(name), text).unwrap()
    };
    let check = |name, text, expected| check_damage(Stop::Clean, write(name, text), expected);
    let text = "0\n1\nevents zero 12\n";
    check(RECOVERY_POINTS, text, &[(Kind::Checkpoint, RECOVERY_POINTS, "malformed line 3")]);
    let text = "0\n1\nother 0 12\n";
    check(HIGH_WATERMARKS, text, &[(Kind::CheckpointStale, HIGH_WATERMARKS, "other-0")]);
    let text = "0\n1\nevents 0 4000\n";
    check(HIGH_WATERMARKS, text, &[(Kind::CheckpointOffset, "events-0", "high watermark 4000")]);
    let text = "version=1\nnode.id=x\n";
    check(
        META_PROPERTIES,
        text,
        &[(Kind::MetaProperties, META_PROPERTIES, "node.id has the value")],
    );
    let text = "version=1\nnode.id=1\n";
    check(META_PROPERTIES, text, &[(Kind::MetaProperties, META_PROPERTIES, "no cluster.id")]);
    let gone = |f: &Fixture| fs::remove_file(f.dir.path().join(META_PROPERTIES)).unwrap();
    check_damage(Stop::Clean, gone, &[(Kind::MetaProperties, META_PROPERTIES, "missing")]);
    let deleted = "old-1.0123456789abcdef0123456789abcdef-delete";
    let dirs = |f: &Fixture| {
        fs::create_dir(f.dir.path().join(deleted)).unwrap();
        fs::create_dir(f.dir.path().join("pictures")).unwrap();
    };
    check_damage(
        Stop::Clean,
        dirs,
        &[(Kind::LeftOver, deleted, "was deleted"), (Kind::Unknown, "pictures", "is no partition")],
    );
    let not_clean = |f: &Fixture| fs::remove_file(f.dir.path().join(CLEAN_SHUTDOWN)).unwrap();
    check_damage(Stop::Clean, not_clean, &[]);
}

#[test]
fn directories_of_one_broker_belong_together() {
    let (one, two) = (written(Stop::Clean), written(Stop::Clean));
    let other = TopicId::from_u128(8);
    checkpoint::write_partition_metadata(&RealDisk, &two.path(), other).unwrap();
    let dirs = [one.dir.path().to_owned(), two.dir.path().to_owned()];
    let report = check(&RealDisk, &dirs, &mut |_| {}).unwrap();
    let kinds: Vec<Kind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Kind::MetaProperties, Kind::PartitionMetadata]);
}

#[test]
fn what_is_no_log_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: PathBuf| check(&RealDisk, &[path], &mut |_| {}).unwrap_err();
    assert!(matches!(refused(dir.path().to_owned()), CheckError::NoLogDirectory { .. }));
    assert!(matches!(refused(dir.path().join("none")), CheckError::Unreadable { .. }));
}

/// A log directory with one partition that Apache Kafka wrote.
fn kafka(partition: &str, files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(META_PROPERTIES), "version=1\ncluster.id=c\nnode.id=1\n").unwrap();
    let path = dir.path().join(partition);
    fs::create_dir(&path).unwrap();
    let id = TopicId::from_u128(1);
    checkpoint::write_partition_metadata(&RealDisk, &path, id).unwrap();
    for (name, bytes) in files {
        fs::write(path.join(name), bytes).unwrap();
    }
    dir
}

#[test]
fn what_kafka_wrote_is_clean_and_its_metadata_log_is_decoded() {
    const METADATA: &[u8] =
        include_bytes!("../../../protocol/testdata/records/cluster-metadata.log");
    const SNAPSHOT: &[u8] =
        include_bytes!("../../../protocol/testdata/records/cluster-metadata.checkpoint");
    const CODECS: &[u8] = include_bytes!("../../../protocol/testdata/records/codecs.log");
    let base = format!("{:020}.log", headers(CODECS)[0].1.base_offset.0);
    let metadata_base = format!("{:020}.log", headers(METADATA)[0].1.base_offset.0);
    let snapshot = "00000000000000000010-0000000001.checkpoint";
    let state: &[u8] = br#"{"leaderId":1,"leaderEpoch":3,"data_version":1}"#;
    let problems = |dir: &tempfile::TempDir| {
        let report = check(&RealDisk, &[dir.path().to_owned()], &mut |_| {}).unwrap();
        let found: Vec<_> = report
            .findings
            .iter()
            .filter(|finding| finding.kind.severity() == Severity::Problem)
            .map(|finding| (finding.kind, finding.what.clone()))
            .collect();
        found
    };
    assert_eq!(problems(&kafka("codecs-0", &[(&base, CODECS)])), []);
    let files = [(&metadata_base[..], METADATA), (snapshot, SNAPSHOT), ("quorum-state", state)];
    assert_eq!(problems(&kafka("__cluster_metadata-0", &files)), []);

    let mut record = METADATA.to_vec();
    let (at, header) = headers(METADATA).into_iter().find(|(_, h)| !h.is_control()).unwrap();
    // The frame version of the batch's first record, behind its length, attributes, deltas and empty key.
    let whole = &mut record[at..at + header.size()];
    let frame = whole[61..].iter().position(|byte| *byte == 1).unwrap();
    whole[61 + frame + 1] = 127;
    ottla_protocol::batch::set_crc(whole);
    let mut cut = SNAPSHOT.to_vec();
    cut.truncate(headers(SNAPSHOT).last().unwrap().0);
    let files = [(&metadata_base[..], &record[..]), (snapshot, &cut), ("quorum-state", b"{}")];
    let found = problems(&kafka("__cluster_metadata-0", &files));
    let kinds: Vec<Kind> = found.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::Metadata, Kind::QuorumState, Kind::Metadata], "{found:?}");
}

#[test]
fn no_damage_panics() {
    for seed in 0..24u32 {
        let fixture = written(if seed % 2 == 0 { Stop::Clean } else { Stop::Crash });
        let files = fixture.files();
        let mut state = seed.wrapping_mul(0x9E37_79B9).wrapping_add(1);
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize % below.max(1)
        };
        for _ in 0..8 {
            let name = &files[random(files.len())];
            edit(&fixture, name, |bytes| {
                let at = random(bytes.len());
                match random(3) {
                    0 => bytes.truncate(at),
                    1 => bytes.extend(vec![random(256) as u8; random(100)]),
                    _ if bytes.is_empty() => {}
                    _ => bytes[at] = random(256) as u8,
                }
            });
        }
        run(&fixture);
    }
}
