//! A model of the log: a list of batches. Random histories of appends, rolls, flushes, reads, truncations, clean and
//! unclean restarts and cuts at any byte of the last segment must leave the log as the model says.

use super::directory::{LOG_SUFFIX, file_name};
use super::tests::{Fixture, NOW, append, batch, client, idempotent, read_all};
use super::*;
use crate::env::{OpenMode, RealDisk};
use ottla_protocol::batch::BatchHeader;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append {
        count: usize,
        is_idempotent: bool,
    },
    Roll,
    Flush,
    Truncate {
        at: prop::sample::Index,
    },
    DeleteRecords {
        at: prop::sample::Index,
    },
    Retention,
    Reopen {
        is_clean: bool,
    },
    /// A crash that leaves the last segment's file with only some bytes past the recovery point.
    Crash {
        cut: prop::sample::Index,
        garbage: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1usize..6, any::<bool>())
            .prop_map(|(count, is_idempotent)| Step::Append { count, is_idempotent }),
        1 => Just(Step::Roll),
        2 => Just(Step::Flush),
        1 => any::<prop::sample::Index>().prop_map(|at| Step::Truncate { at }),
        1 => any::<prop::sample::Index>().prop_map(|at| Step::DeleteRecords { at }),
        1 => Just(Step::Retention),
        1 => any::<bool>().prop_map(|is_clean| Step::Reopen { is_clean }),
        2 => (any::<prop::sample::Index>(), any::<u8>())
            .prop_map(|(cut, garbage)| Step::Crash { cut, garbage }),
    ]
}

/// First and last offset, and the sequence for the one producer there is.
#[derive(Debug, Clone, Copy)]
struct ModelBatch {
    first: i64,
    last: i64,
    sequence: Option<i32>,
}

struct World {
    fixture: Fixture,
    log: Log,
    batches: Vec<ModelBatch>,
    log_start: i64,
}

impl World {
    fn new() -> Self {
        let fixture = Fixture::new();
        let log = fixture.open();
        World { fixture, log, batches: Vec::new(), log_start: 0 }
    }

    fn end(&self) -> i64 {
        self.batches.last().map_or(self.log_start, |batch| batch.last + 1).max(self.log_start)
    }

    fn next_sequence(&self) -> i32 {
        let last = self.batches.iter().rev().find(|batch| batch.sequence.is_some());
        last.map_or(0, |batch| batch.sequence.unwrap() + (batch.last - batch.first + 1) as i32)
    }

    fn reopen(&mut self, clean_shutdown: bool) {
        let params = LogParams {
            log_start_offset: self.log.log_start_offset(),
            recovery_point: self.log.recovery_point(),
            clean_shutdown,
            ..self.fixture.params()
        };
        if clean_shutdown {
            self.log.close(NOW).unwrap();
        }
        self.log = Log::open(params).unwrap();
    }

    fn append(&mut self, count: usize, is_idempotent: bool) {
        let sequence = is_idempotent.then(|| self.next_sequence());
        let records = match sequence {
            Some(sequence) => idempotent(9, 0, sequence, count),
            None => batch(count, NOW.0),
        };
        let info = append(&mut self.log, records.clone()).unwrap();
        assert_eq!(info.first_offset.0, self.end());
        let batch = ModelBatch { first: info.first_offset.0, last: info.last_offset.0, sequence };
        self.batches.push(batch);
        if is_idempotent {
            let again = self.log.append_as_leader(records, client()).unwrap();
            assert!(again.is_duplicate);
            assert_eq!(again.first_offset.0, batch.first);
        }
    }

    /// What the disk keeps of a crash: everything below the recovery point, and `cut` bytes of the rest.
    fn crash(&mut self, cut: prop::sample::Index, garbage: u8) {
        let last = self.log.segments.last().unwrap();
        let name = file_name(last.base_offset.0, LOG_SUFFIX);
        let (base, size) = (last.base_offset.0, u64::from(last.size));
        if size == 0 {
            return self.reopen(false);
        }
        let recovery_point = self.log.recovery_point().max(Offset(base));
        let safe = last.find(&self.log.directory, recovery_point).unwrap();
        let safe = safe.map_or(size, |batch| u64::from(batch.position));
        let keep = safe + cut.index((size - safe) as usize + 1) as u64;
        let tail = match garbage % 3 {
            0 => Vec::new(),
            1 => vec![0; usize::from(garbage)],
            _ => vec![garbage; usize::from(garbage)],
        };
        let file = RealDisk.open(&self.fixture.path().join(name), OpenMode::ReadWrite).unwrap();
        file.set_len(keep).unwrap();
        file.write_all_at(&[std::io::IoSlice::new(&tail)], keep).unwrap();
        let mut bytes = vec![0; keep as usize + tail.len()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        // The tail may complete the batch that was cut: many end with a zero.
        let mut end = base;
        for (header, batch) in ottla_protocol::batch::batches(&bytes).map_while(Result::ok) {
            if ottla_protocol::batch::check_crc(&header, batch).is_err() {
                break;
            }
            end = header.next_offset().0;
        }
        if end < self.log_start {
            // Everything that DeleteRecords left is gone: the log goes on where it was told to start.
            self.batches.clear();
        }
        self.batches.retain(|batch| batch.first < end);
        self.reopen(false);
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append { count, is_idempotent } => self.append(*count, *is_idempotent),
            Step::Roll => {
                let end = self.log.log_end_offset();
                self.log.roll(end, NOW).unwrap();
            }
            Step::Flush => self.log.flush(NOW).unwrap(),
            Step::Truncate { at } => {
                let offset =
                    self.log_start + at.index((self.end() - self.log_start) as usize + 1) as i64;
                self.log.truncate_to(Offset(offset), NOW).unwrap();
                self.batches.retain(|batch| batch.last < offset);
                self.log_start = self.log_start.min(self.log.log_end_offset().0);
            }
            Step::DeleteRecords { at } => {
                let offset =
                    self.log_start + at.index((self.end() - self.log_start) as usize + 1) as i64;
                let end = self.log.log_end_offset();
                self.log.set_log_start_offset(Offset(offset), end).unwrap();
                self.log_start = self.log_start.max(offset);
            }
            Step::Retention => {
                let end = self.log.log_end_offset();
                for deleted in self.log.apply_retention(NOW, end).unwrap() {
                    deleted.remove().unwrap();
                }
            }
            Step::Reopen { is_clean } => self.reopen(*is_clean),
            Step::Crash { cut, garbage } => self.crash(*cut, *garbage),
        }
    }

    fn check(&self) {
        assert_eq!(self.log.log_start_offset().0, self.log_start);
        assert_eq!(self.log.log_end_offset().0, self.end());
        let visible = self.batches.iter().filter(|batch| batch.last >= self.log_start);
        let expected: Vec<(i64, i64)> = visible.map(|batch| (batch.first, batch.last)).collect();
        let read: Vec<BatchHeader> = read_all(&self.log, Offset(self.log_start));
        let read: Vec<(i64, i64)> =
            read.iter().map(|h| (h.base_offset.0, h.last_offset().0)).collect();
        assert_eq!(read, expected);
        for (first, last) in expected {
            let offset = Offset(last.max(self.log_start));
            let slice = self.log.read(offset, 1, MinOne::Yes, self.log.log_end_offset());
            assert_eq!(slice.unwrap().unwrap().base_offset, Offset(first));
        }
    }
}

fn run(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        world.run(step);
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn log_is_as_its_model(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps);
    }
}
