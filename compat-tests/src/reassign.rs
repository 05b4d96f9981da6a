//! `kafka-reassign-partitions` moves partitions between two log directories while a load writes them.
//!
//! The command lines and what Apache Kafka prints for them are the transcript `tools/live/reassign.txt`; in the end no
//! record of the load is lost, doubled or out of order.

use std::time::{Duration, Instant};

use crate::broker::{Broker, Side};
use crate::disk::{LIMIT, Tools};
use crate::load::{Load, PARTITIONS};
use crate::paths::Paths;
use crate::report::Report;
use crate::tools::{self, Mode};
use crate::{clients, failing};

/// Bytes of a record beside its number: enough for moves to take their time.
const PADDING: usize = 500;
/// Records before the first move.
const RECORDS: usize = 6000;

/// Plays the transcript on one side.
///
/// # Errors
/// If something else than the transcript fails; differences go to the report.
pub fn run(paths: &Paths, side: Side, mode: Mode, report: &Report) -> Result<(), String> {
    let begin = Instant::now();
    let dirs = "log.dirs=DIR/log,DIR/log2";
    let broker = Broker::start(paths, side, &[dirs])?;
    let mut load = Load::start(&clients::librdkafka()?, &broker, "moved", PADDING)?;
    load.wait_for_more(RECORDS, LIMIT)?;
    let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
    let first = broker.log_dir().to_string_lossy().into_owned();
    let places = [("moved", PARTITIONS, first.as_str())];
    let mut runner = Tools::start(paths, &broker)?;
    failing::place(&mut runner, scratch.path(), &places)?;
    let broker = tools::play_live(paths, "reassign", runner.into_runner(), broker, mode, report)?;
    load.wait_until_committed(LIMIT)?;
    load.wait_for_more(PARTITIONS, Duration::from_secs(5))?;
    let count = load.finish(&broker)?;
    let title = format!("reassign [{side}]");
    println!("{title}: {count} records");
    report.passed(&title, begin.elapsed());
    Ok(())
}
