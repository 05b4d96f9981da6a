//! The four codecs of record batches: what follows a batch's header, compressed and expanded.
//!
//! Not here: which codec a topic wants (the log decides), and the records themselves (`record.rs`).
//! Source: Kafka documentation, "Message Format"; the formats are gzip (RFC 1952), snappy in the
//! framing of the Java library snappy-java (a raw block, as some clients send it, is read too), the
//! lz4 frame with independent blocks, and zstd (KIP-110). Levels: KIP-390. Invariant: expanding
//! never allocates past the caller's limit, whatever lengths the bytes claim.

use bytes::Bytes;
use std::cell::RefCell;
use std::io::{Read, Write};
use zstd::zstd_safe;

use crate::batch::{BatchError, Compression};

/// First allocation for expanded records, in bytes; it grows as bytes are really there.
const OUTPUT_START: usize = 64 * 1024;
/// What a codec's output is guessed to be at first, as a multiple of its input.
const GUESSED_RATIO: usize = 8;
/// What the output buffer grows by when the guess was too small.
const GROWTH: usize = 4;

/// `compression.<codec>.level` where it was not set, as Kafka has it.
pub fn default_level(codec: Compression) -> i32 {
    match codec {
        Compression::Gzip => -1,
        Compression::Lz4 => 9,
        Compression::Zstd => 3,
        Compression::None | Compression::Snappy => 0,
    }
}

/// Compresses records. `level` is of the codec's own scale; lz4 and snappy have one level only.
pub fn compress(codec: Compression, level: i32, records: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(records.len() / 2 + 64);
    match codec {
        Compression::None => out.extend_from_slice(records),
        Compression::Gzip => gzip_compress(level, records, &mut out),
        Compression::Snappy => snappy_compress(records, &mut out),
        Compression::Lz4 => lz4_compress(records, &mut out),
        Compression::Zstd => zstd_compress(level, records, &mut out),
    }
    out
}

/// Expands records to at most `limit` bytes.
///
/// # Errors
/// `TooLarge` when they would be more, `Decompress` when `data` is not of that codec or is cut.
pub fn decompress(codec: Compression, data: &[u8], limit: usize) -> Result<Bytes, BatchError> {
    let mut out = Vec::new();
    decompress_into(codec, data, limit, &mut out)?;
    Ok(Bytes::from(out))
}

/// Like [`decompress`], into a buffer that the caller keeps. What it held before is lost.
///
/// # Errors
/// As [`decompress`]; `out` then holds what was expanded so far.
pub fn decompress_into(
    codec: Compression,
    data: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    out.clear();
    match codec {
        Compression::None => {
            if data.len() > limit {
                return Err(BatchError::TooLarge { limit });
            }
            out.reserve_exact(data.len());
            out.extend_from_slice(data);
            Ok(())
        }
        Compression::Gzip => gzip_decompress(data, limit, out),
        Compression::Snappy => snappy_decompress(data, limit, out),
        Compression::Lz4 => lz4_decompress(data, limit, out),
        Compression::Zstd => zstd_decompress(data, limit, out),
    }
}

fn broken(codec: Compression, reason: impl ToString) -> BatchError {
    BatchError::Decompress { codec, reason: reason.to_string() }
}

/// Lengthens `out` by `more` bytes of zero; its capacity stays within `limit`.
fn extend(out: &mut Vec<u8>, more: usize, limit: usize) -> Result<(), BatchError> {
    let wanted = out.len().checked_add(more).filter(|wanted| *wanted <= limit);
    let Some(wanted) = wanted else {
        return Err(BatchError::TooLarge { limit });
    };
    if wanted > out.capacity() {
        let capacity = wanted.max(out.capacity().saturating_mul(2)).min(limit);
        out.reserve_exact(capacity - out.len());
    }
    out.resize(wanted, 0);
    Ok(())
}

fn gzip_compress(level: i32, records: &[u8], out: &mut Vec<u8>) {
    let level = u32::try_from(level)
        .map_or(flate2::Compression::default(), |level| flate2::Compression::new(level.min(9)));
    let mut encoder = flate2::write::GzEncoder::new(out, level);
    let written = encoder.write_all(records).and_then(|()| encoder.try_finish());
    debug_assert!(written.is_ok(), "a Vec takes every byte");
}

/// One member after another, as Java's reader does: bytes after the last that begin no member are
/// left alone.
fn gzip_decompress(data: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    const MAGIC: [u8; 2] = [0x1f, 0x8b];
    let mut rest = data;
    let guess = data.len().saturating_mul(GUESSED_RATIO).max(OUTPUT_START).min(limit);
    out.reserve_exact(guess);
    loop {
        let mut decoder = flate2::bufread::GzDecoder::new(rest);
        read_all(&mut decoder, limit, out)?;
        rest = decoder.into_inner();
        if !rest.starts_with(&MAGIC) {
            return Ok(());
        }
    }
}

fn read_all(decoder: &mut impl Read, limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    loop {
        let from = out.len();
        let mut room = out.capacity().min(limit) - from;
        if room == 0 && from == limit {
            // Full: only the end may follow.
            return match decoder.read(&mut [0]) {
                Ok(0) => Ok(()),
                Ok(_) => Err(BatchError::TooLarge { limit }),
                Err(error) => Err(broken(Compression::Gzip, error)),
            };
        }
        if room == 0 {
            room = limit - from;
        }
        extend(out, room.min(OUTPUT_START), limit)?;
        let read = decoder.read(&mut out[from..]);
        out.truncate(from + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(broken(Compression::Gzip, error)),
        }
    }
}

/// What snappy-java puts first: a magic, its version and the oldest version that can read it.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
/// Bytes of records in one snappy chunk, snappy-java's default.
const XERIAL_CHUNK: usize = 32 * 1024;

fn snappy_compress(records: &[u8], out: &mut Vec<u8>) {
    let mut encoder = snap::raw::Encoder::new();
    out.extend_from_slice(&XERIAL_HEADER);
    for chunk in records.chunks(XERIAL_CHUNK) {
        let at = out.len();
        out.resize(at + 4 + snap::raw::max_compress_len(chunk.len()), 0);
        let size = encoder.compress(chunk, &mut out[at + 4..]);
        debug_assert!(size.is_ok(), "the room is the longest output of a chunk");
        let size = size.unwrap_or(0);
        out[at..at + 4].copy_from_slice(&(size as u32).to_be_bytes());
        out.truncate(at + 4 + size);
    }
}

fn snappy_decompress(data: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let codec = Compression::Snappy;
    if data.is_empty() {
        return Err(broken(codec, "no bytes"));
    }
    if !data.starts_with(XERIAL_MAGIC) {
        return snappy_block(data, limit, out);
    }
    let mut rest = data;
    while !rest.is_empty() {
        // Streams may be put one after another: a header stands where a chunk's length would.
        if rest.starts_with(XERIAL_MAGIC) {
            let Some((_, after)) = rest.split_at_checked(XERIAL_HEADER.len()) else {
                return Err(broken(codec, "the header is cut"));
            };
            rest = after;
            continue;
        }
        let Some((size, after)) = rest.split_first_chunk::<4>() else {
            return Err(broken(codec, "a chunk's length is cut"));
        };
        let size = u32::from_be_bytes(*size) as usize;
        let Some((chunk, after)) = after.split_at_checked(size) else {
            return Err(broken(codec, format!("a chunk of {size} bytes, {} left", after.len())));
        };
        snappy_block(chunk, limit, out)?;
        rest = after;
    }
    Ok(())
}

fn snappy_block(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    /// The best ratio that snappy's format can reach: 64 bytes from a copy of three.
    const LARGEST_RATIO: usize = 22;
    let codec = Compression::Snappy;
    let size = snap::raw::decompress_len(block).map_err(|error| broken(codec, error))?;
    if size > limit - out.len() {
        return Err(BatchError::TooLarge { limit });
    }
    if size > block.len().saturating_mul(LARGEST_RATIO) {
        return Err(broken(codec, format!("{} bytes cannot become {size}", block.len())));
    }
    let at = out.len();
    extend(out, size, limit)?;
    match snap::raw::Decoder::new().decompress(block, &mut out[at..]) {
        Ok(_) => Ok(()),
        Err(error) => Err(broken(codec, error)),
    }
}

const LZ4_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
/// Version 1, independent blocks, no checksums, no content size.
const LZ4_FLAGS: u8 = 0b0110_0000;
/// Blocks of at most 64 KiB.
const LZ4_BLOCK_CODE: u8 = 4 << 4;
const LZ4_BLOCK: usize = 64 * 1024;
/// Set in a block's length when the block is stored as it is.
const LZ4_STORED: u32 = 1 << 31;

fn xxhash32(bytes: &[u8]) -> u32 {
    twox_hash::XxHash32::oneshot(0, bytes)
}

fn lz4_compress(records: &[u8], out: &mut Vec<u8>) {
    let descriptor = [LZ4_FLAGS, LZ4_BLOCK_CODE];
    out.extend_from_slice(&LZ4_MAGIC);
    out.extend_from_slice(&descriptor);
    out.push((xxhash32(&descriptor) >> 8) as u8);
    for block in records.chunks(LZ4_BLOCK) {
        let at = out.len();
        out.resize(at + 4 + lz4_flex::block::get_maximum_output_size(block.len()), 0);
        let size = lz4_flex::block::compress_into(block, &mut out[at + 4..]);
        let word = match size {
            Ok(size) if size < block.len() => {
                out.truncate(at + 4 + size);
                size as u32
            }
            _ => {
                out.truncate(at + 4);
                out.extend_from_slice(block);
                block.len() as u32 | LZ4_STORED
            }
        };
        out[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&[0; 4]);
}

/// What the frame's descriptor says and the blocks after it.
struct Lz4Frame<'a> {
    block_checksums: bool,
    largest_block: usize,
    blocks: &'a [u8],
}

fn lz4_frame(data: &[u8]) -> Result<Lz4Frame<'_>, BatchError> {
    let codec = Compression::Lz4;
    let Some(rest) = data.strip_prefix(&LZ4_MAGIC) else {
        return Err(broken(codec, "not an lz4 frame"));
    };
    let Some([flags, block]) = rest.first_chunk::<2>().copied() else {
        return Err(broken(codec, "the frame's descriptor is cut"));
    };
    // Version 1, independent blocks, no dictionary: all that Kafka reads.
    if flags & 0b1110_0011 != LZ4_FLAGS {
        return Err(broken(codec, format!("frame flags {flags:#04x} are not supported")));
    }
    if block & 0b1000_1111 != 0 || block >> 4 < 4 {
        return Err(broken(codec, format!("block size code {block:#04x} does not exist")));
    }
    let length = if flags & 0b1000 != 0 { 10 } else { 2 };
    let Some((descriptor, rest)) = rest.split_at_checked(length) else {
        return Err(broken(codec, "the frame's descriptor is cut"));
    };
    let Some((checksum, blocks)) = rest.split_first() else {
        return Err(broken(codec, "the frame's descriptor is cut"));
    };
    if *checksum != (xxhash32(descriptor) >> 8) as u8 {
        return Err(broken(codec, "the frame descriptor's checksum does not match"));
    }
    Ok(Lz4Frame {
        block_checksums: flags & 0b1_0000 != 0,
        largest_block: 1 << (8 + 2 * (block >> 4)),
        blocks,
    })
}

fn lz4_decompress(data: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let codec = Compression::Lz4;
    let frame = lz4_frame(data)?;
    let mut rest = frame.blocks;
    loop {
        let Some((word, after)) = rest.split_first_chunk::<4>() else {
            return Err(broken(codec, "the frame ends before its end mark"));
        };
        let word = u32::from_le_bytes(*word);
        let size = (word & !LZ4_STORED) as usize;
        if size == 0 {
            // The content checksum that may follow is not looked at, as in Kafka: the batch has its
            // CRC.
            return Ok(());
        }
        if size > frame.largest_block {
            return Err(broken(codec, format!("a block of {size} bytes is too large")));
        }
        let Some((block, mut after)) = after.split_at_checked(size) else {
            return Err(broken(codec, format!("a block of {size} bytes, {} left", after.len())));
        };
        if frame.block_checksums {
            let Some((checksum, next)) = after.split_first_chunk::<4>() else {
                return Err(broken(codec, "a block's checksum is cut"));
            };
            if u32::from_le_bytes(*checksum) != xxhash32(block) {
                return Err(broken(codec, "a block's checksum does not match"));
            }
            after = next;
        }
        if word & LZ4_STORED != 0 {
            let at = out.len();
            extend(out, size, limit)?;
            out[at..].copy_from_slice(block);
        } else {
            lz4_block(block, frame.largest_block, limit, out)?;
        }
        rest = after;
    }
}

fn lz4_block(
    block: &[u8],
    largest_block: usize,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    /// No byte of an lz4 block stands for more than 255 bytes of output.
    const LARGEST_RATIO: usize = 255;
    let at = out.len();
    let most = largest_block.min(block.len() * LARGEST_RATIO).min(limit - at);
    // Some writers (Go's) announce blocks of 4 MiB whatever they hold: do not zero as much for each.
    let mut room = most.min((block.len() * GUESSED_RATIO).max(OUTPUT_START));
    loop {
        extend(out, room, limit)?;
        match lz4_flex::block::decompress_into(block, &mut out[at..]) {
            Ok(size) => {
                out.truncate(at + size);
                return Ok(());
            }
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if room < most => {
                out.truncate(at);
                room = most;
            }
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if at + room == limit => {
                return Err(BatchError::TooLarge { limit });
            }
            Err(error) => return Err(broken(Compression::Lz4, error)),
        }
    }
}

thread_local! {
    /// A context is a large allocation with tables to set up, so each thread keeps one.
    static ZSTD_ENCODER: RefCell<zstd_safe::CCtx<'static>> =
        RefCell::new(zstd_safe::CCtx::create());
    static ZSTD_DECODER: RefCell<zstd_safe::DCtx<'static>> =
        RefCell::new(zstd_safe::DCtx::create());
}

fn zstd_compress(level: i32, records: &[u8], out: &mut Vec<u8>) {
    out.reserve_exact(zstd_safe::compress_bound(records.len()));
    let size = ZSTD_ENCODER.with_borrow_mut(|encoder| encoder.compress(out, records, level));
    debug_assert!(size.is_ok(), "the room is the longest output");
}

/// In one pass into a buffer of the right size: no window is allocated, whatever size the frame
/// asks for.
fn zstd_decompress(data: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let codec = Compression::Zstd;
    let guess = match zstd_safe::get_frame_content_size(data) {
        Ok(Some(size)) if size > limit as u64 => return Err(BatchError::TooLarge { limit }),
        // A frame that claims much of little may lie: begin small, grow as it proves true.
        Ok(Some(size)) => (size as usize).min(data.len().saturating_mul(256)),
        _ => data.len().saturating_mul(GUESSED_RATIO).max(2 * OUTPUT_START),
    };
    let mut room = guess.min(limit);
    loop {
        if out.capacity() < room || out.capacity() > limit {
            *out = Vec::with_capacity(room);
        }
        let size = ZSTD_DECODER.with_borrow_mut(|decoder| decoder.decompress(out, data));
        let code = match size {
            Ok(size) if size <= limit => return Ok(()),
            Ok(_) => return Err(BatchError::TooLarge { limit }),
            Err(code) => code,
        };
        let small = zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall;
        if !zstd_safe::is_error_kind(code, small) {
            return Err(broken(codec, zstd_safe::get_error_name(code)));
        }
        if out.capacity() >= limit {
            return Err(BatchError::TooLarge { limit });
        }
        room = room.max(OUTPUT_START).saturating_mul(GROWTH).min(limit);
    }
}

#[cfg(test)]
mod tests;
