//! No acknowledged record is lost, each is there exactly once, and each producer's are in its order.
//!
//! Looked at when the fate of every record is known: then what a partition holds of a producer is exactly what it sent.

use super::{Finding, Replica};
use crate::history::{History, Place};
use crate::workload;
use std::collections::{BTreeMap, BTreeSet};

/// One partition's records, and what names their batches.
#[derive(Debug, Default)]
struct Found {
    records: BTreeMap<i64, String>,
    sequences: BTreeSet<(i64, i16, i32)>,
    /// A sequence that is there twice.
    twice: Option<(i64, i16, i32)>,
}

/// What the leader of a partition has.
fn found(replicas: &[Replica], place: &Place) -> Result<Found, String> {
    let leader = replicas.iter().find(|it| it.is_at(place) && it.partition.is_leader());
    let leader = leader.ok_or_else(|| format!("{place:?} has no leader"))?;
    let (mut found, mut wrong) = (Found::default(), None);
    let replayed = leader.partition.replay(|header, batch| {
        let sequence = (header.producer_id.0, header.producer_epoch.0, header.base_sequence);
        if header.producer_id.0 >= 0 && !found.sequences.insert(sequence) {
            found.twice = Some(sequence);
        }
        match workload::values(header, batch) {
            Ok(values) => found.records.extend(values),
            Err(cause) => wrong = Some(format!("{place:?}: {cause}")),
        }
        Ok(())
    });
    replayed.map_err(|error| format!("{place:?} cannot be read: {error}"))?;
    wrong.map_or(Ok(found), Err)
}

/// Every acknowledged record is there, where the acknowledgement said.
pub(super) fn check_lost(replicas: &[Replica], history: &History) -> Finding {
    for (place, acknowledged) in &history.acknowledged {
        let found = found(replicas, place)?;
        let there: BTreeSet<&String> = found.records.values().collect();
        for (value, offset) in acknowledged {
            let is_there = match offset {
                Some(offset) => found.records.get(offset) == Some(value),
                None => there.contains(value),
            };
            if !is_there {
                let instead = offset.and_then(|offset| found.records.get(&offset));
                return Err(format!(
                    "{place:?}: {value} was acknowledged at {offset:?}, where {instead:?} is"
                ));
            }
        }
    }
    Ok(())
}

/// Every record that a consumer has seen is there.
pub(super) fn check_reads(replicas: &[Replica], history: &History) -> Finding {
    for (place, read) in &history.read {
        let found = found(replicas, place)?;
        for (offset, value) in read {
            let there = found.records.get(offset);
            if there != Some(value) {
                return Err(format!(
                    "{place:?}: a consumer read {value} at offset {offset}, where {there:?} is"
                ));
            }
        }
    }
    Ok(())
}

/// What is there of each producer is what it sent, in its order.
pub(super) fn check_exactly_once(replicas: &[Replica], history: &History) -> Finding {
    for (place, sent) in &history.sent {
        let found = found(replicas, place)?;
        if let Some(sequence) = found.twice {
            return Err(format!("{place:?} has the sequence {sequence:?} twice"));
        }
        let mut by_producer: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for value in found.records.values() {
            let producer = value.split('/').next().unwrap_or_default();
            by_producer.entry(producer).or_default().push(value);
        }
        for (producer, sent) in sent {
            let there = by_producer.get(producer.as_str()).map(Vec::as_slice).unwrap_or_default();
            let differs = sent.iter().zip(there).position(|(sent, there)| sent != there);
            if differs.is_some() || sent.len() != there.len() {
                let at = differs.unwrap_or(sent.len().min(there.len()));
                return Err(format!(
                    "{place:?}: {producer} sent {} records, {} are there; from number {at} on: sent {:?}, there {:?}",
                    sent.len(),
                    there.len(),
                    sent.get(at),
                    there.get(at)
                ));
            }
        }
    }
    Ok(())
}
