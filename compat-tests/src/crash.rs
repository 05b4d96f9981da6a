//! Rounds of `kill -9` under load: nothing acknowledged is lost, doubled or out of order.
//!
//! A program of `clients.rs` produces numbers to every partition with idempotence and prints what
//! was acknowledged; a group in the same program commits and checks that its committed offsets
//! never go back. Meanwhile the broker is killed and started again. In the end each partition must
//! hold exactly the numbers from 0 on, once each and in order, and all that was acknowledged.
//!
//! `COMPAT_ROUNDS` is the number of rounds for each client.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::{Broker, Side};
use crate::clients;
use crate::java::checked;
use crate::paths::Paths;
use crate::report::Report;

const ROUNDS_DEFAULT: u32 = 3;
const PARTITIONS: usize = 3;
/// How long the load runs before each kill; varied, so that kills meet different moments.
const LOAD_MS: [u64; 5] = [700, 1100, 400, 900, 1500];

/// Runs the loads of librdkafka and of the Java client.
///
/// # Errors
/// If a broker does not start.
pub fn run(paths: &Paths, side: Side, filter: &str, report: &Report) -> Result<(), String> {
    let rounds = std::env::var("COMPAT_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds = rounds.unwrap_or(ROUNDS_DEFAULT);
    let loads = [
        ("librdkafka", clients::librdkafka()?),
        ("java", clients::java_client(paths, "4.3.1", "CrashLoad")?),
    ];
    for (name, command) in loads.iter().filter(|(name, _)| name.contains(filter)) {
        let title = format!("crash/{name} [{side}]");
        let begin = Instant::now();
        match scenario(paths, side, command, name, rounds) {
            Ok(text) => {
                println!("{title}: {text}");
                report.passed(&title, begin.elapsed());
            }
            Err(e) => report.failed(&title, &e),
        }
    }
    Ok(())
}

fn scenario(
    paths: &Paths,
    side: Side,
    command: &[String],
    topic: &str,
    rounds: u32,
) -> Result<String, String> {
    let mut broker = Broker::start(paths, side, &[])?;
    let partitions = PARTITIONS.to_string();
    let (program, first) = command.split_first().ok_or("no program")?;
    let mut load = Command::new(program);
    load.args(first).args(["load", &broker.address(), topic, &partitions]);
    load.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut load = load.spawn().map_err(|e| format!("{program}: {e}"))?;
    let stdin = load.stdin.take();
    // The pipes are read while it runs: it must not wait for a reader.
    let output = std::thread::spawn(move || load.wait_with_output());
    let mut restarts = Vec::new();
    std::thread::sleep(Duration::from_secs(2));
    for round in 0..rounds {
        let pause = LOAD_MS[round as usize % LOAD_MS.len()];
        std::thread::sleep(Duration::from_millis(pause));
        broker.kill();
        restarts.push(broker.launch()?.as_millis());
    }
    std::thread::sleep(Duration::from_secs(1));
    drop(stdin);
    let output = output.join().map_err(|_| "a panic")?.map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let err = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the load failed: {err}"));
    }
    let acknowledged = numbers(&text, "a ")?;
    let reader = clients::librdkafka()?;
    let mut read = Command::new(&reader[0]);
    read.args(["read", &broker.address(), topic, &partitions]).stdin(Stdio::null());
    let stored = numbers(&checked(&mut read, "reader")?, "r ")?;
    let count = judge(&acknowledged, &stored)?;
    Ok(format!("{count} records, {rounds} kills, listening again after {restarts:?} ms"))
}

/// The lines that begin with `sign`, by partition.
fn numbers(text: &str, sign: &str) -> Result<BTreeMap<usize, Vec<u64>>, String> {
    let mut numbers: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(sign)) {
        let parsed = line.split_once(' ').and_then(|(partition, number)| {
            Some((partition.parse().ok()?, number.parse::<u64>().ok()?))
        });
        let (partition, number) = parsed.ok_or_else(|| format!("a strange line: {line}"))?;
        numbers.entry(partition).or_default().push(number);
    }
    Ok(numbers)
}

/// Compares what was acknowledged with what is stored; answers the number of records.
fn judge(
    acknowledged: &BTreeMap<usize, Vec<u64>>,
    stored: &BTreeMap<usize, Vec<u64>>,
) -> Result<usize, String> {
    let mut count = 0;
    for partition in 0..PARTITIONS {
        let (none, empty) = (Vec::new(), Vec::new());
        let acknowledged = acknowledged.get(&partition).unwrap_or(&none);
        let stored = stored.get(&partition).unwrap_or(&empty);
        for pair in stored.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if after <= before {
                let what = if after == before { "duplicate" } else { "out of order" };
                return Err(format!("partition {partition}: {after} after {before}: {what}"));
            }
        }
        let lost = acknowledged.iter().find(|number| stored.binary_search(number).is_err());
        if let Some(lost) = lost {
            return Err(format!("partition {partition}: acknowledged {lost} is lost"));
        }
        if acknowledged.is_empty() {
            return Err(format!("partition {partition}: nothing was acknowledged"));
        }
        count += stored.len();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(acknowledged: &[u64], stored: &[u64], expected: Result<usize, &str>) {
        let all = |numbers: &[u64]| (0..PARTITIONS).map(|p| (p, numbers.to_vec())).collect();
        let judged = judge(&all(acknowledged), &all(stored));
        match expected {
            Ok(count) => assert_eq!(judged, Ok(count)),
            Err(part) => assert!(judged.is_err_and(|e| e.contains(part))),
        }
    }

    #[test]
    fn lost_duplicate_and_disordered_records_are_found() {
        check(&[0, 1], &[0, 1, 2], Ok(9));
        check(&[0, 2], &[0, 1], Err("lost"));
        check(&[0], &[0, 0], Err("duplicate"));
        check(&[0], &[1, 0], Err("out of order"));
        check(&[], &[], Err("nothing"));
    }
}
