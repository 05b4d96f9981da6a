//! This broker's membership in the cluster: its registration, its heartbeats, and its way out.
//!
//! Source: KIP-631 (registration, fencing, controlled shutdown), KIP-858 (log directories that are offline, and the end
//! of a broker whose controller does not hear of it), KIP-966 (the epoch of an orderly stop). Differently from Kafka a
//! broker that finds its id in use says who has it.

use super::controller_link::ControllerLink;
use super::directories::Directories;
use super::metadata::MetadataNode;
use super::start::StartError;
use super::{ControllerReply, ControllerRequest, Image, Settings};
use crate::log::checkpoint::read_clean_shutdown;
use crate::machines::metadata::features::FEATURES;
use crate::machines::metadata::image::FeaturesImage;
use arc_swap::ArcSwap;
use ottla_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    ControllerRegistrationRequest, broker_registration_request, controller_registration_request,
};
use ottla_protocol::{BrokerEpoch, ErrorCode};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

/// Wait before something is asked again that has to do with a start or a stop.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// The longest wait before a log directory's failure is told again.
const REPORT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a broker that waits says so.
const SAY_SO: Duration = Duration::from_secs(3);
/// How long a stop waits for others to take over.
const LEAVE_MAX: Duration = Duration::from_secs(30);

/// This broker in the eyes of the controller.
pub(super) struct Membership {
    settings: Arc<Settings>,
    directories: Arc<Directories>,
    link: Arc<ControllerLink>,
    image: Arc<ArcSwap<Image>>,
    incarnation_id: Uuid,
    epoch: AtomicI64,
    is_leaving: AtomicBool,
    /// The log directories that have failed, once the controller could not be told of them in time.
    untold: watch::Sender<Vec<PathBuf>>,
}

impl Membership {
    pub(super) fn new(
        settings: Arc<Settings>,
        directories: Arc<Directories>,
        link: Arc<ControllerLink>,
        image: Arc<ArcSwap<Image>>,
    ) -> Membership {
        Membership {
            settings,
            directories,
            link,
            image,
            incarnation_id: Uuid::new_v4(),
            epoch: AtomicI64::new(-1),
            is_leaving: AtomicBool::new(false),
            untold: watch::Sender::default(),
        }
    }

    /// The epoch of the registration; -1 before there is one.
    pub(super) fn epoch(&self) -> BrokerEpoch {
        BrokerEpoch(self.epoch.load(Ordering::Acquire))
    }

    /// Registers this process as controller and broker, waiting for the quorum and for an earlier process of the same
    /// id as long as `initial.broker.registration.timeout.ms` says.
    ///
    /// # Errors
    /// `Refused`, `IdInUse`, `NoController`.
    pub(super) async fn register(&self, previous_epoch: i64) -> Result<(), StartError> {
        let begun = Instant::now();
        let patience = self.settings.initial_registration_timeout;
        let mut said = begun;
        loop {
            let refusal = match self.try_register(previous_epoch).await {
                Ok(ErrorCode::None) => return Ok(()),
                Ok(ErrorCode::DuplicateBrokerRegistration) => self.id_in_use(),
                // There was none when it was asked for, or it went: the next one is asked.
                Ok(ErrorCode::NotController) | Err(ErrorCode::RequestTimedOut) => {
                    StartError::NoController { waited: begun.elapsed() }
                }
                // The controller's disk is full: it is asked again, as in Kafka.
                Ok(code @ ErrorCode::KafkaStorageError) => StartError::Refused(code),
                Ok(code) | Err(code) => return Err(StartError::Refused(code)),
            };
            if begun.elapsed() >= patience {
                return Err(refusal);
            }
            if said.elapsed() >= SAY_SO {
                said = Instant::now();
                tracing::warn!("still waiting to join the cluster: {refusal}");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn try_register(&self, previous_epoch: i64) -> Result<ErrorCode, ErrorCode> {
        let finalized = Arc::clone(&self.image.load().features);
        if self.settings.config.is_controller {
            let controller = controller_registration(&self.settings, &finalized);
            let request = ControllerRequest::RegisterController(controller);
            if let ControllerReply::RegisterController(reply) = self.link.call(request).await?
                && reply.error_code != 0
            {
                return Ok(ErrorCode::from_code(reply.error_code));
            }
        }
        if !self.settings.config.is_broker {
            return Ok(ErrorCode::None);
        }
        let registration = self.broker_registration(previous_epoch, &finalized);
        let request = ControllerRequest::RegisterBroker(registration);
        let ControllerReply::RegisterBroker(reply) = self.link.call(request).await? else {
            return Err(ErrorCode::UnknownServerError);
        };
        if reply.error_code == 0 {
            self.epoch.store(reply.broker_epoch, Ordering::Release);
        }
        Ok(ErrorCode::from_code(reply.error_code))
    }

    /// Who has this broker's id, as far as this node has heard.
    fn id_in_use(&self) -> StartError {
        let address = |host: &str, port: u16| format!("{host}:{port}");
        let image = self.image.load();
        let other = image.cluster.brokers.get(&self.settings.node_id);
        let other = other.and_then(|broker| broker.listeners.values().next());
        let own = self.settings.advertised.first();
        let unknown = || "an address that is not known here".to_owned();
        StartError::IdInUse {
            id: self.settings.node_id,
            own: own.map_or_else(unknown, |own| address(&own.host, own.port)),
            other: other.map_or_else(unknown, |other| address(&other.host, other.port)),
        }
    }

    /// Waits until this node's Image has the registration: what it says of partitions is then what holds for this
    /// process.
    pub(super) async fn catch_up(&self) {
        while self.image.load().offset.0 < self.epoch().0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Says that this broker is ready, until the controller has unfenced it.
    ///
    /// # Errors
    /// `Refused`.
    pub(super) async fn unfence(&self) -> Result<(), StartError> {
        let mut said = Instant::now();
        loop {
            let code = match self.heartbeat().await {
                Ok(reply) if reply.error_code == 0 && !reply.is_fenced => return Ok(()),
                Ok(reply) => ErrorCode::from_code(reply.error_code),
                Err(code) => code,
            };
            match code {
                // The controller's disk is full, so that it can note nothing for now.
                ErrorCode::None | ErrorCode::RequestTimedOut | ErrorCode::KafkaStorageError => {}
                code => return Err(StartError::Refused(code)),
            }
            if said.elapsed() >= SAY_SO {
                said = Instant::now();
                tracing::warn!(answer = %code, "still waiting to be unfenced by the controller");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn heartbeat(&self) -> Result<BrokerHeartbeatResponse, ErrorCode> {
        let request = ControllerRequest::BrokerHeartbeat(BrokerHeartbeatRequest {
            broker_id: self.settings.node_id.0,
            broker_epoch: self.epoch().0,
            current_metadata_offset: self.image.load().offset.0,
            want_shut_down: self.is_leaving.load(Ordering::Acquire),
            offline_log_dirs: self.directories.offline().map(|log_dir| log_dir.id).collect(),
            ..Default::default()
        });
        match self.link.call(request).await? {
            ControllerReply::BrokerHeartbeat(reply) => Ok(reply),
            _ => Err(ErrorCode::UnknownServerError),
        }
    }

    /// Tells the controller every `broker.heartbeat.interval.ms` that this broker lives, until it stops; not as long as
    /// this node is the only voter, whose controller lives as long as its broker.
    pub(super) async fn run(
        self: Arc<Self>,
        metadata: Arc<MetadataNode>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut was_well = true;
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = metadata.until_others_vote() => {}
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(self.settings.heartbeat_interval) => {}
            }
            let sent = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                sent = self.heartbeat() => sent,
            };
            let trouble = match sent {
                Ok(reply) if reply.error_code != 0 => Some(ErrorCode::from_code(reply.error_code)),
                Ok(reply) if reply.is_fenced => {
                    tracing::info!(
                        "the controller has fenced this broker; asking to be let in again"
                    );
                    None
                }
                Ok(_) => None,
                Err(error) => Some(error),
            };
            match trouble {
                Some(error) if was_well => tracing::warn!(%error, "heartbeats are not answered"),
                None if !was_well => tracing::info!("heartbeats are answered again"),
                _ => {}
            }
            was_well = trouble.is_none();
        }
    }

    /// Tells the controller of each log directory that fails, at once, so that others lead what lies there, and again
    /// until it has heard of it; or gives up after `log.dir.failure.timeout.ms` ([`Membership::untold`]).
    pub(super) async fn report_failures(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut failures = self.directories.failures();
        let reporting = async {
            let mut known = 0;
            loop {
                failures.mark_unchanged();
                if self.directories.offline().count() == known {
                    // The sender is a part of the directories, which are this one's.
                    if failures.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                let patience = self.settings.dir_failure_timeout;
                let Ok(told) = tokio::time::timeout(patience, self.tell_of_failures()).await else {
                    let offline = self.directories.offline();
                    self.untold.send_replace(offline.map(|it| it.path.clone()).collect());
                    return;
                };
                known = told;
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = reporting => {}
        }
    }

    /// Sends heartbeats until one is answered; how many directories that are offline it named.
    async fn tell_of_failures(&self) -> usize {
        let mut pause = RETRY_PAUSE;
        loop {
            let offline = self.directories.offline().count();
            let error = match self.heartbeat().await {
                Ok(reply) => ErrorCode::from_code(reply.error_code),
                Err(error) => error,
            };
            if !error.is_err() {
                return offline;
            }
            tracing::warn!(%error, "the controller does not know of a failed log directory yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(REPORT_PAUSE_MAX);
        }
    }

    /// Completes when [`Membership::report_failures`] has given up; says why. As long as the controller does not know,
    /// nobody else leads what lay in the directory.
    pub(super) async fn untold(&self) -> String {
        let mut untold = self.untold.subscribe();
        match untold.wait_for(|untold| !untold.is_empty()).await {
            Ok(paths) => {
                let waited = self.settings.dir_failure_timeout.as_millis();
                let paths = paths.iter().map(|path| path.display().to_string());
                let paths = paths.collect::<Vec<_>>().join(", ");
                format!(
                    "the controller could not be told within {waited} ms that log directories have failed: {paths}"
                )
            }
            // The sender is this one's.
            Err(_) => std::future::pending().await,
        }
    }

    /// Hands over what this broker leads, and returns when the controller lets it go; or when nobody does for long.
    pub(super) async fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
        let begun = Instant::now();
        while begun.elapsed() < LEAVE_MAX {
            match tokio::time::timeout(LEAVE_MAX, self.heartbeat()).await {
                Ok(Ok(reply)) if reply.should_shut_down => return,
                Ok(Ok(reply)) if reply.error_code == 0 => tokio::time::sleep(RETRY_PAUSE).await,
                Ok(Ok(reply)) => {
                    let error = ErrorCode::from_code(reply.error_code);
                    tracing::warn!(%error, "stopping without a handover");
                    return;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "no controller to hand over to");
                    return;
                }
                Err(_) => break,
            }
        }
        tracing::warn!("the controller did not let this broker go in time");
    }

    fn broker_registration(
        &self,
        previous_broker_epoch: i64,
        finalized: &FeaturesImage,
    ) -> BrokerRegistrationRequest {
        let settings = &self.settings;
        BrokerRegistrationRequest {
            broker_id: settings.node_id.0,
            cluster_id: self.directories.cluster_id.clone(),
            incarnation_id: self.incarnation_id,
            listeners: settings
                .advertised
                .iter()
                .map(|listener| broker_registration_request::Listener {
                    name: listener.name.clone(),
                    host: listener.host.clone(),
                    port: listener.port,
                    security_protocol: listener.security_protocol,
                })
                .collect(),
            features: FEATURES
                .iter()
                .map(|feature| broker_registration_request::Feature {
                    name: feature.name.to_owned(),
                    min_supported_version: feature.range.min,
                    max_supported_version: feature.range_at(finalized.level(feature.name)).max,
                })
                .collect(),
            rack: settings.rack.clone(),
            is_migrating_zk_broker: false,
            log_dirs: self.directories.all.iter().map(|log_dir| log_dir.id).collect(),
            previous_broker_epoch,
        }
    }
}

/// The epoch under which the broker last stopped in order in all directories; -1 after a crash.
pub(super) fn previous_broker_epoch(directories: &Directories) -> i64 {
    let mut epochs = directories.all.iter().map(|log_dir| {
        let stopped = read_clean_shutdown(directories.disk().as_ref(), &log_dir.path);
        stopped.ok().flatten().map_or(-1, |clean| clean.broker_epoch)
    });
    let first = epochs.next().unwrap_or(-1);
    if epochs.all(|epoch| epoch == first) { first } else { -1 }
}

fn controller_registration(
    settings: &Settings,
    finalized: &FeaturesImage,
) -> ControllerRegistrationRequest {
    ControllerRegistrationRequest {
        controller_id: settings.node_id.0,
        incarnation_id: Uuid::new_v4(),
        zk_migration_ready: false,
        listeners: settings
            .controller_listeners
            .iter()
            .map(|listener| controller_registration_request::Listener {
                name: listener.name.clone(),
                host: listener.host.clone(),
                port: listener.port,
                security_protocol: listener.security_protocol,
            })
            .collect(),
        features: FEATURES
            .iter()
            .map(|feature| controller_registration_request::Feature {
                name: feature.name.to_owned(),
                min_supported_version: feature.range.min,
                max_supported_version: feature.range_at(finalized.level(feature.name)).max,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests;
