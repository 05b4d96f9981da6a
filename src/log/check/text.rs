//! A report for people, and for programs.

use super::finding::{Finding, Severity};
use super::{CheckReport, Counts};
use serde_json::{Value, json};
use std::fmt::Write as _;

impl CheckReport {
    /// Lines for a terminal; the last is the sum.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for finding in self.findings.iter() {
            let word = match finding.kind.severity() {
                Severity::Problem => "problem",
                Severity::Note => "note",
            };
            let place = place(finding);
            let (path, what) = (finding.path.display(), &finding.what);
            let _ = writeln!(text, "{word} [{}] {path}{place}: {what}", finding.kind.name());
            let _ = writeln!(text, "    remedy: {}", finding.kind.remedy());
        }
        if self.findings.not_kept() > 0 {
            let _ = writeln!(text, "and {} more of the same files", self.findings.not_kept());
        }
        let Counts { partitions, segments, batches, bytes } = self.counts;
        let _ = writeln!(
            text,
            "{partitions} partitions, {segments} segments, {batches} batches, {bytes} bytes: {} problems, {} notes",
            self.findings.problems(),
            self.findings.notes()
        );
        text
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        let findings: Vec<Value> = self.findings.iter().map(finding_json).collect();
        let Counts { partitions, segments, batches, bytes } = self.counts;
        let report = json!({
            "clean": self.is_clean(),
            "partitions": partitions,
            "segments": segments,
            "batches": batches,
            "bytes": bytes,
            "problems": self.findings.problems(),
            "notes": self.findings.notes(),
            "findings": findings,
        });
        format!("{report:#}\n")
    }
}

fn place(finding: &Finding) -> String {
    let mut place = String::new();
    if let Some(offset) = finding.offset {
        let _ = write!(place, ", offset {offset}");
    }
    if let Some(position) = finding.position {
        let _ = write!(place, ", byte {position}");
    }
    place
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": match finding.kind.severity() {
            Severity::Problem => "problem",
            Severity::Note => "note",
        },
        "kind": finding.kind.name(),
        "path": finding.path.display().to_string(),
        "offset": finding.offset.map(|offset| offset.0),
        "position": finding.position,
        "what": finding.what,
        "remedy": finding.kind.remedy(),
    })
}
