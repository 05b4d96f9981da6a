use super::*;
use crate::config::Values;
use crate::machines::metadata::image::Image;
use ottla_protocol::BrokerId;

fn configs(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn check(found: Result<(), ApiError>, code: ErrorCode, expected: Result<(), &str>) {
    assert_eq!(found, expected.map_err(|text| ApiError::new(code, text)));
}

fn topic(pairs: &[(&str, &str)], expected: Result<(), &str>) {
    let found = check_topic(
        &configs(pairs),
        &BrokerSources::new(&Image::default(), BrokerId(1), &Values::default()),
    );
    check(found, ErrorCode::InvalidConfig, expected);
}

#[test]
fn topic_overrides_are_refused_in_kafkas_words() {
    let bad = |name: &str, value: &str, why: &str| {
        let message = format!("Invalid value {value} for configuration {name}: {why}");
        topic(&[(name, value)], Err(&message));
    };
    bad("retention.ms", "abc", "Not a number of type LONG");
    bad("retention.ms", "-2", "Value must be at least -1");
    bad("segment.bytes", "99999999999", "Not a number of type INT");
    bad("segment.bytes", "10", "Value must be at least 1048576");
    bad("cleanup.policy", "foo", "String must be one of: compact, delete");
    bad("min.cleanable.dirty.ratio", "1.5", "Value must be no more than 1");
    bad("compression.gzip.level", "0", "Value must be between 1 and 9 or equal to -1");
    bad("preallocate", "maybe", "Expected value to be either true or false");
    topic(
        &[("min.cleanable.dirty.ratio", "-1")],
        Err("Invalid value -1.0 for configuration min.cleanable.dirty.ratio: Value must be at \
             least 0"),
    );
    topic(
        &[("cleanup.policy", "delete, ,compact")],
        Err("Configuration 'cleanup.policy' values must not be empty."),
    );
    topic(&[("foo", "1")], Err("Unknown topic config name: foo"));
    topic(
        &[("message.format.version", "3.0")],
        Err("Unknown topic config name: message.format.version"),
    );
    topic(
        &[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")],
        Err("conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"),
    );
    for good in
        [("cleanup.policy", ""), ("cleanup.policy", "delete,delete"), ("retention.ms", "+5")]
    {
        topic(&[good], Ok(()));
    }
    topic(&[("leader.replication.throttled.replicas", "1:2,1:2")], Ok(()));
}

#[test]
fn dynamic_broker_values_follow_their_update_modes() {
    let broker = |scope, pairs: &[(&str, &str)], expected| {
        check(check_broker(&configs(pairs), scope), ErrorCode::InvalidRequest, expected);
    };
    use BrokerScope::{All, One};
    broker(All, &[("log.retention.ms", "5"), ("unknown", "x")], Ok(()));
    broker(
        One,
        &[("num.partitions", "5")],
        Err("Cannot update these configs dynamically: [num.partitions]"),
    );
    broker(One, &[("listener.name.a.ssl.keystore.location", "x")], Ok(()));
    broker(
        All,
        &[("listener.name.a.ssl.keystore.location", "x")],
        Err("Cannot update these configs at default cluster level, broker id must be specified: \
             [listener.name.a.ssl.keystore.location]"),
    );
    broker(All, &[("listener.name.a.max.connections", "5")], Ok(()));
    broker(
        One,
        &[("ssl.keystore.location", "x")],
        Err("These security configs can be dynamically updated only per-listener using the \
             listener prefix: [ssl.keystore.location]"),
    );
    broker(
        All,
        &[("listeners", "PLAINTEXT://:1")],
        Err("Cannot update these configs at default cluster level, broker id must be specified: \
             [listeners]"),
    );
}

#[test]
fn group_overrides_stay_inside_the_brokers_bounds() {
    let group = |pairs: &[(&str, &str)]| {
        let (image, file) = (Image::default(), Values::default());
        check_group(&configs(pairs), &BrokerSources::new(&image, BrokerId(1), &file))
    };
    let refused = |pairs: &[(&str, &str)], text: &str| {
        check(group(pairs), ErrorCode::InvalidConfig, Err(text));
    };
    check(group(&[]), ErrorCode::None, Ok(()));
    refused(&[("foo", "1")], "Unknown group config name: foo");
    refused(
        &[("consumer.session.timeout.ms", "100")],
        "consumer.session.timeout.ms must be greater than or equal to \
         group.consumer.min.session.timeout.ms",
    );
    refused(
        &[("streams.num.standby.replicas", "100")],
        "streams.num.standby.replicas must be less than or equal to \
         group.streams.max.standby.replicas",
    );
    assert!(group(&[("share.auto.offset.reset", "by_duration:PT1H")]).is_ok());
    assert!(group(&[("share.auto.offset.reset", "by_duration:-PT1H")]).is_err());
}

#[test]
fn client_metrics_are_refused_with_kafkas_codes() {
    let metrics = |pairs: &[(&str, &str)]| check_client_metrics("m", &configs(pairs));
    check(metrics(&[("interval.ms", "100")]), ErrorCode::None, Ok(()));
    check(
        metrics(&[("foo", "1")]),
        ErrorCode::InvalidRequest,
        Err("Unknown client metrics configuration: foo"),
    );
    check(
        metrics(&[("match", "foo")]),
        ErrorCode::InvalidConfig,
        Err("Illegal client matching pattern: foo"),
    );
}
