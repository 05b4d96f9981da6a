//! The simulated world: machines with their disks and clocks, the network between them, and time.
//!
//! Each process has a runtime of its own on the one thread, whose clock stands still unless all its tasks wait. The
//! world runs them in turn, each for the same few milliseconds, and then lets what they sent arrive: so nothing arrives
//! in the stretch in which it was sent. A crash drops a runtime with all its tasks, wherever they are.

use crate::node::{self, Progress, Role, Start};
use ottla::broker::Broker;
use ottla::env::Clock;
use ottla::env::sim_disk::{Crash, SimDisk};
use ottla::env::sim_host::SimHost;
use ottla::env::sim_net::{HostId, SimNet};
use ottla_protocol::Timestamp;
use parking_lot::Mutex;
use rustix::time::ClockId;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// When the simulation begins, in milliseconds since 1970.
const BEGINNING_MS: i64 = 1_750_000_000_000;
/// A stretch is no longer, even if nothing is on its way.
const STRETCH_MS_MAX: u64 = 5;
/// A process that ended by itself is started again after so long.
const SUPERVISOR_PAUSE_MS: u64 = 500;

/// The clock of one machine: the world's time, and an offset of its own.
#[derive(Debug)]
pub(crate) struct SimClock {
    net: Arc<SimNet>,
    offset_ms: AtomicI64,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let since = self.net.now_ms().cast_signed();
        Timestamp(BEGINNING_MS + since + self.offset_ms.load(Ordering::Relaxed))
    }

    fn steady(&self) -> Timestamp {
        Timestamp(BEGINNING_MS + self.net.now_ms().cast_signed())
    }
}

/// A process that runs.
struct Process {
    runtime: Runtime,
    progress: Arc<Mutex<Progress>>,
    stop: watch::Sender<bool>,
}

/// One machine.
pub(crate) struct Machine {
    pub(crate) role: Role,
    pub(crate) disk: SimDisk,
    pub(crate) host: Arc<SimHost>,
    id: HostId,
    clock: Arc<SimClock>,
    properties: Vec<(String, String)>,
    process: Option<Process>,
    /// How many processes it has had.
    pub(crate) lives: u64,
    /// When its process is to be started.
    start_at: Option<u64>,
    /// Its process does nothing before, as after SIGSTOP; the machine takes what comes for it.
    stands_until: u64,
    /// Milliseconds that have passed unseen by its process.
    unseen_ms: u64,
    /// The real CPU time that its processes took, where that is measured.
    pub(crate) cpu: Duration,
}

impl Machine {
    /// Lets the process run for a while, unless it stands still.
    fn go_on(&mut self, now_ms: u64, length: Duration, measures_cpu: bool) {
        let Some(process) = &self.process else { return };
        crate::log::set_machine(&self.role.host, now_ms);
        if now_ms < self.stands_until {
            self.unseen_ms += length.as_millis() as u64;
            return;
        }
        // All of it passes at once: every timer that was due meanwhile is late.
        let unseen = Duration::from_millis(std::mem::take(&mut self.unseen_ms));
        let pass = async move {
            if !unseen.is_zero() {
                tokio::time::advance(unseen).await;
            }
            tokio::time::sleep(length).await;
        };
        let before = measures_cpu.then(cpu_time);
        self.host.run(|| process.runtime.block_on(pass));
        self.cpu += before.map_or(Duration::ZERO, |before| cpu_time().saturating_sub(before));
    }
}

/// The world.
pub(crate) struct World {
    pub(crate) net: Arc<SimNet>,
    pub(crate) machines: Vec<Machine>,
    clients: Arc<SimHost>,
    runtime: Runtime,
    /// What happened, for the trace.
    pub(crate) trace: Trace,
    /// Whether the real CPU time of each machine is measured.
    pub(crate) measures_cpu: bool,
}

/// What happened: a hash always, lines where they are wanted.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) is_shown: bool,
    pub(crate) lines: Vec<String>,
}

/// The CPU time that this thread has taken.
fn cpu_time() -> Duration {
    let taken = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(taken.tv_sec.cast_unsigned(), taken.tv_nsec as u32)
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let built = builder.enable_time().start_paused(true).build();
    built.expect("a runtime without threads or sockets needs nothing that can fail")
}

impl World {
    /// Machines with these roles, whose first processes start at once, and one for the clients.
    pub(crate) fn new(seed: u64, roles: Vec<(Role, Vec<(String, String)>)>) -> World {
        let mut names: Vec<&str> = roles.iter().map(|(role, _)| role.host.as_str()).collect();
        names.push("clients");
        let net = SimNet::new(seed, &names);
        let clients_id = roles.len();
        let machine = |(id, (role, properties)): (usize, (Role, Vec<(String, String)>))| Machine {
            role,
            disk: SimDisk::new(seed.wrapping_mul(31).wrapping_add(id as u64)),
            host: SimHost::new(Arc::clone(&net), id),
            id,
            clock: Arc::new(SimClock { net: Arc::clone(&net), offset_ms: AtomicI64::new(0) }),
            properties,
            process: None,
            lives: 0,
            start_at: Some(0),
            stands_until: 0,
            unseen_ms: 0,
            cpu: Duration::ZERO,
        };
        World {
            machines: roles.into_iter().enumerate().map(machine).collect(),
            clients: SimHost::new(Arc::clone(&net), clients_id),
            runtime: runtime(),
            trace: Trace::default(),
            measures_cpu: false,
            net,
        }
    }

    /// Milliseconds since the beginning.
    pub(crate) fn now_ms(&self) -> u64 {
        self.net.now_ms()
    }

    /// The clock of the clients' machine.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SimClock { net: Arc::clone(&self.net), offset_ms: AtomicI64::new(0) })
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let line = format!("{:>7} {}", self.now_ms(), line());
        if self.trace.is_shown {
            println!("{line}");
        }
        self.trace.lines.push(line);
    }

    /// Runs a task on the clients' machine.
    pub(crate) fn spawn_client(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.clients.run(|| self.runtime.spawn(task));
    }

    /// Lets a few milliseconds pass.
    pub(crate) fn step(&mut self) {
        let now = self.now_ms();
        let stretch = self.net.next_due_ms().saturating_sub(now).clamp(1, STRETCH_MS_MAX);
        let length = Duration::from_millis(stretch);
        for at in 0..self.machines.len() {
            if self.machines[at].start_at.is_some_and(|due| due <= now) {
                self.start(at);
            }
            self.machines[at].go_on(now, length, self.measures_cpu);
            self.look_after(at);
        }
        crate::log::set_machine("clients", now);
        self.clients.run(|| self.runtime.block_on(async move { tokio::time::sleep(length).await }));
        self.net.advance(now + stretch);
    }

    fn start(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        machine.start_at = None;
        if machine.process.is_some() {
            return;
        }
        machine.lives += 1;
        (machine.stands_until, machine.unseen_ms) = (0, 0);
        self.net.power_on(machine.id);
        let progress = Arc::<Mutex<Progress>>::default();
        let (stop, stopping) = watch::channel(false);
        let start = Start {
            role: machine.role.clone(),
            properties: machine.properties.clone(),
            disk: machine.disk.clone(),
            clock: Arc::clone(&machine.clock) as Arc<dyn Clock>,
            progress: Arc::clone(&progress),
            stop: stopping,
        };
        let runtime = runtime();
        machine.host.run(|| runtime.spawn(node::run(start)));
        machine.process = Some(Process { runtime, progress, stop });
        let (host, lives) = (machine.role.host.clone(), machine.lives);
        self.note(|| format!("{host} starts, life {lives}"));
    }

    /// Starts a process again that has ended by itself, and ends one whose disk is gone.
    fn look_after(&mut self, at: usize) {
        let machine = &self.machines[at];
        let Some(process) = &machine.process else { return };
        let host = machine.role.host.clone();
        let ended = process.progress.lock().ended.clone();
        let (crash, cause) = match ended {
            Some(cause) => (Crash::Kill, cause),
            None if machine.disk.is_dead() => (Crash::Kill, "killed in a write".to_owned()),
            None => return,
        };
        self.note(|| format!("{host} has ended: {cause}"));
        self.end(at, crash);
        let due = self.now_ms() + SUPERVISOR_PAUSE_MS;
        self.machines[at].start_at = Some(due);
    }

    /// Ends the process of a machine, if it has one, and its disk keeps what such an end leaves.
    pub(crate) fn end(&mut self, at: usize, crash: Crash) {
        let machine = &mut self.machines[at];
        match crash {
            Crash::Kill => self.net.end_process(machine.id),
            Crash::PowerLoss => self.net.power_off(machine.id),
        }
        machine.disk.end_after(0);
        if let Some(process) = machine.process.take() {
            // What it holds is let go where it can still see its runtime.
            let Process { runtime, progress, stop } = process;
            machine.host.run(|| {
                let broker = progress.lock().broker.take();
                {
                    let _context = runtime.enter();
                    drop(broker);
                }
                drop(runtime);
                drop(stop);
            });
        }
        machine.disk.crash(crash);
        machine.start_at = None;
    }

    /// Starts a process on the machine in so many milliseconds, unless one runs then.
    pub(crate) fn start_in(&mut self, at: usize, ms: u64) {
        self.machines[at].start_at = Some(self.now_ms() + ms);
    }

    /// The process stands still for so many milliseconds.
    pub(crate) fn stand(&mut self, at: usize, ms: u64) {
        self.machines[at].stands_until = self.now_ms() + ms;
    }

    /// Asks the process to stop in order; it is started again by and by.
    pub(crate) fn stop_in_order(&mut self, at: usize) {
        if let Some(process) = &self.machines[at].process {
            process.stop.send_replace(true);
        }
    }

    /// Whether the process was asked to stop in order, and has not ended yet.
    pub(crate) fn is_stopping(&self, at: usize) -> bool {
        self.machines[at].process.as_ref().is_some_and(|process| *process.stop.borrow())
    }

    /// Puts the machine's clock forward, or back.
    pub(crate) fn step_clock(&mut self, at: usize, ms: i64) {
        self.machines[at].clock.offset_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// The broker of a machine that has opened its directories.
    pub(crate) fn broker(&self, at: usize) -> Option<Arc<Broker>> {
        let process = self.machines[at].process.as_ref()?;
        process.progress.lock().broker.clone()
    }

    /// Whether the process of a machine has joined the cluster.
    pub(crate) fn has_joined(&self, at: usize) -> bool {
        let process = self.machines[at].process.as_ref();
        process.is_some_and(|process| process.progress.lock().has_joined)
    }

    /// Whether the machine has a process, or gets one by itself.
    pub(crate) fn is_up(&self, at: usize) -> bool {
        self.machines[at].process.is_some() || self.machines[at].start_at.is_some()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for at in 0..self.machines.len() {
            self.end(at, Crash::Kill);
        }
    }
}
