//! Who is told of a partition's changes: requests that wait for one, and readers of many partitions.
//!
//! A fetch session may hold thousands of partitions of which a few change. It subscribes once to each
//! ([`Partition::subscribe`]) and then asks its [`News`] which have changed, so that its cost follows what happens.

use super::Partition;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Which changes a reader is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Those of [`Partition::changed`]: for consumers.
    Committed,
    /// Those of [`Partition::grown`]: for replicas.
    Growth,
}

/// Which partitions of a reader have changed, by the tokens that it subscribed with.
#[derive(Debug, Default)]
pub struct News {
    tokens: Mutex<BTreeSet<u64>>,
    came: Notify,
}

impl News {
    /// Completes when there are news, counted from this call on: what came before is for [`News::take`].
    pub fn came(&self) -> Notified<'_> {
        self.came.notified()
    }

    /// Lets all who wait look again.
    pub fn wake(&self) {
        self.came.notify_waiters();
    }

    /// What has changed since the last call. Whoever reads a partition after this misses nothing.
    pub fn take(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *self.tokens.lock())
    }

    fn tell(&self, token: u64) {
        if self.tokens.lock().insert(token) {
            self.came.notify_waiters();
        }
    }
}

#[derive(Debug)]
struct Subscriber {
    news: Arc<News>,
    token: u64,
}

/// A reader's subscription to one partition, which ends when this is dropped.
#[derive(Debug)]
pub struct Subscription {
    partition: Arc<Partition>,
    interest: Interest,
    subscriber: Arc<Subscriber>,
}

impl Subscription {
    /// Whether it is to this partition.
    pub fn is_to(&self, partition: &Arc<Partition>) -> bool {
        Arc::ptr_eq(&self.partition, partition)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.partition.watchers(self.interest).remove(&self.subscriber);
    }
}

/// All who are told of one kind of change.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    waiting: Notify,
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
    has_subscribers: AtomicBool,
}

impl Watchers {
    pub(super) fn notified(&self) -> Notified<'_> {
        self.waiting.notified()
    }

    pub(super) fn tell(&self) {
        self.waiting.notify_waiters();
        if self.has_subscribers.load(Ordering::SeqCst) {
            for subscriber in self.subscribers.lock().iter() {
                subscriber.news.tell(subscriber.token);
            }
        }
    }

    fn add(&self, subscriber: Arc<Subscriber>) {
        let mut all = self.subscribers.lock();
        all.push(subscriber);
        self.has_subscribers.store(true, Ordering::SeqCst);
    }

    fn remove(&self, subscriber: &Arc<Subscriber>) {
        let mut all = self.subscribers.lock();
        all.retain(|one| !Arc::ptr_eq(one, subscriber));
        self.has_subscribers.store(!all.is_empty(), Ordering::SeqCst);
    }
}

impl Partition {
    /// Completes when the high watermark moves or the partition goes away, counted from this call on.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Completes when the log grows, the high watermark moves or the partition goes away, counted from this call on.
    pub fn grown(&self) -> Notified<'_> {
        self.grown.notified()
    }

    /// Lets `news` have `token` at each change from this call on.
    pub fn subscribe(
        self: &Arc<Self>,
        interest: Interest,
        news: &Arc<News>,
        token: u64,
    ) -> Subscription {
        let subscriber = Arc::new(Subscriber { news: Arc::clone(news), token });
        self.watchers(interest).add(Arc::clone(&subscriber));
        Subscription { partition: Arc::clone(self), interest, subscriber }
    }

    fn watchers(&self, interest: Interest) -> &Watchers {
        match interest {
            Interest::Committed => &self.changed,
            Interest::Growth => &self.grown,
        }
    }

    /// Tells all who wait that something is different.
    pub(super) fn tell_all(&self) {
        self.changed.tell();
        self.grown.tell();
    }
}
