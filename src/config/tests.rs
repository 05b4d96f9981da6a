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

fn check_refused(pairs: &[(&str, &str)], part: &str) {
    let error = with(pairs).expect_err("refused").to_string();
    assert!(error.contains(part) && !error.contains('\n'), "{error}");
}

const VOTER: (&str, &str) = ("controller.quorum.voters", "1@h:1");

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
    let voters = |text| [("node.id", "1"), ("controller.quorum.voters", text)];
    check_refused(&voters("2@h:1"), "the node id 1 must be included");
    check_refused(&voters("1@h:1,2@h:2,1@h:3"), "voter 1 is named twice");
    check_refused(&voters("1@h:1,2@h:2"), "controller.listener.names");
    let roles = |roles| [("node.id", "1"), ("process.roles", roles)];
    check_refused(&roles("controller"), "controller.listener.names");
    check_refused(&roles("broker"), "controller.quorum.voters");
    let broker = [("node.id", "1"), ("process.roles", "broker"), VOTER];
    check_refused(&broker, "must not be included");
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

/// What the sample files of Kafka's releases and old tutorials set: keys and values only.
const SAMPLES: &[(&str, &str)] = &[
    ("tutorial-0.8", include_str!("testdata/tutorial-0.8.properties")),
    ("tutorial-2014", include_str!("testdata/tutorial-2014.properties")),
    ("sample-2.8", include_str!("testdata/sample-2.8.properties")),
    ("sample-3.9-kraft", include_str!("testdata/sample-3.9-kraft.properties")),
    ("sample-4.3", include_str!("testdata/sample-4.3.properties")),
];

#[test]
fn sample_files_of_every_age_start() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in SAMPLES {
        let path = dir.path().join(format!("{name}.properties"));
        std::fs::write(&path, text).expect("written");
        let loaded = load(&crate::env::RealDisk, Some(&path), &[]);
        let loaded = loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(loaded.warnings, [""; 0], "{name}");
        let ports: Vec<u16> =
            loaded.config.listeners.broker.iter().map(|listener| listener.port).collect();
        assert_eq!(ports, [9092], "{name}");
        // One broker is enough: where there may be more, the topic has no more replicas than there are.
        let given = loaded.config.values.given("offsets.topic.replication.factor");
        let replicas = if loaded.config.is_meeting && given.is_none() { 3 } else { 1 };
        assert_eq!(loaded.config.offsets.topic_replication_factor, replicas, "{name}");
    }
}

fn load_text(name: &str, text: &str, overrides: &[&str]) -> Result<Loaded, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("written");
    let overrides: Vec<String> = overrides.iter().map(|pair| (*pair).to_owned()).collect();
    load(&crate::env::RealDisk, Some(&path), &overrides).map_err(|error| error.to_string())
}

#[test]
fn brokers_meet_where_nothing_but_zookeeper_connect_says_what_the_cluster_is() {
    let file = "broker.id=0\nlog.dirs=x\nzookeeper.connect=localhost:2181\n";
    let check = |more: &str, overrides: &[&str], expected: bool| {
        let loaded = load_text("a.properties", &format!("{file}{more}"), overrides);
        assert_eq!(loaded.expect("loads").config.is_meeting, expected, "{more} {overrides:?}");
    };
    check("", &[], true);
    check("", &["zookeeper.connect="], false);
    check("process.roles=broker,controller\n", &[], false);
    check("controller.quorum.voters=0@localhost:9093\n", &[], false);
}

#[test]
fn an_unknown_key_warns_in_properties_and_is_an_error_in_toml() {
    let loaded = load_text("a.properties", "num.partitons=3\nlog.dirs=x\n", &[]).expect("loads");
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].contains("is num.partitions meant?"), "{:?}", loaded.warnings);
    let error = load_text("a.toml", "# x\nnum.partitons = 3\n", &[]).expect_err("refused");
    assert!(error.contains("a.toml:2") && error.contains("is num.partitions meant?"), "{error}");
}

#[test]
fn the_last_value_wins_and_overrides_win_over_files() {
    let text = "num.partitions=3\nnum.partitions=4\n";
    let partitions = |overrides: &[&str]| {
        load_text("a.properties", text, overrides).map(|l| l.config.topics.num_partitions)
    };
    assert_eq!(partitions(&[]), Ok(4));
    assert_eq!(partitions(&["num.partitions=5"]), Ok(5));
    assert!(partitions(&["num.partitions"]).is_err());
    let error = partitions(&["num.partitions=0"]).expect_err("refused");
    assert!(error.starts_with("--override"), "{error}");
    let error = load_text("a.properties", "\n\nnum.partitions=0", &[]).expect_err("refused");
    assert!(error.contains("a.properties:3: "), "{error}");
}

#[test]
fn toml_is_read_with_dotted_keys_tables_and_lists() {
    let text = "node.id = 7\nlisteners = [\"PLAINTEXT://:1\"]\n[log]\nretention.hours = 2\n";
    let config = load_text("a.toml", text, &[]).expect("loads").config;
    assert_eq!(config.node_id, 7);
    assert_eq!(config.listeners.broker[0].port, 1);
    let given = config.values.given("log.retention.hours").expect("given");
    assert!(matches!(given.source, Source::File { line: 4, .. }), "{given:?}");
    assert!(load_text("a.toml", "node.id = ", &[]).expect_err("refused").contains("a.toml:1"));
}

#[test]
fn looked_up_values_are_refused_with_the_reason() {
    let error = load_text("a.properties", "log.dirs=${env:DIR}", &[]).expect_err("refused");
    assert!(error.contains("log.dirs=${env:DIR}: refused"), "{error}");
}

/// The file must be what is generated now; UPDATE_EXPECT=1 writes it.
fn check_generated(path: &str, expected: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(&path, expected).expect("written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} is stale: run with UPDATE_EXPECT=1", path.display());
}

#[test]
fn example_files_are_generated_from_the_table_and_load() {
    check_generated("config/ottla.toml", &shown::example_toml());
    check_generated("config/server.properties", &shown::example_properties());
    load_text("a.properties", &shown::example_properties(), &[]).expect("loads");
    load_text("a.toml", &shown::example_toml(), &[]).expect("loads");
    // With every comment sign before a key taken away, the defaults are still values that it takes.
    let example = shown::example_toml();
    let is_key = |line: &&str| !line.starts_with("# ") && !line.is_empty();
    let set: Vec<&str> =
        example.lines().filter(is_key).map(|l| l.trim_start_matches('#')).collect();
    let set: Vec<&str> = set
        .into_iter()
        .filter(|line| !line.starts_with("\"broker.id") && !line.ends_with("\"\""))
        .collect();
    let loaded = load_text("a.toml", &set.join("\n"), &[]).expect("loads");
    assert_eq!(loaded.config.node_id, 1);
}

#[test]
fn every_key_is_documented_and_its_reasons_are_given() {
    for key in table::everything() {
        assert!(key.documentation.ends_with('.'), "{}", key.name);
        if let Support::Ignored(reason) | Support::Refused(reason) = key.support {
            assert!(!reason.is_empty() && reason != "not used yet", "{}", key.name);
        }
    }
}

#[test]
fn compatibility_is_generated_from_the_tables() {
    const MARK: &str = "<!-- Generated from here on; UPDATE_EXPECT=1 cargo test writes it. -->\n";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/COMPATIBILITY.md");
    let text = std::fs::read_to_string(path).expect("docs/COMPATIBILITY.md");
    let (head, _) = text.split_once(MARK).expect("the mark before the generated part");
    let mut expected = format!("{head}{MARK}\n## APIs\n\n");
    expected.push_str(
        "| Key | API | Versions | Listeners | Notes |\n| --- | --- | --- | --- | --- |\n",
    );
    for api in ottla_protocol::apis::APIS {
        let notes = api.notes.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let listeners = format!("{:?}", api.listeners).to_lowercase();
        expected.push_str(&format!(
            "| {} | {:?} | {}-{} | {listeners} | {notes} |\n",
            api.key as i16, api.key, api.min, api.max
        ));
    }
    let scopes = [
        ("Broker keys", Scope::Broker),
        ("Topic keys", Scope::Topic),
        ("Group keys", Scope::Group),
        ("Client metrics keys", Scope::ClientMetrics),
    ];
    for (title, scope) in scopes {
        expected.push_str(&format!("\n## {title}\n\n{}", shown::compatibility(scope)));
    }
    check_generated("docs/COMPATIBILITY.md", &expected);
}
