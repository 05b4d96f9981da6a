//! Registrations, heartbeats and sessions of brokers, and blocks of producer ids.

use super::partitions::BrokerEvent;
use super::{ApiError, Controller, ControllerReply, Decision, Session};
use crate::machines::metadata::features::METADATA_VERSION;
use crate::machines::metadata::image::{
    BrokerRegistration, DIRECTORY_LOST, DIRECTORY_MIGRATING, DIRECTORY_UNASSIGNED, VersionRange,
};
use ottla_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, BrokerHeartbeatRequest,
    BrokerHeartbeatResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
    ControllerRegistrationRequest, ControllerRegistrationResponse, UnregisterBrokerRequest,
    UnregisterBrokerResponse,
};
use ottla_protocol::metadata::{
    BrokerRegistrationChangeRecord, ProducerIdsRecord, RegisterBrokerRecord,
    RegisterControllerRecord, UnregisterBrokerRecord, register_broker_record,
    register_controller_record,
};
use ottla_protocol::{BrokerEpoch, BrokerId, ErrorCode, MetadataRecord, ProducerId, Timestamp};
use uuid::Uuid;

/// Producer ids in a block.
const PRODUCER_ID_BLOCK: i32 = 1000;

impl Controller {
    pub(super) fn register_broker(
        &mut self,
        now: Timestamp,
        request: BrokerRegistrationRequest,
    ) -> Decision {
        let id = BrokerId(request.broker_id);
        let (records, response) = match self.registration_records(now, &request) {
            Ok((records, epoch)) => {
                self.touch(now, id, -1);
                (records, BrokerRegistrationResponse { broker_epoch: epoch, ..Default::default() })
            }
            Err(error) => {
                let error_code = error.code.code();
                (Vec::new(), BrokerRegistrationResponse { error_code, ..Default::default() })
            }
        };
        (records, ControllerReply::RegisterBroker(response))
    }

    fn registration_records(
        &self,
        now: Timestamp,
        request: &BrokerRegistrationRequest,
    ) -> Result<(Vec<MetadataRecord>, i64), ApiError> {
        let id = BrokerId(request.broker_id);
        self.check_registration(now, request)?;
        let existing = self.image.cluster.brokers.get(&id);
        let same_incarnation =
            existing.filter(|broker| broker.incarnation_id == request.incarnation_id);
        let mut records = Vec::new();
        if let (Some(broker), None) = (existing, same_incarnation) {
            // A broker that names its last epoch has stopped in order: what it had is on disk.
            let clean = broker.epoch.0 == request.previous_broker_epoch;
            let event = if clean || !self.elr_enabled() {
                BrokerEvent::Leaves(id)
            } else {
                BrokerEvent::LostTail(id)
            };
            self.partition_changes(event, &mut records);
        }
        let next_offset = self.image.offset.0 + 1 + records.len() as i64;
        let epoch = same_incarnation.map_or(next_offset, |broker| broker.epoch.0);
        records.push(MetadataRecord::RegisterBroker(RegisterBrokerRecord {
            broker_id: id.0,
            incarnation_id: request.incarnation_id,
            broker_epoch: epoch,
            end_points: request
                .listeners
                .iter()
                .map(|listener| register_broker_record::BrokerEndpoint {
                    name: listener.name.clone(),
                    host: listener.host.clone(),
                    port: listener.port,
                    security_protocol: listener.security_protocol,
                })
                .collect(),
            features: request
                .features
                .iter()
                .map(|feature| register_broker_record::BrokerFeature {
                    name: feature.name.clone(),
                    min_supported_version: feature.min_supported_version,
                    max_supported_version: feature.max_supported_version,
                })
                .collect(),
            rack: request.rack.clone(),
            fenced: same_incarnation.is_none_or(|broker| broker.fenced),
            in_controlled_shutdown: same_incarnation.is_some_and(|b| b.in_controlled_shutdown),
            log_dirs: request.log_dirs.clone(),
            cordoned_log_dirs: same_incarnation.and_then(|b| b.cordoned_log_dirs.clone()),
            is_migrating_zk_broker: false,
        }));
        Ok((records, epoch))
    }

    fn check_registration(
        &self,
        now: Timestamp,
        request: &BrokerRegistrationRequest,
    ) -> Result<(), ApiError> {
        if request.cluster_id != self.settings.cluster_id {
            return Err(ErrorCode::InconsistentClusterId.into());
        }
        let id = BrokerId(request.broker_id);
        let existing = self.image.cluster.brokers.get(&id);
        let session = self.sessions.get(&id);
        let other_lives = session.is_some_and(|it| it.expires > now && it.is_connected)
            && existing.is_some_and(|broker| broker.incarnation_id != request.incarnation_id);
        if other_lives && existing.is_some_and(|broker| !broker.in_controlled_shutdown) {
            return Err(ErrorCode::DuplicateBrokerRegistration.into());
        }
        if request.is_migrating_zk_broker {
            return Err(ErrorCode::BrokerIdNotRegistered.into());
        }
        self.check_log_dirs(id, &request.log_dirs)?;
        for (name, level) in &self.image.features.levels {
            let range = request.features.iter().find(|feature| feature.name == *name);
            let range = match range {
                Some(f) => {
                    VersionRange { min: f.min_supported_version, max: f.max_supported_version }
                }
                None if name == METADATA_VERSION => VersionRange { min: 1, max: 1 },
                None => VersionRange { min: 0, max: 0 },
            };
            if *level < range.min || *level > range.max {
                return Err(ErrorCode::UnsupportedVersion.into());
            }
        }
        Ok(())
    }

    fn check_log_dirs(&self, id: BrokerId, log_dirs: &[Uuid]) -> Result<(), ApiError> {
        let reserved = [DIRECTORY_UNASSIGNED, DIRECTORY_LOST, DIRECTORY_MIGRATING];
        let taken = |dir: &Uuid| {
            self.image.cluster.brokers.values().any(|b| b.id != id && b.log_dirs.contains(dir))
        };
        let bad = log_dirs.is_empty()
            || log_dirs.iter().any(|dir| reserved.contains(dir) || taken(dir))
            || !super::topics::duplicates(log_dirs.iter()).is_empty();
        if bad { Err(ErrorCode::InvalidRegistration.into()) } else { Ok(()) }
    }

    pub(super) fn register_controller(&self, request: &ControllerRegistrationRequest) -> Decision {
        let record = RegisterControllerRecord {
            controller_id: request.controller_id,
            incarnation_id: request.incarnation_id,
            zk_migration_ready: request.zk_migration_ready,
            end_points: request
                .listeners
                .iter()
                .map(|listener| register_controller_record::ControllerEndpoint {
                    name: listener.name.clone(),
                    host: listener.host.clone(),
                    port: listener.port,
                    security_protocol: listener.security_protocol,
                })
                .collect(),
            features: request
                .features
                .iter()
                .map(|feature| register_controller_record::ControllerFeature {
                    name: feature.name.clone(),
                    min_supported_version: feature.min_supported_version,
                    max_supported_version: feature.max_supported_version,
                })
                .collect(),
        };
        let response = ControllerRegistrationResponse::default();
        (
            vec![MetadataRecord::RegisterController(record)],
            ControllerReply::RegisterController(response),
        )
    }

    /// The registration, if `epoch` is its epoch.
    pub(super) fn broker_in_epoch(
        &self,
        id: BrokerId,
        epoch: BrokerEpoch,
    ) -> Result<&BrokerRegistration, ApiError> {
        let broker = self.image.cluster.brokers.get(&id).ok_or_else(|| {
            let text = format!("No broker registration found for broker id {id}");
            ApiError::new(ErrorCode::StaleBrokerEpoch, text)
        })?;
        if broker.epoch != epoch {
            let text =
                format!("Expected broker epoch {}, but got broker epoch {epoch}", broker.epoch);
            return Err(ApiError::new(ErrorCode::StaleBrokerEpoch, text));
        }
        Ok(broker)
    }

    pub(super) fn broker_heartbeat(
        &mut self,
        now: Timestamp,
        request: &BrokerHeartbeatRequest,
    ) -> Decision {
        let id = BrokerId(request.broker_id);
        let broker = match self.broker_in_epoch(id, BrokerEpoch(request.broker_epoch)) {
            Ok(broker) => broker.clone(),
            Err(error) => {
                let error_code = error.code.code();
                let response = BrokerHeartbeatResponse { error_code, ..Default::default() };
                return (Vec::new(), ControllerReply::BrokerHeartbeat(response));
            }
        };
        let is_caught_up = request.current_metadata_offset >= broker.epoch.0;
        let mut records = self.log_dir_changes(&broker, request);
        // One thing at a time: the next heartbeat's decision sees which directories are online.
        let (is_fenced, should_shut_down) = match records.is_empty() {
            true => self.next_broker_state(&broker, request, is_caught_up, &mut records),
            false => (broker.fenced, false),
        };
        self.touch(now, id, request.current_metadata_offset);
        let response = BrokerHeartbeatResponse {
            is_caught_up,
            is_fenced,
            should_shut_down,
            ..Default::default()
        };
        (records, ControllerReply::BrokerHeartbeat(response))
    }

    /// Whether the broker is fenced afterwards, and whether it may stop.
    fn next_broker_state(
        &self,
        broker: &BrokerRegistration,
        request: &BrokerHeartbeatRequest,
        is_caught_up: bool,
        records: &mut Vec<MetadataRecord>,
    ) -> (bool, bool) {
        let id = broker.id;
        if broker.fenced {
            if request.want_shut_down {
                return (true, true);
            }
            if request.want_fence || !is_caught_up {
                return (true, false);
            }
            records.push(registration_change(broker, |change| change.fenced = -1));
            self.partition_changes(BrokerEvent::Returns(id), records);
            return (false, false);
        }
        if request.want_fence && !broker.in_controlled_shutdown {
            self.fence(broker, records);
            return (true, request.want_shut_down);
        }
        if broker.in_controlled_shutdown || request.want_shut_down {
            if !self.has_successors(id) {
                // Nobody can take over: it need not wait.
                self.fence(broker, records);
                return (true, true);
            }
            if !broker.in_controlled_shutdown {
                records.push(registration_change(broker, |c| c.in_controlled_shutdown = 1));
                self.partition_changes(BrokerEvent::Leaves(id), records);
            }
            return (false, false);
        }
        (false, false)
    }

    /// Whether the broker leads partitions that another could lead.
    fn has_successors(&self, id: BrokerId) -> bool {
        let others = self.image.cluster.brokers.values().any(|b| b.id != id && b.is_active());
        others
            && self
                .image
                .topics
                .iter()
                .any(|topic| topic.partitions.values().any(|partition| partition.leader == id))
    }

    fn fence(&self, broker: &BrokerRegistration, records: &mut Vec<MetadataRecord>) {
        self.partition_changes(BrokerEvent::Leaves(broker.id), records);
        records.push(registration_change(broker, |change| change.fenced = 1));
    }

    fn touch(&mut self, now: Timestamp, id: BrokerId, metadata_offset: i64) {
        let expires = now.plus_ms(self.settings.session_timeout_ms);
        let session = Session { expires, metadata_offset, is_connected: true };
        self.sessions.insert(id, session);
    }

    /// The metadata offset that a broker told of in its last heartbeat.
    pub fn broker_metadata_offset(&self, id: BrokerId) -> Option<i64> {
        self.sessions.get(&id).map(|session| session.metadata_offset)
    }

    fn unfenced_sessions(&self) -> impl Iterator<Item = (&BrokerRegistration, Timestamp)> {
        let is_trusted =
            |id: &BrokerId| self.settings.trusts_own_broker && *id == self.settings.node_id;
        let ending = self.sessions.iter().filter(move |(id, _)| !is_trusted(id));
        ending.filter_map(|(id, session)| {
            let broker = self.image.cluster.brokers.get(id)?;
            (!broker.fenced).then_some((broker, session.expires))
        })
    }

    pub(super) fn next_session_end(&self) -> Option<Timestamp> {
        self.unfenced_sessions().map(|(_, expires)| expires).min()
    }

    /// This controller has become the active one: brokers have a whole session to find it.
    pub fn begin_sessions(&mut self, now: Timestamp) {
        let unfenced: Vec<BrokerId> = self.image.cluster.unfenced().map(|b| b.id).collect();
        self.sessions.clear();
        self.next_rebalance = self.settings.rebalance_interval_ms.map(|ms| now.plus_ms(ms));
        self.next_unclean = Some(now.plus_ms(self.settings.unclean_interval_ms));
        for id in unfenced {
            self.touch(now, id, -1);
            // It has not been heard by this controller: one that starts now with its id need not wait for it.
            if let Some(session) = self.sessions.get_mut(&id) {
                session.is_connected = false;
            }
        }
    }

    /// The connection that the broker's heartbeats came by has ended: another process may have its id at once. It is
    /// fenced no sooner for that, and its next heartbeat makes it good.
    pub fn note_disconnect(&mut self, id: BrokerId, epoch: BrokerEpoch) {
        let is_same = self.image.cluster.brokers.get(&id).is_some_and(|it| it.epoch == epoch);
        if is_same && let Some(session) = self.sessions.get_mut(&id) {
            session.is_connected = false;
        }
    }

    /// A broker that has gone need not be waited for. One that has registered anew since is another.
    pub(super) fn fence_broker(&mut self, id: BrokerId, epoch: BrokerEpoch) -> Decision {
        let mut records = Vec::new();
        let broker = match self.broker_in_epoch(id, epoch) {
            Ok(broker) => broker.clone(),
            Err(error) => return (records, ControllerReply::FenceBroker(Err(error.code))),
        };
        let is_new = !broker.fenced;
        if is_new {
            self.fence(&broker, &mut records);
        }
        // The next incarnation need not wait until the session of this one has ended.
        self.sessions.remove(&id);
        (records, ControllerReply::FenceBroker(Ok(is_new)))
    }

    /// One at a time, so that the next decision sees what this one did.
    pub(super) fn fence_one_silent_broker(&mut self, now: Timestamp) -> Vec<MetadataRecord> {
        let silent = self.unfenced_sessions().find(|(_, expires)| *expires <= now);
        let Some(broker) = silent.map(|(broker, _)| broker.clone()) else { return Vec::new() };
        let mut records = Vec::new();
        self.fence(&broker, &mut records);
        records
    }

    pub(super) fn unregister_broker(&mut self, request: &UnregisterBrokerRequest) -> Decision {
        let id = BrokerId(request.broker_id);
        let Some(broker) = self.image.cluster.brokers.get(&id) else {
            let response = UnregisterBrokerResponse {
                error_code: ErrorCode::BrokerIdNotRegistered.code(),
                error_message: Some(format!("Broker ID {id} is not currently registered")),
                ..Default::default()
            };
            return (Vec::new(), ControllerReply::UnregisterBroker(response));
        };
        let mut records = Vec::new();
        self.partition_changes(BrokerEvent::Leaves(id), &mut records);
        records.push(MetadataRecord::UnregisterBroker(UnregisterBrokerRecord {
            broker_id: id.0,
            broker_epoch: broker.epoch.0,
        }));
        self.sessions.remove(&id);
        (records, ControllerReply::UnregisterBroker(UnregisterBrokerResponse::default()))
    }

    pub(super) fn allocate_producer_ids(&self, request: &AllocateProducerIdsRequest) -> Decision {
        let id = BrokerId(request.broker_id);
        let epoch = BrokerEpoch(request.broker_epoch);
        let start = match self.image.next_producer_id {
            ProducerId::NONE => 0,
            ProducerId(next) => next,
        };
        let checked = self.broker_in_epoch(id, epoch).and_then(|_| {
            let next = start.checked_add(i64::from(PRODUCER_ID_BLOCK));
            next.ok_or(ApiError::from(ErrorCode::UnknownServerError))
        });
        let (records, response) = match checked {
            Ok(next_producer_id) => (
                vec![MetadataRecord::ProducerIds(ProducerIdsRecord {
                    broker_id: id.0,
                    broker_epoch: epoch.0,
                    next_producer_id,
                })],
                AllocateProducerIdsResponse {
                    producer_id_start: start,
                    producer_id_len: PRODUCER_ID_BLOCK,
                    ..Default::default()
                },
            ),
            Err(error) => {
                let error_code = error.code.code();
                (Vec::new(), AllocateProducerIdsResponse { error_code, ..Default::default() })
            }
        };
        (records, ControllerReply::AllocateProducerIds(response))
    }
}

/// A change of a registration; `edit` says what changes.
pub(super) fn registration_change(
    broker: &BrokerRegistration,
    edit: impl FnOnce(&mut BrokerRegistrationChangeRecord),
) -> MetadataRecord {
    let mut change = BrokerRegistrationChangeRecord {
        broker_id: broker.id.0,
        broker_epoch: broker.epoch.0,
        ..Default::default()
    };
    edit(&mut change);
    MetadataRecord::BrokerRegistrationChange(change)
}
