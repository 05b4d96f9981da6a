//! Frames as clients send them, and as they come to nobody's good.

use super::*;
use proptest::prelude::*;

fn request(write: impl FnOnce(&mut Writer)) -> RequestFrame {
    let mut w = Writer::default();
    write(&mut w);
    RequestFrame::decode(w.freeze()).unwrap()
}

fn text(w: &mut Writer, text: &str) {
    w.bytes(text.as_bytes(), false);
}

#[test]
fn a_connect_request_is_read_with_and_without_its_last_field() {
    let check = |has_read_only: bool| {
        let mut w = Writer::default();
        w.i32(0);
        w.i64(7);
        w.i32(6000);
        w.i64(-2);
        w.bytes(&[1; 16], false);
        if has_read_only {
            w.bool(false);
        }
        let request = ConnectRequest::decode(w.freeze()).unwrap();
        let password = Bytes::from_static(&[1; 16]);
        let expected = ConnectRequest { timeout_ms: 6000, session_id: -2, password, has_read_only };
        assert_eq!(request, expected);
    };
    check(true);
    check(false);
}

#[test]
fn a_node_is_made_by_either_operation() {
    let create = |operation: i32, flags: i32, acls: usize| {
        request(|w| {
            w.i32(5);
            w.i32(operation);
            text(w, "/a");
            w.bytes(b"x", false);
            w.array_length(acls, false);
            for _ in 0..acls {
                w.i32(31);
                text(w, "world");
                text(w, "anyone");
            }
            w.i32(flags);
        })
    };
    let made = |mode, wants_stat| {
        let (path, data) = ("/a".to_owned(), Bytes::from_static(b"x"));
        RequestFrame { xid: 5, request: Ok(Request::Create { path, data, mode, wants_stat }) }
    };
    assert_eq!(create(1, 0, 1), made(CreateMode::Persistent, false));
    assert_eq!(create(15, 1, 1), made(CreateMode::Ephemeral, true));
    assert_eq!(create(1, 3, 2), made(CreateMode::EphemeralSequential, false));
    assert_eq!(create(1, 0, 0).request, Err(ErrorCode::InvalidAcl));
    assert_eq!(create(1, 4, 1).request, Err(ErrorCode::BadArguments));
}

#[test]
fn what_is_not_served_is_told_so() {
    // A transaction, a reconfiguration, a time to live.
    for operation in [14, 16, 21, 1000, -10] {
        let frame = request(|w| {
            w.i32(1);
            w.i32(operation);
        });
        assert_eq!(frame, RequestFrame { xid: 1, request: Err(ErrorCode::Unimplemented) });
    }
    let auth = request(|w| {
        w.i32(-4);
        w.i32(100);
    });
    assert_eq!(auth, RequestFrame { xid: -4, request: Err(ErrorCode::AuthFailed) });
    let cut = request(|w| {
        w.i32(1);
        w.i32(4);
        w.i32(100);
    });
    assert_eq!(cut.request, Err(ErrorCode::Marshalling));
}

/// Byte by byte as ZooKeeper 3.5 answers `get /a`.
#[test]
fn an_answer_has_zookeepers_layout() {
    let stat = Stat { czxid: 1, mzxid: 2, version: 3, data_length: 1, pzxid: 4, ..Stat::default() };
    let mut w = Writer::default();
    encode_reply(9, 2, &Ok(Response::Data(Bytes::from_static(b"x"), stat)), &mut w);
    let bytes = w.freeze();
    assert_eq!(bytes.len(), 4 + 16 + 5 + 68);
    assert_eq!(
        bytes[..24],
        [0, 0, 0, 89, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    );
    let mut w = Writer::default();
    encode_reply(9, 2, &Err(ErrorCode::NoNode), &mut w);
    assert_eq!(w.freeze()[16..], (-101i32).to_be_bytes());
    let mut w = Writer::default();
    Event { kind: EventKind::Created, path: "/a".to_owned() }.encode(&mut w);
    let bytes = w.freeze();
    assert_eq!(bytes[4..8], (-1i32).to_be_bytes());
    assert_eq!(bytes[20..], [0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 2, b'/', b'a']);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), operation in -12i32..110) {
        let _ = ConnectRequest::decode(Bytes::from(bytes.clone()));
        let _ = RequestFrame::decode(Bytes::from(bytes.clone()));
        let mut w = Writer::default();
        w.i32(1);
        w.i32(operation);
        w.raw(&bytes);
        let _ = RequestFrame::decode(w.freeze());
    }
}
