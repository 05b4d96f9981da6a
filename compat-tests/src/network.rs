//! A network of its own for a cluster: each node in a network namespace, joined by a bridge, so that links can be cut,
//! in one direction too, or be slow.
//!
//! All of it is in namespaces of this process ([`crate::volume::enter`] with `-n`): whatever happens to it, nothing is
//! left to the machine. A cut is a wrong hardware address for a peer: packets leave and reach nobody, without any
//! answer, as when a switch fails; open connections stay open. A slow link is a token bucket (`tc tbf`), since the
//! kernels of small virtual machines have no `netem`.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::cluster::Place;
use crate::java::checked;

/// Nobody's hardware address.
const NOBODY: &str = "02:00:00:00:00:ff";
/// What the link of a slow node lets through: less than two loads want, behind a queue of so much time.
const SLOW: [&str; 6] = ["rate", "1500kbit", "burst", "8kb", "latency", "300ms"];

/// Namespaces `node-1`, `node-2` and so on, with addresses 10.77.0.1 and so on; this process is at 10.77.0.254.
pub struct Network {
    nodes: Vec<i32>,
}

impl Network {
    /// Makes it, in a network namespace and a mount namespace that this process has for itself.
    ///
    /// # Errors
    /// If something of it cannot be made.
    pub fn new(nodes: Vec<i32>) -> Result<Network, String> {
        run(&["mkdir", "-p", "/run/netns"])?;
        run(&["mount", "-t", "tmpfs", "tmpfs", "/run/netns"])?;
        run(&["ip", "link", "set", "lo", "up"])?;
        run(&["ip", "link", "add", "nodes", "type", "bridge"])?;
        run(&["ip", "addr", "add", "10.77.0.254/24", "dev", "nodes"])?;
        run(&["ip", "link", "set", "nodes", "up"])?;
        for id in &nodes {
            let (name, port) = (name(*id), format!("port-{id}"));
            run(&["ip", "netns", "add", &name])?;
            let there = ["peer", "name", "eth0", "netns", &name];
            let add = ["ip", "link", "add", port.as_str(), "type", "veth"];
            run(&[&add[..], &there[..]].concat())?;
            run(&["ip", "link", "set", &port, "master", "nodes", "up"])?;
            let address = format!("{}/24", host(*id));
            run(&["ip", "-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            run(&["ip", "-n", &name, "link", "set", "eth0", "up"])?;
            run(&["ip", "-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(Network { nodes })
    }

    /// Where the nodes run.
    pub fn places(&self) -> Vec<Place> {
        let places = self.nodes.iter().map(|id| Place {
            host: host(*id),
            prefix: ["ip", "netns", "exec", &name(*id)].map(str::to_owned).to_vec(),
            log_dir: None,
        });
        places.collect()
    }

    /// Lets nothing through any more from one node to another.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn cut(&self, from: i32, to: i32) -> Result<(), String> {
        self.lead_astray(from, &host(to).to_string())
    }

    /// Lets nothing through any more from one node to clients; what they send it reaches it still.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn cut_from_clients(&self, from: i32) -> Result<(), String> {
        self.lead_astray(from, "10.77.0.254")
    }

    fn lead_astray(&self, from: i32, to: &str) -> Result<(), String> {
        let name = name(from);
        let neighbour = ["neigh", "replace", to, "lladdr", NOBODY, "nud", "permanent"];
        run(&[&["ip", "-n", &name], &neighbour[..], &["dev", "eth0"]].concat())
    }

    /// Makes what a node sends slow.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn slow(&self, from: i32) -> Result<(), String> {
        let name = name(from);
        let place = ["tc", "-n", name.as_str(), "qdisc", "replace", "dev", "eth0", "root", "tbf"];
        run(&[&place[..], &SLOW[..]].concat())
    }

    /// Makes everything whole and fast again.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn heal(&self) -> Result<(), String> {
        for id in &self.nodes {
            let name = name(*id);
            run(&["ip", "-n", &name, "neigh", "flush", "dev", "eth0", "nud", "permanent"])?;
            let listed = output(&["tc", "-n", &name, "qdisc", "show", "dev", "eth0", "root"])?;
            if listed.contains("tbf") {
                run(&["tc", "-n", &name, "qdisc", "del", "dev", "eth0", "root"])?;
            }
        }
        Ok(())
    }
}

fn name(id: i32) -> String {
    format!("node-{id}")
}

fn host(id: i32) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(id).unwrap_or_default())
}

fn run(words: &[&str]) -> Result<(), String> {
    output(words).map(drop)
}

fn output(words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    checked(&mut command, &words.join(" "))
}
