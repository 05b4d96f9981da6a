//! Scenarios of command lines with what Apache Kafka prints for them, as text files.
//!
//! A step begins with `$ COMMAND ARGS` or with `% VERB`; `<` lines are its input, `%` lines after a
//! command say how to compare, `>` is standard output, `!` standard error, `=` the exit status.
//! `BROKER`, `TMP` and `LOGDIR` stand for the address, a scratch directory and the log directory, `LOGDIR2` for a
//! second one.
//!
//! Verbs: `% file NAME` writes the input to `TMP/NAME`; `% stop NAME` ends a command that runs in
//! the background and compares what it printed, `% wait NAME` lets it end by itself; `% restart`
//! restarts the broker in order.
//! Marks: `% background NAME`; `% sort` compares lines in any order; `% retry` runs the command
//! again until it prints what is expected; `% numbers` ignores figures; `% pending WHY` says that
//! the Ottla broker does not do so yet. `% nth N` and the verb `% broker WHY` belong to the files of
//! [`crate::overlay`], which say what the tools of 3.9.1 print otherwise.

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    Run(String),
    File(String),
    Stop(String),
    Wait(String),
    Restart,
    Broker(String),
}

/// How the output of a step is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    pub background: Option<String>,
    pub sort: bool,
    pub retry: bool,
    pub numbers: bool,
    pub pending: Option<String>,
    pub nth: Option<usize>,
}

/// One step, with the lines it is written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub verb: Verb,
    pub marks: Marks,
    pub input: String,
    /// The lines before the expected ones, as they stand in the file.
    pub head: Vec<String>,
    /// The expected lines, each with its sign.
    pub expected: Vec<String>,
    /// The number of the line that the step begins in.
    pub line: usize,
}

/// A parsed file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    pub steps: Vec<Step>,
    /// Comments after the last step.
    pub tail: Vec<String>,
}

impl Transcript {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Names the line that is neither a step nor belongs to one.
    pub fn parse(text: &str) -> Result<Transcript, String> {
        let mut transcript = Transcript::default();
        let mut between: Vec<String> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                between.push(line.to_owned());
                continue;
            }
            if let Some(verb) = verb_of(line) {
                let mut head = std::mem::take(&mut between);
                head.push(line.to_owned());
                let (marks, input, expected) = Default::default();
                let step = Step { verb, marks, input, head, expected, line: index + 1 };
                transcript.steps.push(step);
                continue;
            }
            let bad = || format!("line {}: {line:?} belongs to no step", index + 1);
            let step =
                transcript.steps.last_mut().filter(|_| between.is_empty()).ok_or_else(bad)?;
            step.take(line).ok_or_else(bad)?;
        }
        transcript.tail = between;
        Ok(transcript)
    }

    /// The file's text with other expected lines in place.
    pub fn render(&self) -> String {
        let mut lines: Vec<&str> = Vec::new();
        for step in &self.steps {
            lines.extend(step.head.iter().map(String::as_str));
            lines.extend(step.expected.iter().map(String::as_str));
        }
        lines.extend(self.tail.iter().map(String::as_str));
        lines.join("\n") + "\n"
    }
}

impl Step {
    fn take(&mut self, line: &str) -> Option<()> {
        let rest = line.get(1..)?;
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        match line.as_bytes().first()? {
            b'>' | b'!' | b'=' => {
                self.expected.push(line.to_owned());
                return Some(());
            }
            b'<' => {
                self.input.push_str(rest);
                self.input.push('\n');
            }
            b'%' => self.mark(rest)?,
            _ => return None,
        }
        self.head.push(line.to_owned());
        Some(())
    }

    fn mark(&mut self, text: &str) -> Option<()> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "background" => self.marks.background = Some(rest.to_owned()),
            "sort" => self.marks.sort = true,
            "retry" => self.marks.retry = true,
            "numbers" => self.marks.numbers = true,
            "pending" => self.marks.pending = Some(rest.to_owned()),
            "nth" => self.marks.nth = Some(rest.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

fn verb_of(line: &str) -> Option<Verb> {
    if let Some(command) = line.strip_prefix("$ ") {
        return Some(Verb::Run(command.to_owned()));
    }
    let (word, rest) = line.strip_prefix("% ").map(|t| t.split_once(' ').unwrap_or((t, "")))?;
    match word {
        "file" => Some(Verb::File(rest.to_owned())),
        "stop" => Some(Verb::Stop(rest.to_owned())),
        "wait" => Some(Verb::Wait(rest.to_owned())),
        "restart" => Some(Verb::Restart),
        "broker" => Some(Verb::Broker(rest.to_owned())),
        _ => None,
    }
}

/// Splits a command line into words; `'` and `"` group, nothing else is special.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_renders_as_it_was_read() {
        let text = "# why\n$ kafka-topics --create\n% sort\n< in\n> out\n! err\n= 1\n\n% restart\n";
        let transcript = Transcript::parse(text).expect("it is well formed");
        assert_eq!(transcript.render(), text);
        assert_eq!(transcript.steps[0].expected, ["> out", "! err", "= 1"]);
        assert_eq!(transcript.steps[0].input, "in\n");
        assert!(transcript.steps[0].marks.sort);
        assert_eq!(transcript.steps[1].verb, Verb::Restart);
    }

    #[test]
    fn a_line_of_no_step_is_an_error() {
        assert!(Transcript::parse("> out\n").is_err());
        assert!(Transcript::parse("$ a\nnonsense\n").is_err());
    }

    #[test]
    fn quotes_group_words() {
        assert_eq!(words(r#"a 'b c' "" d"e f""#), ["a", "b c", "", "de f"]);
    }
}
