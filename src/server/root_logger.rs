//! The level of the root logger, which admin clients may change while the broker runs (KIP-412).

use parking_lot::Mutex;
use std::fmt;
use tracing::level_filters::LevelFilter;

/// Puts a filter, in the syntax of `RUST_LOG`, in force.
type Apply = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The one logger that can be set.
pub struct RootLogger {
    /// Directives that were set when the broker started.
    directives: String,
    level: Mutex<String>,
    apply: Apply,
}

impl RootLogger {
    /// Its name.
    pub const NAME: &str = "root";
    /// The levels that it may be set to, as Kafka's `LogLevelConfig` has them.
    pub const LEVELS: [&str; 6] = ["DEBUG", "ERROR", "FATAL", "INFO", "TRACE", "WARN"];

    /// The logger of a process that logs by these `directives`; `apply` puts others in force.
    pub fn new(
        directives: &str,
        apply: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let levels = directives.split(',').filter_map(|one| one.trim().parse().ok());
        // A filter without a level of its own lets errors through.
        let level: LevelFilter = levels.fold(LevelFilter::ERROR, |_, level| level);
        RootLogger {
            directives: directives.to_owned(),
            level: Mutex::new(level.to_string().to_uppercase()),
            apply: Box::new(apply),
        }
    }

    /// Its level.
    pub fn level(&self) -> String {
        self.level.lock().clone()
    }

    /// Sets its level, one of [`RootLogger::LEVELS`]; directives for parts of the broker stay.
    ///
    /// # Errors
    /// Why it cannot be set.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let mut current = self.level.lock();
        // There is nothing above an error here.
        let own = if level == "FATAL" { "ERROR" } else { level };
        (self.apply)(&format!("{},{own}", self.directives))?;
        level.clone_into(&mut current);
        Ok(())
    }
}

impl fmt::Debug for RootLogger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootLogger").field("level", &self.level).finish_non_exhaustive()
    }
}
