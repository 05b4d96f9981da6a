//! What goes wrong, and when: chosen by the seed, and always mended in the end.

use crate::mutation::Mutation;
use crate::plan::{Durability, Plan};
use crate::world::World;
use ottla::env::rng::Rng;
use ottla::env::sim_disk::Crash;
use std::path::PathBuf;

/// What is mended at its time.
#[derive(Debug, Clone, Copy)]
enum Mending {
    Links,
    Disk(usize),
    Room(usize),
}

/// A partition's first segment.
const FIRST_LOG: &str = "00000000000000000000.log";
/// Operations of a disk that nobody lives to see.
const NEVER: u64 = u64::MAX >> 1;

/// The one who does it.
pub(crate) struct Nemesis {
    rng: Rng,
    plan: Plan,
    next_at: u64,
    mendings: Vec<(u64, Mending)>,
    /// With records that count in the page cache: a machine has lost power, and no other may crash until the cluster
    /// is whole. What only two machines had, one of which lost it, the other must not lose. A stop on a full disk is a
    /// crash too: it closes no log, and leaves no clean-shutdown file (KIP-966).
    is_fragile: bool,
    /// How much went wrong.
    pub(crate) count: usize,
}

impl Nemesis {
    /// For one seed; nothing happens before `begin_ms`.
    pub(crate) fn new(plan: &Plan, begin_ms: u64) -> Nemesis {
        let mut rng = Rng::new(plan.seed ^ 0x6e65_6d65);
        let next_at = begin_ms + 100 + rng.below(800) as u64;
        Nemesis {
            rng,
            plan: plan.clone(),
            next_at,
            mendings: Vec::new(),
            is_fragile: false,
            count: 0,
        }
    }

    fn ms(&mut self, min: u64, max: u64) -> u64 {
        min + self.rng.next() % (max - min)
    }

    /// Does what is due.
    pub(crate) fn act(&mut self, world: &mut World) {
        let now = world.now_ms();
        let (due, later) = self.mendings.drain(..).partition(|(at, _)| *at <= now);
        self.mendings = later;
        let due: Vec<(u64, Mending)> = due;
        if self.plan.mutation == Some(Mutation::DiskFlipsBits) && self.rng.one_in(100) {
            self.flip_bit(world);
        }
        for (_, mending) in due {
            mend(world, mending);
        }
        self.is_fragile &= !crate::run::is_whole(world, &self.plan);
        if self.next_at <= now {
            self.count += 1;
            self.strike(world);
            self.next_at = now + self.ms(150, 1500);
        }
    }

    fn strike(&mut self, world: &mut World) {
        let machine = self.rng.below(world.machines.len());
        match self.rng.below(18) {
            0..=4 | 17 if self.is_fragile => self.break_connections(world, machine),
            0..=3 => self.crash(world, machine),
            4 => self.crash_all(world),
            5 if self.is_fragile && world.machines[machine].disk.is_filling() => {
                self.break_connections(world, machine);
            }
            14 if self.is_fragile && world.is_stopping(machine) => {
                self.break_connections(world, machine);
            }
            5 => {
                world.note(|| format!("stop {machine} in order"));
                world.stop_in_order(machine);
            }
            6..=7 => self.isolate(world, machine),
            8..=9 => self.cut_one_way(world, machine),
            10 => self.slow_links(world, machine),
            11 => self.break_connections(world, machine),
            12 => {
                let ms = self.ms(1, 20_000).cast_signed() - 10_000;
                world.note(|| format!("clock of {machine} steps {ms} ms"));
                world.step_clock(machine, ms);
            }
            13 => {
                let (ms, lasts) = (self.ms(5, 300), self.ms(200, 3000));
                world.note(|| format!("disk of {machine} takes up to {ms} ms, for {lasts} ms"));
                world.machines[machine].host.set_disk_delay_ms(ms);
                self.mend_in(world, lasts, Mending::Disk(machine));
            }
            14 => {
                let (bytes, lasts) = (self.ms(0, 4000), self.ms(200, 3000));
                world.note(|| format!("disk of {machine} has {bytes} bytes left, for {lasts} ms"));
                world.machines[machine].disk.set_room(Some(bytes));
                self.mend_in(world, lasts, Mending::Room(machine));
            }
            15 | 16 => {
                let ms = self.ms(50, 5000);
                world.note(|| format!("{machine} stands still for {ms} ms"));
                world.stand(machine, ms);
            }
            _ => {
                let operations = self.ms(0, 40);
                world.note(|| format!("kill {machine} in its write after {operations} more"));
                world.machines[machine].disk.end_after(operations);
            }
        }
    }

    /// Another machine, or that of the clients.
    fn other(&mut self, world: &World, machine: usize) -> usize {
        (machine + 1 + self.rng.below(world.machines.len())) % (world.machines.len() + 1)
    }

    fn mend_in(&mut self, world: &World, ms: u64, mending: Mending) {
        self.mendings.push((world.now_ms() + ms, mending));
    }

    /// What may lose power now: with records that count in the page cache, one machine of a cluster that is whole.
    fn crash_of(&mut self, world: &World, machine: usize) -> Crash {
        let may_lose = match self.plan.durability {
            Durability::Fsync => true,
            _ if self.loses_all() => true,
            Durability::PageCache => {
                crate::run::is_whole(world, &self.plan) && world.has_joined(machine)
            }
        };
        let loses = may_lose && self.rng.one_in(2);
        let counts_in_memory = self.plan.durability == Durability::PageCache;
        self.is_fragile |= loses && counts_in_memory && !self.loses_all();
        if loses { Crash::PowerLoss } else { Crash::Kill }
    }

    fn crash(&mut self, world: &mut World, machine: usize) {
        let crash = self.crash_of(world, machine);
        if self.is_fragile {
            world.machines.iter().for_each(|machine| machine.disk.end_after(NEVER));
        }
        let back = self.ms(50, 4000);
        world.note(|| format!("crash {machine}: {crash:?}, back in {back} ms"));
        world.end(machine, crash);
        world.start_in(machine, back);
    }

    fn loses_all(&self) -> bool {
        self.plan.mutation == Some(Mutation::PageCachesLosePower)
    }

    fn flip_bit(&mut self, world: &mut World) {
        let machine = self.rng.below(world.machines.len());
        let disk = &world.machines[machine].disk;
        let is_log = |path: &PathBuf| path.starts_with("/data/t0-0") && path.ends_with(FIRST_LOG);
        if let Some((path, bytes)) = disk.image().iter().find(|(path, _)| is_log(path))
            && !bytes.is_empty()
        {
            disk.flip_bit(path, self.rng.below(bytes.len() * 8));
        }
    }

    fn crash_all(&mut self, world: &mut World) {
        let crash = match self.plan.durability {
            Durability::Fsync if self.rng.one_in(2) => Crash::PowerLoss,
            _ if self.loses_all() => Crash::PowerLoss,
            _ => Crash::Kill,
        };
        world.note(|| format!("crash all: {crash:?}"));
        for machine in 0..world.machines.len() {
            let back = self.ms(50, 1500);
            world.end(machine, crash);
            world.start_in(machine, back);
        }
    }

    fn isolate(&mut self, world: &mut World, machine: usize) {
        let lasts = self.ms(100, 4000);
        let others = 0..world.machines.len() + usize::from(self.rng.one_in(2));
        world.note(|| format!("isolate {machine} for {lasts} ms"));
        for other in others.filter(|other| *other != machine) {
            world.net.cut(machine, other);
            world.net.cut(other, machine);
        }
        self.mend_in(world, lasts, Mending::Links);
    }

    fn cut_one_way(&mut self, world: &mut World, machine: usize) {
        let lasts = self.ms(100, 4000);
        let other = self.other(world, machine);
        let is_from = self.rng.one_in(2);
        let (from, to) = if is_from { (machine, other) } else { (other, machine) };
        world.note(|| format!("cut {from} -> {to} for {lasts} ms"));
        world.net.cut(from, to);
        self.mend_in(world, lasts, Mending::Links);
    }

    fn slow_links(&mut self, world: &mut World, machine: usize) {
        let (max, lasts) = (self.ms(5, 400), self.ms(200, 3000));
        world.note(|| format!("links of {machine} take up to {max} ms, for {lasts} ms"));
        for other in (0..=world.machines.len()).filter(|other| *other != machine) {
            world.net.slow_down(machine, other, max);
            world.net.slow_down(other, machine, max);
        }
        self.mend_in(world, lasts, Mending::Links);
    }

    fn break_connections(&mut self, world: &mut World, machine: usize) {
        let other = self.other(world, machine);
        let count = 1 + self.rng.below(4);
        world.note(|| format!("break {count} connections of {machine} and {other}"));
        for _ in 0..count {
            world.net.break_connection(machine, other);
        }
    }

    /// Mends all, and starts what does not run.
    pub(crate) fn heal(&mut self, world: &mut World) {
        world.note(|| format!("heal, after {} events", self.count));
        self.mendings.clear();
        mend(world, Mending::Links);
        if self.plan.mutation == Some(Mutation::LinkStaysCut) {
            world.net.cut(0, 1);
        }
        for machine in 0..world.machines.len() {
            mend(world, Mending::Disk(machine));
            mend(world, Mending::Room(machine));
            world.machines[machine].disk.end_after(NEVER);
            world.stand(machine, 0);
            if !world.is_up(machine) {
                world.start_in(machine, 0);
            }
        }
    }
}

fn mend(world: &mut World, mending: Mending) {
    match mending {
        Mending::Links => world.net.heal(),
        Mending::Disk(machine) => world.machines[machine].host.set_disk_delay_ms(0),
        Mending::Room(machine) => world.machines[machine].disk.set_room(None),
    }
}
