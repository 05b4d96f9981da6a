//! JoinGroup (api key 11), versions 0-9: a member joins a classic group and waits for its next
//! generation.
//!
//! - v0: no rebalance time-out; the session time-out stands for it. - v1: rebalance time-out
//!   (KIP-62). - v2: throttle time.
//! - v3: as v2. - v4: MEMBER_ID_REQUIRED (KIP-394). - v5: static members (KIP-345). - v6: flexible.
//! - v7: protocol type and name in the answer (KIP-559). - v8: reason (KIP-800). - v9: skip
//!   assignment (KIP-814).
//!
//! Known differences from Kafka: a request that waits is answered REBALANCE_IN_PROGRESS when its
//! member asks again on another connection; Kafka never answers it.

use super::RequestContext;
use crate::broker::{GroupRequest, GroupResponse, Join};
use ottla_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use std::net::IpAddr;

/// Answers the request, when the group's next generation begins.
pub async fn handle(ctx: &RequestContext, mut request: JoinGroupRequest) -> JoinGroupResponse {
    if ctx.version == 0 {
        request.rebalance_timeout_ms = request.session_timeout_ms;
    }
    let group_id = request.group_id.clone();
    let join = Join {
        request,
        version: ctx.version,
        client_id: ctx.client_id.clone().unwrap_or_default(),
        client_host: host_text(ctx.peer.ip()),
        uuid: uuid::Uuid::new_v4(),
    };
    let answer = ctx.broker.group(&group_id, GroupRequest::Join(Box::new(join))).await;
    let mut response = answer.and_then(GroupResponse::join).unwrap_or_else(|error| {
        JoinGroupResponse { error_code: error.code(), ..JoinGroupResponse::default() }
    });
    // Kafka sends an empty protocol name as null from version 7 on; before, null is written as empty.
    response.protocol_name = response.protocol_name.filter(|name| !name.is_empty());
    response
}

/// An address as Java writes it, which is what tools show as a member's host: `/10.0.0.1`,
/// `/0:0:0:0:0:0:0:1`.
fn host_text(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|group| format!("{group:x}"));
            format!("/{}", groups.join(":"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_java_writes_them() {
        let cases = [
            ("127.0.0.1", "/127.0.0.1"),
            ("::1", "/0:0:0:0:0:0:0:1"),
            ("::ffff:10.1.2.3", "/10.1.2.3"),
            ("2001:db8::a", "/2001:db8:0:0:0:0:0:a"),
        ];
        for (address, text) in cases {
            assert_eq!(host_text(address.parse().unwrap()), text);
        }
    }
}
