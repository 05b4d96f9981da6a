//! The load of `src/writer.rs`: an idempotent producer, and a group of one member, that print all they do until the
//! standard input ends. The lines are those of `src/history.rs`.
//!
//! Client settings are librdkafka's defaults except short back-offs, and time-outs that end within the test.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{config, limit};

/// Keys of each partition.
const KEYS: u64 = 4;
/// How long a request of the group's may wait.
const GROUP_LIMIT: Duration = Duration::from_secs(5);
/// The pause between two commits.
const COMMIT_PAUSE: Duration = Duration::from_millis(100);

/// Microseconds since 1970, by which the lines of several programs of one machine are put in order.
fn now_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

/// Prints a line; who reads them may be gone, which ends the program elsewhere.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints what became of each record.
struct Printed;

impl ClientContext for Printed {}
impl ProducerContext for Printed {
    type DeliveryOpaque = Box<(u64, u64)>;
    fn delivery(&self, result: &DeliveryResult<'_>, record: Self::DeliveryOpaque) {
        let (key, sequence) = *record;
        let at = now_us();
        match result {
            Ok(done) => {
                let (partition, offset) = (done.partition(), done.offset());
                say(format_args!("a {at} {key} {sequence} {partition} {offset}"));
            }
            Err((e, _)) => {
                let why = e.to_string().replace('\n', " ");
                say(format_args!("f {at} {key} {sequence} {why}"));
            }
        }
    }
}

/// Notices that partitions were assigned anew.
#[derive(Default)]
struct Group {
    is_rebalanced: AtomicBool,
}

impl ClientContext for Group {}
impl ConsumerContext for Group {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.is_rebalanced.store(true, Ordering::Relaxed);
    }
}

fn with_short_back_offs(servers: &str) -> ClientConfig {
    let mut config = config(servers);
    config
        .set("retry.backoff.ms", "20")
        .set("retry.backoff.max.ms", "100")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        .set("topic.metadata.refresh.fast.interval.ms", "20")
        .set("socket.timeout.ms", "10000")
        .set("socket.connection.setup.timeout.ms", "2000");
    config
}

/// Runs until the standard input ends and everything is delivered or has failed.
pub fn run(
    servers: &str,
    topic: &str,
    partitions: &str,
    pause_us: &str,
    group: Option<&str>,
) -> Result<String, String> {
    let partitions: u64 = partitions.parse().map_err(|e| format!("{partitions}: {e}"))?;
    let pause_us: u64 = pause_us.parse().map_err(|e| format!("{pause_us}: {e}"))?;
    let is_over = Arc::new(AtomicBool::new(false));
    let ending = Arc::clone(&is_over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0; 1]);
        ending.store(true, Ordering::Relaxed);
    });
    let reader = group.map(|group| {
        let (servers, topic, group) = (servers.to_owned(), topic.to_owned(), group.to_owned());
        let over = Arc::clone(&is_over);
        std::thread::spawn(move || consume(&servers, &topic, &group, &over))
    });
    let producer = producer(servers)?;
    let sent = produce(&producer, topic, partitions, Duration::from_micros(pause_us), &is_over)?;
    match reader.map(std::thread::JoinHandle::join) {
        Some(Err(_)) => Err("the group panicked".to_owned()),
        Some(Ok(Err(e))) => Err(format!("group: {e}")),
        Some(Ok(Ok(()))) | None => Ok(format!("{sent} records")),
    }
}

fn producer(servers: &str) -> Result<ThreadedProducer<Printed>, String> {
    let mut config = with_short_back_offs(servers);
    config.set("enable.idempotence", "true");
    config.create_with_context(Printed).map_err(|e| e.to_string())
}

/// Sends one record; a full queue is waited for.
fn send(
    producer: &ThreadedProducer<Printed>,
    topic: &str,
    partition: i32,
    (key, sequence): (u64, u64),
) {
    let (name, value) = (key.to_string(), sequence.to_string());
    let record = BaseRecord::with_opaque_to(topic, Box::new((key, sequence)));
    let mut record = record.partition(partition).key(&name).payload(&value);
    say(format_args!("p {} {key} {sequence}", now_us()));
    while let Err((_, again)) = producer.send(record) {
        record = again;
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn produce(
    producer: &ThreadedProducer<Printed>,
    topic: &str,
    partitions: u64,
    pause: Duration,
    is_over: &AtomicBool,
) -> Result<u64, String> {
    let keys = partitions * KEYS;
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        let (key, sequence) = (number % keys, number / keys);
        let partition = i32::try_from(key % partitions).unwrap_or_default();
        send(producer, topic, partition, (key, sequence));
        number += 1;
        std::thread::sleep(pause);
    }
    producer.flush(limit() * 3).map_err(|e| format!("flush: {e}"))?;
    Ok(number)
}

/// Reads, commits and asks for what is committed.
fn consume(servers: &str, topic: &str, group: &str, is_over: &AtomicBool) -> Result<(), String> {
    let consumer: BaseConsumer<Group> = with_short_back_offs(servers)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "500")
        .create_with_context(Group::default())
        .map_err(|e| e.to_string())?;
    consumer.subscribe(&[topic]).map_err(|e| e.to_string())?;
    let mut read = BTreeMap::new();
    let mut last = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        let polled = consumer.poll(Duration::from_millis(50));
        // Reading begins again at what is committed: what was read beyond that is no more to be committed.
        if consumer.context().is_rebalanced.swap(false, Ordering::Relaxed) {
            read.clear();
        }
        if let Some(Ok(record)) = polled {
            let (partition, offset) = (record.partition(), record.offset());
            let key = String::from_utf8_lossy(record.key().unwrap_or_default());
            let value = String::from_utf8_lossy(record.payload().unwrap_or_default());
            say(format_args!("r {} {partition} {offset} {key} {value}", now_us()));
            read.insert(partition, offset + 1);
        }
        if !read.is_empty() && last.elapsed() > COMMIT_PAUSE {
            commit(&consumer, topic, &read)?;
            read.clear();
            last = Instant::now();
        }
    }
    Ok(())
}

fn commit(
    consumer: &BaseConsumer<Group>,
    topic: &str,
    read: &BTreeMap<i32, i64>,
) -> Result<(), String> {
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in read {
        say(format_args!("k {} {partition} {offset}", now_us()));
        let added = offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset));
        added.map_err(|e| e.to_string())?;
    }
    // A commit that failed may have been done all the same; the checker knows.
    if consumer.commit(&offsets, CommitMode::Sync).is_ok() {
        for (partition, offset) in read {
            say(format_args!("c {} {partition} {offset}", now_us()));
        }
    }
    let Ok(committed) = consumer.committed_offsets(offsets, GROUP_LIMIT) else { return Ok(()) };
    for element in committed.elements() {
        if element.error().is_err() {
            continue;
        }
        let offset = match element.offset() {
            Offset::Offset(offset) => offset,
            _ => -1,
        };
        say(format_args!("o {} {} {offset}", now_us(), element.partition()));
    }
    Ok(())
}
