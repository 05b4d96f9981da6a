//! The contract of the host, with a machine that counts.

use super::*;
use crate::env::SystemClock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Adds numbers; its state changes in `replay` only.
#[derive(Debug, Default)]
struct Counter {
    sum: i64,
}

impl Machine for Counter {
    type Request = i64;
    type Record = i64;
    type Effect = (RequestId, i64);

    fn handle(&mut self, _now: Timestamp, id: RequestId, request: i64) -> Output<Self> {
        let records = if request == 0 { Vec::new() } else { vec![request] };
        Output { records, effects: vec![(id, self.sum + request)] }
    }

    fn tick(&mut self, _now: Timestamp) -> Output<Self> {
        Output::none()
    }

    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    fn replay(&mut self, entry: &Entry<i64>) {
        self.sum += entry.record;
    }
}

#[derive(Default)]
struct TestLog {
    end: AtomicI64,
    committed: AtomicI64,
    published: AtomicI64,
    is_broken: AtomicBool,
    is_full: AtomicBool,
    is_lost: AtomicBool,
    moved: Notify,
}

impl Stage for Arc<TestLog> {
    type Machine = Counter;
    type Reply = i64;

    fn append(&self, _now: Timestamp, records: &[i64]) -> Result<Offset, HostError> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(HostError::NotActive);
        }
        if self.is_full.load(Ordering::SeqCst) {
            return Err(HostError::NoSpace);
        }
        Ok(Offset(self.end.fetch_add(records.len() as i64, Ordering::SeqCst)))
    }

    fn committed(&self) -> Offset {
        Offset(self.committed.load(Ordering::SeqCst))
    }

    async fn commit_moved(&self) {
        self.moved.notified().await;
    }

    fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::SeqCst)
    }

    fn publish(&self, machine: &mut Counter) {
        self.published.store(machine.sum, Ordering::SeqCst);
    }

    fn perform(&self, effect: (RequestId, i64)) -> Option<(RequestId, i64)> {
        Some(effect)
    }
}

fn host() -> (Arc<TestLog>, Arc<Host<Arc<TestLog>>>) {
    let log = Arc::new(TestLog::default());
    let clock = Arc::new(SystemClock);
    let host = Host::new(Arc::clone(&log), clock, Counter::default(), Offset(0));
    (log, host)
}

#[tokio::test]
async fn no_reply_leaves_before_its_record_is_committed() {
    let (log, host) = host();
    let task = tokio::spawn(Arc::clone(&host).run());
    let mut waiting = Box::pin(host.call(5));
    assert!(futures_now(&mut waiting).is_none());
    assert_eq!(log.published.load(Ordering::SeqCst), 0);
    log.committed.store(1, Ordering::SeqCst);
    log.moved.notify_one();
    assert_eq!(waiting.await, Ok(5));
    assert_eq!(log.published.load(Ordering::SeqCst), 5);
    host.resign();
    task.await.expect("the driver ends when the machine is gone");
}

#[tokio::test]
async fn reply_without_records_waits_for_the_last_record_written() {
    let (log, host) = host();
    let mut first = Box::pin(host.call(5));
    assert!(futures_now(&mut first).is_none());
    let mut look = Box::pin(host.call(0));
    assert!(futures_now(&mut look).is_none(), "it rests on a record that is not committed");
    log.committed.store(1, Ordering::SeqCst);
    host.look_at_commits();
    assert_eq!((first.await, look.await), (Ok(5), Ok(5)));
}

#[tokio::test]
async fn append_without_space_costs_its_own_request_alone() {
    let (log, host) = host();
    let mut first = Box::pin(host.call(5));
    assert!(futures_now(&mut first).is_none());
    log.is_full.store(true, Ordering::SeqCst);
    assert_eq!(host.call(6).await, Err(HostError::NoSpace));
    log.is_full.store(false, Ordering::SeqCst);
    let mut third = Box::pin(host.call(7));
    assert!(futures_now(&mut third).is_none());
    log.committed.store(2, Ordering::SeqCst);
    host.look_at_commits();
    assert_eq!((first.await, third.await), (Ok(5), Ok(12)), "the 6 was never added");
}

#[tokio::test]
async fn failed_append_drops_the_machine_and_every_waiting_request() {
    let (log, host) = host();
    let mut first = Box::pin(host.call(5));
    assert!(futures_now(&mut first).is_none());
    log.is_broken.store(true, Ordering::SeqCst);
    assert_eq!(host.call(6).await, Err(HostError::NotActive));
    assert_eq!(first.await, Err(HostError::NotActive));
    assert_eq!(host.call(0).await, Err(HostError::NotActive));
}

#[tokio::test]
async fn lost_log_drops_the_machine_and_every_waiting_request() {
    let (log, host) = host();
    let task = tokio::spawn(Arc::clone(&host).run());
    let mut waiting = Box::pin(host.call(5));
    assert!(futures_now(&mut waiting).is_none());
    log.is_lost.store(true, Ordering::SeqCst);
    log.moved.notify_one();
    assert_eq!(waiting.await, Err(HostError::NotActive));
    task.await.expect("the driver ends when the machine is gone");
}

/// Polls a future once.
fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
