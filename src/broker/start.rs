//! How a broker starts: directories, metadata log, election, registration, partitions.

use super::cleaner::Cleaner;
use super::directories::{Directories, DirectoryError, Origin};
use super::groups::Groups;
use super::host::HostError;
use super::housekeeping::Housekeeping;
use super::metadata::{MetadataNode, MetadataParams, NoTransport};
use super::mover::{Mover, MoverParams};
use super::publisher::Publisher;
use super::quorum::{Quorum, QuorumError, QuorumParams, QuorumTiming};
use super::takeover::{self, TakeoverError};
use super::{Broker, ControllerReply, ControllerRequest, Image, ProducerIds, Settings};
use crate::env::{Clock, Disk};
use crate::log::StorageError;
use crate::log::checkpoint::{read_clean_shutdown, read_meta_properties};
use crate::machines::metadata::features::{FEATURES, KRAFT_VERSION};
use crate::machines::metadata::image::FeaturesImage;
use crate::machines::metadata::{ControllerSettings, LoneReplicas};
use arc_swap::ArcSwap;
use ottla_protocol::messages::{
    BrokerHeartbeatRequest, BrokerRegistrationRequest, ControllerRegistrationRequest,
    broker_registration_request, controller_registration_request,
};
use ottla_protocol::records::group::GroupReaders;
use ottla_protocol::{BrokerEpoch, BrokerId, ErrorCode};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A log directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A log directory cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What lies in the log directories cannot be continued.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// The metadata log cannot be used.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// The metadata log failed while the broker registered.
    #[error("the metadata log does not take records: see the log above")]
    NotActive(#[from] HostError),
    /// The controller refused the broker.
    #[error("the controller refused this broker: {0}")]
    Refused(ErrorCode),
}

impl Broker {
    /// Starts a broker: when this returns it leads its partitions and every API can be served.
    ///
    /// # Errors
    /// Every [`StartError`].
    pub async fn start(
        mut settings: Settings,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Broker>, StartError> {
        take_formatted_node_id(&mut settings, disk.as_ref())?;
        let settings = Arc::new(settings);
        let (directories, groups, publisher) = open_directories(disk, &settings, &clock)?;
        let image = Arc::new(ArcSwap::from_pointee(Image::default()));
        let (metadata, broker_epoch) =
            open_metadata(&settings, &directories, &publisher, &image, &clock).await?;
        publisher.set_strays_aside(&image.load());
        directories.look_at_space(settings.dir_reserve_bytes);
        let housekeeping = Housekeeping::new(
            Arc::clone(&clock),
            Arc::clone(&settings),
            Arc::clone(&directories),
            Arc::clone(&publisher),
        );
        let cleaner = Cleaner::start(
            Arc::clone(&clock),
            Arc::clone(&settings),
            Arc::clone(&publisher),
            Arc::clone(&housekeeping),
            &image.load(),
        );
        let mover = Mover::new(MoverParams {
            clock: Arc::clone(&clock),
            settings: Arc::clone(&settings),
            directories: Arc::clone(&directories),
            publisher: Arc::clone(&publisher),
            housekeeping: Arc::clone(&housekeeping),
            metadata: Arc::clone(&metadata),
            image: Arc::clone(&image),
            broker_epoch,
            runtime: tokio::runtime::Handle::current(),
        });
        let (stopping, stop) = watch::channel(false);
        let tasks = vec![tokio::spawn(Arc::clone(&housekeeping).run(stop))];
        let broker = Arc::new(Broker {
            settings,
            clock,
            directories,
            metadata,
            publisher,
            groups,
            housekeeping,
            cleaner,
            mover,
            image,
            broker_epoch,
            producer_ids: Mutex::new(ProducerIds::default()),
            stopping,
            tasks: Mutex::new(tasks),
        });
        broker.report_cordoned_dirs().await;
        broker.report_moved_partitions().await;
        Ok(broker)
    }
}

/// Takes the id that the log directories were formatted with, where the configuration names none.
fn take_formatted_node_id(settings: &mut Settings, disk: &dyn Disk) -> Result<(), DirectoryError> {
    if settings.config.is_node_id_given {
        return Ok(());
    }
    let Some(first) = settings.log_dirs.first() else { return Ok(()) };
    let meta = read_meta_properties(disk, first)?;
    if let Some(id) = meta.and_then(|meta| meta.node_id).map(BrokerId) {
        settings.node_id = id;
        settings.controller.node_id = id;
    }
    Ok(())
}

type Opened = (Arc<Directories>, Arc<Groups>, Arc<Publisher>);

fn open_directories(
    disk: Arc<dyn Disk>,
    settings: &Arc<Settings>,
    clock: &Arc<dyn Clock>,
) -> Result<Opened, StartError> {
    let (log_dirs, metadata_dir) = (&settings.log_dirs, &settings.metadata_log_dir);
    let (node_id, cluster_id) = (settings.node_id, settings.cluster_id.as_deref());
    let import = takeover::check(disk.as_ref(), settings)?;
    let directories = Directories::open(disk, log_dirs, metadata_dir, node_id, cluster_id)?;
    let directories = Arc::new(directories);
    if let Some(import) = import {
        let disk = directories.disk().as_ref();
        let written = import.carry_out(disk, metadata_dir, node_id, clock.now());
        written.map_err(TakeoverError::from)?;
    }
    let readers = match directories.origin {
        Origin::KRaft => GroupReaders::Current,
        Origin::ZooKeeper => GroupReaders::Old,
    };
    let groups = Groups::new(Arc::clone(clock), settings.group.clone(), readers);
    let publisher = Publisher::new(
        node_id,
        Arc::clone(clock),
        Arc::clone(settings),
        Arc::clone(&directories),
        Arc::clone(&groups),
    )?;
    Ok((directories, groups, Arc::new(publisher)))
}

/// What the directories say of the time before this start.
struct Before {
    finalized: Arc<FeaturesImage>,
    broker_epoch: i64,
}

/// The epoch under which the broker last stopped in order in all directories; -1 after a crash.
fn previous_broker_epoch(directories: &Directories) -> i64 {
    let mut epochs = directories.all.iter().map(|log_dir| {
        let stopped = read_clean_shutdown(directories.disk().as_ref(), &log_dir.path);
        stopped.ok().flatten().map_or(-1, |clean| clean.broker_epoch)
    });
    let first = epochs.next().unwrap_or(-1);
    if epochs.all(|epoch| epoch == first) { first } else { -1 }
}

fn quorum_params(
    settings: &Settings,
    directories: &Directories,
    clock: &Arc<dyn Clock>,
) -> QuorumParams {
    QuorumParams {
        disk: Arc::clone(directories.disk()),
        clock: Arc::clone(clock),
        dir: settings.metadata_log_dir.clone(),
        health: Arc::clone(directories.metadata_health()),
        node_id: settings.node_id,
        voters: vec![settings.node_id],
        controller: ControllerSettings {
            cluster_id: directories.cluster_id.clone(),
            lone_replicas: match directories.origin {
                Origin::KRaft => LoneReplicas::Follow,
                Origin::ZooKeeper => LoneReplicas::Stay,
            },
            ..settings.controller.clone()
        },
        log: Arc::clone(&settings.metadata_log),
        snapshot_bytes: settings.metadata_snapshot_bytes,
        timing: QuorumTiming::default(),
    }
}

/// Opens the metadata log, takes part in its quorum and joins the cluster; the Image is published on the way.
async fn open_metadata(
    settings: &Settings,
    directories: &Directories,
    publisher: &Arc<Publisher>,
    image: &Arc<ArcSwap<Image>>,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<MetadataNode>, BrokerEpoch), StartError> {
    let params = quorum_params(settings, directories, clock);
    let controller_settings = params.controller.clone();
    let quorum = Arc::new(Quorum::open(params)?);
    directories.confirm()?;
    let before = previous_broker_epoch(directories);
    directories.remove_clean_shutdown()?;
    let publisher = Arc::clone(publisher);
    let params = MetadataParams {
        transport: Arc::new(NoTransport),
        publish: Box::new(move |old, new| publisher.publish(old, new)),
        image: Arc::clone(image),
        clock: Arc::clone(clock),
        settings: controller_settings,
    };
    let metadata = MetadataNode::start(quorum, params).await?;
    match join(settings, directories, &metadata, image, before).await {
        Ok(broker_epoch) => Ok((metadata, broker_epoch)),
        Err(error) => {
            // What lies in the directories must be left before they are given back.
            if let Err(error) = metadata.close().await {
                tracing::error!(%error, "metadata log not closed in order");
            }
            Err(error)
        }
    }
}

/// Waits for the controller and joins the cluster.
async fn join(
    settings: &Settings,
    directories: &Directories,
    metadata: &MetadataNode,
    image: &ArcSwap<Image>,
    broker_epoch: i64,
) -> Result<BrokerEpoch, StartError> {
    metadata.until_active().await?;
    let before = Before { finalized: Arc::clone(&image.load().features), broker_epoch };
    register(settings, directories, metadata, &before).await
}

/// Registers controller and broker and unfences the broker; the Image is published on the way.
async fn register(
    settings: &Settings,
    directories: &Directories,
    controller: &MetadataNode,
    before: &Before,
) -> Result<BrokerEpoch, StartError> {
    let incarnation_id = Uuid::new_v4();
    let request =
        ControllerRequest::RegisterController(controller_registration(settings, &before.finalized));
    if let ControllerReply::RegisterController(reply) = controller.call(request).await? {
        check(reply.error_code)?;
    }
    let request = BrokerRegistrationRequest {
        broker_id: settings.node_id.0,
        cluster_id: directories.cluster_id.clone(),
        incarnation_id,
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
            .filter(|feature| feature.name != KRAFT_VERSION)
            .map(|feature| broker_registration_request::Feature {
                name: feature.name.to_owned(),
                min_supported_version: feature.range.min,
                max_supported_version: feature.range_at(before.finalized.level(feature.name)).max,
            })
            .collect(),
        rack: settings.rack.clone(),
        is_migrating_zk_broker: false,
        log_dirs: directories.all.iter().map(|log_dir| log_dir.id).collect(),
        previous_broker_epoch: before.broker_epoch,
    };
    let reply = controller.call(ControllerRequest::RegisterBroker(request)).await?;
    let ControllerReply::RegisterBroker(reply) = reply else {
        return Err(StartError::Refused(ErrorCode::UnknownServerError));
    };
    check(reply.error_code)?;
    let request = BrokerHeartbeatRequest {
        broker_id: settings.node_id.0,
        broker_epoch: reply.broker_epoch,
        current_metadata_offset: controller.quorum().committed().0 - 1,
        ..Default::default()
    };
    let heartbeat = controller.call(ControllerRequest::BrokerHeartbeat(request)).await?;
    if let ControllerReply::BrokerHeartbeat(heartbeat) = heartbeat {
        check(heartbeat.error_code)?;
    }
    Ok(BrokerEpoch(reply.broker_epoch))
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

fn check(code: i16) -> Result<(), StartError> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(StartError::Refused(code)),
    }
}
