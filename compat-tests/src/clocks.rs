//! Wall clocks of brokers that are wrong, and jump.
//!
//! A process's time of day cannot be set apart from the machine's: time namespaces have other clocks only. So a library
//! (`tools/clock.c`) is preloaded that adds what a file says, one for each node.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::java::checked;

/// The clocks of some nodes; dropped, their files are removed.
pub struct Clocks {
    dir: TempDir,
    library: PathBuf,
}

impl Clocks {
    /// Builds the library, which is among this crate's sources. Each clock is right at first.
    ///
    /// # Errors
    /// If the library cannot be built or a file not be written.
    pub fn new(sources: &Path, nodes: &[i32]) -> Result<Clocks, String> {
        let dir = tempfile::tempdir().map_err(|e| format!("temporary directory: {e}"))?;
        let library = dir.path().join("clock.so");
        let mut build = Command::new("cc");
        build.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library);
        build.arg(sources.join("tools/clock.c")).arg("-ldl").stdin(Stdio::null());
        checked(&mut build, "cc")?;
        let clocks = Clocks { dir, library };
        for id in nodes {
            std::fs::write(clocks.file(*id), 0_i64.to_ne_bytes()).map_err(|e| e.to_string())?;
        }
        Ok(clocks)
    }

    /// What stands before the command line of a node that is to have its clock.
    pub fn prefix(&self, id: i32) -> [String; 3] {
        let set = |name: &str, path: &Path| format!("{name}={}", path.display());
        let clock = set("COMPAT_CLOCK", &self.file(id));
        ["env".to_owned(), set("LD_PRELOAD", &self.library), clock]
    }

    /// Sets a node's clock so many milliseconds ahead, or behind where that is negative.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set(&self, id: i32, ahead_ms: i64) -> Result<(), String> {
        use std::os::unix::fs::FileExt;
        let path = self.file(id);
        // In place: the node has it mapped.
        std::fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(&ahead_ms.to_ne_bytes(), 0))
            .map_err(|e| format!("{path:?}: {e}"))
    }

    fn file(&self, id: i32) -> PathBuf {
        self.dir.path().join(format!("ahead-{id}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_as_wrong_as_it_is_set() {
        let clocks = Clocks::new(Path::new(env!("CARGO_MANIFEST_DIR")), &[1]).unwrap();
        let seconds = |ahead_ms| {
            clocks.set(1, ahead_ms).unwrap();
            let prefix = clocks.prefix(1);
            let mut date = Command::new(&prefix[0]);
            let text = checked(date.args(&prefix[1..]).args(["date", "+%s"]), "date").unwrap();
            text.trim().parse::<i64>().unwrap()
        };
        let (before, ahead, behind) = (seconds(0), seconds(600_000), seconds(-600_500));
        assert!((600..=700).contains(&(ahead - before)), "{before} {ahead}");
        assert!((-601..=-500).contains(&(behind - before)), "{before} {behind}");
    }
}
