//! Computes the record for a change of a partition: assignment, ISR, eligible leader replicas and
//! leader together.
//!
//! Source: Kafka's PartitionChangeBuilder; KIP-704 (recovery after unclean election), KIP-966
//! (eligible leader replicas).

use crate::machines::metadata::image::{
    LeaderRecoveryState, NO_LEADER_CHANGE, PartitionRegistration, numbers,
};
use ottla_protocol::metadata::PartitionChangeRecord;
use ottla_protocol::{BrokerId, MetadataRecord, TopicId};
use uuid::Uuid;

/// What kind of leader will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Election {
    /// The preferred replica when it can lead, else any that can.
    Preferred,
    /// The present leader when it can go on, else any that can.
    Online,
    /// Any replica that is alive when none that can lead is.
    Unclean,
}

/// What holds for the partition's topic and cluster.
pub(super) struct Circumstances<'a> {
    /// Whether a broker may lead now.
    pub may_lead: &'a dyn Fn(BrokerId) -> bool,
    /// The directory for a replica that has none yet.
    pub default_directory: &'a dyn Fn(BrokerId) -> Uuid,
    /// `min.insync.replicas` of the topic, at most the replication factor.
    pub min_isr: usize,
    /// Whether eligible leader replicas are kept (KIP-966).
    pub elr_enabled: bool,
}

/// The change to be made; starts as "nothing changes".
pub(super) struct PartitionChange<'a> {
    partition: &'a PartitionRegistration,
    circumstances: Circumstances<'a>,
    /// The ISR wanted.
    pub isr: Vec<BrokerId>,
    /// The replicas wanted.
    pub replicas: Vec<BrokerId>,
    /// Replicas that a reassignment takes away.
    pub removing: Vec<BrokerId>,
    /// Replicas that a reassignment adds.
    pub adding: Vec<BrokerId>,
    /// A replica that came back without what it had not synced.
    pub unclean_shutdown: Option<BrokerId>,
    /// The log directory that a replica is in now.
    pub assigned: Option<(BrokerId, Uuid)>,
    /// How a leader is chosen.
    pub election: Election,
    /// The recovery state wanted.
    pub recovery: LeaderRecoveryState,
    elr: Vec<BrokerId>,
}

impl<'a> PartitionChange<'a> {
    pub(super) fn new(
        partition: &'a PartitionRegistration,
        circumstances: Circumstances<'a>,
    ) -> Self {
        PartitionChange {
            partition,
            circumstances,
            isr: partition.isr.clone(),
            replicas: partition.replicas.clone(),
            removing: partition.removing_replicas.clone(),
            adding: partition.adding_replicas.clone(),
            unclean_shutdown: None,
            assigned: None,
            election: Election::Online,
            recovery: partition.leader_recovery_state,
            elr: partition.elr.clone(),
        }
    }

    /// The record, unless nothing changes.
    pub(super) fn build(mut self, topic_id: TopicId, index: i32) -> Option<MetadataRecord> {
        let mut record =
            PartitionChangeRecord { topic_id, partition_id: index, ..Default::default() };
        let unchanged = record.clone();
        self.complete_reassignment();
        self.update_elr();
        self.elect(&mut record);
        let lost_replica = self.partition.replicas.iter().any(|id| !self.replicas.contains(id));
        if record.leader == NO_LEADER_CHANGE && lost_replica {
            // Naming the leader again raises the leader epoch, which fences the replica that goes.
            record.leader = self.partition.leader.0;
        }
        self.write_isr_and_elr(&mut record);
        self.write_last_known_leader(&mut record);
        self.write_assignment(&mut record);
        if self.recovery != self.partition.leader_recovery_state {
            record.leader_recovery_state = self.recovery.id();
        }
        (record != unchanged).then_some(MetadataRecord::PartitionChange(record))
    }

    /// A reassignment is complete when all that are to stay are in sync.
    fn complete_reassignment(&mut self) {
        if self.adding.is_empty() && self.removing.is_empty() {
            return;
        }
        let keeps = |id: &BrokerId| !self.removing.contains(id);
        let isr: Vec<BrokerId> = self.isr.iter().copied().filter(|id| keeps(id)).collect();
        if isr.is_empty() || self.adding.iter().any(|id| !isr.contains(id)) {
            return;
        }
        let replicas: Vec<BrokerId> =
            self.replicas.iter().copied().filter(|id| keeps(id)).collect();
        self.isr = isr;
        self.replicas = replicas;
        self.removing.clear();
        self.adding.clear();
    }

    fn update_elr(&mut self) {
        if !self.circumstances.elr_enabled {
            return;
        }
        if self.isr.len() >= self.circumstances.min_isr {
            self.elr.clear();
            return;
        }
        let mut elr: Vec<BrokerId> = self.elr.iter().chain(&self.partition.isr).copied().collect();
        elr.sort_unstable();
        elr.dedup();
        elr.retain(|id| !self.isr.contains(id) && self.unclean_shutdown != Some(*id));
        self.elr = elr;
    }

    fn can_lead(&self, id: BrokerId) -> bool {
        let eligible = self.isr.contains(&id) || (self.isr.is_empty() && self.elr.contains(&id));
        eligible && (self.circumstances.may_lead)(id)
    }

    /// The leader, and whether electing it is unclean.
    fn choose_leader(&self) -> (BrokerId, bool) {
        let preferred = self.replicas.first().copied().filter(|id| self.can_lead(*id));
        if let (Election::Preferred, Some(leader)) = (self.election, preferred) {
            return (leader, false);
        }
        if self.can_lead(self.partition.leader) {
            return (self.partition.leader, false);
        }
        if let Some(leader) = self.replicas.iter().copied().find(|id| self.can_lead(*id)) {
            return (leader, false);
        }
        if let Some(leader) = self.last_known_leader() {
            return (leader, true);
        }
        let alive = self.replicas.iter().copied().find(|id| (self.circumstances.may_lead)(*id));
        match (self.election, alive) {
            (Election::Unclean, Some(leader)) => (leader, true),
            _ => (BrokerId::NONE, false),
        }
    }

    /// When all eligible replicas are gone, the last leader may lead again once it is back
    /// (KIP-966).
    fn last_known_leader(&self) -> Option<BrokerId> {
        let usable = self.circumstances.elr_enabled && self.elr.is_empty() && self.isr.is_empty();
        match self.partition.last_known_elr[..] {
            [leader] if usable && (self.circumstances.may_lead)(leader) => Some(leader),
            _ => None,
        }
    }

    fn elect(&mut self, record: &mut PartitionChangeRecord) {
        let (leader, unclean) = self.choose_leader();
        if leader == self.partition.leader {
            return;
        }
        if self.elr.contains(&leader) {
            self.isr = vec![leader];
            self.elr.retain(|id| *id != leader);
        }
        record.leader = leader.0;
        if unclean {
            record.isr = Some(vec![leader.0]);
            if self.partition.leader_recovery_state != LeaderRecoveryState::Recovering {
                record.leader_recovery_state = LeaderRecoveryState::Recovering.id();
            }
        }
    }

    fn write_isr_and_elr(&mut self, record: &mut PartitionChangeRecord) {
        if record.isr.is_some() || !self.circumstances.elr_enabled {
            self.elr.clear();
        }
        if self.elr != self.partition.elr {
            record.eligible_leader_replicas = Some(numbers(&self.elr));
        }
        let may_be_empty = self.circumstances.elr_enabled;
        if record.isr.is_none()
            && (may_be_empty || !self.isr.is_empty())
            && self.isr != self.partition.isr
        {
            record.isr = Some(numbers(&self.isr));
        }
    }

    fn write_last_known_leader(&self, record: &mut PartitionChangeRecord) {
        if !self.circumstances.elr_enabled {
            return;
        }
        let leader = self.partition.leader;
        let isr_becomes_empty = record.isr.as_ref().is_some_and(Vec::is_empty);
        if isr_becomes_empty && self.partition.last_known_elr != [leader] {
            record.last_known_elr = Some(vec![leader.0]);
        } else if !self.partition.last_known_elr.is_empty()
            && (record.leader >= 0
                || (leader != BrokerId::NONE && record.leader != BrokerId::NONE.0))
        {
            record.last_known_elr = Some(Vec::new());
        }
    }

    fn write_assignment(&self, record: &mut PartitionChangeRecord) {
        let partition = self.partition;
        let directories: Vec<Uuid> = self
            .replicas
            .iter()
            .map(|id| match self.assigned {
                Some((assigned, directory)) if assigned == *id => directory,
                _ if partition.replicas.contains(id) => partition.directory_of(*id),
                _ => (self.circumstances.default_directory)(*id),
            })
            .collect();
        if directories != partition.directories {
            record.directories = Some(directories);
        }
        if self.replicas != partition.replicas {
            record.replicas = Some(numbers(&self.replicas));
        }
        if self.removing != partition.removing_replicas {
            record.removing_replicas = Some(numbers(&self.removing));
        }
        if self.adding != partition.adding_replicas {
            record.adding_replicas = Some(numbers(&self.adding));
        }
    }
}
