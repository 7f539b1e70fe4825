//! The files that the checks read: all files that Git tracks, and new files that Git does not
//! ignore.

use std::path::Path;
use std::process::Command;

use crate::output::Failure;

/// A file of the project: its path from the workspace's folder, and its text.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
}

/// Reads all files of the project that are text, in order of their paths.
pub(super) fn read(root: &Path) -> Result<Vec<Source>, Failure> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output =
        Command::new("git").current_dir(root).args(arguments).output().map_err(|error| {
            Failure::while_doing("cannot start git, which lists the files to check", error)
        })?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "git does not list the files to check: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        )));
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    let mut paths: Vec<&str> = listed.split_terminator('\0').collect();
    paths.sort_unstable();
    paths.dedup();
    // There is nothing to check in a file that was removed but is still tracked, or that is not
    // text.
    let source = |path: &str| {
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        Some(Source { path: path.to_owned(), text })
    };
    Ok(paths.into_iter().filter_map(source).collect())
}

impl Source {
    /// Whether the file ends with `.EXTENSION`.
    pub(super) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// Whether the file is Rust.
    pub(super) fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    /// Whether the file contains only test code.
    pub(super) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name == "tests.rs" || self.path.split('/').any(|folder| folder == "tests")
    }

    /// Whether the file is part of a library or program of the workspace, as opposed to its tests
    /// or benches.
    pub(super) fn is_of_a_crate(&self) -> bool {
        self.is_rust() && !self.is_test() && self.path.split('/').any(|folder| folder == "src")
    }
}

#[cfg(test)]
pub(super) fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_their_paths() {
        let is_test = |path| source(path, "").is_test();
        assert!(is_test("tests/suite/main.rs") && is_test("crates/a/src/link/tests.rs"));
        assert!(!is_test("crates/a/src/link.rs") && !is_test("src/contests.rs"));
        let is_of_a_crate = |path| source(path, "").is_of_a_crate();
        assert!(is_of_a_crate("src/lib.rs") && is_of_a_crate("crates/a/src/link/mod.rs"));
        assert!(!is_of_a_crate("benches/peers/main.rs") && !is_of_a_crate("crates/a/src/tests/model.rs"));
        assert!(!is_of_a_crate("src/notes.md"));
    }
}
