//! Makes equal in the output of a tool what differs from run to run: ids, times, ports, paths.
//!
//! Nothing else is touched but the padding of tables, which depends on the length of ids, and the order of log
//! directories, which kafka-log-dirs takes from the hashes of their names.

use std::sync::LazyLock;

use regex::Regex;

/// What the run itself put into the command lines.
#[derive(Debug, Clone)]
pub struct Known {
    /// Text to look for and the word that stands for it; longer texts first.
    pub words: Vec<(String, &'static str)>,
}

/// A pattern and what stands for what it finds.
type Rule = (Regex, &'static str);

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rules = [
        (r"\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[,.]\d{3}Z?\]?", "TIME"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
        (r"(TopicId: |[Cc]luster ?[Ii][Dd]: +|[Dd]irectory ?[Ii]d:? ?)[A-Za-z0-9_-]{22}", "${1}ID"),
        // Not the digits behind the point of a figure.
        (r"(^|[^\w.])1[0-9]{12}\b", "${1}TIME"),
        (r"(127\.0\.0\.1|localhost):\d{4,5}", "ADDRESS"),
        (r"\d+(\.\d+)? (ms|records/sec|MB/sec)", "N $2"),
        (r"(admin-?client|producer|consumer)-\d+\b", "$1-N"),
        (r"\bEpoch: \d+", "Epoch: N"),
        (r" +", " "),
    ];
    let compiled = rules.iter().map(|(pattern, with)| (Regex::new(pattern), *with));
    compiled.filter_map(|(regex, with)| regex.ok().map(|regex| (regex, with))).collect()
});

static LOG_DIR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"\{"partitions":\[[^\]]*\],"error":[^}]*,"logDir":"([^"]*)"\}"#).ok()
});

static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"-?\d+(\.\d+)?").ok());

/// Lines of a stack trace, and warnings whose number depends on timing.
fn is_noise(line: &str) -> bool {
    let trimmed = line.trim_start();
    let is_frame = line.starts_with('\t') && trimmed.starts_with("at ");
    let is_rest = trimmed.starts_with("... ") && trimmed.ends_with(" more");
    let is_timing = line.contains(" WARN ")
        && (line.ends_with("(org.apache.kafka.clients.NetworkClient)")
            || line.ends_with("(org.apache.kafka.clients.producer.internals.Sender)"));
    is_frame || is_rest || is_timing
}

/// One line in its comparable form.
pub fn line(text: &str, known: &Known) -> String {
    let mut text = text.to_owned();
    for (find, word) in &known.words {
        text = text.replace(find, word);
    }
    for (regex, with) in RULES.iter() {
        text = regex.replace_all(&text, *with).into_owned();
    }
    with_sorted_log_dirs(text.trim_end())
}

fn with_sorted_log_dirs(line: &str) -> String {
    let found = LOG_DIR.iter().flat_map(|dir| dir.captures_iter(line));
    let mut dirs: Vec<(&str, &str)> =
        found.map(|dir| dir.extract()).map(|(all, [name])| (name, all)).collect();
    let all = dirs.iter().map(|(_, all)| *all).collect::<Vec<_>>().join(",");
    dirs.sort_unstable();
    let sorted = dirs.iter().map(|(_, all)| *all).collect::<Vec<_>>().join(",");
    if all == sorted { line.to_owned() } else { line.replacen(&all, &sorted, 1) }
}

/// All lines of an output in their comparable form, without the table of a tool's own options.
pub fn lines(text: &str, known: &Known) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().filter(|text| !is_noise(text)).map(|text| line(text, known)).collect();
    if let Some(options) = lines.iter().position(|line| line == "Option Description") {
        lines.truncate(options);
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Replaces each number by N, for figures that are measured.
pub fn without_numbers(line: &str) -> String {
    match NUMBER.as_ref() {
        Some(number) => number.replace_all(line, "N").into_owned(),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: &str) {
        let known = Known { words: vec![("/tmp/x".to_owned(), "TMP")] };
        assert_eq!(lines(input, &known), [expected]);
    }

    #[test]
    fn log_directories_come_in_the_order_of_their_names() {
        let dir = |name: &str| {
            format!(r#"{{"partitions":[{{"partition":"t-0"}}],"error":null,"logDir":"{name}"}}"#)
        };
        let line = |a: &str, b: &str| format!("[{},{}]", dir(a), dir(b));
        check(&line("LOGDIR2", "LOGDIR"), &line("LOGDIR", "LOGDIR2"));
        check(&line("LOGDIR", "LOGDIR2"), &line("LOGDIR", "LOGDIR2"));
        check(&dir("LOGDIR"), &dir("LOGDIR"));
    }

    #[test]
    fn ids_times_ports_and_paths_become_words() {
        check("[2026-01-02 03:04:05,678] ERROR x", "TIME ERROR x");
        check("Topic: a\tTopicId: Zm9vYmFyYmF6cXV4MTIzNA\tx", "Topic: a\tTopicId: ID\tx");
        check("at 127.0.0.1:23400 (id: 1 rack: null)", "at ADDRESS (id: 1 rack: null)");
        check("/tmp/x/a    b  ", "TMP/a b");
        check("\tat org.apache.kafka.X(X.java:1)\nkept", "kept");
    }
}
