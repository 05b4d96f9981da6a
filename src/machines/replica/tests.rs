//! The rules of leaders and followers, one by one.

use super::*;

const LAG_MS: i64 = 1000;
const ME: BrokerId = BrokerId(1);

fn settings(min_insync_replicas: usize) -> ReplicaSettings {
    ReplicaSettings { broker_id: ME, lag_time_max_ms: LAG_MS, min_insync_replicas }
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn step(replica: &mut Replica, event: Event) -> Vec<Effect> {
    replica.step(event).into_iter().collect()
}

fn leadership(epoch: i32, partition_epoch: i32, isr: &[i32], replicas: &[i32]) -> Leadership {
    Leadership {
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch,
        isr: ids(isr),
        replicas: ids(replicas),
        metadata_offset: Offset(0),
    }
}

fn lead(epoch: i32, partition_epoch: i32, end: i64) -> Event {
    let leadership = leadership(epoch, partition_epoch, &[1], &[1]);
    lead_event(leadership, end, 0)
}

fn lead_event(leadership: Leadership, end: i64, now: i64) -> Event {
    Event::Lead {
        leadership,
        log_end_offset: Offset(end),
        settled_end_offset: Offset(end),
        now: Timestamp(now),
    }
}

fn lead_many(replica: &mut Replica, leadership: Leadership, end: i64, now: i64) -> Vec<Effect> {
    step(replica, lead_event(leadership, end, now))
}

fn append(replica: &mut Replica, end: i64, now: i64) -> Vec<Effect> {
    step(replica, Event::Appended { log_end_offset: Offset(end), now: Timestamp(now) })
}

fn fetch_of(id: i32, offset: i64) -> FollowerFetch {
    FollowerFetch {
        replica: BrokerId(id),
        broker_epoch: BrokerEpoch(10 + i64::from(id)),
        eligibility: Eligibility::Eligible,
        metadata_offset: Offset(0),
        fetch_offset: Offset(offset),
        log_start_offset: Offset(0),
    }
}

fn fetch(replica: &mut Replica, id: i32, offset: i64, now: i64) -> Vec<Effect> {
    step(replica, Event::Fetched { fetch: fetch_of(id, offset), now: Timestamp(now) })
}

fn answer(replica: &mut Replica, change: &IsrChange, answer: IsrAnswer) -> Vec<Effect> {
    let change = change.clone();
    step(replica, Event::IsrAnswered { change, answer, now: Timestamp(0) })
}

fn committed(partition_epoch: i32, isr: &[i32]) -> IsrAnswer {
    IsrAnswer::Committed { leader_epoch: LeaderEpoch(0), partition_epoch, isr: ids(isr) }
}

fn asked(effects: &[Effect]) -> Option<IsrChange> {
    effects.iter().find_map(|effect| match effect {
        Effect::AlterIsr(change) => Some(IsrChange::clone(change)),
        _ => None,
    })
}

fn isr_of(change: &IsrChange) -> Vec<i32> {
    change.isr.iter().map(|member| member.id.0).collect()
}

/// A leader of three replicas, its log ending at `end`.
fn leader(min_isr: usize, isr: &[i32], end: i64) -> Replica {
    let mut replica = Replica::new(settings(min_isr), Offset(end), Offset(0));
    lead_many(&mut replica, leadership(0, 0, isr, &[1, 2, 3]), end, 0);
    replica
}

#[test]
fn leader_alone_in_the_isr_commits_what_it_appends() {
    let mut replica = Replica::new(settings(1), Offset(5), Offset(3));
    let effects = step(&mut replica, lead(0, 0, 5));
    let start = Effect::StartEpoch { leader_epoch: LeaderEpoch(0), start_offset: Offset(5) };
    assert_eq!(effects, vec![start, Effect::HighWatermark(Offset(5))]);
    assert_eq!(append(&mut replica, 8, 0), vec![Effect::HighWatermark(Offset(8))]);
}

#[test]
fn leader_does_not_advance_hw_past_slowest_isr_member() {
    let mut replica = leader(1, &[1, 2, 3], 0);
    assert_eq!(append(&mut replica, 4, 0), vec![]);
    assert_eq!(fetch(&mut replica, 2, 4, 1), vec![], "the other has not been heard of");
    assert_eq!(fetch(&mut replica, 3, 2, 1), vec![Effect::HighWatermark(Offset(2))]);
    assert_eq!(fetch(&mut replica, 3, 4, 2), vec![Effect::HighWatermark(Offset(4))]);
}

#[test]
fn hw_never_goes_back_when_a_follower_does() {
    let mut replica = leader(1, &[1, 2], 6);
    fetch(&mut replica, 2, 6, 1);
    assert_eq!(replica.high_watermark(), Offset(6));
    assert_eq!(fetch(&mut replica, 2, 3, 2), vec![]);
    assert_eq!(replica.high_watermark(), Offset(6));
}

#[test]
fn an_older_leadership_is_ignored() {
    let mut replica = Replica::new(settings(1), Offset(0), Offset(0));
    step(&mut replica, lead(4, 7, 0));
    assert_eq!(step(&mut replica, lead(3, 8, 0)), vec![]);
    assert_eq!(replica.leader_epoch(), LeaderEpoch(4));
    let leader = BrokerId::NONE;
    let none = Event::Follow { leader, leader_epoch: LeaderEpoch(5), partition_epoch: 8 };
    step(&mut replica, none);
    assert_eq!(replica.role(), Role::Idle);
    step(&mut replica, lead(4, 9, 0));
    assert_eq!(replica.role(), Role::Idle);
}

#[test]
fn a_follower_that_has_caught_up_joins_and_counts_at_once() {
    let mut replica = leader(1, &[1, 2], 4);
    fetch(&mut replica, 2, 4, 1);
    assert_eq!(asked(&fetch(&mut replica, 3, 3, 2)), None, "it is behind the high watermark");
    let change = asked(&fetch(&mut replica, 3, 4, 3)).expect("a change");
    assert_eq!(isr_of(&change), [1, 2, 3]);
    assert_eq!(change.isr[2].broker_epoch, BrokerEpoch(13));
    assert_eq!(asked(&fetch(&mut replica, 3, 4, 4)), None, "one change at a time");
    append(&mut replica, 5, 5);
    assert_eq!(fetch(&mut replica, 2, 5, 6), vec![], "the one that joins is waited for");
    answer(&mut replica, &change, committed(1, &[1, 2, 3]));
    assert_eq!((replica.isr(), replica.partition_epoch()), (&ids(&[1, 2, 3])[..], 1));
    assert_eq!(fetch(&mut replica, 3, 5, 7), vec![Effect::HighWatermark(Offset(5))]);
}

/// It lacks records that an earlier leader may have acknowledged.
#[test]
fn a_follower_below_the_start_of_the_epoch_does_not_join() {
    let mut replica = Replica::new(settings(1), Offset(9), Offset(2));
    // Below the minimum the high watermark stays behind.
    let event = Event::MinIsr { min_insync_replicas: 3, now: Timestamp(0) };
    step(&mut replica, event);
    lead_many(&mut replica, leadership(0, 0, &[1], &[1, 2, 3]), 9, 0);
    assert_eq!(replica.high_watermark(), Offset(2));
    assert_eq!(asked(&fetch(&mut replica, 2, 8, 1)), None);
    assert!(asked(&fetch(&mut replica, 2, 9, 2)).is_some());
}

#[test]
fn a_fenced_follower_does_not_join() {
    let mut replica = leader(1, &[1], 4);
    let fenced = FollowerFetch { eligibility: Eligibility::Ineligible, ..fetch_of(2, 4) };
    let effects = step(&mut replica, Event::Fetched { fetch: fenced, now: Timestamp(1) });
    assert_eq!(asked(&effects), None);
    assert!(asked(&fetch(&mut replica, 2, 4, 2)).is_some());
}

#[test]
fn a_follower_that_lags_leaves_and_counts_until_it_has() {
    let mut replica = leader(1, &[1, 2, 3], 0);
    append(&mut replica, 4, 10);
    fetch(&mut replica, 2, 4, 500);
    let check = |now| Event::CheckIsr { now: Timestamp(now) };
    assert_eq!(step(&mut replica, check(LAG_MS)), vec![]);
    let change = asked(&step(&mut replica, check(LAG_MS + 1))).expect("a change");
    assert_eq!(isr_of(&change), [1, 2]);
    assert_eq!(step(&mut replica, check(LAG_MS + 2)), vec![], "one change at a time");
    assert_eq!(replica.high_watermark(), Offset(0));
    let effects = answer(&mut replica, &change, committed(1, &[1, 2]));
    assert_eq!(effects, vec![Effect::HighWatermark(Offset(4))]);
}

/// It asks as often as it should, and always has what the leader had when it asked last.
#[test]
fn a_follower_that_is_always_one_fetch_behind_is_in_sync() {
    let mut replica = leader(1, &[1, 2], 0);
    for n in 1..20 {
        append(&mut replica, n * 10, n * LAG_MS / 2);
        fetch(&mut replica, 2, (n - 1) * 10, n * LAG_MS / 2 + 1);
        let check = Event::CheckIsr { now: Timestamp(n * LAG_MS / 2 + 2) };
        assert_eq!(step(&mut replica, check), vec![], "{n}");
    }
}

#[test]
fn a_follower_that_the_metadata_fences_leaves_at_once() {
    let mut replica = leader(1, &[1, 2, 3], 0);
    let fenced = Event::Fenced { fenced: ids(&[3]), metadata_offset: Offset(7), now: Timestamp(1) };
    assert_eq!(isr_of(&asked(&step(&mut replica, fenced)).expect("a change")), [1, 2]);
}

/// A fetch is read by the metadata that were known when it came, while newer ones are taken in.
#[test]
fn a_follower_is_not_let_in_by_metadata_that_are_older_than_its_fencing() {
    let mut replica = leader(1, &[1, 2], 4);
    fetch(&mut replica, 2, 4, 1);
    lead_many(&mut replica, leadership(0, 1, &[1], &[1, 2, 3]), 4, 2);
    let fenced = Event::Fenced { fenced: ids(&[2]), metadata_offset: Offset(7), now: Timestamp(2) };
    step(&mut replica, fenced);
    let fetch = FollowerFetch { metadata_offset: Offset(6), ..fetch_of(2, 4) };
    assert_eq!(step(&mut replica, Event::Fetched { fetch, now: Timestamp(3) }), vec![]);
    let effects = append(&mut replica, 5, 4);
    assert_eq!(effects, vec![Effect::HighWatermark(Offset(5))], "nor is it waited for");
    let fetch = FollowerFetch { metadata_offset: Offset(7), ..fetch_of(2, 5) };
    assert!(asked(&step(&mut replica, Event::Fetched { fetch, now: Timestamp(5) })).is_some());
}

#[test]
fn a_follower_is_not_let_in_by_metadata_that_are_older_than_the_leadership() {
    let mut replica = leader(1, &[1], 4);
    let newer = Leadership { metadata_offset: Offset(7), ..leadership(1, 1, &[1], &[1, 2, 3]) };
    lead_many(&mut replica, newer, 4, 1);
    let fetch_by = |metadata_offset| {
        let fetch = FollowerFetch { metadata_offset: Offset(metadata_offset), ..fetch_of(2, 4) };
        Event::Fetched { fetch, now: Timestamp(2) }
    };
    assert_eq!(asked(&step(&mut replica, fetch_by(6))), None);
    assert!(asked(&step(&mut replica, fetch_by(7))).is_some());
}

#[test]
fn a_rejected_change_may_be_asked_for_again_and_others_wait_for_the_image() {
    let mut replica = leader(1, &[1], 4);
    let change = asked(&fetch(&mut replica, 2, 4, 1)).expect("a change");
    assert!(replica.is_pending(&change));
    answer(&mut replica, &change, IsrAnswer::Rejected);
    assert!(!replica.is_pending(&change));
    let change = asked(&fetch(&mut replica, 2, 4, 2)).expect("a change");
    // The Image comes first, with another state.
    lead_many(&mut replica, leadership(0, 5, &[1, 3], &[1, 2, 3]), 4, 3);
    assert!(!replica.is_pending(&change));
    answer(&mut replica, &change, committed(4, &[1, 2]));
    assert_eq!((replica.isr(), replica.partition_epoch()), (&ids(&[1, 3])[..], 5));
}

#[test]
fn the_image_after_the_answer_changes_nothing() {
    let mut replica = leader(1, &[1], 4);
    let change = asked(&fetch(&mut replica, 2, 4, 1)).expect("a change");
    answer(&mut replica, &change, committed(1, &[1, 2]));
    let next = asked(&fetch(&mut replica, 3, 4, 2)).expect("a change");
    lead_many(&mut replica, leadership(0, 1, &[1, 2], &[1, 2, 3]), 4, 3);
    assert!(replica.is_pending(&next), "the change that is under way by now goes on");
}

#[test]
fn hw_stands_still_below_the_minimum_isr() {
    let mut replica = leader(2, &[1, 2], 0);
    fetch(&mut replica, 2, 0, 0);
    lead_many(&mut replica, leadership(0, 1, &[1], &[1, 2, 3]), 0, 1);
    assert_eq!(append(&mut replica, 4, 2), vec![]);
    assert_eq!(replica.min_isr(), 2);
    let event = Event::MinIsr { min_insync_replicas: 1, now: Timestamp(10 * LAG_MS) };
    assert_eq!(step(&mut replica, event), vec![Effect::HighWatermark(Offset(4))]);
}

#[test]
fn the_minimum_isr_is_not_above_the_number_of_replicas() {
    let mut replica = Replica::new(settings(3), Offset(0), Offset(0));
    step(&mut replica, lead(0, 0, 0));
    assert_eq!(replica.min_isr(), 1);
    assert_eq!(append(&mut replica, 2, 0), vec![Effect::HighWatermark(Offset(2))]);
}

/// A producer that never pauses would keep it out for ever.
#[test]
fn a_caught_up_follower_outside_the_isr_is_waited_for() {
    let mut replica = leader(1, &[1, 2], 4);
    fetch(&mut replica, 2, 4, 1);
    let joins = asked(&fetch(&mut replica, 3, 4, 2)).expect("a change");
    answer(&mut replica, &joins, IsrAnswer::Rejected);
    append(&mut replica, 6, 3);
    assert_eq!(fetch(&mut replica, 2, 6, 4), vec![]);
    assert_eq!(replica.high_watermark(), Offset(4));
    let late = fetch(&mut replica, 2, 5, 2 * LAG_MS + 10);
    assert_eq!(late, vec![Effect::HighWatermark(Offset(5))], "not for longer than it may lag");
}

/// The leader need not hear of a follower while there is nothing to copy.
#[test]
fn a_follower_of_a_quiet_partition_has_its_whole_time_once_there_are_records() {
    let mut replica = leader(1, &[1, 2], 4);
    fetch(&mut replica, 2, 4, 1);
    assert!(replica.is_settled(BrokerId(2)));
    append(&mut replica, 5, 100 * LAG_MS);
    let check = |now| Event::CheckIsr { now: Timestamp(now) };
    assert_eq!(step(&mut replica, check(101 * LAG_MS)), vec![]);
    append(&mut replica, 6, 101 * LAG_MS);
    assert!(asked(&step(&mut replica, check(101 * LAG_MS + 1))).is_some());
    assert!(!replica.is_settled(BrokerId(2)), "until the controller has answered");
}

#[test]
fn fetches_from_before_the_broker_started_anew_are_stale() {
    let mut replica = leader(1, &[1, 2], 4);
    fetch(&mut replica, 2, 4, 1);
    assert!(replica.is_stale(BrokerId(2), BrokerEpoch(11)));
    assert!(!replica.is_stale(BrokerId(2), BrokerEpoch(12)));
    assert!(!replica.is_stale(BrokerId(2), BROKER_EPOCH_UNKNOWN));
}

#[test]
fn follower_takes_the_leaders_hw_as_far_as_its_own_end() {
    let mut replica = Replica::new(settings(1), Offset(3), Offset(1));
    let follow =
        Event::Follow { leader: BrokerId(2), leader_epoch: LeaderEpoch(3), partition_epoch: 4 };
    step(&mut replica, follow);
    assert_eq!(replica.role(), Role::Follower(BrokerId(2)));
    let told = Event::LeaderHighWatermark(Offset(9));
    assert_eq!(step(&mut replica, told), vec![Effect::HighWatermark(Offset(3))]);
    assert_eq!(append(&mut replica, 6, 0), vec![Effect::HighWatermark(Offset(6))]);
    let told = Event::LeaderHighWatermark(Offset(5));
    assert_eq!(step(&mut replica, told), vec![]);
    let cut = Event::Truncated { log_end_offset: Offset(4) };
    assert_eq!(step(&mut replica, cut), vec![Effect::HighWatermark(Offset(4))]);
    assert_eq!(append(&mut replica, 8, 0), vec![], "until the leader tells it again");
}

#[test]
fn low_watermark_is_the_least_start_of_the_replicas_that_are_alive() {
    let mut replica = leader(1, &[1, 2, 3], 9);
    let all = |_| true;
    assert_eq!(replica.low_watermark(Offset(7), all), Offset::UNKNOWN);
    for (id, start) in [(2, 7), (3, 4)] {
        let fetch = FollowerFetch { log_start_offset: Offset(start), ..fetch_of(id, 9) };
        step(&mut replica, Event::Fetched { fetch, now: Timestamp(1) });
    }
    assert_eq!(replica.low_watermark(Offset(7), all), Offset(4));
    assert_eq!(replica.low_watermark(Offset(7), |id| id != BrokerId(3)), Offset(7));
}

#[test]
fn a_new_epoch_gives_members_of_the_isr_their_whole_time() {
    let mut replica = leader(1, &[1, 2, 3], 4);
    lead_many(&mut replica, leadership(1, 1, &[1, 2], &[1, 2, 3]), 4, 10 * LAG_MS);
    let check = |now| Event::CheckIsr { now: Timestamp(now) };
    assert_eq!(step(&mut replica, check(11 * LAG_MS)), vec![]);
    assert!(asked(&step(&mut replica, check(11 * LAG_MS + 1))).is_some());
}
