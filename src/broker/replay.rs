//! Reads a log from an offset to a bound, batch by batch, for the machines that live from it.

use crate::log::{Log, MinOne, ReadError};
use bytes::Bytes;
use ottla_protocol::Offset;
use ottla_protocol::batch::{BatchError, BatchHeader, batches};

/// Bytes of the log that one step holds in memory.
const CHUNK: usize = 4 << 20;

/// Why a log could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Its log directory is offline.
    #[error("the log directory is offline")]
    Offline,
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its file cannot be read.
    #[error("reading batches at offset {offset}: {source}")]
    Io {
        /// Where.
        offset: Offset,
        /// Why.
        source: std::io::Error,
    },
    /// A batch is damaged.
    #[error("batch at offset {offset}: {cause}")]
    Batch {
        /// Where.
        offset: Offset,
        /// What is wrong.
        cause: BatchError,
    },
    /// A record is damaged, or of a kind that this version does not know.
    #[error("record at offset {offset}: {cause}")]
    Record {
        /// Where.
        offset: Offset,
        /// What is wrong.
        cause: String,
    },
}

/// Hands every batch between `from` and `end` to `visit`; the first may begin before `from`. `read` finds a
/// region of the log.
///
/// # Errors
/// Every [`ReplayError`], also those of `visit`.
pub fn replay(
    from: Offset,
    end: Offset,
    mut region: impl FnMut(Offset, usize) -> Result<Option<crate::log::LogSlice>, ReadError>,
    mut visit: impl FnMut(&BatchHeader, &Bytes) -> Result<(), ReplayError>,
) -> Result<(), ReplayError> {
    let mut next = from;
    while next < end {
        let Some(slice) = region(next, CHUNK)? else { return Ok(()) };
        let bytes = slice.to_bytes().map_err(|source| ReplayError::Io { offset: next, source })?;
        let before = next;
        for batch in batches(&bytes) {
            let (header, batch) = match batch {
                Ok(batch) => batch,
                // The region's last batch may be cut; the next region begins with it.
                Err(BatchError::Short { .. }) if next > before => break,
                Err(cause) => return Err(ReplayError::Batch { offset: next, cause }),
            };
            visit(&header, &bytes.slice_ref(batch))?;
            next = header.next_offset();
        }
    }
    Ok(())
}

/// [`replay`] of a log that the caller holds.
///
/// # Errors
/// Every [`ReplayError`].
pub fn replay_log(
    log: &Log,
    from: Offset,
    visit: impl FnMut(&BatchHeader, &Bytes) -> Result<(), ReplayError>,
) -> Result<(), ReplayError> {
    let end = log.log_end_offset();
    replay(from, end, |offset, max| log.read(offset, max, MinOne::Yes, end), visit)
}
