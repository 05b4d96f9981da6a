//! Compacted topics of every codec, written and then read until the cleaner has nothing left to do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::group::Delivered;
use super::{config, create_with, limit};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const PARTITIONS: i32 = 2;
const KEYS: u64 = 2000;
/// Small segments; tombstones go two seconds after they were first cleaned.
const SETTINGS: [(&str, &str); 5] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "1048576"),
    ("segment.ms", "1000"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "2000"),
];
/// Begins the keys of records that only make logs dirty, so that there is another cleaning.
const FILLER: &str = "filler";

/// What each key has last; `None` for a deleted one.
type Last = BTreeMap<String, Option<String>>;

/// Answers how much there was and what is left.
pub fn run(servers: &str, records: &str) -> Result<String, String> {
    let count: u64 = records.parse().map_err(|e| format!("{records}: {e}"))?;
    let topics: Vec<String> = CODECS.iter().map(|codec| format!("compact-{codec}")).collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    create_with(&config(servers), &names, PARTITIONS, &SETTINGS)?;
    let mut expected = Vec::new();
    for (codec, topic) in CODECS.iter().zip(&topics) {
        expected.push(fill(servers, topic, codec, count)?);
    }
    let begin = Instant::now();
    let mut left = 0;
    let mut unfinished: Vec<_> = topics.iter().zip(&expected).collect();
    loop {
        let mut later = Vec::new();
        for (topic, last) in unfinished {
            let found = read(servers, topic)?;
            check(topic, last, &found)?;
            let deleted = last.iter().filter(|(_, value)| value.is_none());
            let ghosts = deleted.filter(|(key, _)| found.contains_key(*key)).count();
            let twice = found.values().filter(|values| values.len() > 1).count();
            if ghosts == 0 && twice == 0 {
                left += found.len();
            } else if begin.elapsed() > limit() {
                return Err(format!("{topic}: {ghosts} deleted keys are seen, {twice} keys twice"));
            } else {
                soil(servers, topic)?;
                later.push((topic, last));
            }
        }
        if later.is_empty() {
            break;
        }
        unfinished = later;
        std::thread::sleep(Duration::from_secs(1));
    }
    let seconds = begin.elapsed().as_secs();
    Ok(format!("{} records, {left} left after {seconds} s", count * CODECS.len() as u64))
}

/// A producer that keeps its order.
fn producer(servers: &str, codec: &str) -> Result<ThreadedProducer<Delivered>, String> {
    let mut config = config(servers);
    config.set("compression.type", codec).set("linger.ms", "5").set("enable.idempotence", "true");
    config.create_with_context(Delivered::default()).map_err(|e| e.to_string())
}

/// Writes values and, for one in five, tombstones over the keys, in an order that is the same each time.
fn fill(servers: &str, topic: &str, codec: &str, count: u64) -> Result<Last, String> {
    let producer = producer(servers, codec)?;
    let mut last = Last::new();
    let mut state = 7_u64;
    for number in 0..count {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = format!("k{}", (state >> 33) % KEYS);
        let is_deleted = (state >> 20).is_multiple_of(5);
        let value = (!is_deleted).then(|| format!("{number} the same words again and again"));
        let mut record = BaseRecord::<str, str>::to(topic).key(&key);
        if let Some(value) = &value {
            record = record.payload(value);
        }
        send(&producer, record)?;
        last.insert(key, value);
    }
    finish(&producer)?;
    Ok(last)
}

/// Writes enough bytes to each partition that it is worth another cleaning.
fn soil(servers: &str, topic: &str) -> Result<(), String> {
    let producer = producer(servers, "none")?;
    let dirt = "x".repeat(50_000);
    for partition in 0..PARTITIONS {
        let key = format!("{FILLER}{partition}");
        send(
            &producer,
            BaseRecord::to(topic).key(key.as_str()).payload(dirt.as_str()).partition(partition),
        )?;
    }
    finish(&producer)
}

fn send(
    producer: &ThreadedProducer<Delivered>,
    mut record: BaseRecord<'_, str, str>,
) -> Result<(), String> {
    while let Err((e, again)) = producer.send(record) {
        if e != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            return Err(e.to_string());
        }
        record = again;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn finish(producer: &ThreadedProducer<Delivered>) -> Result<(), String> {
    producer.flush(limit()).map_err(|e| e.to_string())?;
    producer.context().failure().map_or(Ok(()), Err)
}

/// Everything that is in the topic, by key, in the order of the log.
fn read(servers: &str, topic: &str) -> Result<BTreeMap<String, Vec<Option<String>>>, String> {
    let consumer: BaseConsumer = config(servers)
        .set("group.id", "compact")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .map_err(|e| e.to_string())?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let added = assignment.add_partition_offset(topic, partition, Offset::Beginning);
        added.map_err(|e| e.to_string())?;
    }
    consumer.assign(&assignment).map_err(|e| e.to_string())?;
    let begin = Instant::now();
    let (mut found, mut ended) = (BTreeMap::<_, Vec<_>>::new(), 0);
    while ended < PARTITIONS {
        match consumer.poll(Duration::from_millis(100)) {
            None if begin.elapsed() > limit() => return Err(format!("{topic} has no end")),
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(e)) => return Err(e.to_string()),
            Some(Ok(record)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let key = record.key().map(text).unwrap_or_default();
                if !key.starts_with(FILLER) {
                    found.entry(key).or_default().push(record.payload().map(text));
                }
            }
        }
    }
    Ok(found)
}

/// At every moment a reader that comes to the end knows the last value of each key.
fn check(
    topic: &str,
    last: &Last,
    found: &BTreeMap<String, Vec<Option<String>>>,
) -> Result<(), String> {
    for (key, value) in last {
        let seen = found.get(key).and_then(|values| values.last());
        // A deleted key may be gone altogether.
        if seen != Some(value) && !(value.is_none() && seen.is_none()) {
            return Err(format!("{topic}/{key}: {seen:?} instead of {value:?}"));
        }
    }
    match found.keys().find(|key| !last.contains_key(*key)) {
        Some(key) => Err(format!("{topic}: nobody wrote the key {key}")),
        None => Ok(()),
    }
}
