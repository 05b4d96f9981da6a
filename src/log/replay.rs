//! Reading batches again: validating a segment's after a crash, replaying what producers wrote, and finding leader
//! epochs that the checkpoint has lost.

use super::Log;
use super::append::end_marker;
use super::error::{ReadError, StorageError};
use super::leader_epochs::EpochEntry;
use super::producer_state::{AppendOrigin, ProducerEntry, ProducerState};
use super::segment::BatchMeta;
use super::transaction_index::AbortedTransaction;
use crate::env::DiskFile;
use ottla_protocol::batch::{self, BATCH_OVERHEAD, BatchHeader};
use ottla_protocol::{Offset, ProducerId, Timestamp};
use std::ops::ControlFlow;
use tracing::warn;

/// Bytes read at once while validating; a larger batch makes the buffer grow to its size.
const CHUNK_BYTES: usize = 1 << 20;

/// Reads a file front to back in large pieces.
pub(super) struct BatchReader<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    from: u64,
}

impl<'a> BatchReader<'a> {
    /// Reads the first `len` bytes of `file`.
    pub(super) fn new(file: &'a dyn DiskFile, len: u64) -> Self {
        BatchReader { file, len, buffer: Vec::new(), from: 0 }
    }

    /// At least `size` bytes at `position`; the caller has checked that the file has them.
    pub(super) fn bytes(&mut self, position: u64, size: usize) -> std::io::Result<&[u8]> {
        let end = self.from + self.buffer.len() as u64;
        if position < self.from || position + size as u64 > end {
            let wanted = (CHUNK_BYTES.max(size) as u64).min(self.len - position) as usize;
            self.buffer.resize(wanted, 0);
            self.file.read_exact_at(&mut self.buffer, position)?;
            self.from = position;
        }
        let at = (position - self.from) as usize;
        Ok(&self.buffer[at..at + size])
    }
}

impl Log {
    /// Walks segment `n` and takes its sound batches into account anew, until one is not; says why it stopped before
    /// the file's end.
    pub(super) fn validate_batches(
        &mut self,
        n: usize,
        file_len: u64,
    ) -> Result<Option<String>, StorageError> {
        let directory = self.directory.clone();
        let interval = self.config.index_interval_bytes;
        let file = self.segments[n].file(&directory)?;
        self.segments[n].reset_for_recovery();
        let mut reader = BatchReader::new(&*file, file_len);
        let mut next_offset = self.segments[n].base_offset;
        let mut position = 0;
        while position < file_len {
            let read_error =
                |log: &Log, e| log.segments[n].file_error(&directory, "read", position, e);
            let left = file_len - position;
            if left < BATCH_OVERHEAD as u64 {
                return Ok(Some("a batch is cut".to_owned()));
            }
            let front = reader.bytes(position, BATCH_OVERHEAD).map_err(|e| read_error(self, e))?;
            let header = match BatchHeader::parse(front) {
                Ok(header) if header.size() as u64 <= left => header,
                Ok(_) => return Ok(Some("a batch is cut".to_owned())),
                Err(error) => return Ok(Some(error.to_string())),
            };
            let bytes = reader.bytes(position, header.size()).map_err(|e| read_error(self, e))?;
            if let Err(error) = batch::check_crc(&header, bytes) {
                return Ok(Some(error.to_string()));
            }
            let is_in_range = self.segments[n].offset_index.can_append(header.last_offset());
            if header.base_offset < next_offset || header.last_offset_delta < 0 || !is_in_range {
                return Ok(Some(format!("offset {} follows {next_offset}", header.base_offset)));
            }
            let meta = BatchMeta {
                base_offset: header.base_offset,
                last_offset: header.last_offset(),
                max_timestamp: header.max_timestamp,
                size: header.size(),
            };
            self.segments[n].note(&directory, &meta, interval)?;
            if header.leader_epoch.0 >= 0
                && self.epochs.latest().is_none_or(|latest| header.leader_epoch > latest)
            {
                self.epochs.assign(header.leader_epoch, header.base_offset);
            }
            let aborted = replay_batch(&mut self.producers, &header, bytes);
            if let Some(aborted) = aborted {
                self.segments[n].transactions.append(&directory, aborted)?;
            }
            next_offset = header.next_offset();
            position += header.size() as u64;
        }
        Ok(None)
    }

    /// Brings the producers' state to `offset` from a snapshot and the batches of the segments before index `n`.
    pub(super) fn replay_producers(
        &mut self,
        offset: Offset,
        n: usize,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        let directory = self.directory.clone();
        let expiration_ms = self.config.producer_id_expiration_ms;
        let start = self.log_start_offset;
        self.producers.truncate_and_reload(&directory, start, offset, now, expiration_ms)?;
        self.close_cleaned_transactions(n)?;
        let from = self.producers.map_end_offset();
        if from >= offset {
            return Ok(());
        }
        let first = self.floor_segment(from).unwrap_or(0);
        for segment in &self.segments[first.min(n)..n] {
            let Some(begin) = segment.find(&directory, from.max(segment.base_offset))? else {
                continue;
            };
            let file = segment.file(&directory)?;
            let producers = &mut self.producers;
            let end = u64::from(segment.size);
            let stopped =
                segment.scan(&directory, u64::from(begin.position), end, |header, at| {
                    if header.base_offset >= offset {
                        return ControlFlow::Break(None);
                    }
                    if header.producer_id.0 < 0 {
                        return ControlFlow::Continue(());
                    }
                    let mut bytes = Vec::new();
                    if header.is_control() {
                        bytes.resize(header.size(), 0);
                        if let Err(e) = file.read_exact_at(&mut bytes, at) {
                            return ControlFlow::Break(Some((at, e)));
                        }
                    }
                    // The transaction index has the segment's aborted transactions already.
                    replay_batch(producers, header, &bytes);
                    ControlFlow::Continue(())
                })?;
            if let Some(Some((at, e))) = stopped {
                return Err(segment.file_error(&directory, "read", at, e).into());
            }
        }
        self.producers.set_map_end_offset(offset);
        Ok(())
    }

    /// A snapshot may say that a transaction is open whose batches the cleaner has taken since, and after them its
    /// marker. Of one that is open, or has its marker still, there is a batch, unless records were deleted.
    fn close_cleaned_transactions(&mut self, n: usize) -> Result<(), ReadError> {
        let end = self.producers.map_end_offset();
        for (producer_id, first_offset) in self.producers.ongoing_transactions() {
            if first_offset < self.log_start_offset && !self.config.cleanup_policy.compact {
                continue;
            }
            if !self.has_transactional_batch(producer_id, first_offset, end, n)? {
                self.producers.forget_transaction(producer_id, first_offset);
            }
        }
        Ok(())
    }

    /// Whether the segments before index `n` have a batch of the producer's transactions within the offsets.
    fn has_transactional_batch(
        &self,
        producer_id: ProducerId,
        from: Offset,
        end: Offset,
        n: usize,
    ) -> Result<bool, ReadError> {
        let first = self.floor_segment(from).unwrap_or(0);
        for segment in &self.segments[first.min(n)..n] {
            let begin = segment.find(&self.directory, from.max(segment.base_offset))?;
            let Some(begin) = begin else { continue };
            let (begin, size) = (u64::from(begin.position), u64::from(segment.size));
            let found = segment.scan(&self.directory, begin, size, |header, _| {
                let is_one = header.producer_id == producer_id
                    && header.is_transactional()
                    && !header.is_control();
                match header.base_offset < end {
                    true if is_one => ControlFlow::Break(true),
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(false),
                }
            })?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(false)
    }

    /// Reads the epochs of the records from the log start offset on that are before the first one known: the log start
    /// offset went back in a crash, or the checkpoint was lost. The one that is in force there may have no batch but
    /// below, which recovery sees as well.
    pub(super) fn complete_epochs(&mut self) -> Result<(), StorageError> {
        let directory = self.directory.clone();
        let start = self.log_start_offset;
        let end = self.epochs.entries().first().map_or(self.log_end_offset, |it| it.start_offset);
        if end <= start {
            return Ok(());
        }
        let mut found: Vec<EpochEntry> = Vec::new();
        for segment in self.segments.iter().take_while(|segment| segment.base_offset < end) {
            let visit = |header: &BatchHeader, _| {
                let (epoch, start_offset) = (header.leader_epoch, header.base_offset.max(start));
                if start_offset >= end {
                    return ControlFlow::Break(());
                }
                if epoch.0 >= 0 && found.last().is_none_or(|last| epoch > last.epoch) {
                    found.pop_if(|last| last.start_offset == start_offset);
                    found.push(EpochEntry { epoch, start_offset });
                }
                ControlFlow::Continue(())
            };
            match segment.scan(&directory, 0, u64::from(segment.size), visit) {
                Ok(_) | Err(ReadError::OffsetOutOfRange { .. }) => {}
                // Whoever reads what is damaged will see it.
                Err(ReadError::Corrupt { .. }) => break,
                Err(ReadError::Storage(error)) => return Err(error),
            }
        }
        self.epochs.prepend(found);
        Ok(())
    }

    /// Brings the producers' state to the log end offset.
    pub(super) fn rebuild_producers(&mut self, now: Timestamp) -> Result<(), ReadError> {
        let segments = self.segments.len();
        self.replay_producers(self.log_end_offset, segments, now)?;
        self.producers.set_map_end_offset(self.log_end_offset);
        Ok(())
    }
}

/// Takes a batch of the log into account; gives the transaction that it aborts.
fn replay_batch(
    producers: &mut ProducerState,
    header: &BatchHeader,
    bytes: &[u8],
) -> Option<AbortedTransaction> {
    if header.producer_id.0 < 0 {
        return None;
    }
    let marker = if header.is_control() { end_marker(header, bytes) } else { None };
    let entry = producers.get(header.producer_id).copied().unwrap_or(ProducerEntry::EMPTY);
    let origin = AppendOrigin::Replication;
    let update = match ProducerState::prepare(&entry, header, header.base_offset, marker, origin) {
        Ok(update) => update,
        Err(error) => {
            warn!(offset = %header.base_offset, %error, "batch contradicts its producer's state");
            return None;
        }
    };
    producers.apply(&update);
    let completed = update.completed?;
    let aborted = completed.is_aborted.then(|| AbortedTransaction {
        producer_id: completed.producer_id,
        first_offset: completed.first_offset,
        last_offset: completed.last_offset,
        last_stable_offset: producers.last_stable_offset_after(&completed),
    });
    producers.complete(&completed);
    aborted
}
