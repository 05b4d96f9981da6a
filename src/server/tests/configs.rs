//! Configurations as they are described after they were altered.

use super::*;
use crate::broker::ResourceType;
use crate::broker::effective::ConfigSource;
use ottla_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ottla_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};

/// Sets the values, or deletes where there is none.
fn alter(client: &mut Client, kind: ResourceType, name: &str, set: &[(&str, Option<&str>)]) {
    let configs = set.iter().map(|(key, value)| AlterableConfig {
        name: (*key).to_owned(),
        config_operation: i8::from(value.is_none()),
        value: value.map(str::to_owned),
    });
    let resource = AlterConfigsResource {
        resource_type: kind.id(),
        resource_name: name.to_owned(),
        configs: configs.collect(),
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let response = client.call(1, &request);
    assert_eq!(response.responses[0].error_code, 0, "{response:?}");
}

fn describe(
    client: &mut Client,
    kind: ResourceType,
    name: &str,
) -> Vec<DescribeConfigsResourceResult> {
    let resource = DescribeConfigsResource {
        resource_type: kind.id(),
        resource_name: name.to_owned(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        ..Default::default()
    };
    let mut response = client.call(4, &request);
    assert_eq!(response.results[0].error_code, 0, "{response:?}");
    response.results.remove(0).configs
}

#[test]
fn client_metrics_subscriptions_are_described_with_their_defaults() {
    let world = World::new();
    let mut client = world.connect();
    let default = ConfigSource::Default.id();
    let own = ConfigSource::ClientMetrics.id();
    let mut check = |set: &[(&str, Option<&str>)], expected: [(&str, &str, i8); 3]| {
        alter(&mut client, ResourceType::ClientMetrics, "subscription", set);
        let found = describe(&mut client, ResourceType::ClientMetrics, "subscription");
        let found = found.iter();
        let found: Vec<_> = found
            .map(|entry| (&*entry.name, entry.value.as_deref().unwrap(), entry.config_source))
            .collect();
        assert_eq!(found, expected);
    };
    let set = [("interval.ms", Some("6000")), ("metrics", Some(""))];
    check(&set, [("interval.ms", "6000", own), ("match", "", default), ("metrics", "", own)]);
    let deleted = [("interval.ms", None), ("metrics", None)];
    check(
        &deleted,
        [("interval.ms", "300000", default), ("match", "", default), ("metrics", "", default)],
    );
}

#[test]
fn a_listeners_key_is_described_as_the_general_one() {
    let world = World::new();
    let mut client = world.connect();
    let set = [
        ("listener.name.internal.ssl.truststore.type", Some("PKCS12")),
        ("listener.name.internal.ssl.truststore.password", Some("secret")),
    ];
    alter(&mut client, ResourceType::Broker, "1", &set);
    let found = describe(&mut client, ResourceType::Broker, "1");
    let find = |name: &str| found.iter().find(|entry| entry.name == name).unwrap();
    let kind = find(set[0].0);
    assert_eq!(kind.value.as_deref(), Some("PKCS12"));
    assert!(kind.read_only && !kind.is_sensitive);
    let synonyms: Vec<_> = kind.synonyms.iter().map(|synonym| synonym.name.as_str()).collect();
    assert_eq!(synonyms, [set[0].0, "ssl.truststore.type"]);
    let password = find(set[1].0);
    assert!(password.is_sensitive && password.value.is_none());
}

#[test]
fn internal_keys_are_described_where_they_are_set() {
    let world = World::new();
    let mut client = world.connect();
    let config = |value: &str| create_topics_request::CreatableTopicConfig {
        name: "internal.segment.bytes".to_owned(),
        value: Some(value.to_owned()),
    };
    let topic = |name: &str, configs| CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        configs,
        ..Default::default()
    };
    let topics = vec![topic("set", vec![config("1000")]), topic("unset", Vec::new())];
    let request = CreateTopicsRequest { topics, timeout_ms: 5000, ..Default::default() };
    let response = client.call(7, &request);
    for (result, expected) in response.topics.iter().zip([Some("1000"), None]) {
        assert_eq!(result.error_code, 0, "{result:?}");
        let configs = result.configs.as_ref().unwrap().iter();
        let mut found = configs.filter(|config| config.name == "internal.segment.bytes");
        assert_eq!(found.next().and_then(|config| config.value.as_deref()), expected);
        let described = describe(&mut client, ResourceType::Topic, &result.name);
        let mut found = described.iter().filter(|entry| entry.name == "internal.segment.bytes");
        assert_eq!(found.next().and_then(|entry| entry.value.as_deref()), expected);
    }
}

#[test]
fn replication_throttles_are_described_where_they_are_set() {
    let world = World::new();
    let mut client = world.connect();
    let rate = "leader.replication.throttled.rate";
    let value = |client: &mut Client| {
        let found = describe(client, ResourceType::Broker, "1");
        found.into_iter().find(|entry| entry.name == rate).and_then(|entry| entry.value)
    };
    assert_eq!(value(&mut client), None);
    alter(&mut client, ResourceType::Broker, "1", &[(rate, Some("123"))]);
    assert_eq!(value(&mut client).as_deref(), Some("123"));
    alter(&mut client, ResourceType::Broker, "1", &[(rate, None)]);
    assert_eq!(value(&mut client), None);
}

#[test]
fn root_logger_is_set_and_described() {
    let world = World::new();
    let mut client = world.connect();
    let mut change =
        |name: &str, config_operation: i8, value: Option<&str>, validate_only: bool| {
            let config = AlterableConfig {
                name: name.to_owned(),
                config_operation,
                value: value.map(str::to_owned),
            };
            let resource = AlterConfigsResource {
                resource_type: ResourceType::BrokerLogger.id(),
                resource_name: "1".to_owned(),
                configs: vec![config],
            };
            let request =
                IncrementalAlterConfigsRequest { resources: vec![resource], validate_only };
            let response = client.call(1, &request);
            let level = describe(&mut client, ResourceType::BrokerLogger, "1").remove(0).value;
            (ErrorCode::from_code(response.responses[0].error_code), level.unwrap())
        };
    let (set, delete, append) = (0, 1, 2);
    let mut check = |name, operation, value, validate_only, code, level: &str| {
        let expected = (code, level.to_owned());
        assert_eq!(change(name, operation, value, validate_only), expected, "{name} {value:?}");
    };
    check("root", set, Some("DEBUG"), true, ErrorCode::None, "INFO");
    check("root", set, Some("DEBUG"), false, ErrorCode::None, "DEBUG");
    check("root", set, Some("OFF"), false, ErrorCode::InvalidConfig, "DEBUG");
    check("root", delete, None, false, ErrorCode::InvalidRequest, "DEBUG");
    check("root", append, Some("WARN"), false, ErrorCode::InvalidRequest, "DEBUG");
    check("kafka.log", set, Some("WARN"), false, ErrorCode::InvalidConfig, "DEBUG");
    check("root", set, Some("FATAL"), false, ErrorCode::None, "FATAL");
}

#[test]
fn a_controller_takes_changes_for_other_brokers() {
    let world = World::new();
    let change = |address, key: &str| {
        let config = AlterableConfig {
            name: key.to_owned(),
            config_operation: 0,
            value: Some("1000".to_owned()),
        };
        let resource = AlterConfigsResource {
            resource_type: ResourceType::Broker.id(),
            resource_name: "2".to_owned(),
            configs: vec![config],
        };
        let request =
            IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        let response = World::connect_to(address).call(1, &request);
        ErrorCode::from_code(response.responses[0].error_code)
    };
    const RATE: &str = "leader.replication.throttled.rate";
    assert_eq!(change(world.address, RATE), ErrorCode::InvalidRequest);
    // It knows no such broker, and would not ask had it refused for another's sake.
    assert_eq!(change(world.controller_address, RATE), ErrorCode::BrokerIdNotRegistered);
    assert_eq!(change(world.controller_address, "node.id"), ErrorCode::InvalidRequest);
}
