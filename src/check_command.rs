//! `ottla check`: the log room's check with a bar on the terminal, and an exit status.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ottla::env::RealDisk;
use ottla::log::check::{CheckReport, Step, check};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Something is damaged.
const PROBLEMS: u8 = 1;
/// The check could not run.
const FAILED: u8 = 2;

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Log directories of one broker, as in log.dirs.
    #[arg(value_name = "DIR", default_value = "./ottla-data")]
    dirs: Vec<PathBuf>,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &CheckArgs) -> ExitCode {
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {wide_msg}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    let checked = check(&RealDisk, &arguments.dirs, &mut |step| match step {
        Step::Total(bytes) => bar.set_length(bytes),
        Step::Partition(path) => bar.set_message(name(path)),
        Step::Bytes(bytes) => bar.inc(bytes),
    });
    bar.finish_and_clear();
    match checked {
        Ok(report) => match crate::print_all(&shown(arguments, &report)) {
            Ok(()) if report.is_clean() => ExitCode::SUCCESS,
            Ok(()) => ExitCode::from(PROBLEMS),
            Err(error) => failed(&error),
        },
        Err(error) => failed(&error.to_string()),
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn shown(arguments: &CheckArgs, report: &CheckReport) -> String {
    if arguments.json { report.to_json() } else { report.to_text() }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("ottla: {error}");
    ExitCode::from(FAILED)
}
