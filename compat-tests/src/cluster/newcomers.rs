//! Nodes that come later: those that are added to a quorum of one, and brokers that are no voters.

use std::net::Ipv4Addr;

use super::mode::{broker_mode, mode};
use super::{COMMON, Cluster};
use crate::broker::{Broker, CLUSTER_ID, Seat, Side, free_port};
use crate::paths::Paths;

impl Cluster {
    /// Formats the directories of nodes of which the first is a quorum to which the others can be added, and starts
    /// nothing yet.
    ///
    /// # Errors
    /// If a directory cannot be formatted.
    pub fn seat_growing(
        paths: &Paths,
        side: Side,
        count: usize,
        overrides: &[&str],
    ) -> Result<Cluster, String> {
        let host = Ipv4Addr::LOCALHOST;
        let first = free_port()?;
        let bootstrap = format!("controller.quorum.bootstrap.servers={host}:{first}");
        let mut nodes = Vec::new();
        for id in (1..).take(count) {
            let (port, controller) = (free_port()?, if id == 1 { first } else { free_port()? });
            let mut mode = mode(id, "", host, (port, controller));
            mode.retain(|line| !line.starts_with("controller.quorum.voters="));
            mode.push(bootstrap.clone());
            let format: &[&str] =
                if id == 1 { &["--standalone"] } else { &["--no-initial-controllers"] };
            let seat = Seat { host, port, mode, prefix: Vec::new(), cluster_id: None, format };
            nodes.push(Broker::seat(paths, side, seat, overrides)?);
        }
        Ok(Cluster { side, nodes, voters: String::new(), paused: Vec::new() })
    }

    /// Formats the directories of nodes of these sides, of which the first is the only voter and the others are brokers
    /// alone, and starts nothing yet.
    ///
    /// # Errors
    /// If a directory cannot be formatted.
    pub fn seat_mixed(
        paths: &Paths,
        sides: &[Side],
        overrides: &[&str],
    ) -> Result<Cluster, String> {
        let host = Ipv4Addr::LOCALHOST;
        let controller = free_port()?;
        let voters = format!("1@{host}:{controller}");
        let overrides = [&COMMON[..], overrides].concat();
        let mut nodes = Vec::new();
        for (id, side) in (1..).zip(sides) {
            let port = free_port()?;
            let mode = match id {
                1 => mode(id, &voters, host, (port, controller)),
                _ => broker_mode(id, &voters, host, port),
            };
            let (cluster_id, prefix) = (Some(CLUSTER_ID), Vec::new());
            let seat = Seat { host, port, mode, prefix, cluster_id, format: &[] };
            nodes.push(Broker::seat(paths, *side, seat, &overrides)?);
        }
        let side = sides.first().copied().unwrap_or(Side::Ottla);
        Ok(Cluster { side, nodes, voters, paused: Vec::new() })
    }

    /// Formats the directory of a broker that is no voter and does not belong to the nodes.
    ///
    /// # Errors
    /// If it cannot be formatted.
    pub fn seat_broker(
        &self,
        paths: &Paths,
        id: i32,
        cluster_id: Option<&'static str>,
    ) -> Result<Broker, String> {
        let (host, port) = (Ipv4Addr::LOCALHOST, free_port()?);
        let mode = broker_mode(id, &self.voters, host, port);
        let seat = Seat { host, port, mode, prefix: Vec::new(), cluster_id, format: &[] };
        // Apache Kafka tries for a minute to register what is refused.
        let soon = ["initial.broker.registration.timeout.ms=8000"];
        Broker::seat(paths, self.side, seat, &[&COMMON[..], &soon[..]].concat())
    }
}
