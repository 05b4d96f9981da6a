//! Changes of the configuration.

use super::*;
use crate::machines::metadata::image::ConfigResource;

#[test]
fn configurations_change_one_by_one_and_are_checked() {
    let mut world = World::with_brokers(1);
    world.created("t", 1, 1);
    use ErrorCode as E;
    use ResourceType::*;
    let cases = [
        (Topic, "t", 0, "retention.ms", "5", E::None, ""),
        (Topic, "t", 2, "cleanup.policy", "compact", E::None, ""),
        (Topic, "t", 3, "cleanup.policy", "delete", E::None, ""),
        (
            Topic,
            "t",
            2,
            "retention.ms",
            "6",
            E::InvalidConfig,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            Topic,
            "nosuch",
            0,
            "retention.ms",
            "6",
            E::UnknownTopicOrPartition,
            "The topic 'nosuch' does not exist.",
        ),
        (
            Topic,
            "t",
            0,
            "remote.storage.enable",
            "true",
            E::InvalidConfig,
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
             with remote log storage.",
        ),
        (Group, "g", 0, "consumer.session.timeout.ms", "46000", E::None, ""),
        (
            Group,
            "g",
            0,
            "consumer.session.timeout.ms",
            "1",
            E::InvalidConfig,
            "consumer.session.timeout.ms must be greater than or equal to \
             group.consumer.min.session.timeout.ms",
        ),
        (
            ClientMetrics,
            "m",
            0,
            "interval.ms",
            "1",
            E::InvalidRequest,
            "Invalid value 1 for interval.ms, interval must be between 100 and 3600000 (1 hour)",
        ),
        (ClientMetrics, "m", 0, "interval.ms", "1000", E::None, ""),
        (
            Broker,
            "1",
            0,
            "min.insync.replicas",
            "2",
            E::InvalidConfig,
            "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
        ),
        (
            Broker,
            "",
            1,
            "min.insync.replicas",
            "",
            E::InvalidConfig,
            "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
        ),
        (Broker, "", 0, "min.insync.replicas", "2", E::None, ""),
    ];
    for (kind, name, op, key, value, code, text) in cases {
        let (got, message) = alter(&mut world, kind, name, op, key, value);
        assert_eq!((got, message.as_str()), (code, text), "{key}");
    }
    let image = &world.controller.image;
    assert_eq!(image.topic_config("t", "retention.ms"), Some("5"));
    assert_eq!(image.topic_config("t", "cleanup.policy"), Some("compact"));
    let group = image.config(&ConfigResource::new(Group, "g"));
    assert_eq!(group["consumer.session.timeout.ms"], "46000");
    world.check_replay();
}
