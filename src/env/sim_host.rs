//! Which simulated machine the thread works for: the driver of the simulation says so before it runs one's tasks.

use super::sim_net::{HostId, SimNet};
use ottla_protocol::Offset;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// One simulated machine, as what runs on it sees it.
#[derive(Debug)]
pub struct SimHost {
    net: Arc<SimNet>,
    id: HostId,
    disk_delay_ms: AtomicU64,
    high_watermark_goes_back: AtomicBool,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<SimHost>>> = const { RefCell::new(None) };
}

impl SimHost {
    /// The machine `id` of the network.
    pub fn new(net: Arc<SimNet>, id: HostId) -> Arc<SimHost> {
        Arc::new(SimHost {
            net,
            id,
            disk_delay_ms: AtomicU64::new(0),
            high_watermark_goes_back: AtomicBool::new(false),
        })
    }

    /// From now on work that waits for the disk begins up to so many milliseconds late.
    pub fn set_disk_delay_ms(&self, max: u64) {
        self.disk_delay_ms.store(max, Ordering::Relaxed);
    }

    /// Breaks a rule on purpose: leaders tell an older high watermark now and then.
    pub fn set_high_watermark_goes_back(&self, goes_back: bool) {
        self.high_watermark_goes_back.store(goes_back, Ordering::Relaxed);
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

/// The high watermark that a partition tells, which is the given one unless that rule is broken on purpose.
pub fn told_high_watermark(offset: Offset) -> Offset {
    let host = CURRENT.with_borrow(Clone::clone);
    match host {
        Some(host)
            if host.high_watermark_goes_back.load(Ordering::Relaxed)
                && host.net.random_below(20) == 0 =>
        {
            Offset((offset.0 - 5).max(0))
        }
        _ => offset,
    }
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
