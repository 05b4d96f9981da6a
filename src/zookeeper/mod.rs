//! ZooKeeper's part: where brokers of old files find each other, and what a Kafka before KRaft left in one.
//!
//! [`meeting`] is how brokers meet at an address where one of them has the door ([`door`], [`server`], [`wire`]).
//!
//! The rest is read once to take log directories over: [`read`] copies Kafka's nodes from a server, [`Tree`] keeps them
//! and is the exported file, [`Cluster`] is what they mean. Deliberately not here: writing. A ZooKeeper stays as it is,
//! so that Kafka can start on it again.
//!
//! Source: the ZooKeeper programmer's guide; Kafka's `ZkData`, which is all there is about the nodes' content.

mod client;
mod cluster;
pub mod door;
pub mod meeting;
pub mod server;
mod tree;
pub mod wire;

pub use client::read;
pub use cluster::{Cluster, Entity, PartitionState, Topic};
pub use tree::Tree;

use std::path::{Path, PathBuf};

/// What `--from-zookeeper` names.
#[derive(Debug, Clone)]
pub enum Source {
    /// `none`: nothing is known but the log directories.
    Nothing,
    /// Nodes, read from a server or a file.
    Tree(Tree),
}

/// Why nothing came of ZooKeeper.
#[derive(Debug, thiserror::Error)]
pub enum ZooKeeperError {
    /// The server cannot be read.
    #[error("cannot read ZooKeeper at {address}: {cause}")]
    Server {
        /// Which.
        address: String,
        /// Why.
        cause: String,
    },
    /// It knows of no Kafka.
    #[error("ZooKeeper at {address} has no {path}: is the chroot of zookeeper.connect missing?")]
    NoKafka {
        /// Which.
        address: String,
        /// What every Kafka makes there.
        path: &'static str,
    },
    /// Brokers stay registered.
    #[error(
        "brokers {ids} are registered in ZooKeeper at {address}: Kafka is still running. Stop it, and then take its \
         directory over"
    )]
    Running {
        /// Where.
        address: String,
        /// Which brokers.
        ids: String,
    },
    /// The exported file cannot be read.
    #[error("cannot read {path}: {cause}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A node is not what Kafka writes there.
    #[error("ZooKeeper's node {path}: {cause}")]
    Node {
        /// Which.
        path: String,
        /// What is wrong.
        cause: String,
    },
}

impl Source {
    /// What `text` names: `none`, an exported file, or a server.
    ///
    /// # Errors
    /// Every [`ZooKeeperError`] of reading it.
    pub async fn open(
        text: &str,
        read_file: impl FnOnce(&Path) -> std::io::Result<Vec<u8>>,
    ) -> Result<Source, ZooKeeperError> {
        if text == "none" {
            return Ok(Source::Nothing);
        }
        let path = Path::new(text);
        match read_file(path) {
            Ok(bytes) => Tree::from_json(&bytes)
                .map(Source::Tree)
                .map_err(|cause| ZooKeeperError::File { path: path.to_owned(), cause }),
            // Not HOST:PORT[/chroot] nor HOST[/chroot]: such as ./a/b or /a/b.
            Err(error) if text.starts_with(['.', '/']) || text.ends_with(".json") => {
                Err(ZooKeeperError::File { path: path.to_owned(), cause: error.to_string() })
            }
            Err(_) => read(text).await.map(Source::Tree),
        }
    }
}

#[cfg(test)]
mod tests;
