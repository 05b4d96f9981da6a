//! The group coordinators of this broker: one group machine for each partition of `__consumer_offsets` that it
//! leads.
//!
//! Elected is not ready: a coordinator answers only after it has replayed its whole partition; until then
//! callers get COORDINATOR_LOAD_IN_PROGRESS, which clients retry.

use super::host::{Host, HostError, Stage};
use super::partition::Partition;
use super::replay::ReplayError;
use crate::env::Clock;
use crate::log::AppendOrigin;
use crate::machines::group::{
    GroupConfig, GroupEffect, GroupMachine, GroupRecord, GroupRequest, GroupResponse,
};
use crate::machines::{Entry, Machine, RequestId};
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::record::{BatchBuilder, BatchParams, decode_records};
use ottla_protocol::records::control::ControlRecord;
use ottla_protocol::records::group::GroupReaders;
use ottla_protocol::{ErrorCode, LeaderEpoch, Offset, Timestamp, TopicId, WireError};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Records of `__consumer_offsets` are ours or Kafka's; a batch never expands beyond this.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// Where a group machine writes.
pub struct GroupStage {
    partition: Arc<Partition>,
    /// The coordinator was elected in this epoch.
    leader_epoch: LeaderEpoch,
    readers: GroupReaders,
}

impl Stage for GroupStage {
    type Machine = GroupMachine;
    type Reply = GroupResponse;

    fn append(&self, now: Timestamp, records: &[GroupRecord]) -> Result<Offset, HostError> {
        let mut batch = BatchBuilder::new(BatchParams::default());
        for record in records {
            let (key, value) = record.encode_for(self.readers);
            batch.push(now, Some(&key), value.as_deref(), &[]);
        }
        let bytes = batch.build().freeze();
        match self.partition.append(bytes, -1, AppendOrigin::Coordinator) {
            Ok(info) => Ok(info.first_offset),
            Err(error) => {
                tracing::error!(partition = ?self.partition, %error, "group records not written");
                Err(HostError::NotActive)
            }
        }
    }

    fn committed(&self) -> Offset {
        self.partition.high_watermark()
    }

    fn commit_moved(&self) -> impl Future<Output = ()> + Send {
        self.partition.changed()
    }

    fn is_lost(&self) -> bool {
        self.partition.is_offline() || !self.partition.has_led_since(self.leader_epoch)
    }

    fn publish(&self, _machine: &mut GroupMachine) {}

    fn perform(&self, effect: GroupEffect) -> Option<(RequestId, GroupResponse)> {
        let GroupEffect::Reply(id, response) = effect;
        Some((id, response))
    }
}

enum Slot {
    Loading(LeaderEpoch),
    Active(Arc<Host<GroupStage>>),
}

impl Slot {
    fn leader_epoch(&self) -> LeaderEpoch {
        match self {
            Slot::Loading(leader_epoch) => *leader_epoch,
            Slot::Active(host) => host.stage().leader_epoch,
        }
    }

    fn is_loading(&self, leader_epoch: LeaderEpoch) -> bool {
        matches!(self, Slot::Loading(epoch) if *epoch == leader_epoch)
    }
}

/// All group coordinators of this broker.
pub struct Groups {
    clock: Arc<dyn Clock>,
    config: GroupConfig,
    readers: GroupReaders,
    slots: RwLock<BTreeMap<i32, Slot>>,
}

impl Groups {
    /// No coordinator yet.
    pub fn new(clock: Arc<dyn Clock>, config: GroupConfig, readers: GroupReaders) -> Arc<Self> {
        Arc::new(Groups { clock, config, readers, slots: RwLock::new(BTreeMap::new()) })
    }

    /// Loads the coordinator of a partition that this broker has begun to lead.
    pub fn elect(self: &Arc<Self>, partition: Arc<Partition>) {
        let (index, leader_epoch) = (partition.index(), partition.leader_epoch());
        {
            let mut slots = self.slots.write();
            // While it goes on leading, a new epoch changes nothing for the coordinator.
            if slots.get(&index).is_some_and(|slot| partition.has_led_since(slot.leader_epoch())) {
                return;
            }
            if let Some(Slot::Active(host)) = slots.insert(index, Slot::Loading(leader_epoch)) {
                host.resign();
            }
        }
        if partition.log_end_offset() == partition.log_start_offset() {
            self.activate(partition, leader_epoch, GroupMachine::new(self.config.clone()));
            return;
        }
        let groups = Arc::clone(self);
        crate::env::blocking(move || match load(&partition, groups.config.clone()) {
            Ok(machine) => groups.activate(partition, leader_epoch, machine),
            Err(error) => {
                tracing::error!(?partition, %error, "group coordinator not loaded");
                let mut slots = groups.slots.write();
                if slots.get(&index).is_some_and(|slot| slot.is_loading(leader_epoch)) {
                    slots.remove(&index);
                }
            }
        });
    }

    /// What it has read may not be committed yet: nobody hears of it before the high watermark has passed it.
    fn activate(
        &self,
        partition: Arc<Partition>,
        leader_epoch: LeaderEpoch,
        machine: GroupMachine,
    ) {
        let index = partition.index();
        let end = partition.log_end_offset();
        let stage = GroupStage { partition, leader_epoch, readers: self.readers };
        let host = Host::new(stage, Arc::clone(&self.clock), machine, end);
        let mut slots = self.slots.write();
        // Leadership may have gone, and even come back, while the log was read.
        if let Some(slot) = slots.get_mut(&index)
            && slot.is_loading(leader_epoch)
        {
            *slot = Slot::Active(Arc::clone(&host));
            tokio::spawn(host.run());
        }
    }

    /// Drops the coordinator that was elected before this epoch, unless it has led ever since.
    pub fn resign_before(&self, index: i32, leader_epoch: LeaderEpoch) {
        let mut slots = self.slots.write();
        let has_lost = |slot: &Slot| match slot {
            Slot::Loading(elected) => *elected < leader_epoch,
            Slot::Active(host) => host.stage().is_lost(),
        };
        if slots.get(&index).is_some_and(has_lost)
            && let Some(Slot::Active(host)) = slots.remove(&index)
        {
            host.resign();
        }
    }

    /// Drops the coordinator of a partition that this broker no longer leads.
    pub fn resign(&self, index: i32) {
        if let Some(Slot::Active(host)) = self.slots.write().remove(&index) {
            host.resign();
        }
    }

    /// Drops all coordinators: the broker stops.
    pub fn stop(&self) {
        let indexes: Vec<i32> = self.slots.read().keys().copied().collect();
        for index in indexes {
            self.resign(index);
        }
    }

    fn host(&self, index: i32) -> Result<Arc<Host<GroupStage>>, ErrorCode> {
        match self.slots.read().get(&index) {
            Some(Slot::Active(host)) => Ok(Arc::clone(host)),
            Some(Slot::Loading(_)) => Err(ErrorCode::CoordinatorLoadInProgress),
            None => Err(ErrorCode::NotCoordinator),
        }
    }

    /// Puts a request to the coordinator of one partition.
    ///
    /// # Errors
    /// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS.
    pub async fn call(
        self: &Arc<Self>,
        index: i32,
        request: GroupRequest,
    ) -> Result<GroupResponse, ErrorCode> {
        let host = self.host(index)?;
        match host.call(request).await {
            Ok(response) => Ok(response),
            Err(_) => {
                self.reload(index, &host);
                Err(ErrorCode::NotCoordinator)
            }
        }
    }

    /// A machine whose append failed has been dropped; it is loaded anew while the partition still leads.
    fn reload(self: &Arc<Self>, index: i32, failed: &Arc<Host<GroupStage>>) {
        {
            let mut slots = self.slots.write();
            let is_same =
                matches!(slots.get(&index), Some(Slot::Active(host)) if Arc::ptr_eq(host, failed));
            if !is_same || failed.with(|_| ()).is_ok() {
                return;
            }
            slots.remove(&index);
        }
        let partition = &failed.stage().partition;
        if partition.is_leader() && !partition.is_gone() {
            self.elect(Arc::clone(partition));
        }
    }

    /// Lets the coordinators forget the offsets committed for topics that are gone. One that is loading meanwhile keeps
    /// them until they expire, as in Kafka.
    pub fn topics_deleted(&self, topics: Vec<(String, TopicId)>) {
        if topics.is_empty() {
            return;
        }
        let slots = self.slots.read();
        for slot in slots.values() {
            let Slot::Active(host) = slot else { continue };
            let host = Arc::clone(host);
            let request = GroupRequest::TopicsDeleted(topics.clone());
            // Nobody waits for it: a coordinator that has gone meanwhile has nothing to forget.
            tokio::spawn(async move { host.call(request).await.is_ok() });
        }
    }

    /// The partitions whose coordinator is here, loading ones too.
    pub fn indexes(&self) -> Vec<i32> {
        self.slots.read().keys().copied().collect()
    }
}

fn load(partition: &Partition, config: GroupConfig) -> Result<GroupMachine, ReplayError> {
    let mut loading = Loading { machine: GroupMachine::new(config), pending: BTreeMap::new() };
    partition.replay(|header, batch| loading.replay(header, batch))?;
    Ok(loading.machine)
}

/// A coordinator on its way. Offsets that a transaction committed count from its commit marker on, in the order of
/// their own offsets, and are dropped with an abort marker or when the marker is still to come (KIP-98).
struct Loading {
    machine: GroupMachine,
    pending: BTreeMap<i64, Vec<Entry<GroupRecord>>>,
}

impl Loading {
    fn replay(&mut self, header: &BatchHeader, batch: &bytes::Bytes) -> Result<(), ReplayError> {
        let records = decode_records(header, batch, BATCH_BYTES_MAX)
            .map_err(|cause| ReplayError::Batch { offset: header.base_offset, cause })?;
        for record in records {
            let offset = record.offset(header);
            let timestamp = record.timestamp(header);
            let damaged =
                |cause: WireError| ReplayError::Record { offset, cause: cause.to_string() };
            let Some(key) = record.key else { continue };
            if header.is_control() {
                let value = record.value.unwrap_or_default();
                let marker = ControlRecord::decode(&key, &value).map_err(damaged)?;
                let entries = self.pending.remove(&header.producer_id.0).unwrap_or_default();
                if let ControlRecord::Commit(_) = marker {
                    entries.iter().for_each(|entry| self.machine.replay(entry));
                }
                continue;
            }
            let record = GroupRecord::decode(&key, record.value.as_ref()).map_err(damaged)?;
            let entry = Entry { offset, timestamp, record };
            if header.is_transactional() {
                self.pending.entry(header.producer_id.0).or_default().push(entry);
            } else {
                self.machine.replay(&entry);
            }
        }
        Ok(())
    }
}
