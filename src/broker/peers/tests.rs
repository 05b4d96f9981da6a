//! A client against a node that answers what a test wants.

use super::*;
use crate::env::net::{ListenOptions, Listener};
use ottla_protocol::apis::ListenerType;
use ottla_protocol::messages::api_versions_response::ApiVersion;
use ottla_protocol::messages::{HeartbeatRequest, HeartbeatResponse, MetadataRequest};
use ottla_protocol::{Message, Reader};
use std::sync::atomic::{AtomicUsize, Ordering};

const PATIENCE: Duration = Duration::from_secs(10);

async fn listener() -> Listener {
    let options = ListenOptions { backlog: 8, receive_buffer_bytes: None, send_buffer_bytes: None };
    Listener::bind("127.0.0.1", 0, &options).await.unwrap()
}

fn client(port: u16, patience: Duration) -> PeerClient {
    PeerClient::new(PeerParams {
        host: "127.0.0.1".to_owned(),
        port,
        client_id: "test".to_owned(),
        patience,
        answer_bytes_max: 1 << 20,
        wanted: ListenerType::Broker,
    })
}

/// What the node does with a heartbeat of this generation; ApiVersions it always answers.
#[derive(Clone, Copy)]
enum Manner {
    /// Answers it, with the version of the request as throttle time and the generation as error code.
    Answer,
    /// Says nothing to generation 1.
    SilentAtOne,
    /// Closes the connection at generation 1.
    CloseAtOne,
    /// Answers generation 1 with another correlation id.
    ConfusedAtOne,
}

async fn serve(listener: Listener, manner: Manner, connections: Arc<AtomicUsize>) {
    loop {
        let connection = listener.accept().await.unwrap();
        connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve_one(connection, manner));
    }
}

async fn serve_one(connection: Connection, manner: Manner) {
    let mut input = BytesMut::new();
    while let Ok(frame) = next_frame(&connection, &mut input, 1 << 20).await {
        let (header, mut body) = request::parse_header(frame).unwrap();
        let Some(answer) = answer(manner, &header, &mut body) else { continue };
        if answer.is_empty() {
            return;
        }
        let mut queue = SendQueue::default();
        queue.bytes_mut().extend_from_slice(&answer);
        connection.send(&mut queue, None).await.unwrap();
    }
}

fn answer(manner: Manner, header: &request::RequestHeader, body: &mut Reader) -> Option<Bytes> {
    let id = header.correlation_id;
    if header.api_key == QUORUM_MESSAGE_KEY {
        let sender = body.i32().unwrap();
        let cluster_id = body.string(false).unwrap();
        let text = format!("{sender} of {cluster_id}: {:?}", body.rest());
        return Some(request::write_quorum_answer(id, text.as_bytes()).freeze());
    }
    if header.api_key == ApiKey::ApiVersions as i16 {
        let api = |key, max| ApiVersion { api_key: key as i16, min_version: 0, max_version: max };
        let api_keys = vec![api(ApiKey::Heartbeat, 3), api(ApiKey::ApiVersions, 4)];
        let response = ApiVersionsResponse { api_keys, ..Default::default() };
        return Some(request::write_response(id, header.api_version, &response).freeze());
    }
    let request = HeartbeatRequest::decode(body, header.api_version).unwrap();
    let id = match (manner, request.generation_id) {
        (Manner::SilentAtOne, 1) => return None,
        (Manner::CloseAtOne, 1) => return Some(Bytes::new()),
        (Manner::ConfusedAtOne, 1) => id + 1,
        _ => id,
    };
    let response = HeartbeatResponse {
        throttle_time_ms: i32::from(header.api_version),
        error_code: request.generation_id as i16,
    };
    Some(request::write_response(id, header.api_version, &response).freeze())
}

async fn start(manner: Manner, patience: Duration) -> (PeerClient, Arc<AtomicUsize>) {
    let listener = listener().await;
    let port = listener.address().port();
    let connections = Arc::new(AtomicUsize::new(0));
    tokio::spawn(serve(listener, manner, connections.clone()));
    (client(port, patience), connections)
}

fn heartbeat(generation_id: i32) -> HeartbeatRequest {
    HeartbeatRequest { group_id: "g".to_owned(), generation_id, ..Default::default() }
}

#[tokio::test]
async fn many_requests_share_a_connection_and_each_gets_its_own_answer() {
    let (client, connections) = start(Manner::Answer, PATIENCE).await;
    let calls: Vec<_> = (0..100)
        .map(|generation| {
            let client = client.clone();
            tokio::spawn(async move { client.call(4, heartbeat(generation)).await })
        })
        .collect();
    for (generation, call) in calls.into_iter().enumerate() {
        let response = call.await.unwrap().unwrap();
        // The node serves Heartbeat up to version 3.
        assert_eq!((response.error_code, response.throttle_time_ms), (generation as i16, 3));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let response = client.call(2, heartbeat(7)).await.unwrap();
    assert_eq!((response.error_code, response.throttle_time_ms), (7, 2));
}

#[tokio::test]
async fn voters_messages_go_as_they_are() {
    let (client, _) = start(Manner::Answer, PATIENCE).await;
    let answer = client
        .quorum_message((BrokerId(3), "here".into()), Bytes::from_static(b"hello"))
        .await
        .unwrap();
    assert_eq!(&answer[..], b"3 of here: b\"hello\"");
}

#[tokio::test]
async fn an_api_that_the_node_does_not_serve_is_not_sent() {
    let (client, connections) = start(Manner::Answer, PATIENCE).await;
    let error = client.call(9, MetadataRequest::default()).await.unwrap_err();
    assert!(matches!(error, PeerError::NotServed { api: ApiKey::Metadata, max: 9, .. }), "{error}");
    client.call(3, heartbeat(0)).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_broken_connection_fails_what_is_in_flight_and_the_next_call_dials_anew() {
    for manner in [Manner::CloseAtOne, Manner::ConfusedAtOne] {
        let (client, connections) = start(manner, PATIENCE).await;
        let (first, second) =
            tokio::join!(client.call(3, heartbeat(1)), client.call(3, heartbeat(2)));
        for error in [first.unwrap_err(), second.unwrap_err()] {
            assert!(
                matches!(error, PeerError::Broken { .. } | PeerError::Malformed { .. }),
                "{error}"
            );
        }
        assert_eq!(client.call(3, heartbeat(3)).await.unwrap().error_code, 3);
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn a_silent_node_is_given_up_after_the_time_that_it_has() {
    let (client, connections) = start(Manner::SilentAtOne, Duration::from_millis(300)).await;
    let error = client.call(3, heartbeat(1)).await.unwrap_err();
    assert!(matches!(error, PeerError::TimedOut { .. }), "{error}");
    assert_eq!(client.call(3, heartbeat(2)).await.unwrap().error_code, 2);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn nobody_listening_is_told_apart() {
    let listener = listener().await;
    let port = listener.address().port();
    let client = client(port, PATIENCE);
    // Who is reached and then closes its listener hangs up on those whom it has not accepted.
    let (probed, ()) = tokio::join!(client.probe(), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(listener);
    });
    assert!(matches!(probed.unwrap_err(), PeerError::Broken { .. }));
    assert!(client.probe().await.unwrap_err().is_refused());
    assert!(client.call(3, heartbeat(1)).await.unwrap_err().is_refused());
}
