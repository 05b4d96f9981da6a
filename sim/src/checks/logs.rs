//! Logs are equal below the high watermark: whatever any replica has held for committed stays as it is, everywhere.

use super::{Finding, PartitionId, Replica};
use ottla::broker::{IsolationLevel, MinOne, ReadFrom, ReadParams};
use ottla_protocol::batch::batches;
use ottla_protocol::{LeaderEpoch, Offset};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Bytes that are looked at at once.
const CHUNK: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Logs {
    /// The committed batches by their base offsets: a hash of all their bytes, and the offset after them.
    committed: BTreeMap<PartitionId, BTreeMap<i64, (u64, i64)>>,
    /// By machine, life and partition: how far it was looked at.
    cursors: BTreeMap<(usize, u64, PartitionId), i64>,
    compared: usize,
}

impl Logs {
    pub(super) fn look(&mut self, replicas: &[Replica]) -> Finding {
        for it in replicas {
            while self.look_on(it)? {}
        }
        Ok(())
    }

    /// Looks at the next batches of a replica; whether there may be more.
    fn look_on(&mut self, it: &Replica) -> Result<bool, String> {
        let key = (it.machine, it.life, it.id.clone());
        let from = self.cursors.get(&key).copied().unwrap_or(0);
        let committed = it.partition.high_watermark().0;
        if from >= committed {
            return Ok(false);
        }
        let read = it.partition.read(ReadParams {
            offset: Offset(from),
            max_bytes: CHUNK,
            min_one: MinOne::Yes,
            isolation: IsolationLevel::ReadUncommitted,
            from: ReadFrom::AnyReplica,
            current_leader_epoch: LeaderEpoch::UNKNOWN,
            last_fetched_epoch: LeaderEpoch::UNKNOWN,
            follower: None,
            is_noted: true,
        });
        // One that is not led yet, or whose disk has just failed, is looked at later.
        let Ok(read) = read else { return Ok(false) };
        let Some(slice) = read.slice else { return Ok(false) };
        let Ok(bytes) = slice.to_bytes() else { return Ok(false) };
        let known = self.committed.entry(it.id.clone()).or_default();
        let mut next = from;
        for batch in batches(&bytes) {
            let Ok((header, batch)) = batch else { break };
            let (base, end) = (header.base_offset.0, header.next_offset().0);
            if end > committed {
                break;
            }
            let mut hasher = DefaultHasher::new();
            batch.hash(&mut hasher);
            let found = (hasher.finish(), end);
            let expected = *known.entry(base).or_insert(found);
            let before = known.range(..base).next_back().map_or(0, |(_, (_, end))| *end);
            if expected != found || base != next || before > base {
                return Err(format!(
                    "{:?} on machine {} has another batch at {base} (to {end}, expected at {next}, to {}) than was committed",
                    it.id, it.machine, expected.1
                ));
            }
            self.compared += 1;
            next = end;
        }
        self.cursors.insert(key, next);
        Ok(next > from)
    }

    /// Everything is looked at again next time.
    pub(super) fn forget_cursors(&mut self) {
        self.cursors.clear();
    }

    pub(super) fn seen(&self) -> usize {
        self.compared
    }
}
