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
