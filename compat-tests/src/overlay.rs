//! What a transcript's commands print otherwise with the tools of 3.9.1, as a file of its own.
//!
//! `tools/3.9.1/NAME.txt` goes with `tools/NAME.txt` and is written in the same way. It holds only
//! the steps whose lines differ, found again by their first line and, from the second such step on,
//! by `% nth N`; a step that it does not hold prints what the transcript says. Marks add to those of
//! the transcript.
//!
//! The lines of a step are those of Apache Kafka 3.9.1. Where the same command of the same tool
//! prints something else with the broker of 4.3.1, `% broker WHY` follows them and then what Apache
//! Kafka 4.3.1 prints: that is compared with Ottla, which presents itself as that broker. Both are
//! recorded; only the reason is written by hand.

use crate::broker::Side;
use crate::transcript::{Step, Transcript, Verb};

/// Stands for a reason that nobody has written yet.
const NO_REASON: &str = "?";

/// The steps of one transcript that print something else.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    differences: Vec<Difference>,
    tail: Vec<String>,
}

#[derive(Debug, Clone)]
struct Difference {
    /// With the broker of the tools' own version.
    step: Step,
    /// With the broker of 4.3.1, if that prints something else; its verb is the reason.
    newer: Option<Step>,
}

impl Overlay {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Names the line that belongs to no step.
    pub fn parse(text: &str) -> Result<Overlay, String> {
        let transcript = Transcript::parse(text)?;
        let mut differences: Vec<Difference> = Vec::new();
        for step in transcript.steps {
            if !matches!(step.verb, Verb::Broker(_)) {
                differences.push(Difference { step, newer: None });
                continue;
            }
            let line = step.line;
            match differences.last_mut() {
                Some(last) if last.newer.is_none() => last.newer = Some(step),
                _ => return Err(format!("line {line}: no lines of the older broker before it")),
            }
        }
        Ok(Overlay { differences, tail: transcript.tail })
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let steps = self.differences.iter().flat_map(|d| [Some(&d.step), d.newer.as_ref()]);
        let steps = steps.flatten().cloned().collect();
        Transcript { steps, tail: self.tail.clone() }.render()
    }

    /// The steps that say of the broker that it differs, but not why.
    pub fn unexplained(&self) -> impl Iterator<Item = &Step> {
        let is_bare = |step: &Step| match &step.verb {
            Verb::Broker(why) => why.is_empty() || why == NO_REASON,
            _ => false,
        };
        let bare = self.differences.iter().filter(move |d| d.newer.as_ref().is_some_and(is_bare));
        bare.map(|difference| &difference.step)
    }

    /// The transcript as the older tools print it with a broker of one side.
    ///
    /// # Errors
    /// If the transcript has no such step.
    pub fn apply(&self, base: &Transcript, side: Side) -> Result<Transcript, String> {
        let mut transcript = base.clone();
        for Difference { step, newer } in &self.differences {
            let (nth, line) = (step.marks.nth.unwrap_or(1), step.line);
            let mut steps = transcript.steps.iter_mut().filter(|found| found.verb == step.verb);
            let found = nth.checked_sub(1).and_then(|before| steps.nth(before));
            let found = found.ok_or_else(|| format!("line {line}: not in the transcript"))?;
            found.marks.sort |= step.marks.sort;
            found.marks.retry |= step.marks.retry;
            found.marks.numbers |= step.marks.numbers;
            found.marks.pending = step.marks.pending.clone().or(found.marks.pending.take());
            let expected = match (side, newer) {
                (Side::Ottla | Side::Kafka, Some(newer)) => &newer.expected,
                _ => &step.expected,
            };
            found.expected.clone_from(expected);
        }
        Ok(transcript)
    }

    /// The overlay anew from what the same steps printed: what the transcript says, what the older
    /// broker and what the broker of 4.3.1 answered. Comments, marks and reasons are kept.
    pub fn record(&self, base: &Transcript, older: &Transcript, newer: &Transcript) -> Overlay {
        let mut differences = Vec::new();
        for (index, step) in base.steps.iter().enumerate() {
            let (Some(older), Some(newer)) = (older.steps.get(index), newer.steps.get(index))
            else {
                break;
            };
            if older.expected == step.expected && newer.expected == step.expected {
                continue;
            }
            let nth = 1 + base.steps[..index].iter().filter(|s| s.verb == step.verb).count();
            let mut difference = self.find(step, nth).unwrap_or_else(|| Difference::new(step, nth));
            difference.step.expected.clone_from(&older.expected);
            let why = difference.newer.take().unwrap_or_else(no_reason);
            if newer.expected != older.expected {
                difference.newer = Some(Step { expected: newer.expected.clone(), ..why });
            }
            differences.push(difference);
        }
        Overlay { differences, tail: self.tail.clone() }
    }

    fn find(&self, step: &Step, nth: usize) -> Option<Difference> {
        let is_it =
            |d: &&Difference| d.step.verb == step.verb && d.step.marks.nth.unwrap_or(1) == nth;
        self.differences.iter().find(is_it).cloned()
    }
}

impl Difference {
    fn new(step: &Step, nth: usize) -> Difference {
        let is_first_line = |line: &&String| line.starts_with("$ ") || line.starts_with("% ");
        let mut head: Vec<String> =
            step.head.iter().find(is_first_line).cloned().into_iter().collect();
        if nth > 1 {
            head.push(format!("% nth {nth}"));
        }
        let (marks, input, expected) = Default::default();
        let step = Step { verb: step.verb.clone(), marks, input, head, expected, line: step.line };
        Difference { step, newer: None }
    }
}

fn no_reason() -> Step {
    Step {
        verb: Verb::Broker(NO_REASON.to_owned()),
        marks: Default::default(),
        input: String::new(),
        head: vec![format!("% broker {NO_REASON}")],
        expected: Vec::new(),
        line: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "$ a\n> 1\n$ b\n> 2\n$ a\n% sort\n> 3\n";

    fn transcript(text: &str) -> Transcript {
        Transcript::parse(text).expect("it is well formed")
    }

    fn overlay(text: &str) -> Overlay {
        Overlay::parse(text).expect("it is well formed")
    }

    fn expected(overlay: &Overlay, side: Side) -> Vec<String> {
        let transcript = overlay.apply(&transcript(BASE), side).expect("it fits");
        transcript.steps.into_iter().flat_map(|step| step.expected).collect()
    }

    #[test]
    fn only_the_steps_that_it_holds_differ() {
        let overlay = overlay("$ a\n% nth 2\n> 4\n% broker new key\n> 5\n");
        assert_eq!(expected(&overlay, Side::KafkaOlder), ["> 1", "> 2", "> 4"]);
        assert_eq!(expected(&overlay, Side::Kafka), ["> 1", "> 2", "> 5"]);
        assert_eq!(expected(&overlay, Side::Ottla), ["> 1", "> 2", "> 5"]);
    }

    #[test]
    fn recording_keeps_comments_and_reasons_and_drops_what_is_equal() {
        let text = "# why\n$ a\n% nth 2\n> 9\n% broker new key\n> 5\n";
        let base = transcript(BASE);
        let (mut older, mut newer) = (base.clone(), base.clone());
        assert_eq!(overlay(text).record(&base, &older, &newer).render(), "\n");
        newer.steps[2].expected = vec!["> 5".to_owned()];
        older.steps[0].expected = vec!["> 0".to_owned()];
        let recorded = overlay(text).record(&base, &older, &newer);
        let lines = "$ a\n> 0\n% broker ?\n> 1\n# why\n$ a\n% nth 2\n> 3\n% broker new key\n> 5\n";
        assert_eq!(recorded.render(), lines);
        assert_eq!(recorded.unexplained().count(), 1);
    }

    #[test]
    fn a_step_that_is_not_in_the_transcript_is_an_error() {
        for text in ["$ c\n> 1\n", "$ b\n% nth 2\n> 1\n", "$ b\n% nth 0\n> 1\n"] {
            assert!(overlay(text).apply(&transcript(BASE), Side::Kafka).is_err());
        }
        assert!(Overlay::parse("% broker why\n> 1\n").is_err());
    }
}
