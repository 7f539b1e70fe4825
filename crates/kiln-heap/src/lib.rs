//! Snapshots of objects in memory: what is reachable from named roots becomes a module of data.
//!
#![doc = include_str!("../README.md")]
//!
//! # What is in it?
//!
//! - [`Visit`] is the interface of a run-time system: it says which [`Object`] a pointer leads to,
//!   and where an object has pointers. [`Registry`] is one for objects that are registered one by
//!   one.
//! - [`snapshot`] follows pointers from the [`Root`]s, and makes a [`Snapshot`]: an artifact of
//!   data, with a relocation for each pointer. A linker places it like the data of any module.
//!
//! # What is promised?
//!
//! - *Identity*: an object that is reached in several ways, or that reaches itself, is in the
//!   snapshot once. Pointers into the middle of an object keep their distance from its start.
//! - *Determinism*: objects are in the order in which they are found from the roots, breadth first.
//!   Two heaps of the same shape and content give the same bytes, wherever their objects are.
//! - *Consistency*: a snapshot is one state of the heap, or an error. Memory is read twice, the
//!   second time when all objects are found, and a difference is an error ([`Fault::Changed`]). So
//!   what was read is what the heap was at the moment between (a "double collect": Afek and others,
//!   Atomic Snapshots of Shared Memory, Journal of the ACM 40(4), 1993). The one change that this
//!   does not see is of a word that has its old value again at the second reading. Whoever cannot
//!   exclude that stops the other threads.
//! - *Proportion*: time and memory are in proportion to the objects and their pointers, and nothing
//!   is recursive. A visitor that lies about sizes, offsets or the places of objects gets an error.
//!
//! # Order in the image
//!
//! Objects are grouped by what a loader does to them, and then by [`Temperature`]; each group has
//! pages of its own, in a named section: `.heap.leaf` (immutable, no pointers), `.heap.linked`
//! (immutable, pointers into the program), `.heap.bound` (immutable, pointers to what has a name,
//! which may be the host's), `.heap.written` and `.heap.written.bound` (mutable). The temperature
//! follows: `.heap.leaf.hot`. A loader that maps the image at its preferred address writes pages of
//! the groups that are bound, and no others.

#![deny(unsafe_code)]

mod collect;
mod error;
mod input;
mod memory;
mod object;
mod place;
mod registry;
mod snapshot;
mod write;

pub use error::{Fault, Path, SnapshotError};
pub use input::{Input, Name, Root};
pub use memory::Visit;
pub use object::{Object, Target, Temperature};
pub use registry::{Registry, RegistryError};
pub use snapshot::{Snapshot, Stats, snapshot};
