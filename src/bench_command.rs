//! `ottla bench`: the bench room's loads from the command line.

use ottla::bench::{BenchSettings, Load, run as run_loads, to_json, to_text};
use ottla::env::RealDisk;

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// What to run, in this order.
    #[arg(value_name = "LOAD")]
    loads: Vec<String>,
    /// The broker, as Kafka's tools name it.
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092")]
    bootstrap_server: String,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Process of the broker on this machine: adds CPU time and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// Megabytes of produce and fetch.
    #[arg(long, value_name = "MB", default_value_t = 1000)]
    megabytes: u64,
    /// Bytes of a batch of produce.
    #[arg(long, value_name = "BYTES", default_value_t = 64_000)]
    batch_bytes: usize,
    /// Connections of produce, fetch and small, each with a partition of its own.
    #[arg(long, value_name = "N", default_value_t = 2)]
    connections: usize,
    /// Requests in flight on a connection.
    #[arg(long, value_name = "N", default_value_t = 5)]
    in_flight: usize,
    /// Requests of small.
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    requests: u64,
    /// Records of latency.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    records: u64,
    /// Records a second of latency.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rate: u64,
    /// Connections of connections.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    idle_connections: usize,
}

const ALL: [Load; 5] = [Load::Produce, Load::Fetch, Load::Small, Load::Latency, Load::Connections];

pub fn run(arguments: &BenchArgs) -> Result<(), String> {
    let named: Result<Vec<Load>, String> = arguments
        .loads
        .iter()
        .map(|name| Load::of_name(name).ok_or_else(|| format!("{name} is no load")))
        .collect();
    let loads = match named? {
        none if none.is_empty() => ALL.to_vec(),
        some => some,
    };
    let settings = BenchSettings {
        bootstrap_server: arguments.bootstrap_server.clone(),
        loads,
        megabytes: arguments.megabytes,
        batch_bytes: arguments.batch_bytes,
        connections: arguments.connections.max(1),
        in_flight: arguments.in_flight.max(1),
        requests: arguments.requests,
        records: arguments.records,
        rate: arguments.rate,
        idle_connections: arguments.idle_connections,
        pid: arguments.pid,
    };
    let outcomes = run_loads(&RealDisk, &settings).map_err(|error| error.to_string())?;
    crate::print_all(&if arguments.json { to_json(&outcomes) } else { to_text(&outcomes) })
}
