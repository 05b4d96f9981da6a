//! The failures of this room: one enum per operation, with path, position and cause, and the protocol's error
//! code for each.

use ottla_protocol::{ErrorCode, Offset};
use std::io;
use std::path::{Path, PathBuf};

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path} at byte {position}: {source}", path = path.display())]
pub struct StorageError {
    /// What was tried: `read`, `write`, `sync`, ...
    pub operation: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// At which byte; 0 where the operation has no position.
    pub position: u64,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl StorageError {
    pub(crate) fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        StorageError { operation, path: path.to_owned(), position: 0, source }
    }

    pub(crate) fn at(mut self, position: u64) -> Self {
        self.position = position;
        self
    }

    /// Whether the disk is full: back pressure rather than a broken directory.
    pub fn is_storage_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// One record that a rule refused (KIP-467).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Index of the record in its batch.
    pub batch_index: i32,
    /// Why.
    pub message: Option<String>,
}

/// Why an append was refused.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The bytes are no sound batch, or the CRC does not match: CORRUPT_MESSAGE.
    #[error("{0}")]
    Corrupt(String),
    /// A rule for batches or records is broken: INVALID_RECORD.
    #[error("{message}")]
    InvalidRecord {
        /// What is wrong.
        message: String,
        /// The records at fault, where single records are.
        records: Vec<RecordError>,
    },
    /// A timestamp is out of `message.timestamp.*`: INVALID_TIMESTAMP.
    #[error("One or more records have been rejected due to invalid timestamp")]
    InvalidTimestamp {
        /// The records at fault.
        records: Vec<RecordError>,
    },
    /// The batch is above `max.message.bytes`, or expands above `max.decompressed.message.bytes`: MESSAGE_TOO_LARGE.
    #[error("{0}")]
    RecordTooLarge(String),
    /// The batch is above `segment.bytes`: RECORD_LIST_TOO_LARGE.
    #[error("{0}")]
    RecordListTooLarge(String),
    /// The attributes name a codec that does not exist: UNSUPPORTED_COMPRESSION_TYPE.
    #[error("{0}")]
    UnsupportedCompression(String),
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("{0}")]
    OutOfOrderSequence(String),
    /// INVALID_PRODUCER_EPOCH.
    #[error("{0}")]
    InvalidProducerEpoch(String),
    /// INVALID_TXN_STATE.
    #[error("{0}")]
    InvalidTxnState(String),
    /// TRANSACTION_COORDINATOR_FENCED.
    #[error("{0}")]
    TransactionCoordinatorFenced(String),
    /// A follower or Raft leader appends below the log end offset.
    #[error("append at offset {first_offset} is below the log end offset {log_end_offset}")]
    UnexpectedOffset {
        /// First offset of what was to be appended.
        first_offset: Offset,
        /// Where the log ends.
        log_end_offset: Offset,
    },
    /// Offsets within the appended batches do not increase.
    #[error("{0}")]
    OffsetsOutOfOrder(String),
    /// A file operation failed: KAFKA_STORAGE_ERROR.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log is closed, or an earlier failure stopped its writes: KAFKA_STORAGE_ERROR.
    #[error("the log is closed or offline after an earlier failure")]
    Offline,
}

impl AppendError {
    /// | failure | answer |
    /// | --- | --- |
    /// | as each variant says | that code |
    /// | `UnexpectedOffset`, `OffsetsOutOfOrder` | UNKNOWN_SERVER_ERROR: only replicas see them |
    pub fn error_code(&self) -> ErrorCode {
        match self {
            AppendError::Corrupt(_) => ErrorCode::CorruptMessage,
            AppendError::InvalidRecord { .. } => ErrorCode::InvalidRecord,
            AppendError::InvalidTimestamp { .. } => ErrorCode::InvalidTimestamp,
            AppendError::RecordTooLarge(_) => ErrorCode::MessageTooLarge,
            AppendError::RecordListTooLarge(_) => ErrorCode::RecordListTooLarge,
            AppendError::UnsupportedCompression(_) => ErrorCode::UnsupportedCompressionType,
            AppendError::OutOfOrderSequence(_) => ErrorCode::OutOfOrderSequenceNumber,
            AppendError::InvalidProducerEpoch(_) => ErrorCode::InvalidProducerEpoch,
            AppendError::InvalidTxnState(_) => ErrorCode::InvalidTxnState,
            AppendError::TransactionCoordinatorFenced(_) => ErrorCode::TransactionCoordinatorFenced,
            AppendError::UnexpectedOffset { .. } | AppendError::OffsetsOutOfOrder(_) => {
                ErrorCode::UnknownServerError
            }
            AppendError::Storage(_) | AppendError::Offline => ErrorCode::KafkaStorageError,
        }
    }

    /// The single records at fault, for the response's `record_errors`.
    pub fn record_errors(&self) -> &[RecordError] {
        match self {
            AppendError::InvalidRecord { records, .. }
            | AppendError::InvalidTimestamp { records } => records,
            _ => &[],
        }
    }

    /// The text for the response's `error_message`, which Kafka fills only beside record errors.
    pub fn client_message(&self) -> Option<String> {
        (!self.record_errors().is_empty()).then(|| self.to_string())
    }

    pub(crate) fn invalid_record(message: impl Into<String>) -> Self {
        AppendError::InvalidRecord { message: message.into(), records: Vec::new() }
    }
}

/// Why a read was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the log start offset or above the log end offset: OFFSET_OUT_OF_RANGE.
    #[error("offset {offset} is out of range {log_start_offset}..={log_end_offset}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// First offset there is.
        log_start_offset: Offset,
        /// The next offset.
        log_end_offset: Offset,
    },
    /// The segment's bytes are no batches: KAFKA_STORAGE_ERROR.
    #[error("{path} at byte {position}: {cause}", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        cause: String,
    },
    /// A file operation failed: KAFKA_STORAGE_ERROR.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ReadError {
    /// Of a look-up that was not to wait for the device: the file and the position that it would have waited for.
    pub fn not_in_memory(&self) -> Option<(&Path, u64)> {
        match self {
            ReadError::Storage(error) if error.source.kind() == io::ErrorKind::WouldBlock => {
                Some((&error.path, error.position))
            }
            _ => None,
        }
    }

    /// The protocol's code, as each variant says.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            ReadError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            ReadError::Corrupt { .. } | ReadError::Storage(_) => ErrorCode::KafkaStorageError,
        }
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A file operation failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file holds what it must not.
    #[error("{path}: {cause}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A segment below the recovery point cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl RecoveryError {
    /// Whether the disk is full, so that the log can be opened once there is space.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, RecoveryError::Storage(error) if error.is_storage_full())
    }
}
