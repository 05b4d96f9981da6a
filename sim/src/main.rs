//! The simulator: whole brokers over a simulated disk, network and clock, and what must hold whatever goes wrong.
//!
//! A seed decides everything that happens. Each runs in a process of its own, on one thread (`entropy.rs` says why).

mod checks;
mod client;
mod entropy;
mod history;
mod log;
mod meta;
mod mutation;
mod nemesis;
mod node;
mod plan;
mod run;
mod scale;
mod seeds;
mod workload;
mod world;

use clap::Parser;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// Runs whole brokers over a simulated disk, network and clock, and looks whether what must hold does.
#[derive(Debug, Parser)]
#[command(name = "ottla-sim", max_term_width = 100)]
struct Cli {
    /// How many seeds to run, from FIRST on, on all processors.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Run this seed alone.
    #[arg(long, group = "one")]
    seed: Option<u64>,
    /// With --seed or --scale: print what happens and what the brokers log (RUST_LOG says how much).
    #[arg(long, requires = "one")]
    trace: bool,
    /// See whether each checker sees a rule that is broken on purpose.
    #[arg(long)]
    meta: bool,
    /// Break this rule.
    #[arg(long)]
    mutation: Option<mutation::Mutation>,
    /// Let this checker alone look.
    #[arg(long)]
    only: Option<checks::Checker>,
    /// Measure one large cluster in which only one broker dies.
    #[arg(long, group = "one")]
    scale: bool,
    /// With --scale: its brokers, beside three controllers.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(4..=200))]
    brokers: u16,
    /// With --scale: its partitions, of three replicas each.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// With --scale: how many of them the broker leads that dies; as many as each other by default.
    #[arg(long)]
    leaders: Option<u32>,
    /// How many seeds run at a time; as many as there are processors by default.
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = cli.jobs.unwrap_or_else(processors);
    if cli.trace {
        log::show();
    }
    if cli.seed.is_some() || cli.scale {
        count_panics();
    }
    match cli.seed {
        Some(seed) => one(seed, &cli),
        None if cli.meta => meta::run(jobs),
        None if cli.scale => measure(&cli),
        None => seeds::run(cli.first, cli.seeds, jobs),
    }
}

/// Panics in tasks of the brokers are seen, though the runtime catches them.
fn count_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        run::PANICS.fetch_add(1, Ordering::Relaxed);
        usual(panic);
    }));
}

fn measure(cli: &Cli) -> ExitCode {
    let (brokers, partitions) = (usize::from(cli.brokers), cli.partitions as usize);
    let leaders = cli.leaders.map_or(partitions.div_ceil(brokers), |leaders| leaders as usize);
    let cluster = scale::Cluster { brokers, partitions, leaders: leaders.min(partitions) };
    entropy::begin(1);
    match scale::run(cluster, cli.trace) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            println!("FAILED: {cause}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, cli: &Cli) -> ExitCode {
    let (is_shown, mutation, only) = (cli.trace, cli.mutation, cli.only);
    // A new thread has no hash keys yet: whatever came before this makes no difference.
    let running = std::thread::spawn(move || {
        entropy::begin(seed);
        run::run(&plan::Plan::new(seed, mutation), only, is_shown)
    });
    let Ok(outcome) = running.join() else {
        println!("seed {seed} FAILED: the simulation itself panicked");
        return ExitCode::FAILURE;
    };
    match outcome.result {
        Ok(()) => {
            println!("seed {seed} ok {:016x} {}", outcome.hash, outcome.summary);
            ExitCode::SUCCESS
        }
        Err(cause) => {
            println!("seed {seed} FAILED {:016x} {}: {cause}", outcome.hash, outcome.summary);
            ExitCode::FAILURE
        }
    }
}
