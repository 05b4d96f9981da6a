//! The syntax of Java's properties files, as `java.util.Properties.load` reads it.
//!
//! Logical lines (a backslash at the end of a line goes on with the next), `#` and `!` comments, `=`, `:` or blanks
//! between key and value, and escapes. Bytes that are not UTF-8 are read as ISO-8859-1.
//!
//! Invariant: every input gives a result; none panics.

/// One key and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// The key, without escapes.
    pub key: String,
    /// The value, without escapes.
    pub value: String,
    /// The line on which it begins, from 1.
    pub line: usize,
}

/// Reads a file's bytes; a key that stands more than once is in the result more than once.
///
/// # Errors
/// The line of a `\u` escape that is not four hexadecimal digits.
pub fn parse(bytes: &[u8]) -> Result<Vec<Property>, String> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    };
    let mut properties = Vec::new();
    for (line, logical) in logical_lines(&text) {
        let (key, value) = split(&logical);
        let read = |text: &str| {
            unescape(text).ok_or_else(|| format!("line {line}: Malformed \\uxxxx encoding."))
        };
        properties.push(Property { key: read(key)?, value: read(value)?, line });
    }
    Ok(properties)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Lines with their continuations joined, without comments and empty lines.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, natural) in natural_lines(text).into_iter().enumerate() {
        let trimmed = natural.trim_start_matches(is_blank);
        if open.is_none() && (trimmed.is_empty() || trimmed.starts_with(['#', '!'])) {
            continue;
        }
        let (start, mut logical) = open.take().unwrap_or((index + 1, String::new()));
        let slashes = trimmed.bytes().rev().take_while(|&byte| byte == b'\\').count();
        if slashes % 2 == 1 {
            logical.push_str(&trimmed[..trimmed.len() - 1]);
            open = Some((start, logical));
        } else {
            logical.push_str(trimmed);
            lines.push((start, logical));
        }
    }
    lines.extend(open.filter(|(_, logical)| !logical.is_empty()));
    lines
}

/// Lines that end with CR, LF or both.
fn natural_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        lines.extend(line.split('\r'));
    }
    lines
}

/// The key, up to the first separator without a backslash before it, and the value after it.
fn split(logical: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let mut end = logical.len();
    for (at, c) in logical.char_indices() {
        if !is_escaped && (is_blank(c) || c == '=' || c == ':') {
            end = at;
            break;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    let (key, rest) = logical.split_at(end);
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_blank))
}

/// The text with its escapes replaced; none where a `\u` is cut short.
fn unescape(text: &str) -> Option<String> {
    if !text.contains('\\') {
        return Some(text.to_owned());
    }
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    let mut buffer = [0; 2];
    while let Some(c) = chars.next() {
        let plain = match c {
            '\\' => match chars.next() {
                // A lone backslash at the end of the file stands for nothing.
                None => break,
                Some('u') => {
                    units.push(hex_digits(&mut chars)?);
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some(other) => other,
            },
            other => other,
        };
        units.extend_from_slice(plain.encode_utf16(&mut buffer));
    }
    Some(String::from_utf16_lossy(&units))
}

fn hex_digits(chars: &mut std::str::Chars<'_>) -> Option<u16> {
    let mut unit = 0_u16;
    for _ in 0..4 {
        let digit = chars.next()?.to_digit(16)?;
        unit = unit << 4 | u16::try_from(digit).ok()?;
    }
    Some(unit)
}

#[cfg(test)]
mod tests;
