//! Many seeds, each in a process of its own, as many at a time as there are processors.

use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Failures that are told in full.
const TOLD_MAX: u64 = 20;

/// Runs the seeds; a failed one is told with the command that does it again.
pub(crate) fn run(first: u64, count: u64, jobs: Option<usize>) -> ExitCode {
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let begun = Instant::now();
    let (next, failed) = (AtomicU64::new(first), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(count) {
                        return;
                    }
                    if let Err(cause) = one(seed)
                        && failed.fetch_add(1, Ordering::Relaxed) < TOLD_MAX
                    {
                        println!("scripts/sim --seed {seed} --trace  # {cause}");
                    }
                }
            });
        }
    });
    let (seconds, failed) = (begun.elapsed().as_secs_f64(), failed.into_inner());
    let rate = count as f64 / seconds;
    println!(
        "{count} seeds, {failed} failed, {seconds:.1} s, {rate:.1} seeds/s on {jobs} processors"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The last line of a seed's process, as an error where the seed failed.
fn one(seed: u64) -> Result<String, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(own);
    command.args(["--seed", &seed.to_string()]).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&output.stdout);
    let last = told.lines().last().unwrap_or_default().to_owned();
    match output.status.success() {
        true => Ok(last),
        false if last.is_empty() => Err(format!("seed {seed}: {}", output.status)),
        false => Err(last),
    }
}
