//! A load on a cluster: a program that writes one topic, perhaps reads it as a group's only member, and prints all it
//! does as lines of a [`History`].
//!
//! The programs are `librdkafka/history.rs` and `java/client/HistoryLoad.java`. Unlike [`crate::load`] nothing is
//! judged while they run, and a record that fails does not end them.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::clients;
use crate::cluster::{self, Cluster};
use crate::history::History;
use crate::java::{KAFKA, checked};
use crate::paths::Paths;

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a load may take to have everything delivered, or failed, once it is told to end.
const END_LIMIT: Duration = Duration::from_secs(180);

/// Microseconds between two records of a client that is to go on while something is done.
pub const PAUSE_US: u64 = 1500;
/// Records that show that it does.
const MORE: usize = 300;
/// How long they may take.
const MORE_LIMIT: Duration = Duration::from_secs(90);

/// The two clients, and the commands that run their loads.
///
/// # Errors
/// If one cannot be built.
pub fn commands(paths: &Paths) -> Result<[(&'static str, Vec<String>); 2], String> {
    let java = clients::java_client(paths, KAFKA, "HistoryLoad")?;
    Ok([("librdkafka", clients::librdkafka()?), ("java", java)])
}

/// Microseconds since 1970, as the loads print them.
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// The file that takes the lines of all loads, each behind the load's name, and what was done to the cluster.
#[derive(Clone)]
pub struct Tape {
    path: PathBuf,
    file: Arc<Mutex<BufWriter<File>>>,
}

impl Tape {
    /// Makes the file, and the folder that it is in.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(path: &Path) -> Result<Tape, String> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| format!("{folder:?}: {e}"))?;
        }
        let file = File::create(path).map_err(|e| format!("{path:?}: {e}"))?;
        let file = Arc::new(Mutex::new(BufWriter::new(file)));
        Ok(Tape { path: path.to_owned(), file })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes what was done to the cluster.
    pub fn note(&self, text: &str) {
        self.line("nemesis", &format!("n {} {text}", now_us()));
    }

    fn line(&self, name: &str, line: &str) {
        // A disk that is full must not end the load; the lines are judged from memory.
        let _ = writeln!(lock(&self.file), "{name} {line}");
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&self) -> Result<(), String> {
        lock(&self.file).flush().map_err(|e| format!("{:?}: {e}", self.path))
    }
}

/// What a load writes.
pub struct Job<'a> {
    /// The topic, which is there already.
    pub topic: &'a str,
    pub partitions: usize,
    pub work: Work<'a>,
}

/// How it does.
pub enum Work<'a> {
    /// One record after another until it is told to end, with so many microseconds between two; perhaps a group reads.
    On { pause_us: u64, group: Option<&'a str> },
    /// One record to each partition whenever it is told to ([`Writer::sweep`]); the Java client alone.
    Sweeps,
}

impl Job<'_> {
    fn args(&self, servers: &str) -> Vec<String> {
        let (verb, rest) = match &self.work {
            Work::Sweeps => ("sweep", Vec::new()),
            Work::On { pause_us, group } => {
                let pause = std::iter::once(pause_us.to_string());
                ("history", pause.chain(group.map(str::to_owned)).collect())
            }
        };
        let partitions = self.partitions.to_string();
        let first = [verb, servers, self.topic, &partitions].map(str::to_owned);
        first.into_iter().chain(rest).collect()
    }
}

#[derive(Default)]
struct Shared {
    history: History,
    strange: Option<String>,
}

/// A running load; dropped, it is killed.
pub struct Writer {
    name: String,
    topic: String,
    partitions: usize,
    child: Child,
    shared: Arc<Mutex<Shared>>,
    tape: Tape,
    /// Read the pipes: the program must not wait for a reader.
    readers: Option<(JoinHandle<()>, JoinHandle<String>)>,
}

impl Writer {
    /// Starts a program.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(
        (name, command): &(&str, Vec<String>),
        servers: &str,
        job: &Job<'_>,
        tape: &Tape,
    ) -> Result<Writer, String> {
        let (program, first) = command.split_first().ok_or("no program")?;
        let mut load = Command::new(program);
        load.args(first).args(job.args(servers));
        load.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = load.spawn().map_err(|e| format!("{program}: {e}"))?;
        let (out, err) = (child.stdout.take().ok_or("no stdout")?, child.stderr.take());
        let shared = Arc::<Mutex<Shared>>::default();
        let (to, copy, name) = (Arc::clone(&shared), tape.clone(), (*name).to_owned());
        let prefix = name.clone();
        let out = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                copy.line(&prefix, &line);
                let mut shared = lock(&to);
                if let Err(e) = shared.history.take(&line) {
                    shared.strange.get_or_insert(e);
                }
            }
        });
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = err.map(|mut err| err.read_to_string(&mut text));
            text
        });
        let (topic, partitions) = (job.topic.to_owned(), job.partitions);
        let (tape, readers) = (tape.clone(), Some((out, err)));
        Ok(Writer { name, topic, partitions, child, shared, tape, readers })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Looks at what has happened so far; the program's output waits meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&lock(&self.shared).history)
    }

    /// Has one record written to each partition.
    ///
    /// # Errors
    /// If the program has ended.
    pub fn sweep(&mut self) -> Result<(), String> {
        let input = self.child.stdin.as_mut().ok_or("no standard input")?;
        input.write_all(b"\n").map_err(|e| format!("the load {}: {e}", self.name))
    }

    /// Waits until so many more records are acknowledged than now.
    ///
    /// # Errors
    /// If they are not within `limit`, or the program has ended.
    pub fn wait_for_more(&mut self, records: usize, limit: Duration) -> Result<(), String> {
        let least = self.look(History::acknowledged) + records;
        self.wait_until_acknowledged(least, limit)
    }

    /// Waits until so many records are acknowledged.
    ///
    /// # Errors
    /// As [`Writer::wait_for_more`].
    pub fn wait_until_acknowledged(&mut self, least: usize, limit: Duration) -> Result<(), String> {
        let what = format!("{least} records are acknowledged");
        self.wait(limit, &what, |history| history.acknowledged() >= least)
    }

    /// Waits until the group has read and committed as much more as this from now on.
    ///
    /// # Errors
    /// As [`Writer::wait_for_more`].
    pub fn wait_for_group(&mut self, records: usize, limit: Duration) -> Result<(), String> {
        let (read, commits) = self.look(|history| (history.read(), history.commits()));
        self.wait(limit, &format!("{records} more records read and committed"), |history| {
            history.read() >= read + records && history.commits() > commits
        })
    }

    fn wait(
        &mut self,
        limit: Duration,
        what: &str,
        holds: impl Fn(&History) -> bool,
    ) -> Result<(), String> {
        let begin = Instant::now();
        while !self.look(&holds) {
            if self.child.try_wait().map_err(|e| e.to_string())?.is_some() {
                let errors = self.errors();
                return Err(format!("the load {} ended: {errors}", self.name));
            }
            if begin.elapsed() > limit {
                let (name, limit) = (&self.name, limit.as_secs());
                let failed = self.look(|history| history.failed().len());
                return Err(format!("{name}: {what}: not within {limit} s; {failed} failed"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Lets it end, reads all that is there, and answers the whole history.
    ///
    /// # Errors
    /// If the program failed, or something cannot be read.
    pub fn finish(mut self, servers: &str) -> Result<History, String> {
        drop(self.child.stdin.take());
        let begin = Instant::now();
        let status = loop {
            match self.child.try_wait().map_err(|e| e.to_string())? {
                Some(status) => break status,
                None if begin.elapsed() > END_LIMIT => {
                    return Err(format!("the load {} does not end", self.name));
                }
                None => std::thread::sleep(PAUSE),
            }
        };
        let errors = self.errors();
        if !status.success() {
            return Err(format!("the load {} failed ({status}): {errors}", self.name));
        }
        let reader = clients::librdkafka()?;
        let mut dump = Command::new(&reader[0]);
        dump.args(["dump", servers, &self.topic, &self.partitions.to_string()]);
        let text = checked(dump.stdin(Stdio::null()), "reader")?;
        let mut shared = std::mem::take(&mut *lock(&self.shared));
        if let Some(line) = shared.strange {
            return Err(line);
        }
        for line in text.lines() {
            self.tape.line(&self.name, line);
            shared.history.take(line)?;
        }
        self.tape.flush()?;
        Ok(shared.history)
    }

    /// What it wrote to its standard error; waits for its end.
    fn errors(&mut self) -> String {
        let Some((out, err)) = self.readers.take() else { return String::new() };
        let _ = out.join();
        err.join().unwrap_or_default()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a scenario as [`cluster::keeping`] does, with a tape; if it fails, it says where that is too.
///
/// # Errors
/// Those of the scenario, and if the tape cannot be made.
pub fn taped<T>(
    paths: &Paths,
    cluster: &mut Cluster,
    name: &str,
    scenario: impl FnOnce(&mut Cluster, &Tape) -> Result<T, String>,
) -> Result<T, String> {
    let tape = Tape::create(&paths.work.join(format!("histories/{name}-{}.txt", cluster.side())))?;
    cluster::keeping(paths, cluster, name, |cluster| {
        scenario(cluster, &tape).map_err(|e| format!("{e}\nhistory: {}", tape.path().display()))
    })
}

/// Waits until all have written, and their groups read and committed, a good deal more than now.
///
/// # Errors
/// If one has not in time, or has ended.
pub fn go_on(writers: &mut [Writer]) -> Result<(), String> {
    for writer in writers {
        writer.wait_for_more(MORE, MORE_LIMIT)?;
        writer.wait_for_group(MORE, MORE_LIMIT)?;
    }
    Ok(())
}

/// Lets all end; answers a line for each, if nothing went wrong.
///
/// # Errors
/// Those of [`Writer::finish`] and [`expect_clean`].
pub fn finish_clean(writers: Vec<Writer>, servers: &str) -> Result<Vec<String>, String> {
    let finish = |writer: Writer| {
        let name = writer.name().to_owned();
        expect_clean(&name, &writer.finish(servers)?)
    };
    writers.into_iter().map(finish).collect()
}

/// Judges a history: nothing wrong in it, nothing failed; answers how much there was in it.
///
/// # Errors
/// If something is.
pub fn expect_clean(name: &str, history: &History) -> Result<String, String> {
    let verdict = history.judge();
    let failed = history.failed().len();
    if !verdict.is_clean() {
        return Err(format!("{name}, {failed} failed:\n{verdict}"));
    }
    if let Some((record, why)) = history.failed().first() {
        return Err(format!("{name}: {failed} records failed, the first {record:?}: {why}"));
    }
    if history.acknowledged() == 0 {
        return Err(format!("{name}: nothing was acknowledged"));
    }
    let (acknowledged, stored) = (history.acknowledged(), history.stored());
    let (read, commits) = (history.read(), history.commits());
    Ok(format!(
        "{name}: {acknowledged} acknowledged, {stored} stored, {read} read, {commits} commits"
    ))
}
