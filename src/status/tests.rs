//! What is said of a cluster in which something is wrong.

use super::*;
use ottla_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};

fn broker(id: i32) -> Broker {
    let address = format!("h{id}:9092");
    Broker { id, address, rack: String::new(), leads: 0, replicas: 0, out_of_sync: 0 }
}

fn member(id: i32, is_leader: bool, behind_ms: Option<i64>) -> QuorumMember {
    QuorumMember { id, is_voter: true, is_leader, log_end_offset: 7, lag: Some(0), behind_ms }
}

fn healthy() -> Status {
    let members =
        vec![member(1, true, Some(0)), member(2, false, Some(40)), member(3, false, Some(9))];
    Status {
        cluster_id: "c".to_owned(),
        brokers: vec![broker(1), broker(2), broker(3)],
        quorum: Ok(Quorum { leader_epoch: 3, members }),
        topics: 1,
        partitions: 0,
        troubled: Vec::new(),
        missing_brokers: BTreeSet::new(),
    }
}

fn with_partitions(partitions: &[(i32, &[i32], &[i32])]) -> Status {
    let partitions = partitions.iter().zip(0..).map(|((leader_id, replicas, isr), index)| {
        MetadataResponsePartition {
            partition_index: index,
            leader_id: *leader_id,
            replica_nodes: replicas.to_vec(),
            isr_nodes: isr.to_vec(),
            ..Default::default()
        }
    });
    let topic = MetadataResponseTopic {
        name: Some("t".to_owned()),
        partitions: partitions.collect(),
        ..Default::default()
    };
    let metadata = MetadataResponse { topics: vec![topic], ..Default::default() };
    let mut status = healthy();
    status.take_partitions(&metadata, &BTreeMap::from([("t".to_owned(), 2)]));
    status
}

#[test]
fn a_healthy_cluster_is_well() {
    let status = with_partitions(&[(1, &[1, 2, 3], &[1, 2, 3]), (2, &[2], &[2])]);
    assert_eq!((status.risks(), status.partitions), (vec![], 2));
    assert_eq!(status.brokers[1], Broker { leads: 1, replicas: 2, ..broker(2) });
    assert!(status.to_text().ends_with("all is well\n"), "{}", status.to_text());
}

#[test]
fn partitions_are_told_by_what_is_wrong_with_them_the_worst_first() {
    let status = with_partitions(&[
        (1, &[1, 2, 3], &[1, 2]),
        (1, &[1, 2, 9], &[1]),
        (-1, &[9], &[9]),
        (1, &[1, 2, 3], &[1, 2, 3]),
    ]);
    let told: Vec<_> = status.troubled.iter().map(|it| (it.name.as_str(), it.trouble)).collect();
    assert_eq!(
        told,
        [
            ("t-2", Trouble::Offline),
            ("t-1", Trouble::UnderMinIsr),
            ("t-0", Trouble::UnderReplicated)
        ]
    );
    assert_eq!(status.missing_brokers, BTreeSet::from([9]));
    assert_eq!((status.brokers[1].out_of_sync, status.brokers[2].out_of_sync), (1, 1));
    assert_eq!(
        status.risks(),
        ["1 partition without a leader", "1 partition below min.insync.replicas"]
    );
}

#[test]
fn the_last_replica_in_sync_is_a_risk_even_where_it_is_enough_for_writers() {
    assert_eq!(judge(1, 3, 1, 1), Some(Trouble::LastReplica));
    assert_eq!(judge(1, 3, 2, 1), Some(Trouble::UnderReplicated));
    assert_eq!(judge(1, 1, 1, 2), None, "one replica cannot be two");
}

#[test]
fn a_quorum_that_is_lost_or_one_death_from_it_is_a_risk() {
    let mut status = healthy();
    assert_eq!(status.risks(), Vec::<String>::new());
    let Ok(quorum) = &mut status.quorum else { panic!() };
    quorum.members[2].behind_ms = Some(60_000);
    assert_eq!(status.risks(), ["2 of 3 voters keep up: one less would stop the metadata quorum"]);
    let Ok(quorum) = &mut status.quorum else { panic!() };
    quorum.members[1].behind_ms = None;
    assert_eq!(
        status.risks(),
        ["1 of 3 voters keep up: without a majority the metadata is read-only"]
    );
    status.quorum = Err("x".to_owned());
    assert_eq!(status.risks(), ["no active controller, the metadata is read-only: x"]);
    assert!(status.to_json().contains("read-only"));
}
