//! Work that may wait for a device, away from the runtime's workers.
//!
//! In the simulation there is one thread: such work is a task of its own there, which begins once the simulated disk
//! has let it, and takes no time itself. So nothing that is handed over here may wait for another task.

use std::time::Duration;
use tokio::task::JoinHandle;

/// Runs `work` on a thread that may wait. To be called within the runtime.
#[cfg(not(feature = "simulation"))]
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

/// Runs `work` on a thread that may wait, again after each pause that it answers, until it answers none.
#[cfg(not(feature = "simulation"))]
pub fn blocking_again(mut work: impl FnMut() -> Option<Duration> + Send + 'static) {
    drop(tokio::task::spawn_blocking(move || {
        while let Some(pause) = work() {
            std::thread::sleep(pause);
        }
    }));
}

/// How many threads may share work for which so many are wanted.
#[cfg(not(feature = "simulation"))]
pub fn threads(wanted: usize) -> usize {
    wanted
}

/// As outside of the simulation, when the host's disk has time for it.
#[cfg(feature = "simulation")]
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(async move {
        super::sim_host::disk_is_free().await;
        work()
    })
}

/// As outside of the simulation.
#[cfg(feature = "simulation")]
pub fn blocking_again(mut work: impl FnMut() -> Option<Duration> + Send + 'static) {
    drop(tokio::spawn(async move {
        super::sim_host::disk_is_free().await;
        while let Some(pause) = work() {
            tokio::time::sleep(pause).await;
        }
    }));
}

/// There is one thread.
#[cfg(feature = "simulation")]
pub fn threads(_wanted: usize) -> usize {
    1
}
