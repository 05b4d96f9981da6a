//! What passed and what did not, printed as it happens and counted for the exit status.

use std::sync::Mutex;
use std::time::Duration;

/// Shared by all sides of a run.
#[derive(Default)]
pub struct Report {
    counts: Mutex<Counts>,
}

#[derive(Default, Clone)]
struct Counts {
    passed: usize,
    pending: usize,
    failed: Vec<String>,
}

impl Report {
    pub fn passed(&self, title: &str, took: Duration) {
        println!("pass     {title} ({} ms)", took.as_millis());
        self.count(|counts| counts.passed += 1);
    }

    pub fn pending(&self, title: &str, why: Option<&str>) {
        println!("pending  {title}: {}", why.unwrap_or_default());
        self.count(|counts| counts.pending += 1);
    }

    pub fn failed(&self, title: &str, why: &str) {
        println!("FAIL     {title}\n{why}");
        self.count(|counts| counts.failed.push(title.to_owned()));
    }

    /// Prints the sum; true if nothing failed and something ran.
    pub fn close(&self) -> bool {
        let counts = match self.counts.lock() {
            Ok(counts) => counts.clone(),
            Err(_) => return false,
        };
        for title in &counts.failed {
            println!("failed: {title}");
        }
        let Counts { passed, pending, failed } = &counts;
        println!("compat: {passed} passed, {pending} pending, {} failed", failed.len());
        failed.is_empty() && passed + pending > 0
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        if let Ok(mut counts) = self.counts.lock() {
            change(&mut counts);
        }
    }
}
