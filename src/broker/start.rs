//! How a broker starts: directories, metadata log, election, registration, partitions.

use super::cleaner::Cleaner;
use super::cluster_id;
use super::controller_calls::ControllerCalls;
use super::controller_link::{Active, ControllerLink};
use super::detector::{Detector, Gone};
use super::directories::{ClusterIds, Directories, DirectoryError, Origin};
use super::formatting;
use super::founding;
use super::groups::Groups;
use super::housekeeping::Housekeeping;
use super::membership::{self, Membership};
use super::metadata::{MetadataNode, MetadataParams, Source};
use super::metadata_reads::Observers;
use super::mover::{Mover, MoverParams};
use super::observer::{Observer, ObserverParams};
use super::publisher::Publisher;
use super::quorum::{
    Quorum, QuorumError, QuorumParams, QuorumTiming, Voter, VoterEndpoint, VoterSet,
};
use super::replication::Replication;
use super::takeover::{self, TakeoverError};
use super::voters::VoterConnections;
use super::{AdvertisedListener, Broker, Founding, Image, LogsStage, ProducerIds, Settings};
use crate::env::{Clock, Disk};
use crate::log::StorageError;
use crate::log::checkpoint::read_meta_properties;
use crate::machines::metadata::{ControllerSettings, LoneReplicas};
use arc_swap::ArcSwap;
use ottla_protocol::records::group::GroupReaders;
use ottla_protocol::{BrokerId, ErrorCode};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

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
    /// The controller refused the broker.
    #[error("the controller refused this broker: {0}")]
    Refused(ErrorCode),
    /// Opening the partitions did not end.
    #[error("opening the partitions: {0}")]
    Opening(String),
    /// Another process has the id, and lives.
    #[error(
        "broker id {id} is in use: the broker at {other} has it, and this one at {own} cannot (change node.id or broker.id)"
    )]
    IdInUse {
        /// The id.
        id: BrokerId,
        /// Where this broker listens.
        own: String,
        /// Where the other one does.
        other: String,
    },
    /// The controllers are of another cluster than the directories.
    #[error(
        "the controllers of controller.quorum.voters are of cluster {found}, and log.dirs of cluster {own}: one of them is not what was meant"
    )]
    OtherCluster {
        /// The id in the directories, or `ottla.cluster.id`.
        own: String,
        /// The id that the controllers say.
        found: String,
    },
    /// Nobody has said whether this controller is to found a quorum or to join one.
    #[error(
        "the log directories are not formatted: say `ottla format FILE` with --no-initial-controllers for a node that is \
         to be added to a quorum, with --standalone or --initial-controllers for the first ones; or set \
         controller.quorum.auto.join.enable=true"
    )]
    NotFormatted,
    /// The metadata log names other voters, who cannot reach this node.
    #[error(
        "the metadata log names the voters {voters}, and there is no listener on which they reach this node: set \
         zookeeper.connect, or process.roles and controller.quorum.bootstrap.servers, as it was before"
    )]
    NoQuorumListener {
        /// Their ids.
        voters: String,
    },
    /// The quorum has no leader that can be reached.
    #[error(
        "no active controller found in {} s (controller.quorum.voters: are a majority of them running?)",
        waited.as_secs()
    )]
    NoController {
        /// How long it was looked for.
        waited: Duration,
    },
}

impl Broker {
    /// Starts a broker: when this returns it leads its partitions and every API can be served. For one that is its own
    /// quorum; others must be heard while they start: [`Broker::open`] and [`Broker::join`] do it in two steps.
    ///
    /// # Errors
    /// Every [`StartError`].
    pub async fn start(
        settings: Settings,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Broker>, StartError> {
        let broker = Broker::open(settings, disk, clock).await?;
        match broker.join().await {
            Ok(()) => Ok(broker),
            Err(error) => {
                // What lies in the directories must be left before they are given back.
                broker.stop().await;
                Err(error)
            }
        }
    }

    /// Opens the directories and the metadata log. From now on the controller's listeners may be served.
    ///
    /// # Errors
    /// Every [`StartError`] but those of [`Broker::join`].
    pub async fn open(
        mut settings: Settings,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Broker>, StartError> {
        take_formatted_node_id(&mut settings, disk.as_ref())?;
        let is_controller = settings.config.is_controller;
        let is_new = matches!(settings.founding, Founding::Join)
            && is_controller
            && !settings.config.is_meeting
            && !is_formatted(&settings, disk.as_ref())?;
        if is_new && !settings.bootstrap.auto_join {
            return Err(StartError::NotFormatted);
        }
        if is_new || !is_controller {
            settings.voters_cluster_id = cluster_id::find(&settings, disk.as_ref()).await?;
        }
        let settings = Arc::new(settings);
        let (directories, groups, publisher) = open_directories(disk, &settings, &clock)?;
        let source = open_source(&settings, &directories, &clock)?;
        directories.confirm()?;
        let previous_epoch = membership::previous_broker_epoch(&directories);
        let image = Arc::new(ArcSwap::from_pointee(Image::default()));
        let parts = Parts { settings, clock, directories, publisher, image };
        let metadata = MetadataNode::start(source, parts.metadata()?).await?;
        let (link, membership) = parts.membership(metadata.active());
        let detector = parts.detector(&link, &metadata);
        let (housekeeping, cleaner) = parts.chores();
        let mover = parts.mover(&link, &membership, &housekeeping);
        let Parts { settings, clock, directories, publisher, image } = parts;
        let stopping = watch::Sender::new(false);
        let mut tasks = publisher.replication().start(
            &settings,
            &image,
            Arc::clone(&link) as Arc<dyn ControllerCalls>,
            (&publisher, &housekeeping),
            &detector,
            &stopping.subscribe(),
        );
        tasks.push(tokio::spawn(Arc::clone(&detector).run(metadata.active())));
        Ok(Arc::new(Broker {
            settings,
            clock,
            directories,
            metadata,
            observers: Observers::default(),
            link,
            membership,
            detector,
            previous_epoch,
            publisher,
            groups,
            housekeeping,
            cleaner,
            mover,
            image,
            producer_ids: Mutex::new(ProducerIds::default()),
            logs_stage: Arc::new(Mutex::new(LogsStage::Untouched)),
            stopping,
            tasks: Mutex::new(tasks),
        }))
    }

    /// Joins the cluster: when this returns the broker is registered, has what the metadata gives it, and every API can
    /// be served.
    ///
    /// # Errors
    /// `Refused`, `IdInUse`, `NoController`.
    pub async fn join(&self) -> Result<(), StartError> {
        if self.settings.is_sole_voter {
            self.metadata.until_active().await?;
        }
        self.membership.register(self.previous_epoch).await?;
        if !self.settings.config.is_broker {
            return Ok(());
        }
        self.membership.catch_up().await;
        let opened = crate::env::blocking(self.open_logs()).await;
        opened.map_err(|error| StartError::Opening(error.to_string()))??;
        self.publisher.set_strays_aside(&self.image.load());
        self.directories.look_at_space(self.settings.dir_reserve_bytes);
        self.membership.unfence().await?;
        self.cleaner.reconfigure(&self.image.load());
        let mut tasks =
            vec![tokio::spawn(Arc::clone(&self.housekeeping).run(self.stopping.subscribe()))];
        let heartbeats =
            Arc::clone(&self.membership).run(Arc::clone(&self.metadata), self.stopping.subscribe());
        tasks.push(tokio::spawn(heartbeats));
        let (publisher, metadata) = (Arc::clone(&self.publisher), Arc::clone(&self.metadata));
        let reopening = publisher.reopen_in_time(metadata, self.stopping.subscribe());
        tasks.push(tokio::spawn(reopening));
        let failures = Arc::clone(&self.membership).report_failures(self.stopping.subscribe());
        tasks.push(tokio::spawn(failures));
        self.tasks.lock().extend(tasks);
        self.report_cordoned_dirs().await;
        Ok(())
    }

    /// Opens what the metadata gives this broker, unless it is to stop first. As in Kafka the directories say until
    /// then whether the process before stopped in order.
    pub(super) fn open_logs(&self) -> impl FnOnce() -> Result<(), DirectoryError> + use<> {
        let (directories, metadata) = (Arc::clone(&self.directories), Arc::clone(&self.metadata));
        let stage = Arc::clone(&self.logs_stage);
        move || {
            let mut stage = stage.lock();
            if *stage != LogsStage::Untouched {
                return Ok(());
            }
            *stage = LogsStage::Opening;
            directories.remove_clean_shutdown()?;
            metadata.begin();
            *stage = LogsStage::Open;
            Ok(())
        }
    }
}

/// What most of a broker's members share.
struct Parts {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    directories: Arc<Directories>,
    publisher: Arc<Publisher>,
    image: Arc<ArcSwap<Image>>,
}

impl Parts {
    fn metadata(&self) -> Result<MetadataParams, StartError> {
        let disk = self.directories.disk().as_ref();
        let formatted = formatting::read_bootstrap(disk, &self.settings.metadata_log_dir)?;
        let voters = VoterConnections::new(
            self.settings.node_id,
            &self.directories.cluster_id,
            &self.settings.controllers,
        );
        let publisher = Arc::clone(&self.publisher);
        Ok(MetadataParams {
            node_id: self.settings.node_id,
            transport: Arc::new(voters),
            publish: Box::new(move |old, new| publisher.publish(old, new)),
            image: Arc::clone(&self.image),
            clock: Arc::clone(&self.clock),
            settings: controller_settings(&self.settings, &self.directories),
            formatted,
        })
    }

    fn chores(&self) -> (Arc<Housekeeping>, Arc<Cleaner>) {
        let housekeeping = Housekeeping::new(
            Arc::clone(&self.clock),
            Arc::clone(&self.settings),
            Arc::clone(&self.directories),
            Arc::clone(&self.publisher),
        );
        let cleaner = Cleaner::start(
            Arc::clone(&self.clock),
            Arc::clone(&self.settings),
            Arc::clone(&self.publisher),
            Arc::clone(&housekeeping),
            &self.image.load(),
        );
        (housekeeping, cleaner)
    }

    fn membership(
        &self,
        active: watch::Receiver<Active>,
    ) -> (Arc<ControllerLink>, Arc<Membership>) {
        let link = Arc::new(ControllerLink::new(active, &self.settings));
        let membership = Membership::new(
            Arc::clone(&self.settings),
            Arc::clone(&self.directories),
            Arc::clone(&link),
            Arc::clone(&self.image),
        );
        (link, Arc::new(membership))
    }

    fn detector(&self, link: &Arc<ControllerLink>, metadata: &Arc<MetadataNode>) -> Arc<Detector> {
        Arc::new(Detector {
            clock: Arc::clone(&self.clock),
            gone: Gone::default(),
            settings: Arc::clone(&self.settings),
            image: Arc::clone(&self.image),
            link: Arc::clone(link),
            metadata: Arc::clone(metadata),
        })
    }

    fn mover(
        &self,
        link: &Arc<ControllerLink>,
        membership: &Arc<Membership>,
        housekeeping: &Arc<Housekeeping>,
    ) -> Arc<Mover> {
        Mover::new(MoverParams {
            clock: Arc::clone(&self.clock),
            settings: Arc::clone(&self.settings),
            directories: Arc::clone(&self.directories),
            publisher: Arc::clone(&self.publisher),
            housekeeping: Arc::clone(housekeeping),
            link: Arc::clone(link),
            image: Arc::clone(&self.image),
            membership: Arc::clone(membership),
            runtime: tokio::runtime::Handle::current(),
        })
    }
}

/// Whether somebody has formatted the directories. A controller of which nobody has said what it is to be neither
/// founds a quorum nor follows one: two of them might found two.
fn is_formatted(settings: &Settings, disk: &dyn Disk) -> Result<bool, DirectoryError> {
    for log_dir in &settings.log_dirs {
        if read_meta_properties(disk, log_dir)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
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
    let node_id = settings.node_id;
    let ids = ClusterIds {
        configured: settings.cluster_id.as_deref(),
        new: settings.voters_cluster_id.as_deref(),
    };
    let import = takeover::check(disk.as_ref(), settings)?;
    let directories = Directories::open(disk, log_dirs, metadata_dir, node_id, &ids)?;
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
        Replication::new(settings),
    )?;
    Ok((directories, groups, Arc::new(publisher)))
}

fn controller_settings(settings: &Settings, directories: &Directories) -> ControllerSettings {
    ControllerSettings {
        cluster_id: directories.cluster_id.clone(),
        lone_replicas: match directories.origin {
            Origin::KRaft => LoneReplicas::Follow,
            Origin::ZooKeeper => LoneReplicas::Stay,
        },
        ..settings.controller.clone()
    }
}

/// Opens the metadata log, as that of a voter or of a node without a vote.
fn open_source(
    settings: &Settings,
    directories: &Directories,
    clock: &Arc<dyn Clock>,
) -> Result<Source, StartError> {
    let controller = controller_settings(settings, directories);
    let (disk, clock) = (Arc::clone(directories.disk()), Arc::clone(clock));
    let (dir, log) = (settings.metadata_log_dir.clone(), Arc::clone(&settings.metadata_log));
    let health = Arc::clone(directories.metadata_health());
    let (node_id, snapshot_bytes) = (settings.node_id, settings.metadata_snapshot_bytes);
    if !settings.config.is_controller {
        let controllers = settings.controllers.clone();
        return Ok(Source::Observer(Arc::new(Observer::open(ObserverParams {
            disk,
            clock,
            dir,
            health,
            node_id,
            controller,
            log,
            snapshot_bytes,
            controllers,
            bootstrap: settings.bootstrap.clone(),
            listener: settings
                .config
                .listeners
                .controller_names
                .first()
                .cloned()
                .unwrap_or_default(),
        })?)));
    }
    let own = own_voter(settings, directories);
    if let Founding::Standalone = settings.founding {
        founding::found_standalone(disk.as_ref(), &dir, &own, clock.now())?;
    }
    let voters = static_voters(settings);
    let quorum = Quorum::open(QuorumParams {
        disk,
        clock,
        dir,
        health,
        own,
        voters,
        listener: quorum_listener(settings),
        addresses: settings.controllers.clone(),
        bootstrap: settings.bootstrap.clone(),
        controller,
        log,
        snapshot_bytes,
        timing: QuorumTiming::default(),
    })?;
    expect_quorum_listener(settings, &quorum)?;
    Ok(Source::Quorum(Arc::new(quorum)))
}

/// A member of a cluster whose file says no more where the members meet would wait for the others for ever.
fn expect_quorum_listener(settings: &Settings, quorum: &Quorum) -> Result<(), StartError> {
    let voters = quorum.voters();
    let is_served = settings.config.is_meeting || !settings.controller_listeners.is_empty();
    if is_served || voters.ids().all(|id| id == settings.node_id) {
        return Ok(());
    }
    let voters: Vec<String> = voters.ids().map(|id| id.to_string()).collect();
    Err(StartError::NoQuorumListener { voters: voters.join(", ") })
}

/// The voters as long as no record of the metadata log names them.
fn static_voters(settings: &Settings) -> VoterSet {
    match settings.founding {
        Founding::Join => VoterSet::default(),
        _ if settings.static_voters.is_empty() => VoterSet::fixed([settings.node_id]),
        _ => VoterSet::fixed(settings.static_voters.keys().copied()),
    }
}

/// The listener on which other controllers are dialled.
fn quorum_listener(settings: &Settings) -> String {
    let first = settings.quorum_listeners().first();
    first.map_or_else(String::new, |listener| listener.name.clone())
}

/// This node as the voter that it is or may become.
fn own_voter(settings: &Settings, directories: &Directories) -> Voter {
    let endpoint = |listener: &AdvertisedListener| VoterEndpoint {
        name: listener.name.clone(),
        address: (listener.host.clone(), listener.port),
    };
    Voter {
        id: settings.node_id,
        directory_id: directories.metadata_directory_id(),
        endpoints: settings.quorum_listeners().iter().map(endpoint).collect(),
        kraft_versions: (0, 1),
    }
}
