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
        support: Support::Ignored("kept and described; clients push no metrics yet"),
        documentation: "How often clients push the metrics of this subscription.",
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
        support: Support::Ignored("kept and described; clients push no metrics yet"),
        documentation: "Which clients this subscription is for, as selector=pattern.",
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
        support: Support::Ignored("kept and described; clients push no metrics yet"),
        documentation: "Which metrics this subscription asks for, by the beginnings of their \
                        names.",
    },
];
