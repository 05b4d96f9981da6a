//! Leader elections on request, reassignments of replicas, and ISR changes that leaders ask for.
//!
//! Source: KIP-455 (reassignment), KIP-460 (elections), KIP-497 (AlterPartition), KIP-860
//! (replication factor).

use super::partition_change::Election;
use super::{ApiError, Controller, ControllerReply, Decision};
use crate::machines::metadata::image::{LeaderRecoveryState, PartitionRegistration, TopicImage};
use ottla_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use ottla_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use ottla_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterPartitionRequest,
    AlterPartitionResponse, ElectLeadersRequest, ElectLeadersResponse, alter_partition_request,
    alter_partition_response,
};
use ottla_protocol::{BrokerEpoch, BrokerId, ErrorCode, MetadataRecord, Timestamp};

/// Leaders that are elected in one batch when nobody asked for it.
const ELECTED_AT_ONCE: usize = 1000;

impl Controller {
    pub(super) fn elect_leaders(&self, request: &ElectLeadersRequest) -> Decision {
        let election = match request.election_type {
            0 => Election::Preferred,
            1 => Election::Unclean,
            _ => {
                let error_code = ErrorCode::InvalidRequest.code();
                let response = ElectLeadersResponse { error_code, ..Default::default() };
                return (Vec::new(), ControllerReply::ElectLeaders(response));
            }
        };
        let mut records = Vec::new();
        let replica_election_results = match &request.topic_partitions {
            Some(topics) => topics
                .iter()
                .map(|topic| ReplicaElectionResult {
                    topic: topic.topic.clone(),
                    partition_result: topic
                        .partitions
                        .iter()
                        .map(|index| {
                            let outcome = self.elect_leader(&topic.topic, *index, election);
                            election_result(*index, outcome, &mut records)
                        })
                        .collect(),
                })
                .collect(),
            None => self.elect_all_leaders(election, &mut records),
        };
        let response = ElectLeadersResponse { replica_election_results, ..Default::default() };
        (records, ControllerReply::ElectLeaders(response))
    }

    /// Partitions that already have the leader wanted are left out of the answer.
    fn elect_all_leaders(
        &self,
        election: Election,
        records: &mut Vec<MetadataRecord>,
    ) -> Vec<ReplicaElectionResult> {
        let mut results = Vec::new();
        for topic in self.image.topics.iter() {
            let mut partition_result = Vec::new();
            for index in topic.partitions.keys() {
                let outcome = self.elect_leader(&topic.name, *index, election);
                let needed =
                    outcome.as_ref().err().is_none_or(|e| e.code != ErrorCode::ElectionNotNeeded);
                if needed {
                    partition_result.push(election_result(*index, outcome, records));
                }
            }
            results.push(ReplicaElectionResult { topic: topic.name.to_string(), partition_result });
        }
        results
    }

    fn elect_leader(
        &self,
        name: &str,
        index: i32,
        election: Election,
    ) -> Result<MetadataRecord, ApiError> {
        let unknown = |text: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, text);
        let topic = self.image.topics.get(name);
        let topic = topic.ok_or_else(|| unknown(format!("No such topic as {name}")))?;
        let partition = topic.partition(index);
        let partition =
            partition.ok_or_else(|| unknown(format!("No such partition as {name}-{index}")))?;
        let has_it = match election {
            Election::Preferred => partition.leader == partition.preferred_leader(),
            _ => partition.has_leader(),
        };
        if has_it {
            return Err(ErrorCode::ElectionNotNeeded.into());
        }
        let none = match election {
            Election::Preferred => ErrorCode::PreferredLeaderNotAvailable,
            _ => ErrorCode::EligibleLeadersNotAvailable,
        };
        self.change_partition_now(topic, index, |change| change.election = election)
            .ok_or_else(|| none.into())
    }

    /// Leaders go back to the first replicas that are in sync again, as `auto.leader.rebalance.enable` says.
    pub(super) fn rebalance_leaders(&mut self, now: Timestamp) -> Vec<MetadataRecord> {
        let due = self.next_rebalance.is_some_and(|due| due <= now);
        let Some(interval_ms) = self.settings.rebalance_interval_ms.filter(|_| due) else {
            return Vec::new();
        };
        let is_away = |_: &TopicImage, partition: &PartitionRegistration| {
            partition.leader != partition.preferred_leader() && partition.has_leader()
        };
        let records = self.elect_where(Election::Preferred, is_away);
        self.next_rebalance = Some(after(now, interval_ms, &records));
        records
    }

    /// Partitions that lost their leader before their topic allowed one that is not in sync get it now, as
    /// `unclean.leader.election.interval.ms` says.
    pub(super) fn elect_unclean_leaders(&mut self, now: Timestamp) -> Vec<MetadataRecord> {
        if self.next_unclean.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let records = self.elect_where(Election::Unclean, |topic, partition| {
            !partition.has_leader() && self.unclean_allowed(&topic.name)
        });
        self.next_unclean = Some(after(now, self.settings.unclean_interval_ms, &records));
        records
    }

    /// Elects leaders of the partitions that are `wanted`, where one can lead; a bounded number.
    fn elect_where(
        &self,
        election: Election,
        wanted: impl Fn(&TopicImage, &PartitionRegistration) -> bool,
    ) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for topic in self.image.topics.iter() {
            for (index, partition) in topic.partitions.iter() {
                if records.len() >= ELECTED_AT_ONCE {
                    return records;
                }
                if wanted(topic, partition) {
                    records.extend(self.elect_leader(&topic.name, *index, election));
                }
            }
        }
        records
    }

    pub(super) fn alter_partition_reassignments(
        &self,
        request: &AlterPartitionReassignmentsRequest,
    ) -> Decision {
        let mut records = Vec::new();
        let responses = request
            .topics
            .iter()
            .map(|topic| ReassignableTopicResponse {
                name: topic.name.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .map(|target| {
                        let allow = request.allow_replication_factor_change;
                        let error = match self.reassign(&topic.name, target, allow) {
                            Ok(record) => {
                                records.extend(record);
                                ErrorCode::None.into()
                            }
                            Err(error) => error,
                        };
                        ReassignablePartitionResponse {
                            partition_index: target.partition_index,
                            error_code: error.code.code(),
                            error_message: error.message,
                        }
                    })
                    .collect(),
            })
            .collect();
        let response = AlterPartitionReassignmentsResponse {
            allow_replication_factor_change: request.allow_replication_factor_change,
            responses,
            error_message: None,
            ..Default::default()
        };
        (records, ControllerReply::AlterPartitionReassignments(response))
    }

    fn reassign(
        &self,
        name: &str,
        target: &ReassignablePartition,
        allow_replication_factor_change: bool,
    ) -> Result<Option<MetadataRecord>, ApiError> {
        let index = target.partition_index;
        let unknown = |text: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, text);
        let topic = self.image.topics.get(name);
        let topic =
            topic.ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
        let partition = topic.partition(index);
        let partition = partition
            .ok_or_else(|| unknown(format!("Unable to find partition {name}:{index}.")))?;
        let Some(replicas) = &target.replicas else {
            return self.cancel_reassignment(topic, index, partition);
        };
        self.check_assignment(replicas, None)?;
        let replicas: Vec<BrokerId> = replicas.iter().copied().map(BrokerId).collect();
        let before = original_replicas(partition).len();
        if !allow_replication_factor_change && before != replicas.len() {
            let text =
                format!("The replication factor is changed from {before} to {}", replicas.len());
            return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, text));
        }
        let difference = |a: &[BrokerId], b: &[BrokerId]| {
            let mut only: Vec<BrokerId> = a.iter().copied().filter(|id| !b.contains(id)).collect();
            only.sort_unstable();
            only
        };
        let removing = difference(&partition.replicas, &replicas);
        let adding = difference(&replicas, &partition.replicas);
        Ok(self.change_partition_now(topic, index, |change| {
            change.replicas = replicas.iter().chain(&removing).copied().collect();
            if !removing.is_empty() {
                change.removing = removing;
            }
            if !adding.is_empty() {
                change.adding = adding;
            }
        }))
    }

    fn cancel_reassignment(
        &self,
        topic: &TopicImage,
        index: i32,
        partition: &PartitionRegistration,
    ) -> Result<Option<MetadataRecord>, ApiError> {
        if !partition.is_reassigning() {
            // Kafka sends no text with this one.
            return Err(ApiError { code: ErrorCode::NoReassignmentInProgress, message: None });
        }
        let replicas = original_replicas(partition);
        let mut isr = partition.isr.clone();
        isr.retain(|id| !partition.adding_replicas.contains(id));
        if isr.is_empty() {
            let Some(first) = replicas.first().filter(|_| self.unclean_allowed(&topic.name)) else {
                let text = format!(
                    "Unable to revert partition assignment for {}:{index} because it would require \
                     an unclean leader election.",
                    topic.name
                );
                return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, text));
            };
            isr.push(*first);
        }
        Ok(self.change_partition_now(topic, index, |change| {
            change.isr = isr;
            change.replicas = replicas;
            change.removing.clear();
            change.adding.clear();
        }))
    }

    pub(super) fn alter_partition(&self, request: &AlterPartitionRequest) -> Decision {
        let leader = BrokerId(request.broker_id);
        if let Err(error) = self.broker_in_epoch(leader, BrokerEpoch(request.broker_epoch)) {
            let error_code = error.code.code();
            let response = AlterPartitionResponse { error_code, ..Default::default() };
            return (Vec::new(), ControllerReply::AlterPartition(response));
        }
        let mut records = Vec::new();
        let topics = request
            .topics
            .iter()
            .map(|data| alter_partition_response::TopicData {
                topic_id: data.topic_id,
                partitions: data
                    .partitions
                    .iter()
                    .map(|wanted| {
                        let topic = self.image.topics.get_by_id(&data.topic_id);
                        let outcome = match topic {
                            Some(topic) => self.alter_one(leader, topic, wanted, &mut records),
                            None => Err(ErrorCode::UnknownTopicId),
                        };
                        outcome.unwrap_or_else(|error| alter_partition_response::PartitionData {
                            partition_index: wanted.partition_index,
                            error_code: error.code(),
                            ..Default::default()
                        })
                    })
                    .collect(),
            })
            .collect();
        let response = AlterPartitionResponse { topics, ..Default::default() };
        (records, ControllerReply::AlterPartition(response))
    }

    fn alter_one(
        &self,
        leader: BrokerId,
        topic: &TopicImage,
        wanted: &alter_partition_request::PartitionData,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<alter_partition_response::PartitionData, ErrorCode> {
        let index = wanted.partition_index;
        let partition = topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let isr = wanted_isr(wanted);
        check_alter_partition(leader, partition, wanted, &isr)?;
        let may_join = |(id, epoch): &(BrokerId, i64)| {
            self.may_join_isr(*id, *epoch) && self.image.cluster.has_directory_of(partition, *id)
        };
        if !isr.iter().all(may_join) {
            return Err(ErrorCode::IneligibleReplica);
        }
        let recovery = LeaderRecoveryState::from_id(wanted.leader_recovery_state);
        let change = self.change_partition_now(topic, index, |change| {
            change.isr = isr.iter().map(|(id, _)| *id).collect();
            change.recovery = recovery.unwrap_or(partition.leader_recovery_state);
        });
        let after = match &change {
            Some(MetadataRecord::PartitionChange(record)) => partition.merge(record),
            _ => PartitionRegistration::clone(partition),
        };
        records.extend(change);
        if after.leader != leader && partition.leader == leader {
            return Err(ErrorCode::NewLeaderElected);
        }
        Ok(alter_partition_response::PartitionData {
            partition_index: index,
            error_code: 0,
            leader_id: after.leader.0,
            leader_epoch: after.leader_epoch.0,
            isr: after.isr.iter().map(|id| id.0).collect(),
            leader_recovery_state: after.leader_recovery_state.id(),
            partition_epoch: after.partition_epoch,
        })
    }

    /// A fenced broker, or one that has started anew since the leader saw it, may not be in the ISR
    /// (KIP-841, KIP-903). Nor may a replica in a log directory that is offline, which the leader need not know.
    fn may_join_isr(&self, id: BrokerId, epoch: i64) -> bool {
        self.image
            .cluster
            .brokers
            .get(&id)
            .is_some_and(|broker| broker.is_active() && (epoch == -1 || broker.epoch.0 == epoch))
    }
}

/// The replicas before the reassignment that is under way.
fn original_replicas(partition: &PartitionRegistration) -> Vec<BrokerId> {
    let mut replicas = partition.replicas.clone();
    replicas.retain(|id| !partition.adding_replicas.contains(id));
    replicas
}

fn wanted_isr(wanted: &alter_partition_request::PartitionData) -> Vec<(BrokerId, i64)> {
    if wanted.new_isr_with_epochs.is_empty() {
        return wanted.new_isr.iter().map(|id| (BrokerId(*id), -1)).collect();
    }
    wanted
        .new_isr_with_epochs
        .iter()
        .map(|state| (BrokerId(state.broker_id), state.broker_epoch))
        .collect()
}

fn check_alter_partition(
    leader: BrokerId,
    partition: &PartitionRegistration,
    wanted: &alter_partition_request::PartitionData,
    isr: &[(BrokerId, i64)],
) -> Result<(), ErrorCode> {
    let epoch = partition.leader_epoch.0;
    if wanted.leader_epoch > epoch || wanted.partition_epoch > partition.partition_epoch {
        // The leader has heard of more than we have: we are no longer the controller.
        return Err(ErrorCode::NotController);
    }
    if wanted.leader_epoch < epoch {
        return Err(ErrorCode::FencedLeaderEpoch);
    }
    if partition.leader != leader {
        return Err(ErrorCode::InvalidRequest);
    }
    if wanted.partition_epoch < partition.partition_epoch {
        return Err(ErrorCode::InvalidUpdateVersion);
    }
    let is_replica = |(id, _): &(BrokerId, i64)| partition.replicas.contains(id);
    let recovering = LeaderRecoveryState::from_id(wanted.leader_recovery_state)
        == Some(LeaderRecoveryState::Recovering);
    let invalid = isr.is_empty()
        || !isr.iter().all(is_replica)
        || !isr.iter().any(|(id, _)| *id == leader)
        || (recovering && isr.len() > 1)
        || (recovering && partition.leader_recovery_state == LeaderRecoveryState::Recovered);
    if invalid { Err(ErrorCode::InvalidRequest) } else { Ok(()) }
}

/// When elections that nobody asked for go on: after the interval, or with the next tick, so that others get in
/// between, while there is more of them to do.
fn after(now: Timestamp, interval_ms: i64, elected: &[MetadataRecord]) -> Timestamp {
    now.plus_ms(if elected.len() < ELECTED_AT_ONCE { interval_ms } else { 0 })
}

fn election_result(
    partition_id: i32,
    outcome: Result<MetadataRecord, ApiError>,
    records: &mut Vec<MetadataRecord>,
) -> PartitionResult {
    let error = match outcome {
        Ok(record) => {
            records.push(record);
            ErrorCode::None.into()
        }
        Err(error) => error,
    };
    PartitionResult { partition_id, error_code: error.code.code(), error_message: error.message }
}
