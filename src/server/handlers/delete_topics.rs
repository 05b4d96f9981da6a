//! DeleteTopics (api key 20), versions 1-6: deletes topics.
//!
//! - v3: with `delete.topic.enable=false` answers TOPIC_DELETION_DISABLED; before, INVALID_REQUEST.
//! - v4: flexible. - v5: error messages (KIP-599). - v6: by topic id (KIP-516).
//!
//! Known differences from Kafka: the answers are in order, not shuffled; no controller mutation
//! quota.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::delete_topics_response::DeletableTopicResult;
use ottla_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use uuid::Uuid;

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    if !super::admin::is_enabled(ctx, "delete.topic.enable") {
        return match ctx.version {
            ..3 => failed(&request, ErrorCode::InvalidRequest, "Topic deletion is disabled."),
            _ => {
                let error = ErrorCode::TopicDeletionDisabled;
                failed(&request, error, error.message())
            }
        };
    }
    match ctx.controller(ControllerRequest::DeleteTopics(request.clone())).await {
        Ok(ControllerReply::DeleteTopics(response)) => response,
        other => {
            let error = super::admin::controller_error(other);
            failed(&request, error, error.message())
        }
    }
}

fn failed(request: &DeleteTopicsRequest, error: ErrorCode, text: &str) -> DeleteTopicsResponse {
    let named = request.topic_names.iter().map(|name| (Some(name.clone()), Uuid::nil()));
    let either = request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id));
    DeleteTopicsResponse {
        responses: named
            .chain(either)
            .map(|(name, topic_id)| DeletableTopicResult {
                name,
                topic_id,
                error_code: error.code(),
                error_message: Some(text.to_owned()),
            })
            .collect(),
        ..Default::default()
    }
}
