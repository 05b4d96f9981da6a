//! Log directories that get no new partitions (KIP-1066).

use super::*;
use crate::broker::ResourceType;
use alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};

fn two_dirs(dir: &str) -> Vec<(&'static str, String)> {
    vec![("log.dirs", format!("{dir}/a,{dir}/b"))]
}

fn cordoned_at_start(dir: &str) -> Vec<(&'static str, String)> {
    vec![("log.dirs", format!("{dir}/a,{dir}/b")), ("cordoned.log.dirs", "*".to_owned())]
}

const ALL_LOG_DIRS: DescribeLogDirsRequest = DescribeLogDirsRequest { topics: None };

/// Sets `cordoned.log.dirs` and answers the error.
fn cordon(client: &mut Client, value: &str) -> (i16, Option<String>) {
    let config = AlterableConfig {
        name: "cordoned.log.dirs".to_owned(),
        config_operation: 0,
        value: Some(value.to_owned()),
    };
    let resource = AlterConfigsResource {
        resource_type: ResourceType::Broker.id(),
        resource_name: "1".to_owned(),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let mut response = client.call(1, &request);
    let result = response.responses.remove(0);
    (result.error_code, result.error_message)
}

/// The log directories in their order, and whether they are cordoned.
fn log_dirs(client: &mut Client) -> Vec<(String, bool)> {
    let response = client.call(5, &ALL_LOG_DIRS);
    response.results.into_iter().map(|dir| (dir.log_dir, dir.is_cordoned)).collect()
}

fn create(client: &mut Client, name: &str, num_partitions: i32) -> i16 {
    let name = name.to_owned();
    let topic =
        CreatableTopic { name, num_partitions, replication_factor: 1, ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    client.call(7, &request).topics[0].error_code
}

#[test]
fn a_broker_without_free_directories_gets_no_topics() {
    let world = World::configured(two_dirs);
    let mut client = world.connect();
    let dirs = log_dirs(&mut client);
    assert!(dirs.iter().all(|(_, is_cordoned)| !is_cordoned));
    assert_eq!(cordon(&mut client, &format!("{},{}", dirs[0].0, dirs[1].0)).0, 0);
    assert!(log_dirs(&mut client).iter().all(|(_, is_cordoned)| *is_cordoned));
    let refused = ErrorCode::InvalidReplicationFactor.code();
    assert_eq!(create(&mut client, "topic", 1), refused);
    assert_eq!(cordon(&mut client, &dirs[0].0), (0, None));
    let cordoned: Vec<bool> = log_dirs(&mut client).iter().map(|dir| dir.1).collect();
    assert_eq!(cordoned, [true, false]);
    assert_eq!(create(&mut client, "topic", 4), 0);
    let partition = AlterReplicaLogDirTopic { name: "topic".to_owned(), partitions: vec![0] };
    let to = AlterReplicaLogDir { path: dirs[0].0.clone(), topics: vec![partition] };
    let moved = client.call(2, &AlterReplicaLogDirsRequest { dirs: vec![to] });
    let refused = ErrorCode::InvalidReplicaAssignment.code();
    assert_eq!(moved.results[0].partitions[0].error_code, refused);
    let described = client.call(5, &ALL_LOG_DIRS);
    assert!(described.results[0].topics.is_empty(), "{described:?}");
    assert_eq!(described.results[1].topics[0].partitions.len(), 4);
}

#[test]
fn directories_can_be_cordoned_from_the_start() {
    let world = World::configured(cordoned_at_start);
    let mut client = world.connect();
    assert!(log_dirs(&mut client).iter().all(|(_, is_cordoned)| *is_cordoned));
    let refused = ErrorCode::InvalidReplicationFactor.code();
    assert_eq!(create(&mut client, "topic", 1), refused);
    assert_eq!(cordon(&mut client, ""), (0, None));
    assert_eq!(create(&mut client, "topic", 1), 0);
}

#[test]
fn only_own_directories_can_be_cordoned() {
    let world = World::new();
    let mut client = world.connect();
    let text = "requirement failed: All entries in cordoned.log.dirs must be present in log.dirs \
                or log.dir. Missing entries : /nowhere";
    let invalid = ErrorCode::InvalidRequest.code();
    assert_eq!(cordon(&mut client, "/nowhere"), (invalid, Some(text.to_owned())));
    assert_eq!(cordon(&mut client, "*,/nowhere").0, invalid);
    let mut controller = World::connect_to(world.controller_address);
    assert_eq!(cordon(&mut controller, "*").0, ErrorCode::InvalidConfig.code());
    assert_eq!(cordon(&mut client, "*"), (0, None));
    assert_eq!(cordon(&mut controller, ""), (0, None));
}
