//! Entries in a folder.
//!
//! One file per key, named by the key, in a subfolder of its first byte. A file is written under a temporary name in the same folder
//! and renamed, so a reader sees it whole or not at all, whatever happens to the writer. There is no index, no database and no lock:
//! any number of processes may share the folder, on a network file system too. Last use is the time of modification.
//!
//! Invariants: what a name promises is checked when it is read; a file that vanished is a miss; nothing foreign is touched.

mod folder;
mod latest;
mod name;
mod quarantine;
mod store;
mod survey;
mod sweep;

pub use folder::DiskStore;
pub use survey::{DiskStat, EntryInfo, GcReport, VerifyReport};
