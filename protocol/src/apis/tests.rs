use super::*;
use crate::generated::SCHEMA_APIS;
use crate::request::write_response;

#[test]
fn the_table_is_in_order_and_within_the_schemas() {
    assert!(APIS.windows(2).all(|pair| pair[0].key < pair[1].key));
    for api in APIS {
        let schema = SCHEMA_APIS.iter().find(|line| line.0 == api.key).expect("a schema");
        assert!(schema.1 <= api.min && api.min <= api.max, "{api:?}");
        assert!(api.max <= schema.2, "{api:?} is not stable up to there");
        assert_eq!(find(api.key as i16), Some(api));
        assert!(!api.notes.is_empty());
    }
}

#[test]
fn what_is_not_served_is_not_found() {
    for key in [-1, 4, 7, 71, 95, 127, 128, i16::MAX, i16::MIN] {
        assert_eq!(find(key), None);
    }
    let broker = ListenerType::Broker;
    for (key, version, passes) in [
        (0, 2, false),
        (0, 3, true),
        (0, 14, false),
        (18, 99, true),
        (18, -1, true),
        (3, -1, false),
    ] {
        assert_eq!(check(key, version, broker).is_some(), passes, "{key} {version}");
    }
    assert!(check(0, 9, ListenerType::Controller).is_none());
    assert!(check(18, 3, ListenerType::Controller).is_some());
}

#[test]
fn produce_is_advertised_from_zero() {
    let apis = advertised(ListenerType::Broker);
    assert_eq!((apis[0].api_key, apis[0].min_version, apis[0].max_version), (0, 0, 13));
    assert!(advertised(ListenerType::Controller).iter().all(|api| api.api_key != 0));
}

#[test]
fn an_unsupported_api_versions_request_is_answered_as_kafka_does() {
    let frame = write_response(77, 0, &unsupported_api_versions());
    // Kafka 4.3.1 sends the same with 4 for the highest version.
    let expected = [0, 0, 0, 16, 0, 0, 0, 77, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 5];
    assert_eq!(frame[..], expected);
}
