//! Incremental fetch sessions (KIP-227): what a fetcher need not repeat, and what need not be answered again.
//!
//! Deliberately not here: reading. [`FetchSessions::begin`] says which partitions a request has to look at,
//! [`FetchContext::finish`] which of them its answer holds.
//!
//! A partition that gave nothing, and of which there is nothing to note, is quiet: no request looks at it again before
//! it is named, or says itself that it has changed. So a request costs what there is to tell, not what the session
//! holds.
//!
//! Invariants: at most `slots` sessions; a session's epoch moves with every request that it accepts; a partition that
//! had data goes to the end of its session's order, so that all get their turn under a byte limit; a quiet partition is
//! subscribed to, since before it was read.

use crate::broker::{Interest, News, Partition, Subscription};
use ottla_protocol::{ErrorCode, Timestamp, TopicId};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// No session.
pub(crate) const NO_SESSION: i32 = 0;
/// Session epoch of a request that wants a new session.
const INITIAL_EPOCH: i32 = 0;
/// Session epoch of a request that wants none.
const FINAL_EPOCH: i32 = -1;
/// A session that was not used, or exists, for so long may be evicted.
const EVICTION_MS: i64 = 120_000;

fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        FINAL_EPOCH => FINAL_EPOCH,
        i32::MAX => 1,
        epoch => epoch + 1,
    }
}

/// A topic as the request names it: by name up to version 12, by id from version 13.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TopicKey {
    Name(Arc<str>),
    Id(TopicId),
}

/// One partition that is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) topic: TopicKey,
    /// The name of a topic that is named by id, once it was known.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) partition: i32,
    pub(crate) fetch_offset: i64,
    pub(crate) max_bytes: i32,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
    /// Where a follower's log starts.
    pub(crate) log_start_offset: i64,
    /// The high watermark that a follower knows; `i64::MAX` where it does not tell (KIP-1166).
    pub(crate) high_watermark: i64,
    /// What the session has told of the high watermark and the log start offset last; -1 for nothing.
    pub(crate) told: (i64, i64),
    /// Its number within the session; 0 outside of one.
    pub(crate) member: u64,
}

/// What a read gave, as far as a session must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
    pub(crate) bytes: usize,
    pub(crate) error: ErrorCode,
    /// A preferred read replica or a diverging epoch, which are told every time.
    pub(crate) has_news: bool,
    /// Nothing can come of looking again before the partition changes.
    pub(crate) is_quiet: bool,
}

/// The session part of a fetch request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionRequest {
    pub(crate) version: i16,
    pub(crate) session_id: i32,
    pub(crate) epoch: i32,
    pub(crate) fetcher: Fetcher,
}

/// Who fetches. Followers' sessions may evict consumers'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fetcher {
    Consumer,
    Follower,
}

impl Fetcher {
    /// What it is told of.
    pub(crate) fn interest(self) -> Interest {
        match self {
            Fetcher::Consumer => Interest::Committed,
            Fetcher::Follower => Interest::Growth,
        }
    }
}

/// A partition of a session.
#[derive(Debug)]
struct Cached {
    wanted: Wanted,
    high_watermark: i64,
    log_start_offset: i64,
    /// Where it stands in the order in which partitions are read.
    place: u64,
    subscription: Option<Subscription>,
}

impl Cached {
    fn wanted(&self) -> Wanted {
        Wanted { told: (self.high_watermark, self.log_start_offset), ..self.wanted.clone() }
    }

    /// A follower that names the partition says what it knows: it may have dropped an answer that came too late, and
    /// is to be told again.
    fn hear(&mut self, named: &Wanted) {
        if named.high_watermark != i64::MAX {
            self.high_watermark = self.high_watermark.min(named.high_watermark);
        }
        if named.log_start_offset >= 0 {
            self.log_start_offset = self.log_start_offset.min(named.log_start_offset);
        }
    }
}

type Key = (TopicKey, i32);

#[derive(Debug)]
struct Session {
    id: i32,
    epoch: i32,
    fetcher: Fetcher,
    members: HashMap<u64, Cached>,
    numbers: HashMap<Key, u64>,
    /// Those that the next request looks at, as (place, member).
    active: BTreeSet<(u64, u64)>,
    /// The last member's number, and the last place.
    last: u64,
    news: Arc<News>,
}

impl Session {
    fn new(id: i32, fetcher: Fetcher) -> Self {
        Session {
            id,
            epoch: next_epoch(INITIAL_EPOCH),
            fetcher,
            members: HashMap::new(),
            numbers: HashMap::new(),
            active: BTreeSet::new(),
            last: 0,
            news: Arc::default(),
        }
    }

    fn add(&mut self, wanted: Wanted, high_watermark: i64, log_start_offset: i64) {
        self.last += 1;
        let (member, place) = (self.last, self.last);
        self.numbers.insert((wanted.topic.clone(), wanted.partition), member);
        let wanted = Wanted { member, ..wanted };
        let subscription = None;
        let cached = Cached { wanted, high_watermark, log_start_offset, place, subscription };
        self.members.insert(member, cached);
        self.active.insert((place, member));
    }

    fn update(&mut self, wanted: Vec<Wanted>, forgotten: &[Key]) {
        for item in wanted {
            let key = (item.topic.clone(), item.partition);
            let number = self.numbers.get(&key);
            match number.and_then(|member| self.members.get_mut(member)) {
                Some(cached) => {
                    let name = item.name.clone().or(cached.wanted.name.take());
                    let member = cached.wanted.member;
                    cached.hear(&item);
                    cached.wanted = Wanted { name, member, ..item };
                    self.active.insert((cached.place, member));
                }
                None => self.add(item, -1, -1),
            }
        }
        for key in forgotten {
            let member = self.numbers.remove(key);
            if let Some(cached) = member.and_then(|member| self.members.remove(&member)) {
                self.active.remove(&(cached.place, cached.wanted.member));
            }
        }
    }

    /// Makes active what has changed, and says what that is.
    fn take_news(&mut self) -> Vec<u64> {
        let mut changed = Vec::new();
        for member in self.news.take() {
            if let Some(cached) = self.members.get(&member) {
                self.active.insert((cached.place, member));
                changed.push(member);
            }
        }
        changed
    }

    fn subscribe(&mut self, member: u64, partition: &Arc<Partition>) {
        let Some(cached) = self.members.get_mut(&member) else { return };
        if !cached.subscription.as_ref().is_some_and(|it| it.is_to(partition)) {
            let interest = self.fetcher.interest();
            cached.subscription = Some(partition.subscribe(interest, &self.news, member));
        }
    }

    /// Notes what was read; whether the answer must hold it.
    fn note(&mut self, wanted: &Wanted, seen: &Seen) -> bool {
        let Some(cached) = self.members.get_mut(&wanted.member) else { return true };
        let failed = seen.error.is_err();
        let answered = seen.bytes > 0
            || cached.high_watermark != seen.high_watermark
            || cached.log_start_offset != seen.log_start_offset
            || failed
            || seen.has_news;
        // After an error the next answer holds the partition, whatever its high watermark.
        cached.high_watermark = if failed { -1 } else { seen.high_watermark };
        cached.log_start_offset = seen.log_start_offset;
        if cached.wanted.name.is_none() {
            cached.wanted.name.clone_from(&wanted.name);
        }
        if seen.bytes > 0 {
            self.active.remove(&(cached.place, wanted.member));
            self.last += 1;
            cached.place = self.last;
            self.active.insert((cached.place, wanted.member));
        } else if seen.is_quiet && cached.subscription.is_some() {
            self.active.remove(&(cached.place, wanted.member));
        }
        answered
    }
}

/// Rank among evictable sessions: consumers' before followers', small before large.
type Rank = (Fetcher, usize, i32);

#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    fetcher: Fetcher,
    uses_topic_ids: bool,
    created: Timestamp,
    last_used: Timestamp,
    size: usize,
}

impl Slot {
    fn rank(&self, id: i32) -> Rank {
        (self.fetcher, self.size, id)
    }

    fn is_old(&self, now: Timestamp) -> bool {
        now.0 - self.created.0 > EVICTION_MS
    }
}

#[derive(Debug, Default)]
struct Cache {
    sessions: HashMap<i32, Slot>,
    by_last_use: BTreeSet<(Timestamp, i32)>,
    /// Sessions that any new one may evict.
    evictable_by_all: BTreeSet<Rank>,
    /// Sessions that a follower's new one may evict.
    evictable_by_followers: BTreeSet<Rank>,
}

impl Cache {
    fn remove(&mut self, id: i32) -> Option<Slot> {
        let slot = self.sessions.remove(&id)?;
        self.by_last_use.remove(&(slot.last_used, id));
        let rank = slot.rank(id);
        self.evictable_by_all.remove(&rank);
        self.evictable_by_followers.remove(&rank);
        Some(slot)
    }

    fn touch(&mut self, id: i32, size: usize, now: Timestamp) {
        let Some(mut slot) = self.remove(id) else { return };
        slot.last_used = now;
        slot.size = size;
        self.insert(id, slot, now);
    }

    fn insert(&mut self, id: i32, slot: Slot, now: Timestamp) {
        let rank = slot.rank(id);
        if slot.is_old(now) {
            self.evictable_by_all.insert(rank);
        }
        if slot.is_old(now) || slot.fetcher == Fetcher::Consumer {
            self.evictable_by_followers.insert(rank);
        }
        self.by_last_use.insert((slot.last_used, id));
        self.sessions.insert(id, slot);
    }

    /// Makes room for a new session, if one is worth less.
    fn try_evict(&mut self, fetcher: Fetcher, size: usize, now: Timestamp) -> bool {
        let Some((last_used, oldest)) = self.by_last_use.first().copied() else { return false };
        if now.0 - last_used.0 > EVICTION_MS {
            return self.remove(oldest).is_some();
        }
        let evictable = match fetcher {
            Fetcher::Follower => &self.evictable_by_followers,
            Fetcher::Consumer => &self.evictable_by_all,
        };
        match evictable.first().copied() {
            Some(rank) if (fetcher, size, 0) >= rank => self.remove(rank.2).is_some(),
            _ => false,
        }
    }
}

/// The sessions of this broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    slots: usize,
    cache: Mutex<Cache>,
}

/// How one fetch request stands to its session.
#[derive(Debug)]
pub(crate) enum FetchContext {
    /// The request is refused with this code.
    Refused(ErrorCode),
    /// Everything is answered, nothing is remembered.
    Sessionless,
    /// Everything is answered, and remembered if there is room.
    Full { fetcher: Fetcher, uses_topic_ids: bool },
    /// News are answered.
    Incremental(Incremental),
}

/// A request within a session.
#[derive(Debug)]
pub(crate) struct Incremental {
    session: Arc<Mutex<Session>>,
    id: i32,
    /// The session's epoch while no other request has come in between.
    expected_epoch: i32,
    /// Whether there are partitions that need not be looked at.
    has_quiet: bool,
}

impl Incremental {
    /// Tells when partitions change.
    pub(crate) fn news(&self) -> Arc<News> {
        Arc::clone(&self.session.lock().news)
    }

    /// Whether there are partitions of which the request need not look.
    pub(crate) fn has_quiet(&self) -> bool {
        self.has_quiet
    }

    /// Lets the session hear of these partitions' changes from now on.
    pub(crate) fn subscribe<'p>(
        &self,
        partitions: impl Iterator<Item = (u64, &'p Arc<Partition>)>,
    ) {
        let mut session = self.session.lock();
        for (member, partition) in partitions {
            session.subscribe(member, partition);
        }
    }

    /// The partitions that have changed since the last look; `None` once another request has come.
    pub(crate) fn changed(&self) -> Option<Vec<Wanted>> {
        let mut session = self.session.lock();
        if session.epoch != self.expected_epoch {
            return None;
        }
        let changed = session.take_news();
        let known = changed.iter().filter_map(|member| session.members.get(member));
        Some(known.map(Cached::wanted).collect())
    }
}

impl FetchSessions {
    /// No sessions yet, and room for `slots` (`max.incremental.fetch.session.cache.slots`).
    pub(crate) fn new(slots: usize) -> Self {
        FetchSessions { slots, cache: Mutex::default() }
    }

    /// The partitions that the request has to look at, in the order in which they are to be read.
    pub(crate) fn begin(
        &self,
        now: Timestamp,
        request: SessionRequest,
        wanted: Vec<Wanted>,
        forgotten: &[Key],
    ) -> (FetchContext, Vec<Wanted>) {
        let SessionRequest { version, session_id, epoch, fetcher } = request;
        let uses_topic_ids = version >= 13;
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            if session_id != NO_SESSION {
                self.cache.lock().remove(session_id);
            }
            let context = match epoch {
                FINAL_EPOCH => FetchContext::Sessionless,
                _ => FetchContext::Full { fetcher, uses_topic_ids },
            };
            return (context, wanted);
        }
        let refused = |error| (FetchContext::Refused(error), Vec::new());
        let mut cache = self.cache.lock();
        let Some(slot) = cache.sessions.get(&session_id) else {
            return refused(ErrorCode::FetchSessionIdNotFound);
        };
        let shared = slot.session.clone();
        let slot_uses_topic_ids = slot.uses_topic_ids;
        let mut session = shared.lock();
        if session.epoch != epoch {
            return refused(ErrorCode::InvalidFetchSessionEpoch);
        }
        if slot_uses_topic_ids != uses_topic_ids {
            return refused(ErrorCode::FetchSessionTopicIdError);
        }
        session.update(wanted.clone(), forgotten);
        if session.members.is_empty() {
            cache.remove(session_id);
            return (FetchContext::Sessionless, wanted);
        }
        cache.touch(session_id, session.members.len(), now);
        drop(cache);
        session.epoch = next_epoch(session.epoch);
        session.take_news();
        // A request that still waits learns that it was overtaken.
        session.news.wake();
        let members = session.active.iter().filter_map(|(_, member)| session.members.get(member));
        let active: Vec<Wanted> = members.map(Cached::wanted).collect();
        let expected_epoch = session.epoch;
        let has_quiet = active.len() < session.members.len();
        drop(session);
        let incremental =
            Incremental { session: shared, id: session_id, expected_epoch, has_quiet };
        (FetchContext::Incremental(incremental), active)
    }

    fn create(
        &self,
        now: Timestamp,
        fetcher: Fetcher,
        uses_topic_ids: bool,
        results: &[(Wanted, Seen)],
    ) -> i32 {
        let mut cache = self.cache.lock();
        let full = cache.sessions.len() >= self.slots;
        if full && !cache.try_evict(fetcher, results.len(), now) {
            return NO_SESSION;
        }
        if self.slots == 0 {
            return NO_SESSION;
        }
        let id = loop {
            // Any positive number that is not taken.
            let id = (uuid::Uuid::new_v4().as_u128() as i32) & i32::MAX;
            if id != NO_SESSION && !cache.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session::new(id, fetcher);
        for (wanted, seen) in results {
            let key = (wanted.topic.clone(), wanted.partition);
            if !session.numbers.contains_key(&key) {
                session.add(wanted.clone(), seen.high_watermark, seen.log_start_offset);
            }
        }
        let size = session.members.len();
        let session = Arc::new(Mutex::new(session));
        let slot = Slot { session, fetcher, uses_topic_ids, created: now, last_used: now, size };
        cache.insert(id, slot, now);
        id
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.cache.lock().sessions.len()
    }
}

/// The session part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) error: ErrorCode,
    pub(crate) session_id: i32,
    /// For each result, whether the answer holds it.
    pub(crate) answered: Vec<bool>,
}

impl FetchContext {
    /// Notes what was read, in the order of [`FetchSessions::begin`], and says what is to be answered.
    pub(crate) fn finish(
        &self,
        sessions: &FetchSessions,
        now: Timestamp,
        results: &[(Wanted, Seen)],
    ) -> Finished {
        let all = |session_id| Finished {
            error: ErrorCode::None,
            session_id,
            answered: vec![true; results.len()],
        };
        match self {
            FetchContext::Refused(error) => {
                Finished { error: *error, session_id: NO_SESSION, answered: Vec::new() }
            }
            FetchContext::Sessionless => all(NO_SESSION),
            FetchContext::Full { fetcher, uses_topic_ids } => {
                all(sessions.create(now, *fetcher, *uses_topic_ids, results))
            }
            FetchContext::Incremental(Incremental { session, id, expected_epoch, .. }) => {
                let mut session = session.lock();
                debug_assert_eq!(session.id, *id);
                if session.epoch != *expected_epoch {
                    let error = ErrorCode::InvalidFetchSessionEpoch;
                    let answered = vec![false; results.len()];
                    return Finished { error, session_id: *id, answered };
                }
                let answered =
                    results.iter().map(|(wanted, seen)| session.note(wanted, seen)).collect();
                Finished { error: ErrorCode::None, session_id: *id, answered }
            }
        }
    }
}

#[cfg(test)]
mod tests;
