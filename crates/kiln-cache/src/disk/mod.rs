//! A store that keeps its entries in a folder.
//!
//! `name` defines the names of files, `folder` reads, writes and lists files, and `store`
//! implements the store on top of them. `latest` defines the file that names a last build, `writer`
//! identifies the process that writes a file, `quarantine` moves bad entries aside, `sweep` evicts,
//! and `survey` counts, checks and shrinks a whole folder.
//!
//! There is one file per key, named by the key, in a subfolder of its first byte. A file is written
//! under a temporary name in the subfolder `incoming` and renamed, so a reader sees it whole or not
//! at all, whatever happens to the writer, and the files that killed writers leave are all in one
//! folder. There is no index, no database and no lock: any number of processes may share the
//! folder, on a network file system too. A file's time of last use is its time of modification.
//!
//! Invariants: the content of a file is checked against its name; a file that has disappeared is a
//! miss; foreign files are left alone, and nothing but a regular file is read.
//!
//! Eviction looks at a sample of the files after some of the writes, so no build waits for a
//! cleanup, and processes need not agree on anything. Writes are not synced unless a client asks
//! for it: a checksum finds an entry that a power failure damaged, and compiling it again is cheap.

mod folder;
mod latest;
mod name;
mod quarantine;
mod store;
mod survey;
mod sweep;
mod writer;

pub(crate) use name::CLAIMS;

pub use folder::DiskStore;
pub use survey::{DiskStat, EntryInfo, GcReport, VerifyReport};
