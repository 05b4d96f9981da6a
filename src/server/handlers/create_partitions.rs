//! CreatePartitions (api key 37), versions 0-3: adds partitions to topics (KIP-195).
//!
//! - v1: throttle time before the answer. - v2: flexible. - v3: controller mutation quota (KIP-599).
//!
//! Known differences from Kafka: no controller mutation quota.

use super::RequestContext;
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use ottla_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use uuid::Uuid;

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let operation = ControllerRequest::CreatePartitions { request, seed: Uuid::new_v4() };
    match ctx.controller(operation).await {
        Ok(ControllerReply::CreatePartitions(response)) => response,
        other => {
            let error = super::admin::controller_error(other);
            CreatePartitionsResponse {
                results: names
                    .into_iter()
                    .map(|name| CreatePartitionsTopicResult {
                        name,
                        error_code: error.code(),
                        error_message: Some(error.message().to_owned()),
                    })
                    .collect(),
                ..Default::default()
            }
        }
    }
}
