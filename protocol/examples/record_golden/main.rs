//! Records the golden frames of `testdata/golden` from a running Apache Kafka.
//!
//! `cargo run -p ottla-protocol --example record_golden -- ADDRESS FOLDER` sends a request of every
//! API in every version of `apis.rs` that the broker at ADDRESS serves too, in an order that gives
//! meaningful answers, and writes both frames to FOLDER, one file an API. So the encoder is held
//! against Kafka's parser and the decoder against Kafka's bytes; `tests/golden.rs` keeps both.
//! The broker should be fresh and have `group.initial.rebalance.delay.ms=0`.

mod admin;
mod data;
mod groups;

use bytes::{Bytes, BytesMut};
use ottla_protocol::messages::{ApiVersionsRequest, MetadataRequest, metadata_request};
use ottla_protocol::{ApiKey, Request, apis, request};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A client that keeps every frame.
pub struct Recorder {
    stream: TcpStream,
    correlation_id: i32,
    /// Lowest and highest version that the broker advertises.
    versions: BTreeMap<i16, (i16, i16)>,
    files: BTreeMap<&'static str, String>,
}

impl Recorder {
    fn connect(address: &str) -> Result<Recorder> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut recorder = Recorder {
            stream,
            correlation_id: 0,
            versions: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        let answer = recorder.exchange(0, &ApiVersionsRequest::default())?.2;
        for api in answer.api_keys {
            recorder.versions.insert(api.api_key, (api.min_version, api.max_version));
        }
        Ok(recorder)
    }

    /// The versions of an API that both sides know.
    pub fn versions_of(&self, key: ApiKey) -> Vec<i16> {
        let theirs = self.versions.get(&(key as i16));
        match (apis::find(key as i16), theirs) {
            (Some(api), Some((low, high))) => (api.min.max(*low)..=api.max.min(*high)).collect(),
            _ => Vec::new(),
        }
    }

    /// Sends a request, keeps both frames and gives the answer.
    pub fn ask<R: Request>(&mut self, version: i16, body: &R) -> Result<R::Response> {
        let api = ApiKey::from_code(R::KEY).ok_or("not a request")?;
        let (sent, received, answer) = self.exchange(version, body)?;
        let file = self.files.entry(api.name()).or_default();
        writeln!(file, "{version} request {}", hex(&sent))?;
        writeln!(file, "{version} response {}", hex(&received))?;
        Ok(answer)
    }

    /// Asks in every version that both sides know; `body` makes the request of one.
    pub fn ask_all<R: Request>(&mut self, body: impl Fn(i16) -> R) -> Result<()> {
        let api = ApiKey::from_code(R::KEY).ok_or("not a request")?;
        for version in self.versions_of(api) {
            self.ask(version, &body(version))?;
        }
        Ok(())
    }

    fn exchange<R: Request>(
        &mut self,
        version: i16,
        body: &R,
    ) -> Result<(Bytes, Bytes, R::Response)> {
        self.correlation_id += 1;
        let frame = request::write_request(self.correlation_id, Some("golden"), version, body);
        self.stream.write_all(&frame)?;
        let received =
            self.receive().map_err(|error| format!("{} version {version}: {error}", R::NAME))?;
        let (id, answer) = request::parse_response::<R::Response>(received.clone(), version)
            .map_err(|error| format!("{} version {version}: {error}", R::NAME))?;
        if id != self.correlation_id {
            return Err(format!("{} version {version}: answer to request {id}", R::NAME).into());
        }
        Ok((frame.freeze().slice(4..), received, answer))
    }

    fn receive(&mut self) -> Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = BytesMut::zeroed(usize::try_from(i32::from_be_bytes(length))?);
        self.stream.read_exact(&mut frame)?;
        Ok(frame.freeze())
    }

    /// The id of a topic, waiting until the broker has heard of it.
    pub fn topic_id(&mut self, topic: &str) -> Result<Uuid> {
        let topics = vec![metadata_request::MetadataRequestTopic {
            name: Some(topic.to_owned()),
            ..Default::default()
        }];
        let body = MetadataRequest { topics: Some(topics), ..Default::default() };
        for _ in 0..100 {
            let answer = self.exchange(12, &body)?.2;
            let found = answer.topics.first().filter(|topic| {
                topic.error_code == 0 && topic.partitions.iter().all(|part| part.leader_id >= 0)
            });
            if let Some(found) = found {
                return Ok(found.topic_id);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("{topic} has no leader").into())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        for (api, frames) in &self.files {
            std::fs::write(folder.join(format!("{api}.txt")), frames)?;
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, folder] = arguments.as_slice() else {
        return Err("usage: record_golden ADDRESS FOLDER".into());
    };
    let mut recorder = Recorder::connect(address)?;
    recorder.ask_all(|_| ApiVersionsRequest {
        client_software_name: "golden".to_owned(),
        client_software_version: "1.0".to_owned(),
        ..Default::default()
    })?;
    admin::create(&mut recorder)?;
    data::record(&mut recorder)?;
    groups::record(&mut recorder)?;
    admin::describe(&mut recorder)?;
    admin::alter(&mut recorder)?;
    admin::delete(&mut recorder)?;
    for api in apis::APIS {
        if recorder.versions_of(api.key).is_empty() || !recorder.files.contains_key(api.key.name())
        {
            println!("{} was not recorded", api.key.name());
        }
    }
    recorder.save(Path::new(folder))
}
