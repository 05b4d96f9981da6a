//! Requests to the controller in Kafka's own form.

use crate::broker::peers::{PeerClient, PeerError};
use crate::broker::{ControllerReply, ControllerRequest};
use ottla_protocol::{ErrorCode, Request, apis};

/// Sends a request in the newest version that both sides know.
async fn newest<R>(client: &PeerClient, request: R) -> Result<R::Response, PeerError>
where
    R: Request + Send + 'static,
{
    let max = apis::find(R::KEY).map_or(0, |api| api.max);
    client.call(max, request).await
}

/// Sends any request and waits for its answer.
///
/// # Errors
/// Those of [`PeerClient::call`].
pub(super) async fn call(
    client: &PeerClient,
    request: ControllerRequest,
) -> Result<ControllerReply, PeerError> {
    use ControllerReply as Reply;
    use ControllerRequest as Asked;
    Ok(match request {
        Asked::CreateTopics { request, .. } => Reply::CreateTopics(newest(client, request).await?),
        Asked::DeleteTopics(request) => Reply::DeleteTopics(newest(client, request).await?),
        Asked::CreatePartitions { request, .. } => {
            Reply::CreatePartitions(newest(client, request).await?)
        }
        Asked::RegisterBroker(request) => Reply::RegisterBroker(newest(client, request).await?),
        Asked::RegisterController(request) => {
            Reply::RegisterController(newest(client, request).await?)
        }
        Asked::BrokerHeartbeat(request) => Reply::BrokerHeartbeat(newest(client, request).await?),
        // Only the active controller itself asks for these.
        Asked::FenceBroker { .. } => Reply::FenceBroker(Err(ErrorCode::NotController)),
        Asked::NoOp => Reply::NoOp,
        Asked::UnregisterBroker(request) => Reply::UnregisterBroker(newest(client, request).await?),
        Asked::AllocateProducerIds(request) => {
            Reply::AllocateProducerIds(newest(client, request).await?)
        }
        Asked::IncrementalAlterConfigs(request) => {
            Reply::IncrementalAlterConfigs(newest(client, request).await?)
        }
        Asked::AlterConfigs(request) => Reply::AlterConfigs(newest(client, request).await?),
        Asked::ElectLeaders(request) => Reply::ElectLeaders(newest(client, request).await?),
        Asked::AlterPartitionReassignments(request) => {
            Reply::AlterPartitionReassignments(newest(client, request).await?)
        }
        Asked::AlterPartition(request) => Reply::AlterPartition(newest(client, request).await?),
        Asked::AssignReplicasToDirs(request) => {
            Reply::AssignReplicasToDirs(newest(client, request).await?)
        }
        Asked::UpdateFeatures { request, version } => {
            Reply::UpdateFeatures(client.call(version, request).await?)
        }
        Asked::AlterClientQuotas(request) => {
            Reply::AlterClientQuotas(newest(client, request).await?)
        }
        Asked::AlterUserScramCredentials(request) => {
            Reply::AlterUserScramCredentials(newest(client, request).await?)
        }
    })
}

/// Whether a node answers that it is not the active controller, in which case nothing was done.
pub(super) fn is_not_controller(reply: &ControllerReply) -> bool {
    use ControllerReply as Reply;
    let code = match reply {
        Reply::CreateTopics(reply) => reply.topics.first().map(|one| one.error_code),
        Reply::DeleteTopics(reply) => reply.responses.first().map(|one| one.error_code),
        Reply::CreatePartitions(reply) => reply.results.first().map(|one| one.error_code),
        Reply::RegisterBroker(reply) => Some(reply.error_code),
        Reply::RegisterController(reply) => Some(reply.error_code),
        Reply::BrokerHeartbeat(reply) => Some(reply.error_code),
        Reply::FenceBroker(reply) => reply.err().map(ErrorCode::code),
        Reply::NoOp => None,
        Reply::UnregisterBroker(reply) => Some(reply.error_code),
        Reply::AllocateProducerIds(reply) => Some(reply.error_code),
        Reply::IncrementalAlterConfigs(reply) => reply.responses.first().map(|one| one.error_code),
        Reply::AlterConfigs(reply) => reply.responses.first().map(|one| one.error_code),
        Reply::ElectLeaders(reply) => Some(reply.error_code),
        Reply::AlterPartitionReassignments(reply) => Some(reply.error_code),
        Reply::AlterPartition(reply) => Some(reply.error_code),
        Reply::AssignReplicasToDirs(reply) => Some(reply.error_code),
        Reply::UpdateFeatures(reply) => Some(reply.error_code),
        Reply::AlterClientQuotas(reply) => reply.entries.first().map(|one| one.error_code),
        Reply::AlterUserScramCredentials(reply) => reply.results.first().map(|one| one.error_code),
    };
    code == Some(ErrorCode::NotController.code())
}
