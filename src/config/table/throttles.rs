//! Keys that only dynamic broker configuration has: how fast replicas may move (KIP-73, KIP-113).
//!
//! Not among the other keys: no file sets them, and they are described only where they are set.

use crate::config::key::{Check, Default, Importance, Key, Kind, Scope, Support, Update};

/// In the order of their names.
pub(super) const KEYS: &[Key] = &[
    throttle(
        "follower.replication.throttled.rate",
        "Bytes per second that throttled followers may fetch.",
    ),
    throttle(
        "leader.replication.throttled.rate",
        "Bytes per second that throttled followers may fetch from this broker.",
    ),
    throttle(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        "Bytes per second that may move from one log directory to another.",
    ),
];

const fn throttle(name: &'static str, documentation: &'static str) -> Key {
    Key {
        scope: Scope::Broker,
        name,
        kind: Kind::Long,
        default: Default::Text("9223372036854775807"),
        check: Check::AtLeast(0),
        importance: Importance::Medium,
        is_internal: false,
        update: Update::ReadOnly,
        synonyms: &[],
        since: "",
        gone: None,
        support: Support::Honoured,
        documentation,
    }
}
