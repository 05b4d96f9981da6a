//! One segment: its batches front to back, each shown to the indexes.

use super::finding::{Finding, Findings, Kind};
use super::indexes::{OffsetCheck, TimeCheck, TransactionCheck};
use crate::env::DiskFile;
use crate::log::append::end_marker;
use crate::log::leader_epochs::EpochEntry;
use crate::log::producer_state::EndMarker;
use crate::log::replay::BatchReader;
use ottla_protocol::batch::{BATCH_OVERHEAD, BatchError, BatchHeader, CRC_FROM, crc32c_append};
use ottla_protocol::{LeaderEpoch, Offset};
use std::io;
use std::path::PathBuf;

/// Bytes of a batch that its CRC is computed over at once.
const PIECE_BYTES: usize = 256 << 10;
/// How far a sound batch is looked for after damage.
const RESYNC_BYTES: u64 = 8 << 20;
/// A control batch that holds a marker is smaller.
const MARKER_BATCH_BYTES_MAX: usize = 4096;
/// A batch of the metadata log that is decoded; Kafka's are at most 8 MB.
const METADATA_BATCH_BYTES_MAX: usize = 16 << 20;

/// What the walk of one segment needs to know.
#[derive(Debug)]
pub(super) struct SegmentParams<'a> {
    pub(super) path: PathBuf,
    pub(super) base_offset: Offset,
    pub(super) is_active: bool,
    /// Everything below was synced; all of it after a clean stop.
    pub(super) settled: Offset,
    pub(super) log_start_offset: Offset,
    pub(super) epochs: &'a [EpochEntry],
    pub(super) is_metadata_log: bool,
}

/// What walking a segment has shown.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// The offset after the last sound batch.
    pub(super) next_offset: Offset,
    /// Where the last sound batch ends.
    pub(super) end: u64,
    pub(super) batches: u64,
    /// Something was damaged: `next_offset` may be too small.
    pub(super) is_damaged: bool,
    /// Offsets are missing within the segment or a batch: it was compacted.
    pub(super) is_sparse: bool,
    /// First batch whose epoch the leader epochs contradict.
    pub(super) wrong_epoch: Option<(Offset, LeaderEpoch)>,
}

/// Walks the batches of one segment.
pub(super) struct SegmentWalk<'a> {
    pub(super) params: SegmentParams<'a>,
    pub(super) offsets: Option<OffsetCheck>,
    pub(super) times: Option<TimeCheck>,
    pub(super) transactions: &'a mut TransactionCheck,
    pub(super) findings: &'a mut Findings,
}

/// Why there is no sound batch somewhere.
enum Fault {
    Cut,
    Header(BatchError),
    Crc(BatchHeader, BatchError),
    Offsets(BatchHeader, String),
}

impl Fault {
    fn text(&self) -> String {
        match self {
            Fault::Cut => "a batch is cut".to_owned(),
            Fault::Header(error) | Fault::Crc(_, error) => error.to_string(),
            Fault::Offsets(_, what) => what.clone(),
        }
    }
}

impl SegmentWalk<'_> {
    /// Walks the first `len` bytes of `file`; `watch` is told of bytes that were read.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn run(
        &mut self,
        file: &dyn DiskFile,
        len: u64,
        watch: &mut dyn FnMut(u64),
    ) -> io::Result<Walked> {
        let mut reader = BatchReader::new(file, len);
        let mut walked = Walked { next_offset: self.params.base_offset, ..Walked::default() };
        let (mut position, mut told) = (0, 0);
        while position < len {
            match self.sound_batch(&mut reader, position, len, walked.next_offset)? {
                Ok(header) => {
                    self.take(&mut reader, &header, position, &mut walked)?;
                    position += header.size() as u64;
                    (walked.end, walked.next_offset) = (position, header.next_offset());
                    walked.batches += 1;
                }
                Err(fault) => {
                    let next = self.resume(&mut reader, position, len, &fault, &walked)?;
                    self.report(position, next, len, &fault, &mut walked);
                    position = next.unwrap_or(len);
                }
            }
            if position - told > PIECE_BYTES as u64 || position >= len {
                watch(position - told);
                told = position;
            }
        }
        Ok(walked)
    }

    /// The header of the whole batch at `position`, its CRC and offsets checked.
    fn sound_batch(
        &self,
        reader: &mut BatchReader<'_>,
        position: u64,
        len: u64,
        next_offset: Offset,
    ) -> io::Result<Result<BatchHeader, Fault>> {
        let left = len - position;
        if left < BATCH_OVERHEAD as u64 {
            return Ok(Err(Fault::Cut));
        }
        let header = match BatchHeader::parse(reader.bytes(position, BATCH_OVERHEAD)?) {
            Ok(header) if header.size() as u64 <= left => header,
            Ok(_) => return Ok(Err(Fault::Cut)),
            Err(error) => return Ok(Err(Fault::Header(error))),
        };
        let computed = crc_of(reader, position, header.size())?;
        if computed != header.crc {
            let error = BatchError::BadCrc { stored: header.crc, computed };
            return Ok(Err(Fault::Crc(header, error)));
        }
        let (first, last) = (header.base_offset, header.last_offset());
        if first < next_offset || header.last_offset_delta < 0 || header.records_count < 0 {
            let what = format!("offsets {first} to {last} follow {next_offset}");
            return Ok(Err(Fault::Offsets(header, what)));
        }
        if last.0.saturating_sub(self.params.base_offset.0) > i64::from(i32::MAX) {
            let what = format!("offset {last} is too far from the segment's base offset");
            return Ok(Err(Fault::Offsets(header, what)));
        }
        Ok(Ok(header))
    }

    /// Where the next sound batch begins after damage at `position`; `None` where there is none in reach.
    fn resume(
        &self,
        reader: &mut BatchReader<'_>,
        position: u64,
        len: u64,
        fault: &Fault,
        walked: &Walked,
    ) -> io::Result<Option<u64>> {
        if let Fault::Crc(header, _) | Fault::Offsets(header, _) = fault {
            let after = position + header.size() as u64;
            if after < len && self.sound_batch(reader, after, len, walked.next_offset)?.is_ok() {
                return Ok(Some(after));
            }
        }
        let end = len.min(position + RESYNC_BYTES);
        let mut at = position + 1;
        while at + BATCH_OVERHEAD as u64 <= end {
            let size = PIECE_BYTES.min((end - at) as usize);
            let piece = reader.bytes(at, size)?.to_vec();
            for from in 0..=size - BATCH_OVERHEAD {
                // Most bytes are no header: its magic is 2, and base offset and epoch are not negative.
                if piece[from + 16] != 2 || piece[from] > 127 {
                    continue;
                }
                let found = at + from as u64;
                if self.sound_batch(reader, found, len, walked.next_offset)?.is_ok() {
                    return Ok(Some(found));
                }
            }
            at += (size - BATCH_OVERHEAD + 1) as u64;
        }
        Ok(None)
    }

    fn report(
        &mut self,
        position: u64,
        next: Option<u64>,
        len: u64,
        fault: &Fault,
        walked: &mut Walked,
    ) {
        let is_unsettled = walked.next_offset >= self.params.settled;
        let is_torn = next.is_none() && self.params.is_active && is_unsettled;
        let kind = match fault {
            Fault::Offsets(..) => Kind::BatchOffset,
            _ if is_torn => Kind::TornTail,
            _ => Kind::Batch,
        };
        let bytes = next.unwrap_or(len) - position;
        let what = format!("{}; {bytes} bytes cannot be used", fault.text());
        let finding = Finding::new(kind, &self.params.path, what).at(position);
        self.findings.push(finding.at_offset(walked.next_offset));
        walked.is_damaged = true;
        self.transactions.forget();
        if let Some(offsets) = &mut self.offsets {
            offsets.on_damage();
        }
        if let Some(times) = &mut self.times {
            times.on_damage();
        }
    }

    /// Shows a sound batch to everything that is checked against batches.
    fn take(
        &mut self,
        reader: &mut BatchReader<'_>,
        header: &BatchHeader,
        position: u64,
        walked: &mut Walked,
    ) -> io::Result<()> {
        let is_first = walked.batches == 0;
        let is_gap = !is_first && !walked.is_damaged && header.base_offset > walked.next_offset;
        let records = i64::from(header.last_offset_delta) + 1;
        walked.is_sparse |= is_gap || i64::from(header.records_count) < records;
        if let Some(offsets) = &mut self.offsets {
            offsets.on_batch(header, position);
        }
        if let Some(times) = &mut self.times {
            times.on_batch(header);
        }
        let marker = marker_of(reader, header, position)?;
        let unindexed = self.transactions.on_batch(header, marker);
        if let Some(offset) = unindexed {
            let is_certain = !self.params.is_active || offset < self.params.settled;
            if is_certain {
                let path = self.params.path.with_extension("txnindex");
                let what =
                    format!("producer {} aborts here, but no entry says so", header.producer_id);
                let finding = Finding::new(Kind::TransactionIndex, &path, what);
                self.findings.push(finding.at_offset(offset));
            }
        }
        self.check_epoch(header, walked);
        if self.params.is_metadata_log {
            self.check_records(reader, header, position)?;
        }
        Ok(())
    }

    fn check_epoch(&self, header: &BatchHeader, walked: &mut Walked) {
        let (base, epoch) = (header.base_offset, header.leader_epoch);
        let is_known = base < self.params.settled && base >= self.params.log_start_offset;
        if epoch.0 < 0 || !is_known || walked.wrong_epoch.is_some() {
            return;
        }
        let n = self.params.epochs.partition_point(|entry| entry.start_offset <= base);
        let entry = n.checked_sub(1).map(|n| self.params.epochs[n].epoch);
        if entry != Some(epoch) {
            walked.wrong_epoch = Some((base, epoch));
        }
    }

    fn check_records(
        &mut self,
        reader: &mut BatchReader<'_>,
        header: &BatchHeader,
        position: u64,
    ) -> io::Result<()> {
        if header.size() > METADATA_BATCH_BYTES_MAX {
            return Ok(());
        }
        let bytes = reader.bytes(position, header.size())?;
        if let Err((offset, what)) = super::metadata::check_batch(header, bytes) {
            let finding = Finding::new(Kind::Metadata, &self.params.path, what);
            self.findings.push(finding.at(position).at_offset(offset));
        }
        Ok(())
    }
}

/// CRC-32C of the batch of `size` bytes at `position`, of what the header's CRC covers.
fn crc_of(reader: &mut BatchReader<'_>, position: u64, size: usize) -> io::Result<u32> {
    let (mut done, mut crc) = (CRC_FROM, 0);
    while done < size {
        let piece = PIECE_BYTES.min(size - done);
        crc = crc32c_append(crc, &reader.bytes(position + done as u64, piece)?[..piece]);
        done += piece;
    }
    Ok(crc)
}

fn marker_of(
    reader: &mut BatchReader<'_>,
    header: &BatchHeader,
    position: u64,
) -> io::Result<Option<EndMarker>> {
    if !header.is_control() || header.producer_id.0 < 0 || header.size() > MARKER_BATCH_BYTES_MAX {
        return Ok(None);
    }
    Ok(end_marker(header, reader.bytes(position, header.size())?))
}
