//! What the cleaner must know of transactions as it walks over batches: which are aborted, and which markers no
//! longer have a batch. Source: KIP-98, KIP-534; Kafka's cleaner keeps the same.

use super::super::append::end_marker;
use super::super::transaction_index::AbortedTransaction;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::{Offset, ProducerId};
use std::collections::{BTreeMap, BTreeSet};

/// Transactions around the batch that was read last.
#[derive(Debug, Default)]
pub(crate) struct CleanedTransactions {
    /// Producers with a batch of a transaction that is not known to be aborted.
    committed: BTreeSet<ProducerId>,
    /// Aborted transactions that have begun; whether a batch of theirs was seen.
    aborted: BTreeMap<ProducerId, (AbortedTransaction, bool)>,
    /// Those that begin later, by first offset.
    ahead: BTreeMap<(Offset, ProducerId), AbortedTransaction>,
}

/// What is known of a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    /// Batches of its transaction are still there; for an abort, what the transaction index is to say.
    Needed(Option<AbortedTransaction>),
    /// Its transaction has no batches any more.
    Unneeded,
}

impl CleanedTransactions {
    pub(crate) fn add(&mut self, aborted: Vec<AbortedTransaction>) {
        for txn in aborted {
            self.ahead.insert((txn.first_offset, txn.producer_id), txn);
        }
    }

    fn advance_to(&mut self, offset: Offset) {
        while let Some(next) = self.ahead.first_entry().filter(|next| next.key().0 <= offset) {
            let txn = next.remove();
            self.aborted.entry(txn.producer_id).or_insert((txn, false));
        }
    }

    /// Takes a data batch into account; `true` when it belongs to an aborted transaction.
    pub(crate) fn on_batch(&mut self, header: &BatchHeader) -> bool {
        self.advance_to(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id) {
            Some((_, is_seen)) => {
                *is_seen = true;
                true
            }
            None => {
                self.committed.insert(header.producer_id);
                false
            }
        }
    }

    /// Takes a control batch into account.
    pub(crate) fn on_control_batch(&mut self, header: &BatchHeader, batch: &[u8]) -> Marker {
        self.advance_to(header.last_offset());
        if header.records_count == 0 {
            // It was cleaned before.
            return Marker::Unneeded;
        }
        match end_marker(header, batch) {
            Some(marker) if marker.is_abort => match self.aborted.remove(&header.producer_id) {
                Some((txn, true)) => Marker::Needed(Some(txn)),
                _ => Marker::Unneeded,
            },
            Some(_) if self.committed.remove(&header.producer_id) => Marker::Needed(None),
            Some(_) => Marker::Unneeded,
            None => Marker::Needed(None),
        }
    }
}
