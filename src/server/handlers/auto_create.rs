//! Topics that are created because somebody asked for them (`auto.create.topics.enable`, internal topics).

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest, validate_topic_name};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::CreateTopicsRequest;
use ottla_protocol::messages::create_topics_request::CreatableTopic;

const MIN_IN_SYNC: &str = "min.insync.replicas";

/// INVALID_TOPIC_EXCEPTION for what cannot be a topic's name.
pub(crate) fn topic_name_error(name: &str) -> Option<ErrorCode> {
    validate_topic_name(name).err().map(|_| ErrorCode::InvalidTopicException)
}

/// Has the topics created, and says for each what this request is answered: as in Kafka that they are not there yet, so
/// that the client asks again; or INVALID_TOPIC_EXCEPTION.
pub(crate) async fn create(ctx: &RequestContext, names: Vec<String>) -> Vec<(String, ErrorCode)> {
    let (valid, invalid): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| topic_name_error(name).is_none());
    if !valid.is_empty() {
        let topics = valid.iter().map(|name| creatable(ctx, name)).collect();
        let request = CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only: false };
        let seed = uuid::Uuid::new_v4();
        let request = ControllerRequest::CreateTopics { request, seed };
        match ctx.controller(request).await {
            Ok(ControllerReply::CreateTopics(response)) => {
                for topic in response.topics.iter().filter(|topic| topic.error_code != 0) {
                    let error = ErrorCode::from_code(topic.error_code);
                    let why = topic.error_message.as_deref().unwrap_or(error.message());
                    tracing::info!(topic = topic.name, %error, why, "topic was not created");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, topics = ?valid, "topics were not created"),
        }
    }
    let absent = valid.into_iter().map(|name| (name, ErrorCode::UnknownTopicOrPartition));
    let refused = invalid.into_iter().map(|name| (name, ErrorCode::InvalidTopicException));
    refused.chain(absent).collect()
}

/// How the topic is created: internal ones have settings of their own, others the controller's defaults.
fn creatable(ctx: &RequestContext, name: &str) -> CreatableTopic {
    let settings = &ctx.shared.settings;
    let internal = settings.internal_topics.iter().find(|topic| topic.name == name).cloned();
    if let Some(mut topic) = internal {
        if settings.is_replication_capped {
            let brokers = ctx.broker.image().cluster.unfenced().count();
            cap_replication(&mut topic, i16::try_from(brokers).unwrap_or(i16::MAX));
        }
        return topic;
    }
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        ..Default::default()
    }
}

/// Asks for no more replicas than `max`, at least one, and for no more of them in sync.
fn cap_replication(topic: &mut CreatableTopic, max: i16) {
    let factor = topic.replication_factor.min(max.max(1));
    topic.replication_factor = factor;
    for config in topic.configs.iter_mut().filter(|it| it.name == MIN_IN_SYNC) {
        let wanted = config.value.as_deref().and_then(|value| value.parse::<i16>().ok());
        if let Some(wanted) = wanted {
            config.value = Some(wanted.min(factor).to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_protocol::messages::create_topics_request::CreatableTopicConfig;

    #[test]
    fn a_topic_has_no_more_replicas_than_there_are_brokers() {
        let check = |wanted: (i16, &str), brokers, expected: (i16, &str)| {
            let in_sync = CreatableTopicConfig {
                name: MIN_IN_SYNC.to_owned(),
                value: Some(wanted.1.to_owned()),
            };
            let mut topic = CreatableTopic {
                replication_factor: wanted.0,
                configs: vec![in_sync],
                ..Default::default()
            };
            cap_replication(&mut topic, brokers);
            let in_sync = topic.configs[0].value.as_deref().unwrap();
            assert_eq!((topic.replication_factor, in_sync), expected);
        };
        check((3, "2"), 1, (1, "1"));
        check((3, "2"), 2, (2, "2"));
        check((3, "2"), 5, (3, "2"));
        check((3, "2"), 0, (1, "1"));
    }
}
