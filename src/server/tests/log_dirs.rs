//! Partitions between several log directories (KIP-113).

use super::*;
use alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};

fn two_dirs(dir: &str) -> Vec<(&'static str, String)> {
    vec![("log.dirs", format!("{dir}/a,{dir}/b"))]
}

/// Moves partitions of `topic` to `path` and answers the errors.
fn alter(
    client: &mut Client,
    version: i16,
    topic: &str,
    partitions: &[i32],
    path: &str,
) -> Vec<i16> {
    let topics =
        vec![AlterReplicaLogDirTopic { name: topic.to_owned(), partitions: partitions.to_vec() }];
    let dirs = vec![AlterReplicaLogDir { path: path.to_owned(), topics }];
    let response = client.call(version, &AlterReplicaLogDirsRequest { dirs });
    assert_eq!(response.results.len(), 1);
    assert_eq!(response.results[0].topic_name, topic);
    response.results[0].partitions.iter().map(|partition| partition.error_code).collect()
}

/// Paths of the log directories, and which partitions lie in each; a copy under way is waited for.
fn places(client: &mut Client) -> Vec<(String, Vec<i32>)> {
    loop {
        let response = client.call(5, &DescribeLogDirsRequest { topics: None });
        let partitions = |dir: &describe_log_dirs_response::DescribeLogDirsResult| {
            let topics = dir.topics.iter();
            topics.flat_map(|topic| topic.partitions.clone()).collect::<Vec<_>>()
        };
        let is_future = |dir| partitions(dir).iter().any(|partition| partition.is_future_key);
        if response.results.iter().any(is_future) {
            continue;
        }
        let place =
            |dir| partitions(dir).iter().map(|partition| partition.partition_index).collect();
        return response.results.iter().map(|dir| (dir.log_dir.clone(), place(dir))).collect();
    }
}

#[test]
fn partitions_move_to_the_directory_that_a_client_names() {
    let world = World::configured(two_dirs);
    let mut client = world.connect();
    world.create_topic("topic", 2);
    let before = places(&mut client);
    assert_eq!((&before[0].1[..], &before[1].1[..]), (&[0][..], &[1][..]));
    assert_eq!(alter(&mut client, 2, "topic", &[0, 1], &before[1].0), [0, 0]);
    assert_eq!(places(&mut client)[1].1, [0, 1]);
    assert_eq!(alter(&mut client, 1, "topic", &[1], &before[0].0), [0]);
    assert_eq!(places(&mut client)[0].1, [1]);
    let unknown = [ErrorCode::UnknownTopicOrPartition.code()];
    assert_eq!(alter(&mut client, 2, "topic", &[2], &before[0].0), unknown);
    let no_dir = [ErrorCode::LogDirNotFound.code()];
    assert_eq!(alter(&mut client, 2, "topic", &[0], "/nowhere"), no_dir);
}
