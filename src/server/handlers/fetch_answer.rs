//! A fetch's answer on the wire: the generated `FetchResponse`'s layout, with file regions where its records stand.

use super::Node;
use crate::broker::{AbortedTransaction, LogSlice};
use crate::env::net::{FileRegion, SendQueue};
use crate::server::fetch_session::TopicKey;
use ottla_protocol::{ApiKey, BrokerId, ErrorCode, LeaderEpoch, Offset, Writer, request};

/// The first flexible version.
const FLEXIBLE: i16 = 12;

/// The whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) error: ErrorCode,
    pub(crate) session_id: i32,
    /// Neighbours of the same topic are written as one.
    pub(crate) partitions: Vec<PartitionAnswer>,
    pub(crate) endpoints: Vec<Node>,
}

/// One partition's part of it.
#[derive(Debug)]
pub(crate) struct PartitionAnswer {
    pub(crate) topic: TopicKey,
    pub(crate) partition: i32,
    pub(crate) error: ErrorCode,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable_offset: i64,
    pub(crate) log_start_offset: i64,
    /// `None` for null.
    pub(crate) aborted: Option<Vec<AbortedTransaction>>,
    /// (id, epoch), where the client must go elsewhere.
    pub(crate) current_leader: Option<(i32, i32)>,
    /// Where the client's log leaves the leader's (KIP-595).
    pub(crate) diverging: Option<(LeaderEpoch, Offset)>,
    /// The replica that the consumer should read from (KIP-392).
    pub(crate) preferred_read_replica: Option<BrokerId>,
    pub(crate) records: Option<LogSlice>,
}

impl PartitionAnswer {
    /// An error and nothing else.
    pub(crate) fn unknown(topic: TopicKey, partition: i32, error: ErrorCode) -> Self {
        PartitionAnswer {
            topic,
            partition,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted: Some(Vec::new()),
            current_leader: None,
            diverging: None,
            preferred_read_replica: None,
            records: None,
        }
    }
}

/// Queues the whole frame.
pub(crate) fn write(correlation_id: i32, version: i16, answer: &Answer, out: &mut SendQueue) {
    let bytes = out.bytes_mut();
    let start = bytes.len();
    let mut encoder = Encoder {
        w: Writer::append_to(std::mem::take(bytes)),
        version,
        regions: Vec::new(),
        region_bytes: 0,
    };
    encoder.frame(correlation_id, answer);
    let Encoder { mut w, regions, region_bytes, .. } = encoder;
    let length = w.len() - start - 4 + region_bytes;
    w.set_i32(start, length as i32);
    *out.bytes_mut() = w.into_inner();
    for (at, region) in regions {
        out.push_file(at, region);
    }
}

struct Encoder {
    w: Writer,
    version: i16,
    regions: Vec<(usize, FileRegion)>,
    region_bytes: usize,
}

impl Encoder {
    fn is_flexible(&self) -> bool {
        self.version >= FLEXIBLE
    }

    fn frame(&mut self, correlation_id: i32, answer: &Answer) {
        self.w.i32(0);
        self.w.i32(correlation_id);
        if request::has_flexible_header(ApiKey::Fetch, self.version) {
            self.w.no_tags();
        }
        self.w.i32(0); // throttle time
        if self.version >= 7 {
            self.w.i16(answer.error.code());
            self.w.i32(answer.session_id);
        }
        let topics = || answer.partitions.chunk_by(|a, b| a.topic == b.topic);
        self.w.array_length(topics().count(), self.is_flexible());
        for topic in topics() {
            self.topic(topic);
        }
        if self.is_flexible() {
            self.endpoints(&answer.endpoints);
        }
    }

    fn topic(&mut self, partitions: &[PartitionAnswer]) {
        let flexible = self.is_flexible();
        match partitions.first().map(|first| &first.topic) {
            Some(TopicKey::Name(name)) => self.w.string(name, flexible),
            Some(TopicKey::Id(id)) => self.w.uuid(*id),
            None => return,
        }
        self.w.array_length(partitions.len(), flexible);
        for partition in partitions {
            self.partition(partition);
        }
        if flexible {
            self.w.no_tags();
        }
    }

    fn partition(&mut self, answer: &PartitionAnswer) {
        let flexible = self.is_flexible();
        self.w.i32(answer.partition);
        self.w.i16(answer.error.code());
        self.w.i64(answer.high_watermark);
        self.w.i64(answer.last_stable_offset);
        if self.version >= 5 {
            self.w.i64(answer.log_start_offset);
        }
        self.w.nullable_array(answer.aborted.as_deref(), flexible, true, |w, one| {
            w.i64(one.producer_id.0);
            w.i64(one.first_offset.0);
            if flexible {
                w.no_tags();
            }
        });
        if self.version >= 11 {
            self.w.i32(answer.preferred_read_replica.unwrap_or(BrokerId::NONE).0);
        }
        self.w.bytes_length(answer.records.as_ref().map_or(0, |slice| slice.len), flexible);
        if let Some(slice) = &answer.records {
            let file = slice.file.clone();
            let region = FileRegion {
                file,
                position: slice.position,
                len: slice.len,
                is_recent: slice.is_recent,
            };
            self.region_bytes += slice.len;
            self.regions.push((self.w.len(), region));
        }
        if flexible {
            let mut tags = self.w.tags();
            if let Some((epoch, end_offset)) = answer.diverging {
                tags.field(0, |w| {
                    w.i32(epoch.0);
                    w.i64(end_offset.0);
                    w.no_tags();
                });
            }
            if let Some((leader_id, leader_epoch)) = answer.current_leader {
                tags.field(1, |w| {
                    w.i32(leader_id);
                    w.i32(leader_epoch);
                    w.no_tags();
                });
            }
            tags.finish(&mut self.w);
        }
    }

    fn endpoints(&mut self, nodes: &[Node]) {
        let mut tags = self.w.tags();
        if self.version >= 16 && !nodes.is_empty() {
            tags.field(0, |w| {
                w.array(nodes, true, |w, node| {
                    w.i32(node.id);
                    w.string(&node.host, true);
                    w.i32(node.port);
                    w.nullable_string(node.rack.as_deref(), true, true);
                    w.no_tags();
                });
            });
        }
        tags.finish(&mut self.w);
    }
}

#[cfg(test)]
mod tests;
