//! What clients did and saw while a cluster was tormented, line by line, and the checker that judges it.
//!
//! A load ([`crate::writer`]) prints one line for each thing that happens, times in microseconds since 1970:
//!
//! | Line | Meaning |
//! | --- | --- |
//! | `p TIME KEY SEQUENCE` | a record was given to the producer |
//! | `a TIME KEY SEQUENCE PARTITION OFFSET` | it was acknowledged (-1: at an offset that the client does not know) |
//! | `f TIME KEY SEQUENCE WHY` | it failed: it may be there or not |
//! | `r TIME PARTITION OFFSET KEY SEQUENCE` | the group's member read it |
//! | `k TIME PARTITION OFFSET` | the member asks to commit |
//! | `c TIME PARTITION OFFSET` | the commit was acknowledged |
//! | `o TIME PARTITION OFFSET` | this is committed, the coordinator says (-1: nothing) |
//! | `e PARTITION OFFSET KEY SEQUENCE` | it is there in the end, when all is healed; in the order of offsets |
//! | `n TIME TEXT` | what was done to the cluster; for who reads the file |
//!
//! Each key is written with sequences 0, 1, 2 and so on, to one partition. Times are not judged, only the order of the
//! lines of one program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What must not happen. Each says where it did first, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// Acknowledged, but not there in the end.
    Lost,
    /// There more than once.
    Duplicated,
    /// A sequence of a key behind a higher one.
    Reordered,
    /// There or read, but never given to the producer.
    Phantom,
    /// In the end at another offset than the one that was acknowledged.
    Moved,
    /// The group read at an offset what is not there in the end.
    DirtyRead,
    /// The group's member went over offsets that it had not read.
    Skipped,
    /// The committed offset is older than one that was acknowledged.
    OffsetWentBack,
}

/// Anomalies by kind: how many, and the first of them in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    found: BTreeMap<Anomaly, (usize, String)>,
}

impl Verdict {
    fn add(&mut self, anomaly: Anomaly, what: String) {
        self.found.entry(anomaly).or_insert((0, what)).0 += 1;
    }

    /// Whether nothing at all was found.
    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.found.iter();
        let lines = lines.map(|(kind, (count, first))| format!("{count} {kind:?}, first: {first}"));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// A record's key and sequence.
type Name = (u64, u64);
/// A partition and an offset.
type Spot = (i32, i64);

/// One topic's history, parsed.
#[derive(Debug, Default)]
pub struct History {
    sent: BTreeSet<Name>,
    /// When, what and where, in the order of the acknowledgements.
    acknowledged: Vec<(u64, Name, Spot)>,
    failed: Vec<(Name, String)>,
    read: Vec<(Spot, Name)>,
    /// `k`, `c` and `o` lines in their order.
    commits: Vec<(char, Spot)>,
    stored: Vec<(Spot, Name)>,
}

impl History {
    /// Takes one line; those of a load's end (`ok ...`) and of the nemesis say nothing.
    ///
    /// # Errors
    /// If it is none of the lines above.
    pub fn take(&mut self, line: &str) -> Result<(), String> {
        let strange = || format!("a strange line: {line}");
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let offset = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok());
        let name = |at: usize| number(at).zip(number(at + 1)).ok_or_else(strange);
        let spot = |at: usize| -> Result<Spot, String> {
            let partition = number(at).and_then(|partition| i32::try_from(partition).ok());
            partition.zip(offset(at + 1)).ok_or_else(strange)
        };
        match words[0] {
            "p" => {
                self.sent.insert(name(2)?);
            }
            "a" => self.acknowledged.push((number(1).ok_or_else(strange)?, name(2)?, spot(4)?)),
            "f" => self.failed.push((name(2)?, words.get(4..).unwrap_or_default().join(" "))),
            "r" => self.read.push((spot(2)?, name(4)?)),
            "k" => self.commits.push(('k', spot(2)?)),
            "c" => self.commits.push(('c', spot(2)?)),
            "o" => self.commits.push(('o', spot(2)?)),
            "e" => self.stored.push((spot(1)?, name(3)?)),
            "n" | "ok" => {}
            _ => return Err(strange()),
        }
        Ok(())
    }

    /// How many records were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// When the last record was acknowledged.
    pub fn last_acknowledged_us(&self) -> Option<u64> {
        self.acknowledged.iter().map(|(at, ..)| *at).max()
    }

    /// How many records the group has read, the same ones again among them.
    pub fn read(&self) -> usize {
        self.read.len()
    }

    /// How many commits were acknowledged.
    pub fn commits(&self) -> usize {
        self.commits.iter().filter(|(kind, _)| *kind == 'c').count()
    }

    /// How many records are there in the end.
    pub fn stored(&self) -> usize {
        self.stored.len()
    }

    /// Records that failed, and why.
    pub fn failed(&self) -> &[(Name, String)] {
        &self.failed
    }

    /// The longest time without an acknowledgement of one partition that has an end after `from` and a begin before
    /// `to`; in microseconds. Without an acknowledgement after `from`, none.
    pub fn longest_gap_us(&self, from: u64, to: u64) -> Option<u64> {
        let mut last: BTreeMap<i32, u64> = BTreeMap::new();
        let mut longest = None;
        for (at, _, (partition, _)) in &self.acknowledged {
            if let Some(before) = last.insert(*partition, *at) {
                // Several threads of a client may print in another order than they took the time.
                let gap = at.saturating_sub(before);
                if *at > from && before < to && longest.is_none_or(|longest| gap > longest) {
                    longest = Some(gap);
                }
            }
        }
        longest
    }

    /// Judges all of it.
    pub fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let spots = self.judge_stored(&mut verdict);
        self.judge_acknowledged(&spots, &mut verdict);
        self.judge_read(&mut verdict);
        self.judge_commits(&mut verdict);
        verdict
    }

    /// What is there: once, in order, and sent by somebody. Answers where each record is.
    fn judge_stored(&self, verdict: &mut Verdict) -> BTreeMap<Name, Spot> {
        let mut spots: BTreeMap<Name, Spot> = BTreeMap::new();
        let mut highest: BTreeMap<u64, u64> = BTreeMap::new();
        for (spot, name) in &self.stored {
            let words = format!("key {} sequence {} at {spot:?}", name.0, name.1);
            if !self.sent.contains(name) {
                verdict.add(Anomaly::Phantom, words);
                continue;
            }
            if let Some(before) = spots.get(name) {
                verdict.add(Anomaly::Duplicated, format!("{words}, also at {before:?}"));
                continue;
            }
            spots.insert(*name, *spot);
            let highest = highest.entry(name.0).or_insert(name.1);
            if name.1 < *highest {
                verdict.add(Anomaly::Reordered, format!("{words} behind sequence {highest}"));
            }
            *highest = name.1.max(*highest);
        }
        spots
    }

    fn judge_acknowledged(&self, spots: &BTreeMap<Name, Spot>, verdict: &mut Verdict) {
        for (_, name, (partition, offset)) in &self.acknowledged {
            let words = format!("key {} sequence {}", name.0, name.1);
            match spots.get(name) {
                None => {
                    let words = format!("{words}, acknowledged at {:?}", (partition, offset));
                    verdict.add(Anomaly::Lost, words);
                }
                // The client does not know the offset of a batch that the broker had already.
                Some(_) if *offset < 0 => {}
                Some(spot) if *spot != (*partition, *offset) => {
                    let words = format!("{words} at {spot:?}, not {:?}", (partition, offset));
                    verdict.add(Anomaly::Moved, words);
                }
                Some(_) => {}
            }
        }
    }

    /// What the group's only member read: what stays there, and no offset left out.
    fn judge_read(&self, verdict: &mut Verdict) {
        let stored: BTreeMap<Spot, Name> = self.stored.iter().copied().collect();
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        for (spot, name) in &self.read {
            let words = format!("key {} sequence {} at {spot:?}", name.0, name.1);
            if !self.sent.contains(name) {
                verdict.add(Anomaly::Phantom, format!("read {words}"));
            } else if stored.get(spot) != Some(name) {
                let there = stored.get(spot);
                verdict.add(Anomaly::DirtyRead, format!("{words}, where in the end is {there:?}"));
            }
            let next = next.entry(spot.0).or_insert(0);
            // It may begin again at what is committed, but never beyond what it has read.
            if spot.1 > *next {
                verdict.add(Anomaly::Skipped, format!("{spot:?} read, {next} not"));
            }
            *next = (spot.1 + 1).max(*next);
        }
    }

    /// What is committed is never older than what was acknowledged to be. A commit of which nobody knows whether it
    /// was done may be done late.
    fn judge_commits(&self, verdict: &mut Verdict) {
        let mut open: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
        let mut least: BTreeMap<i32, i64> = BTreeMap::new();
        for (kind, (partition, offset)) in &self.commits {
            let open = open.entry(*partition).or_default();
            let least = least.entry(*partition).or_insert(-1);
            match kind {
                'k' => {
                    open.insert(*offset);
                }
                'c' => {
                    open.remove(offset);
                    *least = *offset;
                }
                _ if *offset >= *least || open.contains(offset) => {}
                _ => {
                    let words = format!("partition {partition}: {offset}, not {least}");
                    verdict.add(Anomaly::OffsetWentBack, words);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
