//! The readers: `server.properties` and toml into [`Values`], with the command line's overrides on top.
//!
//! Source: Kafka's `kafka-server-start [FILE] [--override KEY=VALUE]`; KIP-297 for the `${...}` that is not read.

use super::key::{self, Scope, Support};
use super::{Config, ConfigError, Source, Values, properties, table};
use crate::env::disk::Disk;
use std::path::Path;

/// A configuration and what its author should know about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What to start with.
    pub config: Config,
    /// Keys that nobody knows, one line each.
    pub warnings: Vec<String>,
}

/// Reads the file, if there is one, and the overrides.
///
/// # Errors
/// The file cannot be read, or the first thing in it that is wrong; one line.
pub fn load(
    disk: &dyn Disk,
    file: Option<&Path>,
    overrides: &[String],
) -> Result<Loaded, ConfigError> {
    let mut values = Values::default();
    let mut warnings = Vec::new();
    let is_toml = file.is_some_and(|path| path.extension().is_some_and(|e| e == "toml"));
    if let Some(path) = file {
        let shown = path.display().to_string();
        let bytes =
            disk.read(path).map_err(|error| ConfigError::new(format!("{shown}: {error}")))?;
        match is_toml {
            true => read_toml(&shown, &bytes, &mut values)?,
            false => read_properties(&shown, &bytes, &mut values)?,
        }
    }
    for pair in overrides {
        let Some((name, value)) = pair.split_once('=') else {
            let why = format!("--override {pair}: not of the form KEY=VALUE");
            return Err(ConfigError::new(why));
        };
        values.set(name.trim(), value, Source::Override);
    }
    if file.is_none() || is_toml {
        super::add_own_choices(&mut values);
    }
    for (name, given) in values.iter() {
        if !is_known(name) {
            warnings.push(format!("{}: {}", given.source, unknown(name)));
        }
        refuse_providers(&values, name, &given.value)?;
    }
    Ok(Loaded { config: Config::from_values(values)?, warnings })
}

fn is_known(name: &str) -> bool {
    table::find(Scope::Broker, key::base_name(name)).is_some()
        || name.starts_with("listener.name.")
        || ["rsm.config.", "rlmm.config."].iter().any(|prefix| name.starts_with(prefix))
}

/// A value that Kafka would have looked up elsewhere must not be taken by its letters.
fn refuse_providers(values: &Values, name: &str, value: &str) -> Result<(), ConfigError> {
    let is_lookup = value
        .split("${")
        .skip(1)
        .any(|rest| rest.split_once('}').is_some_and(|(inside, _)| inside.contains(':')));
    if is_lookup && table::find(Scope::Broker, name).is_some() {
        let why = "refused: configuration providers are Java classes, which Ottla does not load; \
                   write the value itself or give it with --override";
        return Err(values.complaint(name, why));
    }
    Ok(())
}

fn unknown(name: &str) -> String {
    match nearest(name) {
        Some(near) => format!("nobody knows {name}; is {near} meant?"),
        None => format!("nobody knows {name}"),
    }
}

fn read_properties(path: &str, bytes: &[u8], values: &mut Values) -> Result<(), ConfigError> {
    let all = properties::parse(bytes).map_err(|why| ConfigError::new(format!("{path}: {why}")))?;
    for property in all {
        let source = Source::File { path: path.to_owned(), line: property.line };
        values.set(&property.key, &property.value, source);
    }
    Ok(())
}

fn read_toml(path: &str, bytes: &[u8], values: &mut Values) -> Result<(), ConfigError> {
    let fail = |why: String| ConfigError::new(format!("{path}: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|error| fail(error.to_string()))?;
    let document: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
        ConfigError::new(format!("{path}:{line}: {}", error.message()))
    })?;
    let mut flat = Vec::new();
    flatten("", &document, &mut flat, 0).map_err(fail)?;
    for (name, value) in flat {
        let source = Source::File { path: path.to_owned(), line: line_of(text, &name) };
        if !is_known(&name) {
            return Err(ConfigError::new(format!("{source}: {}", unknown(&name))));
        }
        values.set(&name, &value, source);
    }
    Ok(())
}

/// Deeper tables than any key has dots are not a configuration.
const DEPTH_MAX: usize = 16;

/// `[a.b] c = 1` and `a.b.c = 1` are the same key.
fn flatten(
    prefix: &str,
    table: &toml::Table,
    into: &mut Vec<(String, String)>,
    depth: usize,
) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("{prefix}: too many tables inside each other"));
    }
    for (name, value) in table {
        let name = match prefix {
            "" => name.clone(),
            _ => format!("{prefix}.{name}"),
        };
        match value {
            toml::Value::Table(inner) => flatten(&name, inner, into, depth + 1)?,
            toml::Value::Array(items) => {
                let items: Result<Vec<String>, String> =
                    items.iter().map(|item| scalar(&name, item)).collect();
                into.push((name, items?.join(",")));
            }
            other => {
                let text = scalar(&name, other)?;
                into.push((name, text));
            }
        }
    }
    Ok(())
}

fn scalar(name: &str, value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(super::value::java_double(*number)),
        toml::Value::Boolean(value) => Ok(value.to_string()),
        _ => Err(format!("{name}: a text, a number, true, false or a list of them is expected")),
    }
}

/// The line that sets the key, as near as its last part tells; 1 where it is not found.
fn line_of(text: &str, name: &str) -> usize {
    let sets = |line: &str, key: &str| {
        let line = line.trim_start().trim_start_matches('"');
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start_matches('"').trim_start().starts_with('='))
    };
    let mut suffix = name;
    loop {
        if let Some(at) = text.lines().position(|line| sets(line, suffix)) {
            return at + 1;
        }
        match suffix.split_once('.') {
            Some((_, rest)) => suffix = rest,
            None => return 1,
        }
    }
}

/// The known key that is spelt most like this one, if any is.
pub fn nearest(name: &str) -> Option<&'static str> {
    const NAME_MAX: usize = 128;
    if name.len() > NAME_MAX {
        return None;
    }
    let limit = 1 + name.len() / 6;
    table::all(Scope::Broker)
        .map(|key| (distance(name.as_bytes(), key.name.as_bytes()), key.name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, near)| near)
}

/// How many bytes to put in, take out or change.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The given keys that are read and not acted on, with the reasons.
pub fn ignored(config: &Config) -> Vec<(String, &'static str)> {
    let reason = |name: &str| match table::find(Scope::Broker, key::base_name(name))?.support {
        Support::Ignored(reason) => Some(reason),
        Support::Honoured | Support::Refused(_) => None,
    };
    config
        .values
        .iter()
        .filter(|(_, given)| given.source != Source::Ottla)
        .filter_map(|(name, _)| reason(name).map(|reason| (name.to_owned(), reason)))
        .collect()
}
