//! AlterReplicaLogDirs (api key 34), versions 1-2: moves partitions between this broker's log directories (KIP-113).
//!
//! - v1: as v0. - v2: flexible.
//!
//! The answer says that a move has begun; DescribeLogDirs shows how far it is. Naming the directory that a partition
//! lies in cancels its move. Known differences from Kafka: a move does not go on after a restart, and has to be asked
//! for again.

use super::RequestContext;
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use ottla_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
use std::collections::BTreeMap;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    // A partition that is named with several directories goes to the last, as in Kafka.
    let mut wanted: BTreeMap<String, BTreeMap<i32, String>> = BTreeMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            let partitions = wanted.entry(topic.name).or_default();
            partitions.extend(topic.partitions.iter().map(|index| (*index, dir.path.clone())));
        }
    }
    let results = wanted.into_iter().map(|(topic_name, partitions)| {
        let partitions = partitions.into_iter().map(|(partition_index, path)| {
            let altered = ctx.broker.alter_log_dir(&topic_name, partition_index, &path);
            let error = altered.err().unwrap_or(ErrorCode::None);
            AlterReplicaLogDirPartitionResult { partition_index, error_code: error.code() }
        });
        let partitions = partitions.collect();
        AlterReplicaLogDirTopicResult { topic_name, partitions }
    });
    AlterReplicaLogDirsResponse { results: results.collect(), ..Default::default() }
}
