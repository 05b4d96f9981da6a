//! The topics of a run: made by CreateTopics, each partition found at its leader.

use super::{BenchError, BenchSettings, connect};
use ottla_protocol::messages::create_topics_request::CreatableTopic;
use ottla_protocol::messages::metadata_request::MetadataRequestTopic;
use ottla_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest};
use std::thread;
use std::time::Duration;

/// Versions that Apache Kafka has had since 2.3 and has today; topics go by name in them.
pub(super) const METADATA_VERSION: i16 = 8;
const CREATE_TOPICS_VERSION: i16 = 4;
const DELETE_TOPICS_VERSION: i16 = 3;
const TIMEOUT_MS: i32 = 30_000;
/// Times that Metadata is asked for the leaders of a new topic.
const LEADER_TRIES: u32 = 100;
const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// A topic of the run.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub(super) name: String,
    /// `host:port` of each partition's leader.
    pub(super) leaders: Vec<String>,
}

/// Makes a topic and waits for its leaders.
pub(super) fn create(
    settings: &BenchSettings,
    load: &str,
    partitions: usize,
) -> Result<Topic, BenchError> {
    let name = format!("ottla-bench-{load}-{}", std::process::id());
    let mut connection = connect(&settings.bootstrap_server)?;
    let topic = CreatableTopic {
        name: name.clone(),
        num_partitions: partitions as i32,
        replication_factor: -1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: TIMEOUT_MS,
        ..CreateTopicsRequest::default()
    };
    let answer = connection.call(CREATE_TOPICS_VERSION, &request)?;
    if let Some(refused) = answer.topics.iter().find(|topic| topic.error_code != 0) {
        return Err(BenchError::Refused("CreateTopics", refused.error_code));
    }
    let asked =
        MetadataRequestTopic { name: Some(name.clone()), ..MetadataRequestTopic::default() };
    let request = MetadataRequest { topics: Some(vec![asked]), ..MetadataRequest::default() };
    for _ in 0..LEADER_TRIES {
        let answer = connection.call(METADATA_VERSION, &request)?;
        let mut leaders = vec![None; partitions];
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let broker = answer.brokers.iter().find(|b| b.node_id == partition.leader_id);
            let at = usize::try_from(partition.partition_index).unwrap_or(usize::MAX);
            if let (Some(broker), Some(leader)) = (broker, leaders.get_mut(at)) {
                *leader = Some(format!("{}:{}", broker.host, broker.port));
            }
        }
        let leaders: Option<Vec<String>> = leaders.into_iter().collect();
        if let Some(leaders) = leaders {
            return Ok(Topic { name, leaders });
        }
        thread::sleep(LEADER_PAUSE);
    }
    // LEADER_NOT_AVAILABLE.
    Err(BenchError::Refused("Metadata", 5))
}

/// Deletes a topic of the run.
pub(super) fn delete(settings: &BenchSettings, topic: &Topic) -> Result<(), BenchError> {
    let mut connection = connect(&settings.bootstrap_server)?;
    let request = DeleteTopicsRequest {
        topic_names: vec![topic.name.clone()],
        timeout_ms: TIMEOUT_MS,
        ..DeleteTopicsRequest::default()
    };
    let answer = connection.call(DELETE_TOPICS_VERSION, &request)?;
    match answer.responses.iter().find(|topic| topic.error_code != 0) {
        Some(refused) => Err(BenchError::Refused("DeleteTopics", refused.error_code)),
        None => Ok(()),
    }
}
