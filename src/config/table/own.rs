//! Ottla's own keys.

use crate::config::key::{Check, Default, Importance, Key, Kind, Scope, Support, Update};

/// In the order of their names.
pub(super) const KEYS: &[Key] = &[
    Key {
        scope: Scope::Broker,
        name: "ottla.ack.durability",
        kind: Kind::String,
        default: Default::Text("page-cache"),
        check: Check::OneOf(&["page-cache", "fsync"]),
        importance: Importance::High,
        is_internal: false,
        update: Update::ReadOnly,
        synonyms: &[],
        since: "ottla",
        gone: None,
        support: Support::Honoured,
        documentation: "What an acknowledgement of acks=all means on each in-sync replica. With \
                        page-cache, as in Kafka, the operating system has the records: they \
                        outlive the process, and a loss of power through replication only. With \
                        fsync the disk has them, the high watermark passes nothing that it has \
                        not, and requests that arrive together share one sync. acks=0 and acks=1 \
                        do not wait for it. A topic's flush.messages, where it asks for more, \
                        holds too.",
    },
    Key {
        scope: Scope::Broker,
        name: "ottla.cluster.id",
        kind: Kind::String,
        default: Default::Null,
        check: Check::NonEmpty,
        importance: Importance::Low,
        is_internal: false,
        update: Update::ReadOnly,
        synonyms: &[],
        since: "ottla",
        gone: None,
        support: Support::Honoured,
        documentation: "The cluster id that an empty data directory is formatted with; without \
                        it a random one.",
    },
    Key {
        scope: Scope::Broker,
        name: "ottla.log.dir.reserve.bytes",
        kind: Kind::Long,
        default: Default::Text("-1"),
        check: Check::AtLeast(-1),
        importance: Importance::Medium,
        is_internal: false,
        update: Update::ReadOnly,
        synonyms: &[],
        since: "ottla",
        gone: None,
        support: Support::Honoured,
        documentation: "Free bytes on the volume of a log directory below which producers to it \
                        get an error that they retry, until there is space again. Consumers, \
                        deletions, retention, committed offsets and metadata go on: the reserve \
                        is what they need to get the disk out of it. -1 is 5 % of the volume, \
                        1 GiB at the most; 0 waits for a write to fail.",
    },
    Key {
        scope: Scope::Broker,
        name: "ottla.log.level",
        kind: Kind::String,
        default: Default::Text("info"),
        check: Check::NonEmpty,
        importance: Importance::Low,
        is_internal: false,
        update: Update::ReadOnly,
        synonyms: &[],
        since: "ottla",
        gone: None,
        support: Support::Honoured,
        documentation: "What is written to standard error: error, warn, info, debug, trace, or \
                        directives such as info,ottla::server=debug. RUST_LOG goes before it.",
    },
    Key {
        scope: Scope::Broker,
        name: "ottla.worker.threads",
        kind: Kind::Int,
        default: Default::Text("0"),
        check: Check::Between(0, 1024),
        importance: Importance::Medium,
        is_internal: false,
        update: Update::ReadOnly,
        synonyms: &[],
        since: "ottla",
        gone: None,
        support: Support::Honoured,
        documentation: "Threads that serve connections and partitions; 0 is one for each \
                        processor.",
    },
];
