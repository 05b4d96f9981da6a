use super::*;

fn wanted(topic: &str, partition: i32) -> Wanted {
    Wanted {
        topic: TopicKey::Name(topic.into()),
        name: Some(topic.into()),
        partition,
        fetch_offset: 0,
        max_bytes: 100,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        high_watermark: i64::MAX,
        told: (-1, -1),
        member: 0,
    }
}

fn seen(high_watermark: i64, bytes: usize) -> Seen {
    Seen {
        high_watermark,
        log_start_offset: 0,
        bytes,
        error: ErrorCode::None,
        has_news: false,
        is_quiet: false,
    }
}

fn request(session_id: i32, epoch: i32) -> SessionRequest {
    SessionRequest { version: 12, session_id, epoch, fetcher: Fetcher::Consumer }
}

/// Opens a session over `partitions` partitions of `a`, as `fetcher` at time `now`.
fn open(sessions: &FetchSessions, now: i64, fetcher: Fetcher, partitions: i32) -> i32 {
    let asked = (0..partitions).map(|partition| wanted("a", partition)).collect();
    let begin = SessionRequest { fetcher, ..request(NO_SESSION, INITIAL_EPOCH) };
    let (context, all) = sessions.begin(Timestamp(now), begin, asked, &[]);
    let results: Vec<_> = all.into_iter().map(|item| (item, seen(10, 0))).collect();
    let finished = context.finish(sessions, Timestamp(now), &results);
    assert_eq!(finished.error, ErrorCode::None);
    assert!(finished.answered.iter().all(|held| *held));
    finished.session_id
}

fn next(
    sessions: &FetchSessions,
    request: SessionRequest,
    asked: Vec<Wanted>,
    look: impl Fn(&Wanted) -> Seen,
) -> (Finished, Vec<i32>) {
    let (context, all) = sessions.begin(Timestamp(1), request, asked, &[]);
    let order = all.iter().map(|item| item.partition).collect();
    let results: Vec<_> = all
        .into_iter()
        .map(|item| {
            let seen = look(&item);
            (item, seen)
        })
        .collect();
    (context.finish(sessions, Timestamp(1), &results), order)
}

#[test]
fn incremental_answer_holds_only_news() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, 0, Fetcher::Consumer, 3);
    let (quiet, order) = next(&sessions, request(id, 1), vec![], |_| seen(10, 0));
    assert_eq!(order, [0, 1, 2]);
    assert_eq!(quiet.answered, [false, false, false]);
    assert_eq!(quiet.session_id, id);
    let moved = |item: &Wanted| seen(if item.partition == 1 { 11 } else { 10 }, 0);
    let (news, _) = next(&sessions, request(id, 2), vec![], moved);
    assert_eq!(news.answered, [false, true, false]);
}

#[test]
fn partition_with_data_goes_to_the_end() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, 0, Fetcher::Consumer, 3);
    let data = |item: &Wanted| seen(10, usize::from(item.partition == 0));
    let (first, _) = next(&sessions, request(id, 1), vec![], data);
    assert_eq!(first.answered, [true, false, false]);
    let (_, order) = next(&sessions, request(id, 2), vec![], |_| seen(10, 0));
    assert_eq!(order, [1, 2, 0]);
}

#[test]
fn partition_is_answered_again_after_its_error() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, 0, Fetcher::Consumer, 1);
    let failed = |_: &Wanted| Seen { error: ErrorCode::NotLeaderOrFollower, ..seen(-1, 0) };
    assert_eq!(next(&sessions, request(id, 1), vec![], failed).0.answered, [true]);
    assert_eq!(next(&sessions, request(id, 2), vec![], |_| seen(10, 0)).0.answered, [true]);
    assert_eq!(next(&sessions, request(id, 3), vec![], |_| seen(10, 0)).0.answered, [false]);
}

#[test]
fn session_learns_and_forgets_partitions() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, 0, Fetcher::Consumer, 2);
    let asked = vec![Wanted { fetch_offset: 7, ..wanted("a", 1) }, wanted("b", 0)];
    let gone = [(TopicKey::Name("a".into()), 0)];
    let (context, all) = sessions.begin(Timestamp(0), request(id, 1), asked, &gone);
    assert!(matches!(context, FetchContext::Incremental(_)));
    let shown: Vec<_> =
        all.iter().map(|w| (w.name.as_deref(), w.partition, w.fetch_offset)).collect();
    assert_eq!(shown, [(Some("a"), 1, 7), (Some("b"), 0, 0)]);
}

#[test]
fn session_without_partitions_is_closed() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, 0, Fetcher::Consumer, 1);
    let gone = [(TopicKey::Name("a".into()), 0)];
    let (context, all) = sessions.begin(Timestamp(0), request(id, 1), vec![], &gone);
    assert!(matches!(context, FetchContext::Sessionless));
    assert!(all.is_empty());
    assert_eq!(sessions.len(), 0);
}

#[test]
fn wrong_session_requests_are_refused() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, 0, Fetcher::Consumer, 1);
    let error = |request| next(&sessions, request, vec![], |_| seen(10, 0)).0.error;
    assert_eq!(error(request(id ^ 1, 1)), ErrorCode::FetchSessionIdNotFound);
    assert_eq!(error(request(id, 2)), ErrorCode::InvalidFetchSessionEpoch);
    let by_id = SessionRequest { version: 13, ..request(id, 1) };
    assert_eq!(error(by_id), ErrorCode::FetchSessionTopicIdError);
    assert_eq!(error(request(id, 1)), ErrorCode::None);
}

#[test]
fn overtaken_request_gets_invalid_epoch() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, 0, Fetcher::Consumer, 1);
    let (first, all) = sessions.begin(Timestamp(0), request(id, 1), vec![], &[]);
    let (_second, _) = sessions.begin(Timestamp(0), request(id, 2), vec![], &[]);
    let results: Vec<_> = all.into_iter().map(|item| (item, seen(10, 1))).collect();
    let finished = first.finish(&sessions, Timestamp(0), &results);
    assert_eq!(finished.error, ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(finished.answered, [false]);
}

#[test]
fn final_epoch_closes_the_session() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, 0, Fetcher::Consumer, 1);
    let (finished, _) = next(&sessions, request(id, FINAL_EPOCH), vec![], |_| seen(10, 0));
    assert_eq!((finished.session_id, sessions.len()), (NO_SESSION, 0));
}

#[test]
fn epoch_wraps_to_one() {
    assert_eq!(next_epoch(i32::MAX), 1);
    assert_eq!(next_epoch(0), 1);
    assert_eq!(next_epoch(FINAL_EPOCH), FINAL_EPOCH);
}

#[test]
fn full_cache_gives_no_session_to_an_equal() {
    let sessions = FetchSessions::new(2);
    open(&sessions, 0, Fetcher::Consumer, 1);
    open(&sessions, 0, Fetcher::Consumer, 1);
    assert_eq!(open(&sessions, 10, Fetcher::Consumer, 5), NO_SESSION);
}

#[test]
fn stale_session_is_evicted_first() {
    let sessions = FetchSessions::new(1);
    let old = open(&sessions, 0, Fetcher::Consumer, 9);
    let new = open(&sessions, EVICTION_MS + 1, Fetcher::Consumer, 1);
    assert_ne!(new, NO_SESSION);
    assert_eq!(
        next(&sessions, request(old, 1), vec![], |_| seen(0, 0)).0.error,
        ErrorCode::FetchSessionIdNotFound
    );
}

#[test]
fn follower_evicts_a_consumer_but_no_young_follower() {
    let sessions = FetchSessions::new(1);
    open(&sessions, 0, Fetcher::Consumer, 9);
    assert_ne!(open(&sessions, 1, Fetcher::Follower, 1), NO_SESSION);
    assert_eq!(open(&sessions, 2, Fetcher::Follower, 5), NO_SESSION);
    assert_eq!(open(&sessions, 3, Fetcher::Consumer, 5), NO_SESSION);
}

#[test]
fn no_slots_mean_no_sessions() {
    let sessions = FetchSessions::new(0);
    assert_eq!(open(&sessions, 0, Fetcher::Consumer, 1), NO_SESSION);
}

#[test]
fn follower_that_dropped_an_answer_is_told_again() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, 0, Fetcher::Follower, 1);
    let follower = |epoch| SessionRequest { fetcher: Fetcher::Follower, ..request(id, epoch) };
    let knows = |high_watermark| Wanted { high_watermark, log_start_offset: 0, ..wanted("a", 0) };
    let (told, _) = next(&sessions, follower(1), vec![knows(10)], |_| seen(11, 0));
    assert_eq!(told.answered, [true]);
    let (again, _) = next(&sessions, follower(2), vec![knows(10)], |item| {
        assert_eq!(item.told.0, 10);
        seen(11, 0)
    });
    assert_eq!(again.answered, [true]);
    let (known, _) = next(&sessions, follower(3), vec![knows(11)], |_| seen(11, 0));
    assert_eq!(known.answered, [false]);
}
