//! The files that a command line names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::output::Failure;

/// Extension of files in text form.
pub(crate) const TEXT: &str = "clif";
/// Extension of files in binary form.
pub(crate) const BINARY: &str = "kir";

/// The `.clif` and `.kir` files that `paths` name, each once; folders are searched with those
/// inside them.
///
/// The files are in order of their paths, so the result of a build does not depend on the order of
/// arguments.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = BTreeSet::new();
    for path in paths {
        let error = |error| Failure::while_doing(format!("cannot read {}", path.display()), error);
        if std::fs::metadata(path).map_err(error)?.is_dir() {
            let before = files.len();
            search(path, &mut files).map_err(error)?;
            if files.len() == before {
                return Err(Failure::new(format!("no .clif or .kir file in folder {}", path.display())));
            }
        } else {
            files.insert(path.clone());
        }
    }
    // `a.clif` and `./a.clif` are the same file.
    let mut seen = BTreeSet::new();
    Ok(files.into_iter().filter(|file| seen.insert(file.canonicalize().unwrap_or(file.clone()))).collect())
}

fn search(folder: &Path, files: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        // The user of a folder of links wants them followed; a cycle ends with the system's limit
        // on links.
        if path.is_dir() {
            search(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == TEXT || extension == BINARY) {
            files.insert(path);
        }
    }
    Ok(())
}
