//! One leader an epoch, of each partition and of the metadata quorum; and a process never takes an older epoch.

use super::{Finding, Replica};
use crate::history::Place;
use crate::world::World;
use std::collections::BTreeMap;

/// The name under which the quorum's leaders are kept.
const QUORUM: &str = "the quorum";

#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// By place and epoch: the machine that led.
    leaders: BTreeMap<(Place, i32), usize>,
    /// By machine, life and place.
    newest: BTreeMap<(usize, u64, Place), i32>,
}

impl Epochs {
    pub(super) fn look(&mut self, world: &World, replicas: &[Replica]) -> Finding {
        for it in replicas {
            let epoch = it.partition.leader_epoch().0;
            self.note_newest(it.machine, it.life, &it.place, epoch)?;
            if it.partition.is_leader() {
                self.note_leader(it.machine, &it.place, epoch)?;
            }
        }
        let place = (QUORUM.to_owned(), 0);
        for (at, machine) in world.machines.iter().enumerate() {
            let status = world.broker(at).and_then(|broker| broker.quorum_status());
            let Some(status) = status else { continue };
            self.note_newest(at, machine.lives, &place, status.leader_epoch.0)?;
            if status.leader_id.0 == machine.role.id {
                self.note_leader(at, &place, status.leader_epoch.0)?;
            }
        }
        Ok(())
    }

    fn note_newest(&mut self, machine: usize, life: u64, place: &Place, epoch: i32) -> Finding {
        let newest = self.newest.entry((machine, life, place.clone())).or_insert(epoch);
        if epoch < *newest {
            return Err(format!(
                "leader epoch of {place:?} on machine {machine} went from {newest} to {epoch}"
            ));
        }
        *newest = epoch;
        Ok(())
    }

    fn note_leader(&mut self, machine: usize, place: &Place, epoch: i32) -> Finding {
        let leader = *self.leaders.entry((place.clone(), epoch)).or_insert(machine);
        if leader != machine {
            return Err(format!(
                "two leaders of {place:?} in epoch {epoch}: machines {leader} and {machine}"
            ));
        }
        Ok(())
    }

    pub(super) fn seen(&self) -> usize {
        self.leaders.len()
    }
}
