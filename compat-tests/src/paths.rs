//! Where the suite finds its sources, keeps what it fetches, and finds the binary under test.
//!
//! Everything that is fetched or built lies below `target/compat`, so that `cargo clean` removes it.

use std::path::{Path, PathBuf};

/// The directories of one run.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The sources of this crate: poms, Java classes, transcripts.
    pub sources: PathBuf,
    /// Jars, compiled classes and logs.
    pub work: PathBuf,
    /// The `ottla` binary.
    pub ottla: PathBuf,
}

impl Paths {
    /// Derives them from the place of this program; `OTTLA_BIN` names another binary.
    ///
    /// # Errors
    /// If this program's own path is unknown or the work directory cannot be made.
    pub fn new() -> Result<Paths, String> {
        let exe = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
        let profile = exe.parent().unwrap_or(Path::new("."));
        let target = profile.parent().unwrap_or(Path::new("."));
        let work = target.join("compat");
        std::fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
        let ottla = std::env::var_os("OTTLA_BIN").map(PathBuf::from);
        Ok(Paths {
            sources: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
            work,
            ottla: ottla.unwrap_or_else(|| profile.join("ottla")),
        })
    }
}
