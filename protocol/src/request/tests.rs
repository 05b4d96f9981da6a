use super::*;
use crate::frame;
use crate::messages::*;

fn unframe(mut buf: BytesMut) -> Bytes {
    let whole = frame::next_frame(&mut buf, 1 << 20).expect("a sound frame");
    assert!(buf.is_empty());
    whole.expect("a whole frame")
}

#[test]
fn a_request_comes_back_with_either_header() {
    let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
    for (version, flexible) in [(1, false), (9, true)] {
        for client_id in [None, Some("me")] {
            let frame = unframe(write_request(7, client_id, version, &request));
            let (header, r) = parse_header(frame.clone()).expect("a header");
            assert_eq!(header.api(), Some(ApiKey::Metadata));
            assert_eq!((header.api_version, header.correlation_id), (version, 7));
            assert_eq!(header.client_id.as_deref(), client_id);
            let client = client_id.map_or(0, str::len);
            assert_eq!(r.position(), 10 + client + usize::from(flexible));
            let (_, any) = try_decode_any(frame.clone()).expect("a request");
            assert_eq!(any, AnyRequest::Metadata(request.clone()));
            assert_eq!(unframe(write_any_request(7, client_id, version, &any)), frame);
        }
    }
}

#[test]
fn the_header_of_api_versions_response_never_changes() {
    let response = ApiVersionsResponse { error_code: 35, ..ApiVersionsResponse::default() };
    for version in 0..=5 {
        let frame = unframe(write_response(9, version, &response));
        assert_eq!(frame[..6], [0, 0, 0, 9, 0, 35]);
        let (id, back) = parse_response::<ApiVersionsResponse>(frame, version).expect("a response");
        assert_eq!((id, back.error_code), (9, 35));
    }
    let frame = unframe(write_response(9, 4, &HeartbeatResponse::default()));
    assert_eq!(frame[..], [0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn bytes_after_a_request_are_left_alone() {
    let mut buf = write_request(1, None, 1, &MetadataRequest::default());
    buf.extend_from_slice(b"more");
    assert!(try_decode_any(buf.freeze().slice(4..)).is_ok());
}

#[test]
fn a_header_that_is_none_is_an_error() {
    let cases: [&[u8]; 5] = [
        b"",
        b"\0\x12",
        b"\x03\xe7\0\0\0\0\0\x01\xff\xff",
        b"\0\x12\0\0\0\0\0\x01\0\x05ab",
        // A flexible header without its tagged fields.
        b"\0\x12\0\x03\0\0\0\x01\xff\xff",
    ];
    for frame in cases {
        assert!(parse_header(Bytes::from_static(frame)).is_err(), "{frame:?}");
    }
}

#[test]
fn a_frame_counts_the_bytes_that_follow_it() {
    let w = begin_response(1, ApiKey::Fetch, 4);
    let frame = finish_frame(w, 1000);
    assert_eq!(frame[..], [0, 0, 0x03, 0xec, 0, 0, 0, 1]);
}
