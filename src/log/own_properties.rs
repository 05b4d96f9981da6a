//! `ottla.properties` of a log directory whose `meta.properties` stays in version 0: as a Kafka with ZooKeeper wrote
//! it, and as that Kafka must find it again. It refuses version 1, and keys of our own that differ between directories.
//!
//! Here stand the directory's id (KIP-858) and a digest of the `meta.properties` beside it. Such a Kafka writes that
//! file anew, with the time, whenever it has registered with ZooKeeper, so another digest says that it ran here since.
//!
//! Not here: `meta.properties` itself (`checkpoint.rs`).

use super::checkpoint::{self, META_PROPERTIES};
use super::error::{RecoveryError, StorageError};
use crate::env::Disk;
use ottla_protocol::{uuid_from_text, uuid_to_text};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use uuid::Uuid;

/// The file's name.
pub const OWN_PROPERTIES: &str = "ottla.properties";
const DIRECTORY_ID: &str = "directory.id";
const META_DIGEST: &str = "meta.properties.sha256";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnProperties {
    /// The directory's own id.
    pub directory_id: Uuid,
    /// Of the `meta.properties` with which the metadata log went last; empty before there was one.
    pub meta_digest: String,
}

/// Reads the file; `None` where it is not there.
///
/// # Errors
/// It cannot be read, or is malformed.
pub fn read(disk: &dyn Disk, log_dir: &Path) -> Result<Option<OwnProperties>, RecoveryError> {
    let path = log_dir.join(OWN_PROPERTIES);
    let bytes = match disk.read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StorageError::new("read", &path, e).into()),
    };
    let text = String::from_utf8_lossy(&bytes);
    let value = |name: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    match value(DIRECTORY_ID).as_deref().and_then(uuid_from_text) {
        Some(directory_id) => {
            let meta_digest = value(META_DIGEST).unwrap_or_default();
            Ok(Some(OwnProperties { directory_id, meta_digest }))
        }
        None => {
            Err(RecoveryError::Invalid { path, cause: format!("{DIRECTORY_ID} is not a valid id") })
        }
    }
}

/// Writes the file.
///
/// # Errors
/// It cannot be written.
pub fn write(disk: &dyn Disk, log_dir: &Path, own: &OwnProperties) -> Result<(), StorageError> {
    let id = uuid_to_text(own.directory_id);
    let text = format!("{DIRECTORY_ID}={id}\n{META_DIGEST}={}\n", own.meta_digest);
    let path = log_dir.join(OWN_PROPERTIES);
    disk.write_atomic(&path, text.as_bytes()).map_err(|e| StorageError::new("write", &path, e))
}

/// The digest of the directory's `meta.properties`; empty where there is none.
///
/// # Errors
/// The file cannot be read.
pub fn meta_digest(disk: &dyn Disk, log_dir: &Path) -> Result<String, RecoveryError> {
    let path = log_dir.join(META_PROPERTIES);
    match disk.read(&path) {
        Ok(bytes) => Ok(Sha256::digest(&bytes).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(StorageError::new("read", &path, e).into()),
    }
}

/// Whether nobody but this broker has started on the directory since its metadata log went last. Directories whose
/// `meta.properties` is ours are always.
///
/// # Errors
/// A file cannot be read.
pub fn is_undisturbed(disk: &dyn Disk, log_dir: &Path) -> Result<bool, RecoveryError> {
    match checkpoint::read_meta_properties(disk, log_dir)? {
        Some(meta) if meta.version == 0 => {
            let own = read(disk, log_dir)?;
            Ok(own.is_some_and(|own| {
                meta_digest(disk, log_dir).is_ok_and(|it| it == own.meta_digest)
            }))
        }
        _ => Ok(true),
    }
}
