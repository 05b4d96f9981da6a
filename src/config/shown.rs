//! Configuration as people read it: `ottla config`, the commented example files, the tables of COMPATIBILITY.md.

use super::key::{self, Importance, Key, Scope, Support};
use super::{Config, Source, table};
use std::fmt::Write;

const HIDDEN: &str = "[hidden]";

/// Every key that applies with its value, its source and, where it is ignored, the reason.
pub fn effective(config: &Config) -> String {
    let mut names: Vec<&str> = table::all(Scope::Broker).map(|key| key.name).collect();
    names.extend(config.values.iter().map(|(name, _)| name));
    names.sort_unstable();
    names.dedup();
    let mut text = String::new();
    for name in names {
        let key = table::find(Scope::Broker, key::base_name(name));
        let source = config.values.given(name).map_or(&Source::Default, |given| &given.source);
        let value = match key {
            Some(key) if key.is_sensitive() => config.values.given(name).map(|_| HIDDEN),
            _ => config.values.text(name),
        };
        let note = match key.map(|key| key.support) {
            Some(Support::Ignored(reason)) => format!("; ignored: {reason}"),
            Some(Support::Refused(reason)) => format!("; refused: {reason}"),
            Some(Support::Honoured) => String::new(),
            None => "; unknown".to_owned(),
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name}={}  # {source}{note}", value.unwrap_or_default());
    }
    text
}

fn honoured() -> Vec<&'static Key> {
    let shows = |key: &&Key| key.support == Support::Honoured && !key.is_internal;
    let mut keys: Vec<&Key> = table::all(Scope::Broker).filter(shows).collect();
    keys.sort_by_key(|key| key.name);
    keys
}

fn comment(key: &Key, text: &mut String) {
    let mut line = String::from("#");
    for word in key.documentation.split_whitespace() {
        if line.len() + word.len() + 1 > 100 {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let range = match key.valid_range() {
        range if range.is_empty() => String::new(),
        range => format!(", {range}"),
    };
    let _ = writeln!(text, "{line}\n# {}{range}, {}", key.kind.name(), key.update.name());
}

/// `config/ottla.toml`: every honoured key, commented out, with its default.
pub fn example_toml() -> String {
    let mut text = String::from(
        "# Every key that Ottla honours, with its default. Take the # away to set one.\n\
         # Generated from the table of keys (src/config/table); ottla config FILE shows what applies.\n",
    );
    for key in honoured() {
        text.push('\n');
        comment(key, &mut text);
        let value = match (key.kind, key.default.text()) {
            (_, None) => "\"\"".to_owned(),
            (super::Kind::List, Some("")) => "[]".to_owned(),
            (super::Kind::List, Some(items)) => {
                let items: Vec<String> = items.split(',').map(|item| format!("{item:?}")).collect();
                format!("[{}]", items.join(", "))
            }
            (super::Kind::Double, Some(number)) => number.to_ascii_lowercase(),
            (kind, Some(number)) if is_bare(kind) => number.to_owned(),
            (_, Some(other)) => format!("{other:?}"),
        };
        // Quoted, as toml cannot have both max.connections and max.connections.per.ip else.
        let _ = writeln!(text, "#{:?} = {value}", key.name);
    }
    text
}

fn is_bare(kind: super::Kind) -> bool {
    use super::Kind::{Boolean, Int, Long, Short};
    matches!(kind, Boolean | Int | Long | Short)
}

/// `config/server.properties`: the keys that matter most, in Kafka's own syntax.
pub fn example_properties() -> String {
    let mut text = String::from(
        "# Kafka's server.properties for one Ottla broker: ottla start config/server.properties\n\
         # ottla.toml has every key. Generated from the table of keys (src/config/table).\n\n\
         process.roles=broker,controller\n\
         node.id=1\n\
         listeners=PLAINTEXT://:9092\n\
         log.dirs=ottla-data\n",
    );
    const SET: &[&str] = &["process.roles", "node.id", "listeners", "log.dirs", "log.dir"];
    for key in honoured() {
        if key.importance != Importance::High || SET.contains(&key.name) {
            continue;
        }
        text.push('\n');
        comment(key, &mut text);
        let _ = writeln!(text, "#{}={}", key.name, key.default.text().unwrap_or_default());
    }
    text
}

/// The table of a scope's keys for COMPATIBILITY.md, in markdown.
pub fn compatibility(scope: Scope) -> String {
    let mut keys: Vec<&Key> = table::everything().filter(|key| key.scope == scope).collect();
    keys.sort_by_key(|key| key.name);
    let mut text =
        String::from("| Key | Default | What Ottla makes of it |\n| --- | --- | --- |\n");
    for key in keys {
        let support = match key.support {
            Support::Honoured => "honoured".to_owned(),
            Support::Ignored(reason) => format!("ignored: {reason}"),
            Support::Refused(reason) => format!("refused: {reason}"),
        };
        let age = match (key.gone, key.since) {
            (Some(last), _) => format!(" (until {last})"),
            (None, "" | "ottla") => String::new(),
            (None, since) => format!(" (since {since})"),
        };
        let default = key.default.text().unwrap_or_default().replace('|', "\\|");
        let _ = writeln!(text, "| `{}`{age} | {default} | {support} |", key.name);
    }
    text
}
