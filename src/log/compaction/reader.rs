//! A segment's batches one after another, for the cleaner, whose reads are paced.

use super::super::directory::Directory;
use super::super::error::{ReadError, StorageError};
use super::super::segment::Segment;
use super::clean::{CleaningError, Pace, paced};
use crate::env::DiskFile;
use ottla_protocol::batch::{self, BATCH_OVERHEAD, BatchHeader};
use std::sync::Arc;

/// Reads a segment's batches front to back in pieces.
pub(super) struct Reader<'a> {
    segment: &'a Segment,
    directory: &'a Directory,
    file: Arc<dyn DiskFile>,
    chunk: usize,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    from: u64,
    position: u64,
    /// Where the batch lies that was given last.
    last: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn open(
        segment: &'a Segment,
        directory: &'a Directory,
        position: u32,
        chunk: usize,
    ) -> Result<Self, StorageError> {
        let position = u64::from(position);
        let file = segment.file(directory)?;
        let buffer = Vec::new();
        Ok(Reader { segment, directory, file, chunk, buffer, from: 0, position, last: position })
    }

    pub(super) fn corrupt(&self, cause: String) -> CleaningError {
        let path = self.directory.join(&self.segment.name());
        ReadError::Corrupt { path, position: self.last, cause }.into()
    }

    /// Makes the buffer hold `size` bytes at the position.
    fn fill(&mut self, size: usize, pace: &mut Pace<'_>) -> Result<usize, CleaningError> {
        let end = self.from + self.buffer.len() as u64;
        if self.position < self.from || self.position + size as u64 > end {
            let left = u64::from(self.segment.size) - self.position;
            let wanted = (self.chunk.max(size) as u64).min(left) as usize;
            paced(pace, wanted)?;
            self.buffer.resize(wanted, 0);
            self.file
                .read_exact_at(&mut self.buffer, self.position)
                .map_err(|e| self.segment.file_error(self.directory, "read", self.position, e))
                .map_err(ReadError::from)?;
            self.from = self.position;
        }
        Ok((self.position - self.from) as usize)
    }

    /// The next batch, its CRC checked: what is rewritten gets a new one.
    pub(super) fn next(
        &mut self,
        pace: &mut Pace<'_>,
    ) -> Result<Option<(BatchHeader, Vec<u8>)>, CleaningError> {
        self.last = self.position;
        let left = u64::from(self.segment.size).saturating_sub(self.position);
        if left == 0 {
            return Ok(None);
        }
        if left < BATCH_OVERHEAD as u64 {
            return Err(self.corrupt("a batch is cut".to_owned()));
        }
        let at = self.fill(BATCH_OVERHEAD, pace)?;
        let header =
            BatchHeader::parse(&self.buffer[at..]).map_err(|e| self.corrupt(e.to_string()))?;
        if header.size() as u64 > left {
            return Err(self.corrupt("a batch is cut".to_owned()));
        }
        let at = self.fill(header.size(), pace)?;
        let batch = self.buffer[at..at + header.size()].to_vec();
        batch::check_crc(&header, &batch).map_err(|e| self.corrupt(e.to_string()))?;
        self.position += header.size() as u64;
        Ok(Some((header, batch)))
    }
}
