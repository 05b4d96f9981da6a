//! Frames recorded from Apache Kafka 4.3.1 (`examples/record_golden`), one file an API, in lines of
//! `version request|response hex`: each is decoded and comes back byte for byte.

use bytes::Bytes;
use ottla_protocol::request::{self, AnyRequest, AnyResponse};
use ottla_protocol::{ApiKey, Reader, Writer, apis};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What 4.3.1 does not have yet and 4.4.0 does.
const NEWER: [(ApiKey, i16); 2] = [(ApiKey::ApiVersions, 5), (ApiKey::DeleteGroups, 3)];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Side {
    Request,
    Response,
}

struct Golden {
    api: ApiKey,
    version: i16,
    side: Side,
    frame: Bytes,
    place: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden")
}

fn unhex(text: &str) -> Bytes {
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// What clients send; the requests of nodes among themselves are not recorded.
fn of_clients() -> impl Iterator<Item = &'static apis::Api> {
    apis::APIS.iter().filter(|api| api.listeners != apis::Listeners::Controller)
}

fn golden_frames() -> Vec<Golden> {
    let mut frames = Vec::new();
    for api in of_clients() {
        let path = folder().join(format!("{}.txt", api.key.name()));
        let text = std::fs::read_to_string(&path).expect("a file for each API");
        for (number, line) in text.lines().enumerate() {
            let place = format!("{}.txt:{}", api.key.name(), number + 1);
            let words: Vec<&str> = line.split(' ').collect();
            let [version, side, frame] = words.as_slice() else {
                panic!("{place} is not of three words");
            };
            frames.push(Golden {
                api: api.key,
                version: version.parse().expect("a version"),
                side: if *side == "request" { Side::Request } else { Side::Response },
                frame: unhex(frame),
                place,
            });
        }
    }
    frames
}

#[test]
fn every_api_and_version_was_recorded() {
    let recorded: BTreeSet<_> =
        golden_frames().iter().map(|golden| (golden.api, golden.version, golden.side)).collect();
    for api in of_clients() {
        for version in api.min..=api.max {
            for side in [Side::Request, Side::Response] {
                let is_recorded = recorded.contains(&(api.key, version, side));
                let is_newer = NEWER.contains(&(api.key, version));
                assert_ne!(is_recorded, is_newer, "{:?} {version} {side:?}", api.key);
            }
        }
    }
}

/// The body of the frame, written again.
fn again(golden: &Golden) -> Bytes {
    let place = &golden.place;
    let fail = |error| -> ! { panic!("{place}: {error}") };
    let mut w = Writer::default();
    let (body, left) = match golden.side {
        Side::Request => {
            let parsed = request::parse_header(golden.frame.clone());
            let (header, mut r) = parsed.unwrap_or_else(|error| fail(error));
            assert_eq!((header.api(), header.api_version), (Some(golden.api), golden.version));
            assert_eq!(header.client_id.as_deref(), Some("golden"));
            let body = r.rest();
            let decoded = AnyRequest::decode(golden.api, &mut r, golden.version);
            decoded.unwrap_or_else(|error| fail(error)).encode(&mut w, golden.version);
            (body, r.left())
        }
        Side::Response => {
            let (api, version) = (golden.api, golden.version);
            let parsed = request::parse_response_header(golden.frame.clone(), api, version);
            let (_, mut r): (i32, Reader) = parsed.unwrap_or_else(|error| fail(error));
            let body = r.rest();
            let decoded = AnyResponse::decode(api, &mut r, version);
            decoded.unwrap_or_else(|error| fail(error)).encode(&mut w, version);
            (body, r.left())
        }
    };
    assert_eq!(left, 0, "{place}: bytes are left");
    assert_eq!(w.freeze(), body, "{place}");
    body
}

#[test]
fn every_frame_comes_back_byte_for_byte() {
    for golden in golden_frames() {
        again(&golden);
    }
}

#[test]
fn a_cut_frame_never_panics() {
    for golden in golden_frames() {
        for length in 0..golden.frame.len().min(600) {
            let cut = golden.frame.slice(..length);
            if golden.side == Side::Request {
                let _ = request::try_decode_any(cut);
            } else if let Ok((_, mut r)) =
                request::parse_response_header(cut, golden.api, golden.version)
            {
                let _ = AnyResponse::decode(golden.api, &mut r, golden.version);
            }
        }
    }
}
