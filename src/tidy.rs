//! The house rules that a compiler does not check: who imports whom, how long files, functions and lines may be, and
//! that every handler starts with its sheet. Runs as a test over the project's own sources.

use std::path::{Path, PathBuf};

/// (room, what it may name after `crate::`). A room may always name itself.
const IMPORTS: &[(&str, &[&str])] = &[
    ("config", &["env"]),
    ("env", &[]),
    ("log", &["env"]),
    ("machines", &["config"]),
    ("broker", &["config", "env", "log", "machines", "zookeeper"]),
    ("server", &["broker", "config", "env"]),
    ("bench", &["client", "env"]),
    ("client", &[]),
    ("status", &["client"]),
    ("zookeeper", &["env"]),
];

/// Words that only some rooms may use, with the rooms.
const RESERVED: &[(&str, &[&str])] = &[
    ("std::fs", &["env"]),
    ("std::net::TcpListener", &["env"]),
    ("tokio::net", &["env"]),
    ("SystemTime", &["env"]),
    ("Instant::now", &["env", "server", "broker", "bench", "zookeeper"]),
    ("kafka_protocol", &[]),
];

/// Words that the pure machines may not use.
const IMPURE: &[&str] = &[
    "tokio",
    "HashMap",
    "HashSet",
    "async fn",
    ".await",
    "Uuid::new_v4",
    "std::thread",
    "tracing",
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 120;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("generated") && !path.ends_with("target") {
                sources(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn is_test_file(path: &Path) -> bool {
    path.ends_with("tests.rs")
        || path.ends_with("proptests.rs")
        || path
            .components()
            .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches")
}

/// The file's lines up to its test module.
fn code_lines(text: &str) -> Vec<&str> {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).collect()
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    for dir in ["src", "protocol/src", "compat-tests/src", "sim/src"] {
        sources(&root().join(dir), &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 20, "the sources are not where tidy looks for them");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a source file that was just listed");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let mut parts = inside.components();
    let first = parts.next()?.as_os_str().to_str()?.to_owned();
    parts.next().map(|_| first)
}

fn report(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let mut found = Vec::new();
    for (path, text) in all_sources() {
        let Some(room) = room_of(&path) else { continue };
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == room) else {
            found.push(format!("{}: room {room} is not in the import table", shown(&path)));
            continue;
        };
        for (number, line) in code_lines(&text).iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for piece in code.split("crate::").skip(1) {
                let named: String =
                    piece.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !named.is_empty() && named != room && !allowed.contains(&named.as_str()) {
                    found.push(format!("{}:{}: {room} names {named}", shown(&path), number + 1));
                }
            }
        }
    }
    report("imports outside the table", &found);
}

#[test]
fn reserved_words_stay_in_their_rooms() {
    let mut found = Vec::new();
    for (path, text) in all_sources() {
        if is_test_file(&path) || path.ends_with("tidy.rs") {
            continue;
        }
        let room = room_of(&path).unwrap_or_default();
        if !path.starts_with(root().join("src")) {
            continue;
        }
        for (number, line) in code_lines(&text).iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (word, rooms) in RESERVED {
                if code.contains(word) && !rooms.contains(&room.as_str()) {
                    found.push(format!("{}:{}: {word}", shown(&path), number + 1));
                }
            }
            if room == "machines" {
                for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                    found.push(format!("{}:{}: {word} in a machine", shown(&path), number + 1));
                }
            }
        }
    }
    report("words outside their rooms", &found);
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut found = Vec::new();
    for (path, text) in all_sources() {
        let lines = code_lines(&text);
        for (number, line) in text.lines().enumerate() {
            let is_text = line.trim_start().starts_with('"');
            if !is_text && line.chars().count() > LINE_COLUMNS_MAX {
                found.push(format!("{}:{}: line too long", shown(&path), number + 1));
            }
        }
        // A table of data is long by its nature; it has no logic to read.
        let is_table = path.components().any(|part| part.as_os_str() == "table");
        if is_test_file(&path) || is_table || path.ends_with("error.rs") {
            continue;
        }
        if lines.len() > FILE_LINES_MAX {
            found.push(format!("{}: {} lines", shown(&path), lines.len()));
        }
        for (name, start, length) in functions(&lines) {
            if length > FUNCTION_LINES_MAX {
                found.push(format!("{}:{start}: {name} has {length} lines", shown(&path)));
            }
        }
    }
    report("too long", &found);
}

/// (name, first line, lines) of every function, told by indentation, which rustfmt keeps.
fn functions(lines: &[&str]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let head = code.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        let head = head.trim_start_matches("async ").trim_start_matches("const ");
        let Some(rest) = head.strip_prefix("fn ") else { continue };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let indent = line.len() - code.len();
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines[at..].iter().position(|line| **line == close || line.ends_with("{}"));
        if let Some(end) = end {
            found.push((name, at + 1, end + 1));
        }
    }
    found
}

#[test]
fn every_handler_starts_with_its_sheet() {
    let mut paths = Vec::new();
    sources(&root().join("src/server/handlers"), &mut paths);
    let mut found = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a source file that was just listed");
        if is_test_file(&path) || !text.contains("pub async fn handle(") {
            continue;
        }
        let sheet: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        if !sheet.contains("api key") || !sheet.to_lowercase().contains("version") {
            found.push(format!("{}: no api key and versions at its head", shown(&path)));
        }
    }
    report("handlers without their sheet", &found);
}

#[test]
fn nothing_unfinished_is_left() {
    let mut found = Vec::new();
    for (path, text) in all_sources() {
        if path.ends_with("tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for word in ["todo!", "unimplemented!", "dbg!(", "FIXME", "XXX", "#[ignore"] {
                if line.contains(word) {
                    found.push(format!("{}:{}: {word}", shown(&path), number + 1));
                }
            }
        }
    }
    report("unfinished", &found);
}
