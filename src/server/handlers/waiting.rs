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
