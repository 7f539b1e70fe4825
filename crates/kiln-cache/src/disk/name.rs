//! The names of files in a store's folder, which say what the files are.
//!
//! - `ab/cdef..` (2 and 62 digits of the key) is an entry.
//! - `ab/latest-..` contains the key of a lineage's last build.
//! - `incoming/.kiln-new-..` is a file that is being written; the rest of the name identifies the
//!   process that writes it. Earlier versions wrote to `ab/.kiln-new-..`.
//! - `quarantine/<64 digits>` is an entry in quarantine; `<64 digits>.why` says why.
//! - `claims/<3 digits>` is empty, and locked by whoever compiles an entry whose key begins so.
//!
//! Everything else is foreign: it is not counted against the limit, not moved and not removed. A
//! file that has the name of an entry, but does not begin with the magic bytes of entries, is
//! foreign too.

use std::path::{Path, PathBuf};

use super::writer::Writer;

use crate::{Key, Lineage};

const TEMPORARY: &str = ".kiln-new-";
const LATEST: &str = "latest-";
/// The folder of files that are being written.
pub(crate) const INCOMING: &str = "incoming";
/// The folder of quarantined entries.
pub(crate) const QUARANTINE: &str = "quarantine";
/// The folder of claims.
pub(crate) const CLAIMS: &str = "claims";
/// The file with the reason of a quarantine has the name of the entry and this ending.
pub(crate) const WHY: &str = ".why";

/// The kind of a file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Entry(Key),
    Latest,
    Temporary,
    Foreign,
}

/// Returns the path of the entry of `key`.
pub(crate) fn entry(folder: &Path, key: &Key) -> PathBuf {
    let name = key.to_string();
    folder.join(&name[..2]).join(&name[2..])
}

/// Returns the path of the file with the key of `lineage`'s last build.
pub(crate) fn latest(folder: &Path, lineage: &Lineage) -> PathBuf {
    let name = lineage.to_string();
    folder.join(&name[..2]).join(format!("{LATEST}{}", &name[2..]))
}

/// Returns the lineage in the path of a file that [`latest`] names.
pub(crate) fn lineage(path: &Path) -> Option<Lineage> {
    let name = path.file_name()?.to_str()?.strip_prefix(LATEST)?;
    let shard = path.parent()?.file_name()?.to_str()?;
    format!("{shard}{name}").parse().ok()
}

/// Returns a path below `folder` that no other writer uses, here or on another machine.
pub(crate) fn temporary(folder: &Path) -> PathBuf {
    folder.join(INCOMING).join(format!("{TEMPORARY}{}", Writer::this().unique_name()))
}

/// Returns the process that writes the file `name` in the folder `incoming`; `None` if the name is
/// not the name of a temporary file.
pub(crate) fn writer(name: &str) -> Option<Writer> {
    Writer::of_name(name.strip_prefix(TEMPORARY)?)
}

/// Returns whether `name` is the name of a file of claims.
pub(crate) fn is_claim(name: &str) -> bool {
    is_hex(name, 3)
}

/// Returns whether `name` is the name of a subfolder of entries.
pub(crate) fn is_shard(name: &str) -> bool {
    is_hex(name, 2)
}

fn is_hex(name: &str, len: usize) -> bool {
    name.len() == len && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the kind of the file `name` in the subfolder `shard`.
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

/// Returns whether `name`, in the quarantine folder, is the name of an entry or of a file with a
/// reason.
pub(crate) fn is_quarantined(name: &str) -> bool {
    is_hex(name.strip_suffix(WHY).unwrap_or(name), 64)
}
