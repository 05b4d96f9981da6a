//! `ottla status`: the status room's picture of a cluster, with an exit status.

use ottla::status::status;
use std::process::ExitCode;

/// Data is at risk.
const AT_RISK: u8 = 1;
/// No broker could be asked.
const FAILED: u8 = 2;

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Brokers of the cluster, of which the first that answers is asked.
    #[arg(long, value_name = "HOST:PORT[,HOST:PORT]...", default_value = "localhost:9092")]
    bootstrap_server: String,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &StatusArgs) -> ExitCode {
    let found = status(&arguments.bootstrap_server).map_err(|error| error.to_string());
    let shown = found.and_then(|status| {
        crate::print_all(&if arguments.json { status.to_json() } else { status.to_text() })?;
        Ok(status.risks().is_empty())
    });
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(AT_RISK),
        Err(error) => {
            eprintln!("ottla: {error}");
            ExitCode::from(FAILED)
        }
    }
}
