//! Values of configuration keys: from text to a typed value and back, with Kafka's messages where they are wrong.
//!
//! Source: Kafka's `ConfigDef`: what it takes and how it words what it does not.

use super::key::{Check, Key, Kind};

/// A value of a key's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a BOOLEAN.
    Boolean(bool),
    /// Of an INT, a SHORT or a LONG, within its range.
    Integer(i64),
    /// Of a DOUBLE.
    Double(f64),
    /// Of a STRING, a CLASS or a PASSWORD.
    Text(String),
    /// Of a LIST.
    List(Vec<String>),
}

impl Value {
    /// The number, where it is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The items, where it is a list.
    pub fn list(&self) -> Option<&[String]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Double(value) => f.write_str(&java_double(*value)),
            Self::Text(value) => f.write_str(value),
            Self::List(items) => f.write_str(&items.join(",")),
        }
    }
}

/// Reads `text` as a value of the key and checks its range.
///
/// # Errors
/// The message that Kafka gives for it.
pub fn parse(key: &Key, text: &str) -> Result<Value, String> {
    let value = parse_type(key.name, key.kind, text)?;
    check(key, &value)?;
    Ok(value)
}

fn invalid(name: &str, value: &str, why: &str) -> String {
    format!("Invalid value {value} for configuration {name}: {why}")
}

/// Reads `text` as a value of the type, whatever its range.
///
/// # Errors
/// The message that Kafka gives for it.
pub fn parse_type(name: &str, kind: Kind, text: &str) -> Result<Value, String> {
    // Java trims everything up to the blank.
    let trimmed = text.trim_matches(|c: char| c <= ' ');
    let integer = |min: i64, max: i64| match trimmed.parse::<i64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
        _ => Err(invalid(name, text, &format!("Not a number of type {}", kind.name()))),
    };
    match kind {
        Kind::Boolean if trimmed.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
        Kind::Boolean if trimmed.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
        Kind::Boolean => Err(invalid(name, text, "Expected value to be either true or false")),
        Kind::String | Kind::Class | Kind::Password => Ok(Value::Text(trimmed.to_owned())),
        Kind::Int => integer(i32::MIN.into(), i32::MAX.into()),
        Kind::Short => integer(i16::MIN.into(), i16::MAX.into()),
        Kind::Long => integer(i64::MIN, i64::MAX),
        Kind::Double => parse_java_double(trimmed)
            .map(Value::Double)
            .ok_or_else(|| invalid(name, text, "Not a number of type DOUBLE")),
        Kind::List if trimmed.is_empty() => Ok(Value::List(Vec::new())),
        Kind::List => parse_list(name, trimmed).map(Value::List),
    }
}

/// Items once each, in the order in which they came.
fn parse_list(name: &str, text: &str) -> Result<Vec<String>, String> {
    let blank = |c: char| c.is_ascii_whitespace() || c == '\u{b}';
    let mut items: Vec<String> = Vec::new();
    for item in text.split(',').map(|item| item.trim_matches(blank)) {
        if item.is_empty() {
            return Err(format!("Configuration '{name}' values must not be empty."));
        }
        if !items.iter().any(|known| known == item) {
            items.push(item.to_owned());
        }
    }
    Ok(items)
}

fn parse_java_double(text: &str) -> Option<f64> {
    let digits = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    let sign = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    match sign {
        "NaN" | "Infinity" => {}
        // Rust reads more spellings of these than Java does.
        _ if !sign.starts_with(|c: char| c.is_ascii_digit() || c == '.') => return None,
        _ => {}
    }
    digits.parse().ok()
}

/// A number as Java prints it.
pub fn java_double(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && magnitude.is_finite() && !(1e-3..1e7).contains(&magnitude) {
        let text = format!("{value:E}");
        return match text.split_once('E') {
            Some((mantissa, exponent)) if !mantissa.contains('.') => {
                format!("{mantissa}.0E{exponent}")
            }
            _ => text,
        };
    }
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        _ if value.is_infinite() && value > 0.0 => "Infinity".to_owned(),
        _ if value.is_infinite() => "-Infinity".to_owned(),
        _ => format!("{value:?}"),
    }
}

fn check(key: &Key, value: &Value) -> Result<(), String> {
    let fail = |why: String| Err(invalid(key.name, &shown(value), &why));
    match (key.check, value) {
        (Check::AtLeast(min), Value::Integer(number)) if *number < min => {
            fail(format!("Value must be at least {min}"))
        }
        (Check::AtLeast(min), Value::Double(number)) if *number < min as f64 => {
            fail(format!("Value must be at least {min}"))
        }
        (Check::Between(min, _), Value::Integer(number)) if *number < min => {
            fail(format!("Value must be at least {min}"))
        }
        (Check::Between(_, max), Value::Integer(number)) if *number > max => {
            fail(format!("Value must be no more than {max}"))
        }
        (Check::BetweenDouble(min, _), Value::Double(number)) if *number < min => {
            fail(format!("Value must be at least {min}"))
        }
        (Check::BetweenDouble(_, max), Value::Double(number)) if *number > max => {
            fail(format!("Value must be no more than {max}"))
        }
        (Check::OneOf(words), Value::Text(text)) if !words.contains(&text.as_str()) => {
            fail(format!("String must be one of: {}", words.join(", ")))
        }
        (Check::OneOf(words), Value::List(items)) => check_list(key, words, items),
        (Check::OneOfIgnoringCase(words), Value::Text(text))
            if !words.iter().any(|word| word.eq_ignore_ascii_case(text)) =>
        {
            fail(format!("String must be one of (case insensitive): {}", words.join(", ")))
        }
        (Check::GzipLevel, Value::Integer(number))
            if *number != -1 && !(1..=9).contains(number) =>
        {
            fail("Value must be between 1 and 9 or equal to -1".to_owned())
        }
        (Check::NonEmpty, Value::Text(text)) if text.is_empty() => {
            fail("String must be non-empty".to_owned())
        }
        (Check::ThrottledReplicas, Value::List(items)) if !are_throttled_replicas(items) => {
            fail(format!("{} {THROTTLED}", key.name))
        }
        (Check::ShareOffsetReset, Value::Text(text)) => check_share_reset(key, text),
        _ => Ok(()),
    }
}

const THROTTLED: &str = "must be the literal '*' or a list of replicas in the following format: \
                         [partitionId]:[brokerId],[partitionId]:[brokerId],...";

/// A value inside a message: lists as Java prints them.
fn shown(value: &Value) -> String {
    match value {
        Value::List(items) => format!("[{}]", items.join(", ")),
        other => other.to_string(),
    }
}

fn check_list(key: &Key, words: &[&str], items: &[String]) -> Result<(), String> {
    for item in items {
        if !words.contains(&item.as_str()) {
            let why = format!("String must be one of: {}", words.join(", "));
            return Err(invalid(key.name, item, &why));
        }
    }
    Ok(())
}

fn are_throttled_replicas(items: &[String]) -> bool {
    let is_pair = |item: &String| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        item.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker))
    };
    matches!(items, [one] if one == "*") || items.iter().all(is_pair)
}

fn check_share_reset(key: &Key, text: &str) -> Result<(), String> {
    let is_valid = match text.strip_prefix("by_duration:") {
        Some(duration) => is_iso_duration(duration),
        None => matches!(text, "latest" | "earliest"),
    };
    if is_valid {
        return Ok(());
    }
    let inner = format!(
        "Invalid value `{text}` for configuration {}. The value must be either 'earliest', \
         'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'.",
        key.name
    );
    Err(invalid(key.name, text, &inner))
}

/// Whether it is `PnDTnHnMn.nS` with at least one part and nothing negative.
fn is_iso_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['P', 'p']) else { return false };
    let upper = rest.to_ascii_uppercase();
    let (date, time) = match upper.split_once('T') {
        Some((date, time)) if !time.is_empty() => (date, time),
        Some(_) => return false,
        None => (upper.as_str(), ""),
    };
    !upper.is_empty() && is_duration_part(date, &['D']) && is_duration_part(time, &['H', 'M', 'S'])
}

fn is_duration_part(text: &str, units: &[char]) -> bool {
    let mut rest = text;
    for unit in units {
        if let Some((number, after)) = rest.split_once(*unit) {
            let digits = match number.split_once('.') {
                Some((whole, part)) if *unit == 'S' && part.len() <= 9 => [whole, part].concat(),
                Some(_) => return false,
                None => number.to_owned(),
            };
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return false;
            }
            rest = after;
        }
    }
    rest.is_empty()
}
