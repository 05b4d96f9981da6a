//! Reads partitions from their first to their last record and prints a line for each: `r PARTITION NUMBER`, the number
//! being the first word of the value, or `e PARTITION OFFSET KEY VALUE`.

use std::io::Write;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::{config, limit};

/// The line of a record of `load.rs`.
pub fn number(record: &BorrowedMessage<'_>) -> String {
    let value = String::from_utf8_lossy(record.payload().unwrap_or_default());
    format!("r {} {}", record.partition(), value.split(' ').next().unwrap_or_default())
}

/// The line of a record of `writer.rs`.
pub fn whole(record: &BorrowedMessage<'_>) -> String {
    let key = String::from_utf8_lossy(record.key().unwrap_or_default());
    let value = String::from_utf8_lossy(record.payload().unwrap_or_default());
    format!("e {} {} {key} {value}", record.partition(), record.offset())
}

/// Prints everything; answers how much it was.
pub fn run(
    servers: &str,
    topic: &str,
    partitions: &str,
    line: fn(&BorrowedMessage<'_>) -> String,
) -> Result<String, String> {
    let partitions: i32 = partitions.parse().map_err(|e| format!("{partitions}: {e}"))?;
    let consumer: BaseConsumer = config(servers)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .create()
        .map_err(|e| e.to_string())?;
    let mut left = Vec::new();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition, Duration::from_secs(30))
            .map_err(|e| format!("partition {partition}: {e}"))?;
        left.push(high - low);
        let added = assignment.add_partition_offset(topic, partition, Offset::Beginning);
        added.map_err(|e| e.to_string())?;
    }
    let count: i64 = left.iter().sum();
    consumer.assign(&assignment).map_err(|e| e.to_string())?;
    let begin = Instant::now();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    while left.iter().any(|left| *left > 0) {
        match consumer.poll(Duration::from_millis(100)) {
            None if begin.elapsed() > limit() => return Err(format!("left unread: {left:?}")),
            None => {}
            Some(Err(e)) => return Err(e.to_string()),
            Some(Ok(record)) => {
                writeln!(out, "{}", line(&record)).map_err(|e| e.to_string())?;
                let index = usize::try_from(record.partition()).unwrap_or_default();
                if let Some(left) = left.get_mut(index) {
                    *left -= 1;
                }
            }
        }
    }
    out.flush().map_err(|e| e.to_string())?;
    Ok(format!("{count} records"))
}
