//! Keys of client metrics subscriptions.

use crate::config::key::{Check, Default, Importance, Key, Kind, Scope, Support, Update};

/// In the order of their names.
pub(super) const KEYS: &[Key] = &[
    Key {
        scope: Scope::ClientMetrics,
        name: "interval.ms",
        kind: Kind::Int,
        default: Default::Text("300000"),
        check: Check::Any,
        importance: Importance::Medium,
        is_internal: false,
        update: Update::ClusterWide,
        synonyms: &[],
        since: "",
        gone: None,
        support: Support::Ignored("not used yet"),
        documentation: "",
    },
    Key {
        scope: Scope::ClientMetrics,
        name: "match",
        kind: Kind::List,
        default: Default::Text(""),
        check: Check::Any,
        importance: Importance::Medium,
        is_internal: false,
        update: Update::ClusterWide,
        synonyms: &[],
        since: "",
        gone: None,
        support: Support::Ignored("not used yet"),
        documentation: "",
    },
    Key {
        scope: Scope::ClientMetrics,
        name: "metrics",
        kind: Kind::List,
        default: Default::Text(""),
        check: Check::Any,
        importance: Importance::Medium,
        is_internal: false,
        update: Update::ClusterWide,
        synonyms: &[],
        since: "",
        gone: None,
        support: Support::Ignored("not used yet"),
        documentation: "",
    },
];
