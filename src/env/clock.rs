//! The time, as an argument: whoever needs it is handed a [`Clock`].

use ottla_protocol::Timestamp;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Tells the time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since 1970-01-01 UTC, as the wall clock says: for what is written down or compared with that. It
    /// may be put forward and back.
    fn now(&self) -> Timestamp;

    /// Milliseconds on a time line of its own, which goes on as time passes whatever becomes of the wall clock: for
    /// what is waited for or measured, as Kafka does by `System.nanoTime`. Nothing but other answers of this may be
    /// compared with it.
    fn steady(&self) -> Timestamp {
        self.now()
    }
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock set before 1970 reads as 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(since.as_millis() as i64)
    }

    fn steady(&self) -> Timestamp {
        static BEGIN: LazyLock<SteadyClock> = LazyLock::new(|| SteadyClock::new(&SystemClock));
        BEGIN.now()
    }
}

/// A clock that takes no steps: it begins with another one's time, and goes on as time passes. For what is measured
/// rather than written down, such as the sessions of brokers, which Kafka measures by `System.nanoTime` too.
#[derive(Debug, Clone, Copy)]
pub struct SteadyClock {
    begin: Timestamp,
    since: Instant,
}

impl SteadyClock {
    /// A clock that begins now.
    pub fn new(clock: &dyn Clock) -> Self {
        SteadyClock { begin: clock.now(), since: Instant::now() }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.begin.0.saturating_add(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[derive(Debug)]
    struct Wall(AtomicI64);

    impl Clock for Wall {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_steady_clock_takes_no_steps() {
        const DAY_MS: i64 = 86_400_000;
        let wall = Wall(AtomicI64::new(1000 * DAY_MS));
        let steady = SteadyClock::new(&wall);
        for stepped in [0, 2000] {
            wall.0.store(stepped * DAY_MS, Ordering::Relaxed);
            let passed = steady.now().0 - 1000 * DAY_MS;
            assert!((0..DAY_MS).contains(&passed), "{passed}");
        }
    }
}
