//! What is kept of a cluster whose scenario failed.

use std::path::{Path, PathBuf};

use super::Cluster;
use crate::paths::Paths;

/// Runs a scenario on a cluster; if it fails, or `COMPAT_KEEP` is set, the nodes' logs are kept in
/// `target/compat/kept`.
///
/// # Errors
/// Those of the scenario, and where the logs are.
pub fn keeping<T>(
    paths: &Paths,
    cluster: &mut Cluster,
    name: &str,
    scenario: impl FnOnce(&mut Cluster) -> Result<T, String>,
) -> Result<T, String> {
    let done = scenario(cluster).and_then(|done| cluster.expect_no_panic().map(|()| done));
    if done.is_ok() && std::env::var_os("COMPAT_KEEP").is_none() {
        return done;
    }
    let folder = format!("kept/{name}-{}-{}", cluster.side, std::process::id());
    let kept = match cluster.keep_logs(&paths.work.join(folder)) {
        Ok(folder) => format!("logs: {}", folder.display()),
        Err(e) => format!("no logs: {e}"),
    };
    match done {
        Ok(done) => {
            println!("{kept}");
            Ok(done)
        }
        Err(e) => Err(format!("{e}\n{kept}")),
    }
}

impl Cluster {
    /// Copies what the nodes printed into a folder, which is made.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn keep_logs(&self, folder: &Path) -> Result<PathBuf, String> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{folder:?}: {e}"))?;
        for id in self.ids() {
            let file = folder.join(format!("node-{id}.log"));
            std::fs::write(&file, self.node(id).log()).map_err(|e| format!("{file:?}: {e}"))?;
        }
        Ok(folder.to_owned())
    }
}
