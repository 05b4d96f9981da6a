use super::*;

const MAX: usize = 100;

#[test]
fn frames_come_out_one_by_one_however_they_went_in() {
    let stream = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01z";
    for step in 1..stream.len() {
        let mut buf = BytesMut::new();
        let mut frames = Vec::new();
        for part in stream.chunks(step) {
            buf.extend_from_slice(part);
            while let Some(frame) = next_frame(&mut buf, MAX).expect("sound frames") {
                frames.push(frame);
            }
        }
        assert_eq!(frames, [&b"abc"[..], b"", b"z"], "in steps of {step}");
        assert!(buf.is_empty());
    }
}

#[test]
fn what_is_missing_is_known_from_the_length_on() {
    for (bytes, expected) in
        [(&b""[..], 4), (b"\0\0\0", 1), (b"\0\0\0\x05", 5), (b"\0\0\0\x02ab", 0), (b"\0\0\0\0x", 0)]
    {
        assert_eq!(missing(bytes, MAX), Ok(expected), "{bytes:?}");
    }
}

#[test]
fn strangers_are_named() {
    let cases: [(&[u8], FrameError); 7] = [
        (b"\xff\xff\xff\xff", FrameError::Negative(-1)),
        (b"\0\0\0\x65", FrameError::TooLarge { length: 101, max: MAX }),
        (b"\x7f\xff\xff\xff", FrameError::TooLarge { length: i32::MAX as usize, max: MAX }),
        (b"GET / HTTP/1.1\r\n", FrameError::Http),
        (b"POST /topics", FrameError::Http),
        (b"PRI * HTTP/2.0", FrameError::Http),
        (b"\x16\x03\x01\x02\x00\x01", FrameError::Tls),
    ];
    for (bytes, expected) in cases {
        let mut buf = BytesMut::from(bytes);
        assert_eq!(next_frame(&mut buf, MAX), Err(expected));
    }
}
