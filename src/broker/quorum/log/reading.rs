//! Reading entries back: the newest from memory, others from the file.

use super::super::QuorumError;
use super::super::types::{self, Batch, QuorumEntry};
use super::{Inner, MetadataLog};
use crate::broker::replay::ReplayError;
use crate::log::{LogSlice, MinOne, ReadError};
use ottla_protocol::Offset;
use ottla_protocol::batch::{BatchError, batches};

/// Bytes of the log that one read holds in memory.
const READ_BYTES: usize = 1 << 20;

impl MetadataLog {
    /// The entries `start..end`, at most about `max_bytes` but one at least; fewer where the log has not so many.
    pub fn entries(
        &self,
        start: u64,
        end: u64,
        max_bytes: usize,
    ) -> Result<Vec<QuorumEntry>, QuorumError> {
        let inner = self.inner.lock();
        let end = end.min(inner.index.next() - inner.unclaimed as u64);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut next = start;
        while next < end && (bytes < max_bytes || entries.is_empty()) {
            for batch in inner.read(next, end)? {
                let id = types::log_id(batch.header.leader_epoch, next);
                bytes += batch.bytes.len();
                entries.push(QuorumEntry::of(id, batch));
                next += 1;
                if bytes >= max_bytes || next >= end {
                    break;
                }
            }
        }
        Ok(entries)
    }

    /// Whole batches from the one that holds `offset` on, below `bound`; for those who follow without a vote.
    pub fn read(
        &self,
        offset: Offset,
        max_bytes: usize,
        bound: Offset,
    ) -> Result<Option<LogSlice>, ReadError> {
        self.inner.lock().log.read(offset, max_bytes, MinOne::Yes, bound)
    }
}

impl Inner {
    /// Some batches from `index` on, below `end`: from memory, or one region of the file.
    fn read(&self, index: u64, end: u64) -> Result<Vec<Batch>, QuorumError> {
        let back = usize::try_from(self.index.next() - index).unwrap_or(usize::MAX);
        if let Some(at) = self.recent.len().checked_sub(back) {
            let count = usize::try_from(end - index).unwrap_or(usize::MAX);
            let recent = self.recent.iter().skip(at).take(count);
            let parsed = recent.map(|bytes| Batch::parse(bytes.clone()));
            return parsed.collect::<Result<_, _>>().map_err(|cause| {
                ReplayError::Batch { offset: self.log.log_end_offset(), cause }.into()
            });
        }
        let Some(position) = self.index.get(index) else {
            let cause = format!("ordinal {index} was purged");
            return Err(QuorumError::Entry { offset: self.log.log_start_offset(), cause });
        };
        let offset = position.base_offset;
        let bound = self.log.log_end_offset();
        let slice = self.log.read(offset, READ_BYTES, MinOne::Yes, bound);
        let slice = slice.map_err(ReplayError::from)?.ok_or_else(|| QuorumError::Entry {
            offset,
            cause: "the batch is not in the log".to_owned(),
        })?;
        let bytes = slice.to_bytes().map_err(|source| ReplayError::Io { offset, source })?;
        let mut found = Vec::new();
        for batch in batches(&bytes) {
            match batch {
                Ok((header, batch)) => {
                    let batch = Batch::of(header, bytes.slice_ref(batch));
                    found.push(batch.map_err(|cause| ReplayError::Batch { offset, cause })?);
                }
                Err(BatchError::Short { .. }) if !found.is_empty() => break,
                Err(cause) => return Err(ReplayError::Batch { offset, cause }.into()),
            }
        }
        Ok(found)
    }
}
