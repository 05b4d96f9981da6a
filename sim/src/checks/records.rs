//! No acknowledged record is lost, each is there exactly once, and each producer's are in its order.
//!
//! Looked at when the fate of every record is known: then what a partition holds of a producer is exactly what it sent.

use super::{Check, Replica};
use crate::history::{History, Place};
use crate::workload;
use std::collections::{BTreeMap, BTreeSet};

/// One partition's records, and what names their batches.
#[derive(Debug, Default)]
struct Found {
    records: BTreeMap<i64, String>,
    sequences: BTreeSet<(i64, i16, i32)>,
}

fn found(it: &Replica) -> Result<Found, String> {
    let (mut found, mut wrong) = (Found::default(), None);
    let replayed = it.partition.replay(|header, batch| {
        let sequence = (header.producer_id.0, header.producer_epoch.0, header.base_sequence);
        if header.producer_id.0 >= 0 && !found.sequences.insert(sequence) {
            wrong = Some(format!("{:?} has the sequence {sequence:?} twice", it.place));
        }
        match workload::values(header, batch) {
            Ok(values) => found.records.extend(values),
            Err(cause) => wrong = Some(format!("{:?}: {cause}", it.place)),
        }
        Ok(())
    });
    replayed.map_err(|error| format!("{:?} cannot be read: {error}", it.place))?;
    match wrong {
        Some(wrong) => Err(wrong),
        None => Ok(found),
    }
}

/// Looks at the records of all partitions, as their leaders have them.
pub(super) fn check(replicas: &[Replica], history: &History) -> Check {
    for (place, sent) in &history.sent {
        let leader = replicas.iter().find(|it| it.place == *place && it.partition.is_leader());
        let found = found(leader.ok_or_else(|| format!("{place:?} has no leader"))?)?;
        check_acknowledged(place, &found, history)?;
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
                    "{place:?}: producer {producer} sent {} records and {} are there; from number {at} on: sent {:?}, there {:?}",
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

fn check_acknowledged(place: &Place, found: &Found, history: &History) -> Check {
    for (value, offset) in history.acknowledged.get(place).into_iter().flatten() {
        let Some(offset) = offset else { continue };
        let there = found.records.get(offset);
        if there != Some(value) {
            return Err(format!(
                "{place:?}: {value} was acknowledged at offset {offset}, where {there:?} is"
            ));
        }
    }
    for (offset, value) in history.read.get(place).into_iter().flatten() {
        let there = found.records.get(offset);
        if there != Some(value) {
            return Err(format!(
                "{place:?}: a consumer read {value} at offset {offset}, where {there:?} is"
            ));
        }
    }
    Ok(())
}
