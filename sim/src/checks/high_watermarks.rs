//! The high watermark never goes back while a replica leads in one epoch.

use super::{Finding, PartitionId, Replica};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct HighWatermarks {
    /// By machine, life, partition and leader epoch.
    highest: BTreeMap<(usize, u64, PartitionId, i32), i64>,
}

impl HighWatermarks {
    pub(super) fn look(&mut self, replicas: &[Replica]) -> Finding {
        for it in replicas.iter().filter(|it| it.partition.is_leader()) {
            let epoch = it.partition.leader_epoch().0;
            let now = it.partition.high_watermark().0;
            let key = (it.machine, it.life, it.id.clone(), epoch);
            let highest = self.highest.entry(key).or_insert(now);
            if now < *highest {
                return Err(format!(
                    "high watermark of {:?}, led by machine {} in epoch {epoch}, went from {highest} to {now}",
                    it.id, it.machine
                ));
            }
            *highest = now;
        }
        Ok(())
    }
}
