//! What log directories have before a broker opens them: whether they need a cluster to be found for them.

use super::Settings;
use super::directories::DirectoryError;
use super::quorum::METADATA_DIR;
use super::start::StartError;
use super::takeover::TakeoverError;
use crate::env::Disk;
use crate::log::checkpoint::read_meta_properties;
use std::io;

/// What lies in the log directories, nothing of which is changed by looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirContents {
    /// The cluster that they were formatted for.
    pub cluster_id: Option<String>,
    /// The node that they were formatted for.
    pub node_id: Option<i32>,
    /// The metadata log has records, or a snapshot with its voters.
    pub has_metadata: bool,
    /// A Kafka with ZooKeeper left them (`meta.properties` of version 0): they were imported, or must be.
    pub is_zookeepers: bool,
}

impl LogDirContents {
    /// Looks.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn look(settings: &Settings, disk: &dyn Disk) -> Result<LogDirContents, StartError> {
        let mut contents = LogDirContents {
            cluster_id: None,
            node_id: None,
            has_metadata: false,
            is_zookeepers: false,
        };
        for log_dir in &settings.log_dirs {
            let meta = read_meta_properties(disk, log_dir).map_err(DirectoryError::from)?;
            let Some(meta) = meta else { continue };
            contents.is_zookeepers |= meta.version == 0;
            contents.cluster_id = contents.cluster_id.or(meta.cluster_id);
            contents.node_id = contents.node_id.or(meta.node_id);
        }
        let path = settings.metadata_log_dir.join(METADATA_DIR);
        let entries = match disk.list(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(TakeoverError::Unreadable { path, source }.into()),
        };
        let is_of_log = |name: &str| name.ends_with(".log") || name.ends_with(".checkpoint");
        contents.has_metadata = entries.iter().any(|it| it.len > 0 && is_of_log(&it.name));
        Ok(contents)
    }
}
