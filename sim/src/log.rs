//! The brokers' log lines, with the machine and the simulated time.

use parking_lot::Mutex;
use std::fmt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

static NOW: Mutex<(String, u64)> = Mutex::new((String::new(), 0));

/// From now on lines are of this machine and time.
pub(crate) fn set_machine(name: &str, now_ms: u64) {
    let mut now = NOW.lock();
    if now.0 != name {
        name.clone_into(&mut now.0);
    }
    now.1 = now_ms;
}

struct SimTime;

impl FormatTime for SimTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let now = NOW.lock();
        write!(w, "{:>7} {}", now.1, now.0)
    }
}

/// Shows log lines on the standard output; which, `RUST_LOG` may say.
pub(crate) fn show() {
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::new(format!("openraft=off,{wanted}"));
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    format.with_timer(SimTime).with_writer(std::io::stdout).init();
}
