//! `log.cleaner.io.max.bytes.per.second`: how long the cleaner's threads wait for the disk's other users.
//!
//! Bytes are booked on one time line that all threads share; a thread may go on once the line is not ahead of the
//! clock. An idle time earns a burst of [`BURST_MS`] at the most, which is how often Kafka's throttle looks.

use ottla_protocol::Timestamp;

/// What an idle time is worth.
const BURST_MS: f64 = 300.0;

/// The time line.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// Up to when the bytes that were booked last, in milliseconds of the steady clock.
    booked_to: f64,
}

impl Throttle {
    /// Books bytes that were read or written.
    pub(super) fn book(&mut self, bytes: usize, bytes_per_second: f64, now: Timestamp) {
        let cost_ms = bytes as f64 * 1000.0 / bytes_per_second.max(1.0);
        self.booked_to = self.booked_to.max(now.0 as f64 - BURST_MS) + cost_ms;
    }

    /// Milliseconds to wait; 0 is to go on.
    pub(super) fn wait_ms(&self, now: Timestamp) -> u64 {
        (self.booked_to - now.0 as f64).max(0.0).ceil() as u64
    }

    /// Forgets what was booked at another rate.
    pub(super) fn reset(&mut self) {
        self.booked_to = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_one_rate_and_an_idle_time_earns_little() {
        let mut throttle = Throttle::default();
        let now = Timestamp(1_000_000);
        throttle.book(300, 1000.0, now);
        assert_eq!(throttle.wait_ms(now), 0);
        throttle.book(500, 1000.0, now);
        throttle.book(500, 1000.0, now);
        assert_eq!(throttle.wait_ms(now), 1000);
        assert_eq!(throttle.wait_ms(now.plus_ms(400)), 600);
        assert_eq!(throttle.wait_ms(now.plus_ms(1000)), 0);
        throttle.book(1300, 1000.0, now.plus_ms(3_600_000));
        assert_eq!(throttle.wait_ms(now.plus_ms(3_600_000)), 1000);
        throttle.reset();
        throttle.book(1 << 40, f64::MAX, now);
        assert_eq!(throttle.wait_ms(now), 0);
        throttle.book(1, f64::NAN, now);
        assert_eq!(throttle.wait_ms(now), 700);
    }
}
