//! Rounds of `kill -9` under load: nothing acknowledged is lost, doubled or out of order.
//!
//! The broker is killed and started again while a [load](crate::load) runs.
//!
//! `COMPAT_ROUNDS` is the number of rounds for each client.

use std::time::{Duration, Instant};

use crate::broker::{Broker, Side};
use crate::clients;
use crate::load::Load;
use crate::paths::Paths;
use crate::report::Report;

const ROUNDS_DEFAULT: u32 = 3;
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
        ("java", clients::java_client(paths, "4.3.1", "Load")?),
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
    let load = Load::start(command, &broker, topic, 0)?;
    let mut restarts = Vec::new();
    std::thread::sleep(Duration::from_secs(2));
    for round in 0..rounds {
        let pause = LOAD_MS[round as usize % LOAD_MS.len()];
        std::thread::sleep(Duration::from_millis(pause));
        broker.kill();
        restarts.push(broker.launch()?.as_millis());
    }
    std::thread::sleep(Duration::from_secs(1));
    let count = load.finish(&broker)?;
    Ok(format!("{count} records, {rounds} kills, listening again after {restarts:?} ms"))
}
