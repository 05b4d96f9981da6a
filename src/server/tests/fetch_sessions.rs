//! Incremental fetches whose partitions are mostly quiet.

use super::*;
use fetch_request::FetchPartition;

/// The answer's partitions, and whether there are records.
type Told = Vec<(i32, bool)>;

/// A consumer's session over all partitions of `t`.
struct Reader {
    client: Client,
    session_id: i32,
    epoch: i32,
}

impl Reader {
    fn open(world: &World, partitions: i32) -> Reader {
        let mut reader = Reader { client: world.connect(), session_id: 0, epoch: 0 };
        assert_eq!(reader.next((0..partitions).map(|index| at(index, 0)).collect()).len(), 4);
        // Now all are subscribed to, and found quiet.
        assert_eq!(reader.next(vec![]), []);
        reader
    }

    fn ask(&mut self, partitions: Vec<FetchPartition>, max_wait_ms: i32) {
        let mut request = fetch("t", 0, max_wait_ms);
        (request.session_id, request.session_epoch) = (self.session_id, self.epoch);
        request.topics[0].partitions = partitions;
        request.topics.retain(|topic| !topic.partitions.is_empty());
        self.epoch += 1;
        self.client.send(12, &request);
    }

    fn answer(&mut self) -> Told {
        let (_, response) = self.client.receive::<FetchResponse>(12);
        assert_eq!(response.error_code, 0, "{response:?}");
        self.session_id = response.session_id;
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        let told = partitions.map(|one| {
            assert_eq!(one.error_code, 0, "{one:?}");
            (one.partition_index, one.records.as_ref().is_some_and(|it| !it.is_empty()))
        });
        told.collect()
    }

    fn next(&mut self, named: Vec<FetchPartition>) -> Told {
        self.ask(named, 0);
        self.answer()
    }
}

fn at(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition { partition, fetch_offset, partition_max_bytes: 1 << 20, ..Default::default() }
}

fn write(world: &World, partition: i32) {
    let mut request = produce("t", -1, batch(&["a"]));
    request.topic_data[0].partition_data[0].index = partition;
    let response = world.connect().call(9, &request);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0, "{response:?}");
}

#[test]
fn a_quiet_partition_is_answered_once_it_changes() {
    let world = World::new();
    world.create_topic("t", 4);
    let mut reader = Reader::open(&world, 4);
    write(&world, 2);
    assert_eq!(reader.next(vec![]), [(2, true)]);
    // The reader has not moved on: it gets the same again.
    assert_eq!(reader.next(vec![]), [(2, true)]);
    assert_eq!(reader.next(vec![at(2, 1)]), []);
    write(&world, 1);
    write(&world, 2);
    assert_eq!(reader.next(vec![]), [(1, true), (2, true)]);
}

#[test]
fn a_fetch_of_quiet_partitions_waits_for_one_of_them() {
    let world = World::new();
    world.create_topic("t", 4);
    let mut reader = Reader::open(&world, 4);
    for partition in [3, 0] {
        reader.ask(vec![], 20_000);
        write(&world, partition);
        assert_eq!(reader.answer(), [(partition, true)]);
        assert_eq!(reader.next(vec![at(partition, 1)]), []);
    }
}

#[test]
fn a_partition_that_goes_away_is_quiet_no_more() {
    let world = World::new();
    world.create_topic("t", 4);
    let mut reader = Reader::open(&world, 4);
    reader.ask(vec![], 20_000);
    let topic = delete_topics_request::DeleteTopicState {
        name: Some("t".to_owned()),
        ..Default::default()
    };
    let request =
        DeleteTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
    assert_eq!(world.connect().call(6, &request).responses[0].error_code, 0);
    let (_, response) = reader.client.receive::<FetchResponse>(12);
    let codes = response.responses.iter().flat_map(|topic| &topic.partitions);
    let mut codes = codes.map(|one| one.error_code).peekable();
    // The partition is closed a moment before the metadata is without it.
    assert!(codes.peek().is_some() && codes.all(|code| code != 0), "{response:?}");
}

#[test]
fn a_request_that_waits_ends_when_its_session_is_asked_again() {
    let world = World::new();
    world.create_topic("t", 4);
    let mut reader = Reader::open(&world, 4);
    reader.ask(vec![], 20_000);
    std::thread::sleep(std::time::Duration::from_millis(100));
    // The same session from another connection, as after a time-out.
    let mut other =
        Reader { client: world.connect(), session_id: reader.session_id, epoch: reader.epoch };
    other.ask(vec![], 20_000);
    let (_, overtaken) = reader.client.receive::<FetchResponse>(12);
    assert_eq!(overtaken.error_code, ErrorCode::InvalidFetchSessionEpoch.code());
    write(&world, 1);
    assert_eq!(other.answer(), [(1, true)]);
}
