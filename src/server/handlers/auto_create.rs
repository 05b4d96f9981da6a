//! Topics that are created because somebody asked for them (`auto.create.topics.enable`, internal topics).

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest, validate_topic_name};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::CreateTopicsRequest;
use ottla_protocol::messages::create_topics_request::CreatableTopic;

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
    let internal = ctx.shared.settings.internal_topics.iter().find(|topic| topic.name == name);
    internal.cloned().unwrap_or_else(|| CreatableTopic {
        name: name.to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        ..Default::default()
    })
}
