//! ListConfigResources (api key 74), versions 0-1: things that have, or could have, dynamic
//! configurations.
//!
//! - v0: client metrics subscriptions alone (KIP-1000).
//! - v1: all kinds: topics, brokers, broker loggers, client metrics, groups (KIP-1142).
//!
//! Known differences from Kafka: none.

use super::RequestContext;
use crate::broker::{Image, ResourceType};
use ottla_protocol::ErrorCode;
use ottla_protocol::messages::list_config_resources_response::ConfigResource;
use ottla_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use std::collections::BTreeSet;

const KINDS: [ResourceType; 5] = [
    ResourceType::Topic,
    ResourceType::Broker,
    ResourceType::BrokerLogger,
    ResourceType::ClientMetrics,
    ResourceType::Group,
];

/// Answers the request.
pub async fn handle(
    ctx: &RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    list(&ctx.broker.image(), ctx.version, &request.resource_types)
}

fn list(image: &Image, version: i16, wanted: &[i8]) -> ListConfigResourcesResponse {
    let kinds: BTreeSet<ResourceType> = if version == 0 {
        [ResourceType::ClientMetrics].into()
    } else if wanted.is_empty() {
        KINDS.into()
    } else {
        let known: Option<BTreeSet<ResourceType>> =
            wanted.iter().map(|id| ResourceType::from_id(*id)).collect();
        match known {
            Some(kinds) => kinds,
            None => {
                let error_code = ErrorCode::UnsupportedVersion.code();
                return ListConfigResourcesResponse { error_code, ..Default::default() };
            }
        }
    };
    let mut config_resources = Vec::new();
    for kind in kinds {
        let names: Vec<String> = match kind {
            ResourceType::Topic => image.topics.iter().map(|t| t.name.to_string()).collect(),
            ResourceType::Broker | ResourceType::BrokerLogger => {
                image.cluster.unfenced().map(|broker| broker.id.to_string()).collect()
            }
            ResourceType::ClientMetrics | ResourceType::Group => image
                .configs
                .keys()
                .filter(|resource| resource.kind == kind)
                .map(|resource| resource.name.clone())
                .collect(),
        };
        config_resources.extend(
            names
                .into_iter()
                .map(|resource_name| ConfigResource { resource_name, resource_type: kind.id() }),
        );
    }
    ListConfigResourcesResponse { config_resources, ..Default::default() }
}
