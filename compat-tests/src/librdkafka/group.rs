//! The group scenario of `clients.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::{config, create, limit};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const KEYS: usize = 100;

/// What was read so far, by all members.
#[derive(Default)]
struct Read {
    last: BTreeMap<String, usize>,
    seen: usize,
    redelivered: usize,
    failure: Option<String>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Read>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Read> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, why: String) {
        self.lock().failure.get_or_insert(why);
    }

    /// A record again is a redelivery; a record out of turn is one lost or out of order.
    fn take(&self, topic: &str, key: &str, value: &str) -> Option<()> {
        let number: usize = value.split(' ').next()?.parse().ok()?;
        let first: usize = key.strip_prefix('k')?.parse().ok()?;
        let name = format!("{topic}/{key}");
        let mut read = self.lock();
        let expected = read.last.get(&name).map_or(first, |last| last + KEYS);
        if number == expected {
            read.last.insert(name, number);
            read.seen += 1;
        } else if number < expected {
            read.redelivered += 1;
        } else {
            let why = format!("{name}: {number} came instead of {expected}");
            read.failure.get_or_insert(why);
        }
        Some(())
    }
}

/// Notices that a member got partitions.
#[derive(Clone)]
struct Assigned(Arc<AtomicBool>);

impl ClientContext for Assigned {}
impl ConsumerContext for Assigned {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance
            && partitions.count() > 0
        {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Notices records that were not delivered.
#[derive(Clone, Default)]
pub(super) struct Delivered(Shared);

impl Delivered {
    /// Why one was not, if so.
    pub(super) fn failure(&self) -> Option<String> {
        self.0.lock().failure.clone()
    }
}

impl ClientContext for Delivered {}
impl ProducerContext for Delivered {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((e, _)) = result {
            self.0.fail(format!("produce: {e}"));
        }
    }
}

struct Member {
    leave: Arc<AtomicBool>,
    assigned: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Scenario<'a> {
    servers: &'a str,
    prefix: &'a str,
    topics: Vec<String>,
    shared: Shared,
}

/// Runs it to its end; answers what was read.
pub fn run(servers: &str, prefix: &str, records: &str) -> Result<String, String> {
    let count: usize = records.parse().map_err(|e| format!("{records}: {e}"))?;
    let topics: Vec<String> = CODECS.iter().map(|codec| format!("{prefix}-{codec}")).collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    create(&config(servers), &names, 3)?;
    let scenario = Scenario { servers, prefix, topics, shared: Shared::default() };
    let (first, second) = (count * 4 / 10, count * 7 / 10);
    let one = scenario.join("one")?;
    let two = scenario.join("two")?;
    scenario.produce(0, first)?;
    scenario.wait("first part", |read| read.seen >= first * CODECS.len() / 2)?;
    let three = scenario.join("three")?;
    scenario.produce(first, second)?;
    scenario.wait("member that joined", |_| three.assigned.load(Ordering::Relaxed))?;
    end(one)?;
    scenario.produce(second, count)?;
    scenario.wait("end", |read| read.seen == count * CODECS.len())?;
    end(two)?;
    end(three)?;
    scenario.wait("good end", |_| true)?;
    let read = scenario.shared.lock();
    Ok(format!("{} records, {} redelivered", read.seen, read.redelivered))
}

impl Scenario<'_> {
    fn join(&self, name: &str) -> Result<Member, String> {
        let leave = Arc::new(AtomicBool::new(false));
        let assigned = Arc::new(AtomicBool::new(false));
        let consumer: BaseConsumer<Assigned> = config(self.servers)
            .set("group.id", self.prefix)
            .set("client.id", name)
            .set("auto.offset.reset", "earliest")
            .set("heartbeat.interval.ms", "500")
            .create_with_context(Assigned(Arc::clone(&assigned)))
            .map_err(|e| e.to_string())?;
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|e| e.to_string())?;
        let (shared, leaving) = (self.shared.clone(), Arc::clone(&leave));
        let thread = std::thread::spawn(move || consume(&consumer, &shared, &leaving));
        Ok(Member { leave, assigned, thread })
    }

    fn produce(&self, from: usize, to: usize) -> Result<(), String> {
        for (codec, topic) in CODECS.iter().zip(&self.topics) {
            let producer: ThreadedProducer<Delivered> = config(self.servers)
                .set("compression.type", *codec)
                .set("linger.ms", "5")
                .set("enable.idempotence", "true")
                .create_with_context(Delivered(self.shared.clone()))
                .map_err(|e| e.to_string())?;
            for number in from..to {
                let key = format!("k{}", number % KEYS);
                let value = format!("{number} the same words again and again for {codec}");
                let mut record = BaseRecord::to(topic).key(&key).payload(&value);
                while let Err((e, again)) = producer.send(record) {
                    if e != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                        return Err(e.to_string());
                    }
                    record = again;
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            producer.flush(limit()).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn wait(&self, what: &str, holds: impl Fn(&Read) -> bool) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let read = self.shared.lock();
            if let Some(why) = &read.failure {
                return Err(why.clone());
            }
            if holds(&read) {
                return Ok(());
            }
            if begin.elapsed() > limit() {
                return Err(format!("no {what}; records seen: {}", read.seen));
            }
            drop(read);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn consume(consumer: &BaseConsumer<Assigned>, shared: &Shared, leave: &AtomicBool) {
    while !leave.load(Ordering::Relaxed) {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(e)) => shared.fail(format!("consume: {e}")),
            Some(Ok(record)) => {
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
                };
                let (key, value) = (text(record.key()), text(record.payload()));
                if shared.take(record.topic(), &key, &value).is_none() {
                    shared.fail(format!("a strange record: {key} {value}"));
                }
            }
        }
    }
}

fn end(member: Member) -> Result<(), String> {
    member.leave.store(true, Ordering::Relaxed);
    member.thread.join().map_err(|_| "a member panicked".to_owned())
}
