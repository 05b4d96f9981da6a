//! DescribeLogDirs (api key 35), versions 1-5: what lies in each log directory (KIP-113).
//!
//! - v2: flexible. - v3: a top-level error. - v4: total and usable bytes (KIP-827).
//! - v5: whether the directory is cordoned (KIP-1066).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::LogDirStatus;
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use ottla_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use std::collections::{BTreeMap, BTreeSet};

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let wanted = request.topics.map(|topics| {
        let pairs = topics.into_iter().flat_map(|topic| {
            topic.partitions.into_iter().map(move |index| (topic.topic.clone(), index))
        });
        pairs.collect::<BTreeSet<_>>()
    });
    let results = ctx.broker.log_dirs().into_iter().map(|dir| describe(dir, wanted.as_ref()));
    DescribeLogDirsResponse { results: results.collect(), ..Default::default() }
}

fn describe(dir: LogDirStatus, wanted: Option<&BTreeSet<(String, i32)>>) -> DescribeLogDirsResult {
    if dir.is_offline {
        return DescribeLogDirsResult {
            error_code: ErrorCode::KafkaStorageError.code(),
            log_dir: dir.path.display().to_string(),
            ..Default::default()
        };
    }
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for replica in dir.partitions {
        let partition_index = replica.index;
        let key = (replica.topic.to_string(), partition_index);
        if wanted.is_some_and(|wanted| !wanted.contains(&key)) {
            continue;
        }
        topics.entry(key.0).or_default().push(DescribeLogDirsPartition {
            partition_index,
            partition_size: i64::try_from(replica.size).unwrap_or(i64::MAX),
            offset_lag: replica.offset_lag,
            is_future_key: replica.is_future,
        });
    }
    DescribeLogDirsResult {
        log_dir: dir.path.display().to_string(),
        topics: topics
            .into_iter()
            .map(|(name, partitions)| DescribeLogDirsTopic { name, partitions })
            .collect(),
        total_bytes: dir.total_bytes,
        usable_bytes: dir.usable_bytes,
        is_cordoned: dir.is_cordoned,
        ..Default::default()
    }
}
