//! Several voters: elections, crashes, cut links, laggards.

use super::world::World;
use crate::env::sim_disk::Crash;
use crate::env::sim_disk::SimDisk;
use ottla_protocol::{BrokerId, LeaderEpoch, Offset};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_agree() {
    let mut world = World::new(3, 1);
    world.start_all().await;
    world.write(50).await;
    world.settle().await;
    let leader = world.leader().await;
    let status = world.voters[&leader].node.quorum().unwrap().status();
    assert_eq!(status.leader_id, leader);
    assert!(status.voters.iter().all(|voter| voter.log_end_offset == status.log_end_offset));
    assert!(status.voters.iter().all(|voter| voter.last_caught_up.0 > 0), "{status:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_is_replaced_and_comes_back() {
    let mut world = World::new(3, 2);
    world.start_all().await;
    for crash in [Crash::Kill, Crash::PowerLoss, Crash::PowerLoss] {
        world.write(10).await;
        let leader = world.leader().await;
        world.crash(leader, crash).await;
        for voter in world.voters.values() {
            voter.node.quorum().unwrap().leader_is_dead();
        }
        world.write(10).await;
        assert_ne!(world.leader().await, leader);
        world.start(leader).await;
        world.settle().await;
    }
    world.stop().await;
}

/// Voters keep to a leader that they heard, however long that is, but not to one that they know to be dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_known_to_be_dead_is_replaced_though_it_was_heard_just_now() {
    let mut world = World::new(3, 24);
    world.lease = Duration::from_secs(3600);
    world.patience = Duration::from_secs(10);
    world.start_all().await;
    world.write(5).await;
    let leader = world.leader().await;
    // It says no farewell.
    world.isolate(leader, true);
    world.crash(leader, Crash::Kill).await;
    world.isolate(leader, false);
    // One that knows is not enough: the other one hears its leader.
    let mut others = world.voters.values();
    others.next().unwrap().node.quorum().unwrap().leader_is_dead();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.voters.keys().all(|id| !world.is_active(*id)));
    let has_leader = |it: &World| it.voters.keys().any(|id| it.is_active(*id));
    for _ in 0..9 {
        // On a busy machine one may be at work on the dead one's last message, and so hear it once more: told again.
        for voter in world.voters.values() {
            voter.node.quorum().unwrap().leader_is_dead();
        }
        let second = Duration::from_secs(1);
        if tokio::time::timeout(second, world.until(has_leader)).await.is_ok() {
            break;
        }
    }
    world.write(5).await;
    world.start(leader).await;
    world.settle().await;
    world.stop().await;
}

/// Votes that take long, as on a busy machine, are waited for: no other election makes them void.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_is_not_disturbed_by_the_next_while_votes_are_on_their_way() {
    for voters in [3, 5] {
        let mut world = World::new(voters, 25);
        // So that a busy machine does not make them too late.
        world.request_timeout = Duration::from_secs(2);
        world.start_all().await;
        world.write(5).await;
        let leader = world.leader().await;
        let epoch = world.voters[&leader].node.quorum().unwrap().leading().unwrap();
        *world.links.vote_delay.write() = Duration::from_millis(250);
        world.isolate(leader, true);
        world.crash(leader, Crash::Kill).await;
        world.isolate(leader, false);
        // openraft's own lease, of 2 ms, is over.
        tokio::time::sleep(Duration::from_millis(20)).await;
        for voter in world.voters.values() {
            voter.node.quorum().unwrap().leader_is_dead();
        }
        let next = world.leader().await;
        let quorum = world.voters[&next].node.quorum().unwrap();
        assert_eq!(quorum.leading(), Some(LeaderEpoch(epoch.0 + 1)));
        world.start(leader).await;
        world.settle().await;
        world.stop().await;
    }
}

/// What they heard of it lies further back than a timer that has not slept may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_found_dead_long_after_it_was_heard_is_replaced() {
    let mut world = World::new(3, 9);
    world.start_all().await;
    world.write(5).await;
    let leader = world.leader().await;
    world.isolate(leader, true);
    tokio::time::sleep(Duration::from_millis(400)).await;
    world.crash(leader, Crash::Kill).await;
    for voter in world.voters.values() {
        voter.node.quorum().unwrap().leader_is_dead();
    }
    assert_ne!(world.leader().await, leader);
    world.isolate(leader, false);
    world.start(leader).await;
    world.settle().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_voters_lose_power_at_once() {
    let mut world = World::new(3, 3);
    world.start_all().await;
    for _ in 0..3 {
        world.write(10).await;
        for id in world.ids() {
            world.crash(id, Crash::PowerLoss).await;
        }
        world.start_all().await;
        world.settle().await;
    }
    world.stop().await;
}

/// The checks see it when syncs are left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[should_panic]
async fn records_that_were_not_synced_are_missed() {
    let mut world = World::new(3, 10);
    world.patience = Duration::from_secs(3);
    for disk in world.disks.values() {
        disk.ignore_syncs(".log");
    }
    world.start_all().await;
    for _ in 0..10 {
        world.write(10).await;
        for id in world.ids() {
            world.crash(id, Crash::PowerLoss).await;
        }
        world.start_all().await;
        world.settle().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_its_followers_commits_nothing() {
    let mut world = World::new(3, 4);
    world.start_all().await;
    world.write(5).await;
    let leader = world.leader().await;
    world.isolate(leader, true);
    let committed = world.voters[&leader].node.quorum().unwrap().committed();
    assert!(world.write_at(leader).await.is_err());
    assert_eq!(world.voters[&leader].node.quorum().unwrap().committed(), committed);
    // The others have elected one of them meanwhile.
    while world.leader().await == leader {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.write(5).await;
    world.isolate(leader, false);
    world.settle().await;
    assert!(world.voters[&leader].node.quorum().unwrap().leading().is_none());
    world.stop().await;
}

/// One that was cut off asks first, and so does not raise the epoch when it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_comes_back_ends_no_epoch() {
    let mut world = World::new(3, 5);
    world.start_all().await;
    world.write(5).await;
    let leader = world.leader().await;
    let epoch = world.voters[&leader].node.quorum().unwrap().leading();
    let follower = world.ids().into_iter().find(|id| *id != leader).unwrap();
    world.isolate(follower, true);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    world.isolate(follower, false);
    world.settle().await;
    assert_eq!(world.voters[&leader].node.quorum().unwrap().leading(), epoch);
    world.stop().await;
}

/// Callers are told, rather than kept waiting, and the same controller goes on once there is a majority again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_no_majority_gives_its_controller_up_until_it_does() {
    let mut world = World::new(3, 8);
    world.start_all().await;
    world.write(5).await;
    let leader = world.leader().await;
    for id in world.ids() {
        world.isolate(id, true);
    }
    let call = world.write_at(leader);
    assert!(call.await.is_err());
    world.until(|world| !world.is_active(leader)).await;
    for id in world.ids() {
        world.isolate(id, false);
    }
    world.settle().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_is_followed_by_another_without_its_silence() {
    let mut world = World::new(3, 9);
    // Nobody stands for election because of silence.
    world.election_timeout = Duration::from_secs(3600);
    world.start_all().await;
    world.write(5).await;
    let leader = world.leader().await;
    let voter = world.voters.remove(&leader).unwrap();
    voter.node.close().await.unwrap();
    world.write(5).await;
    world.start(leader).await;
    world.settle().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_laggard_is_brought_up_by_a_snapshot() {
    let mut world = World::new(3, 6);
    world.snapshot_bytes = 2000;
    world.start_all().await;
    world.write(5).await;
    let leader = world.leader().await;
    let laggard = world.ids().into_iter().find(|id| *id != leader).unwrap();
    world.crash(laggard, Crash::PowerLoss).await;
    // More than the leader keeps beside its snapshot.
    world.write(1200).await;
    world.start(laggard).await;
    world.settle().await;
    let (id, _) = world.voters[&laggard].node.quorum().unwrap().shared.log.snapshot().unwrap();
    assert!(id.end_offset.0 > 100);
    // And it lives on from there.
    world.crash(laggard, Crash::PowerLoss).await;
    world.start(laggard).await;
    world.settle().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_disk_is_full_waits_and_the_others_go_on() {
    let mut world = World::new(3, 7);
    world.start_all().await;
    world.write(5).await;
    let leader = world.leader().await;
    let full = world.ids().into_iter().find(|id| *id != leader).unwrap();
    world.disks[&full].set_room(Some(0));
    world.write(20).await;
    world.disks[&full].set_room(None);
    world.settle().await;
    world.stop().await;
}

/// Two, or those of `QUORUM_SEEDS=first..end`.
fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("QUORUM_SEEDS").ok();
    let bounds = given.as_deref().and_then(|text| text.split_once(".."));
    let parse = |text: &str| text.parse().unwrap();
    bounds.map_or(11..13, |(first, end)| parse(first)..parse(end))
}

/// Disks that end at any operation, links that are cut, restarts; then all is mended, and everything must be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_voters_survive_whatever_leaves_a_majority() {
    for seed in seeds() {
        let mut world = World::new(5, seed);
        world.snapshot_bytes = 3000;
        world.start_all().await;
        world.write(5).await;
        for _ in 0..8 {
            let victim = BrokerId(1 + world.rng.below(5) as i32);
            match world.rng.below(3) {
                0 => world.isolate(victim, true),
                1 => world.crash(victim, Crash::PowerLoss).await,
                _ => {
                    let count = world.rng.below(40) as u64;
                    world.disks[&victim].end_after(count);
                }
            }
            world.write(10).await;
            world.isolate(victim, false);
            world.crash(victim, Crash::PowerLoss).await;
            world.start(victim).await;
            world.write(3).await;
        }
        world.settle().await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_voter_grows_to_three_of_whom_any_two_go_on() {
    let mut world = World::new(3, 21);
    world.first = Some(BrokerId(1));
    world.snapshot_bytes = 2000;
    world.start_all().await;
    world.write(30).await;
    for id in [2, 3] {
        world.add(BrokerId(id)).await;
        world.write(5).await;
    }
    // Those who had no vote when they started stand for election, though nobody tells them that the leader goes.
    let leader = world.leader().await;
    world.isolate(leader, true);
    while world.leader().await == leader {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.isolate(leader, false);
    world.settle().await;
    for id in world.ids() {
        world.crash(id, Crash::PowerLoss).await;
        world.write(5).await;
        world.start(id).await;
        world.settle().await;
    }
    for id in world.ids() {
        let voters = world.voters[&id].node.quorum().unwrap().voters();
        assert!(voters.is_dynamic);
        assert_eq!(voters.ids().collect::<Vec<_>>(), world.ids());
    }
    world.stop().await;
}

/// A disk that was lost is another voter's: it must not answer for the one that voted and synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_with_another_disk_does_not_count() {
    let mut world = World::new(2, 22);
    world.first = Some(BrokerId(1));
    world.start_all().await;
    world.add(BrokerId(2)).await;
    world.write(5).await;
    world.settle().await;
    world.crash(BrokerId(2), Crash::PowerLoss).await;
    world.disks.insert(BrokerId(2), SimDisk::new(2299));
    world.directories.insert(BrokerId(2), 77);
    world.start(BrokerId(2)).await;
    let leader = world.voters[&BrokerId(1)].node.quorum().unwrap().leading();
    if leader.is_some() {
        assert!(world.write_at(BrokerId(1)).await.is_err());
    }
    assert_eq!(world.voters[&BrokerId(2)].image.load().offset, Offset(-1));
    let _ = world.voters.remove(&BrokerId(2)).unwrap().node.close().await;
    let _ = world.voters.remove(&BrokerId(1)).unwrap().node.close().await;
}

/// What the leader knew of the disk that is gone is not taken for the new one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_lost_is_replaced() {
    let mut world = World::new(3, 23);
    world.first = Some(BrokerId(1));
    world.start_all().await;
    let replaced = BrokerId(2);
    for id in [2, 3] {
        world.add(BrokerId(id)).await;
    }
    world.write(20).await;
    for disk in 1..4 {
        world.crash(replaced, Crash::PowerLoss).await;
        world.disks.insert(replaced, SimDisk::new(2300 + disk));
        world.directories.insert(replaced, u128::from(disk) + 77);
        world.start(replaced).await;
        world.write(5).await;
        // The vote of the one before is taken, and this one gets its own.
        world.add(replaced).await;
        world.add(replaced).await;
        world.settle().await;
    }
    world.stop().await;
}

/// A voter that was just heard follows on without its vote: what openraft knows of its disk is not taken for that of
/// another one under the same id, which says in time that it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_just_came_is_sent_nothing_that_is_for_the_one_before() {
    let mut world = World::new(2, 24);
    world.first = Some(BrokerId(1));
    world.start_all().await;
    let id = BrokerId(2);
    let before = world.voter(id);
    let shared = Arc::clone(&world.voters[&BrokerId(1)].node.quorum().unwrap().shared);
    // On a busy machine it may not have been heard within a second when its vote is taken.
    for _ in 0..30 {
        world.add(id).await;
        world.write(5).await;
        shared.remove_voter(id, before.directory_id, Duration::from_secs(10)).await.unwrap();
        world.crash(id, Crash::PowerLoss).await;
        if shared.learner_ids().await.unwrap().contains(&id) {
            break;
        }
        world.start(id).await;
    }
    assert!(shared.learner_ids().await.unwrap().contains(&id));
    world.directories.insert(id, 99);
    let next = world.voter(id);
    assert_ne!(next.directory_id, before.directory_id);
    shared.note_learner(&next);
    assert_eq!(shared.directory_of(id), before.directory_id);
    // The one before goes, and then the next one is let in.
    let begin = Instant::now();
    while shared.directory_of(id) != next.directory_id {
        assert!(begin.elapsed() < Duration::from_secs(30), "the next disk is not let in");
        shared.note_learner(&next);
        shared.let_learners_in().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.stop().await;
}

/// Votes are given and taken while disks end at any operation and links are cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_change_whatever_happens() {
    for seed in seeds() {
        let mut world = World::new(5, seed + 1000);
        world.first = Some(BrokerId(1));
        world.snapshot_bytes = 3000;
        world.start_all().await;
        world.write(5).await;
        for id in [2, 3] {
            world.add(BrokerId(id)).await;
        }
        for _ in 0..8 {
            let victim = BrokerId(1 + world.rng.below(5) as i32);
            match world.rng.below(4) {
                0 => world.isolate(victim, true),
                1 => world.crash(victim, Crash::PowerLoss).await,
                2 => {
                    let count = world.rng.below(40) as u64;
                    world.disks[&victim].end_after(count);
                }
                _ => {}
            }
            let changed = BrokerId(1 + world.rng.below(5) as i32);
            world.change(changed).await;
            world.isolate(victim, false);
            world.crash(victim, Crash::PowerLoss).await;
            world.start(victim).await;
            world.write(3).await;
        }
        world.settle().await;
        let voters = world.voters[&BrokerId(1)].node.quorum().unwrap().voters();
        for voter in world.voters.values() {
            assert_eq!(voter.node.quorum().unwrap().voters(), voters, "seed {seed}");
        }
        world.stop().await;
    }
}
