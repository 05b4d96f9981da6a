//! Every API in every version that the broker says it serves: asked, and the answer understood.
//!
//! The requests are the golden frames of the protocol crate, which were recorded from clients of
//! Apache Kafka; a version that it does not have yet gets the body of the version before. What the
//! broker says must be what the table of APIs says (and with it docs/COMPATIBILITY.md).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla_protocol::apis::{self, ListenerType};
use ottla_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ottla_protocol::request::{self, AnyRequest, AnyResponse};
use ottla_protocol::{ApiKey, Reader};

use crate::broker::{Broker, Side};
use crate::paths::Paths;
use crate::report::Report;
use crate::wire;

/// How long an answer may take; a group may wait for its members.
const LIMIT: Duration = Duration::from_secs(20);
const VERSION: i16 = 3;

/// Asks the broker of one side everything.
///
/// # Errors
/// If the broker does not start or does not say what it serves.
pub fn run(paths: &Paths, side: Side, filter: &str, report: &Report) -> Result<(), String> {
    let broker = Broker::start(paths, side, &[])?;
    let served = served(&broker)?;
    if side == Side::Ottla {
        let begin = Instant::now();
        match compare(&served) {
            Ok(()) => report.passed("apis/table [ottla]", begin.elapsed()),
            Err(e) => report.failed("apis/table [ottla]", &e),
        }
    }
    for api in apis::APIS.iter().filter(|api| api.key.name().contains(filter)) {
        let Some((min, max)) = served.get(&(api.key as i16)).copied() else { continue };
        let begin = Instant::now();
        let title = format!("apis/{} [{side}]", api.key.name());
        let versions = min.max(api.min)..=max.min(api.max);
        match versions.into_iter().try_for_each(|version| ask(paths, &broker, api.key, version)) {
            Ok(()) => report.passed(&title, begin.elapsed()),
            Err(e) => report.failed(&title, &e),
        }
    }
    Ok(())
}

/// What the broker says that it serves: lowest and highest version by API key.
fn served(broker: &Broker) -> Result<BTreeMap<i16, (i16, i16)>, String> {
    let body = ApiVersionsRequest {
        client_software_name: "compat".to_owned(),
        client_software_version: "1".to_owned(),
        ..Default::default()
    };
    let frame = request::write_request(1, Some("compat"), VERSION, &body);
    let answer = wire::exchange(&broker.address(), &frame, LIMIT)?;
    let (_, response) = request::parse_response::<ApiVersionsResponse>(answer, VERSION)
        .map_err(|e| format!("ApiVersions: {e}"))?;
    let keys = response.api_keys.iter();
    Ok(keys.map(|key| (key.api_key, (key.min_version, key.max_version))).collect())
}

fn compare(served: &BTreeMap<i16, (i16, i16)>) -> Result<(), String> {
    let listed = apis::APIS.iter().filter(|api| api.listeners.include(ListenerType::Broker));
    let table: BTreeMap<i16, (i16, i16)> =
        listed.map(|api| (api.key as i16, (api.advertised_min(), api.max))).collect();
    if *served == table {
        return Ok(());
    }
    Err(format!("ApiVersions says {served:?}, the table {table:?}"))
}

fn ask(paths: &Paths, broker: &Broker, api: ApiKey, version: i16) -> Result<(), String> {
    let fail = |e: String| format!("version {version}: {e}");
    let body = recorded(paths, api, version).map_err(fail)?;
    let frame = request::write_any_request(7, Some("compat"), version, &body);
    let answer = wire::exchange(&broker.address(), &frame, LIMIT).map_err(fail)?;
    let (id, mut r): (i32, Reader) =
        request::parse_response_header(answer, api, version).map_err(|e| fail(e.to_string()))?;
    let decoded = AnyResponse::decode(api, &mut r, version).map_err(|e| fail(e.to_string()))?;
    match (id, r.left()) {
        (7, 0) => Ok(()),
        (7, left) => Err(fail(format!("{left} bytes after {decoded:?}"))),
        (id, _) => Err(fail(format!("correlation id {id}"))),
    }
}

/// The recorded request of this version, or of the highest one before it.
fn recorded(paths: &Paths, api: ApiKey, version: i16) -> Result<AnyRequest, String> {
    let file = format!("../protocol/testdata/golden/{}.txt", api.name());
    let path = paths.sources.join(file);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path:?}: {e}"))?;
    let mut best: Option<(i16, Bytes)> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [of, "request", hex] = words[..] else { continue };
        let of: i16 = of.parse().map_err(|e| format!("{path:?}: {e}"))?;
        if of <= version && best.as_ref().is_none_or(|(before, _)| of > *before) {
            best = Some((of, unhex(hex).ok_or("not hexadecimal")?));
        }
    }
    let (_, frame) = best.ok_or_else(|| format!("{path:?}: nothing for version {version}"))?;
    let (_, body) = request::try_decode_any(frame).map_err(|e| e.to_string())?;
    Ok(body)
}

fn unhex(text: &str) -> Option<Bytes> {
    let pairs = (0..text.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
