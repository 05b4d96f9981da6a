//! Messages of the quorum's voters to each other (no api key of Kafka's: 0x4f54), version 0 of the frame.
//!
//! The body is the sender's node id, its cluster's id, and what `broker/quorum.rs` has written; the answer is what that
//! has. Only on the controller's listeners, and in no answer to ApiVersions. The connection tells as much as the
//! messages: when that of the leader is reset, its followers look whether it is still there.

use super::{Close, RequestContext};
use crate::env::net::SendQueue;
use ottla_protocol::{BrokerId, Reader, request};

/// Hands the message to the quorum and answers what that says.
pub(super) async fn handle(ctx: &RequestContext, mut body: Reader) -> Result<SendQueue, Close> {
    let sender = BrokerId(body.i32()?);
    let cluster_id = body.string(false)?;
    if cluster_id != ctx.broker.cluster_id() {
        return Err(Close::OtherCluster { id: sender, cluster_id });
    }
    ctx.peer_voter.get_or_init(|| sender);
    let answer = ctx.broker.quorum_message(body.rest()).await;
    let mut out = SendQueue::default();
    let frame = request::write_quorum_answer(ctx.correlation_id, &answer);
    out.bytes_mut().extend_from_slice(&frame);
    Ok(out)
}
