//! The seeds, a history cut at every operation, and for every rule a case that breaks it.

use super::checks::{CHECKS, Seen, check_all, idempotent, same};
use super::model::{Model, Opened};
use super::world::{NOW, World, run};
use crate::env::sim_disk::Crash;
use crate::log::ActiveProducer;
use ottla_protocol::{Offset, Timestamp};
use std::path::PathBuf;

/// Steps of a history.
const STEPS: usize = 80;
/// Seeds of an ordinary test run.
const SEEDS: u64 = 400;

fn seeds_wanted() -> (u64, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let from = number("OTTLA_CRASH_FROM").unwrap_or(0);
    match number("OTTLA_CRASH_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (from, from + number("OTTLA_CRASH_SEEDS").unwrap_or(SEEDS)),
    }
}

#[test]
fn a_crash_at_any_moment_leaves_a_log_that_keeps_the_rules() {
    let (from, to) = seeds_wanted();
    let mut broken = Vec::new();
    for seed in from..to {
        if let Err((rule, history)) = run(World::new(seed), STEPS) {
            if to - from == 1 {
                println!("{}", history.join("\n"));
            }
            broken.push(format!("seed {seed}: {rule}"));
        }
    }
    assert!(broken.is_empty(), "{} broken:\n{}", broken.len(), broken.join("\n"));
}

/// Beyond the seeds of an ordinary run.
#[test]
fn seeds_that_were_broken_keep_the_rules() {
    // A snapshot says that a transaction is open whose batches and marker the cleaner has taken since.
    // The same, of one whose batches lie below the log start offset: the next batch begins it anew.
    // The cleaner took a producer's batch for a later one, which was lost; a snapshot knows of the first.
    // An epoch is that of batches below the log start offset only.
    // What a truncation had cut came back while recovery made the indexes anew.
    // Records below a log start offset that was not checkpointed yet went with a cut (the rule's own fault).
    for seed in [23664, 6127, 6436, 10654, 27130, 12501, 23787, 25704, 1306] {
        run(World::new(seed), STEPS).unwrap_or_else(|(broken, _)| panic!("seed {seed}: {broken}"));
    }
}

/// Steps, with a crash after `operations` of the disk; `true` where the history was over before.
fn cut_after(seed: u64, operations: u64) -> bool {
    let mut world = World::new(seed);
    world.is_calm = true;
    world.disk.end_after(operations);
    let begun = world.disk.operations();
    let mut result = Ok(());
    for _ in 0..40 {
        result = result.and_then(|()| world.step());
    }
    let is_over = world.disk.operations() - begun < operations;
    let result = result.and_then(|()| world.crash(Opened::AfterPowerLoss));
    result.unwrap_or_else(|broken| panic!("seed {seed} cut after {operations}: {broken}"));
    is_over
}

#[test]
fn a_history_that_is_cut_at_any_operation_leaves_a_log_that_keeps_the_rules() {
    for seed in 0..6 {
        assert!((0..2000).any(|operations| cut_after(seed, operations)), "seed {seed} has no end");
    }
}

#[test]
fn a_bit_that_flips_where_nothing_was_synced_ends_the_log_there() {
    for bit in 0..600 {
        let mut world = World::new(3);
        for _ in 0..8 {
            world.append_next().unwrap();
        }
        let path = world.path().join("00000000000000000000.log");
        world.disk.flip_bit(&path, bit * 7);
        world.disk.crash(Crash::Kill);
        world.open().unwrap();
        let seen = world.see(Opened::AfterPowerLoss).unwrap();
        for name in ["sequence", "offset lookups", "time lookups", "strays"] {
            rule(name)(&world.model, &seen).unwrap();
        }
    }
}

/// Without these syncs the rules do not hold, and some seed says so.
#[test]
fn a_sync_that_is_left_out_is_found() {
    for left_out in [".log", ".index", ".timeindex", ".txnindex", "checkpoint.tmp", "/"] {
        let is_found = |seed: u64| {
            let world = World::new(seed);
            world.disk.ignore_syncs(left_out);
            run(world, STEPS).is_err()
        };
        assert!((0..2000).any(is_found), "syncs of {left_out} are of no use");
    }
}

fn rule(name: &str) -> fn(&Model, &Seen) -> Result<(), String> {
    CHECKS.iter().find(|(known, _)| *known == name).expect("a rule of that name").1
}

/// A log that has something of everything, and what is known of it.
fn sound() -> (Model, Seen) {
    for seed in 0..500 {
        let mut world = World::new(seed);
        world.is_calm = true;
        for _ in 0..STEPS {
            world.step().unwrap();
        }
        let (model, seen) = (world.model.clone(), world.see(Opened::WithPageCache).unwrap());
        let has_all = seen.segments.len() > 1
            && seen.segments.iter().all(|segment| segment.batches.len() > 1)
            && seen.epochs.len() > 2
            && seen.aborted.iter().any(|it| it.first_offset.0 >= seen.start)
            && seen.producers.len() > 2
            && seen.start > 0
            && seen.start == model.start
            && !model.was_cleaned();
        if has_all && check_all(&model, &seen).is_ok() {
            return (model, seen);
        }
    }
    panic!("no seed has something of everything");
}

#[track_caller]
fn check_breaks(name: &str, change: impl Fn(&mut Model, &mut Seen)) {
    let (mut model, mut seen) = sound();
    rule(name)(&model, &seen).unwrap();
    change(&mut model, &mut seen);
    rule(name)(&model, &seen).unwrap_err();
}

#[test]
fn batches_out_of_order_or_not_whole_are_found() {
    check_breaks("sequence", |_, seen| seen.segments[0].batches.swap(0, 1));
    check_breaks("sequence", |_, seen| seen.segments[1].cause = Some("cut".to_owned()));
    check_breaks("sequence", |_, seen| seen.segments[1].base_offset -= 1);
    check_breaks("sequence", |_, seen| seen.end -= 1);
}

#[test]
fn batches_that_were_not_appended_are_found() {
    check_breaks("subset", |model, _| drop(model.batches.pop()));
    check_breaks("subset", |_, seen| {
        let last = seen.batches.last_mut().unwrap();
        let mut bytes = last.bytes.to_vec();
        bytes[20] ^= 1;
        last.bytes = bytes.into();
    });
}

#[test]
fn batches_that_are_missing_are_found() {
    check_breaks("kept", |_, seen| drop(seen.batches.pop()));
    check_breaks("kept", |model, seen| {
        seen.opened = Opened::AfterPowerLoss;
        model.durable = model.end;
        seen.batches.pop();
    });
    let (mut model, mut seen) = sound();
    seen.opened = Opened::AfterPowerLoss;
    model.durable = 0;
    seen.batches.pop();
    rule("kept")(&model, &seen).expect("what was not synced may be missing");
    check_breaks("kept", |model, seen| {
        model.cleaned_to = model.end;
        let last = seen.batches.last_mut().unwrap();
        last.records.clear();
    });
}

#[test]
fn a_log_that_begins_or_ends_elsewhere_is_found() {
    check_breaks("bounds", |model, seen| model.start_min = seen.start + 1);
    check_breaks("bounds", |model, _| model.start_max -= 1);
    check_breaks("bounds", |_, seen| seen.end += 1);
    check_breaks("bounds", |_, seen| seen.end -= 1);
    check_breaks("bounds", |model, seen| {
        seen.opened = Opened::AfterPowerLoss;
        model.durable = seen.end + 1;
    });
}

#[test]
fn wrong_answers_to_lookups_are_found() {
    check_breaks("offset lookups", |_, seen| seen.reads[0].1 = None);
    check_breaks("offset lookups", |_, seen| seen.reads.last_mut().unwrap().1 = Some(seen.start));
    check_breaks("offset lookups", |_, seen| seen.bytes.truncate(seen.bytes.len() - 1));
    check_breaks("time lookups", |_, seen| seen.times[0].1 = None);
    check_breaks("time lookups", |_, seen| {
        seen.times.push((NOW.0 + 1_000_000, seen.times[0].1));
    });
    check_breaks("time lookups", |_, seen| seen.max_timestamp = None);
}

#[test]
fn epochs_that_are_not_those_of_the_batches_are_found() {
    check_breaks("epochs", |_, seen| seen.epochs.rotate_left(1));
    check_breaks("epochs", |_, seen| seen.epochs.truncate(1));
    check_breaks("epochs", |_, seen| seen.epochs[1].epoch.0 += 100);
    check_breaks("epochs", |_, seen| seen.epochs[1].start_offset.0 += 1);
    check_breaks("epochs", |_, seen| {
        let mut stale = *seen.epochs.last().unwrap();
        (stale.epoch.0, stale.start_offset) = (stale.epoch.0 + 1, Offset(seen.end + 1));
        seen.epochs.push(stale);
    });
}

#[test]
fn producers_that_are_not_those_of_the_batches_are_found() {
    check_breaks("producers", |_, seen| seen.producers.clear());
    check_breaks("producers", |_, seen| seen.producers[0].last_sequence += 1);
    check_breaks("producers", |_, seen| seen.producers[1].last_timestamp = Timestamp(1));
    check_breaks("producers", |_, seen| {
        seen.producers[2].current_txn_start_offset = Some(Offset(seen.end));
    });
    let open = |seen: &Seen| {
        let is_open = |it: &ActiveProducer| it.current_txn_start_offset.is_some();
        seen.producers.iter().position(is_open).unwrap()
    };
    for later_by in [None, Some(1), Some(2)] {
        check_breaks("producers", |_, seen| {
            let n = open(seen);
            let first = &mut seen.producers[n].current_txn_start_offset;
            *first = later_by.and_then(|by| first.map(|first| first.plus(by)));
        });
    }
}

#[test]
fn transactions_that_are_not_those_of_the_batches_are_found() {
    check_breaks("transactions", |_, seen| seen.aborted.clear());
    check_breaks("transactions", |_, seen| {
        let mut never = seen.aborted[0];
        never.last_offset = Offset(seen.end + 10);
        seen.aborted.push(never);
    });
    check_breaks("transactions", |_, seen| seen.last_stable_offset += 1);
}

#[test]
fn files_that_belong_to_nothing_are_found() {
    for name in ["00000000000000000007.log.deleted", "x", "99999999999999999999.index"] {
        check_breaks("strays", |_, seen| seen.names.push(name.to_owned()));
    }
    check_breaks("strays", |_, seen| {
        seen.names.extend([seen.end + 1, seen.end + 2].map(|at| format!("{at:020}.snapshot")));
    });
}

#[test]
fn a_start_that_changes_something_is_found() {
    let image = |bytes: &[u8]| [(PathBuf::from("/logs/x"), bytes.to_vec())].into();
    idempotent(&image(b"same"), &image(b"same")).unwrap();
    idempotent(&image(b"same"), &image(b"other")).unwrap_err();
    idempotent(&[].into(), &image(b"new")).unwrap_err();
    idempotent(&image(b"gone"), &[].into()).unwrap_err();
    let (_, seen) = sound();
    same(&seen, &seen).unwrap();
    same(&seen, &Seen { end: seen.end + 1, ..seen.clone() }).unwrap_err();
}

#[test]
fn a_log_that_takes_no_appends_is_found() {
    let mut world = World::new(1);
    world.append_next().unwrap();
    world.log().fail_flush();
    let broken = world.check(Opened::WithPageCache).unwrap_err();
    assert!(broken.starts_with("appends"), "{broken}");
}
