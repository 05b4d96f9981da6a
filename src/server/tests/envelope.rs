//! Requests of clients that a broker of Apache Kafka's passes on to the controller's listener.

use super::*;
use ottla_protocol::request::AnyRequest;

/// "User", "ANONYMOUS", not by token: as Apache Kafka 4.3.1 writes it.
const ANONYMOUS: &[u8] = b"\0\0\x05User\x0aANONYMOUS\0\0";
const CORRELATION_ID: i32 = 77;

pub(super) fn envelope(version: i16, body: &AnyRequest) -> EnvelopeRequest {
    let frame = request::write_any_request(CORRELATION_ID, Some("admin"), version, body).freeze();
    EnvelopeRequest {
        request_data: frame.slice(4..),
        request_principal: Some(Bytes::from_static(ANONYMOUS)),
        client_host_address: Bytes::from_static(&[127, 0, 0, 1]),
    }
}

pub(super) fn create(name: &str) -> AnyRequest {
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    AnyRequest::CreateTopics(request)
}

pub(super) fn describe_quorum() -> AnyRequest {
    AnyRequest::DescribeQuorum(DescribeQuorumRequest {
        topics: vec![describe_quorum_request::TopicData {
            topic_name: ottla_protocol::CLUSTER_METADATA_TOPIC.to_owned(),
            partitions: vec![describe_quorum_request::PartitionData { partition_index: 0 }],
        }],
    })
}

/// What comes back in the envelope.
fn opened<M: Message>(answer: EnvelopeResponse, version: i16) -> M {
    assert_eq!(answer.error_code, 0);
    let (correlation_id, response) =
        request::parse_response(answer.response_data.expect("an answer"), version).unwrap();
    assert_eq!(correlation_id, CORRELATION_ID);
    response
}

fn refused(answer: &EnvelopeResponse) -> ErrorCode {
    assert_eq!(answer.response_data, None);
    ErrorCode::from_code(answer.error_code)
}

#[test]
fn what_is_in_an_envelope_is_done_and_answered_with_its_own_header() {
    let world = World::new();
    let mut broker = World::connect_to(world.controller_address);
    let listed: ApiVersionsResponse = broker.call(
        4,
        &ApiVersionsRequest {
            client_software_name: "a".to_owned(),
            client_software_version: "1".to_owned(),
            ..Default::default()
        },
    );
    assert!(listed.api_keys.iter().any(|api| api.api_key == ApiKey::Envelope as i16));
    // An old version has another header than a flexible one.
    for (version, name) in [(2, "old"), (7, "new")] {
        let answer = broker.call(0, &envelope(version, &create(name)));
        let response: CreateTopicsResponse = opened(answer, version);
        assert_eq!(response.topics[0].error_code, 0, "{response:?}");
        let answer = broker.call(0, &envelope(version, &create(name)));
        let response: CreateTopicsResponse = opened(answer, version);
        assert_eq!(response.topics[0].error_code, ErrorCode::TopicAlreadyExists.code());
    }
    assert_eq!(world.broker.image().topics.iter().count(), 2);
    let answer = broker.call(0, &envelope(2, &describe_quorum()));
    let response: DescribeQuorumResponse = opened(answer, 2);
    assert_eq!(response.topics[0].partitions[0].leader_id, world.broker.node_id().0);
}

#[test]
fn an_envelope_that_is_not_right_is_refused_and_the_connection_stays() {
    let world = World::new();
    let mut broker = World::connect_to(world.controller_address);
    let good = envelope(7, &create("never"));
    let cases = [
        (
            EnvelopeRequest { request_principal: None, ..good.clone() },
            ErrorCode::PrincipalDeserializationFailure,
        ),
        (
            EnvelopeRequest { client_host_address: Bytes::new(), ..good.clone() },
            ErrorCode::InvalidRequest,
        ),
        // A broker answers Metadata itself.
        (
            envelope(12, &AnyRequest::Metadata(MetadataRequest::default())),
            ErrorCode::InvalidRequest,
        ),
        // In an envelope there is none.
        (envelope(0, &AnyRequest::Envelope(good.clone())), ErrorCode::InvalidRequest),
        (
            EnvelopeRequest { request_data: good.request_data.slice(..6), ..good.clone() },
            ErrorCode::UnsupportedVersion,
        ),
        (
            EnvelopeRequest { request_data: good.request_data.slice(..20), ..good.clone() },
            ErrorCode::UnsupportedVersion,
        ),
        // A version that does not exist, and an API that no broker has.
        (
            EnvelopeRequest {
                request_data: Bytes::from_static(b"\0\x13\0\x63\0\0\0\x01\0\0\0"),
                ..good.clone()
            },
            ErrorCode::UnsupportedVersion,
        ),
        (
            EnvelopeRequest {
                request_data: Bytes::from_static(b"\x7f\0\0\0\0\0\0\x01\0\0\0"),
                ..good.clone()
            },
            ErrorCode::UnsupportedVersion,
        ),
    ];
    for (bad, expected) in cases {
        assert_eq!(refused(&broker.call(0, &bad)), expected, "{bad:?}");
    }
    assert_eq!(world.broker.image().topics.iter().count(), 0);
    let answer = broker.call(0, &good);
    let response: CreateTopicsResponse = opened(answer, 7);
    assert_eq!(response.topics[0].error_code, 0, "{response:?}");
}

#[test]
fn brokers_take_no_envelope_on_the_listeners_of_clients() {
    let world = World::new();
    let mut client = world.connect();
    client.send(0, &envelope(7, &create("never")));
    assert!(client.frame().is_none());
}
