//! Every configuration key that Kafka 4.4.0, 4.3.1, 2.8 and 0.10 know, as data.
//!
//! Invariant: each part is in the order of its names, each (scope, name) occurs once.

use super::key::{Key, Scope};

mod broker_groups;
mod broker_log;
mod broker_security;
mod broker_server;
mod client_metrics;
mod gone;
mod group;
mod own;
mod throttles;
mod topic;

const PARTS: &[&[Key]] = &[
    broker_server::KEYS,
    broker_log::KEYS,
    broker_groups::KEYS,
    broker_security::KEYS,
    own::KEYS,
    topic::KEYS,
    group::KEYS,
    client_metrics::KEYS,
    gone::KEYS,
];

/// The key of that name, those of older releases included.
pub fn find(scope: Scope, name: &str) -> Option<&'static Key> {
    PARTS.iter().find_map(|part| {
        let at = part.binary_search_by(|key| key.name.cmp(name)).ok()?;
        part.get(at).filter(|key| key.scope == scope)
    })
}

/// A key that only dynamic broker configuration has.
pub fn throttle(name: &str) -> Option<&'static Key> {
    throttles::KEYS.iter().find(|key| key.name == name)
}

/// Every key of the scope that today's Kafka knows or that is Ottla's own, in the order of the parts.
pub fn all(scope: Scope) -> impl Iterator<Item = &'static Key> {
    everything().filter(move |key| key.scope == scope && key.gone.is_none())
}

/// Every key, those of older releases included.
pub fn everything() -> impl Iterator<Item = &'static Key> {
    PARTS.iter().flat_map(|part| part.iter())
}
