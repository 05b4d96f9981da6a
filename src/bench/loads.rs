//! The loads themselves.

use super::process::{Usage, usage};
use super::topic::{self, METADATA_VERSION, Topic};
use super::{BenchError, BenchSettings, CLIENT_ID, Figure, connect};
use crate::client::{ClientError, Connection, frame};
use crate::env::Disk;
use bytes::Bytes;
use ottla_protocol::Timestamp;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest};
use ottla_protocol::messages::{fetch_request, produce_request};
use ottla_protocol::record::{BatchBuilder, BatchParams};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The last versions without flexible fields, so that an answer's fields stand at fixed places.
const PRODUCE_VERSION: i16 = 8;
const FETCH_VERSION: i16 = 11;
/// Bytes of a record's value in large batches, and in small ones.
const RECORD_BYTES: usize = 1000;
const SMALL_RECORD_BYTES: usize = 100;
/// Bytes that a fetch asks for.
const FETCH_BYTES: i32 = 1 << 20;
const FETCH_WAIT_MS: i32 = 500;
/// How long a broker may take to come up.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const READY_PAUSE: Duration = Duration::from_millis(1);
/// UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER.
const NOT_READY: [i16; 3] = [3, 5, 6];
/// Times that a new partition is asked for before it counts as refused.
const READY_TRIES: u32 = 200;
const TOPIC_PAUSE: Duration = Duration::from_millis(50);
/// Records that go before the measured ones of `latency`, so that code and caches are warm.
const WARM_UP_RECORDS: u64 = 200;

/// A batch of `count` records of `size` bytes that no codec or disk makes smaller.
fn batch(count: usize, size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(BatchParams::default());
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    for _ in 0..count {
        let mut value = Vec::with_capacity(size);
        while value.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            value.extend_from_slice(&state.to_be_bytes());
        }
        value.truncate(size);
        // Kafka refuses no timestamp of the past by default.
        builder.push(Timestamp(1_700_000_000_000), None, Some(&value), &[]);
    }
    builder.build().freeze()
}

fn produce_frame(topic: &Topic, partition: usize, records: Bytes) -> Vec<u8> {
    let data =
        produce_request::PartitionProduceData { index: partition as i32, records: Some(records) };
    let data = produce_request::TopicProduceData {
        name: topic.name.clone(),
        partition_data: vec![data],
        ..produce_request::TopicProduceData::default()
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![data],
        ..ProduceRequest::default()
    };
    frame(CLIENT_ID, PRODUCE_VERSION, &request)
}

fn fetch_frame(topic: &Topic, partition: usize, offset: i64) -> Vec<u8> {
    let asked = fetch_request::FetchPartition {
        partition: partition as i32,
        fetch_offset: offset,
        partition_max_bytes: FETCH_BYTES,
        ..fetch_request::FetchPartition::default()
    };
    let asked = fetch_request::FetchTopic {
        topic: topic.name.clone(),
        partitions: vec![asked],
        ..fetch_request::FetchTopic::default()
    };
    let request = FetchRequest {
        max_wait_ms: FETCH_WAIT_MS,
        min_bytes: 1,
        max_bytes: FETCH_BYTES,
        session_epoch: -1,
        topics: vec![asked],
        ..FetchRequest::default()
    };
    frame(CLIENT_ID, FETCH_VERSION, &request)
}

fn i16_at(bytes: &[u8], at: usize) -> Option<i16> {
    Some(i16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Error code of an answer to Produce for one partition: correlation id, one topic, its name, one partition, index.
fn check_produced(answer: &[u8], topic: &Topic) -> Result<(), BenchError> {
    match i16_at(answer, 4 + 4 + 2 + topic.name.len() + 4 + 4) {
        Some(0) => Ok(()),
        code => Err(BenchError::Refused("Produce", code.unwrap_or(-1))),
    }
}

/// The record batches of an answer to Fetch for one partition.
fn fetched<'a>(answer: &'a [u8], topic: &Topic) -> Result<&'a [u8], BenchError> {
    let refused = |code: Option<i16>| BenchError::Refused("Fetch", code.unwrap_or(-1));
    // Correlation id, throttle time, error, session, one topic, its name, one partition, index.
    let at = 4 + 4 + 2 + 4 + 4 + 2 + topic.name.len() + 4 + 4;
    let code = i16_at(answer, at);
    if code != Some(0) {
        return Err(refused(code));
    }
    // Error, high watermark, last stable and log start offset, then aborted transactions of 16 bytes.
    let at = at + 2 + 3 * 8;
    let aborted = i32_at(answer, at).unwrap_or(0).max(0) as usize;
    // Preferred replica, length of the records.
    let at = at + 4 + aborted * 16 + 4;
    let length = i32_at(answer, at).unwrap_or(0).max(0) as usize;
    answer.get(at + 4..at + 4 + length).ok_or_else(|| refused(None))
}

/// Makes a topic and waits until its leaders answer: Kafka names a leader before that broker knows of it.
pub(super) fn ready_topic(
    settings: &BenchSettings,
    load: &str,
    partitions: usize,
) -> Result<Topic, BenchError> {
    let topic = topic::create(settings, load, partitions)?;
    for (partition, leader) in topic.leaders.iter().enumerate() {
        let mut connection = connect(leader)?;
        let mut tries = 0;
        loop {
            connection.send(&fetch_frame(&topic, partition, 0))?;
            tries += 1;
            match fetched(connection.receive()?, &topic).map(|_| ()) {
                Ok(()) => break,
                Err(BenchError::Refused(_, code))
                    if NOT_READY.contains(&code) && tries < READY_TRIES =>
                {
                    thread::sleep(TOPIC_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(topic)
}

/// Percentiles of microseconds.
pub(super) fn percentiles(mut micros: Vec<u64>) -> Vec<Figure> {
    micros.sort_unstable();
    let at = |share: f64| {
        let n = (micros.len() as f64 * share) as usize;
        micros.get(n.min(micros.len().saturating_sub(1))).copied().unwrap_or(0) as f64 / 1000.0
    };
    vec![("p50_ms", at(0.5), "ms"), ("p99_ms", at(0.99), "ms"), ("p999_ms", at(0.999), "ms")]
}

/// CPU and memory of the broker between two looks, a gigabyte (10^9 bytes) and a million requests.
fn costs(before: Option<Usage>, after: Option<Usage>, bytes: f64, requests: f64) -> Vec<Figure> {
    let (Some(before), Some(after)) = (before, after) else { return Vec::new() };
    let cpu_s = after.cpu_s - before.cpu_s;
    vec![
        ("cpu_s_per_gb", cpu_s / (bytes / 1e9), "s/GB"),
        ("cpu_us_per_request", cpu_s / requests * 1e6, "us"),
        ("resident_mb", after.resident_mb, "MB"),
    ]
}

/// Runs `work` for every connection on a thread of its own; what they gave, in order.
fn on_threads<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T, BenchError> + Sync,
) -> Result<Vec<T>, BenchError> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or(Err(BenchError::Thread))).collect()
    })
}

/// Sends `requests` of the same frame on one connection, `in_flight` at a time.
fn pump(
    topic: &Topic,
    partition: usize,
    records: Bytes,
    requests: u64,
    in_flight: usize,
) -> Result<(), BenchError> {
    let mut connection = connect(&topic.leaders[partition])?;
    let frame = produce_frame(topic, partition, records);
    let (mut sent, mut answered) = (0, 0);
    while answered < requests {
        while sent < requests && sent - answered < in_flight as u64 {
            connection.send(&frame)?;
            sent += 1;
        }
        check_produced(connection.receive()?, topic)?;
        answered += 1;
    }
    Ok(())
}

fn pump_all(
    disk: &dyn Disk,
    settings: &BenchSettings,
    topic: &Topic,
    records: &Bytes,
    requests: u64,
) -> Result<(f64, Vec<Figure>), BenchError> {
    let each = requests.div_ceil(settings.connections as u64);
    let before = usage(disk, settings.pid);
    let start = Instant::now();
    on_threads(settings.connections, |n| {
        pump(topic, n, records.clone(), each, settings.in_flight)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let requests = (each * settings.connections as u64) as f64;
    let bytes = requests * records.len() as f64;
    let mut figures = vec![
        ("mb_per_s", bytes / 1e6 / seconds, "MB/s"),
        ("requests_per_s", requests / seconds, "1/s"),
    ];
    figures.extend(costs(before, usage(disk, settings.pid), bytes, requests));
    Ok((bytes, figures))
}

fn large_batch(settings: &BenchSettings) -> Bytes {
    batch((settings.batch_bytes / RECORD_BYTES).max(1), RECORD_BYTES)
}

/// Large batches.
pub(super) fn produce(
    disk: &dyn Disk,
    settings: &BenchSettings,
    topic: &Topic,
) -> Result<Vec<Figure>, BenchError> {
    let records = large_batch(settings);
    let requests = (settings.megabytes * 1_000_000).div_ceil(records.len() as u64);
    Ok(pump_all(disk, settings, topic, &records, requests)?.1)
}

/// One small record a request.
pub(super) fn small(
    disk: &dyn Disk,
    settings: &BenchSettings,
    topic: &Topic,
) -> Result<Vec<Figure>, BenchError> {
    let records = batch(1, SMALL_RECORD_BYTES);
    Ok(pump_all(disk, settings, topic, &records, settings.requests)?.1)
}

/// Reads a partition from its start until `bytes` have come.
fn drain(topic: &Topic, partition: usize, bytes: u64) -> Result<(u64, u64), BenchError> {
    let mut connection = connect(&topic.leaders[partition])?;
    let (mut offset, mut read, mut requests) = (0, 0, 0);
    while read < bytes {
        connection.send(&fetch_frame(topic, partition, offset))?;
        let mut records = fetched(connection.receive()?, topic)?;
        requests += 1;
        let mut got = 0;
        while let Ok(header) = BatchHeader::parse(records) {
            let Some(rest) = records.get(header.size()..) else { break };
            offset = header.next_offset().0;
            got += header.size() as u64;
            records = rest;
        }
        if got == 0 {
            // The partition has less than was produced.
            return Err(BenchError::Refused("Fetch", -1));
        }
        read += got;
    }
    Ok((read, requests))
}

/// What `produce` has written, from the first offset.
pub(super) fn fetch(
    disk: &dyn Disk,
    settings: &BenchSettings,
    topic: &Topic,
) -> Result<Vec<Figure>, BenchError> {
    let batch_bytes = large_batch(settings).len() as u64;
    let requests = (settings.megabytes * 1_000_000).div_ceil(batch_bytes);
    let each = requests.div_ceil(settings.connections as u64) * batch_bytes;
    let before = usage(disk, settings.pid);
    let start = Instant::now();
    let read = on_threads(settings.connections, |n| drain(topic, n, each))?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = read.iter().map(|(bytes, _)| *bytes).sum::<u64>() as f64;
    let requests = read.iter().map(|(_, requests)| *requests).sum::<u64>() as f64;
    let mut figures = vec![
        ("mb_per_s", bytes / 1e6 / seconds, "MB/s"),
        ("requests_per_s", requests / seconds, "1/s"),
    ];
    figures.extend(costs(before, usage(disk, settings.pid), bytes, requests));
    Ok(figures)
}

/// From the send of a record to its receipt by a consumer that waits for it.
pub(super) fn latency(settings: &BenchSettings, topic: &Topic) -> Result<Vec<Figure>, BenchError> {
    let count = settings.records + WARM_UP_RECORDS;
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..count).map(|_| AtomicU64::new(0)).collect());
    let start = Instant::now();
    let now = move || start.elapsed().as_micros() as u64;
    let reader = {
        let (sent, topic) = (Arc::clone(&sent), topic.clone());
        thread::spawn(move || receive_all(&topic, &sent, count, now))
    };
    let mut connection = connect(&topic.leaders[0])?;
    let frame = produce_frame(topic, 0, batch(1, SMALL_RECORD_BYTES));
    let pause = Duration::from_secs(1) / settings.rate.max(1) as u32;
    for (n, at) in sent.iter().enumerate() {
        let due = start + pause * n as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        at.store(now(), Ordering::Release);
        connection.send(&frame)?;
        check_produced(connection.receive()?, topic)?;
    }
    let micros = reader.join().unwrap_or(Err(BenchError::Thread))?;
    Ok(percentiles(micros))
}

fn receive_all(
    topic: &Topic,
    sent: &[AtomicU64],
    count: u64,
    now: impl Fn() -> u64,
) -> Result<Vec<u64>, BenchError> {
    let mut connection = connect(&topic.leaders[0])?;
    let mut micros = Vec::with_capacity(sent.len());
    let mut offset = 0;
    while (offset as u64) < count {
        connection.send(&fetch_frame(topic, 0, offset))?;
        let mut records = fetched(connection.receive()?, topic)?;
        let arrived = now();
        while let Ok(header) = BatchHeader::parse(records) {
            let Some(rest) = records.get(header.size()..) else { break };
            for n in offset..header.next_offset().0 {
                let at = sent.get(n as usize).map_or(arrived, |at| at.load(Ordering::Acquire));
                if n as u64 >= WARM_UP_RECORDS {
                    micros.push(arrived.saturating_sub(at));
                }
            }
            offset = header.next_offset().0;
            records = rest;
        }
    }
    Ok(micros)
}

fn ask(connection: &mut Connection) -> Result<(), ClientError> {
    let request = MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() };
    connection.call(METADATA_VERSION, &request).map(|_| ())
}

/// Opens connections one after another, each with one request, and keeps them.
pub(super) fn connections(
    disk: &dyn Disk,
    settings: &BenchSettings,
) -> Result<Vec<Figure>, BenchError> {
    let before = usage(disk, settings.pid);
    let start = Instant::now();
    let mut open = Vec::with_capacity(settings.idle_connections);
    for _ in 0..settings.idle_connections {
        let mut connection = connect(&settings.bootstrap_server)?;
        ask(&mut connection)?;
        open.push(connection);
    }
    let seconds = start.elapsed().as_secs_f64();
    let count = open.len().max(1) as f64;
    let mut figures = vec![("connections_per_s", count / seconds, "1/s")];
    if let (Some(before), Some(after)) = (before, usage(disk, settings.pid)) {
        let kilobytes = (after.resident_mb - before.resident_mb).max(0.0) * 1024.0 / count;
        figures.push(("kb_per_connection", kilobytes, "KB"));
        figures.push(("resident_mb", after.resident_mb, "MB"));
    }
    Ok(figures)
}

/// Until the first answer.
pub(super) fn ready(settings: &BenchSettings) -> Result<Vec<Figure>, BenchError> {
    let start = Instant::now();
    loop {
        let asked =
            connect(&settings.bootstrap_server).and_then(|mut connection| ask(&mut connection));
        match asked {
            Ok(()) => return Ok(vec![("ready_ms", start.elapsed().as_secs_f64() * 1000.0, "ms")]),
            Err(error) if start.elapsed() > READY_TIMEOUT => return Err(error.into()),
            Err(_) => thread::sleep(READY_PAUSE),
        }
    }
}
