//! A group coordinator with its log and a clock that the test moves.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use ottla_protocol::messages::ConsumerProtocolSubscription;
use ottla_protocol::{Message, Offset, Timestamp};

use crate::machines::group::{
    GroupConfig, GroupEffect, GroupMachine, GroupRecord, GroupRequest, GroupResponse,
};
use crate::machines::{Entry, Machine, Output, RequestId};

/// What one step brought about.
#[derive(Debug, Default)]
pub struct Outcome {
    pub records: Vec<GroupRecord>,
    pub replies: Vec<(RequestId, GroupResponse)>,
}

/// A coordinator as its host runs it, with every append committed at once.
pub struct World {
    pub machine: GroupMachine,
    pub config: GroupConfig,
    pub now: Timestamp,
    pub log: Vec<Entry<GroupRecord>>,
    pub parked: BTreeSet<RequestId>,
    next_id: u64,
}

impl World {
    pub fn new(config: GroupConfig) -> Self {
        World {
            machine: GroupMachine::new(config.clone()),
            config,
            now: Timestamp(0),
            log: Vec::new(),
            parked: BTreeSet::new(),
            next_id: 1,
        }
    }

    /// A machine that has loaded the log.
    pub fn loaded(&self) -> GroupMachine {
        let mut machine = GroupMachine::new(self.config.clone());
        self.log.iter().for_each(|entry| machine.replay(entry));
        machine
    }

    /// The coordinator is lost and another takes over.
    pub fn restart(&mut self) {
        self.machine = self.loaded();
        self.parked.clear();
    }

    pub fn request(&mut self, request: GroupRequest) -> (RequestId, Outcome) {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.parked.insert(id);
        let output = self.machine.handle(self.now, id, request);
        (id, self.apply(output))
    }

    /// Moves the clock, with every tick that is due on the way.
    pub fn advance_to(&mut self, to: Timestamp) -> Vec<(Timestamp, Outcome)> {
        let mut outcomes = Vec::new();
        for _ in 0..100_000 {
            match self.machine.deadline() {
                Some(at) if at <= to => self.now = at.max(self.now),
                _ => {
                    self.now = to;
                    return outcomes;
                }
            }
            let output = self.machine.tick(self.now);
            outcomes.push((self.now, self.apply(output)));
        }
        panic!("the machine ticks without end");
    }

    fn apply(&mut self, output: Output<GroupMachine>) -> Outcome {
        for record in &output.records {
            let entry = Entry {
                offset: Offset(self.log.len() as i64),
                timestamp: self.now,
                record: record.clone(),
            };
            self.machine.replay(&entry);
            self.log.push(entry);
        }
        let reply = |effect| {
            let GroupEffect::Reply(id, response) = effect;
            assert!(self.parked.remove(&id), "{id:?} was not asked or is answered twice");
            (id, response)
        };
        let replies = output.effects.into_iter().map(reply).collect();
        Outcome { records: output.records, replies }
    }
}

/// A consumer's subscription to topics joined by `+`.
pub fn subscription(topics: &str) -> Bytes {
    let topics = topics.split('+').filter(|t| !t.is_empty()).map(str::to_owned).collect();
    let message = ConsumerProtocolSubscription { topics, ..Default::default() };
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put(message.to_bytes(0));
    bytes.freeze()
}
