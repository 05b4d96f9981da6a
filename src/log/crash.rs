//! The crash test: random histories of a log on a disk that loses what was not synced, checked after every crash.
//!
//! [`world`] lets a history happen, [`model`] knows what must be left of it, [`checks`] are the rules. A seed decides
//! everything. `OTTLA_CRASH_SEEDS=10000` runs more of them, from `OTTLA_CRASH_FROM` on, `OTTLA_CRASH_SEED=n` one, with
//! its history.

mod checks;
mod model;
mod tests;
mod world;
