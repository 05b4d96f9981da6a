//! One leader an epoch, of each partition and of the metadata quorum; and a process never takes an older epoch.

use super::{Finding, PartitionId, Replica};
use crate::world::World;
use ottla_protocol::TopicId;
use std::collections::BTreeMap;

/// The name under which the quorum's leaders are kept.
const QUORUM: &str = "the quorum";

#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// By partition and epoch: the machine that led.
    leaders: BTreeMap<(PartitionId, i32), usize>,
    /// By machine, life and partition.
    newest: BTreeMap<(usize, u64, PartitionId), i32>,
}

impl Epochs {
    pub(super) fn look(&mut self, world: &World, replicas: &[Replica]) -> Finding {
        for it in replicas {
            let epoch = it.partition.leader_epoch().0;
            self.note_newest(it.machine, it.life, &it.id, epoch)?;
            if it.partition.is_leader() {
                self.note_leader(it.machine, &it.id, epoch)?;
            }
        }
        let id = PartitionId { topic: QUORUM.into(), topic_id: TopicId::nil(), index: 0 };
        for (at, machine) in world.machines.iter().enumerate() {
            let status = world.broker(at).and_then(|broker| broker.quorum_status());
            let Some(status) = status else { continue };
            self.note_newest(at, machine.lives, &id, status.leader_epoch.0)?;
            if status.leader_id.0 == machine.role.id {
                self.note_leader(at, &id, status.leader_epoch.0)?;
            }
        }
        Ok(())
    }

    fn note_newest(&mut self, machine: usize, life: u64, id: &PartitionId, epoch: i32) -> Finding {
        let newest = self.newest.entry((machine, life, id.clone())).or_insert(epoch);
        if epoch < *newest {
            return Err(format!(
                "leader epoch of {id:?} on machine {machine} went from {newest} to {epoch}"
            ));
        }
        *newest = epoch;
        Ok(())
    }

    fn note_leader(&mut self, machine: usize, id: &PartitionId, epoch: i32) -> Finding {
        let leader = *self.leaders.entry((id.clone(), epoch)).or_insert(machine);
        if leader != machine {
            return Err(format!(
                "two leaders of {id:?} in epoch {epoch}: machines {leader} and {machine}"
            ));
        }
        Ok(())
    }

    pub(super) fn seen(&self) -> usize {
        self.leaders.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_topic(topic_id: u128) -> PartitionId {
        PartitionId { topic: "x0".into(), topic_id: TopicId::from_u128(topic_id), index: 0 }
    }

    #[test]
    fn a_topic_that_is_made_again_begins_with_epoch_0() {
        let mut epochs = Epochs::default();
        assert_eq!(epochs.note_leader(0, &of_topic(1), 0), Ok(()));
        assert_eq!(epochs.note_newest(0, 1, &of_topic(1), 3), Ok(()));
        assert_eq!(epochs.note_leader(1, &of_topic(2), 0), Ok(()));
        assert_eq!(epochs.note_newest(0, 1, &of_topic(2), 0), Ok(()));
    }

    #[test]
    fn two_leaders_of_one_topic_and_an_older_epoch_are_seen() {
        let mut epochs = Epochs::default();
        assert_eq!(epochs.note_leader(0, &of_topic(1), 0), Ok(()));
        assert!(epochs.note_leader(1, &of_topic(1), 0).is_err());
        assert_eq!(epochs.note_newest(0, 1, &of_topic(1), 3), Ok(()));
        assert!(epochs.note_newest(0, 1, &of_topic(1), 2).is_err());
    }
}
