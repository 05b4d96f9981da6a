use super::*;

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|i| b"the quick brown fox "[(i * i / 7) % 20]).collect()
}

#[test]
fn every_codec_gives_back_what_it_was_given() {
    for codec in CODECS {
        for length in [0, 1, 11, 12, 13, 1000, 32_768, 65_536, 65_537, 300_000] {
            let records = text(length);
            let data = compress(codec, default_level(codec), &records);
            let back = decompress(codec, &data, length).expect("sound data");
            assert_eq!(back, records, "{codec:?} {length}");
            if length > 0 {
                let error = decompress(codec, &data, length - 1).expect_err("over the limit");
                assert_eq!(error, BatchError::TooLarge { limit: length - 1 }, "{codec:?} {length}");
            }
        }
    }
}

#[test]
fn every_level_of_a_codec_can_be_read() {
    let records = text(5000);
    for (codec, levels) in [(Compression::Gzip, [-1, 1, 9]), (Compression::Zstd, [-131_072, 1, 22])]
    {
        for level in levels {
            let data = compress(codec, level, &records);
            assert_eq!(decompress(codec, &data, 5000).expect("sound data"), records);
        }
    }
}

#[test]
fn a_bomb_is_refused_within_the_limit() {
    const EXPANDED: usize = 64 << 20;
    const LIMIT: usize = 1 << 20;
    let zeros = vec![0; EXPANDED];
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let bomb = compress(codec, default_level(codec), &zeros);
        let mut out = Vec::new();
        let error = decompress_into(codec, &bomb, LIMIT, &mut out).expect_err("a bomb");
        assert_eq!(error, BatchError::TooLarge { limit: LIMIT }, "{codec:?}");
        assert!(out.capacity() <= LIMIT, "{codec:?} allocated {}", out.capacity());
    }
}

#[test]
fn a_zstd_bomb_without_a_content_size_is_refused_within_the_limit() {
    const LIMIT: usize = 1 << 20;
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("an encoder");
    encoder.include_contentsize(false).expect("a setting");
    encoder.window_log(27).expect("a setting");
    for _ in 0..64 {
        encoder.write_all(&[0; 1 << 20]).expect("a Vec takes every byte");
    }
    let bomb = encoder.finish().expect("a Vec takes every byte");
    assert!(matches!(zstd_safe::get_frame_content_size(&bomb), Ok(None)));
    let mut out = Vec::new();
    let error = decompress_into(Compression::Zstd, &bomb, LIMIT, &mut out).expect_err("a bomb");
    assert_eq!(error, BatchError::TooLarge { limit: LIMIT });
    assert!(out.capacity() <= LIMIT);
    let whole = decompress(Compression::Zstd, &bomb, 64 << 20).expect("within the limit");
    assert_eq!(whole.len(), 64 << 20);
}

#[test]
fn a_claimed_length_is_not_believed() {
    // Raw snappy that says it becomes 4 GiB, and a xerial chunk that does.
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    let mut out = Vec::new();
    assert!(decompress_into(Compression::Snappy, &claim, usize::MAX, &mut out).is_err());
    assert_eq!(out.capacity(), 0);
    // A zstd frame whose content size is 1 GiB and whose blocks hold nothing.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1000_0000, 0x58];
    frame.extend_from_slice(&(1u32 << 30).to_le_bytes());
    frame.extend_from_slice(&[1, 0, 0]);
    assert!(decompress_into(Compression::Zstd, &frame, 2 << 30, &mut out).is_err());
    assert!(out.capacity() < 1 << 20);
}

#[test]
fn cut_data_is_an_error() {
    let records = text(3000);
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let data = compress(codec, default_level(codec), &records);
        for length in 0..data.len() {
            if codec == Compression::Zstd && length == 0 {
                continue; // No frames are a sound stream of zstd.
            }
            if codec == Compression::Snappy && length == XERIAL_HEADER.len() {
                continue; // A stream of no chunks.
            }
            let cut = decompress(codec, &data[..length], 1 << 20);
            assert!(cut.is_err(), "{codec:?} cut at {length} of {}", data.len());
        }
    }
}

#[test]
fn raw_snappy_is_read() {
    let records = text(100_000);
    let raw = snap::raw::Encoder::new().compress_vec(&records).expect("compresses");
    assert_eq!(decompress(Compression::Snappy, &raw, 100_000).expect("sound data"), records);
}

#[test]
fn streams_one_after_another_are_read() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Zstd] {
        let mut data = compress(codec, default_level(codec), b"one ");
        data.extend(compress(codec, default_level(codec), b"two"));
        assert_eq!(decompress(codec, &data, 100).expect("sound data"), b"one two"[..], "{codec:?}");
    }
}

#[test]
fn lz4_frames_of_other_writers_are_read() {
    // Content size and block checksums, a stored block and a compressed one.
    let records = text(1000);
    let mut block = vec![0; 2000];
    let size = lz4_flex::block::compress_into(&records, &mut block).expect("compresses");
    let descriptor = [&[0b0111_1000, 5 << 4][..], &1005u64.to_le_bytes()].concat();
    let mut frame = LZ4_MAGIC.to_vec();
    frame.extend_from_slice(&descriptor);
    frame.push((xxhash32(&descriptor) >> 8) as u8);
    frame.extend_from_slice(&(5 | LZ4_STORED).to_le_bytes());
    frame.extend_from_slice(b"plain");
    frame.extend_from_slice(&xxhash32(b"plain").to_le_bytes());
    frame.extend_from_slice(&(size as u32).to_le_bytes());
    frame.extend_from_slice(&block[..size]);
    frame.extend_from_slice(&xxhash32(&block[..size]).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    let back = decompress(Compression::Lz4, &frame, 5000).expect("sound data");
    assert_eq!(back[..5], b"plain"[..]);
    assert_eq!(back[5..], records);
    // One bit wrong in the block's checksum.
    let at = frame.len() - 5;
    frame[at] ^= 1;
    assert!(decompress(Compression::Lz4, &frame, 5000).is_err());
}

#[test]
fn an_lz4_block_larger_than_guessed_is_read() {
    let records = vec![7; 3 << 20];
    let block = lz4_flex::block::compress(&records);
    let descriptor = [LZ4_FLAGS, 7 << 4];
    let mut frame = LZ4_MAGIC.to_vec();
    frame.extend_from_slice(&descriptor);
    frame.push((xxhash32(&descriptor) >> 8) as u8);
    frame.extend_from_slice(&(block.len() as u32).to_le_bytes());
    frame.extend_from_slice(&block);
    frame.extend_from_slice(&[0; 4]);
    assert_eq!(decompress(Compression::Lz4, &frame, 4 << 20).expect("sound data"), records);
    let limit = (3 << 20) - 1;
    let error = decompress(Compression::Lz4, &frame, limit).expect_err("over the limit");
    assert_eq!(error, BatchError::TooLarge { limit });
}
