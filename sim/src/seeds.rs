//! Many seeds, each in a process of its own, several at a time.

use parking_lot::Mutex;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Failures that are told in full.
const TOLD_MAX: u64 = 20;
/// Ticks of a processor, 100 a second, after which a seed goes round without end: simulated time stands still while any
/// task is ready.
const TICKS_MAX: u64 = 6000;
/// A seed that waits, for whatever it may be, is given up after so long.
const PATIENCE: Duration = Duration::from_secs(900);
/// Between two looks at a seed's process.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs the seeds; a failed one is told with the command that does it again.
pub(crate) fn run(first: u64, count: u64, jobs: usize) -> ExitCode {
    let begun = Instant::now();
    let failed = AtomicU64::new(0);
    each(first, count, jobs, |seed| {
        if let Err(cause) = one(seed, &[])
            && failed.fetch_add(1, Ordering::Relaxed) < TOLD_MAX
        {
            println!("scripts/sim --seed {seed} --trace  # {cause}");
        }
        true
    });
    let (seconds, failed) = (begun.elapsed().as_secs_f64(), failed.into_inner());
    let rate = count as f64 / seconds;
    println!("{count} seeds, {failed} failed, {seconds:.1} s, {rate:.1} seeds/s, {jobs} at a time");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first seed, of those from 1 to `count`, that fails with these arguments, and why.
pub(crate) fn first_failure(arguments: &[&str], count: u64, jobs: usize) -> Option<(u64, String)> {
    let found = Mutex::new(None);
    each(1, count, jobs, |seed| {
        if let Err(cause) = one(seed, arguments) {
            found.lock().get_or_insert((seed, cause));
        }
        found.lock().is_none()
    });
    found.into_inner()
}

/// Hands each seed to `work`, on several threads, as long as it answers true.
fn each(first: u64, count: u64, jobs: usize, work: impl Fn(u64) -> bool + Sync) {
    let (next, goes_on) = (AtomicU64::new(first), AtomicBool::new(true));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while goes_on.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(count) {
                        return;
                    }
                    if !work(seed) {
                        goes_on.store(false, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// The ticks of a processor that a process has had, as proc(5) tells; 0 for one that is gone.
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let times = after_name.split_whitespace().skip(11).take(2);
    times.filter_map(|time| time.parse::<u64>().ok()).sum()
}

/// The last line of a seed's process, as an error where the seed failed.
fn one(seed: u64, arguments: &[&str]) -> Result<String, String> {
    let failed = |error: std::io::Error| error.to_string();
    let own = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(own);
    command.args(["--seed", &seed.to_string()]).args(arguments);
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = piped.spawn().map_err(failed)?;
    let begun = Instant::now();
    // What it prints is one line, for which a pipe has room.
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if begun.elapsed() < PATIENCE && ticks(child.id()) < TICKS_MAX => {
                thread::sleep(PAUSE);
            }
            None => {
                child.kill().map_err(failed)?;
                child.wait().map_err(failed)?;
                return Err(format!("seed {seed} does not end"));
            }
        }
    };
    let output = child.wait_with_output().map_err(failed)?;
    let told = String::from_utf8_lossy(&output.stdout);
    let last = told.lines().last().unwrap_or_default().to_owned();
    match status.success() {
        true => Ok(last),
        false if last.is_empty() => Err(format!("seed {seed}: {status}")),
        false => Err(last),
    }
}
