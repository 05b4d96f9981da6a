//! Who votes by what the log says, and the batch with which a leader names them.

use super::super::voter_set::{VoterHistory, VoterSet};
use super::{Inner, MetadataLog};
use bytes::Bytes;
use ottla_protocol::messages::LeaderChangeMessage;
use ottla_protocol::messages::leader_change_message::Voter;
use ottla_protocol::record::{BatchBuilder, BatchParams};
use ottla_protocol::records::control::ControlRecord;
use ottla_protocol::{BrokerId, LeaderEpoch, Offset};
use std::sync::Arc;
use tokio::sync::watch;

impl MetadataLog {
    /// Who votes: those of the newest record in the log, committed or not.
    pub fn voters(&self) -> Arc<VoterSet> {
        Arc::clone(self.inner.lock().voters.latest())
    }

    /// Who votes, and the offset up to which a leader must have committed before it changes that.
    pub fn voters_and_settled(&self) -> (Arc<VoterSet>, Offset) {
        let inner = self.inner.lock();
        (Arc::clone(inner.voters.latest()), inner.settled_at)
    }

    /// Tells of changes of the voters.
    pub fn voter_changes(&self) -> watch::Receiver<Arc<VoterSet>> {
        self.voters.subscribe()
    }

    /// Takes the voters of a snapshot that everything up to `index` is in.
    pub fn set_snapshot_voters(&self, voters: VoterSet, index: Option<u64>) {
        let mut inner = self.inner.lock();
        let later = inner.voters.latest_index().filter(|at| index.is_none_or(|index| *at > index));
        match later {
            Some(_) => inner.voters.set_base(voters),
            None => inner.voters = VoterHistory::new(voters),
        }
        self.tell_voters(&inner);
    }

    pub(super) fn tell_voters(&self, inner: &Inner) {
        let latest = Arc::clone(inner.voters.latest());
        for voter in latest.iter() {
            if let Some(address) = voter.address(&self.params.listener) {
                self.params.addresses.set(voter.id, address.clone());
            }
        }
        self.voters.send_if_modified(|known| {
            let is_new = *known != latest;
            *known = latest;
            is_new
        });
    }

    /// The control batch that opens an epoch of this node (KIP-595).
    pub(super) fn epoch_start(&self, inner: &Inner, epoch: LeaderEpoch) -> Bytes {
        let voter = |id: BrokerId| Voter { voter_id: id.0, ..Voter::default() };
        let mut granting = inner.granting.clone();
        granting.sort();
        // Version 0 with `kraft.version` 1 too: Kafka reads no other one.
        let record = ControlRecord::LeaderChange(LeaderChangeMessage {
            version: 0,
            leader_id: self.params.own.id.0,
            voters: inner.voters.latest().ids().map(voter).collect(),
            granting_voters: granting.into_iter().map(voter).collect(),
        });
        let mut batch = BatchBuilder::new(BatchParams {
            base_offset: inner.log.log_end_offset(),
            leader_epoch: epoch,
            is_control: true,
            ..BatchParams::default()
        });
        batch.push(self.params.clock.now(), Some(&record.key()), Some(&record.value()), &[]);
        batch.build().freeze()
    }
}
