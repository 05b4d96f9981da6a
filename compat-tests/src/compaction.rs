//! What consumers see of compacted topics: each key's last value, and after the delete horizon no deleted key.
//!
//! librdkafka fills a topic of each codec with values and tombstones, reads all of them again and again while the
//! cleaner works, and ends when every key that is left has one record and no deleted key has any.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::broker::{Broker, Side};
use crate::clients;
use crate::java::checked;
use crate::paths::Paths;
use crate::report::Report;

/// Records of each codec.
const RECORDS: &str = "50000";

/// Runs the scenario on one side.
///
/// # Errors
/// If the broker or the program does not start.
pub fn run(paths: &Paths, side: Side, report: &Report) -> Result<(), String> {
    let broker = Broker::start(paths, side, &["log.cleaner.backoff.ms=200"])?;
    let title = format!("compaction [{side}]");
    let begin = Instant::now();
    let program = clients::librdkafka()?;
    let mut command = Command::new(&program[0]);
    command.args(["compact", &broker.address(), RECORDS]).stdin(Stdio::null());
    match checked(&mut command, "librdkafka") {
        Ok(text) => {
            println!("{title}: {}", text.trim_end());
            report.passed(&title, begin.elapsed());
        }
        Err(e) => report.failed(&title, &e),
    }
    Ok(())
}
