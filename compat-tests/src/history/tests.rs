//! Histories that hold each anomaly, and such as only look so.

use super::*;

/// Two records of key 0, one of key 1, all acknowledged, stored, read and committed.
const GOOD: &str = "\
p 1 0 0
p 2 1 0
p 3 0 1
a 4 0 0 0 0
a 5 1 0 0 1
a 6 0 1 0 2
r 7 0 0 0 0
r 8 0 1 1 0
r 9 0 2 0 1
k 10 0 3
c 11 0 3
o 12 0 3
e 0 0 0 0
e 0 1 1 0
e 0 2 0 1
ok 3 records";

fn history(text: &str) -> History {
    let mut history = History::default();
    for line in text.lines() {
        assert_eq!(history.take(line), Ok(()));
    }
    history
}

/// The good history with one line for another (none: it goes away), and what that makes of it.
fn check(line: &str, other: &str, expected: &[(Anomaly, usize)]) {
    assert!(GOOD.contains(line), "{line}");
    let mut lines: Vec<&str> = Vec::new();
    for good in GOOD.lines() {
        if good == line { lines.extend(other.lines()) } else { lines.push(good) }
    }
    let verdict = history(&lines.join("\n")).judge();
    let found: Vec<_> = verdict.found.iter().map(|(kind, (count, _))| (*kind, *count)).collect();
    assert_eq!(found, expected, "{line:?} -> {other:?}\n{verdict}");
}

#[test]
fn a_good_history_is_clean() {
    let history = history(GOOD);
    assert!(history.judge().is_clean());
    let counts = (history.acknowledged(), history.read(), history.commits(), history.stored());
    assert_eq!(counts, (3, 3, 1, 3));
}

#[test]
fn an_acknowledged_record_that_is_not_there_is_lost() {
    check("e 0 2 0 1", "", &[(Anomaly::Lost, 1), (Anomaly::DirtyRead, 1)]);
    check("r 9 0 2 0 1", "", &[]);
}

#[test]
fn a_record_that_failed_may_be_there_or_not() {
    check("a 6 0 1 0 2", "f 6 0 1 Local: Message timed out", &[]);
    let text = GOOD.replace("a 6 0 1 0 2", "f 6 0 1 why").replace("e 0 2 0 1\n", "");
    let history = history(&text.replace("r 9 0 2 0 1\n", ""));
    assert!(history.judge().is_clean());
    assert_eq!(history.failed(), [((0, 1), "why".to_owned())]);
}

#[test]
fn a_record_that_is_there_twice_is_a_duplicate() {
    check("e 0 2 0 1", "e 0 2 0 1\ne 0 3 0 1", &[(Anomaly::Duplicated, 1)]);
}

#[test]
fn a_sequence_behind_a_higher_one_of_its_key_is_out_of_order() {
    let text = GOOD.replace("e 0 0 0 0", "e 0 0 0 1").replace("e 0 2 0 1", "e 0 2 0 0");
    let verdict = history(&text).judge();
    assert_eq!(verdict.found[&Anomaly::Reordered].0, 1);
    assert_eq!(verdict.found[&Anomaly::Moved].0, 2);
}

#[test]
fn what_nobody_sent_is_a_phantom() {
    check("ok 3 records", "e 0 3 7 7", &[(Anomaly::Phantom, 1)]);
    check("k 10 0 3", "r 9 0 3 7 7\nk 10 0 3", &[(Anomaly::Phantom, 1)]);
}

#[test]
fn a_record_is_where_it_was_acknowledged() {
    check("a 6 0 1 0 2", "a 6 0 1 0 3", &[(Anomaly::Moved, 1)]);
    check("a 6 0 1 0 2", "a 6 0 1 0 -1", &[]);
}

#[test]
fn what_was_read_stays() {
    check("r 9 0 2 0 1", "r 9 0 2 1 0", &[(Anomaly::DirtyRead, 1)]);
}

#[test]
fn a_member_reads_every_offset_and_may_begin_again() {
    check("r 8 0 1 1 0", "", &[(Anomaly::Skipped, 1)]);
    check("r 9 0 2 0 1", "r 9 0 1 1 0\nr 9 0 2 0 1", &[]);
}

#[test]
fn a_committed_offset_does_not_go_back() {
    check("o 12 0 3", "o 12 0 2", &[(Anomaly::OffsetWentBack, 1)]);
    check("o 12 0 3", "o 12 0 -1", &[(Anomaly::OffsetWentBack, 1)]);
    check("o 12 0 3", "o 12 0 4", &[]);
}

#[test]
fn a_commit_of_unknown_outcome_may_be_done_late() {
    check("k 10 0 3", "k 9 0 2\nk 10 0 3", &[]);
    let late = GOOD.replace("k 10 0 3", "k 9 0 2\nk 10 0 3").replace("o 12 0 3", "o 12 0 2");
    assert!(history(&late).judge().is_clean());
}

#[test]
fn gaps_are_those_of_one_partition_around_a_time() {
    let text = "a 10 0 0 0 0\na 20 1 0 1 0\na 30 0 1 0 1\na 90 0 2 0 2\na 95 1 1 1 1\na 99 0 3 0 3";
    let history = history(text);
    assert_eq!(history.longest_gap_us(25, 40), Some(75));
    assert_eq!(history.longest_gap_us(0, 15), Some(20));
    assert_eq!(history.longest_gap_us(91, 98), Some(75));
    assert_eq!(history.longest_gap_us(96, 98), Some(9));
    assert_eq!(history.longest_gap_us(99, 200), None);
}

#[test]
fn strange_lines_are_refused() {
    for line in ["", "x 1", "a 1 0 0 0", "e 0 0 0 x", "r 1 -1 0 0 0"] {
        assert!(History::default().take(line).is_err(), "{line:?}");
    }
}
