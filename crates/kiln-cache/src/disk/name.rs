//! What files in a store's folder are called, and therefore are.
//!
//! `ab/cdef..` (2 and 62 digits of the key) is an entry, `ab/latest-..` the last key of a lineage, `ab/.kiln-new-..` what somebody is
//! writing, `quarantine/<64 digits>` an entry that is out of use. Everything else is foreign, and is neither read, counted against the
//! limit, nor removed.

use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{Key, Lineage};

const TEMPORARY: &str = ".kiln-new-";
const LATEST: &str = "latest-";
/// Folder of entries that are out of use.
pub(crate) const QUARANTINE: &str = "quarantine";
/// What the reason for a quarantine is called, behind the name of the entry.
pub(crate) const WHY: &str = ".why";

/// What a file is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Entry(Key),
    Latest,
    Temporary,
    Foreign,
}

/// Where the entry of `key` lies.
pub(crate) fn entry(folder: &Path, key: &Key) -> PathBuf {
    let name = key.to_string();
    folder.join(&name[..2]).join(&name[2..])
}

/// Where the last key of `lineage` lies.
pub(crate) fn latest(folder: &Path, lineage: &Lineage) -> PathBuf {
    let name = lineage.to_string();
    folder.join(&name[..2]).join(format!("{LATEST}{}", &name[2..]))
}

/// A name in `folder` that nobody else uses, here or on another machine.
pub(crate) fn temporary(folder: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    // The standard library's hash tables are seeded at random for each process.
    let random = std::hash::RandomState::new().hash_one(COUNTER.fetch_add(1, Relaxed));
    folder.join(format!("{TEMPORARY}{}-{random:016x}", std::process::id()))
}

/// Whether a name in the store's folder is that of a folder of entries.
pub(crate) fn is_shard(name: &str) -> bool {
    is_hex(name, 2)
}

fn is_hex(name: &str, len: usize) -> bool {
    name.len() == len && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What `name` in the folder of entries called `shard` is.
pub(crate) fn classify(shard: &str, name: &str) -> Kind {
    if let Ok(key) = format!("{shard}{name}").parse() {
        Kind::Entry(key)
    } else if name.starts_with(TEMPORARY) {
        Kind::Temporary
    } else if name.strip_prefix(LATEST).is_some_and(|rest| is_hex(rest, 30)) {
        Kind::Latest
    } else {
        Kind::Foreign
    }
}

/// Whether `name` in the quarantine is ours.
pub(crate) fn is_quarantined(name: &str) -> bool {
    is_hex(name.strip_suffix(WHY).unwrap_or(name), 64)
}
