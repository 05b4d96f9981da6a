//! CreateTopics (api key 19), versions 2-7: creates topics, or says whether they could be.
//!
//! - v2: as v1 (validate only, error messages).
//! - v4: -1 for partitions and replication factor takes the broker's default (KIP-464).
//! - v5: the answer has partitions, replication factor and effective configurations (KIP-525); flexible.
//! - v7: topic ids in the answer (KIP-516).
//!
//! Known differences from Kafka: no `create.topic.policy.class.name`, no controller mutation quota.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::create_topics_response::CreatableTopicResult;
use ottla_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use uuid::Uuid;

/// Answers the request.
pub async fn handle(ctx: &RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let operation = ControllerRequest::CreateTopics { request, seed: Uuid::new_v4() };
    match ctx.controller(operation).await {
        Ok(ControllerReply::CreateTopics(response)) => response,
        other => {
            let error = super::admin::controller_error(other);
            CreateTopicsResponse {
                topics: names.into_iter().map(|name| failed(name, error)).collect(),
                ..Default::default()
            }
        }
    }
}

fn failed(name: String, error: ErrorCode) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: error.code(),
        error_message: Some(error.message().to_owned()),
        ..Default::default()
    }
}
