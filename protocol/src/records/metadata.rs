//! The records of `__cluster_metadata`: a frame version, the record type's key and the version as
//! unsigned varints, then the body. They are values; their keys are null.
//!
//! Source: KIP-631 ("Record Format").

use bytes::Bytes;

use crate::generated::MetadataRecord;
use crate::wire::{Reader, WireError, Writer};

/// The only frame version there is; 0 was that of the preview in Kafka 2.8.
const FRAME_VERSION: u32 = 1;

/// The record as the value that stands in the log.
pub fn encode_metadata_record(record: &MetadataRecord, version: i16) -> Bytes {
    debug_assert!((0..=record.highest_version()).contains(&version), "a version of the schema");
    let mut w = Writer::default();
    w.unsigned_varint(FRAME_VERSION);
    w.unsigned_varint(u32::from(record.key().unsigned_abs()));
    w.unsigned_varint(u32::from(version.unsigned_abs()));
    record.encode_body(&mut w, version);
    w.freeze()
}

/// The record of a value in the log, and the version it was written in.
///
/// # Errors
/// `Invalid` for another frame version, a record type that does not exist, or bytes that are left
/// over; `BadVersion` for a version of the future; else what is wrong with the body.
pub fn decode_metadata_record(value: Bytes) -> Result<(MetadataRecord, i16), WireError> {
    let mut r = Reader::new(value);
    let frame_version = r.unsigned_varint()?;
    if frame_version != FRAME_VERSION {
        return Err(WireError::Invalid(format!(
            "metadata record of frame version {frame_version}"
        )));
    }
    let key = short(&mut r)?;
    let version = short(&mut r)?;
    let Some(record) = MetadataRecord::decode_body(key, &mut r, version)? else {
        return Err(WireError::Invalid(format!("unknown metadata record type {key}")));
    };
    if r.left() > 0 {
        return Err(WireError::Invalid(format!(
            "{} bytes are left after a metadata record of type {key}",
            r.left()
        )));
    }
    Ok((record, version))
}

fn short(r: &mut Reader) -> Result<i16, WireError> {
    let at = r.position();
    i16::try_from(r.unsigned_varint()?).map_err(|_| WireError::BadVarint { at })
}
