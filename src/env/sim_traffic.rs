//! What goes over the simulated network, by kind of request: frames are counted as they are sent.

use super::sim_net::HostId;
use std::collections::{BTreeMap, VecDeque};

/// Bytes of a frame's length, and of a request's API key after it.
const LENGTH_BYTES: usize = 4;
const KEY_BYTES: usize = 2;

/// A kind of request: who asks, the port that is asked, and the number of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKind {
    /// The machine that dialled.
    pub from: HostId,
    /// The port that it dialled.
    pub port: u16,
    /// The API key.
    pub api_key: i16,
}

/// How much there was of a kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Requests whose beginning was sent.
    pub requests: u64,
    /// Their bytes.
    pub request_bytes: u64,
    /// The bytes of the answers to them whose beginning was sent.
    pub answer_bytes: u64,
}

/// Finds the beginnings of the frames in one direction of a connection.
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    /// Bytes of the frame that follow its head.
    left: usize,
}

impl Frames {
    /// Takes what was sent; each frame that begins in it is told with its length, once its first bytes are there.
    fn take(&mut self, mut bytes: &[u8], head_bytes: usize, mut told: impl FnMut(u64, &[u8])) {
        while !bytes.is_empty() {
            let passed = self.left.min(bytes.len());
            (bytes, self.left) = (&bytes[passed..], self.left - passed);
            let missing = (head_bytes - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.head.len() == head_bytes {
                let length =
                    self.head.first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
                let whole = LENGTH_BYTES + length as usize;
                told(whole as u64, &self.head);
                self.left = whole.saturating_sub(head_bytes);
                self.head.clear();
            }
        }
    }
}

/// One connection: who dialled, the port, both directions, and the requests that were not answered yet.
#[derive(Debug)]
struct Dialogue {
    from: HostId,
    port: u16,
    asked: Frames,
    answered: Frames,
    open: VecDeque<i16>,
}

/// Counts requests and answers.
#[derive(Debug, Default)]
pub(super) struct Meter {
    dialogues: BTreeMap<u64, Dialogue>,
    seen: BTreeMap<RequestKind, Traffic>,
}

impl Meter {
    /// A connection was made.
    pub(super) fn connect(&mut self, connection: u64, from: HostId, port: u16) {
        let (asked, answered, open) = Default::default();
        self.dialogues.insert(connection, Dialogue { from, port, asked, answered, open });
    }

    /// Forgets the connections that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&u64) -> bool) {
        self.dialogues.retain(|connection, _| is_there(connection));
    }

    /// Bytes were sent on a connection, by who dialled (side 0) or by the other.
    pub(super) fn sent(&mut self, connection: u64, side: usize, bytes: &[u8]) {
        let Some(dialogue) = self.dialogues.get_mut(&connection) else { return };
        let Dialogue { from, port, asked, answered, open } = dialogue;
        let kind = |api_key| RequestKind { from: *from, port: *port, api_key };
        if side == 0 {
            asked.take(bytes, LENGTH_BYTES + KEY_BYTES, |length, head| {
                let api_key = i16::from_be_bytes([head[LENGTH_BYTES], head[LENGTH_BYTES + 1]]);
                open.push_back(api_key);
                let seen = self.seen.entry(kind(api_key)).or_default();
                seen.requests += 1;
                seen.request_bytes += length;
            });
        } else {
            answered.take(bytes, LENGTH_BYTES, |length, _| {
                if let Some(api_key) = open.pop_front() {
                    self.seen.entry(kind(api_key)).or_default().answer_bytes += length;
                }
            });
        }
    }

    /// What was counted so far.
    pub(super) fn seen(&self) -> &BTreeMap<RequestKind, Traffic> {
        &self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        // Two requests, Fetch (1) and Metadata (3), with their answers.
        let asked = [0, 0, 0, 5, 0, 1, 7, 7, 7, 0, 0, 0, 2, 0, 3];
        let answered = [0, 0, 0, 3, 9, 9, 9, 0, 0, 0, 0];
        let fetch = RequestKind { from: 4, port: 9092, api_key: 1 };
        let metadata = RequestKind { api_key: 3, ..fetch };
        for piece in 1..asked.len() {
            let mut meter = Meter::default();
            meter.connect(8, 4, 9092);
            asked.chunks(piece).for_each(|bytes| meter.sent(8, 0, bytes));
            answered.chunks(piece).for_each(|bytes| meter.sent(8, 1, bytes));
            let expected = BTreeMap::from([
                (fetch, Traffic { requests: 1, request_bytes: 9, answer_bytes: 7 }),
                (metadata, Traffic { requests: 1, request_bytes: 6, answer_bytes: 4 }),
            ]);
            assert_eq!(meter.seen(), &expected, "in pieces of {piece}");
        }
    }
}
