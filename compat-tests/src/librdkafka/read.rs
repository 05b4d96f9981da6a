//! Reads partitions from their first to their last record and prints `r PARTITION NUMBER` for each: the first
//! word of the value.

use std::io::Write;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::{config, limit};

/// Prints everything; answers how much it was.
pub fn run(servers: &str, topic: &str, partitions: &str) -> Result<String, String> {
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
                let value = String::from_utf8_lossy(record.payload().unwrap_or_default());
                let number = value.split(' ').next().unwrap_or_default();
                writeln!(out, "r {} {number}", record.partition()).map_err(|e| e.to_string())?;
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
