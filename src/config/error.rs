//! What is wrong with a configuration, in one line.

use super::key::Key;
use super::values::Given;

/// A configuration that cannot be used; its text is one line for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// An error with this text, on one line.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().replace(['\n', '\r'], " "))
    }

    /// A key's value is wrong: where it stands, what is wrong with it, what would be right.
    pub fn of(key: &Key, given: &Given, message: &str) -> Self {
        let message = match key.is_sensitive() {
            true => message.replace(&given.value, "[hidden]"),
            false => message.to_owned(),
        };
        match key.valid_range() {
            range if range.is_empty() => Self::new(format!("{}: {message}", given.source)),
            range => Self::new(format!("{}: {message} (valid: {range})", given.source)),
        }
    }
}
