//! Whether each checker sees a rule that is broken on purpose.

use crate::mutation::PROOFS;
use crate::seeds;
use clap::ValueEnum;
use std::process::ExitCode;

/// Seeds in which a checker must see its mutation.
const SEEDS_MAX: u64 = 200;

/// The word for a value on the command line.
fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Runs seeds with each mutation until its checker sees it.
pub(crate) fn run(jobs: usize) -> ExitCode {
    let mut missed = 0;
    for (checker, mutation) in PROOFS {
        let (checker, mutation) = (word(checker), word(mutation));
        let arguments = ["--only", &checker, "--mutation", &mutation];
        match seeds::first_failure(&arguments, SEEDS_MAX, jobs) {
            Some((seed, cause)) => {
                let cause: String = cause.chars().take(200).collect();
                println!("{checker} sees {mutation} with seed {seed}: {cause}");
            }
            None => {
                missed += 1;
                println!("{checker} does NOT see {mutation} in {SEEDS_MAX} seeds");
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
