//! Room 1: the outside world. The only door to disk, network and clock.
//!
//! Traits with a real implementation each; the simulator brings its own. No other room names
//! `std::fs`, sockets or the wall clock (`src/tidy.rs` checks it).

pub mod blocking;
pub mod clock;
pub mod cold;
pub mod disk;
pub mod net;
pub mod open_files;

pub use blocking::{blocking, blocking_again, threads};
pub use clock::{Clock, SteadyClock, SystemClock};
pub use disk::{Disk, DiskFile, LockError, LockGuard, OpenMode, RealDisk};
pub use open_files::OpenFiles;

#[cfg(test)]
pub(crate) mod faulty;
#[cfg(any(test, feature = "simulation"))]
pub mod rng;
#[cfg(any(test, feature = "simulation"))]
pub mod sim_disk;
#[cfg(feature = "simulation")]
pub mod sim_host;
#[cfg(feature = "simulation")]
pub mod sim_net;
#[cfg(feature = "simulation")]
pub mod sim_traffic;
