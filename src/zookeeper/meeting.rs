//! How brokers whose files know no more than `zookeeper.connect` find each other (decision 8).
//!
//! Whoever can bind the address has the door there (`door.rs`); the others come as clients of ZooKeeper. Each registers
//! under `/brokers/ids`, and learns where the others listen. The cluster's id stands at `/cluster/id`: who makes that
//! node without having a cluster founds one, and only at the first address. When the door is gone, all look for it
//! again at once, and one of them has it next. Deliberately not here: everything that a cluster agrees on once it
//! exists. That is the metadata quorum's, and nobody is fenced because of the door.
//! Invariant: a broker that has seen a cluster's id neither founds nor joins another.
//! Source: Kafka's documentation, "Broker Configs" before 4.0, and its `ZkData`.

mod nodes;
mod place;

pub use nodes::{Address, ConnectString, Endpoint};

use super::wire::CreateMode;
use crate::env::Clock;
use crate::env::net::Connection;
use nodes::{CLUSTER_ID, CONTROLLER, IDS, ROOTS};
use place::{Made, Place, shown};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Wait before an address that could not be had, or was lost at once, is looked at again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often who waits says so.
const SAY_SO: Duration = Duration::from_secs(3);
/// How often a broker says so that goes on without.
const SAY_SO_SELDOM: Duration = Duration::from_secs(60);
/// How long the first at the door waits before it founds a cluster: brokers that have one and have just lost the door
/// come back within a millisecond.
const FOUNDER_PAUSE: Duration = Duration::from_millis(5);
/// How long a broker that is registered under this one's id may take to show that it lives.
const DIAL_PATIENCE: Duration = Duration::from_secs(2);
/// Registered brokers that are looked at.
const PEERS_MAX: usize = 1000;

/// Why brokers do not meet.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MeetingError {
    /// A server of Apache ZooKeeper is where brokers should meet.
    #[error(
        "a ZooKeeper answers at {address}, where brokers of Ottla meet without one: change zookeeper.connect, or \
         remove it for a broker alone; to take over what a Kafka left that worked with it, say \
         --from-zookeeper {address}"
    )]
    ZooKeeper {
        /// Where.
        address: String,
    },
    /// Somebody else listens there.
    #[error(
        "something that is not ZooKeeper listens at {address}: give zookeeper.connect an address that is free, or \
         remove it for a broker alone"
    )]
    Stranger {
        /// Where.
        address: String,
    },
    /// Nobody can be found there, and it cannot be taken.
    #[error(
        "no broker answers at {address} (zookeeper.connect), which this one cannot take: {cause}. Remove the key to run \
         a broker alone"
    )]
    Nobody {
        /// Where.
        address: String,
        /// Why.
        cause: String,
    },
    /// There is no cluster yet, and this broker may not found one.
    #[error(
        "waiting for the broker that has {first}, the first address of zookeeper.connect: only that one founds a cluster"
    )]
    NoFounder {
        /// The first address.
        first: String,
    },
    /// Another process has the id, and lives.
    #[error(
        "broker id {id} is in use: the broker at {other} has it, and this one at {own} cannot (change node.id or broker.id)"
    )]
    IdInUse {
        /// The id.
        id: i32,
        /// Where this broker listens.
        own: String,
        /// Where the other one does.
        other: String,
    },
    /// The brokers that meet there have another cluster.
    #[error(
        "the brokers that meet at {address} (zookeeper.connect) are of cluster {found}, and log.dirs of cluster {own}: \
         one of them is not what was meant"
    )]
    OtherCluster {
        /// Where.
        address: String,
        /// The id in the directories, or `ottla.cluster.id`.
        own: String,
        /// The id there.
        found: String,
    },
    /// The one who has the address is gone, or does not do what a ZooKeeper does.
    #[error("the broker where others meet is gone: {cause}")]
    Lost {
        /// What was seen of it.
        cause: String,
    },
}

impl MeetingError {
    /// Whether waiting is of no use.
    fn is_final(&self) -> bool {
        match self {
            MeetingError::ZooKeeper { .. }
            | MeetingError::Stranger { .. }
            | MeetingError::IdInUse { .. }
            | MeetingError::OtherCluster { .. } => true,
            MeetingError::Nobody { .. }
            | MeetingError::NoFounder { .. }
            | MeetingError::Lost { .. } => false,
        }
    }
}

/// What a broker is before it meets others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It has no metadata log, and needs to meet the others first.
    Newcomer,
    /// It has a place in a cluster, and can do without.
    Member,
}

/// Who goes where, and what for.
#[derive(Debug, Clone)]
pub struct MeetingParams {
    /// `zookeeper.connect`.
    pub connect: ConnectString,
    /// `broker.id`.
    pub node_id: i32,
    /// The broker's listeners as others reach them; the first is told to those who look for the quorum.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// The cluster that the directories or the configuration name.
    pub cluster_id: Option<String>,
    /// The id for a cluster that this broker founds.
    pub new_cluster_id: String,
    /// What it is.
    pub part: Part,
    /// For what nodes tell of their age.
    pub clock: Arc<dyn Clock>,
}

/// What came of meeting the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There was no cluster: this broker is to found one of this id.
    Found(String),
    /// There is one of this id.
    Join(String),
}

/// A broker's part in the meeting, until it leaves.
#[derive(Debug)]
pub struct Meeting {
    outcome: watch::Receiver<Option<Result<Outcome, MeetingError>>>,
    peers: watch::Receiver<Vec<Address>>,
    leads: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Meeting {
    /// Goes there.
    pub fn begin(params: MeetingParams) -> Meeting {
        let (outcome_sent, outcome) = watch::channel(None);
        let (peers_sent, peers) = watch::channel(Vec::new());
        let (leads, leads_seen) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let attendant = Attendant {
            cluster_id: params.cluster_id.clone(),
            has_founded: false,
            outcome: outcome_sent,
            peers: peers_sent,
            leads: leads_seen,
            stopped,
            said: None,
            params,
        };
        Meeting { outcome, peers, leads, stop, task: tokio::spawn(attendant.run()) }
    }

    /// What comes of it. Where the broker is a member already, that may take for ever.
    ///
    /// # Errors
    /// `ZooKeeper`, `Stranger` (both not for a member), `IdInUse`, `OtherCluster`.
    pub async fn outcome(&self) -> Result<Outcome, MeetingError> {
        let mut outcome = self.outcome.clone();
        let told = outcome.wait_for(Option::is_some).await.ok().and_then(|told| told.clone());
        told.unwrap_or_else(|| Err(MeetingError::Lost { cause: "this broker stops".to_owned() }))
    }

    /// Completes when it turns out that this broker may not be part of the cluster; the reason.
    pub async fn refused(&self) -> MeetingError {
        let mut outcome = self.outcome.clone();
        let refused = outcome.wait_for(|told| matches!(told, Some(Err(_)))).await;
        match refused.ok().and_then(|told| told.clone()) {
            Some(Err(error)) => error,
            // Nobody refuses any more.
            _ => std::future::pending().await,
        }
    }

    /// Where the other brokers listen that are there now.
    pub fn peers(&self) -> watch::Receiver<Vec<Address>> {
        self.peers.clone()
    }

    /// Notes whether this node is the active controller, which `/controller` tells.
    pub fn lead(&self, leads: bool) {
        self.leads.send_if_modified(|now| std::mem::replace(now, leads) != leads);
    }

    /// Leaves: what is registered is gone, and the address is free for another.
    pub async fn leave(self) {
        self.stop.send_replace(true);
        // A task that panicked has been reported by the runtime.
        let _ = self.task.await;
    }
}

struct Attendant {
    params: MeetingParams,
    /// The cluster as far as is known, from the directories or from the door.
    cluster_id: Option<String>,
    has_founded: bool,
    outcome: watch::Sender<Option<Result<Outcome, MeetingError>>>,
    peers: watch::Sender<Vec<Address>>,
    leads: watch::Receiver<bool>,
    stopped: watch::Receiver<bool>,
    said: Option<Instant>,
}

impl Attendant {
    async fn run(mut self) {
        let mut stopped = self.stopped.clone();
        loop {
            let begun = Instant::now();
            let attended = tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => return,
                place = self.arrive() => place,
            };
            let ended = match attended {
                Ok((mut place, index)) => {
                    let ended = tokio::select! {
                        biased;
                        _ = stopped.wait_for(|stop| *stop) => Ok(()),
                        ended = self.attend(&mut place, index) => ended,
                    };
                    place.leave().await;
                    ended
                }
                Err(error) => Err(error),
            };
            let Err(error) = ended else { continue };
            if self.is_refused(&error) {
                return;
            }
            // An address that was just lost is free: the first who comes has it.
            let is_lost = matches!(error, MeetingError::Lost { .. });
            if is_lost && begun.elapsed() > RETRY_PAUSE {
                continue;
            }
            self.say(&error);
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// Tells the outcome where the broker cannot be part of the cluster.
    fn is_refused(&mut self, error: &MeetingError) -> bool {
        let is_elsewhere =
            matches!(error, MeetingError::ZooKeeper { .. } | MeetingError::Stranger { .. });
        // A member does not need the address that it cannot have.
        let is_minor = is_elsewhere && self.params.part == Part::Member;
        if !error.is_final() || is_minor {
            return false;
        }
        if self.is_settled() {
            return false;
        }
        self.outcome.send_replace(Some(Err(error.clone())));
        true
    }

    /// Whether the outcome is told.
    fn is_settled(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    fn say(&mut self, error: &MeetingError) {
        let is_urgent = self.params.part == Part::Newcomer && !self.is_settled();
        let pause = if is_urgent { SAY_SO } else { SAY_SO_SELDOM };
        if self.said.is_none_or(|said| said.elapsed() >= pause) {
            self.said = Some(Instant::now());
            tracing::warn!("{error}");
        }
    }

    /// Goes to the first address that can be had.
    async fn arrive(&self) -> Result<(Place, usize), MeetingError> {
        let mut failure = None;
        for (index, address) in self.params.connect.servers.iter().enumerate() {
            match place::go(address, &self.params.clock).await {
                Ok(place) => return Ok((place, index)),
                Err(error @ MeetingError::Nobody { .. }) => {
                    failure.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let none = || MeetingError::Lost { cause: "zookeeper.connect is empty".to_owned() };
        Err(failure.unwrap_or_else(none))
    }

    /// Takes part until the place is lost, or a better one can be had.
    async fn attend(&mut self, place: &mut Place, index: usize) -> Result<(), MeetingError> {
        self.prepare(place).await?;
        if self.cluster_id.is_none() {
            place.open();
            tokio::time::sleep(FOUNDER_PAUSE).await;
        }
        while !self.settle(place, index).await? {
            let first = self.params.connect.servers.first().map(shown).unwrap_or_default();
            self.say(&MeetingError::NoFounder { first });
            match tokio::time::timeout(SAY_SO, self.wait(place, index)).await {
                Ok(Ok(Wait::Over)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(Wait::Changed)) | Err(_) => {}
            }
        }
        self.register(place).await?;
        place.open();
        let at = self.params.connect.servers.get(index).map(shown).unwrap_or_default();
        match place {
            Place::Own { .. } => tracing::info!("other brokers can meet this one at {at}"),
            Place::Guest { .. } => tracing::info!("meeting other brokers at {at}"),
        }
        self.tell();
        self.said = None;
        loop {
            self.mark_controller(place).await?;
            if self.wait(place, index).await? == Wait::Over {
                return Ok(());
            }
        }
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.params.connect.chroot)
    }

    /// Makes the nodes that hold the others.
    async fn prepare(&self, place: &Place) -> Result<(), MeetingError> {
        let chroot = &self.params.connect.chroot;
        let ends = chroot.match_indices('/').skip(1).map(|(at, _)| at).chain([chroot.len()]);
        for end in ends.filter(|end| *end > 0) {
            place.make(&chroot[..end], b"", CreateMode::Persistent).await?;
        }
        for root in ROOTS {
            place.make(&self.path(root), b"", CreateMode::Persistent).await?;
        }
        Ok(())
    }

    /// Sees that this broker and the door are of one cluster; false while there is none and it may not found one.
    async fn settle(&mut self, place: &Place, index: usize) -> Result<bool, MeetingError> {
        let path = self.path(CLUSTER_ID);
        loop {
            if let Some(node) = place.read(&path).await? {
                let unreadable = || MeetingError::Lost { cause: format!("{path} holds no id") };
                let found = nodes::cluster_id(&node).ok_or_else(unreadable)?;
                return match &self.cluster_id {
                    Some(own) if *own != found => Err(MeetingError::OtherCluster {
                        address: self
                            .params
                            .connect
                            .servers
                            .get(index)
                            .map(shown)
                            .unwrap_or_default(),
                        own: own.clone(),
                        found,
                    }),
                    _ => {
                        self.cluster_id = Some(found);
                        Ok(true)
                    }
                };
            }
            let id = match &self.cluster_id {
                Some(id) => id.clone(),
                None if index == 0 => self.params.new_cluster_id.clone(),
                None => return Ok(false),
            };
            // Of all who see that there is none, one makes it.
            let made = place.make(&path, &nodes::cluster(&id), CreateMode::Persistent).await?;
            if made == Made::Now && self.cluster_id.is_none() {
                self.has_founded = true;
                self.cluster_id = Some(id);
            }
        }
    }

    /// Registers this broker. One of the same id that is gone may still be registered; one that lives goes before.
    async fn register(&self, place: &Place) -> Result<(), MeetingError> {
        let params = &self.params;
        let path = format!("{}/{}", self.path(IDS), params.node_id);
        let now = params.clock.now().0;
        let node = nodes::broker(&params.endpoints, params.rack.as_deref(), now);
        while place.make(&path, &node, CreateMode::Ephemeral).await? == Made::Before {
            let Some(other) = place.read(&path).await? else { continue };
            let own = params.endpoints.first().map(|it| (it.host.clone(), it.port));
            if let Some(other) = nodes::broker_address(&other)
                && Some(&other) != own.as_ref()
                && Connection::dial(&other.0, other.1, DIAL_PATIENCE).await.is_ok()
            {
                return Err(MeetingError::IdInUse {
                    id: params.node_id,
                    own: own.as_ref().map(shown).unwrap_or_default(),
                    other: shown(&other),
                });
            }
            place.remove(&path).await?;
        }
        Ok(())
    }

    /// Tells the outcome, the first time.
    fn tell(&mut self) {
        if let Some(id) = self.cluster_id.clone().filter(|_| !self.is_settled()) {
            let told = if self.has_founded { Outcome::Found(id) } else { Outcome::Join(id) };
            self.outcome.send_replace(Some(Ok(told)));
        }
    }

    /// Makes `/controller` this node's while it is the active controller.
    async fn mark_controller(&mut self, place: &Place) -> Result<(), MeetingError> {
        let path = self.path(CONTROLLER);
        let own = self.params.node_id;
        let named = place.read(&path).await?;
        let is_own = named.as_deref().and_then(nodes::controller_id) == Some(own);
        let leads = *self.leads.borrow_and_update();
        match (leads, is_own) {
            (true, false) => {
                place.remove(&path).await?;
                let node = nodes::controller(own, self.params.clock.now().0);
                place.make(&path, &node, CreateMode::Ephemeral).await?;
            }
            (false, true) => place.remove(&path).await?,
            _ => {}
        }
        Ok(())
    }

    /// Tells of the others that are here, and waits until something has changed.
    async fn wait(&mut self, place: &Place, index: usize) -> Result<Wait, MeetingError> {
        let ids = self.path(IDS);
        let (names, changed) = place.children(&ids).await?;
        let mut peers = Vec::new();
        for name in names.iter().filter(|name| **name != self.params.node_id.to_string()) {
            let node = place.read(&format!("{ids}/{name}")).await?;
            peers.extend(node.and_then(|node| nodes::broker_address(&node)));
            if peers.len() >= PEERS_MAX {
                break;
            }
        }
        self.peers.send_if_modified(|now| {
            let is_new = *now != peers;
            *now = peers;
            is_new
        });
        let mut leads = self.leads.clone();
        tokio::select! {
            biased;
            () = place.lost() => {
                Err(MeetingError::Lost { cause: "its connection has ended".to_owned() })
            }
            () = changed.wait() => Ok(Wait::Changed),
            // An error is that of a meeting that nobody has any more: it is about to stop.
            _ = leads.changed() => Ok(Wait::Changed),
            () = self.earlier(index) => Ok(Wait::Over),
        }
    }

    /// Completes when there is a door at an earlier address than this: all are to be at one.
    async fn earlier(&self, index: usize) {
        if index == 0 {
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep(RETRY_PAUSE).await;
            for address in self.params.connect.servers.iter().take(index) {
                if place::is_door(address).await {
                    return;
                }
            }
        }
    }
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Changed,
    /// There is a better place.
    Over,
}

#[cfg(test)]
mod tests;
