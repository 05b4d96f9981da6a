//! The scenario of `clients.rs` and the load of `load.rs` with librdkafka, the base client of this project.
//!
//! `compat-librdkafka SERVERS PREFIX RECORDS` is the group scenario; `load SERVERS TOPIC PARTITIONS
//! PADDING` is a load of `load.rs`, `read SERVERS TOPIC PARTITIONS` reads its records; `compact SERVERS RECORDS` is the
//! scenario of `compaction.rs`; `history SERVERS TOPIC PARTITIONS PAUSE_US [GROUP]` is a load of `writer.rs`, and
//! `dump SERVERS TOPIC PARTITIONS` reads its records.

#[path = "librdkafka/compact.rs"]
mod compact;
#[path = "librdkafka/group.rs"]
mod group;
#[path = "librdkafka/history.rs"]
mod history;
#[path = "librdkafka/load.rs"]
mod load;
#[path = "librdkafka/read.rs"]
mod read;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["read", servers, topic, partitions] => read::run(servers, topic, partitions, read::number),
        ["dump", servers, topic, partitions] => read::run(servers, topic, partitions, read::whole),
        ["history", servers, topic, partitions, pause] => {
            history::run(servers, topic, partitions, pause, None)
        }
        ["history", servers, topic, partitions, pause, group] => {
            history::run(servers, topic, partitions, pause, Some(group))
        }
        ["load", servers, topic, partitions, padding] => {
            load::run(servers, topic, partitions, padding)
        }
        ["compact", servers, records] => compact::run(servers, records),
        [servers, prefix, records] => group::run(servers, prefix, records),
        _ => Err("arguments: see compat-tests/src/librdkafka.rs".to_owned()),
    };
    match result {
        Ok(text) => {
            println!("ok {text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("failed: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Creates topics with so many partitions each, and waits until they are led: Apache Kafka answers CreateTopics before,
/// and a producer's first batch that comes too early is sent again, perhaps behind its second.
fn create(config: &ClientConfig, topics: &[&str], partitions: i32) -> Result<(), String> {
    create_with(config, topics, partitions, &[])
}

/// [`create`] with settings of the topics.
fn create_with(
    config: &ClientConfig,
    topics: &[&str],
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<(), String> {
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(|e| e.to_string())?;
    let wanted: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
            settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let created = runtime
        .map_err(|e| e.to_string())?
        .block_on(admin.create_topics(&wanted, &options))
        .map_err(|e| e.to_string())?;
    match created.into_iter().find_map(Result::err) {
        Some((topic, code)) => Err(format!("create {topic}: {code}")),
        None => await_leaders(config, topics, partitions),
    }
}

/// Asks for offsets until every partition answers.
fn await_leaders(config: &ClientConfig, topics: &[&str], partitions: i32) -> Result<(), String> {
    let consumer: BaseConsumer = config.create().map_err(|e| e.to_string())?;
    let deadline = Instant::now() + limit();
    for (topic, partition) in topics.iter().flat_map(|t| (0..partitions).map(move |p| (t, p))) {
        while let Err(e) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(5)) {
            if Instant::now() > deadline {
                return Err(format!("{topic}-{partition} has no leader: {e}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

fn config(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    config
}

/// How long a step may take (`COMPAT_LIMIT_S`).
fn limit() -> Duration {
    let seconds = std::env::var("COMPAT_LIMIT_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(120))
}
