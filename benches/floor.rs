//! What no broker can avoid, for the requests of `ottla bench` only: read the frame, check the CRC, write the batch to
//! a file, answer; for a fetch a header and `sendfile`. One thread a connection, nothing is kept but where batches lie.
//!
//!     floor ADDRESS DIRECTORY
//!
//! It is what a broker is measured against, and no broker: no recovery, no validation, no limits, no other clients.

use bytes::Bytes;
use ottla_protocol::batch::{BatchHeader, check_crc, leader_prefix};
use ottla_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsResponse, MetadataRequest,
    MetadataResponse, create_topics_response, metadata_response,
};
use ottla_protocol::request::{parse_header, write_response};
use ottla_protocol::{LeaderEpoch, Message, Offset};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufReader, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A partition: its file, and where each batch begins.
struct Partition {
    file: File,
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Default)]
struct State {
    end: u64,
    next_offset: i64,
    /// Base offset and position of each batch.
    batches: Vec<(i64, u64)>,
}

struct Floor {
    address: String,
    directory: PathBuf,
    topics: Mutex<BTreeMap<String, Vec<Arc<Partition>>>>,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err("usage: floor ADDRESS DIRECTORY".into());
    };
    std::fs::create_dir_all(&directory)?;
    let listener = TcpListener::bind(&address)?;
    let topics = Mutex::new(BTreeMap::new());
    let floor = Arc::new(Floor { address, directory: directory.into(), topics });
    for stream in listener.incoming() {
        let (stream, floor) = (stream?, Arc::clone(&floor));
        std::thread::spawn(move || {
            // A client that goes away is no fault.
            let _ = floor.serve(stream);
        });
    }
    Ok(())
}

/// Fields at the front of a frame.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at + count).ok_or("the frame is cut")?;
        self.at += count;
        Ok(taken)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }

    fn text(&mut self) -> Result<&'a [u8]> {
        let length = self.i16()?.max(0) as usize;
        self.take(length)
    }
}

impl Floor {
    fn serve(&self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut input = BufReader::with_capacity(128 << 10, stream.try_clone()?);
        let mut output = stream;
        let (mut frame, mut answer) = (Vec::new(), Vec::new());
        loop {
            let mut length = [0; 4];
            input.read_exact(&mut length)?;
            frame.resize(i32::from_be_bytes(length) as usize, 0);
            input.read_exact(&mut frame)?;
            let mut fields = Fields { bytes: &frame, at: 0 };
            match fields.i16()? {
                0 => self.produce(&mut fields, &mut answer)?,
                1 => self.fetch(&mut fields, &mut output)?,
                _ => answer.extend_from_slice(&self.other(Bytes::copy_from_slice(&frame))?),
            }
            // What came together is answered together.
            if !answer.is_empty() && input.buffer().len() < 4 {
                output.write_all(&answer)?;
                answer.clear();
            }
        }
    }

    fn partition(&self, topic: &[u8], index: i32) -> Result<Arc<Partition>> {
        let topics = self.topics.lock().map_err(|e| e.to_string())?;
        let partitions = topics.get(std::str::from_utf8(topic)?).ok_or("no such topic")?;
        Ok(Arc::clone(partitions.get(index as usize).ok_or("no such partition")?))
    }

    /// Produce, version 8, of one partition.
    fn produce(&self, fields: &mut Fields<'_>, answer: &mut Vec<u8>) -> Result<()> {
        fields.i16()?;
        let correlation_id = fields.i32()?;
        fields.text()?;
        fields.text()?;
        fields.take(2 + 4 + 4)?;
        let topic = fields.text()?;
        fields.i32()?;
        let index = fields.i32()?;
        let length = fields.i32()?.max(0) as usize;
        let batch = fields.take(length)?;
        let header = BatchHeader::parse(batch)?;
        check_crc(&header, batch)?;
        let partition = self.partition(topic, index)?;
        let base = {
            let mut state = partition.state.lock().map_err(|e| e.to_string())?;
            let (base, position) = (state.next_offset, state.end);
            let prefix = leader_prefix(&header, Offset(base), LeaderEpoch(0));
            let slices = [IoSlice::new(&prefix), IoSlice::new(&batch[prefix.len()..])];
            let written = rustix::io::pwritev(&partition.file, &slices, position)?;
            if written != batch.len() {
                return Err("a short write".into());
            }
            state.batches.push((base, position));
            state.end += batch.len() as u64;
            state.next_offset += i64::from(header.last_offset_delta) + 1;
            base
        };
        partition.grown.notify_all();
        let size = 4 + 4 + 2 + topic.len() + 4 + 4 + 2 + 3 * 8 + 4 + 2 + 4;
        answer.extend_from_slice(&(size as i32).to_be_bytes());
        answer.extend_from_slice(&correlation_id.to_be_bytes());
        answer.extend_from_slice(&1i32.to_be_bytes());
        answer.extend_from_slice(&(topic.len() as i16).to_be_bytes());
        answer.extend_from_slice(topic);
        answer.extend_from_slice(&1i32.to_be_bytes());
        answer.extend_from_slice(&index.to_be_bytes());
        answer.extend_from_slice(&0i16.to_be_bytes());
        answer.extend_from_slice(&base.to_be_bytes());
        answer.extend_from_slice(&(-1i64).to_be_bytes());
        answer.extend_from_slice(&0i64.to_be_bytes());
        // No record errors, no message, no throttling.
        answer.extend_from_slice(&0i32.to_be_bytes());
        answer.extend_from_slice(&(-1i16).to_be_bytes());
        answer.extend_from_slice(&0i32.to_be_bytes());
        Ok(())
    }

    /// Fetch, version 11, of one partition, from the first offset of a batch.
    fn fetch(&self, fields: &mut Fields<'_>, output: &mut TcpStream) -> Result<()> {
        fields.i16()?;
        let correlation_id = fields.i32()?;
        fields.text()?;
        fields.i32()?;
        let wait = Duration::from_millis(fields.i32()?.max(0) as u64);
        fields.take(4 + 4 + 1 + 4 + 4 + 4)?;
        let topic = fields.text()?;
        fields.i32()?;
        let index = fields.i32()?;
        fields.i32()?;
        let offset = fields.i64()?;
        fields.i64()?;
        let bytes_max = fields.i32()?.max(0) as u64;
        let partition = self.partition(topic, index)?;
        let (from, to, end) = {
            let state = partition.state.lock().map_err(|e| e.to_string())?;
            let (state, _) = partition
                .grown
                .wait_timeout_while(state, wait, |state| state.next_offset <= offset)
                .map_err(|e| e.to_string())?;
            let first = state.batches.partition_point(|(base, _)| *base < offset);
            let from = state.batches.get(first).map_or(state.end, |(_, position)| *position);
            // A whole number of batches, one at least.
            let beyond = state.batches.partition_point(|(_, at)| *at <= from + bytes_max);
            let to = match state.batches.get(beyond) {
                Some(_) if beyond > first + 1 => state.batches[beyond - 1].1,
                Some((_, position)) => *position,
                None if state.end <= from + bytes_max || beyond <= first + 1 => state.end,
                None => state.batches[beyond - 1].1,
            };
            (from, to, state.next_offset)
        };
        let size = (to - from) as i32;
        let mut head = Vec::with_capacity(128);
        head.extend_from_slice(&0i32.to_be_bytes());
        head.extend_from_slice(&correlation_id.to_be_bytes());
        head.extend_from_slice(&[0; 4 + 2 + 4]);
        head.extend_from_slice(&1i32.to_be_bytes());
        head.extend_from_slice(&(topic.len() as i16).to_be_bytes());
        head.extend_from_slice(topic);
        head.extend_from_slice(&1i32.to_be_bytes());
        head.extend_from_slice(&index.to_be_bytes());
        head.extend_from_slice(&0i16.to_be_bytes());
        head.extend_from_slice(&end.to_be_bytes());
        head.extend_from_slice(&end.to_be_bytes());
        head.extend_from_slice(&0i64.to_be_bytes());
        // No aborted transactions, no preferred replica.
        head.extend_from_slice(&(-1i32).to_be_bytes());
        head.extend_from_slice(&(-1i32).to_be_bytes());
        head.extend_from_slice(&size.to_be_bytes());
        let length = head.len() as i32 - 4 + size;
        head[..4].copy_from_slice(&length.to_be_bytes());
        output.write_all(&head)?;
        let (mut at, to) = (from, to);
        while at < to {
            let wanted = (to - at) as usize;
            rustix::fs::sendfile(&*output, &partition.file, Some(&mut at), wanted)?;
        }
        Ok(())
    }

    /// CreateTopics, Metadata and DeleteTopics, which no load measures.
    fn other(&self, frame: Bytes) -> Result<Bytes> {
        let (header, reader) = parse_header(frame)?;
        let (version, id) = (header.api_version, header.correlation_id);
        Ok(match header.api_key {
            3 => {
                let request = MetadataRequest::from_bytes(reader.rest(), version)?;
                write_response(id, version, &self.metadata(&request)?).freeze()
            }
            19 => {
                let request = CreateTopicsRequest::from_bytes(reader.rest(), version)?;
                write_response(id, version, &self.create(&request)?).freeze()
            }
            20 => write_response(id, version, &DeleteTopicsResponse::default()).freeze(),
            key => return Err(format!("api key {key} is not served here").into()),
        })
    }

    fn create(&self, request: &CreateTopicsRequest) -> Result<CreateTopicsResponse> {
        let mut topics = self.topics.lock().map_err(|e| e.to_string())?;
        let mut answer = CreateTopicsResponse::default();
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for index in 0..topic.num_partitions {
                let path = self.directory.join(format!("{}-{index}.log", topic.name));
                let mut options = File::options();
                let file = options.read(true).write(true).create(true).truncate(true).open(path)?;
                let state = Mutex::new(State::default());
                partitions.push(Arc::new(Partition { file, state, grown: Condvar::new() }));
            }
            topics.insert(topic.name.clone(), partitions);
            answer.topics.push(create_topics_response::CreatableTopicResult {
                name: topic.name.clone(),
                ..create_topics_response::CreatableTopicResult::default()
            });
        }
        Ok(answer)
    }

    fn metadata(&self, request: &MetadataRequest) -> Result<MetadataResponse> {
        let topics = self.topics.lock().map_err(|e| e.to_string())?;
        let (host, port) = self.address.rsplit_once(':').ok_or("an address has a port")?;
        let mut answer = MetadataResponse::default();
        answer.brokers.push(metadata_response::MetadataResponseBroker {
            host: host.to_owned(),
            port: port.parse()?,
            ..metadata_response::MetadataResponseBroker::default()
        });
        for name in request.topics.iter().flatten().filter_map(|topic| topic.name.clone()) {
            let partitions = (0..topics.get(&name).map_or(0, Vec::len) as i32)
                .map(|partition_index| metadata_response::MetadataResponsePartition {
                    partition_index,
                    ..metadata_response::MetadataResponsePartition::default()
                })
                .collect();
            answer.topics.push(metadata_response::MetadataResponseTopic {
                name: Some(name),
                partitions,
                ..metadata_response::MetadataResponseTopic::default()
            });
        }
        Ok(answer)
    }
}
