//! Waiting for any of several partitions to change.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use tokio::sync::futures::Notified;

/// One partition's next change, counted from when it was made.
pub(crate) type Watch<'a> = Pin<Box<Notified<'a>>>;

/// Completes when one of them does; never when there are none.
pub(crate) async fn any_changed(watches: &mut [Watch<'_>]) {
    poll_fn(|cx| {
        let ready = |watch: &mut Watch<'_>| watch.as_mut().poll(cx).is_ready();
        if watches.iter_mut().any(ready) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Completes when one of them does, and says which have; never when there are none.
pub(crate) async fn all_changed(watches: &mut [Watch<'_>]) -> Vec<usize> {
    poll_fn(|cx| {
        let polled = watches.iter_mut().enumerate();
        let ready = polled.filter_map(|(n, watch)| watch.as_mut().poll(cx).is_ready().then_some(n));
        let changed: Vec<usize> = ready.collect();
        if changed.is_empty() { Poll::Pending } else { Poll::Ready(changed) }
    })
    .await
}
