//! Prints what was measured, a line each as it is known.

use super::{CONTROLLERS, Cluster, Reading};
use crate::node::CONTROLLER_PORT;
use ottla::env::sim_traffic::Traffic;
use ottla_protocol::ApiKey;
use ottla_protocol::request::QUORUM_MESSAGE_KEY;
use std::collections::BTreeMap;
use std::time::Duration;

/// Prints; and knows what is measured against.
pub(super) struct Report {
    cluster: Cluster,
    /// Resident bytes of the process before there were partitions.
    resident_before: u64,
}

fn line(what: &str, value: &str) {
    println!("{what:<58} {value}");
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// Resident bytes of this process; 0 off Linux.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The CPU time between two readings: of the busiest controller, of a broker on average, and of the busiest one.
struct Spent {
    controller: Duration,
    broker_mean: Duration,
    broker_max: Duration,
}

impl Spent {
    fn between(before: &Reading, after: &Reading) -> Spent {
        let each: Vec<Duration> = {
            let both = before.cpu.iter().zip(&after.cpu);
            both.map(|(before, after)| after.saturating_sub(*before)).collect()
        };
        let (controllers, brokers) = each.split_at(CONTROLLERS);
        let total: Duration = brokers.iter().sum();
        Spent {
            controller: controllers.iter().max().copied().unwrap_or_default(),
            broker_mean: total / brokers.len() as u32,
            broker_max: brokers.iter().max().copied().unwrap_or_default(),
        }
    }

    fn print(&self, of: &str) {
        let (controller, mean) = (seconds(self.controller), seconds(self.broker_mean));
        let brokers = format!("{mean} a broker ({} the busiest)", seconds(self.broker_max));
        line(&format!("CPU time, {of}"), &format!("{controller} the active controller, {brokers}"));
    }
}

/// What nodes asked of nodes between two readings, by port and API.
fn traffic(cluster: Cluster, before: &Reading, after: &Reading) -> BTreeMap<(u16, i16), Traffic> {
    let mut all: BTreeMap<(u16, i16), Traffic> = BTreeMap::new();
    let nodes = CONTROLLERS + cluster.brokers;
    for (kind, now) in after.requests.iter().filter(|(kind, _)| kind.from < nodes) {
        let earlier = before.requests.get(kind).copied().unwrap_or_default();
        let sum = all.entry((kind.port, kind.api_key)).or_default();
        sum.requests += now.requests - earlier.requests;
        sum.request_bytes += now.request_bytes - earlier.request_bytes;
        sum.answer_bytes += now.answer_bytes - earlier.answer_bytes;
    }
    all.retain(|_, traffic| *traffic != Traffic::default());
    all
}

fn name((port, api_key): (u16, i16)) -> String {
    let whose = if port == CONTROLLER_PORT { "controllers" } else { "brokers" };
    match ApiKey::from_code(api_key) {
        Some(api) => format!("{} at {whose}", api.name()),
        None if api_key == QUORUM_MESSAGE_KEY => format!("quorum's messages at {whose}"),
        None => format!("{api_key} at {whose}"),
    }
}

impl Report {
    pub(super) fn new(cluster: Cluster) -> Report {
        Report { cluster, resident_before: 0 }
    }

    /// The nodes have joined, and there are no partitions.
    pub(super) fn begin(&mut self) {
        self.resident_before = resident();
        let Cluster { brokers, partitions, leaders } = self.cluster;
        line("brokers, beside 3 controllers", &brokers.to_string());
        line("partitions of three replicas", &partitions.to_string());
        line("of these led by the broker that dies", &leaders.to_string());
        line("memory of the process before (RSS)", &megabytes(self.resident_before));
    }

    /// All partitions are there, on all nodes.
    pub(super) fn created(&self, before: &Reading, after: &Reading) {
        let took = after.at_ms - before.at_ms;
        line("partitions created, simulated time", &format!("{took} ms"));
        Spent::between(before, after).print("creating them");
    }

    /// The bytes of a metadata log, the newest snapshot's records and bytes, and the bytes of all simulated files.
    pub(super) fn metadata(&self, log: u64, snapshot: Option<(u64, u64)>, disks: u64) {
        let partitions = self.cluster.partitions as f64;
        let each = log as f64 / partitions;
        line("metadata log", &format!("{}, {each:.1} bytes a partition", megabytes(log)));
        if let Some((records, bytes)) = snapshot {
            let each = bytes as f64 / records as f64;
            line("snapshot", &format!("{each:.1} bytes a record ({records} records)"));
        }
        let grown = resident().saturating_sub(self.resident_before);
        let nodes = CONTROLLERS + self.cluster.brokers;
        line("memory of the process, more since (RSS)", &megabytes(grown));
        line("of this simulated files, each held twice", &megabytes(disks * 2));
        let left = grown.saturating_sub(disks * 2) as f64 / nodes as f64 / partitions;
        let what = format!("the rest by {nodes} nodes, their replicas among it");
        line(&what, &format!("{left:.0} bytes a partition"));
    }

    /// Nothing was asked of the cluster between these.
    pub(super) fn idle(&self, before: &Reading, after: &Reading) {
        let span = (after.at_ms - before.at_ms) as f64 / 1000.0;
        let (mut requests, mut bytes) = (0.0, 0.0);
        for (kind, of) in traffic(self.cluster, before, after) {
            let rate = of.requests as f64 / span;
            let sent = (of.request_bytes + of.answer_bytes) as f64 / span;
            (requests, bytes) = (requests + rate, bytes + sent);
            line(&format!("idle: {}", name(kind)), &format!("{rate:.1}/s, {sent:.0} bytes/s"));
        }
        line("idle: all", &format!("{requests:.1}/s, {bytes:.0} bytes/s"));
        Spent::between(before, after).print(&format!("idle, {span:.0} s of simulated time"));
    }

    /// The broker died at the first reading; leaders were elected at the second, on all nodes at the third, and all
    /// their partitions were written at the fourth.
    pub(super) fn death(&self, affected: usize, at: [&Reading; 4]) {
        let [death, elected, published, written] = at;
        let since = |reading: &Reading| format!("{} ms", reading.at_ms - death.at_ms);
        line("partitions that lost their leader", &affected.to_string());
        line("  until all have another, in a controller's image", &since(elected));
        line("  until all nodes know them", &since(published));
        line("  until each has taken a record with acks=all", &since(written));
        let sent = traffic(self.cluster, death, published);
        let of = |key| sent.get(&(CONTROLLER_PORT, key)).copied().unwrap_or_default();
        let fetched = of(ApiKey::Fetch as i16).answer_bytes;
        let each = fetched as f64 / (self.cluster.brokers - 1) as f64 / affected as f64;
        let fetched = megabytes(fetched);
        line("  metadata sent to brokers", &format!("{fetched}, {each:.1} bytes a partition each"));
        let voters = megabytes(of(QUORUM_MESSAGE_KEY).request_bytes);
        line("  metadata sent to other voters", &voters);
        Spent::between(death, elected).print("electing them");
        Spent::between(elected, published).print("taking them over");
        Spent::between(published, written).print("the first records after");
    }

    /// The broker was started at the first reading, and was in sync at the second.
    pub(super) fn back(&self, before: &Reading, after: &Reading) {
        let took = after.at_ms - before.at_ms;
        line("until the broker is back in all ISRs, simulated time", &format!("{took} ms"));
        Spent::between(before, after).print("coming back");
    }

    /// All was as it should be.
    pub(super) fn end(&self) {
        line("memory of the process at the end (RSS)", &megabytes(resident()));
        println!(
            "each partition has a leader and three replicas in sync, and what was written is there"
        );
    }
}
