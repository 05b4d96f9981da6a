//! The values that somebody gave, each with where it came from, over the defaults of the table.
//!
//! Invariant: what [`Values`] hands out has been parsed and is inside its key's range.

use super::key::{Key, Kind, Scope};
use super::value::{self, Value};
use super::{ConfigError, table};
use std::collections::BTreeMap;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A line of a file.
    File {
        /// The file, as it was named.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// The command line.
    Override,
    /// Ottla's own choice where no file is given.
    Ottla,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Override => f.write_str("--override"),
            Self::Ottla => f.write_str("ottla"),
        }
    }
}

/// A value as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The text.
    pub value: String,
    /// Who gave it.
    pub source: Source,
}

/// Broker keys and the values given for them.
#[derive(Debug, Clone, PartialEq, Eq, std::default::Default)]
pub struct Values {
    given: BTreeMap<String, Given>,
}

impl Values {
    /// Sets a value; the last one set wins.
    pub fn set(&mut self, name: &str, value: &str, source: Source) {
        self.given.insert(name.to_owned(), Given { value: value.to_owned(), source });
    }

    /// Sets a value unless there is one.
    pub fn set_if_absent(&mut self, name: &str, value: &str, source: Source) {
        if !self.given.contains_key(name) {
            self.set(name, value, source);
        }
    }

    /// What was given for a key.
    pub fn given(&self, name: &str) -> Option<&Given> {
        self.given.get(name)
    }

    /// All that was given, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Given)> {
        self.given.iter().map(|(name, given)| (name.as_str(), given))
    }

    /// An error about a key's value that says where it came from.
    pub fn complaint(&self, name: &str, why: &str) -> ConfigError {
        match self.given(name) {
            Some(Given { value, source }) => {
                ConfigError::new(format!("{source}: {name}={value}: {why}"))
            }
            None => ConfigError::new(format!("{name}: {why}")),
        }
    }

    /// The text of a broker key: what was given, or its default.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.given.get(name) {
            Some(given) => Some(given.value.as_str()),
            None => table::find(Scope::Broker, name).and_then(|key| key.default.text()),
        }
    }

    /// The value of a broker key, where it has one.
    ///
    /// # Errors
    /// The value is not one of the key's.
    pub fn get(&self, name: &str) -> Result<Option<Value>, ConfigError> {
        let Some(key) = table::find(Scope::Broker, name) else {
            return Err(ConfigError::new(format!("Unknown configuration {name}")));
        };
        match self.given.get(name) {
            Some(given) if given.value.trim().is_empty() && is_unset_when_empty(key) => Ok(None),
            Some(given) => value::parse(key, &given.value)
                .map(Some)
                .map_err(|message| ConfigError::of(key, given, &message)),
            None => match key.default.text() {
                Some(text) => {
                    value::parse_type(name, key.kind, text).map(Some).map_err(ConfigError::new)
                }
                None => Ok(None),
            },
        }
    }
}

/// Sample files of older releases leave texts and lists empty to say nothing.
fn is_unset_when_empty(key: &Key) -> bool {
    key.default.text().is_none()
        && matches!(key.kind, Kind::String | Kind::Class | Kind::Password | Kind::List)
}

/// A type that a key's value becomes in [`super::Config`].
pub(super) trait FromValue: Sized {
    /// The value, or nothing where it does not fit.
    fn from_value(value: Option<Value>) -> Option<Self>;
}

impl FromValue for bool {
    fn from_value(value: Option<Value>) -> Option<Self> {
        match value {
            Some(Value::Boolean(value)) => Some(value),
            _ => None,
        }
    }
}

macro_rules! integers {
    ($($kind:ty),*) => {$(
        impl FromValue for $kind {
            fn from_value(value: Option<Value>) -> Option<Self> {
                value?.integer()?.try_into().ok()
            }
        }
    )*};
}
integers!(i16, i32, i64, u32, usize);

impl FromValue for f64 {
    fn from_value(value: Option<Value>) -> Option<Self> {
        match value {
            Some(Value::Double(value)) => Some(value),
            _ => None,
        }
    }
}

impl FromValue for String {
    fn from_value(value: Option<Value>) -> Option<Self> {
        match value {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }
}

impl FromValue for Vec<String> {
    fn from_value(value: Option<Value>) -> Option<Self> {
        match value {
            Some(Value::List(items)) => Some(items),
            None => Some(Vec::new()),
            _ => None,
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Option<Value>) -> Option<Self> {
        match value {
            Some(value) => T::from_value(Some(value)).map(Some),
            None => Some(None),
        }
    }
}

/// The typed value of a broker key.
pub(super) fn typed<T: FromValue>(values: &Values, name: &str) -> Result<T, ConfigError> {
    T::from_value(values.get(name)?).ok_or_else(|| match values.given(name) {
        Some(given) => {
            ConfigError::new(format!("Invalid value {} for configuration {name}", given.value))
        }
        None => ConfigError::new(format!("Missing required configuration \"{name}\"")),
    })
}
