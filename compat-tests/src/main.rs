//! `compat`: stock clients and tools against the real binary, and the same against Apache Kafka.
//!
//! A scenario is written once and meets the Ottla binary and Apache Kafka in the same way: both are
//! processes started from the same `server.properties`. Deliberately not a `cargo test`: it needs a
//! JDK and Maven, takes minutes, and prints progress. `scripts/test` runs it.

mod apis;
mod broker;
mod clients;
mod clocks;
mod cluster;
mod commands;
mod compaction;
mod crash;
mod disk;
mod dump;
mod failing;
mod failover;
mod flume;
mod grow;
mod history;
mod java;
mod leaders;
mod load;
mod meeting;
mod members;
mod metadata;
mod mixed;
mod nemesis;
mod network;
mod normalise;
mod overlay;
mod paths;
mod reassign;
mod report;
mod strangers;
mod takeover;
mod tools;
mod torture;
mod transcript;
mod volume;
mod voters;
mod wire;
mod writer;
mod zookeeper;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::broker::Side;
use crate::paths::Paths;
use crate::report::Report;
use crate::tools::Mode;

/// Runs scenarios of stock Kafka clients and tools.
#[derive(Parser)]
struct Args {
    /// Suites to run, each with an optional filter: tools, tools:topics, tools-3.9.1, apis, clients, dump,
    /// flume, compaction, crash, disk, disk:full, disk:failing, reassign, takeover; of three brokers: cluster,
    /// failover, leaders, torture, grow-reassign
    #[arg(default_value = "tools")]
    suites: Vec<String>,
    /// The broker that scenarios meet.
    #[arg(long, value_enum, default_value_t = Sides::Both)]
    side: Sides,
    /// Write what Apache Kafka prints into the transcripts (as UPDATE_EXPECT=1).
    #[arg(long)]
    update: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sides {
    Ottla,
    Kafka,
    Both,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let is_update = args.update || std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1");
    let sides: &[Side] = match (is_update, args.side) {
        (true, _) | (_, Sides::Kafka) => &[Side::Kafka],
        (_, Sides::Ottla) => &[Side::Ottla],
        (_, Sides::Both) => &[Side::Ottla, Side::Kafka],
    };
    let mode = if is_update { Mode::Update } else { Mode::Check };
    let report = Report::default();
    let paths = match Paths::new() {
        Ok(paths) => paths,
        Err(e) => {
            eprintln!("compat: {e}");
            return ExitCode::FAILURE;
        }
    };
    for suite in &args.suites {
        run_suite(&paths, suite, sides, mode, &report);
    }
    let is_good = report.close() || (is_update && !args.suites.is_empty());
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one suite, its sides next to each other.
fn run_suite(paths: &Paths, suite: &str, sides: &[Side], mode: Mode, report: &Report) {
    let (name, filter) = suite.split_once(':').unwrap_or((suite, ""));
    // What both sides need is fetched before they run.
    let more = match name {
        "flume" => flume::fetch(paths),
        "tools-3.9.1" => java::jars(paths, "kafka", java::KAFKA_OLDER).map(|_| ()),
        _ => Ok(()),
    };
    if let Err(e) = java::jars(paths, "kafka", java::KAFKA).and(more) {
        report.failed(suite, &e);
        return;
    }
    let clients = match name {
        "clients" => clients::prepare(paths, filter, report),
        _ => Vec::new(),
    };
    let clients = &clients;
    std::thread::scope(|scope| {
        for side in sides.iter().copied() {
            scope.spawn(move || {
                let result = match name {
                    "clients" => clients::run(paths, side, clients, report),
                    "apis" => apis::run(paths, side, filter, report),
                    "cluster" => members::run(paths, side, filter, report),
                    "compaction" => compaction::run(paths, side, report),
                    "crash" => crash::run(paths, side, filter, report),
                    "disk" => disk::run(paths, side, filter, report),
                    "failover" => failover::run(paths, side, filter, report),
                    "dump" => dump::run(paths, side, filter, report),
                    "flume" => flume::run(paths, side, report),
                    "grow-reassign" => grow::run(paths, side, report),
                    "reassign" => reassign::run(paths, side, mode, report),
                    "takeover" if side.is_kafka() => Ok(()),
                    "takeover" => takeover::run(paths, filter, report),
                    "leaders" => leaders::run(paths, side, report),
                    "torture" => torture::run(paths, side, report),
                    "tools" => tools::run(paths, side, filter, mode, report),
                    "tools-3.9.1" => tools::run_older(paths, side, filter, mode, report),
                    _ => Err(format!("no suite {name}")),
                };
                if let Err(e) = result {
                    report.failed(&format!("{suite} [{side}]"), &e);
                }
            });
        }
    });
}
