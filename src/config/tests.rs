use super::*;

#[test]
fn the_table_is_sorted_and_its_defaults_are_valid() {
    for key in table::everything() {
        let found = table::find(key.scope, key.name).map(|found| found.name);
        assert_eq!(found, Some(key.name), "find sees every key");
        if let Some(text) = key.default.text().filter(|text| !text.is_empty()) {
            let parsed = value::parse(key, text);
            assert!(parsed.is_ok(), "{}: {parsed:?}", key.name);
        }
        for synonym in key.synonyms {
            assert!(find(Scope::Broker, synonym).is_some(), "{}: {synonym}", key.name);
        }
    }
}

#[test]
fn a_start_without_a_file_has_port_9092_and_a_directory_of_its_own() {
    let config = Config::default();
    assert_eq!(config.listeners.broker.len(), 1);
    assert_eq!(config.listeners.broker[0].to_string(), "PLAINTEXT://:9092");
    assert_eq!(config.listeners.inter_broker, "PLAINTEXT");
    assert_eq!(config.log_dirs, [PathBuf::from("ottla-data")]);
    assert_eq!(config.node_id, 1);
    assert!(config.is_broker && config.is_controller);
    assert_eq!(config.offsets.topic_num_partitions, 50);
}

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut values = Values::default();
    for (name, value) in pairs {
        values.set(name, value, Source::Override);
    }
    Config::from_values(values)
}

fn check_topic(pairs: &[(&str, &str)], expected: Result<(), &str>) {
    let found = topic::validate_topic(&Config::default(), Dynamic::NONE, &overrides(pairs));
    assert_eq!(found, expected.map_err(str::to_owned), "{pairs:?}");
}

#[test]
fn topic_overrides_are_refused_in_kafkas_words() {
    let bad = |name: &str, value: &str, why: &str| {
        let message = format!("Invalid value {value} for configuration {name}: {why}");
        check_topic(&[(name, value)], Err(&message));
    };
    bad("retention.ms", "abc", "Not a number of type LONG");
    bad("retention.ms", "-2", "Value must be at least -1");
    bad("segment.bytes", "99999999999", "Not a number of type INT");
    bad("segment.bytes", "10", "Value must be at least 1048576");
    bad("cleanup.policy", "foo", "String must be one of: compact, delete");
    bad("min.cleanable.dirty.ratio", "1.5", "Value must be no more than 1");
    bad("compression.gzip.level", "0", "Value must be between 1 and 9 or equal to -1");
    bad("preallocate", "maybe", "Expected value to be either true or false");
    check_topic(
        &[("min.cleanable.dirty.ratio", "-1")],
        Err("Invalid value -1.0 for configuration min.cleanable.dirty.ratio: Value must be at \
             least 0"),
    );
    check_topic(
        &[("cleanup.policy", "delete, ,compact")],
        Err("Configuration 'cleanup.policy' values must not be empty."),
    );
    check_topic(&[("foo", "1")], Err("Unknown topic config name: foo"));
    check_topic(
        &[("message.format.version", "3.0")],
        Err("Unknown topic config name: message.format.version"),
    );
    check_topic(
        &[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")],
        Err("conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"),
    );
    for good in
        [("cleanup.policy", ""), ("cleanup.policy", "delete,delete"), ("retention.ms", "+5")]
    {
        check_topic(&[good], Ok(()));
    }
    check_topic(&[("leader.replication.throttled.replicas", "1:2,1:2")], Ok(()));
}

#[test]
fn a_topics_value_comes_from_the_most_specific_unit() {
    let config = with(&[("log.retention.hours", "1"), ("log.retention.minutes", "2")]);
    let config = config.expect("valid");
    let retention_ms = |dynamic: Dynamic<'_>, own: &[(&str, &str)]| {
        TopicConfig::new(&config, dynamic, &overrides(own)).map(|topic| topic.retention_ms)
    };
    assert_eq!(retention_ms(Dynamic::NONE, &[]), Ok(120_000));
    let cluster = overrides(&[("log.retention.ms", "7")]);
    let broker = overrides(&[("log.retention.ms", "8")]);
    assert_eq!(retention_ms(Dynamic { broker: topic::NOTHING, cluster: &cluster }, &[]), Ok(7));
    assert_eq!(retention_ms(Dynamic { broker: &broker, cluster: &cluster }, &[]), Ok(8));
    assert_eq!(
        retention_ms(Dynamic { broker: &broker, cluster: &cluster }, &[("retention.ms", "9")]),
        Ok(9)
    );
}

#[test]
fn described_values_name_their_sources_as_kafka_does() {
    let config = with(&[("log.retention.hours", "1")]).expect("valid");
    let own = overrides(&[("segment.ms", "5")]);
    let all = describe::describe_topic(&config, Dynamic::NONE, &own, None);
    let of = |name: &str| all.iter().find(|entry| entry.name == name).expect("listed");
    // Only the hours are set, and those before the key's own name do not count.
    assert_eq!(of("retention.ms").value.as_deref(), Some("3600000"));
    assert!(of("retention.ms").synonyms.is_empty());
    assert_eq!(of("retention.ms").source, describe::ConfigSource::Default);
    assert_eq!(of("segment.ms").source, describe::ConfigSource::DynamicTopic);
    let max = of("max.message.bytes");
    assert_eq!(max.synonyms[0].name, "message.max.bytes");
    assert_eq!(max.synonyms[0].source, describe::ConfigSource::Default);
    assert!(all.iter().all(|entry| entry.name != "internal.segment.bytes"));
    assert!(all.iter().all(|entry| entry.name != "max.decompressed.message.bytes"));
}

#[test]
fn dynamic_broker_values_follow_their_update_modes() {
    use rules::BrokerLevel::{Cluster, One};
    let check = |level, pairs: &[(&str, &str)]| rules::validate_broker(level, &overrides(pairs));
    assert_eq!(check(Cluster, &[("log.retention.ms", "5"), ("unknown", "x")]), Ok(()));
    assert_eq!(
        check(One, &[("num.partitions", "5")]),
        Err("Cannot update these configs dynamically: Set(num.partitions)".to_owned())
    );
    assert!(check(One, &[("listener.name.a.ssl.keystore.location", "x")]).is_ok());
    assert!(check(One, &[("ssl.keystore.location", "x")]).is_err());
    assert_eq!(
        check(Cluster, &[("listeners", "PLAINTEXT://:1")]),
        Err("Cannot update these configs at default cluster level, broker id must be specified: \
             Set(listeners)"
            .to_owned())
    );
}

#[test]
fn group_overrides_stay_inside_the_brokers_bounds() {
    let config = Config::default();
    let check =
        |pairs: &[(&str, &str)]| rules::validate_group(&config, Dynamic::NONE, &overrides(pairs));
    assert_eq!(check(&[]), Ok(()));
    assert_eq!(check(&[("foo", "1")]), Err("Unknown group config name: foo".to_owned()));
    assert_eq!(
        check(&[("consumer.session.timeout.ms", "100")]),
        Err("consumer.session.timeout.ms must be greater than or equal to \
             group.consumer.min.session.timeout.ms"
            .to_owned())
    );
    assert!(check(&[("share.auto.offset.reset", "by_duration:PT1H")]).is_ok());
    assert!(check(&[("share.auto.offset.reset", "by_duration:-PT1H")]).is_err());
}

fn check_refused(pairs: &[(&str, &str)], part: &str) {
    let error = with(pairs).expect_err("refused").to_string();
    assert!(error.contains(part) && !error.contains('\n'), "{error}");
}

#[test]
fn wrong_broker_values_name_key_value_and_range() {
    check_refused(&[("num.partitions", "0")], "Invalid value 0 for configuration num.partitions");
    check_refused(&[("num.partitions", "0")], "(valid: [1,...])");
    check_refused(&[("listeners", "foo")], "listeners=foo");
    check_refused(&[("listeners", "PLAINTEXT://:abc")], "PLAINTEXT://:abc");
    check_refused(&[("listeners", "A://:1")], "No security protocol defined for listener A");
    check_refused(&[("listeners", "SSL://:1")], "SSL");
    check_refused(&[("listeners", "PLAINTEXT://:1,SSL://:1")], "different port");
    check_refused(&[("advertised.listeners", "PLAINTEXT://0.0.0.0:1")], "nonroutable");
    check_refused(&[("node.id", "1"), ("broker.id", "2")], "You must set `node.id`");
    check_refused(&[("log.retention.hours", "0")], "must be unlimited (-1)");
    check_refused(&[("controller.quorum.voters", "foo")], "{id}@{host}:{port}");
    check_refused(&[("sasl.login.refresh.buffer.seconds", "99999")], "type SHORT");
    check_refused(&[("max.connections.per.ip", "0")], "can be set to zero only if");
}

#[test]
fn listeners_of_old_files_become_todays() {
    let config =
        with(&[("host.name", "here"), ("port", "9999"), ("advertised.host.name", "there")]);
    let listeners = config.expect("valid").listeners;
    assert_eq!(listeners.broker[0].to_string(), "PLAINTEXT://here:9999");
    assert_eq!(listeners.advertised[0].to_string(), "PLAINTEXT://there:9999");
    let config = with(&[
        ("listeners", "PLAINTEXT://[::1]:9092 , CONTROLLER://:9093"),
        ("controller.listener.names", "CONTROLLER"),
    ]);
    let listeners = config.expect("valid").listeners;
    assert_eq!(listeners.broker[0].host, "::1");
    assert_eq!(listeners.controller[0].port, 9093);
}
