//! A status as text for a terminal, and as JSON.

use super::{Quorum, Status, Trouble};
use serde_json::{Value, json};
use std::fmt::{Display, Write as _};

/// Partitions that are listed; the rest are counted.
const LISTED_MAX: usize = 20;

impl Trouble {
    fn text(self) -> &'static str {
        match self {
            Trouble::Offline => "no leader",
            Trouble::UnderMinIsr => "below min.insync.replicas",
            Trouble::LastReplica => "one replica in sync",
            Trouble::UnderReplicated => "under-replicated",
        }
    }
}

impl Status {
    /// Lines for a terminal; the last one is the verdict.
    pub fn to_text(&self) -> String {
        let mut text = format!("cluster {}\n\n", self.cluster_id);
        let head = ["BROKER", "ADDRESS", "RACK", "LEADS", "REPLICAS", "OUT-OF-SYNC"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.brokers.iter().map(|it| {
            let (leads, replicas) = (it.leads.to_string(), it.replicas.to_string());
            let rack = if it.rack.is_empty() { "-" } else { &it.rack };
            let out_of_sync = it.out_of_sync.to_string();
            [it.id.to_string(), it.address.clone(), rack.to_owned(), leads, replicas, out_of_sync]
        }));
        rows.extend(self.missing_brokers.iter().map(|id| {
            let dash = "-".to_owned();
            let gone = "not there".to_owned();
            [id.to_string(), gone, dash.clone(), dash.clone(), dash.clone(), dash]
        }));
        table(&mut text, &rows);
        if let Ok(quorum) = &self.quorum {
            text.push('\n');
            show_quorum(&mut text, quorum);
        }
        // A write to a string cannot fail.
        let _ = writeln!(text, "\n{} topics, {} partitions", self.topics, self.partitions);
        for one in self.troubled.iter().take(LISTED_MAX) {
            let _ = writeln!(
                text,
                "  {}: {}, leader {}, in sync {} of {}",
                one.name,
                one.trouble.text(),
                if one.leader < 0 { "none".to_owned() } else { one.leader.to_string() },
                list(&one.isr),
                list(&one.replicas),
            );
        }
        if let more @ 1.. = self.troubled.len().saturating_sub(LISTED_MAX) {
            let _ = writeln!(text, "  and {more} more");
        }
        let risks = self.risks();
        let _ = match (risks.is_empty(), self.troubled.is_empty()) {
            (false, _) => writeln!(text, "DATA AT RISK: {}", risks.join("; ")),
            (true, false) => {
                writeln!(
                    text,
                    "no data at risk; under-replicated partitions: {}",
                    self.troubled.len()
                )
            }
            (true, true) => writeln!(text, "all is well"),
        };
        text
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        let brokers = self.brokers.iter().map(|it| {
            json!({
                "id": it.id, "address": it.address, "rack": it.rack, "leads": it.leads,
                "replicas": it.replicas, "outOfSync": it.out_of_sync,
            })
        });
        let troubled = self.troubled.iter().map(|it| {
            json!({
                "partition": it.name, "trouble": it.trouble.text(), "leader": it.leader,
                "replicas": it.replicas, "isr": it.isr,
            })
        });
        let value = json!({
            "clusterId": self.cluster_id,
            "brokers": brokers.collect::<Vec<_>>(),
            "missingBrokers": self.missing_brokers,
            "quorum": self.quorum.as_ref().ok().map(quorum_json),
            "topics": self.topics,
            "partitions": self.partitions,
            "troubledPartitions": troubled.collect::<Vec<_>>(),
            "risks": self.risks(),
        });
        format!("{value}\n")
    }
}

fn quorum_json(quorum: &Quorum) -> Value {
    let members = quorum.members.iter().map(|it| {
        json!({
            "id": it.id, "isVoter": it.is_voter, "isLeader": it.is_leader,
            "logEndOffset": it.log_end_offset, "lag": it.lag, "behindMs": it.behind_ms,
        })
    });
    json!({ "leaderEpoch": quorum.leader_epoch, "members": members.collect::<Vec<_>>() })
}

fn show_quorum(text: &mut String, quorum: &Quorum) {
    let _ = writeln!(text, "metadata quorum, epoch {}", quorum.leader_epoch);
    let head = ["NODE", "ROLE", "LOG-END", "LAG", "BEHIND-MS"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(quorum.members.iter().map(|it| {
        let role = match (it.is_leader, it.is_voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "observer",
        };
        let end = or_dash((it.log_end_offset >= 0).then_some(it.log_end_offset));
        [it.id.to_string(), role.to_owned(), end, or_dash(it.lag), or_dash(it.behind_ms)]
    }));
    table(text, &rows);
}

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

fn list(ids: &[i32]) -> String {
    let ids: Vec<String> = ids.iter().map(i32::to_string).collect();
    format!("[{}]", ids.join(","))
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
}
