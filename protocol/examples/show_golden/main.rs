//! Prints the golden frames of a folder as text, a field a line, so that what two brokers answer can be compared.
//!
//! `cargo run -p ottla-protocol --example show_golden -- FOLDER > out.txt`, once for `testdata/golden` and once
//! for a folder that `record_golden` wrote against another broker, then `diff` the two.

use bytes::Bytes;
use ottla_protocol::request::AnyResponse;
use ottla_protocol::{ApiKey, request};

fn unhex(text: &str) -> Bytes {
    let digit = |at: usize| text.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    (0..text.len()).step_by(2).filter_map(digit).collect::<Vec<u8>>().into()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: show_golden FOLDER")?;
    let mut paths: Vec<_> =
        std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let Some(api) = (0..200).filter_map(ApiKey::from_code).find(|api| api.name() == name)
        else {
            continue;
        };
        for line in std::fs::read_to_string(&path)?.lines() {
            let mut words = line.split(' ');
            let (Some(version), Some("response"), Some(hex)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let version: i16 = version.parse()?;
            let (_, mut reader) = request::parse_response_header(unhex(hex), api, version)?;
            let response = AnyResponse::decode(api, &mut reader, version)?;
            println!("== {name} {version}");
            println!("{response:#?}");
        }
    }
    Ok(())
}
