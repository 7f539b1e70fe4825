//! The folder of a cache.

use std::path::Path;

use kiln::cache::{DiskStat, DiskStore};

use crate::output::{Failure, Outcome, count};

/// Opens the cache in `folder`, and counts its files. Creates nothing. Refuses a folder that has
/// files but none of a cache; an empty folder is accepted.
pub(crate) fn store(folder: &Path) -> Result<(DiskStore, DiskStat), Failure> {
    let shown = folder.display();
    check_folder(folder)?;
    if !folder.exists() {
        return Err(Failure::new(format!("there is no folder {shown}")));
    }
    let store = DiskStore::new(folder);
    let stat = store.stat().map_err(|error| cannot(folder, &error))?;
    let own = stat.entries + stat.last_builds + stat.quarantined + stat.leftovers;
    if own == 0 && stat.foreign > 0 {
        let files = count(stat.foreign as usize, "file");
        return Err(Failure::new(format!("{shown} is not a cache: it has {files}, none of them of a cache")));
    }
    Ok((store, stat))
}

/// Refuses a path that exists and is not a folder.
pub(crate) fn check_folder(path: &Path) -> Outcome {
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => {
            Err(Failure::new(format!("{} is not a folder; a cache is a folder", path.display())))
        }
        // A build creates a folder that does not exist.
        _ => Ok(()),
    }
}

/// Returns the failure of an operation on a folder.
pub(crate) fn cannot(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::while_doing(format!("cache {}", folder.display()), error)
}

/// Returns a number of entries in words.
pub(crate) fn entries(number: u64) -> String {
    if number == 1 { "1 entry".into() } else { format!("{number} entries") }
}
