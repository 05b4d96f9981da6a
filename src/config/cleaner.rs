//! The cleaner's settings as they apply now, and what they must be.
//!
//! Source: Kafka's documentation, "Broker Configs" (`log.cleaner.*`, cluster-wide) and KIP-226; the messages are
//! Kafka's.

use super::typed::CleanerConfig;
use super::value::Value;
use super::{Config, topic::Dynamic};

/// Smallest share of `log.cleaner.dedupe.buffer.size` for a thread: more than this.
const DEDUPE_BYTES_MIN: i64 = 1 << 20;

impl CleanerConfig {
    /// The values that apply with what was set while the broker runs.
    pub fn now(config: &Config, dynamic: Dynamic<'_>) -> CleanerConfig {
        let integer = |name: &str, file: i64| {
            dynamic.value(config, name).and_then(|value| value.integer()).unwrap_or(file)
        };
        let number =
            |name: &str, file: i32| i32::try_from(integer(name, i64::from(file))).unwrap_or(file);
        let double = |name: &str, file: f64| match dynamic.value(config, name) {
            Some(Value::Double(value)) => value,
            _ => file,
        };
        let file = &config.cleaner;
        CleanerConfig {
            enable: file.enable,
            threads: number("log.cleaner.threads", file.threads),
            backoff_ms: integer("log.cleaner.backoff.ms", file.backoff_ms),
            dedupe_buffer_size: integer("log.cleaner.dedupe.buffer.size", file.dedupe_buffer_size),
            io_buffer_size: number("log.cleaner.io.buffer.size", file.io_buffer_size),
            io_buffer_load_factor: double(
                "log.cleaner.io.buffer.load.factor",
                file.io_buffer_load_factor,
            ),
            io_max_bytes_per_second: double(
                "log.cleaner.io.max.bytes.per.second",
                file.io_max_bytes_per_second,
            ),
        }
    }

    /// The key at fault and Kafka's message, where the values do not go together. Kafka has no message for no threads
    /// and does not start with them either.
    ///
    /// # Errors
    /// As above.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.threads < 1 {
            return Err(("log.cleaner.threads", "Log cleaner threads should be at least 1"));
        }
        if self.dedupe_buffer_size / i64::from(self.threads) <= DEDUPE_BYTES_MIN {
            return Err((
                "log.cleaner.dedupe.buffer.size",
                "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.",
            ));
        }
        Ok(())
    }

    /// Whether a running cleaner may become `new`.
    ///
    /// # Errors
    /// Kafka's message.
    pub fn check_change(&self, new: &CleanerConfig) -> Result<(), String> {
        let (before, after) = (self.threads, new.threads);
        // Kafka takes one exception into another here.
        let refused = |text: &str| {
            format!(
                "Invalid value org.apache.kafka.common.config.ConfigException: {text} for \
                 configuration Invalid dynamic configuration"
            )
        };
        new.check().map_err(|(key, text)| match key {
            "log.cleaner.threads" => refused(text),
            _ => format!("requirement failed: {text}"),
        })?;
        if after < before / 2 {
            return Err(refused(&format!(
                "Log cleaner threads cannot be reduced to less than half the current value {before}"
            )));
        }
        if after > before.saturating_mul(2) {
            return Err(refused(&format!(
                "Log cleaner threads cannot be increased to more than double the current value \
                 {before}"
            )));
        }
        Ok(())
    }
}
