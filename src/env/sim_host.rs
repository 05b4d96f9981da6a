//! Which simulated machine the thread works for: the driver of the simulation says so before it runs one's tasks.

use super::sim_net::{HostId, SimNet};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One simulated machine, as what runs on it sees it.
#[derive(Debug)]
pub struct SimHost {
    net: Arc<SimNet>,
    id: HostId,
    disk_delay_ms: AtomicU64,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<SimHost>>> = const { RefCell::new(None) };
}

impl SimHost {
    /// The machine `id` of the network.
    pub fn new(net: Arc<SimNet>, id: HostId) -> Arc<SimHost> {
        Arc::new(SimHost { net, id, disk_delay_ms: AtomicU64::new(0) })
    }

    /// From now on work that waits for the disk begins up to so many milliseconds late.
    pub fn set_disk_delay_ms(&self, max: u64) {
        self.disk_delay_ms.store(max, Ordering::Relaxed);
    }

    /// Runs `work` on this machine.
    pub fn run<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(Some(Arc::clone(self)));
        let done = work();
        CURRENT.set(before);
        done
    }
}

/// The network, and the machine that the thread works for.
pub(super) fn current() -> (Arc<SimNet>, HostId) {
    let host = CURRENT.with_borrow(Clone::clone);
    let host = host.expect("the simulation says for which machine it runs");
    (Arc::clone(&host.net), host.id)
}

/// Waits as long as the disk of the machine lets its users wait.
pub(super) async fn disk_is_free() {
    let host = CURRENT.with_borrow(Clone::clone);
    let Some(host) = host else { return };
    let max = host.disk_delay_ms.load(Ordering::Relaxed);
    if max > 0 {
        let delay = host.net.random_below(max + 1);
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
}
