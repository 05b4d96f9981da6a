//! `cordoned.log.dirs`: which log directories get no new partitions.
//!
//! Source: KIP-1066; the messages are Kafka's.

use std::path::{Path, PathBuf};

/// The key.
pub const CORDONED_LOG_DIRS: &str = "cordoned.log.dirs";

/// The entries of the value; none for an empty one.
pub fn entries(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// Which of `log_dirs` the value names, by their place; `*` names all of them.
///
/// # Errors
/// Kafka's message, where an entry is no log directory or `*` has company.
pub fn cordoned(value: &str, log_dirs: &[PathBuf]) -> Result<Vec<usize>, String> {
    let names: Vec<&str> = entries(value).collect();
    if names.contains(&"*") {
        return match names.len() {
            1 => Ok((0..log_dirs.len()).collect()),
            _ => Err(format!(
                "When {CORDONED_LOG_DIRS} is set to *, it must not contain other values"
            )),
        };
    }
    let place = |name: &str| log_dirs.iter().position(|dir| dir == Path::new(name));
    let missing: Vec<&str> = names.iter().copied().filter(|name| place(name).is_none()).collect();
    if !missing.is_empty() {
        return Err(format!(
            "All entries in {CORDONED_LOG_DIRS} must be present in log.dirs or log.dir. Missing \
             entries : {}",
            missing.join(",")
        ));
    }
    Ok(names.into_iter().filter_map(place).collect())
}
