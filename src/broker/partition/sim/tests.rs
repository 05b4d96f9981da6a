//! Many seeds without a violation, and each look proven by a rule that is broken.

use super::*;

const STEPS: usize = 400;

fn run(seed: u64, mutation: Mutation) -> Check {
    World::new(seed, mutation).run(STEPS)
}

fn seeds() -> u64 {
    std::env::var("OTTLA_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

#[test]
fn replicas_keep_what_was_acknowledged_and_agree() {
    let mut acknowledged = 0;
    for seed in 0..seeds() {
        let mut world = World::new(seed, Mutation::None);
        if let Err(violation) = world.run(STEPS) {
            panic!("seed {seed}: {violation}\n{}", world.trace.join("\n"));
        }
        acknowledged += world.acknowledged.len();
    }
    assert!(acknowledged as u64 > 5 * seeds(), "{acknowledged} records were acknowledged");
}

/// The violation that a broken rule leads to within a few seeds.
fn violation(mutation: Mutation) -> String {
    let found = (0..200).find_map(|seed| run(seed, mutation).err());
    found.expect("a violation")
}

#[test]
fn an_election_outside_the_isr_is_seen_to_lose_acknowledged_records() {
    let found = violation(Mutation::ElectsAnyReplica);
    assert!(found.contains("without acknowledged") || found.contains("differ"), "{found}");
}

#[test]
fn logs_that_differ_below_the_high_watermark_are_seen() {
    let found = violation(Mutation::HidesEpochs);
    assert!(found.contains("differ") || found.contains("without acknowledged"), "{found}");
}

#[test]
fn a_high_watermark_that_goes_back_is_seen() {
    let found = violation(Mutation::KeepsEpochOfRestart);
    assert!(found.contains("high watermark"), "{found}");
}

#[test]
fn two_leaders_in_one_epoch_are_seen() {
    let found = violation(Mutation::KeepsEpochOfElection);
    assert!(found.contains("lead in epoch"), "{found}");
}

/// A replica that lost whole segments at their beginning said that it had them; one that had led and never written
/// could not begin its log elsewhere. An old answer cut what the leader counted on by then, the log having grown to the
/// same end again.
#[test]
fn seeds_that_failed_once_hold() {
    for seed in [71, 4219, 12423] {
        assert_eq!(run(seed, Mutation::None), Ok(()), "seed {seed}");
    }
}
