//! `ottla bench`: loads for any broker that speaks Kafka's protocol, over plain blocking sockets.
//!
//! A client costs as little as it can: batches are encoded once, a connection has one thread, answers are looked at
//! for their error code only. So what is measured is the broker. Deliberately not here: starting brokers and comparing
//! them (`scripts/bench`), and the stock clients' own cost (`compat-tests`).
//!
//! Invariant: a refused or wrong answer ends the run; nothing is measured that was not acknowledged.
//! Why it is a room, and what is measured: docs/decisions/0004-bench.md.

mod loads;
mod process;
mod topic;

use crate::client::{ClientError, Connection};
use crate::env::Disk;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Time until the broker answers its first request; connects until it does.
    Ready,
    /// Large batches, several in flight on each connection, acks=all.
    Produce,
    /// Reads what `Produce` has written.
    Fetch,
    /// One small record a request.
    Small,
    /// One producer at a rate, one consumer that waits: from send to receipt.
    Latency,
    /// Connections opened, each with one request, then held idle.
    Connections,
}

/// What to run, and how large.
#[derive(Debug, Clone)]
pub struct BenchSettings {
    /// `host:port`.
    pub bootstrap_server: String,
    /// In this order.
    pub loads: Vec<Load>,
    /// Megabytes (10^6 bytes) of `Produce` and `Fetch`.
    pub megabytes: u64,
    /// Bytes of a batch of `Produce`.
    pub batch_bytes: usize,
    /// Connections of `Produce`, `Fetch` and `Small`, each with a partition of its own.
    pub connections: usize,
    /// Requests in flight on a connection.
    pub in_flight: usize,
    /// Requests of `Small`.
    pub requests: u64,
    /// Records of `Latency`, and how many a second.
    pub records: u64,
    /// Records a second of `Latency`.
    pub rate: u64,
    /// Connections of `Connections`.
    pub idle_connections: usize,
    /// The broker's process on this machine, whose CPU time and memory are read.
    pub pid: Option<u32>,
}

/// Why a run ended.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// There is no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The broker refused.
    #[error("{0} was answered with error {1}")]
    Refused(&'static str, i16),
    /// A thread of the client ended early.
    #[error("a client's thread failed")]
    Thread,
}

/// One number of an outcome: name, value, unit.
pub type Figure = (&'static str, f64, &'static str);

/// What one load gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The load.
    pub load: Load,
    /// Its numbers.
    pub figures: Vec<Figure>,
}

impl Load {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Load::Ready => "ready",
            Load::Produce => "produce",
            Load::Fetch => "fetch",
            Load::Small => "small",
            Load::Latency => "latency",
            Load::Connections => "connections",
        }
    }

    /// The load of a name.
    pub fn of_name(name: &str) -> Option<Load> {
        let all = [
            Load::Ready,
            Load::Produce,
            Load::Fetch,
            Load::Small,
            Load::Latency,
            Load::Connections,
        ];
        all.into_iter().find(|load| load.name() == name)
    }
}

const CLIENT_ID: &str = "ottla-bench";
/// A broker that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(60);

fn connect(address: &str) -> Result<Connection, ClientError> {
    Connection::open(address, CLIENT_ID, PATIENCE)
}

/// Runs the loads in order; topics are made for the run and deleted after it.
///
/// # Errors
/// Every [`BenchError`].
pub fn run(disk: &dyn Disk, settings: &BenchSettings) -> Result<Vec<Outcome>, BenchError> {
    let mut outcomes = Vec::new();
    let mut produced = None;
    for load in &settings.loads {
        let figures = match load {
            Load::Ready => loads::ready(settings)?,
            Load::Produce => {
                let topic = loads::ready_topic(settings, "produce", settings.connections)?;
                let figures = loads::produce(disk, settings, &topic)?;
                produced = Some(topic);
                figures
            }
            Load::Fetch => {
                if produced.is_none() {
                    let topic = loads::ready_topic(settings, "produce", settings.connections)?;
                    loads::produce(disk, settings, &topic)?;
                    produced = Some(topic);
                }
                match &produced {
                    Some(topic) => loads::fetch(disk, settings, topic)?,
                    None => Vec::new(),
                }
            }
            Load::Small => {
                let topic = loads::ready_topic(settings, "small", settings.connections)?;
                let figures = loads::small(disk, settings, &topic)?;
                topic::delete(settings, &topic)?;
                figures
            }
            Load::Latency => {
                let topic = loads::ready_topic(settings, "latency", 1)?;
                let figures = loads::latency(settings, &topic)?;
                topic::delete(settings, &topic)?;
                figures
            }
            Load::Connections => loads::connections(disk, settings)?,
        };
        outcomes.push(Outcome { load: *load, figures });
    }
    if let Some(topic) = produced {
        topic::delete(settings, &topic)?;
    }
    Ok(outcomes)
}

/// A table for a terminal.
pub fn to_text(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        for (name, value, unit) in &outcome.figures {
            let load = outcome.load.name();
            let _ = writeln!(text, "{load:<12} {name:<24} {value:>14.3} {unit}");
        }
    }
    text
}

/// One JSON object: load, then figure.
pub fn to_json(outcomes: &[Outcome]) -> String {
    let mut all = serde_json::Map::new();
    for outcome in outcomes {
        let figures: serde_json::Map<String, Value> = outcome
            .figures
            .iter()
            .map(|(name, value, _)| ((*name).to_owned(), json!(value)))
            .collect();
        all.insert(outcome.load.name().to_owned(), Value::Object(figures));
    }
    format!("{}\n", Value::Object(all))
}

#[cfg(test)]
mod tests;
