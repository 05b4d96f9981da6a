//! The load of `src/load.rs`: an idempotent producer and a group that commits, until the standard
//! input ends.
//!
//! Prints `a PARTITION NUMBER` for each acknowledged record, in the order of the acknowledgements,
//! and `c PARTITION OFFSET` for each acknowledged commit; checks that such a commit is never
//! followed by an older committed offset.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use super::{config, create, limit};

/// The pause between two records, for some thousands in a second.
const PAUSE: Duration = Duration::from_micros(200);
/// The same for large records, of which a small disk takes few.
const PAUSE_PADDED: Duration = Duration::from_millis(1);
/// Records that wait in the client, where they are large: what it has to deliver at its end must fit.
const QUEUE_PADDED: &str = "3000";

/// Prints what was acknowledged.
struct Acknowledged(Arc<Mutex<Option<String>>>);

impl ClientContext for Acknowledged {}
impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<(i32, u64)>;
    fn delivery(&self, result: &DeliveryResult<'_>, record: Self::DeliveryOpaque) {
        match result {
            Ok(_) => {
                let _ = writeln!(std::io::stdout(), "a {} {}", record.0, record.1);
            }
            Err((e, _)) => fail(&self.0, format!("record {record:?}: {e}")),
        }
    }
}

fn fail(failure: &Mutex<Option<String>>, why: String) {
    if let Ok(mut failure) = failure.lock() {
        failure.get_or_insert(why);
    }
}

/// Runs until the standard input ends; then everything must still be delivered.
pub fn run(servers: &str, topic: &str, partitions: &str, padding: &str) -> Result<String, String> {
    let partitions: i32 = partitions.parse().map_err(|e| format!("{partitions}: {e}"))?;
    let padding: usize = padding.parse().map_err(|e| format!("{padding}: {e}"))?;
    create(&config(servers), &[topic], partitions)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let ending = Arc::clone(&is_over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0; 1]);
        ending.store(true, Ordering::Relaxed);
    });
    let failure = Arc::new(Mutex::new(None));
    let (of_group, over, name) = (Arc::clone(&failure), Arc::clone(&is_over), topic.to_owned());
    let addresses = servers.to_owned();
    let group = std::thread::spawn(move || {
        if let Err(e) = commit(&addresses, &name, &over) {
            fail(&of_group, e);
        }
    });
    let producer = producer(servers, padding, &failure)?;
    let sent = produce(&producer, (topic, partitions), padding, &is_over)?;
    is_over.store(true, Ordering::Relaxed);
    group.join().map_err(|_| "the group panicked".to_owned())?;
    match failure.lock().map_err(|e| e.to_string())?.take() {
        Some(why) => Err(why),
        None => Ok(format!("{sent} records")),
    }
}

fn producer(
    servers: &str,
    padding: usize,
    failure: &Arc<Mutex<Option<String>>>,
) -> Result<ThreadedProducer<Acknowledged>, String> {
    let mut config = config(servers);
    config
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "0")
        .set("reconnect.backoff.max.ms", "500");
    if padding > 0 {
        config.set("queue.buffering.max.messages", QUEUE_PADDED);
    }
    config.create_with_context(Acknowledged(Arc::clone(failure))).map_err(|e| e.to_string())
}

fn produce(
    producer: &ThreadedProducer<Acknowledged>,
    (topic, partitions): (&str, i32),
    padding: usize,
    is_over: &AtomicBool,
) -> Result<u64, String> {
    let pause = if padding > 0 { PAUSE_PADDED } else { PAUSE };
    let padding = if padding > 0 { format!(" {}", "x".repeat(padding)) } else { String::new() };
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        for partition in 0..partitions {
            let value = format!("{number}{padding}");
            let opaque = Box::new((partition, number));
            let record = BaseRecord::<(), _, _>::with_opaque_to(topic, opaque).payload(&value);
            // A full queue is waited for: the broker may be down.
            let mut record = record.partition(partition);
            while let Err((_, again)) = producer.send(record) {
                record = again;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        number += 1;
        std::thread::sleep(pause);
    }
    producer.flush(limit()).map_err(|e| format!("flush: {e}"))?;
    Ok(number * u64::try_from(partitions).unwrap_or(1))
}

/// Reads, commits and asks for what is committed.
fn commit(servers: &str, topic: &str, is_over: &AtomicBool) -> Result<(), String> {
    let consumer: BaseConsumer = config(servers)
        .set("group.id", format!("{topic}-group"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "500")
        .set("reconnect.backoff.max.ms", "500")
        .create()
        .map_err(|e| e.to_string())?;
    consumer.subscribe(&[topic]).map_err(|e| e.to_string())?;
    let mut acknowledged: BTreeMap<i32, i64> = BTreeMap::new();
    let mut read: BTreeMap<i32, i64> = BTreeMap::new();
    while !is_over.load(Ordering::Relaxed) {
        if let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) {
            read.insert(record.partition(), record.offset() + 1);
            if record.offset() % 100 != 0 {
                continue;
            }
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in &read {
            let added = offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset));
            added.map_err(|e| e.to_string())?;
        }
        if offsets.count() > 0 && consumer.commit(&offsets, CommitMode::Sync).is_ok() {
            acknowledged.extend(&read);
            let mut out = std::io::stdout().lock();
            for (partition, offset) in &read {
                let _ = writeln!(out, "c {partition} {offset}");
            }
        }
        check(&consumer, topic, &acknowledged)?;
    }
    Ok(())
}

fn check(
    consumer: &BaseConsumer,
    topic: &str,
    acknowledged: &BTreeMap<i32, i64>,
) -> Result<(), String> {
    let mut wanted = TopicPartitionList::new();
    for partition in acknowledged.keys() {
        wanted.add_partition(topic, *partition);
    }
    // A broker that is down answers later.
    let Ok(committed) = consumer.committed_offsets(wanted, Duration::from_secs(2)) else {
        return Ok(());
    };
    for element in committed.elements() {
        let least = acknowledged.get(&element.partition()).copied().unwrap_or(-1);
        match element.offset() {
            Offset::Offset(offset) if offset >= least => {}
            _ if element.error().is_err() => {}
            other => {
                let partition = element.partition();
                return Err(format!("partition {partition}: {other:?} committed, not {least}"));
            }
        }
    }
    Ok(())
}
