//! A load that runs beside a scenario: a program of `clients.rs` that produces numbers and commits, until it is told
//! to end.
//!
//! It produces 0, 1, 2 and so on to every partition with idempotence and prints what was acknowledged; a group in the
//! same program reads, prints the offsets that it has committed, and checks that they never go back. In the end each
//! partition must hold the numbers from 0 on, once each and in order, and all that was acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::broker::{self, Broker};
use crate::clients;
use crate::java::checked;

/// Partitions of the topic that a load writes.
pub const PARTITIONS: usize = 3;
/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a load may take to have everything delivered once it is told to end.
const END_LIMIT: Duration = Duration::from_secs(130);

/// Numbers by partition.
type Numbers = BTreeMap<usize, Vec<u64>>;

/// What a load has printed so far.
#[derive(Default)]
pub struct Progress {
    acknowledged: Numbers,
    committed: BTreeMap<usize, u64>,
    commits: usize,
    strange: Option<String>,
}

impl Progress {
    /// How many records were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.values().map(Vec::len).sum()
    }

    /// How many offsets were committed, the same ones again among them.
    pub fn commits(&self) -> usize {
        self.commits
    }

    /// How many records of each partition were acknowledged.
    pub fn ends(&self) -> [u64; PARTITIONS] {
        let count = |partition| self.acknowledged.get(&partition).map_or(0, Vec::len);
        std::array::from_fn(|partition| count(partition) as u64)
    }

    /// Whether the group has committed all records before these ends.
    pub fn has_committed(&self, ends: &[u64; PARTITIONS]) -> bool {
        let committed = |partition| self.committed.get(&partition).copied().unwrap_or_default();
        ends.iter().enumerate().all(|(partition, end)| committed(partition) >= *end)
    }

    fn take(&mut self, line: &str) {
        let mut words = line.split(' ');
        let sign = words.next();
        let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
        match (sign, numbers.as_deref()) {
            (Some("a"), Some([partition, number])) => {
                self.acknowledged.entry(*partition as usize).or_default().push(*number);
            }
            (Some("c"), Some([partition, offset])) => {
                self.commits += 1;
                self.committed.insert(*partition as usize, *offset);
            }
            (Some("ok"), _) => {}
            _ => self.strange = Some(line.to_owned()),
        }
    }
}

/// A running load; dropped, it is killed.
pub struct Load {
    topic: String,
    child: Child,
    progress: Arc<Mutex<Progress>>,
    /// Read the pipes: the program must not wait for a reader.
    readers: Option<(JoinHandle<()>, JoinHandle<String>)>,
}

impl Load {
    /// Starts the program on a topic that it makes; `padding` are bytes that each record has more than its number.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(
        command: &[String],
        broker: &Broker,
        topic: &str,
        padding: usize,
    ) -> Result<Load, String> {
        let (program, first) = command.split_first().ok_or("no program")?;
        let mut load = Command::new(program);
        load.args(first).args(["load", &broker.address(), topic, &PARTITIONS.to_string()]);
        load.arg(padding.to_string());
        load.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = load.spawn().map_err(|e| format!("{program}: {e}"))?;
        let (out, err) = (child.stdout.take().ok_or("no stdout")?, child.stderr.take());
        let progress = Arc::<Mutex<Progress>>::default();
        let shared = Arc::clone(&progress);
        let out = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                lock(&shared).take(&line);
            }
        });
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = err.map(|mut err| err.read_to_string(&mut text));
            text
        });
        Ok(Load { topic: topic.to_owned(), child, progress, readers: Some((out, err)) })
    }

    /// What it has printed so far.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    /// Waits until `holds`.
    ///
    /// # Errors
    /// If it does not within `limit`, or the program ended.
    pub fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        holds: impl Fn(&Progress) -> bool,
    ) -> Result<(), String> {
        let begin = Instant::now();
        while !holds(&self.progress()) {
            if self.child.try_wait().map_err(|e| e.to_string())?.is_some() {
                let errors = self.errors();
                return Err(format!("the load of {} ended: {errors}", self.topic));
            }
            if begin.elapsed() > limit {
                let progress = self.progress();
                let counts = (progress.acknowledged(), progress.commits());
                let topic = &self.topic;
                return Err(format!("{topic}: {what}: not so; records, commits: {counts:?}"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Waits until the group has committed all that is acknowledged now.
    ///
    /// # Errors
    /// As [`Load::wait`].
    pub fn wait_until_committed(&mut self, limit: Duration) -> Result<(), String> {
        let ends = self.progress().ends();
        self.wait("what was acknowledged is committed", limit, |now| now.has_committed(&ends))
    }

    /// Waits until so many more records are acknowledged.
    ///
    /// # Errors
    /// As [`Load::wait`].
    pub fn wait_for_more(&mut self, records: usize, limit: Duration) -> Result<(), String> {
        let before = self.progress().acknowledged();
        let what = format!("{records} more records are acknowledged");
        self.wait(&what, limit, |now| now.acknowledged() >= before + records)
    }

    /// Stops the program's process where it stands, or lets it go on.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<(), String> {
        broker::signal(self.child.id(), signal)
    }

    /// Waits until nothing was acknowledged for as long as `still`.
    ///
    /// # Errors
    /// If it always was, up to `limit`.
    pub fn wait_until_it_stands(&mut self, still: Duration, limit: Duration) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            let before = self.progress().acknowledged();
            std::thread::sleep(still);
            if self.progress().acknowledged() == before && before > 0 {
                return Ok(());
            }
        }
        Err(format!("{}: records are acknowledged all the time", self.topic))
    }

    /// Lets it end and compares what was acknowledged with what is stored; answers the number of records.
    ///
    /// # Errors
    /// If the program failed, or records were lost, doubled or are out of order.
    pub fn finish(mut self, broker: &Broker) -> Result<usize, String> {
        drop(self.child.stdin.take());
        let begin = Instant::now();
        let status = loop {
            match self.child.try_wait().map_err(|e| e.to_string())? {
                Some(status) => break status,
                None if begin.elapsed() > END_LIMIT => {
                    return Err("the load does not end".to_owned());
                }
                None => std::thread::sleep(PAUSE),
            }
        };
        let errors = self.errors();
        if !status.success() {
            return Err(format!("the load of {} failed ({status}): {errors}", self.topic));
        }
        let reader = clients::librdkafka()?;
        let mut read = Command::new(&reader[0]);
        read.args(["read", &broker.address(), &self.topic, &PARTITIONS.to_string()]);
        let text = checked(read.stdin(Stdio::null()), "reader")?;
        let progress = self.progress();
        if let Some(line) = &progress.strange {
            return Err(format!("a strange line: {line}"));
        }
        judge(&progress.acknowledged, &stored(&text)?).map_err(|e| format!("{}, {e}", self.topic))
    }

    /// What it wrote to its standard error; waits for its end.
    fn errors(&mut self) -> String {
        let Some((out, err)) = self.readers.take() else { return String::new() };
        let _ = out.join();
        err.join().unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the reader printed, by partition.
fn stored(text: &str) -> Result<Numbers, String> {
    let mut numbers = Numbers::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("r ")) {
        let parsed = line.split_once(' ').and_then(|(partition, number)| {
            Some((partition.parse().ok()?, number.parse::<u64>().ok()?))
        });
        let (partition, number) = parsed.ok_or_else(|| format!("a strange line: {line}"))?;
        numbers.entry(partition).or_default().push(number);
    }
    Ok(numbers)
}

/// Compares what was acknowledged with what is stored; answers the number of records.
fn judge(acknowledged: &Numbers, stored: &Numbers) -> Result<usize, String> {
    let mut count = 0;
    for partition in 0..PARTITIONS {
        let (none, empty) = (Vec::new(), Vec::new());
        let acknowledged = acknowledged.get(&partition).unwrap_or(&none);
        let stored = stored.get(&partition).unwrap_or(&empty);
        for pair in stored.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if after <= before {
                let what = if after == before { "duplicate" } else { "out of order" };
                return Err(format!("partition {partition}: {after} after {before}: {what}"));
            }
        }
        let lost = acknowledged.iter().find(|number| stored.binary_search(number).is_err());
        if let Some(lost) = lost {
            return Err(format!("partition {partition}: acknowledged {lost} is lost"));
        }
        if acknowledged.is_empty() {
            return Err(format!("partition {partition}: nothing was acknowledged"));
        }
        count += stored.len();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(acknowledged: &[u64], stored: &[u64], expected: Result<usize, &str>) {
        let all = |numbers: &[u64]| (0..PARTITIONS).map(|p| (p, numbers.to_vec())).collect();
        let judged = judge(&all(acknowledged), &all(stored));
        match expected {
            Ok(count) => assert_eq!(judged, Ok(count)),
            Err(part) => assert!(judged.is_err_and(|e| e.contains(part))),
        }
    }

    #[test]
    fn lost_duplicate_and_disordered_records_are_found() {
        check(&[0, 1], &[0, 1, 2], Ok(9));
        check(&[0, 2], &[0, 1], Err("lost"));
        check(&[0], &[0, 0], Err("duplicate"));
        check(&[0], &[1, 0], Err("out of order"));
        check(&[], &[], Err("nothing"));
    }

    #[test]
    fn an_offset_behind_an_acknowledged_record_of_one_partition_is_not_enough() {
        let mut progress = Progress::default();
        for partition in 0..PARTITIONS {
            progress.take(&format!("a {partition} 0"));
            progress.take(&format!("c {partition} 1"));
        }
        assert!(progress.has_committed(&progress.ends()) && progress.strange.is_none());
        progress.take("a 1 1");
        assert!(!progress.has_committed(&progress.ends()));
        assert_eq!((progress.acknowledged(), progress.commits()), (4, 3));
        progress.take("a 1");
        assert!(progress.strange.is_some());
    }
}
