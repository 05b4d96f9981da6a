//! Incremental fetch sessions (KIP-227): what a fetcher need not repeat, and what need not be answered again.
//!
//! Deliberately not here: reading. [`FetchSessions::begin`] says which partitions a request is about,
//! [`FetchContext::finish`] which of them its answer holds.
//! Invariants: at most `slots` sessions; a session's epoch moves with every request that it accepts; a partition that
//! had data goes to the end of its session's order, so that all get their turn under a byte limit.

use ottla_protocol::{ErrorCode, Timestamp, TopicId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

#[derive(Debug)]
struct Cached {
    wanted: Wanted,
    high_watermark: i64,
    log_start_offset: i64,
}

impl Cached {
    fn wanted(&self) -> Wanted {
        Wanted { told: (self.high_watermark, self.log_start_offset), ..self.wanted.clone() }
    }
}

type Key = (TopicKey, i32);

#[derive(Debug)]
struct Session {
    id: i32,
    epoch: i32,
    /// Partitions in the order in which they are read.
    ordered: BTreeMap<u64, Cached>,
    places: HashMap<Key, u64>,
    next_place: u64,
}

impl Session {
    fn put(&mut self, cached: Cached) {
        let key = (cached.wanted.topic.clone(), cached.wanted.partition);
        let place = self.next_place;
        self.next_place += 1;
        self.places.insert(key, place);
        self.ordered.insert(place, cached);
    }

    fn update(&mut self, wanted: Vec<Wanted>, forgotten: &[Key]) {
        for item in wanted {
            let key = (item.topic.clone(), item.partition);
            let cached = self.places.get(&key).and_then(|place| self.ordered.get_mut(place));
            match cached {
                Some(cached) => {
                    let name = item.name.clone().or(cached.wanted.name.take());
                    cached.wanted = Wanted { name, ..item };
                }
                None => {
                    self.put(Cached { wanted: item, high_watermark: -1, log_start_offset: -1 });
                }
            }
        }
        for key in forgotten {
            if let Some(place) = self.places.remove(key) {
                self.ordered.remove(&place);
            }
        }
    }

    /// Notes what was read; whether the answer must hold it.
    fn note(&mut self, wanted: &Wanted, seen: &Seen) -> bool {
        let key = (wanted.topic.clone(), wanted.partition);
        let Some(place) = self.places.get(&key).copied() else { return true };
        let Some(cached) = self.ordered.get_mut(&place) else { return true };
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
        if seen.bytes > 0
            && let Some(cached) = self.ordered.remove(&place)
        {
            self.put(cached);
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
}

impl FetchSessions {
    /// No sessions yet, and room for `slots` (`max.incremental.fetch.session.cache.slots`).
    pub(crate) fn new(slots: usize) -> Self {
        FetchSessions { slots, cache: Mutex::default() }
    }

    /// The partitions that the request is about, in the order in which they are to be read.
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
        if session.ordered.is_empty() {
            cache.remove(session_id);
            return (FetchContext::Sessionless, wanted);
        }
        cache.touch(session_id, session.ordered.len(), now);
        session.epoch = next_epoch(session.epoch);
        let all = session.ordered.values().map(Cached::wanted).collect();
        let expected_epoch = session.epoch;
        drop(session);
        let incremental = Incremental { session: shared, id: session_id, expected_epoch };
        (FetchContext::Incremental(incremental), all)
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
        let mut session = Session {
            id,
            epoch: next_epoch(INITIAL_EPOCH),
            ordered: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
        };
        for (wanted, seen) in results {
            let key = (wanted.topic.clone(), wanted.partition);
            if !session.places.contains_key(&key) {
                session.put(Cached {
                    wanted: wanted.clone(),
                    high_watermark: seen.high_watermark,
                    log_start_offset: seen.log_start_offset,
                });
            }
        }
        let size = session.ordered.len();
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
            FetchContext::Incremental(Incremental { session, id, expected_epoch }) => {
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
