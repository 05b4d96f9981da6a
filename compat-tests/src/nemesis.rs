//! What is done to a cluster of three, step by step: drawn from a seed, so that a run can be done again.

use std::time::Duration;

/// One step's fault. Nodes are ids from 1 to 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a start after a while.
    Kill(i32),
    /// SIGTERM, and a start at once.
    Restart(i32),
    /// SIGSTOP, and SIGCONT after a while.
    Pause(i32),
    /// SIGKILL of two at once: the majority is gone until they are started again.
    KillTwo(i32, i32),
    /// SIGSTOP of two at once.
    PauseTwo(i32, i32),
    /// Nothing goes from the first to the second; the other way it does.
    CutOneWay(i32, i32),
    /// Nothing goes between the two.
    Cut(i32, i32),
    /// Nothing goes between this one and the others; clients reach it.
    Isolate(i32),
    /// Nothing goes between this one and the others, nor from it to clients.
    IsolateFromAll(i32),
    /// All that this one sends is slow.
    Slow(i32),
    /// The disk of this one is full to its reserve.
    FullToReserve(i32),
    /// No byte is left on the disk of this one.
    Full(i32),
    /// The time of day of this one jumps by so many milliseconds, and back after a while.
    Clock(i32, i64),
}

impl Fault {
    /// Whether it takes the majority away.
    pub fn is_of_two(self) -> bool {
        matches!(self, Fault::KillTwo(..) | Fault::PauseTwo(..))
    }
}

/// A fault and its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub fault: Fault,
    /// How long it lasts.
    pub hold: Duration,
    /// How long nothing is done after it.
    pub calm: Duration,
    /// Whether it waits until all replicas are in sync.
    pub from_sync: bool,
}

/// How far a clock jumps at the most: less than what a record's time may differ from its broker's.
const JUMP_MAX_MS: u64 = 20 * 60 * 1000;

/// An endless sequence of steps.
pub struct Schedule {
    state: u64,
    has_own: bool,
}

impl Schedule {
    /// The sequence of a seed, with or without faults of networks and disks, which the nodes have for themselves.
    pub fn new(seed: u64, has_own: bool) -> Schedule {
        Schedule { state: seed, has_own }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn fault(&mut self) -> Fault {
        let first = i32::try_from(self.below(3)).unwrap_or_default();
        let second = (first + 1 + i32::try_from(self.below(2)).unwrap_or_default()) % 3 + 1;
        let first = first + 1;
        // Faults of processes alone are the first twelve.
        let kinds = if self.has_own { 24 } else { 12 };
        match self.below(kinds) {
            0..=2 => Fault::Kill(first),
            3 | 4 => Fault::Restart(first),
            5..=7 => Fault::Pause(first),
            8 => Fault::KillTwo(first, second),
            9 => Fault::PauseTwo(first, second),
            10 | 11 => {
                let ahead = i64::try_from(self.below(2 * JUMP_MAX_MS)).unwrap_or_default();
                Fault::Clock(first, ahead - JUMP_MAX_MS.cast_signed())
            }
            12 | 13 => Fault::CutOneWay(first, second),
            14 | 15 => Fault::Cut(first, second),
            16 | 17 => Fault::Isolate(first),
            18 => Fault::IsolateFromAll(first),
            19 | 20 => Fault::Slow(first),
            21 | 22 => Fault::FullToReserve(first),
            _ => Fault::Full(first),
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let fault = self.fault();
        let hold = match fault {
            Fault::Restart(_) => Duration::ZERO,
            Fault::Kill(_) => self.millis(0, 4000),
            Fault::KillTwo(..) | Fault::PauseTwo(..) => self.millis(1000, 4000),
            _ => self.millis(1000, 5000),
        };
        let calm = self.millis(0, 3000);
        let from_sync = fault.is_of_two() || self.below(2) == 0;
        Some(Step { fault, hold, calm, from_sync })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_steps_again() {
        let steps = |seed| Schedule::new(seed, true).take(50).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }

    fn is_of_process(fault: Fault) -> bool {
        matches!(
            fault,
            Fault::Kill(_)
                | Fault::Restart(_)
                | Fault::Pause(_)
                | Fault::KillTwo(..)
                | Fault::PauseTwo(..)
                | Fault::Clock(..)
        )
    }

    #[test]
    fn steps_are_within_their_bounds() {
        for has_own in [false, true] {
            for step in Schedule::new(1, has_own).take(1000) {
                assert!(has_own || is_of_process(step.fault));
                assert!(step.from_sync || !step.fault.is_of_two());
                if let Fault::Clock(_, ahead) = step.fault {
                    assert!(ahead.unsigned_abs() <= JUMP_MAX_MS);
                }
                if let Fault::KillTwo(a, b)
                | Fault::PauseTwo(a, b)
                | Fault::Cut(a, b)
                | Fault::CutOneWay(a, b) = step.fault
                {
                    assert!(a != b && (1..=3).contains(&a) && (1..=3).contains(&b));
                }
            }
        }
    }
}
