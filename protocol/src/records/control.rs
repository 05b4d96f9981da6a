//! Control records: the markers in control batches, which clients never see.
//!
//! A key is INT16 version and INT16 type. Types 0 and 1 end a transaction in a data partition
//! (KIP-98); the others belong to a quorum's log and its snapshots (KIP-595, KIP-630, KIP-853).

use bytes::Bytes;

use crate::messages::{
    EndTxnMarker, KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord,
    SnapshotHeaderRecord, VotersRecord,
};
use crate::wire::{Message, Reader, WireError, Writer};

/// Version of a control record's key.
const KEY_VERSION: i16 = 0;

/// A control record.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlRecord {
    /// A transaction ends and its records are void.
    Abort(EndTxnMarker),
    /// A transaction ends and its records count.
    Commit(EndTxnMarker),
    /// First record of a leader's epoch in a quorum's log.
    LeaderChange(LeaderChangeMessage),
    /// First record of a snapshot.
    SnapshotHeader(SnapshotHeaderRecord),
    /// Last record of a snapshot.
    SnapshotFooter(SnapshotFooterRecord),
    /// The finalized `kraft.version`.
    KRaftVersion(KRaftVersionRecord),
    /// The voters of a quorum.
    Voters(VotersRecord),
    /// A type of the future, to be passed over.
    Unknown {
        /// The type in the key.
        type_id: i16,
    },
}

impl ControlRecord {
    /// The type in the key.
    pub fn type_id(&self) -> i16 {
        match self {
            ControlRecord::Abort(_) => 0,
            ControlRecord::Commit(_) => 1,
            ControlRecord::LeaderChange(_) => 2,
            ControlRecord::SnapshotHeader(_) => 3,
            ControlRecord::SnapshotFooter(_) => 4,
            ControlRecord::KRaftVersion(_) => 5,
            ControlRecord::Voters(_) => 6,
            ControlRecord::Unknown { type_id } => *type_id,
        }
    }

    /// The record's key.
    pub fn key(&self) -> Bytes {
        let mut w = Writer::default();
        w.i16(KEY_VERSION);
        w.i16(self.type_id());
        w.freeze()
    }

    /// The record's value, in the version that Kafka writes. `LeaderChange` is of version 1 only
    /// where it has what version 0 lacks: directory ids, which `kraft.version` 1 brings.
    pub fn value(&self) -> Bytes {
        match self {
            ControlRecord::Abort(marker) | ControlRecord::Commit(marker) => {
                let mut w = Writer::default();
                w.i16(0);
                marker.encode(&mut w, 0);
                w.freeze()
            }
            ControlRecord::LeaderChange(message) => {
                let voters = message.voters.iter().chain(&message.granting_voters);
                let has_directories =
                    voters.into_iter().any(|voter| !voter.voter_directory_id.is_nil());
                message.to_bytes(i16::from(message.version == 1 || has_directories))
            }
            ControlRecord::SnapshotHeader(record) => record.to_bytes(0),
            ControlRecord::SnapshotFooter(record) => record.to_bytes(0),
            ControlRecord::KRaftVersion(record) => record.to_bytes(0),
            ControlRecord::Voters(record) => record.to_bytes(0),
            ControlRecord::Unknown { .. } => Bytes::new(),
        }
    }

    /// The type in a control record's key.
    ///
    /// # Errors
    /// `Short`, and `Invalid` for a negative version of the key.
    pub fn type_of_key(key: &Bytes) -> Result<i16, WireError> {
        let mut r = Reader::new(key.clone());
        let version = r.i16()?;
        if version < 0 {
            return Err(WireError::Invalid(format!("control record key of version {version}")));
        }
        r.i16()
    }

    /// Reads a control record. Key and value may be of later versions, which only add to the end.
    ///
    /// # Errors
    /// What is wrong with key or value.
    pub fn decode(key: &Bytes, value: &Bytes) -> Result<ControlRecord, WireError> {
        let type_id = Self::type_of_key(key)?;
        let mut r = Reader::new(value.clone());
        Ok(match type_id {
            0 => ControlRecord::Abort(marker(&mut r)?),
            1 => ControlRecord::Commit(marker(&mut r)?),
            2 => ControlRecord::LeaderChange(leader_change(value)?),
            3 => ControlRecord::SnapshotHeader(SnapshotHeaderRecord::decode(&mut r, 0)?),
            4 => ControlRecord::SnapshotFooter(SnapshotFooterRecord::decode(&mut r, 0)?),
            5 => ControlRecord::KRaftVersion(KRaftVersionRecord::decode(&mut r, 0)?),
            6 => ControlRecord::Voters(VotersRecord::decode(&mut r, 0)?),
            type_id => ControlRecord::Unknown { type_id },
        })
    }
}

fn marker(r: &mut Reader) -> Result<EndTxnMarker, WireError> {
    let version = r.i16()?;
    if version < 0 {
        return Err(WireError::Invalid(format!("end transaction marker of version {version}")));
    }
    EndTxnMarker::decode(r, 0)
}

/// The message begins with its own version, but only version 1 changes what follows.
fn leader_change(value: &Bytes) -> Result<LeaderChangeMessage, WireError> {
    let version = Reader::new(value.clone()).i16()?;
    let mut r = Reader::new(value.clone());
    LeaderChangeMessage::decode(&mut r, i16::from(version >= 1))
}
