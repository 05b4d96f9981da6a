//! A client of the cluster, in real request frames over the simulated network.
//!
//! It knows what any client knows: a few addresses, what Metadata told it last, and for each request either an answer
//! or that there was none, after which nobody can say whether it was carried out.

use bytes::{Bytes, BytesMut};
use ottla::env::net::{Connection, Read, SendQueue};
use ottla_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use ottla_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use ottla_protocol::{ErrorCode, Request, frame, request};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// How long a client waits for any answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long it waits for a connection.
const DIAL_PATIENCE: Duration = Duration::from_millis(500);
/// Bytes that an answer may have.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// Where a broker is.
pub(crate) type Address = (String, u16);

struct Link {
    connection: Connection,
    input: BytesMut,
    next: i32,
}

impl Link {
    async fn call<R: Request>(&mut self, version: i16, body: &R) -> io::Result<R::Response> {
        let correlation_id = self.next;
        self.next += 1;
        let mut queue = SendQueue::default();
        let frame = request::write_request(correlation_id, Some("sim"), version, body);
        queue.bytes_mut().extend_from_slice(&frame);
        let exchange = async {
            self.connection.send(&mut queue, Some(PATIENCE)).await?;
            next_frame(&self.connection, &mut self.input).await
        };
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let answer = tokio::time::timeout(PATIENCE, exchange).await.map_err(late)??;
        let (id, answer) = request::parse_response(answer, version).map_err(io::Error::other)?;
        if id != correlation_id {
            return Err(io::Error::other("an answer to another request"));
        }
        Ok(answer)
    }
}

async fn next_frame(connection: &Connection, input: &mut BytesMut) -> io::Result<Bytes> {
    loop {
        let whole = frame::next_frame(input, ANSWER_BYTES_MAX).map_err(io::Error::other)?;
        if let Some(frame) = whole {
            return Ok(frame);
        }
        connection.readable().await?;
        if connection.read(input, CHUNK)? == Read::Closed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The leader of a partition, as Metadata told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) address: Address,
    /// A consumer names it (KIP-320): else a follower that was the leader would answer from its own, shorter log.
    pub(crate) epoch: i32,
}

/// The leaders that a client has heard of.
///
/// A broker that was cut off, or stood still, tells metadata of long ago, in which it may lead what others lead now.
/// Clients take no leader of an older epoch than they know (KIP-320): it would answer from a log that ended.
#[derive(Debug, Default)]
struct Leaders {
    /// By topic and partition; and whether to ask again before the leader is used.
    newest: BTreeMap<(String, i32), (Leader, bool)>,
}

impl Leaders {
    /// Takes what Metadata told, unless something newer is known, which counts again then.
    fn learn(&mut self, topic: &str, partition: i32, told: Leader) {
        let key = (topic.to_owned(), partition);
        let known = self.newest.remove(&key).map(|(leader, _)| leader);
        let newest = known.filter(|known| known.epoch > told.epoch).unwrap_or(told);
        self.newest.insert(key, (newest, false));
    }

    /// The leader, unless Metadata is to be asked first.
    fn get(&self, topic: &str, partition: i32) -> Option<Leader> {
        let known = self.newest.get(&(topic.to_owned(), partition));
        known.filter(|(_, is_doubted)| !is_doubted).map(|(leader, _)| leader.clone())
    }

    fn doubt(&mut self, topic: &str) {
        for ((known, _), (_, is_doubted)) in &mut self.newest {
            *is_doubted |= known == topic;
        }
    }
}

/// One client, with its connections.
pub(crate) struct Client {
    bootstrap: Vec<Address>,
    turn: usize,
    links: BTreeMap<Address, Link>,
    leaders: Leaders,
    coordinators: BTreeMap<String, Address>,
}

impl Client {
    /// A client that begins with these addresses, one of them first.
    pub(crate) fn new(bootstrap: Vec<Address>, turn: usize) -> Client {
        let (links, leaders, coordinators) = Default::default();
        Client { bootstrap, turn, links, leaders, coordinators }
    }

    /// Sends a request to one broker. After an error nobody knows what became of it.
    pub(crate) async fn call<R: Request>(
        &mut self,
        to: &Address,
        version: i16,
        body: &R,
    ) -> io::Result<R::Response> {
        if !self.links.contains_key(to) {
            let connection = Connection::dial(&to.0, to.1, DIAL_PATIENCE).await?;
            self.links.insert(to.clone(), Link { connection, input: BytesMut::new(), next: 0 });
        }
        let Some(link) = self.links.get_mut(to) else { return Err(io::ErrorKind::NotFound.into()) };
        let answer = link.call(version, body).await;
        if answer.is_err() {
            self.links.remove(to);
        }
        answer
    }

    /// Sends a request to any broker, another one each time that one does not answer.
    pub(crate) async fn call_any<R: Request>(
        &mut self,
        version: i16,
        body: &R,
    ) -> io::Result<R::Response> {
        let to = self.bootstrap[self.turn % self.bootstrap.len()].clone();
        let answer = self.call(&to, version, body).await;
        if answer.is_err() {
            self.turn += 1;
        }
        answer
    }

    /// The leader of a partition, as far as is known.
    pub(crate) async fn leader(&mut self, topic: &str, partition: i32) -> Option<Leader> {
        if let Some(known) = self.leaders.get(topic, partition) {
            return Some(known);
        }
        let wanted = MetadataRequestTopic { name: Some(topic.to_owned()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![wanted]), ..Default::default() };
        let answer = self.call_any(12, &request).await.ok()?;
        let address = |id: i32| {
            let broker = answer.brokers.iter().find(|broker| broker.node_id == id)?;
            Some((broker.host.clone(), u16::try_from(broker.port).ok()?))
        };
        for found in &answer.topics {
            for it in &found.partitions {
                if let Some(address) = address(it.leader_id) {
                    let leader = Leader { address, epoch: it.leader_epoch };
                    self.leaders.learn(topic, it.partition_index, leader);
                }
            }
        }
        self.leaders.get(topic, partition)
    }

    /// Asks another broker before a topic's leaders are used again.
    pub(crate) fn doubt_leaders(&mut self, topic: &str) {
        self.leaders.doubt(topic);
        self.turn += 1;
    }

    /// The coordinator of a group, as far as is known.
    pub(crate) async fn coordinator(&mut self, group: &str) -> Option<Address> {
        if let Some(known) = self.coordinators.get(group) {
            return Some(known.clone());
        }
        let coordinator_keys = vec![group.to_owned()];
        let request = FindCoordinatorRequest { coordinator_keys, ..Default::default() };
        let answer = self.call_any(4, &request).await.ok()?;
        let found = answer.coordinators.first()?;
        if found.error_code != ErrorCode::None.code() {
            self.turn += 1;
            return None;
        }
        let address = (found.host.clone(), u16::try_from(found.port).ok()?);
        self.coordinators.insert(group.to_owned(), address.clone());
        Some(address)
    }

    /// Forgets where a group's coordinator was.
    pub(crate) fn forget_coordinator(&mut self, group: &str) {
        self.coordinators.remove(group);
        self.turn += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(id: u16, epoch: i32) -> Leader {
        Leader { address: (format!("node{id}"), 9092), epoch }
    }

    #[test]
    fn metadata_of_long_ago_brings_no_old_leader_back() {
        let mut leaders = Leaders::default();
        leaders.learn("t", 0, leader(2, 0));
        leaders.doubt("t");
        assert_eq!(leaders.get("t", 0), None);
        leaders.learn("t", 0, leader(3, 1));
        leaders.doubt("t");
        leaders.learn("t", 0, leader(2, 0));
        assert_eq!(leaders.get("t", 0), Some(leader(3, 1)));
        leaders.learn("t", 0, leader(1, 2));
        assert_eq!(leaders.get("t", 0), Some(leader(1, 2)));
    }
}
