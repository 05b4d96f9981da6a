//! A fetch that waits until there is enough to answer with.
//!
//! It subscribes to its partitions, or its session has, and reads again those that say that they have changed.

use super::{Fetch, Found};
use crate::broker::{News, Subscription};
use crate::server::fetch_session::{FetchContext, Fetcher, Wanted};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long news of the high watermark alone wait for records to go with.
const NEWS_DELAY: Duration = Duration::from_millis(5);

impl Fetch<'_> {
    /// Reads again whenever a partition changes, until there is enough, time is up or the server stops.
    pub(super) async fn wait(&mut self) -> Vec<Found> {
        let expired = tokio::time::sleep_until(self.deadline.unwrap_or_else(Instant::now));
        let stopped = self.ctx.shared.stopped();
        tokio::pin!(expired, stopped);
        let mut watch = Watch::new(self);
        let mut found = self.read_all().await;
        let mut news_due = None;
        loop {
            if self.is_complete(&found) {
                return found;
            }
            if self.has_news(&found) {
                news_due.get_or_insert_with(|| Instant::now() + NEWS_DELAY);
            }
            let news = Arc::clone(&watch.news);
            let came = news.came();
            // It was overtaken by another of its session where nothing is said.
            let Some(changed) = watch.changed(self) else { return found };
            if changed.is_empty() {
                tokio::select! {
                    biased;
                    () = came => continue,
                    () = until(news_due) => return found,
                    // Nothing has changed since they were read.
                    () = &mut expired => return found,
                    () = &mut stopped => return found,
                }
            }
            if found.iter().any(|found| found.available() > 0) {
                // How much there may be of one partition rests on the others.
                found = self.read_all().await;
                continue;
            }
            for (at, again) in changed.iter().zip(self.read_some(&changed).await) {
                match found.get_mut(*at) {
                    Some(before) => *before = again,
                    None => found.push(again),
                }
            }
            // One that went away while it was waited for is told at once, as in Kafka's DelayedFetch.
            if changed.iter().any(|at| found[*at].partition.is_none()) {
                return found;
            }
        }
    }

    /// Looks at a partition of the session too; where it stands in `wanted`.
    fn add(&mut self, wanted: Wanted) -> usize {
        let at = self.wanted.len();
        self.partitions.push(self.find_partition(&wanted).ok());
        self.wanted.push(wanted);
        self.subscribe(at);
        at
    }

    fn has_news(&self, found: &[Found]) -> bool {
        self.fetcher == Fetcher::Follower
            && self.wanted.iter().zip(found).any(|(wanted, found)| found.has_news_for(wanted))
    }
}

/// How a fetch that waits hears of changes.
struct Watch {
    news: Arc<News>,
    /// Of a fetch without a session, to each of its partitions, by their places.
    _subscriptions: Vec<Subscription>,
    /// Where the session's members stand in the fetch.
    places: HashMap<u64, usize>,
}

impl Watch {
    fn new(fetch: &Fetch<'_>) -> Watch {
        if let FetchContext::Incremental(session) = &fetch.context {
            let members = fetch.wanted.iter().enumerate();
            let places = members.map(|(at, wanted)| (wanted.member, at)).collect();
            return Watch { news: session.news(), _subscriptions: Vec::new(), places };
        }
        let news = Arc::<News>::default();
        let interest = fetch.fetcher.interest();
        let found = (0..fetch.wanted.len()).filter_map(|at| Some((at, fetch.partition(at).ok()?)));
        let subscribed = found.map(|(at, it)| it.subscribe(interest, &news, at as u64));
        let _subscriptions = subscribed.collect();
        Watch { news, _subscriptions, places: HashMap::new() }
    }

    /// The places of what has changed since the last call; `None` once the fetch is of no use any more.
    fn changed(&mut self, fetch: &mut Fetch<'_>) -> Option<Vec<usize>> {
        let FetchContext::Incremental(session) = &fetch.context else {
            return Some(self.news.take().into_iter().map(|at| at as usize).collect());
        };
        let mut changed = Vec::new();
        for wanted in session.changed()? {
            let member = wanted.member;
            let at = *self.places.entry(member).or_insert_with(|| fetch.add(wanted));
            changed.push(at);
        }
        Some(changed)
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
